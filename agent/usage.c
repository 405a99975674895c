/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/augment-job.h"
#include "agent/in-use.h"
#include "agent/memory.h"
#include "agent/registry-session.h"
#include "agent/usage.h"
#include "augment/cache.h"
#include "augment/inventory.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "registry-client/registry.h"

#define USAGE_VERSION 1
#define USAGE_FILE_MAX (64U * 1024 * 1024)
#define USAGE_ENTRIES_MAX 100000U
#define SAVE_USEC (UINT64_C(60) * 1000000)
#define PUBLISH_SEC 600
#define DAY_SEC 86400
/* A manifest has to fit into what registries take. */
#define PUBLISHED_MAX (2U * 1024 * 1024)

struct Usage {
        Manager *manager;
        char *path;
        json_t *images;
        bool dirty;   /* not in the file */
        bool untold;  /* not in the registry */
        int64_t told; /* CLOCK_REALTIME s of the last try */
        sd_event_source *timer;
        InUse *in_use;
        RegistrySession *session;
        RegistryOp *op;
        RegistryRef *ref;
        char *manifest;
        size_t manifest_size;
};

static int64_t now_sec(void)
{
        return (int64_t) time(NULL);
}

static int load(Usage *u, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        _cleanup_error_ TbError *e = NULL;
        json_t *images = NULL;
        uint64_t version = 0;
        int r;

        r = tb_json_load_file(u->path, USAGE_FILE_MAX, &j, &e);
        if (r >= 0 &&
                (tb_json_get_u64(j, "version", &version, &e) <= 0 || version != USAGE_VERSION ||
                        tb_json_get_object(j, "images", &images, &e) <= 0))
                r = -EBADMSG;
        if (r < 0 && r != -ENOENT)
                log_warning("%s can't be used, so images count as seen for the first time: %s", u->path,
                        e ? tb_error_message(e) : "not of this version");
        u->images = images ? json_incref(images) : json_object();
        return u->images ? 0 : tb_error_oom(err);
}

static void save(Usage *u)
{
        _cleanup_json_ json_t *j = NULL;
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *text = NULL;
        size_t size;

        if (!u->dirty)
                return;
        j = json_pack("{s:i, s:O}", "version", USAGE_VERSION, "images", u->images);
        if (!j || tb_json_dump(j, true, &text, &size, &err) < 0 ||
                tb_mkdir_p(u->manager->config.state_dir, 0755, &err) < 0 ||
                tb_file_write_atomic(u->path, text, size, 0600, &err) < 0)
                log_warning("cannot keep when images were used: %s",
                        err ? tb_error_message(err) : "out of memory");
        else
                u->dirty = false;
}

/* ---- Telling the others ------------------------------------------------------------------------------------------ */

static void publish_end(Usage *u, const TbError *err)
{
        if (err)
                log_warning(
                        "cannot tell other hosts which images are in use here: %s", tb_error_message(err));
        if (u->op)
                memory_touch(u->manager); /* TLS and JSON: much, and not for long */
        u->op = registry_op_free(u->op);
        u->in_use = in_use_free(u->in_use);
        u->session = registry_session_unref(u->session);
        u->ref = registry_ref_free(u->ref);
        free(u->manifest);
        u->manifest = NULL;
}

static void on_published(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *copy = tb_error_copy(err);
        Usage *u = userdata;

        if (!copy)
                u->untold = false;
        publish_end(u, copy);
}

static void on_blob(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = tb_error_copy(err);
        Usage *u = userdata;

        u->op = registry_op_free(u->op);
        if (!error &&
                registry_put_manifest_start(registry_session_client(u->session), u->ref,
                        REGISTRY_TYPE_OCI_MANIFEST, u->manifest, u->manifest_size, on_published, u, &u->op,
                        &error) >= 0)
                return;
        publish_end(u, error);
}

/* {"<key>": used}; what containers use has -1: for as long as this is what the host says. */
static int document(const Usage *u, const json_t *used, char **ret, TbError **err)
{
        _cleanup_json_ json_t *doc = json_object();
        const char *key;
        json_t *entry;
        size_t size;
        int r;

        if (!doc)
                return tb_error_oom(err);
        json_object_foreach (u->images, key, entry) {
                json_int_t when = json_integer_value(json_object_get(entry, "used"));

                if (when > 0 && json_object_set_new(doc, key, json_integer(when)) < 0)
                        return tb_error_oom(err);
        }
        json_object_foreach ((json_t *) used, key, entry)
                if (json_object_set_new(doc, key, json_integer(-1)) < 0)
                        return tb_error_oom(err);
        r = tb_json_dump(doc, true, ret, &size, err);
        if (r >= 0 && size > PUBLISHED_MAX)
                r = tb_error_set(err, TB_ERROR_RESOURCE, -EFBIG, "there are too many");
        return r;
}

static int publish(Usage *u, const json_t *used, TbError **err)
{
        _cleanup_json_ json_t *manifest = NULL;
        _cleanup_free_ char *id = NULL, *text = NULL, *host = NULL;
        TbDigest empty;
        bool plain;
        int r;

        if ((r = tb_file_read("/etc/machine-id", 4096, &id, NULL, err)) < 0 ||
                (r = augment_registry_parse(u->manager->config.registry, &host, &plain, err)) < 0)
                return r;
        id[strspn(id, "0123456789abcdef")] = 0;
        if (strlen(id) != 32)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EBADMSG,
                        "/etc/machine-id is not set; run systemd-machine-id-setup");
        if ((r = registry_ref_new(host, AUGMENT_USAGE_REPOSITORY, id, NULL, &u->ref, err)) < 0 ||
                (r = tb_digest_of("{}", 2, &empty, err)) < 0 || (r = document(u, used, &text, err)) < 0)
                return r;
        manifest = json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:i}, s:[], s:{s:s}}", "schemaVersion", 2,
                "mediaType", REGISTRY_TYPE_OCI_MANIFEST, "artifactType", AUGMENT_USAGE_TYPE, "config",
                "mediaType", REGISTRY_TYPE_OCI_EMPTY, "digest", empty.text, "size", 2, "layers",
                "annotations", AUGMENT_USAGE_ANNOTATION, text);
        if (!manifest)
                return tb_error_oom(err);
        r = tb_json_dump(manifest, true, &u->manifest, &u->manifest_size, err);
        return r < 0 ? r
                     : registry_put_blob_start(registry_session_client(u->session), u->ref, "{}", 2, NULL,
                               on_blob, u, &u->op, err);
}

static void on_in_use(InUse *q, const json_t *used, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = tb_error_copy(err);
        Usage *u = userdata;

        if (!error && publish(u, used, &error) >= 0)
                return; /* the query goes with the rest, at the end */
        publish_end(u, error);
}

static void arm(Usage *u, uint64_t usec);

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        _cleanup_error_ TbError *err = NULL;
        Usage *u = userdata;
        int64_t due = u->told + PUBLISH_SEC - now_sec();

        u->timer = sd_event_source_disable_unref(u->timer);
        save(u);
        if (!u->untold || u->in_use)
                return 0;
        if (due > 0 && due <= PUBLISH_SEC) {
                arm(u, (uint64_t) due * 1000000);
                return 0;
        }
        u->told = now_sec();
        if (job_queue_session(u->manager->jobs, &u->session, &err) < 0 ||
                in_use_ask(u->manager, on_in_use, u, &u->in_use, &err) < 0)
                publish_end(u, err);
        return 0;
}

static void arm(Usage *u, uint64_t usec)
{
        if (!u->timer &&
                sd_event_add_time_relative(
                        u->manager->event, &u->timer, CLOCK_MONOTONIC, usec, 0, on_timer, u) < 0)
                log_warning("cannot set the timer of the images' use");
}

/* ---- Notes ------------------------------------------------------------------------------------------------------- */

int usage_new(Manager *m, Usage **ret, TbError **err)
{
        Usage *u = calloc(1, sizeof(*u));
        int r;

        if (!u)
                return tb_error_oom(err);
        u->manager = m;
        u->path = tb_asprintf("%s/images.json", m->config.state_dir);
        r = u->path ? load(u, err) : tb_error_oom(err);
        if (r < 0) {
                usage_free(u);
                return r;
        }
        *ret = u;
        return 0;
}

Usage *usage_free(Usage *u)
{
        if (!u)
                return NULL;
        if (u->images)
                save(u);
        publish_end(u, NULL);
        sd_event_source_disable_unref(u->timer);
        json_decref(u->images);
        free(u->path);
        free(u);
        return NULL;
}

static json_t *entry_of(Usage *u, const char *key)
{
        json_t *entry = json_object_get(u->images, key);

        if (entry || json_object_size(u->images) >= USAGE_ENTRIES_MAX)
                return entry;
        entry = json_pack("{s:I, s:i}", "seen", (json_int_t) now_sec(), "used", 0);
        if (!entry || json_object_set_new(u->images, key, entry) < 0)
                return NULL;
        u->dirty = true;
        arm(u, SAVE_USEC);
        return entry;
}

void usage_note(Usage *u, const char *image, const char *digest)
{
        const char *repository = image ? strchr(image, '/') : NULL, *last;
        _cleanup_free_ char *key = NULL;
        json_t *entry;

        if (!u || !repository || !digest || !digest[0])
                return;
        repository++;
        last = strrchr(repository, '/') ?: repository;
        key = tb_asprintf(
                "%.*s@%s", (int) ((size_t) (last - repository) + strcspn(last, ":@")), repository, digest);
        entry = key ? entry_of(u, key) : NULL;
        if (!entry || json_object_set_new(entry, "used", json_integer((json_int_t) now_sec())) < 0)
                return;
        u->dirty = true;
        usage_touch(u);
}

void usage_touch(Usage *u)
{
        if (!u)
                return;
        u->untold = true;
        arm(u, SAVE_USEC);
}

void usage_get(Usage *u, const char *key, int64_t *ret_seen, int64_t *ret_used)
{
        const json_t *entry = entry_of(u, key);
        json_int_t seen = json_integer_value(json_object_get(entry, "seen"));

        *ret_seen = seen > 0 ? seen : now_sec();
        *ret_used = json_integer_value(json_object_get(entry, "used"));
}

void usage_forget_others(Usage *u, const json_t *keys)
{
        const char *key;
        json_t *entry;
        void *next;

        json_object_foreach_safe(u->images, next, key, entry) if (!json_object_get(keys, key) &&
                json_integer_value(json_object_get(entry, "used")) < now_sec() - DAY_SEC &&
                json_object_del(u->images, key) >= 0)
        {
                u->dirty = true;
                arm(u, SAVE_USEC);
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/augment-job.h"
#include "agent/images.h"
#include "agent/in-use.h"
#include "agent/inventory-job.h"
#include "agent/project.h"
#include "agent/usage.h"
#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

struct ImagesJob {
        Manager *manager;
        ImagesJob *next;
        uid_t uid;
        bool prune, dry_run, holding;
        int64_t keep_sec;
        char *host;
        InventoryJob *inventory;
        InUse *in_use;
        json_t *report, *used;
        RegistrySession *session;
        RegistryOp *op;
        size_t index; /* of the item that is deleted */
        unsigned pass;
        json_t *removed;
        sd_event_source *later;
        ImagesFn done;
        void *userdata;
};

ImagesJob *images_job_free(ImagesJob *j)
{
        if (!j)
                return NULL;
        for (ImagesJob **p = &j->manager->images; *p; p = &(*p)->next)
                if (*p == j) {
                        *p = j->next;
                        break;
                }
        inventory_job_free(j->inventory);
        in_use_free(j->in_use);
        registry_op_free(j->op);
        registry_session_unref(j->session);
        sd_event_source_disable_unref(j->later);
        if (j->holding)
                job_queue_release(j->manager->jobs);
        json_decref(j->report);
        json_decref(j->used);
        json_decref(j->removed);
        free(j->host);
        free(j);
        return NULL;
}

static void finish(ImagesJob *j, const json_t *result, const TbError *err)
{
        j->done(result, err, j->userdata);
        images_job_free(j);
}

static json_t *items_of(const ImagesJob *j)
{
        return json_object_get(j->report, "items");
}

/* ---- Merging ----------------------------------------------------------------------------------------------------- */

/* When it was used on any host; what a host's containers use (-1) is used now. */
static int64_t used_elsewhere(const ImagesJob *j, const char *key, int64_t now, bool *ret_in_use)
{
        int64_t last = 0;
        json_t *host;
        size_t i;

        json_array_foreach (json_object_get(j->report, "usage"), i, host) {
                json_int_t when = json_integer_value(json_object_get(host, key));

                *ret_in_use = *ret_in_use || when == -1;
                when = when == -1 ? now : MIN2((int64_t) when, now);
                last = MAX2(last, (int64_t) when);
        }
        return last;
}

/* "last", "seen", "used", "in_use" of each item. */
static int merge(ImagesJob *j, TbError **err)
{
        _cleanup_json_ json_t *keys = json_object();
        int64_t now = (int64_t) time(NULL);
        json_t *item;
        size_t i;

        if (!keys)
                return tb_error_oom(err);
        json_array_foreach (items_of(j), i, item) {
                const char *repository = NULL, *digest = NULL;
                _cleanup_free_ char *key = NULL;
                int64_t seen, used, last;
                bool elsewhere = false;
                json_t *names;
                int r;

                if ((r = tb_json_get_string(item, "repository", &repository, err)) < 0 ||
                        (r = tb_json_get_string(item, "digest", &digest, err)) < 0)
                        return r;
                key = tb_asprintf("%s@%s", repository ?: "", digest ?: "");
                if (!key || json_object_set_new(keys, key, json_true()) < 0)
                        return tb_error_oom(err);
                usage_get(j->manager->usage, key, &seen, &used);
                used = MAX2(used, used_elsewhere(j, key, now, &elsewhere));
                last = MAX2(used, seen);
                names = json_deep_copy(json_object_get(j->used, key)) ?: json_array();
                if (elsewhere && json_array_size(names) == 0)
                        (void) json_array_append_new(names, json_string("(another host)"));
                if (json_object_set_new(item, "in_use", names) < 0 ||
                        json_object_set_new(item, "seen", json_integer((json_int_t) seen)) < 0 ||
                        json_object_set_new(item, "used", json_integer((json_int_t) used)) < 0 ||
                        json_object_set_new(item, "last", json_integer((json_int_t) last)) < 0)
                        return tb_error_oom(err);
        }
        usage_forget_others(j->manager->usage, keys);
        return 0;
}

/* As the API shows an item. */
static json_t *item_to_json(const ImagesJob *j, const json_t *item)
{
        static const char *const copied[] = {"repository", "project", "kind", "digest", "tags", "index",
                "size", "platform", "level", "source", "base", "in_use", NULL};
        _cleanup_json_ json_t *out = json_object();
        const char *repository = json_string_value(json_object_get(item, "repository"));
        const char *digest = json_string_value(json_object_get(item, "digest"));
        int64_t now = (int64_t) time(NULL), seen = json_integer_value(json_object_get(item, "seen"));
        json_int_t used = json_integer_value(json_object_get(item, "used"));
        char when[EVENT_TIME_MAX];

        for (const char *const *k = copied; out && *k; k++) {
                json_t *value = json_object_get(item, *k);

                if (value && json_object_set(out, *k, value) < 0)
                        return NULL;
        }
        if (!out ||
                json_object_set_new(out, "image",
                        json_sprintf("%s/%s@%s", j->host, repository ?: "", digest ?: "")) < 0 ||
                json_object_set_new(out, "age_s", json_integer((json_int_t) MAX2(now - seen, (int64_t) 0))) <
                        0 ||
                json_object_set_new(out, "last_used",
                        used > 0 ? json_string(event_time_format(when, (uint64_t) used * 1000000))
                                 : json_null()) < 0)
                return NULL;
        return TAKE_PTR(out);
}

static int64_t grace_of(const ImagesJob *j)
{
        return (int64_t) (j->manager->config.prune_grace_usec / 1000000);
}

static bool is_image(const json_t *item)
{
        const char *kind = json_string_value(json_object_get(item, "kind"));

        return tb_streq(kind, "mirror") || tb_streq(kind, "augmented");
}

static void answer_list(ImagesJob *j)
{
        _cleanup_json_ json_t *list = json_array(), *result = NULL;
        _cleanup_error_ TbError *err = NULL;
        json_t *item;
        size_t i;

        json_array_foreach (items_of(j), i, item) {
                const char *project = json_string_value(json_object_get(item, "project"));

                if (!is_image(item) || (project && !project_may_act(j->uid, project)))
                        continue;
                if (json_array_append_new(list, item_to_json(j, item)) < 0)
                        (void) tb_error_oom(&err);
        }
        result = json_pack("{s:O, s:O}", "images", list, "bytes", json_object_get(j->report, "bytes"));
        if (!result && !err)
                (void) tb_error_oom(&err);
        finish(j, err ? NULL : result, err);
}

/* ---- Removing ---------------------------------------------------------------------------------------------------- */

/* Indexes before what they consist of, augmented images before what is noted about bases, bases last: whatever is left when
 * it is cut short is whole. */
static unsigned pass_of(const json_t *item)
{
        const char *kind = json_string_value(json_object_get(item, "kind"));
        bool index = json_is_true(json_object_get(item, "index"));

        if (tb_streq(kind, "augmented"))
                return index ? 0 : 1;
        if (tb_streq(kind, "mirror"))
                return index ? 3 : 4;
        return 2;
}
#define PASSES 5U

static void remove_next(ImagesJob *j);

/* Stays though it is older than was asked for, and nobody has it. */
static bool is_young(const ImagesJob *j, const json_t *item)
{
        int64_t age = (int64_t) time(NULL) - json_integer_value(json_object_get(item, "last"));

        return is_image(item) && age >= j->keep_sec && age <= grace_of(j) &&
                json_array_size(json_object_get(item, "in_use")) == 0;
}

static void answer_prune(ImagesJob *j)
{
        size_t kept = 0, young = 0, i;
        uint64_t bytes = 0;
        json_t *item, *result;
        TbError *err = NULL;

        json_array_foreach (items_of(j), i, item)
                if (!json_is_true(json_object_get(item, "remove"))) {
                        kept++;
                        young += is_young(j, item);
                } else
                        bytes += (uint64_t) json_integer_value(json_object_get(item, "size"));
        result = json_pack("{s:O, s:I, s:I, s:I, s:I, s:b}", "removed", j->removed, "kept",
                (json_int_t) kept, "young", (json_int_t) young, "grace_s", (json_int_t) grace_of(j), "bytes",
                (json_int_t) bytes, "dry_run", (int) j->dry_run);
        if (!result)
                (void) tb_error_oom(&err);
        else if (!j->dry_run && json_array_size(j->removed) > 0)
                log_info(
                        "removed %zu images from the registry, %zu stay", json_array_size(j->removed), kept);
        finish(j, result, err);
        json_decref(result);
        tb_error_free(err);
}

static int on_later(sd_event_source *s, void *userdata)
{
        ImagesJob *j = userdata;

        j->later = sd_event_source_disable_unref(j->later);
        remove_next(j);
        return 0;
}

/* Not from inside the callback of what it frees. */
static void remove_later(ImagesJob *j)
{
        _cleanup_error_ TbError *err = NULL;
        int r = sd_event_add_defer(j->manager->event, &j->later, on_later, j);

        if (r < 0) {
                (void) tb_error_set_errno(&err, TB_ERROR_SYSTEM, r, "cannot go on");
                finish(j, NULL, err);
        }
}

static void on_deleted(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = tb_error_copy(err);
        ImagesJob *j = userdata;

        j->op = registry_op_free(j->op);
        if (error && error->code == -EOPNOTSUPP) {
                tb_error_prefix(
                        &error, "images can't be removed (docker-registry: set storage.delete.enabled)");
                finish(j, NULL, error);
        } else if (error)
                finish(j, NULL, error);
        else {
                j->index++;
                remove_later(j);
        }
}

static int start_delete(ImagesJob *j, const json_t *item, TbError **err)
{
        const char *repository = json_string_value(json_object_get(item, "repository"));
        const char *digest = json_string_value(json_object_get(item, "digest"));
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        TbDigest d;
        int r;

        if ((r = tb_digest_parse(digest ?: "", &d, err)) < 0 ||
                (r = registry_ref_new(j->host, repository ?: "", NULL, &d, &ref, err)) < 0)
                return r;
        return registry_delete_manifest_start(
                registry_session_client(j->session), ref, on_deleted, j, &j->op, err);
}

static void remove_next(ImagesJob *j)
{
        _cleanup_error_ TbError *err = NULL;
        json_t *items = items_of(j);

        for (; j->pass < PASSES; j->pass++, j->index = 0)
                for (; j->index < json_array_size(items); j->index++) {
                        json_t *item = json_array_get(items, j->index);

                        if (!json_is_true(json_object_get(item, "remove")) || pass_of(item) != j->pass)
                                continue;
                        if (json_array_append_new(j->removed, item_to_json(j, item)) < 0)
                                (void) tb_error_oom(&err);
                        else if (j->dry_run)
                                continue;
                        else if (start_delete(j, item, &err) >= 0)
                                return;
                        finish(j, NULL, err);
                        return;
                }
        answer_prune(j);
}

static void prune(ImagesJob *j)
{
        _cleanup_error_ TbError *err = NULL;
        int64_t keep = MAX2(j->keep_sec, grace_of(j));

        j->removed = json_array();
        if (!j->removed)
                (void) tb_error_oom(&err);
        if (!j->removed || images_decide(items_of(j), (int64_t) time(NULL), keep, &err) < 0 ||
                job_queue_session(j->manager->jobs, &j->session, &err) < 0)
                finish(j, NULL, err);
        else
                remove_later(j);
}

/* ---- Steps ------------------------------------------------------------------------------------------------------- */

static void on_in_use(InUse *q, const json_t *used, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = tb_error_copy(err);
        ImagesJob *j = userdata;

        j->used = json_incref((json_t *) used);
        j->in_use = in_use_free(j->in_use);
        /* A list is of use without an engine, too. */
        if ((error && j->prune) || merge(j, &error) < 0)
                finish(j, NULL, error);
        else if (j->prune)
                prune(j);
        else
                answer_list(j);
}

static void on_inventory(InventoryJob *i, const AugmentResult *result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = tb_error_copy(err);
        ImagesJob *j = userdata;

        if (!error && (!result->report || !json_is_array(json_object_get(result->report, "items"))))
                (void) tb_error_set(&error, TB_ERROR_BUG, -EBADMSG, "the worker gave no inventory");
        if (error) {
                finish(j, NULL, error);
                return;
        }
        j->report = json_deep_copy(result->report);
        j->inventory = inventory_job_free(j->inventory);
        if (!j->report)
                (void) tb_error_oom(&error);
        else if (in_use_ask(j->manager, on_in_use, j, &j->in_use, &error) >= 0)
                return;
        else if (!j->prune) {
                error = tb_error_free(error);
                if (merge(j, &error) >= 0) {
                        answer_list(j);
                        return;
                }
        }
        finish(j, NULL, error);
}

static void start_inventory(void *userdata)
{
        _cleanup_error_ TbError *err = NULL;
        ImagesJob *j = userdata;

        if (inventory_job_start(j->manager, on_inventory, j, &j->inventory, &err) < 0)
                finish(j, NULL, err);
}

static int job_new(Manager *m, ImagesFn done, void *userdata, ImagesJob **ret, TbError **err)
{
        ImagesJob *j = calloc(1, sizeof(*j));
        bool plain;
        int r;

        if (!j)
                return tb_error_oom(err);
        j->manager = m;
        j->done = done;
        j->userdata = userdata;
        r = augment_registry_parse(m->config.registry, &j->host, &plain, err);
        if (r < 0) {
                free(j);
                return r;
        }
        j->next = m->images;
        m->images = j;
        *ret = j;
        return 0;
}

int images_list(Manager *m, uid_t uid, ImagesFn done, void *userdata, ImagesJob **ret, TbError **err)
{
        ImagesJob *j;
        int r;

        r = job_new(m, done, userdata, &j, err);
        if (r < 0)
                return r;
        j->uid = uid;
        r = inventory_job_start(m, on_inventory, j, &j->inventory, err);
        if (r < 0) {
                images_job_free(j);
                return r;
        }
        *ret = j;
        return 0;
}

int images_prune(Manager *m, int64_t keep_sec, bool dry_run, ImagesFn done, void *userdata, ImagesJob **ret,
        TbError **err)
{
        ImagesJob *j;
        int r;

        r = job_new(m, done, userdata, &j, err);
        if (r < 0)
                return r;
        j->prune = true;
        j->dry_run = dry_run;
        j->keep_sec = keep_sec;
        r = job_queue_hold(m->jobs, start_inventory, j, err);
        if (r < 0) {
                images_job_free(j);
                return r;
        }
        j->holding = true;
        *ret = j;
        return 0;
}

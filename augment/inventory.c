/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/base-files.h"
#include "augment/cache.h"
#include "augment/config.h"
#include "augment/facts.h"
#include "augment/inventory.h"
#include "augment/record.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

typedef struct Inventory {
        RegistryClient *client;
        char *host;
        json_t *items, *usage;
        json_t *blobs; /* digest -> size, each once */
} Inventory;

static void inventory_done(Inventory *v)
{
        registry_client_free(v->client);
        free(v->host);
        json_decref(v->items);
        json_decref(v->usage);
        json_decref(v->blobs);
}

/* "[projects/<p>/](mirror|augmented)/..." */
static int classify(const char *repository, const char **ret_kind, char **ret_project, const char **ret_name)
{
        const char *rest = tb_startswith(repository, "projects/"), *slash;
        _cleanup_free_ char *project = NULL;

        if (rest) {
                slash = strchr(rest, '/');
                if (!slash)
                        return 0;
                project = strndup(rest, (size_t) (slash - rest));
                if (!project)
                        return -ENOMEM;
                repository = slash + 1;
        }
        if ((rest = tb_startswith(repository, "mirror/")))
                *ret_kind = "mirror";
        else if ((rest = tb_startswith(repository, "augmented/")))
                *ret_kind = "augmented";
        else
                return 0;
        *ret_name = rest;
        *ret_project = TAKE_PTR(project);
        return 1;
}

static int count_blob(Inventory *v, const RegistryDescriptor *d, uint64_t *size, TbError **err)
{
        if (d->foreign)
                return 0;
        *size += d->size;
        return tb_json_set_u64(v->blobs, d->digest.text, d->size, err);
}

/* Labels and platform are in the configuration, whatever the manifest's type. A configuration that can't be read makes no
 * item unreadable. */
static int describe_image(
        Inventory *v, const RegistryRef *ref, const RegistryManifest *m, json_t *item, TbError **err)
{
        _cleanup_json_ json_t *config = NULL;
        _cleanup_free_ char *data = NULL;
        _cleanup_error_ TbError *e = NULL;
        const char *os = NULL, *arch = NULL, *variant = NULL, *text = NULL;
        json_t *inner = NULL, *labels = NULL;
        size_t size;
        int r;

        if (registry_get_blob(v->client, ref, &m->config.digest, m->config.size, IMAGE_CONFIG_MAX, &data,
                    &size, &e) < 0 ||
                tb_json_parse(data, size, IMAGE_CONFIG_MAX, "configuration", &config, &e) < 0)
                return 0;
        os = json_string_value(json_object_get(config, "os"));
        arch = json_string_value(json_object_get(config, "architecture"));
        variant = json_string_value(json_object_get(config, "variant"));
        if (os && arch) {
                _cleanup_free_ char *platform =
                        tb_asprintf("%s/%s%s%s", os, arch, variant ? "/" : "", variant ?: "");

                if (!platform)
                        return tb_error_oom(err);
                r = tb_json_set_string(item, "platform", platform, err);
                if (r < 0)
                        return r;
        }
        if (tb_json_get_object(config, "config", &inner, NULL) <= 0 ||
                tb_json_get_object(inner, "Labels", &labels, NULL) <= 0)
                return 0;
        if (tb_json_get_string(labels, AUGMENT_LABEL_LEVEL, &text, NULL) > 0 &&
                (r = tb_json_set_string(item, "level", text, err)) < 0)
                return r;
        if (!tb_streq(json_string_value(json_object_get(item, "kind")), "augmented"))
                return 0;
        if (tb_json_get_string(labels, AUGMENT_LABEL_BASE_NAME, &text, NULL) > 0 &&
                (r = tb_json_set_string(item, "source", text, err)) < 0)
                return r;
        return tb_json_get_string(labels, AUGMENT_LABEL_BASE_DIGEST, &text, NULL) > 0
                ? tb_json_set_string(item, "base", text, err)
                : 0;
}

/* "docker.io/library/nginx:1.25": a mirror is named as upstream. */
static int describe_source(json_t *item, const char *name, char *const *tags, TbError **err)
{
        const char *tag = NULL;
        _cleanup_free_ char *text = NULL;

        for (char *const *t = tags; *t && !tag; t++)
                if (!tb_startswith(*t, "d-"))
                        tag = *t;
        text = tb_asprintf("%s%s%s", name, tag ? ":" : "", tag ?: "");
        return text ? tb_json_set_string(item, "source", text, err) : tb_error_oom(err);
}

static int describe(Inventory *v, const RegistryRef *ref, const RegistryManifest *m, const char *name,
        char *const *tags, json_t *item, TbError **err)
{
        bool index = registry_manifest_is_index(m), mirror;
        const char *kind = json_string_value(json_object_get(item, "kind"));
        uint64_t size = m->size;
        const char *text = NULL;
        json_t *list = json_array(), *annotations = NULL;
        int r;

        r = tb_json_set_new(item, "children", list, err);
        mirror = tb_streq(kind, "mirror");
        if (tb_streq(m->artifact_type, BASE_FILES_TYPE))
                r = r < 0 ? r : tb_json_set_string(item, "kind", "facts", err);
        else if (tb_streq(m->artifact_type, BASE_RECORD_TYPE))
                r = r < 0 ? r : tb_json_set_string(item, "kind", "record", err);
        else if (index) {
                for (size_t i = 0; r >= 0 && i < m->n_entries; i++)
                        if (json_array_append_new(list, json_string(m->entries[i].digest.text)) < 0)
                                r = tb_error_oom(err);
                if (r >= 0 && tb_json_get_object(m->json, "annotations", &annotations, NULL) > 0) {
                        if (tb_json_get_string(annotations, AUGMENT_LABEL_LEVEL, &text, NULL) > 0)
                                r = tb_json_set_string(item, "level", text, err);
                        if (r >= 0 && !mirror &&
                                tb_json_get_string(annotations, AUGMENT_LABEL_BASE_NAME, &text, NULL) > 0)
                                r = tb_json_set_string(item, "source", text, err);
                }
        } else {
                for (size_t i = 0; r >= 0 && i < m->n_layers; i++)
                        r = count_blob(v, &m->layers[i], &size, err);
                if (r >= 0)
                        r = count_blob(v, &m->config, &size, err);
                if (r >= 0)
                        r = describe_image(v, ref, m, item, err);
        }
        if (r >= 0 && mirror)
                r = describe_source(item, name, tags, err);
        if (r >= 0)
                r = tb_json_set_bool(item, "index", index, err);
        return r < 0 ? r : tb_json_set_u64(item, "size", size, err);
}

/* Several tags of one manifest are one item. */
static int add_manifest(Inventory *v, const char *repository, const char *kind, const char *project,
        const char *name, const char *digest, json_t *tags, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_error_ TbError *e = NULL;
        _cleanup_strv_ char **list = NULL;
        _cleanup_json_ json_t *holder = json_pack("{s:O}", "tags", tags);
        TbDigest d;
        json_t *item;
        int r;

        if (!holder)
                return tb_error_oom(err);
        if ((r = tb_json_get_strv(holder, "tags", &list, err)) < 0 ||
                (r = tb_digest_parse(digest, &d, err)) < 0 ||
                (r = registry_ref_new(v->host, repository, NULL, &d, &ref, err)) < 0)
                return r;
        r = registry_get_manifest(v->client, ref, &m, &e);
        if (r == -ENOENT || r == -EOPNOTSUPP || r == -EBADMSG || r == -EPROTO)
                return 0; /* gone meanwhile, or nothing of ours */
        if (r < 0)
                return tb_error_move(err, &e);
        if (json_array_size(v->items) >= INVENTORY_ITEMS_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -E2BIG, "the registry holds more than %u images",
                        INVENTORY_ITEMS_MAX);
        item = json_pack("{s:s, s:s*, s:s, s:s, s:O}", "repository", repository, "project", project, "kind",
                kind, "digest", digest, "tags", tags);
        if (!item || json_array_append_new(v->items, item) < 0)
                return tb_error_oom(err);
        return describe(v, ref, m, name, list, item, err);
}

static int add_repository(Inventory *v, const char *repository, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_(registry_names_freep) char **tags = NULL;
        _cleanup_json_ json_t *by_digest = json_object();
        _cleanup_free_ char *project = NULL;
        _cleanup_error_ TbError *e = NULL;
        const char *kind, *name, *digest;
        json_t *list;
        int r;

        r = classify(repository, &kind, &project, &name);
        if (r <= 0)
                return r < 0 ? tb_error_oom(err) : 0;
        if (!by_digest)
                return tb_error_oom(err);
        r = registry_ref_new(v->host, repository, "latest", NULL, &ref, err);
        if (r < 0)
                return r;
        r = registry_list_tags(v->client, ref, &tags, &e);
        if (r < 0)
                return r == -ENOENT ? 0 : tb_error_move(err, &e);
        for (char **t = tags; *t; t++) {
                _cleanup_registry_descriptor_ RegistryDescriptor d = {};
                _cleanup_(registry_ref_freep) RegistryRef *tagged = NULL;

                if ((r = registry_ref_with(ref, *t, NULL, &tagged, err)) < 0 ||
                        (r = registry_resolve(v->client, tagged, &d, err)) < 0)
                        return r;
                if (r == 0)
                        continue;
                list = json_object_get(by_digest, d.digest.text);
                if (!list) {
                        list = json_array();
                        if (json_object_set_new(by_digest, d.digest.text, list) < 0)
                                return tb_error_oom(err);
                }
                if (json_array_append_new(list, json_string(*t)) < 0)
                        return tb_error_oom(err);
        }
        json_object_foreach (by_digest, digest, list) {
                r = add_manifest(v, repository, kind, project, name, digest, list, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* What hosts have said; what is no such document is as good as none. */
static int add_usage(Inventory *v, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_(registry_names_freep) char **tags = NULL;
        _cleanup_error_ TbError *e = NULL;
        int r;

        r = registry_ref_new(v->host, AUGMENT_USAGE_REPOSITORY, "latest", NULL, &ref, err);
        if (r < 0)
                return r;
        r = registry_list_tags(v->client, ref, &tags, &e);
        if (r < 0)
                return r == -ENOENT ? 0 : tb_error_move(err, &e);
        for (char **t = tags; *t; t++) {
                _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
                _cleanup_(registry_ref_freep) RegistryRef *tagged = NULL;
                _cleanup_error_ TbError *ignored = NULL;
                json_t *annotations = NULL, *doc = NULL;
                const char *text = NULL;

                r = registry_ref_with(ref, *t, NULL, &tagged, err);
                if (r < 0)
                        return r;
                r = registry_get_manifest(v->client, tagged, &m, &ignored);
                if (r < 0 && r != -ENOENT)
                        return tb_error_move(
                                err, &ignored); /* without it, what another host uses would go */
                if (r < 0 || !tb_streq(m->artifact_type, AUGMENT_USAGE_TYPE) ||
                        tb_json_get_object(m->json, "annotations", &annotations, NULL) <= 0 ||
                        tb_json_get_string(annotations, AUGMENT_USAGE_ANNOTATION, &text, NULL) <= 0 ||
                        tb_json_parse(text, strlen(text), REGISTRY_MANIFEST_MAX, "usage", &doc, NULL) < 0)
                        continue;
                if (json_array_append_new(v->usage, doc) < 0)
                        return tb_error_oom(err);
        }
        return 0;
}

static int collect(Inventory *v, TbError **err)
{
        _cleanup_(registry_names_freep) char **repositories = NULL;
        int r;

        r = registry_list_repositories(v->client, v->host, &repositories, err);
        for (char **n = repositories; r >= 0 && *n; n++)
                r = add_repository(v, *n, err);
        return r < 0 ? r : add_usage(v, err);
}

int augment_inventory(
        const AugmentRequest *request, const AugmentRunHooks *hooks, json_t **ret, TbError **err)
{
        _cleanup_(inventory_done)
                Inventory v = {.items = json_array(), .usage = json_array(), .blobs = json_object()};
        uint64_t bytes = 0;
        const char *digest;
        json_t *size;
        bool plain;
        int r;

        if (!v.items || !v.usage || !v.blobs)
                return tb_error_oom(err);
        if ((r = augment_registry_parse(request->registry, &v.host, &plain, err)) < 0 ||
                (r = registry_client_new(NULL, &v.client, err)) < 0 ||
                (r = augment_client_setup(v.client, request, err)) < 0 ||
                (hooks->prepared && (r = hooks->prepared(hooks->userdata, err)) < 0) ||
                (r = collect(&v, err)) < 0) {
                tb_error_prefix(err, "cannot list what the testbed's registry holds");
                return r;
        }
        json_object_foreach (v.blobs, digest, size)
                bytes += (uint64_t) json_integer_value(size);
        *ret = json_pack("{s:O, s:O, s:I}", "items", v.items, "usage", v.usage, "bytes", (json_int_t) bytes);
        return *ret ? 0 : tb_error_oom(err);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What refers to a manifest (distribution-spec "Listing Referrers", "Unavailable Referrers API")
 *
 * The API first: an index, in pages, filtered by the registry when it says so (OCI-Filters-Applied) and else by us. A
 * registry without it (404; old ones also 400, 405, or something that is no index) is asked for the tag under which clients
 * keep the list, put-manifest.c among them.
 */

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define REFERRERS_MAX 10000U
#define CALL_TIMEOUT_USEC (60 * USEC_PER_SEC)

typedef struct ReferrersOp {
        RegistryOp op;
        const RegistryRef *subject; /* the caller's: sync only */
        const char *artifact_type;
        RegistryHost *host;
        RegistryCall *call;
        RegistryPages seen;
        RegistryReferrers list;
} ReferrersOp;

void registry_referrers_done(RegistryReferrers *r)
{
        for (size_t i = 0; i < r->n_entries; i++)
                registry_descriptor_done(r->entries + i);
        free(r->entries);
        *r = (RegistryReferrers){0};
}

char *registry_referrers_tag(const TbDigest *digest)
{
        return tb_asprintf("sha256-%s", tb_digest_hex(digest));
}

/* ---- lists ---- */

int registry_referrers_take(RegistryReferrers *list, const char *body, size_t size, const char *content_type,
        const char *artifact_type, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *index = NULL;
        RegistryDescriptor *v;
        int r;

        r = registry_manifest_parse(body, size, content_type, NULL, &index, err);
        if (r < 0)
                return r;
        if (!registry_manifest_is_index(index))
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "the list of referrers is not an index");
        if (index->n_entries > REFERRERS_MAX - list->n_entries)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EMSGSIZE, "more than %u referrers", REFERRERS_MAX);
        v = reallocarray(list->entries, list->n_entries + index->n_entries + 1, sizeof(*v));
        if (!v)
                return tb_error_oom(err);
        list->entries = v;
        for (size_t i = 0; i < index->n_entries; i++) {
                if (artifact_type && !tb_streq(index->entries[i].artifact_type, artifact_type))
                        continue;
                r = registry_descriptor_copy(index->entries + i, v + list->n_entries, err);
                if (r < 0)
                        return r;
                list->n_entries++;
        }
        return 0;
}

int registry_referrers_entry(const RegistryManifest *m, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *entry = json_object();
        const char *type = m->artifact_type ? m->artifact_type : m->config.media_type;
        json_t *annotations = NULL;
        int r;

        if (!entry)
                return tb_error_oom(err);
        r = tb_json_get_object(m->json, "annotations", &annotations, err);
        if (r < 0)
                return r;
        if ((r = tb_json_set_string(
                     entry, "mediaType", registry_manifest_kind_to_media_type(m->kind), err)) < 0 ||
                (r = tb_json_set_string(entry, "digest", m->digest.text, err)) < 0 ||
                (r = tb_json_set_u64(entry, "size", m->size, err)) < 0 ||
                (type && (r = tb_json_set_string(entry, "artifactType", type, err)) < 0) ||
                (annotations &&
                        (r = tb_json_set_new(entry, "annotations", json_incref(annotations), err)) < 0))
                return r;
        *ret = TAKE_PTR(entry);
        return 0;
}

static json_t *empty_index(void)
{
        return json_pack(
                "{s:i, s:s, s:[]}", "schemaVersion", 2, "mediaType", REGISTRY_TYPE_OCI_INDEX, "manifests");
}

int registry_referrers_add(
        const RegistryManifest *index, json_t *entry, char **ret, size_t *ret_size, TbError **err)
{
        _cleanup_json_ json_t *doc = NULL;
        const char *digest = json_string_value(json_object_get(entry, "digest"));
        char *text;
        size_t size;
        int r;

        if (index && !registry_manifest_is_index(index))
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                        "the tag for the list of referrers names something else; it is left alone");
        for (size_t i = 0; index && i < index->n_entries; i++)
                if (tb_streq(index->entries[i].digest.text, digest)) {
                        *ret = NULL;
                        return 0;
                }
        if (index && index->n_entries >= REGISTRY_INDEX_ENTRIES_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "the list of referrers has %zu entries; no more than %u can be kept in a tag",
                        index->n_entries, REGISTRY_INDEX_ENTRIES_MAX);
        doc = index ? json_deep_copy(index->json) : empty_index();
        if (!doc || json_array_append(json_object_get(doc, "manifests"), entry) < 0)
                return tb_error_oom(err);
        r = tb_json_dump(doc, false, &text, &size, err);
        if (r < 0)
                return r;
        if (size > REGISTRY_MANIFEST_MAX) {
                free(text);
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "the list of referrers would be larger than %u bytes", REGISTRY_MANIFEST_MAX);
        }
        *ret = text;
        *ret_size = size;
        return 0;
}

/* ---- asking for them ---- */

static void referrers_destroy(RegistryOp *op)
{
        ReferrersOp *o = (ReferrersOp *) op;

        registry_call_free(o->call);
        free(o->seen.hashes);
        registry_referrers_done(&o->list);
}

static int get(ReferrersOp *o, const char *url,
        void (*done)(RegistryCall *call, const TbError *err, void *userdata), TbError **err)
{
        static const char *const headers[] = {"Accept: " REGISTRY_TYPE_OCI_INDEX, NULL};
        _cleanup_free_ char *scope = tb_asprintf("repository:%s:pull", o->subject->repository);
        RegistryCallOptions options = {
                .host = o->host,
                .method = "GET",
                .url = url,
                .headers = headers,
                .scopes = {scope},
                .response_max = REGISTRY_MANIFEST_MAX,
                .timeout_usec = CALL_TIMEOUT_USEC,
                .done = done,
                .userdata = o,
        };

        if (!scope)
                return tb_error_oom(err);
        o->call = registry_call_free(o->call);
        return registry_call_start(o->op.client, &options, &o->call, err);
}

static void on_tag(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        ReferrersOp *o = userdata;
        unsigned status = registry_call_status(call);
        const char *body;
        size_t size;
        int r = 0;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        o->list.by_tag = true;
        body = registry_call_body(call, &size);
        if (status == 200)
                r = registry_referrers_take(&o->list, body, size, registry_call_header(call, "Content-Type"),
                        o->artifact_type, &e);
        else if (status != 404)
                r = registry_status_error(
                        call, &e, "cannot list the referrers of %s", o->subject->digest.text);
        if (r < 0) {
                (void) tb_error_prefix(&e, "%s/%s", o->subject->host, o->subject->repository);
                registry_op_fail(&o->op, e);
        } else
                registry_op_finish(&o->op, 0, NULL);
}

static int get_tag(ReferrersOp *o, TbError **err)
{
        _cleanup_free_ char *tag = registry_referrers_tag(&o->subject->digest), *url = NULL;

        url = tag ? registry_host_url(o->host, "%s/manifests/%s", o->subject->repository, tag) : NULL;
        return url ? get(o, url, on_tag, err) : tb_error_oom(err);
}

static bool has_no_api(const RegistryCall *call)
{
        unsigned status = registry_call_status(call);
        const char *type = registry_call_header(call, "Content-Type");

        return status == 404 || status == 400 || status == 405 || status == 501 ||
                (status == 200 && registry_manifest_kind_from_media_type(type) != REGISTRY_OCI_INDEX);
}

static bool filtered(const RegistryCall *call)
{
        const char *h = registry_call_header(call, "OCI-Filters-Applied");

        return h && strstr(h, "artifactType");
}

static void on_page(RegistryCall *call, const TbError *err, void *userdata);

/* 1 = more comes, 0 = that was all. */
static int take_page(ReferrersOp *o, RegistryCall *call, TbError **err)
{
        const char *header = registry_call_header(call, "Link"), *body;
        _cleanup_free_ char *target = NULL, *url = NULL;
        size_t size;
        int r;

        if (o->seen.n == 0 && has_no_api(call)) {
                r = get_tag(o, err);
                return r < 0 ? r : 1;
        }
        if (registry_call_status(call) != 200)
                return registry_status_error(
                        call, err, "cannot list the referrers of %s", o->subject->digest.text);
        body = registry_call_body(call, &size);
        r = registry_referrers_take(&o->list, body, size, registry_call_header(call, "Content-Type"),
                filtered(call) ? NULL : o->artifact_type, err);
        if (r < 0)
                return r;
        r = header ? registry_link_next(header, &target, err) : 0;
        if (r <= 0)
                return r;
        r = registry_pages_next(&o->seen, call, target, &url, err);
        if (r >= 0)
                r = get(o, url, on_page, err);
        return r < 0 ? r : 1;
}

static void on_page(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        ReferrersOp *o = userdata;
        int r;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        r = take_page(o, call, &e);
        if (r < 0)
                registry_op_fail(&o->op, e);
        else if (r == 0)
                registry_op_finish(&o->op, 0, NULL);
}

int registry_list_referrers(RegistryClient *c, const RegistryRef *subject, const char *artifact_type,
        RegistryReferrers *ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        _cleanup_free_ char *url = NULL;
        ReferrersOp *o;
        int r;

        if (!tb_digest_is_set(&subject->digest))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%s/%s: referrers are listed for a digest; resolve the tag first", subject->host,
                        subject->repository);
        op = registry_op_new(c, sizeof(ReferrersOp), referrers_destroy, NULL, NULL, err);
        if (!op)
                return -ENOMEM;
        o = (ReferrersOp *) op;
        o->subject = subject;
        o->artifact_type = artifact_type;
        r = registry_client_get_host(c, subject->host, &o->host, err);
        if (r < 0)
                return r;
        url = registry_host_url(o->host, "%s/referrers/%s", subject->repository, subject->digest.text);
        if (!url)
                return tb_error_oom(err);
        if (artifact_type) {
                char *longer;

                r = registry_url_add_query(url, "artifactType", artifact_type, &longer, err);
                if (r < 0)
                        return r;
                free(url);
                url = longer;
        }
        r = get(o, url, on_page, err);
        if (r >= 0)
                r = registry_op_wait(op, err);
        if (r < 0)
                return r;
        *ret = o->list;
        o->list = (RegistryReferrers){0};
        return 0;
}

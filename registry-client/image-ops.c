/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Operations on manifests and the registry itself: ping, resolve, get, delete. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define CALL_TIMEOUT_USEC (60 * USEC_PER_SEC)
#define INDEX_DEPTH_MAX 4U
#define INDEX_FETCHES_MAX 32U

/* All of what we can read: a registry that has the image in another form may convert it or refuse. */
static const char accept_header[] =
        "Accept: " REGISTRY_TYPE_OCI_INDEX ", " REGISTRY_TYPE_DOCKER_LIST ", " REGISTRY_TYPE_OCI_MANIFEST
        ", " REGISTRY_TYPE_DOCKER_MANIFEST ", " REGISTRY_TYPE_OCI_ARTIFACT;

typedef struct ImageOp {
        RegistryOp op;
        RegistryRef *ref;
        RegistryHost *host;
        RegistryCall *call;
        bool deleting; /* the operation is a delete whose first step is a resolve */
} ImageOp;

static void image_op_destroy(RegistryOp *op)
{
        ImageOp *o = (ImageOp *) op;

        registry_call_free(o->call);
        registry_ref_free(o->ref);
}

static void image_op_freep(ImageOp **o)
{
        if (*o)
                registry_op_free(&(*o)->op);
}

static int image_op_new(RegistryClient *c, const RegistryRef *ref, RegistryDoneFn done, void *userdata,
        ImageOp **ret, TbError **err)
{
        _cleanup_(image_op_freep) ImageOp *o = NULL;
        int r;

        o = registry_op_new(c, sizeof(*o), image_op_destroy, done, userdata, err);
        if (!o)
                return -ENOMEM;
        r = registry_ref_new(ref->host, ref->repository, ref->tag, &ref->digest, &o->ref, err);
        if (r < 0)
                return r;
        r = registry_client_get_host(c, ref->host, &o->host, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(o);
        return 0;
}

static char *ref_text(const ImageOp *o)
{
        return tb_asprintf("%s%s%s", o->ref->repository, tb_digest_is_set(&o->ref->digest) ? "@" : ":",
                registry_ref_selector(o->ref));
}

/* Starts the next exchange of this operation on manifests/<selector>. */
static int manifest_call(ImageOp *o, const char *method, const char *selector, const char *actions,
        RegistryCallOptions *options, TbError **err)
{
        _cleanup_free_ char *url = NULL, *scope = NULL;

        url = registry_host_url(o->host, "%s/manifests/%s", o->ref->repository, selector);
        scope = tb_asprintf("repository:%s:%s", o->ref->repository, actions);
        if (!url || !scope)
                return tb_error_oom(err);
        options->host = o->host;
        options->method = method;
        options->url = url;
        options->scopes[0] = scope;
        options->timeout_usec = CALL_TIMEOUT_USEC;
        options->userdata = o;
        o->call = registry_call_free(o->call);
        return registry_call_start(o->op.client, options, &o->call, err);
}

static int manifest_read(
        ImageOp *o, const char *method, void (*done)(RegistryCall *, const TbError *, void *), TbError **err)
{
        const char *headers[] = {accept_header, NULL};
        RegistryCallOptions options = {
                .headers = headers,
                .response_max = REGISTRY_MANIFEST_MAX,
                .done = done,
        };

        return manifest_call(o, method, registry_ref_selector(o->ref), "pull", &options, err);
}

static void op_fail_with(ImageOp *o, TbError **err)
{
        _cleanup_error_ TbError *e = TAKE_PTR(*err);

        registry_op_fail(&o->op, e);
}

/* ---- ping ---- */

typedef struct PingOp {
        RegistryOp op;
        RegistryCall *call;
} PingOp;

static void ping_destroy(RegistryOp *op)
{
        registry_call_free(((PingOp *) op)->call);
}

static void on_ping(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryOp *op = userdata;
        unsigned status = registry_call_status(call);

        if (!err && status == 200) {
                registry_op_finish(op, 0, NULL);
                return;
        }
        if (!err && status == 404)
                (void) tb_error_set(&e, TB_ERROR_REMOTE, -EPROTO,
                        "%s: no registry answers there (HTTP 404 for /v2/); check the host and port",
                        registry_call_host(call)->name);
        else if (!err)
                (void) registry_status_error(call, &e, "ping");
        registry_op_fail(op, err ? err : e);
}

int registry_ping_start(RegistryClient *c, const char *host, RegistryDoneFn done, void *userdata,
        RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        _cleanup_free_ char *url = NULL;
        RegistryCallOptions o = {.method = "GET", .timeout_usec = CALL_TIMEOUT_USEC, .done = on_ping};
        int r;

        r = registry_client_get_host(c, host, &o.host, err);
        if (r < 0)
                return r;
        op = registry_op_new(c, sizeof(PingOp), ping_destroy, done, userdata, err);
        if (!op)
                return -ENOMEM;
        url = registry_host_url(o.host, "%s", "");
        if (!url)
                return tb_error_oom(err);
        o.url = url;
        o.userdata = op;
        r = registry_call_start(c, &o, &((PingOp *) op)->call, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

int registry_ping(RegistryClient *c, const char *host, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r = registry_ping_start(c, host, NULL, NULL, &op, err);

        return r < 0 ? r : registry_op_wait(op, err);
}

/* ---- resolve (and the first half of delete) ---- */

static void on_delete(RegistryCall *call, const TbError *err, void *userdata);

static int start_delete(ImageOp *o, const char *digest, TbError **err)
{
        RegistryCallOptions options = {.done = on_delete};

        return manifest_call(o, "DELETE", digest, "delete,pull", &options, err);
}

static void resolved(ImageOp *o)
{
        _cleanup_error_ TbError *e = NULL;

        if (!o->deleting) {
                registry_op_finish(&o->op, 1, NULL);
                return;
        }
        if (start_delete(o, o->op.descriptor.digest.text, &e) < 0)
                op_fail_with(o, &e);
}

static int descriptor_set(
        RegistryDescriptor *d, const char *media_type, const TbDigest *digest, uint64_t size)
{
        char *copy = strdup(media_type);

        if (!copy)
                return -ENOMEM;
        registry_descriptor_done(d);
        *d = (RegistryDescriptor){.media_type = copy, .digest = *digest, .size = size};
        return 0;
}

/* The manifest in an answer; it has the digest that was asked for, or, when nobody named one, that of the answer's own
 * header, if there is one: a proxy that mixes up two answers must not go unnoticed. */
static int read_manifest(const ImageOp *o, RegistryCall *call, RegistryManifest **ret, TbError **err)
{
        _cleanup_free_ char *text = ref_text(o);
        const char *header = registry_call_header(call, "Docker-Content-Digest"), *body;
        TbDigest expected = o->ref->digest;
        size_t size;
        int r = 0;

        if (!tb_digest_is_set(&expected) && header && *header)
                r = tb_digest_parse(header, &expected, err);
        if (r == -EOPNOTSUPP) { /* another algorithm: nothing to compare with */
                if (err)
                        *err = tb_error_free(*err);
                expected = (TbDigest){0};
        } else if (r < 0) {
                tb_error_prefix(err, "%s: Docker-Content-Digest", o->host->name);
                return r;
        }
        body = registry_call_body(call, &size);
        r = registry_manifest_parse(
                body, size, registry_call_header(call, "Content-Type"), &expected, ret, err);
        if (r < 0)
                tb_error_prefix(err, "%s: %s", o->host->name, text ? text : "manifest");
        return r;
}

/* The HEAD did not tell enough: the manifest itself was fetched. */
static void on_resolve_get(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *text = NULL;
        ImageOp *o = userdata;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        if (registry_call_status(call) == 404) {
                registry_op_finish(&o->op, 0, NULL);
                return;
        }
        text = ref_text(o);
        if (registry_call_status(call) != 200)
                (void) registry_status_error(call, &e, "cannot resolve %s", text ? text : "manifest");
        else if (read_manifest(o, call, &m, &e) >= 0 &&
                descriptor_set(&o->op.descriptor, registry_manifest_kind_to_media_type(m->kind), &m->digest,
                        m->size) < 0)
                (void) tb_error_oom(&e);
        if (e)
                op_fail_with(o, &e);
        else
                resolved(o);
}

/* 1 = the HEAD told all, 0 = it did not, negative = it lied. */
static int read_head(ImageOp *o, RegistryCall *call, TbError **err)
{
        const char *type = registry_call_header(call, "Content-Type");
        const char *digest_text = registry_call_header(call, "Docker-Content-Digest");
        const char *length = registry_call_header(call, "Content-Length");
        RegistryManifestKind kind = registry_manifest_kind_from_media_type(type);
        uint64_t size = 0;
        TbDigest digest;
        int r;

        if (!digest_text || kind < 0 || !length)
                return 0;
        r = tb_digest_parse(digest_text, &digest, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s: Docker-Content-Digest", o->host->name);
                return r;
        }
        if (tb_digest_is_set(&o->ref->digest) && !tb_digest_equal(&digest, &o->ref->digest))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: asked for %s, the registry answers about %s", o->host->name,
                        o->ref->digest.text, digest.text);
        if (tb_parse_u64(length, 1, UINT64_MAX, &size, NULL) < 0)
                return 0;
        if (size > REGISTRY_MANIFEST_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s: the manifest is larger than %u bytes", o->host->name, REGISTRY_MANIFEST_MAX);
        if (descriptor_set(&o->op.descriptor, registry_manifest_kind_to_media_type(kind), &digest, size) < 0)
                return tb_error_oom(err);
        return 1;
}

static void on_head(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *text = NULL;
        ImageOp *o = userdata;
        unsigned status;
        int r;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        status = registry_call_status(call);
        if (status == 404) {
                registry_op_finish(&o->op, 0, NULL);
                return;
        }
        /* Some old registries have no HEAD for manifests. */
        if (status == 200)
                r = read_head(o, call, &e);
        else if (status == 405 || status == 501)
                r = 0;
        else {
                text = ref_text(o);
                r = registry_status_error(call, &e, "cannot resolve %s", text ? text : "manifest");
        }
        if (r == 0)
                r = manifest_read(o, "GET", on_resolve_get, &e) < 0 ? -EIO : 0;
        if (r > 0)
                resolved(o);
        else if (r < 0)
                op_fail_with(o, &e);
}

static int resolve_start(RegistryClient *c, const RegistryRef *ref, bool deleting, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(image_op_freep) ImageOp *o = NULL;
        int r;

        r = image_op_new(c, ref, done, userdata, &o, err);
        if (r < 0)
                return r;
        o->deleting = deleting;
        if (deleting && tb_digest_is_set(&ref->digest))
                r = start_delete(o, ref->digest.text, err);
        else
                r = manifest_read(o, "HEAD", on_head, err);
        if (r < 0)
                return r;
        *ret = &TAKE_PTR(o)->op;
        return 0;
}

int registry_resolve_start(RegistryClient *c, const RegistryRef *ref, RegistryDoneFn done, void *userdata,
        RegistryOp **ret, TbError **err)
{
        return resolve_start(c, ref, false, done, userdata, ret, err);
}

int registry_resolve(RegistryClient *c, const RegistryRef *ref, RegistryDescriptor *ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r;

        r = registry_resolve_start(c, ref, NULL, NULL, &op, err);
        if (r < 0)
                return r;
        r = registry_op_wait(op, err);
        if (r <= 0)
                return r;
        *ret = op->descriptor;
        op->descriptor = (RegistryDescriptor){0};
        return 1;
}

/* ---- delete ---- */

/* 1 = gone, 0 = was not there. */
static int delete_result(RegistryCall *call, const char *what, TbError **err)
{
        unsigned status = registry_call_status(call);

        if (status == 202 || status == 200 || status == 204)
                return 1;
        if (status == 404)
                return 0;
        if (status == 405)
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "%s: cannot delete %s: the registry does not allow deletion; for docker-registry "
                        "set "
                        "storage.delete.enabled to true",
                        registry_call_host(call)->name, what);
        return registry_status_error(call, err, "cannot delete %s", what);
}

static void on_delete(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *text = NULL;
        ImageOp *o = userdata;
        int r;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        text = ref_text(o);
        r = delete_result(call, text ? text : "manifest", &e);
        if (r < 0)
                op_fail_with(o, &e);
        else
                registry_op_finish(&o->op, r, NULL);
}

int registry_delete_manifest_start(RegistryClient *c, const RegistryRef *ref, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        return resolve_start(c, ref, true, done, userdata, ret, err);
}

int registry_delete_manifest(RegistryClient *c, const RegistryRef *ref, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r = registry_delete_manifest_start(c, ref, NULL, NULL, &op, err);

        return r < 0 ? r : registry_op_wait(op, err);
}

/* Registries without it answer 400 (a tag is no digest), 405 or UNSUPPORTED. */
static void on_delete_tag(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        ImageOp *o = userdata;
        unsigned status = registry_call_status(call);
        int r;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        if (status == 400 || status == 405 || status == 501)
                r = tb_error_set(&e, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "%s: cannot delete the tag %s:%s alone: this registry deletes only manifests, with "
                        "all their tags",
                        o->host->name, o->ref->repository, o->ref->tag);
        else
                r = delete_result(call, o->ref->tag, &e);
        if (r < 0)
                op_fail_with(o, &e);
        else
                registry_op_finish(&o->op, r, NULL);
}

int registry_delete_tag(RegistryClient *c, const RegistryRef *ref, TbError **err)
{
        RegistryCallOptions options = {.done = on_delete_tag};
        _cleanup_(image_op_freep) ImageOp *o = NULL;
        int r;

        if (!ref->tag)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s/%s: no tag to delete is named",
                        ref->host, ref->repository);
        r = image_op_new(c, ref, NULL, NULL, &o, err);
        if (r < 0)
                return r;
        r = manifest_call(o, "DELETE", ref->tag, "delete,pull", &options, err);
        return r < 0 ? r : registry_op_wait(&o->op, err);
}

/* ---- get ---- */

static void on_get(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *text = NULL;
        ImageOp *o = userdata;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        text = ref_text(o);
        if (registry_call_status(call) != 200)
                (void) registry_status_error(call, &e, "cannot get manifest %s", text ? text : "?");
        else
                (void) !read_manifest(o, call, &o->op.manifest, &e);
        if (e)
                op_fail_with(o, &e);
        else
                registry_op_finish(&o->op, 0, NULL);
}

int registry_get_manifest_start(RegistryClient *c, const RegistryRef *ref, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(image_op_freep) ImageOp *o = NULL;
        int r;

        r = image_op_new(c, ref, done, userdata, &o, err);
        if (r < 0)
                return r;
        r = manifest_read(o, "GET", on_get, err);
        if (r < 0)
                return r;
        *ret = &TAKE_PTR(o)->op;
        return 0;
}

int registry_get_manifest(RegistryClient *c, const RegistryRef *ref, RegistryManifest **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r;

        r = registry_get_manifest_start(c, ref, NULL, NULL, &op, err);
        if (r < 0)
                return r;
        r = registry_op_wait(op, err);
        if (r < 0)
                return r;
        *ret = registry_op_steal_manifest(op);
        return 0;
}

/* A walk through nested indexes. */
typedef struct ImageSearch {
        RegistryClient *client;
        const RegistryRef *ref;
        const RegistryPlatform *platform;
        unsigned fetches;
} ImageSearch;

static int find_image(ImageSearch *s, const RegistryManifest *index, unsigned depth, RegistryManifest **ret,
        TbError **err);

/* What an entry names, or the image inside when that is an index. */
static int find_in_entry(
        ImageSearch *s, const RegistryDescriptor *d, unsigned depth, RegistryManifest **ret, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *child = NULL;
        int r;

        if (depth > INDEX_DEPTH_MAX || ++s->fetches > INDEX_FETCHES_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s/%s: indexes nested deeper than %u, or more than %u of them", s->ref->host,
                        s->ref->repository, INDEX_DEPTH_MAX, INDEX_FETCHES_MAX);
        r = registry_ref_with(s->ref, NULL, &d->digest, &child, err);
        if (r < 0)
                return r;
        r = registry_get_manifest(s->client, child, &m, err);
        if (r < 0)
                return r;
        if (registry_manifest_is_index(m))
                return find_image(s, m, depth, ret, err);
        *ret = TAKE_PTR(m);
        return 0;
}

static int find_image(
        ImageSearch *s, const RegistryManifest *index, unsigned depth, RegistryManifest **ret, TbError **err)
{
        const RegistryDescriptor *best;
        int r;

        r = registry_manifest_select(index, s->platform, &best, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s/%s", s->ref->host, s->ref->repository);
                return r;
        }
        if (best->platform.os)
                return find_in_entry(s, best, depth + 1, ret, err);
        /* Nothing names our platform; each entry that names none may lead to it. */
        for (const RegistryDescriptor *d = best; d < index->entries + index->n_entries; d++) {
                RegistryManifestKind kind = registry_manifest_kind_from_media_type(d->media_type);
                _cleanup_error_ TbError *e = NULL;

                if (d->platform.os || d->attestation || kind < 0 || kind == REGISTRY_OCI_ARTIFACT)
                        continue;
                r = find_in_entry(s, d, depth + 1, ret, &e);
                if (r != -ENOENT)
                        return r < 0 ? tb_error_move(err, &e) : r;
        }
        return registry_manifest_no_platform(index, s->platform, err);
}

int registry_get_image(RegistryClient *c, const RegistryRef *ref, const RegistryPlatform *platform,
        RegistryManifest **ret, RegistryManifest **ret_top, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL, *top = NULL;
        ImageSearch s = {.client = c, .ref = ref, .platform = platform};
        int r;

        r = registry_get_manifest(c, ref, &m, err);
        if (r < 0)
                return r;
        if (registry_manifest_is_index(m)) {
                top = TAKE_PTR(m);
                r = find_image(&s, top, 0, &m, err);
                if (r < 0)
                        return r;
        }
        if (m->kind == REGISTRY_OCI_ARTIFACT)
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "%s/%s: is an artifact (%s), not an image", ref->host, ref->repository,
                        m->artifact_type ? m->artifact_type : "of no type");
        *ret = TAKE_PTR(m);
        if (ret_top && top)
                *ret_top = TAKE_PTR(top);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Pushing manifests (distribution-spec "Pushing Manifests", "Pushing Manifests with Subject")
 *
 *         PUSHING -> done                           the usual case
 *            |-> WAITING -> READING -> LISTING -> done
 *
 * A registry that keeps referrers itself says so with OCI-Subject. For one that does not, the client keeps the list: an
 * index under the tag "sha256-<hex of the subject>". Changing it is read, add, write: two that do this at a time would lose
 * one entry, so those of one client wait for each other (WAITING). Against other clients the specification offers nothing.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define CALL_TIMEOUT_USEC (60 * USEC_PER_SEC)

typedef struct RegistryPutOp PutOp;

struct RegistryPutOp {
        RegistryOp op;
        RegistryRef *ref;
        RegistryHost *host;
        RegistryCall *call;
        TbDigest pushed;  /* of the bytes */
        TbDigest subject; /* unset = none */
        json_t *entry;    /* of the list of referrers */
        char *list_tag;
        PutOp *next; /* in client->subject_updates */
        bool queued;
};

static void read_list(PutOp *o);

/* Out of the queue; who comes next may begin. */
static void leave_queue(PutOp *o)
{
        PutOp **p = &o->op.client->subject_updates, *head = *p;

        if (!o->queued)
                return;
        for (; *p; p = &(*p)->next)
                if (*p == o) {
                        *p = o->next;
                        break;
                }
        o->queued = false;
        if (head == o && o->op.client->subject_updates)
                read_list(o->op.client->subject_updates);
}

static void put_destroy(RegistryOp *op)
{
        PutOp *o = (PutOp *) op;

        registry_call_free(o->call);
        leave_queue(o);
        registry_ref_free(o->ref);
        json_decref(o->entry);
        free(o->list_tag);
}

static void put_freep(PutOp **o)
{
        if (*o)
                registry_op_free(&(*o)->op);
}

static char *ref_text(const PutOp *o)
{
        return tb_asprintf("%s%s%s", o->ref->repository, tb_digest_is_set(&o->ref->digest) ? "@" : ":",
                registry_ref_selector(o->ref));
}

static void fail(PutOp *o, TbError **err)
{
        _cleanup_error_ TbError *e = TAKE_PTR(*err);

        leave_queue(o);
        registry_op_fail(&o->op, e);
}

static int manifest_call(
        PutOp *o, const char *method, const char *selector, RegistryCallOptions *options, TbError **err)
{
        _cleanup_free_ char *url = NULL, *scope = NULL;

        url = registry_host_url(o->host, "%s/manifests/%s", o->ref->repository, selector);
        scope = tb_asprintf("repository:%s:pull,push", o->ref->repository);
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

/* ---- the list of referrers ---- */

static void on_listed(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        PutOp *o = userdata;
        unsigned status = registry_call_status(call);

        if (err)
                e = tb_error_copy(err);
        else if (status != 201 && status != 200 && status != 202)
                (void) registry_status_error(call, &e, "cannot list %s as a referrer in %s:%s",
                        o->pushed.text, o->ref->repository, o->list_tag);
        leave_queue(o);
        if (err || e)
                registry_op_fail(&o->op, e);
        else
                registry_op_finish(&o->op, 0, NULL);
}

/* 1 = the new list is on its way, 0 = it says so already. */
static int write_list(PutOp *o, RegistryCall *call, TbError **err)
{
        static const char *const headers[] = {"Content-Type: " REGISTRY_TYPE_OCI_INDEX, NULL};
        _cleanup_(registry_manifest_freep) RegistryManifest *index = NULL;
        RegistryCallOptions options = {.headers = headers, .done = on_listed};
        _cleanup_free_ char *list = NULL;
        const char *body;
        size_t size;
        int r;

        if (registry_call_status(call) != 404) {
                if (registry_call_status(call) != 200)
                        return registry_status_error(call, err, "cannot get the list of referrers %s:%s",
                                o->ref->repository, o->list_tag);
                body = registry_call_body(call, &size);
                r = registry_manifest_parse(
                        body, size, registry_call_header(call, "Content-Type"), NULL, &index, err);
                if (r < 0) {
                        (void) tb_error_prefix(
                                err, "%s: %s:%s", o->host->name, o->ref->repository, o->list_tag);
                        return r;
                }
        }
        r = registry_referrers_add(index, o->entry, &list, &size, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s: %s:%s", o->host->name, o->ref->repository, o->list_tag);
                return r;
        }
        if (!list)
                return 0;
        options.body = list;
        options.body_size = size;
        r = manifest_call(o, "PUT", o->list_tag, &options, err);
        return r < 0 ? r : 1;
}

static void on_list_read(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        PutOp *o = userdata;
        int r;

        if (err) {
                e = tb_error_copy(err);
                fail(o, &e);
                return;
        }
        r = write_list(o, call, &e);
        if (r < 0)
                fail(o, &e);
        else if (r == 0) {
                leave_queue(o);
                registry_op_finish(&o->op, 0, NULL);
        }
}

static void read_list(PutOp *o)
{
        static const char *const headers[] = {"Accept: " REGISTRY_TYPE_OCI_INDEX, NULL};
        RegistryCallOptions options = {
                .headers = headers,
                .response_max = REGISTRY_MANIFEST_MAX,
                .done = on_list_read,
        };
        _cleanup_error_ TbError *e = NULL;

        if (manifest_call(o, "GET", o->list_tag, &options, &e) < 0)
                fail(o, &e);
}

static void enter_queue(PutOp *o)
{
        PutOp **p = &o->op.client->subject_updates;

        while (*p)
                p = &(*p)->next;
        *p = o;
        o->queued = true;
        if (o->op.client->subject_updates == o)
                read_list(o);
}

/* ---- the manifest ---- */

static void on_put(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *text = NULL;
        PutOp *o = userdata;
        const char *digest;
        unsigned status;

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        status = registry_call_status(call);
        digest = registry_call_header(call, "Docker-Content-Digest");
        text = ref_text(o);
        if (status != 201 && status != 200 && status != 202)
                (void) registry_status_error(call, &e, "cannot push manifest %s", text ? text : "?");
        else if (digest && !tb_streq(digest, o->pushed.text)) {
                _cleanup_free_ char *shown = tb_escape(digest, 80);

                (void) tb_error_set(&e, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: pushed manifest %s as %s, but the registry says it has %s", o->host->name,
                        text ? text : "?", o->pushed.text, shown ? shown : "?");
        }
        if (e)
                fail(o, &e);
        else if (tb_digest_is_set(&o->subject) && !registry_call_header(call, "OCI-Subject"))
                enter_queue(o);
        else
                registry_op_finish(&o->op, 0, NULL);
}

static int remember(PutOp *o, const RegistryManifest *m, TbError **err)
{
        o->pushed = o->op.descriptor.digest = m->digest;
        o->op.descriptor.size = m->size;
        o->op.descriptor.media_type = strdup(registry_manifest_kind_to_media_type(m->kind));
        if (!o->op.descriptor.media_type)
                return tb_error_oom(err);
        if (!tb_digest_is_set(&m->subject.digest))
                return 0;
        o->subject = m->subject.digest;
        o->list_tag = registry_referrers_tag(&o->subject);
        if (!o->list_tag)
                return tb_error_oom(err);
        return registry_referrers_entry(m, &o->entry, err);
}

int registry_put_manifest_start(RegistryClient *c, const RegistryRef *ref, const char *media_type,
        const void *data, size_t size, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_(put_freep) PutOp *o = NULL;
        _cleanup_free_ char *type = NULL;
        const char *headers[2] = {NULL, NULL};
        RegistryCallOptions options = {
                .headers = headers,
                .body = data,
                .body_size = size,
                .again_on_digest = true,
                .done = on_put,
        };
        int r;

        /* Nothing goes out that we would refuse to take in. */
        r = registry_manifest_parse(data, size, media_type, &ref->digest, &m, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "cannot push to %s/%s", ref->host, ref->repository);
                return r;
        }
        o = registry_op_new(c, sizeof(*o), put_destroy, done, userdata, err);
        if (!o)
                return -ENOMEM;
        r = registry_ref_new(ref->host, ref->repository, ref->tag, &ref->digest, &o->ref, err);
        if (r >= 0)
                r = registry_client_get_host(c, ref->host, &o->host, err);
        if (r >= 0)
                r = remember(o, m, err);
        if (r < 0)
                return r;
        type = tb_asprintf("Content-Type: %s", o->op.descriptor.media_type);
        if (!type)
                return tb_error_oom(err);
        headers[0] = type;
        r = manifest_call(o, "PUT", registry_ref_selector(o->ref), &options, err);
        if (r < 0)
                return r;
        *ret = &TAKE_PTR(o)->op;
        return 0;
}

int registry_put_manifest(RegistryClient *c, const RegistryRef *ref, const char *media_type,
        const void *data, size_t size, TbDigest *ret_digest, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r;

        r = registry_put_manifest_start(c, ref, media_type, data, size, NULL, NULL, &op, err);
        if (r < 0)
                return r;
        r = registry_op_wait(op, err);
        if (r < 0)
                return r;
        if (ret_digest)
                *ret_digest = op->descriptor.digest;
        return 0;
}

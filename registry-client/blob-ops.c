/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Operations on single blobs: has, delete, get, read. Putting is in put-blob.c. */

#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

/* ---- has ---- */

int registry_blob_head(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        void (*done)(RegistryCall *call, const TbError *err, void *userdata), void *userdata,
        RegistryCall **ret, TbError **err)
{
        _cleanup_free_ char *url = NULL, *scope = NULL;
        RegistryCallOptions o = {
                .method = "HEAD",
                .timeout_usec = 60 * USEC_PER_SEC,
                .done = done,
                .userdata = userdata,
        };
        int r;

        r = registry_client_get_host(c, repository->host, &o.host, err);
        if (r < 0)
                return r;
        url = registry_host_url(o.host, "%s/blobs/%s", repository->repository, digest->text);
        scope = tb_asprintf("repository:%s:pull", repository->repository);
        if (!url || !scope)
                return tb_error_oom(err);
        o.url = url;
        o.scopes[0] = scope;
        return registry_call_start(c, &o, ret, err);
}

int registry_blob_head_result(
        const RegistryCall *call, const TbDigest *digest, uint64_t *ret_size, TbError **err)
{
        const char *length = registry_call_header(call, "Content-Length");
        uint64_t size = UINT64_MAX;

        switch (registry_call_status(call)) {
        case 200:
                if (length && tb_parse_u64(length, 0, INT64_MAX, &size, NULL) < 0)
                        size = UINT64_MAX;
                if (ret_size)
                        *ret_size = size;
                return 1;
        case 404:
                return 0;
        default:
                return registry_status_error(call, err, "cannot look for blob %s", digest->text);
        }
}

typedef struct HasOp {
        RegistryOp op;
        RegistryCall *call;
        TbDigest digest;
        uint64_t size;
} HasOp;

static void has_destroy(RegistryOp *op)
{
        registry_call_free(((HasOp *) op)->call);
}

static void on_has(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        HasOp *o = userdata;
        int r;

        if (!err) {
                r = registry_blob_head_result(call, &o->digest, &o->size, &e);
                if (r >= 0) {
                        registry_op_finish(&o->op, r, NULL);
                        return;
                }
        }
        registry_op_fail(&o->op, err ? err : e);
}

int registry_has_blob(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t *ret_size, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(HasOp), has_destroy, NULL, NULL, err);
        HasOp *o = (HasOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        o->digest = *digest;
        r = registry_blob_head(c, repository, digest, on_has, o, &o->call, err);
        if (r < 0)
                return r;
        r = registry_op_wait(op, err);
        if (r > 0 && ret_size)
                *ret_size = o->size;
        return r;
}

/* ---- delete ---- */

static void on_deleted(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        HasOp *o = userdata;
        unsigned status = registry_call_status(call);

        if (err) {
                registry_op_fail(&o->op, err);
                return;
        }
        if (status == 202 || status == 200 || status == 204 || status == 404) {
                registry_op_finish(&o->op, status != 404, NULL);
                return;
        }
        if (status == 405)
                (void) tb_error_set(&e, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "%s: cannot delete blob %s: the registry does not allow deletion; for "
                        "docker-registry set "
                        "storage.delete.enabled to true",
                        registry_call_host(call)->name, o->digest.text);
        else
                (void) registry_status_error(call, &e, "cannot delete blob %s", o->digest.text);
        registry_op_fail(&o->op, e);
}

int registry_delete_blob(
        RegistryClient *c, const RegistryRef *repository, const TbDigest *digest, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(HasOp), has_destroy, NULL, NULL, err);
        _cleanup_free_ char *url = NULL, *scope = NULL;
        HasOp *o = (HasOp *) op;
        RegistryCallOptions options = {
                .method = "DELETE",
                .timeout_usec = 60 * USEC_PER_SEC,
                .done = on_deleted,
                .userdata = o,
        };
        int r;

        if (!o)
                return -ENOMEM;
        o->digest = *digest;
        r = registry_client_get_host(c, repository->host, &options.host, err);
        if (r < 0)
                return r;
        url = registry_host_url(options.host, "%s/blobs/%s", repository->repository, digest->text);
        scope = tb_asprintf("repository:%s:delete,pull", repository->repository);
        if (!url || !scope)
                return tb_error_oom(err);
        options.url = url;
        options.scopes[0] = scope;
        r = registry_call_start(c, &options, &o->call, err);
        return r < 0 ? r : registry_op_wait(op, err);
}

/* ---- get, read ---- */

typedef struct ReadOp {
        RegistryOp op;
        RegistryDownload *download;
        RegistrySinkFn sink;
        void *sink_userdata;
} ReadOp;

static void read_destroy(RegistryOp *op)
{
        ReadOp *o = (ReadOp *) op;

        registry_download_free(o->download);
}

static void on_read_done(RegistryDownload *d, const TbError *err, void *userdata)
{
        RegistryOp *op = userdata;

        if (err)
                registry_op_fail(op, err);
        else
                registry_op_finish(op, 0, NULL);
}

static ssize_t to_buffer(const void *data, size_t size, void *userdata, TbError **err)
{
        ReadOp *o = userdata;

        return tb_buffer_append(&o->op.blob, data, size, err);
}

static ssize_t to_sink(const void *data, size_t size, void *userdata, TbError **err)
{
        ReadOp *o = userdata;
        int r = o->sink(data, size, o->sink_userdata, err);

        /* -EAGAIN would read as "pause" and never be woken up. */
        return r >= 0 ? 0 : r == -EAGAIN ? -EIO : r;
}

static int read_start(RegistryClient *c, const RegistryDownloadOptions *options, RegistrySinkFn sink,
        void *sink_userdata, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(ReadOp), read_destroy, done, userdata, err);
        RegistryDownloadOptions own = *options;
        ReadOp *o = (ReadOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        o->sink = sink;
        o->sink_userdata = sink_userdata;
        own.sink = sink ? to_sink : to_buffer;
        own.done = on_read_done;
        own.userdata = o;
        r = registry_download_start(c, &own, &o->download, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

int registry_get_blob_start(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t size, size_t max, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
{
        RegistryDownloadOptions options = {
                .repository = repository,
                .digest = *digest,
                .size = size,
                .max = max,
        };

        if (size != UINT64_MAX && size > max)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s/%s: blob %s has %llu bytes; at most %zu are "
                        "accepted for it",
                        repository->host, repository->repository, digest->text, (unsigned long long) size,
                        max);
        return read_start(c, &options, NULL, NULL, done, userdata, ret, err);
}

int registry_get_blob(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t size, size_t max, char **ret_data, size_t *ret_size, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        size_t n;
        char *data;
        int r;

        r = registry_get_blob_start(c, repository, digest, size, max, NULL, NULL, &op, err);
        if (r < 0)
                return r;
        r = registry_op_wait(op, err);
        if (r < 0)
                return r;
        data = registry_op_steal_blob(op, &n);
        if (!data)
                return tb_error_oom(err);
        *ret_data = data;
        *ret_size = n;
        return 0;
}

int registry_read_blob_start(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t size, RegistrySinkFn sink, RegistryDoneFn done, void *userdata, RegistryOp **ret,
        TbError **err)
{
        RegistryDownloadOptions options = {
                .repository = repository,
                .digest = *digest,
                .size = size,
                .max = UINT64_MAX,
        };

        return read_start(c, &options, sink, userdata, done, userdata, ret, err);
}

int registry_read_blob(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t size, RegistrySinkFn sink, void *userdata, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r = registry_read_blob_start(c, repository, digest, size, sink, NULL, userdata, &op, err);

        return r < 0 ? r : registry_op_wait(op, err);
}

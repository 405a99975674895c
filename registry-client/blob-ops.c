/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Operations on single blobs: has, get, read, put. */

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define RESUMES_MAX 50U

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

/* ---- put ---- */

typedef struct PutOp {
        RegistryOp op;
        const RegistryRef *repository; /* the caller's, or own_repository */
        RegistryRef *own_repository;
        RegistryUpload *upload;
        TbDigest digest;
        const char *data; /* NULL = from fd */
        int fd;
        uint64_t size, position;
        unsigned attempt, resumes;
        uint64_t reached; /* what the session had when the last attempt began */
        char *session;    /* to go on with; NULL = a new one */
        sd_event_source *timer;
} PutOp;

static void put_destroy(RegistryOp *op)
{
        PutOp *o = (PutOp *) op;

        registry_upload_free(o->upload);
        free(o->session);
        registry_ref_free(o->own_repository);
        sd_event_source_disable_unref(o->timer);
}

static int put_start(PutOp *o, TbError **err);

static ssize_t put_read(TbHttpRequest *request, void *buf, size_t size, void *userdata)
{
        PutOp *o = userdata;
        ssize_t n;

        size = (size_t) MIN2((uint64_t) size, o->size - o->position);
        if (o->data) {
                memcpy(buf, o->data + o->position, size);
                n = (ssize_t) size;
        } else {
                TbError *e = NULL;

                do
                        n = pread(o->fd, buf, size, (off_t) o->position);
                while (n < 0 && errno == EINTR);
                if (n < 0 || (n == 0 && size > 0)) {
                        n = n < 0 ? -errno : -EIO;
                        (void) tb_error_set_errno(&e, TB_ERROR_SYSTEM, (int) n,
                                "cannot read the file to upload (did it shrink?)");
                        tb_http_request_abort_reason(request, e);
                        return n;
                }
        }
        o->position += (uint64_t) n;
        return n;
}

static int put_seek(uint64_t position, void *userdata, TbError **err)
{
        PutOp *o = userdata;

        o->position = position;
        return 0;
}

static bool put_is_small(const PutOp *o)
{
        return o->data && o->size <= REGISTRY_UPLOAD_SMALL;
}

static int on_put_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        PutOp *o = userdata;

        o->timer = sd_event_source_disable_unref(o->timer);
        if (put_start(o, &e) < 0)
                registry_op_fail(&o->op, e);
        return 0;
}

static void on_put_event(RegistryUpload *u, RegistryUploadEvent event, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        PutOp *o = userdata;
        int r;

        switch (event) {
        case REGISTRY_UPLOAD_OPENED:
                o->position = registry_upload_offset(u);
                if (o->position > o->reached && o->attempt > 0 && ++o->resumes < RESUMES_MAX)
                        o->attempt--; /* one that got further does not count */
                o->reached = o->position;
                if (o->position == o->size && o->size > 0)
                        r = registry_upload_send_small(u, NULL, 0, &e);
                else if (put_is_small(o))
                        r = registry_upload_send_small(u, o->data, (size_t) o->size, &e);
                else
                        r = registry_upload_send(u, put_read, &e);
                if (r < 0)
                        registry_op_fail(&o->op, e);
                return;
        case REGISTRY_UPLOAD_MOUNTED:
        case REGISTRY_UPLOAD_DONE:
                registry_op_finish(&o->op, 0, NULL);
                return;
        case REGISTRY_UPLOAD_FAILED:
                break;
        }
        if (err->retryable && ++o->attempt < o->op.client->tries) {
                uint64_t wait = registry_client_backoff(o->op.client, o->attempt, 0);

                free(o->session);
                o->session = put_is_small(o) ? NULL : registry_upload_take_session(u);
                o->op.client->stats.retries++;
                r = sd_event_add_time_relative(
                        o->op.client->event, &o->timer, CLOCK_MONOTONIC, wait, 1000, on_put_again, o);
                if (r >= 0)
                        return;
        }
        registry_op_fail(&o->op, err);
}

static int put_start(PutOp *o, TbError **err)
{
        RegistryUploadOptions options = {
                .repository = o->repository,
                .digest = o->digest,
                .session = o->session,
                .size = o->size,
                .resumable = !put_is_small(o),
                .seek = put_seek,
                .event = on_put_event,
                .userdata = o,
        };
        int r;

        o->upload = registry_upload_free(o->upload);
        r = registry_upload_start(o->op.client, &options, &o->upload, err);
        free(o->session);
        o->session = NULL;
        return r;
}

int registry_put_blob_start(RegistryClient *c, const RegistryRef *repository, const void *data, size_t size,
        const TbDigest *digest, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(PutOp), put_destroy, done, userdata, err);
        PutOp *o = (PutOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        r = tb_digest_of(data, size, &o->digest, err);
        if (r < 0)
                return r;
        if (digest && !tb_digest_equal(digest, &o->digest))
                return tb_error_set(err, TB_ERROR_BUG, -EBADMSG,
                        "blob to upload has digest %s, not %s as was said", o->digest.text, digest->text);
        r = registry_ref_new(
                repository->host, repository->repository, NULL, &o->digest, &o->own_repository, err);
        if (r < 0)
                return r;
        o->repository = o->own_repository;
        o->data = size > 0 ? data : "";
        o->size = size;
        r = put_start(o, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

int registry_put_blob(RegistryClient *c, const RegistryRef *repository, const void *data, size_t size,
        const TbDigest *digest, TbDigest *ret_digest, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r;

        r = registry_put_blob_start(c, repository, data, size, digest, NULL, NULL, &op, err);
        if (r < 0)
                return r;
        r = registry_op_wait(op, err);
        if (r >= 0 && ret_digest)
                *ret_digest = ((PutOp *) op)->digest;
        return r;
}

static int hash_fd(int fd, uint64_t size, TbDigest *ret, TbError **err)
{
        _cleanup_(tb_hasher_freep) TbHasher *h = NULL;
        _cleanup_free_ char *buf = malloc(128U * 1024);
        int r;

        if (!buf)
                return tb_error_oom(err);
        r = tb_hasher_new(&h, err);
        if (r < 0)
                return r;
        for (uint64_t at = 0; at < size;) {
                ssize_t n = pread(fd, buf, (size_t) MIN2(size - at, (uint64_t) 128 * 1024), (off_t) at);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, n < 0 ? -errno : -EIO,
                                "cannot read the file to upload");
                r = tb_hasher_update(h, buf, (size_t) n, err);
                if (r < 0)
                        return r;
                at += (uint64_t) n;
        }
        return tb_hasher_final(h, ret, err);
}

int registry_put_blob_fd(RegistryClient *c, const RegistryRef *repository, int fd, const TbDigest *digest,
        TbDigest *ret_digest, uint64_t *ret_size, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(PutOp), put_destroy, NULL, NULL, err);
        PutOp *o = (PutOp *) op;
        struct stat st;
        int r;

        if (!o)
                return -ENOMEM;
        if (fstat(fd, &st) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot read the file to upload");
        if (!S_ISREG(st.st_mode))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "only a regular file can be uploaded");
        o->repository = repository;
        o->fd = fd;
        o->size = (uint64_t) st.st_size;
        if (digest)
                o->digest = *digest;
        else {
                r = hash_fd(fd, o->size, &o->digest, err);
                if (r < 0)
                        return r;
        }
        r = put_start(o, err);
        if (r < 0)
                return r;
        r = registry_op_wait(op, err);
        if (r < 0)
                return r;
        if (ret_digest)
                *ret_digest = o->digest;
        if (ret_size)
                *ret_size = o->size;
        return r;
}

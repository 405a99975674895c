/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Putting a blob from memory or from a file
 *
 *   (open) OPENING -> WAITING            the bytes aren't known yet: registry_put_blob_send()
 *             |          |
 *   (put)  OPENING -> SENDING -> done    what failed so that trying again may help begins with OPENING
 *
 * A session that waited may be gone when the bytes come (registries drop old ones, and forget them when they start anew):
 * what fails on such a session is tried on a new one, once, whatever the answer was.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define RESUMES_MAX 50U

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
        bool complete; /* the bytes are known */
        bool opened;   /* the session waits for them */
        bool early;    /* it was opened before they were known, so it may be gone when they are */
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

/* The session is open and the bytes are known. */
static int put_send(PutOp *o, TbError **err)
{
        RegistryUpload *u = o->upload;

        registry_upload_set_digest(u, &o->digest);
        o->position = registry_upload_offset(u);
        if (o->position > o->reached && o->attempt > 0 && ++o->resumes < RESUMES_MAX)
                o->attempt--; /* one that got further does not count */
        o->reached = o->position;
        if (o->position == o->size && o->size > 0)
                return registry_upload_send_small(u, NULL, 0, err);
        if (put_is_small(o))
                return registry_upload_send_small(u, o->data, (size_t) o->size, err);
        return registry_upload_send(u, put_read, err);
}

/* 1 = will begin anew. */
static int put_again(PutOp *o, uint64_t wait)
{
        o->op.client->stats.retries++;
        return sd_event_add_time_relative(
                       o->op.client->event, &o->timer, CLOCK_MONOTONIC, wait, 1000, on_put_again, o) >= 0;
}

static void on_put_event(RegistryUpload *u, RegistryUploadEvent event, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        PutOp *o = userdata;

        switch (event) {
        case REGISTRY_UPLOAD_OPENED:
                if (!o->complete)
                        o->opened = true;
                else if (put_send(o, &e) < 0)
                        registry_op_fail(&o->op, e);
                return;
        case REGISTRY_UPLOAD_MOUNTED:
        case REGISTRY_UPLOAD_DONE:
                registry_op_finish(&o->op, 0, NULL);
                return;
        case REGISTRY_UPLOAD_FAILED:
                break;
        }
        if (o->early && o->complete) {
                o->early = false;
                if (put_again(o, 0))
                        return;
        } else if (err->retryable && ++o->attempt < o->op.client->tries) {
                free(o->session);
                o->session = put_is_small(o) ? NULL : registry_upload_take_session(u);
                if (put_again(o, registry_client_backoff(o->op.client, o->attempt, 0)))
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

static int put_set_data(PutOp *o, const void *data, size_t size, const TbDigest *digest, TbError **err)
{
        int r = tb_digest_of(data, size, &o->digest, err);

        if (r < 0)
                return r;
        if (digest && !tb_digest_equal(digest, &o->digest))
                return tb_error_set(err, TB_ERROR_BUG, -EBADMSG,
                        "blob to upload has digest %s, not %s as was said", o->digest.text, digest->text);
        o->data = size > 0 ? data : "";
        o->size = size;
        o->complete = true;
        return 0;
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
        r = put_set_data(o, data, size, digest, err);
        if (r < 0)
                return r;
        r = registry_ref_new(
                repository->host, repository->repository, NULL, &o->digest, &o->own_repository, err);
        if (r < 0)
                return r;
        o->repository = o->own_repository;
        r = put_start(o, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

int registry_put_blob_open_start(RegistryClient *c, const RegistryRef *repository, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(c, sizeof(PutOp), put_destroy, done, userdata, err);
        PutOp *o = (PutOp *) op;
        int r;

        if (!o)
                return -ENOMEM;
        r = registry_ref_new(repository->host, repository->repository, NULL, NULL, &o->own_repository, err);
        if (r < 0)
                return r;
        o->repository = o->own_repository;
        o->early = true;
        r = put_start(o, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

int registry_put_blob_send(
        RegistryOp *op, const void *data, size_t size, const TbDigest *digest, TbError **err)
{
        PutOp *o = (PutOp *) op;
        int r = put_set_data(o, data, size, digest, err);

        if (r < 0 || !o->opened || op->done)
                return r;
        return put_send(o, err);
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
        o->complete = true;
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

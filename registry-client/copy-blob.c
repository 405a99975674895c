/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One blob from one registry to another
 *
 * Is it there already (HEAD), can it be mounted (POST)? If not, it is streamed once: the download fills a ring, the
 * upload's PUT drains it, and each pauses the other when the ring is full or empty, so memory stays constant and both
 * ends run at the speed of the slower one. The download starts together with the POST that opens the upload; the ring
 * holds what comes early.
 *
 * The upload is not committed before the download's digest and size were found right (`verified`): what is not what was
 * asked for ends with its session being closed. Small blobs are gathered in the ring and sent when they are complete.
 *
 * A failed upload needs a new session and the bytes from the start: the whole blob is tried again, within the client's
 * number of tries.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/copy.h"

#define RING_SIZE (512U * 1024)
/* A paused upload goes on when there is this much: each resumption costs a turn of the loop. The end of the download
 * resumes it in any case. */
#define RESUME_AT (128U * 1024)

struct RegistryCopyBlob {
        RegistryClient *client;
        RegistryCopyBlobOptions o;
        RegistryCall *head;
        RegistryUpload *upload;
        RegistryDownload *download;
        sd_event_source *timer;
        unsigned attempt;
        RegistryCopyHow how; /* how the target got it */
        bool opened;         /* the upload waits for bytes */
        bool sending;
        bool verified;  /* all bytes came and were right */
        bool tap_begun; /* in this attempt */
        bool pulling_paused, pushing_paused;
        uint64_t moved; /* in this attempt, as told to o.moved */

        char *ring;
        size_t size, head_at, used;
};

RegistryCopyBlob *registry_copy_blob_free(RegistryCopyBlob *b)
{
        if (!b)
                return NULL;
        registry_call_free(b->head);
        registry_download_free(b->download);
        registry_upload_free(b->upload);
        sd_event_source_disable_unref(b->timer);
        free(b->ring);
        free(b);
        return NULL;
}

static void copy_blob_freep(RegistryCopyBlob **b)
{
        registry_copy_blob_free(*b);
}

static void blob_done(RegistryCopyBlob *b, const TbError *err)
{
        b->o.done(b, b->how, err, b->o.userdata); /* may free it */
}

static int tap_result(int r)
{
        return r == -EAGAIN ? -EIO : r; /* would read as "pause" */
}

/* ---- the ring ---- */

static int ring_put(RegistryCopyBlob *b, const char *data, size_t n, TbError **err)
{
        size_t at, first;

        if (n > b->size - b->used) { /* only when it is empty: a first piece, or one larger than the ring */
                size_t size = MAX2(n, (size_t) RING_SIZE);
                char *ring = malloc(size);

                if (!ring)
                        return tb_error_oom(err);
                free(b->ring);
                b->ring = ring;
                b->size = size;
                b->head_at = 0;
        }
        at = (b->head_at + b->used) % b->size;
        first = MIN2(n, b->size - at);
        memcpy(b->ring + at, data, first);
        memcpy(b->ring, data + first, n - first);
        b->used += n;
        return 0;
}

static size_t ring_take(RegistryCopyBlob *b, char *buf, size_t n)
{
        size_t first = MIN2(n, b->size - b->head_at);

        memcpy(buf, b->ring + b->head_at, first);
        memcpy(buf + first, b->ring, n - first);
        b->head_at = (b->head_at + n) % b->size;
        b->used -= n;
        return n;
}

/* ---- streaming ---- */

static int tap_begin(RegistryCopyBlob *b, TbError **err)
{
        if (b->tap_begun)
                return 0;
        b->tap_begun = true;
        if (!b->o.tap || !b->o.tap->begin)
                return 0;
        return tap_result(b->o.tap->begin(b->o.blob, b->o.tap->userdata, err));
}

static ssize_t push(const void *data, size_t size, void *userdata, TbError **err)
{
        RegistryCopyBlob *b = userdata;
        bool to_target = b->how == REGISTRY_COPY_STREAMED;
        int r;

        if (to_target && b->used > 0 && size > b->size - b->used) {
                b->pushing_paused = true;
                return TB_HTTP_PAUSE;
        }
        r = tap_begin(b, err);
        if (r < 0)
                return r;
        if (b->o.tap && b->o.tap->data) {
                r = tap_result(b->o.tap->data(b->o.blob, data, size, b->o.tap->userdata, err));
                if (r < 0)
                        return r;
        }
        if (to_target) {
                r = ring_put(b, data, size, err);
                if (r < 0)
                        return r;
                if (b->pulling_paused && b->used >= RESUME_AT) {
                        b->pulling_paused = false;
                        registry_upload_resume(b->upload);
                }
        }
        b->moved += size;
        b->o.moved((int64_t) size, b->o.userdata);
        return 0;
}

static ssize_t pull(TbHttpRequest *request, void *buf, size_t size, void *userdata)
{
        RegistryCopyBlob *b = userdata;

        if (b->used == 0) {
                if (b->verified)
                        return 0;
                b->pulling_paused = true;
                return TB_HTTP_PAUSE;
        }
        size = ring_take(b, buf, MIN2(size, b->used));
        if (b->pushing_paused && b->used <= b->size / 2) {
                b->pushing_paused = false;
                registry_download_resume(b->download);
        }
        return (ssize_t) size;
}

static int send_when_ready(RegistryCopyBlob *b, TbError **err)
{
        bool small = b->o.blob->size <= REGISTRY_UPLOAD_SMALL;

        if (!b->opened || b->sending || (small && !b->verified))
                return 0;
        b->sending = true;
        /* Nothing was taken out of the ring yet: it begins at its start. */
        return small ? registry_upload_send_small(b->upload, b->ring, b->used, err)
                     : registry_upload_send(b->upload, pull, err);
}

static void finish(RegistryCopyBlob *b, RegistryCopyHow seen)
{
        _cleanup_error_ TbError *e = NULL;
        int r = 0;

        if (seen == REGISTRY_COPY_STREAMED)
                r = tap_begin(b, &e); /* an empty layer had no data to begin with */
        if (r >= 0 && b->o.tap && b->o.tap->end)
                r = b->o.tap->end(b->o.blob, seen, b->o.tap->userdata, &e);
        if (r < 0 && !e)
                (void) tb_error_set_errno(&e, TB_ERROR_BUG, r, "the copy's tap failed without saying why");
        blob_done(b, r < 0 ? e : NULL);
}

static void on_downloaded(RegistryDownload *d, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;

        if (err) {
                blob_done(b, err);
                return;
        }
        b->verified = true;
        if (b->how != REGISTRY_COPY_STREAMED) {
                finish(b, REGISTRY_COPY_STREAMED); /* only the tap wanted the bytes */
                return;
        }
        if (send_when_ready(b, &e) < 0) {
                blob_done(b, e);
                return;
        }
        if (b->pulling_paused) {
                b->pulling_paused = false;
                registry_upload_resume(b->upload);
        }
}

static int start_download(RegistryCopyBlob *b, TbError **err)
{
        RegistryDownloadOptions o = {
                .repository = b->o.source,
                .digest = b->o.blob->digest,
                .size = b->o.blob->size,
                .max = UINT64_MAX,
                .sink = push,
                .done = on_downloaded,
                .userdata = b,
        };

        return registry_download_start(b->client, &o, &b->download, err);
}

/* The target has it, but nothing was streamed. */
static void landed(RegistryCopyBlob *b, RegistryCopyHow how)
{
        _cleanup_error_ TbError *e = NULL;

        b->how = how;
        if (!b->o.always_stream) {
                b->o.moved((int64_t) b->o.blob->size, b->o.userdata);
                finish(b, how);
                return;
        }
        if (start_download(b, &e) < 0)
                blob_done(b, e);
}

/* ---- the target's side ---- */

static int begin(RegistryCopyBlob *b, TbError **err);

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;

        b->timer = sd_event_source_disable_unref(b->timer);
        if (begin(b, &e) < 0)
                blob_done(b, e);
        return 0;
}

/* 1 = will begin anew. Called from the upload's own callback. */
static int try_again(RegistryCopyBlob *b)
{
        uint64_t wait;

        if (++b->attempt >= b->client->tries)
                return 0;
        wait = registry_client_backoff(b->client, b->attempt, 0);
        b->client->stats.retries++;
        b->download = registry_download_free(b->download);
        b->upload = registry_upload_free(b->upload);
        b->opened = b->sending = b->verified = b->tap_begun = false;
        b->pulling_paused = b->pushing_paused = false;
        b->used = b->head_at = 0;
        b->o.moved(-(int64_t) b->moved, b->o.userdata);
        b->moved = 0;
        return sd_event_add_time_relative(
                       b->client->event, &b->timer, CLOCK_MONOTONIC, wait, 1000, on_again, b) >= 0;
}

static void on_upload_event(RegistryUpload *u, RegistryUploadEvent event, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;
        int r = 0;

        switch (event) {
        case REGISTRY_UPLOAD_MOUNTED:
                landed(b, REGISTRY_COPY_MOUNTED);
                return;
        case REGISTRY_UPLOAD_OPENED:
                b->opened = true;
                if (!b->download)
                        r = start_download(b, &e);
                if (r >= 0)
                        r = send_when_ready(b, &e);
                if (r < 0)
                        blob_done(b, e);
                return;
        case REGISTRY_UPLOAD_DONE:
                if (!b->verified) {
                        (void) tb_error_set(&e, TB_ERROR_REMOTE, -EPROTO,
                                "%s: accepted blob %s before all of it was sent", b->o.target->host,
                                b->o.blob->digest.text);
                        blob_done(b, e);
                        return;
                }
                finish(b, REGISTRY_COPY_STREAMED);
                return;
        case REGISTRY_UPLOAD_FAILED:
                if (err->retryable && try_again(b) > 0)
                        return;
                blob_done(b, err);
                return;
        }
}

static int open_upload(RegistryCopyBlob *b, TbError **err)
{
        RegistryUploadOptions o = {
                .repository = b->o.target,
                .digest = b->o.blob->digest,
                .mount_from = b->o.mount_from,
                .event = on_upload_event,
                .userdata = b,
        };
        int r;

        b->how = REGISTRY_COPY_STREAMED;
        r = registry_upload_start(b->client, &o, &b->upload, err);
        /* Without a mount to hope for, the bytes are needed for sure. */
        if (r >= 0 && !b->o.mount_from)
                r = start_download(b, err);
        return r;
}

static void on_head(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;
        int r = -EIO;

        if (!err)
                r = registry_blob_head_result(call, &b->o.blob->digest, NULL, &e);
        if (r > 0)
                landed(b, REGISTRY_COPY_EXISTED);
        else if (r < 0 || open_upload(b, &e) < 0)
                blob_done(b, err ? err : e);
}

static int begin(RegistryCopyBlob *b, TbError **err)
{
        b->head = registry_call_free(b->head);
        if (b->o.exists) {
                b->how = REGISTRY_COPY_EXISTED;
                return start_download(b, err);
        }
        if (b->o.mount_from || b->attempt > 0)
                return open_upload(b, err);
        return registry_blob_head(b->client, b->o.target, &b->o.blob->digest, on_head, b, &b->head, err);
}

int registry_copy_blob_start(
        RegistryClient *c, const RegistryCopyBlobOptions *options, RegistryCopyBlob **ret, TbError **err)
{
        _cleanup_(copy_blob_freep) RegistryCopyBlob *b = NULL;
        int r;

        b = calloc(1, sizeof(*b));
        if (!b)
                return tb_error_oom(err);
        b->client = c;
        b->o = *options;
        r = begin(b, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(b);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One blob from one place to another
 *
 * Is it there already (HEAD), can it be mounted (POST)? If not, it is streamed once. To a registry: what the source gives
 * fills a ring, the upload's PATCH drains it, and each pauses the other when the ring is full or empty, so memory stays
 * constant and both ends run at the speed of the slower one. The source starts together with the POST that opens the
 * upload; the ring holds what comes early. To files: what comes is written at once.
 *
 * Nothing is committed before digest and size of all bytes were found right (`verified`). Small blobs are gathered in the
 * ring and sent when they are complete.
 *
 * Going on after a failure: when an upload breaks off, its session is asked how much it has (`upload_from`), and the
 * source begins again far enough before that: from the spool (spool.c) when there is one, else from the last copy of the
 * hash state that is not behind that point. Bytes below `upload_from` are only hashed. What the session has from before is
 * checked by the registry when it commits. Without a usable session the whole blob is uploaded again. All this happens
 * within the client's number of tries.
 *
 *         begin -> HEAD -> POST (or GET of the old session) -> streaming -> verified -> committed
 *            ^  \-> wait for another copy of the same blob (share.c)  |
 *            +------------------------ try_again ---------------------+
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/copy.h"

/* An upload takes no less than this at a time: each resumption costs a turn of the loop, and each chunk both sides some calls and
 * the registry a write. The end of the download resumes it in any case. */
#define RESUME_AT (128U * 1024)
#define REPEATS_MAX 20U
struct RegistryCopyBlob {
        RegistryClient *client;
        RegistryCopyBlobOptions o;
        RegistryCall *head;
        RegistryUpload *upload;
        RegistryDownload *download;
        RegistryFeed *feed;
        RegistryStoreWriter *writer;
        RegistrySpool *spool;
        RegistryShare *share; /* others wait for us */
        RegistryShareWait *wait;
        sd_event_source *timer;
        unsigned attempt;
        RegistryCopyHow how; /* how the target got it */
        bool opened;         /* the upload waits for bytes */
        bool sending;
        bool from_spool; /* the feed is the spool's */
        bool spool_used; /* in this attempt */
        bool verified;   /* all bytes came and were right */
        bool pulling_paused, pushing_paused;
        bool mount_tried;
        unsigned repeats;
        uint64_t best_from;
        uint64_t moved;   /* in this attempt, as told to o.moved */
        uint64_t resumed; /* of them from the spool */

        CopyTrail trail; /* of the source's bytes */
        uint64_t upload_from;
        char *session;    /* of an upload that broke off: to go on with */
        char *mount_from; /* found in this client's memory */

        CopyRing ring;
        CopyTap tap;
};

static void stop_source(RegistryCopyBlob *b)
{
        b->download = registry_download_free(b->download);
        b->feed = registry_feed_free(b->feed);
        b->from_spool = false;
}

RegistryCopyBlob *registry_copy_blob_free(RegistryCopyBlob *b)
{
        if (!b)
                return NULL;
        registry_call_free(b->head);
        stop_source(b);
        if (b->upload && b->spool && registry_spool_has_session(b->spool))
                free(registry_upload_take_session(b->upload)); /* the next process goes on with it */
        registry_upload_free(b->upload);
        registry_store_writer_free(b->writer);
        registry_spool_free(b->spool);
        registry_share_wait_free(b->wait);
        registry_share_end(b->client, b->share, false);
        sd_event_source_disable_unref(b->timer);
        copy_trail_done(&b->trail);
        copy_tap_restart(&b->tap);
        free(b->session);
        free(b->mount_from);
        copy_ring_done(&b->ring);
        free(b);
        return NULL;
}

static void copy_blob_freep(RegistryCopyBlob **b)
{
        registry_copy_blob_free(*b);
}

uint64_t registry_copy_blob_resumed(const RegistryCopyBlob *b)
{
        return b->resumed;
}

static void blob_done(RegistryCopyBlob *b, const TbError *err)
{
        registry_share_end(b->client, TAKE_PTR(b->share), !err);
        b->o.done(b, b->how, err, b->o.userdata); /* may free it */
}

/* ---- streaming ---- */

/* What the upload still lacks of this piece goes into the ring. */
static int to_ring(RegistryCopyBlob *b, const char *data, size_t size, size_t skip, TbError **err)
{
        int r;

        if (skip == size)
                return 0;
        r = copy_ring_put(&b->ring, data + skip, size - skip, err);
        if (r >= 0 && b->pulling_paused && b->ring.used >= RESUME_AT) {
                b->pulling_paused = false;
                registry_upload_resume(b->upload);
        }
        return r;
}

static int to_spool(RegistryCopyBlob *b, const char *data, size_t size, TbError **err)
{
        uint64_t have = registry_spool_size(b->spool);
        size_t old = have > b->trail.position ? (size_t) MIN2(have - b->trail.position, (uint64_t) size) : 0;

        return old == size ? 0 : registry_spool_append(b->spool, data + old, size - old, err);
}

static ssize_t push(const void *data, size_t size, void *userdata, TbError **err)
{
        RegistryCopyBlob *b = userdata;
        bool wanted = b->how == REGISTRY_COPY_STREAMED, to_upload = wanted && !b->o.to;
        size_t skip = 0;
        int r;

        if (size > b->o.blob->size - b->trail.position)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: blob %s is larger than the %llu bytes its descriptor says", b->o.source_name,
                        b->o.blob->digest.text, (unsigned long long) b->o.blob->size);
        if (b->upload_from > b->trail.position)
                skip = (size_t) MIN2(b->upload_from - b->trail.position, (uint64_t) size);
        if (to_upload && b->ring.used > 0 && size - skip > b->ring.size - b->ring.used) {
                b->pushing_paused = true;
                return TB_HTTP_PAUSE;
        }
        r = copy_tap_data(&b->tap, data, size, err);
        if (r >= 0 && wanted && b->o.to)
                r = b->o.to->ops->write(b->writer, data, size, err);
        if (r >= 0 && to_upload)
                r = to_ring(b, data, size, skip, err);
        if (r >= 0 && b->spool && wanted)
                r = to_spool(b, data, size, err);
        if (r >= 0)
                r = copy_trail_add(&b->trail, data, size, err);
        if (r < 0)
                return r == -EAGAIN ? -EIO : r;
        if (b->from_spool)
                b->resumed += size;
        b->moved += size;
        b->o.moved((int64_t) size, b->o.userdata);
        return 0;
}

static ssize_t pull(TbHttpRequest *request, void *buf, size_t size, void *userdata)
{
        RegistryCopyBlob *b = userdata;

        if (b->ring.used == 0 && b->verified)
                return 0;
        if (b->ring.used < RESUME_AT && !b->verified && !b->pushing_paused) {
                b->pulling_paused = true;
                return TB_HTTP_PAUSE;
        }
        size = copy_ring_take(&b->ring, buf, MIN2(size, b->ring.used));
        if (b->pushing_paused && b->ring.used <= b->ring.size / 2) {
                b->pushing_paused = false;
                if (b->download)
                        registry_download_resume(b->download);
                if (b->feed)
                        registry_feed_resume(b->feed);
        }
        return (ssize_t) size;
}

static int send_when_ready(RegistryCopyBlob *b, TbError **err)
{
        bool small = (b->o.blob->size <= REGISTRY_UPLOAD_SMALL && b->upload_from == 0) ||
                b->upload_from == b->o.blob->size; /* the session has it all: only the PUT is missing */

        if (!b->opened || b->sending || (small && !b->verified))
                return 0;
        b->sending = true;
        /* Nothing was taken out of the ring yet: it begins at its start. */
        return small ? registry_upload_send_small(b->upload, b->ring.data, b->ring.used, err)
                     : registry_upload_send(b->upload, pull, err);
}

static void finish(RegistryCopyBlob *b, RegistryCopyHow seen)
{
        _cleanup_error_ TbError *e = NULL;
        int r = copy_tap_end(&b->tap, seen, &e);

        blob_done(b, r < 0 ? e : NULL);
}

/* ---- the source's end ---- */

static int begin(RegistryCopyBlob *b, TbError **err);
static int try_again(RegistryCopyBlob *b);

static int verify(RegistryCopyBlob *b, TbError **err)
{
        TbDigest got;
        int r;

        if (b->trail.position != b->o.blob->size)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: blob %s: got %llu bytes, its descriptor says %llu", b->o.source_name,
                        b->o.blob->digest.text, (unsigned long long) b->trail.position,
                        (unsigned long long) b->o.blob->size);
        r = copy_trail_final(&b->trail, &got, err);
        if (r < 0)
                return r;
        if (!tb_digest_equal(&got, &b->o.blob->digest))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: blob does not match its digest: asked for %s, got content with %s",
                        b->o.source_name, b->o.blob->digest.text, got.text);
        return 0;
}

/* Wrong bytes must not be found again by anybody. */
static void drop_wrong(RegistryCopyBlob *b)
{
        b->spool = registry_spool_discard(b->spool);
        copy_trail_forget(&b->trail);
}

static int start_source(RegistryCopyBlob *b, TbError **err);

static void on_source_end(RegistryCopyBlob *b, const TbError *err)
{
        _cleanup_error_ TbError *e = NULL;

        if (err) {
                blob_done(b, err);
                return;
        }
        if (verify(b, &e) < 0) {
                bool ours = b->spool_used; /* the disk's fault, perhaps: once more without it */

                drop_wrong(b);
                if (ours) {
                        b->upload = registry_upload_free(b->upload);
                        free(b->session); /* of the upload that has got wrong bytes, and is being closed */
                        b->session = NULL;
                        if (try_again(b) > 0)
                                return;
                }
                blob_done(b, e);
                return;
        }
        b->verified = true;
        if (b->how == REGISTRY_COPY_STREAMED && !b->o.to) {
                if (send_when_ready(b, &e) < 0) {
                        blob_done(b, e);
                        return;
                }
                if (b->pulling_paused) {
                        b->pulling_paused = false;
                        registry_upload_resume(b->upload);
                }
                return;
        }
        if (b->how == REGISTRY_COPY_STREAMED && b->o.to->ops->commit(b->writer, &e) < 0) {
                blob_done(b, e);
                return;
        }
        b->writer = registry_store_writer_free(b->writer);
        b->spool = registry_spool_discard(b->spool);
        finish(b, REGISTRY_COPY_STREAMED);
}

static void on_downloaded(RegistryDownload *d, const TbError *err, void *userdata)
{
        on_source_end(userdata, err);
}

static void on_fed(const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;

        if (!b->from_spool) {
                on_source_end(b, err);
                return;
        }
        if (err && err->code != -EIO) {
                blob_done(b, err);
                return;
        }
        stop_source(b);
        if (b->trail.position == b->o.blob->size) {
                on_source_end(b, NULL);
                return;
        }
        /* The rest, and what could not be read back, comes from where it came from. */
        if (err)
                b->spool = registry_spool_discard(b->spool);
        if (start_source(b, &e) < 0)
                blob_done(b, e);
}

static int start_download(RegistryCopyBlob *b, TbError **err)
{
        RegistryDownloadOptions o = {
                .repository = b->o.source,
                .digest = b->o.blob->digest,
                .size = b->o.blob->size,
                .max = UINT64_MAX,
                .position = b->trail.position,
                .sink_verifies = true,
                .sink = push,
                .done = on_downloaded,
                .userdata = b,
        };

        return registry_download_start(b->client, &o, &b->download, err);
}

static int start_feed(RegistryCopyBlob *b, const RegistryRegion *region, TbError **err)
{
        RegistryFeedOptions o = {
                .region = *region,
                .name = b->o.source_name,
                .sink = push,
                .done = on_fed,
                .userdata = b,
        };

        return registry_feed_start(b->client, &o, &b->feed, err);
}

/* Bytes from `position` on. */
static int start_source(RegistryCopyBlob *b, TbError **err)
{
        RegistryRegion region = {.fd = -EBADF};
        int r;

        if (b->spool && b->how == REGISTRY_COPY_STREAMED &&
                registry_spool_region(b->spool, b->trail.position, &region) > 0) {
                b->from_spool = b->spool_used = true;
                return start_feed(b, &region, err);
        }
        if (!b->o.from)
                return start_download(b, err);
        r = b->o.from->ops->open_blob(b->o.from, b->o.blob, &region, err);
        if (r < 0)
                return r;
        if (region.size != b->o.blob->size) {
                (void) tb_close(region.fd);
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: %s has %llu bytes, its descriptor says %llu", b->o.source_name,
                        b->o.blob->digest.text, (unsigned long long) region.size,
                        (unsigned long long) b->o.blob->size);
        }
        region.offset += b->trail.position;
        region.size -= b->trail.position;
        return start_feed(b, &region, err);
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
        if (start_source(b, &e) < 0)
                blob_done(b, e);
}

/* ---- the target's side ---- */

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;

        b->timer = sd_event_source_disable_unref(b->timer);
        if (begin(b, &e) < 0)
                blob_done(b, e);
        return 0;
}

/* 1 = will begin anew, with the session if one was taken from the upload. Called from callbacks of the upload and of the
 * source, which it frees. */
static int try_again(RegistryCopyBlob *b)
{
        uint64_t wait;

        if (++b->attempt >= b->client->tries)
                return 0;
        wait = registry_client_backoff(b->client, b->attempt, 0);
        b->client->stats.retries++;
        stop_source(b);
        b->upload = registry_upload_free(b->upload);
        b->writer = registry_store_writer_free(b->writer);
        if (b->spool && registry_spool_size(b->spool) == 0)
                b->spool = registry_spool_free(b->spool); /* from now on it is worth it */
        b->opened = b->sending = b->verified = b->spool_used = false;
        copy_tap_restart(&b->tap);
        b->pulling_paused = b->pushing_paused = false;
        copy_ring_empty(&b->ring);
        b->upload_from = b->resumed = 0;
        copy_trail_restart(&b->trail);
        b->o.moved(-(int64_t) b->moved, b->o.userdata);
        b->moved = 0;
        return sd_event_add_time_relative(
                       b->client->event, &b->timer, CLOCK_MONOTONIC, wait, 1000, on_again, b) >= 0;
}

/* The spool of this blob, when there is to be one; without, nothing is lost but time. */
static void open_spool(RegistryCopyBlob *b)
{
        if (!b->o.state_dir || b->spool || b->o.from || b->o.blob->size < REGISTRY_SPOOL_MIN)
                return;
        if (registry_spool_open(b->o.state_dir, &b->o.blob->digest, b->o.blob->size, b->o.state_max,
                    b->attempt > 0 ? 0 : b->o.state_patience_usec, &b->spool) > 0 &&
                b->o.target && !b->session)
                b->session = registry_spool_get_session(b->spool, b->o.target);
}

/* The upload takes bytes from its offset on: where does the source begin? */
static int on_opened(RegistryCopyBlob *b, TbError **err)
{
        int r = 0;

        b->opened = true;
        b->upload_from = registry_upload_offset(b->upload);
        if (b->upload_from > b->best_from && b->repeats++ < REPEATS_MAX)
                b->attempt = 0; /* it gets on: that uses up no try */
        b->best_from = MAX2(b->best_from, b->upload_from);
        if (!b->download && !b->feed && !b->verified)
                open_spool(b);
        if (b->spool)
                registry_spool_set_session(b->spool, b->o.target, registry_upload_session(b->upload));
        if (!b->download && !b->feed && !b->verified) {
                /* A tap sees all or nothing, and a spool has it all: from the beginning. */
                r = copy_trail_rewind(
                        &b->trail, b->o.tap || b->spool ? 0 : b->upload_from, b->o.blob->size, err);
                b->moved += b->trail.position;
                b->o.moved((int64_t) b->trail.position, b->o.userdata);
                if (r >= 0)
                        r = start_source(b, err);
        }
        return r < 0 ? r : send_when_ready(b, err);
}

static void on_committed(RegistryCopyBlob *b)
{
        _cleanup_error_ TbError *e = NULL;

        if (!b->verified) {
                (void) tb_error_set(&e, TB_ERROR_REMOTE, -EPROTO,
                        "%s: accepted blob %s before all of it was sent", b->o.target->host,
                        b->o.blob->digest.text);
                blob_done(b, e);
                return;
        }
        b->spool = registry_spool_discard(b->spool);
        finish(b, REGISTRY_COPY_STREAMED);
}

static void on_upload_event(RegistryUpload *u, RegistryUploadEvent event, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;

        switch (event) {
        case REGISTRY_UPLOAD_MOUNTED:
                landed(b, REGISTRY_COPY_MOUNTED);
                return;
        case REGISTRY_UPLOAD_OPENED:
                if (on_opened(b, &e) < 0)
                        blob_done(b, e);
                return;
        case REGISTRY_UPLOAD_DONE:
                on_committed(b);
                return;
        case REGISTRY_UPLOAD_FAILED:
                /* A session that was gone on with and then failed for good is not asked a second time. */
                free(b->session);
                b->session = err->retryable ? registry_upload_take_session(u) : NULL;
                if (b->spool && !b->session)
                        registry_spool_set_session(b->spool, NULL, NULL);
                if ((err->retryable || registry_upload_offset(u) > 0) && try_again(b) > 0)
                        return;
                blob_done(b, err);
                return;
        }
}

static int open_upload(RegistryCopyBlob *b, const char *mount_from, TbError **err)
{
        RegistryUploadOptions o = {
                .repository = b->o.target,
                .digest = b->o.blob->digest,
                .mount_from = mount_from,
                .size = b->o.blob->size,
                .resumable = b->o.blob->size > REGISTRY_UPLOAD_SMALL,
                .event = on_upload_event,
                .userdata = b,
        };
        int r;

        b->how = REGISTRY_COPY_STREAMED;
        if (!mount_from) {
                open_spool(b);
                o.session = b->session;
        }
        r = registry_upload_start(b->client, &o, &b->upload, err);
        /* Without a mount to hope for, the bytes are needed for sure; without a session, from the beginning. */
        if (r >= 0 && !mount_from && !b->session)
                r = start_source(b, err);
        return r;
}

static void on_others_done(void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;

        b->wait = registry_share_wait_free(b->wait);
        if (begin(b, &e) < 0)
                blob_done(b, e);
}

/* Not there: bytes have to move, unless another copy of this client moves them already or has done so. */
static int upload_or_share(RegistryCopyBlob *b, TbError **err)
{
        RegistryShareAnswer answer = REGISTRY_SHARE_YOURS;
        int r;

        if (!b->share && !b->o.always_stream) {
                r = registry_share_ask(b->client, b->o.target, &b->o.blob->digest, on_others_done, b,
                        &answer, &b->share, &b->wait, &b->mount_from, err);
                if (r < 0)
                        return r;
        }
        if (answer == REGISTRY_SHARE_WAIT)
                return 0;
        if (b->mount_from && !b->mount_tried) {
                b->mount_tried = true;
                return open_upload(b, b->mount_from, err);
        }
        return open_upload(b, NULL, err);
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
        else if (r < 0 || upload_or_share(b, &e) < 0)
                blob_done(b, err ? err : e);
}

/* Into files. */
static int begin_local(RegistryCopyBlob *b, TbError **err)
{
        int r = b->o.to->ops->has_blob(b->o.to, b->o.blob, err);

        if (r > 0) {
                landed(b, REGISTRY_COPY_EXISTED);
                return 0;
        }
        if (r < 0)
                return r;
        b->how = REGISTRY_COPY_STREAMED;
        open_spool(b);
        r = b->o.to->ops->write_start(b->o.to, b->o.blob, &b->writer, err);
        return r < 0 ? r : start_source(b, err);
}

static int on_local_turn(sd_event_source *s, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryCopyBlob *b = userdata;

        b->timer = sd_event_source_disable_unref(b->timer);
        if (begin_local(b, &e) < 0)
                blob_done(b, e);
        return 0;
}

static int begin(RegistryCopyBlob *b, TbError **err)
{
        int r;

        b->head = registry_call_free(b->head);
        if (b->o.to) { /* in the next turn: callbacks come from the loop only */
                r = sd_event_add_defer(b->client->event, &b->timer, on_local_turn, b);
                return r < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot use the event loop") : 0;
        }
        if (b->o.exists) {
                b->how = REGISTRY_COPY_EXISTED;
                return start_source(b, err);
        }
        if (b->o.mount_from && !b->mount_tried) {
                b->mount_tried = true;
                return open_upload(b, b->o.mount_from, err);
        }
        if (b->attempt > 0)
                return upload_or_share(b, err);
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
        b->tap = (CopyTap){.tap = options->tap, .layer = options->blob};
        r = begin(b, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(b);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Blob upload (distribution-spec "Pushing blobs"): POST opens a session, PATCH streams, PUT with the digest commits
 *
 * The POST carries a mount when there is a repository to mount from; a registry that cannot mount answers with a
 * session as for a plain POST, so nothing is lost by asking. The session's Location holds state in its query and is used
 * as it is, with "digest" appended. Small blobs go into the PUT itself and save the PATCH. The PATCH has no
 * Content-Length: so that it can be ended in order at any point, by a source that turns out to be wrong or by an
 * operation that is given up. Whatever ends an open session other than success, session.c closes it, unless its owner
 * wants to go on with it.
 *
 *   (GET) ASKING -> OPENED -> SENDING -> COMMITTING -> done
 *            |        |       (PATCH)      (PUT)
 *  (POST) OPENING ----+-> mounted
 *
 * ASKING: a session from before tells in Range how much it has ("0-499": 500 bytes). "0-0" can mean no byte or one
 * (docker-registry says it of an empty session), and bytes in the wrong place would be noticed only at the end: such a
 * session is replaced by a new one, as is one that is gone or makes no sense; what is lost is one byte. docker-registry 2.x
 * drops a session whose PATCH broke off as soon as somebody asks about it (the offset in its signed Location is older
 * than its data), so there, uploads begin anew. Registries that follow distribution-spec "Pushing a blob in chunks" go on.
 *
 * Pieces: with a size and a chunk, SENDING is a row of PATCHes with Content-Length and Content-Range. That is what gets
 * through where the size of a request is limited (nginx: 1 MB unless told otherwise); an owner that can seek goes over to
 * it when a stream is refused as too large, by way of ASKING, and with half the size when a piece is.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define OPEN_TIMEOUT_USEC (60 * USEC_PER_SEC)
/* The other side may have to move and hash the blob before it answers. */
#define SEND_STALL_FACTOR 3U
#define CHUNK_AFTER_413 (1024U * 1024) /* what nginx takes by default */
#define CHUNK_MAX (1024ULL * 1024 * 1024)
#define REASKS_MAX 16U

struct RegistryUpload {
        RegistryClient *client;
        RegistryUploadOptions o;
        RegistryRef *ref;
        char *mount_from;
        RegistryHost *host;
        RegistryCall *call;
        char *location;    /* of the open session; NULL = none */
        uint64_t offset;   /* what it has */
        uint64_t chunk;    /* 0 = one stream */
        uint64_t piece;    /* bytes of the PATCH under way; 0 = all that come */
        TbHttpReadFn read; /* NULL = sending has not begun */
        unsigned reasks;
        bool call_is_open; /* the call under way may open a session */
        char *push_scope;
};

RegistryUpload *registry_upload_free(RegistryUpload *u)
{
        if (!u)
                return NULL;
        if (u->location || u->call_is_open)
                registry_session_close(
                        u->client, u->host, u->push_scope, TAKE_PTR(u->location), TAKE_PTR(u->call));
        registry_call_free(u->call);
        registry_ref_free(u->ref);
        free(u->mount_from);
        free(u->push_scope);
        free(u);
        return NULL;
}

static void upload_freep(RegistryUpload **u)
{
        registry_upload_free(*u);
}

/* The exchange is over: nothing runs on the session any more, it can be closed at once. */
static void upload_failed(RegistryUpload *u, const TbError *err)
{
        u->call = registry_call_free(u->call);
        if (u->location && !(u->o.resumable && err->retryable))
                registry_session_close(u->client, u->host, u->push_scope, TAKE_PTR(u->location), NULL);
        u->o.event(u, REGISTRY_UPLOAD_FAILED, err, u->o.userdata);
}

static int open_session(RegistryUpload *u, TbError **err);

int registry_upload_location(
        RegistryClient *c, const RegistryHost *host, const RegistryCall *call, char **ret, TbError **err)
{
        const char *location = registry_call_header(call, "Location");
        _cleanup_free_ char *url = NULL;
        int r;

        if (!location)
                return 0;
        r = registry_url_resolve(registry_call_url(call), location, &url, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s: upload Location", host->name);
                return r;
        }
        r = registry_call_check_target(c, host, registry_call_url(call), url, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(url);
        return 1;
}

/* 1 = the session has a (new) Location, 0 = the answer told none. */
static int take_location(RegistryUpload *u, RegistryCall *call, TbError **err)
{
        char *url;
        int r = registry_upload_location(u->client, u->host, call, &url, err);

        if (r > 0) {
                free(u->location);
                u->location = url;
        }
        return r;
}

static void take_chunk_min(RegistryUpload *u, const RegistryCall *call);
static void session_ready(RegistryUpload *u);

static void on_opened(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryUpload *u = userdata;
        unsigned status;
        int r;

        u->call_is_open = false;
        if (err) {
                e = tb_error_copy(err); /* err dies with the call */
                upload_failed(u, e);
                return;
        }
        status = registry_call_status(call);
        if (status == 201 && u->mount_from) {
                u->o.event(u, REGISTRY_UPLOAD_MOUNTED, NULL, u->o.userdata);
                return;
        }
        if (status == 202) {
                r = take_location(u, call, &e);
                if (r == 0)
                        r = tb_error_set(&e, TB_ERROR_REMOTE, -EPROTO,
                                "%s: opened an upload without telling its Location", u->host->name);
                if (r < 0)
                        upload_failed(u, e);
                else {
                        take_chunk_min(u, call);
                        session_ready(u);
                }
                return;
        }
        /* Some registries answer a mount that they do not like (or whose source we may not read) with an error. */
        if (u->mount_from && status >= 400 && !registry_status_is_retryable(status)) {
                free(u->mount_from);
                u->mount_from = NULL;
                if (open_session(u, &e) < 0)
                        upload_failed(u, e);
                return;
        }
        (void) registry_status_error(call, &e, "cannot upload to %s", u->ref->repository);
        upload_failed(u, e);
}

/* OCI-Chunk-Min-Length: smaller pieces would be refused. */
static void take_chunk_min(RegistryUpload *u, const RegistryCall *call)
{
        const char *header = registry_call_header(call, "OCI-Chunk-Min-Length");
        uint64_t min;

        if (u->chunk == 0 || !header || tb_parse_u64(header, 0, INT64_MAX, &min, NULL) < 0)
                return;
        u->chunk = min > CHUNK_MAX ? 0 : MAX2(u->chunk, min);
}

static int send_on(RegistryUpload *u, TbError **err);

/* A session is there: the owner is to send, or goes on with what he was sending. */
static void session_ready(RegistryUpload *u)
{
        _cleanup_error_ TbError *e = NULL;

        if (!u->read)
                u->o.event(u, REGISTRY_UPLOAD_OPENED, NULL, u->o.userdata);
        else if (u->o.seek(u->offset, u->o.userdata, &e) < 0 || send_on(u, &e) < 0)
                upload_failed(u, e);
}

/* How many bytes a session has: 1 = u->offset is set, 0 = it says nothing that could be relied on. */
static int take_range(RegistryUpload *u, const RegistryCall *call)
{
        const char *header = registry_call_header(call, "Range");
        uint64_t n;

        if (!header || registry_upload_range_parse(header, &n) < 0 || n > u->o.size)
                return 0;
        u->offset = n;
        return 1;
}

static void on_asked(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryUpload *u = userdata;
        unsigned status = registry_call_status(call);

        if (err) {
                e = tb_error_copy(err);
                upload_failed(u, e);
                return;
        }
        if ((status == 204 || status == 200 || status == 202) && take_range(u, call) > 0 &&
                take_location(u, call, NULL) >= 0) {
                session_ready(u);
                return;
        }
        u->call = registry_call_free(u->call);
        if (status != 404)
                registry_session_close(u->client, u->host, u->push_scope, TAKE_PTR(u->location), NULL);
        free(u->location);
        u->location = NULL;
        u->offset = 0;
        if (open_session(u, &e) < 0)
                upload_failed(u, e);
}

static int ask(RegistryUpload *u, TbError **err)
{
        RegistryCallOptions o = {
                .host = u->host,
                .method = "GET",
                .url = u->location,
                .scopes = {u->push_scope},
                .timeout_usec = OPEN_TIMEOUT_USEC,
                .done = on_asked,
                .userdata = u,
        };

        u->call = registry_call_free(u->call);
        return registry_call_start(u->client, &o, &u->call, err);
}

/* A URL from an earlier time, of an earlier process perhaps: as trustworthy as a Location that the registry sends. */
static int ask_session(RegistryUpload *u, const char *url, TbError **err)
{
        _cleanup_free_ char *home = registry_host_url(u->host, "%s", "");

        if (!home)
                return tb_error_oom(err);
        if (registry_call_check_target(u->client, u->host, home, url, NULL) < 0)
                return open_session(u, err);
        u->location = strdup(url);
        if (!u->location)
                return tb_error_oom(err);
        return ask(u, err);
}

static int open_session(RegistryUpload *u, TbError **err)
{
        _cleanup_free_ char *url = NULL, *source_scope = NULL;
        RegistryCallOptions o = {
                .host = u->host,
                .method = "POST",
                .scopes = {u->push_scope},
                .timeout_usec = OPEN_TIMEOUT_USEC,
                .done = on_opened,
                .userdata = u,
        };
        int r;

        url = registry_host_url(u->host, "%s/blobs/uploads/", u->ref->repository);
        if (!url)
                return tb_error_oom(err);
        if (u->mount_from) {
                const char *const query[][2] = {{"mount", u->o.digest.text}, {"from", u->mount_from}};

                for (size_t i = 0; i < ELEMENTSOF(query); i++) {
                        char *longer;

                        r = registry_url_add_query(url, query[i][0], query[i][1], &longer, err);
                        if (r < 0)
                                return r;
                        free(url);
                        url = longer;
                }
                source_scope = tb_asprintf("repository:%s:pull", u->mount_from);
                if (!source_scope)
                        return tb_error_oom(err);
                o.scopes[1] = source_scope;
        }
        o.url = url;
        u->call = registry_call_free(u->call);
        r = registry_call_start(u->client, &o, &u->call, err);
        u->call_is_open = r >= 0;
        return r;
}

int registry_upload_start(
        RegistryClient *c, const RegistryUploadOptions *options, RegistryUpload **ret, TbError **err)
{
        _cleanup_(upload_freep) RegistryUpload *u = NULL;
        int r;

        u = calloc(1, sizeof(*u));
        if (!u)
                return tb_error_oom(err);
        u->client = c;
        u->o = *options;
        u->chunk = options->size > 0 && options->size < UINT64_MAX ? c->upload_chunk : 0;
        r = registry_ref_new(options->repository->host, options->repository->repository, NULL,
                &options->digest, &u->ref, err);
        if (r < 0)
                return r;
        u->o.repository = u->ref;
        u->push_scope = tb_asprintf("repository:%s:pull,push", u->ref->repository);
        if (!u->push_scope)
                return tb_error_oom(err);
        if (options->mount_from) {
                if (!registry_repository_is_valid(options->mount_from))
                        return tb_error_set(
                                err, TB_ERROR_CONFIG, -EINVAL, "bad name of a repository to mount from");
                u->mount_from = strdup(options->mount_from);
                if (!u->mount_from)
                        return tb_error_oom(err);
        }
        u->o.mount_from = u->o.session = NULL;
        r = registry_client_get_host(c, u->ref->host, &u->host, err);
        if (r < 0)
                return r;
        r = options->session ? ask_session(u, options->session, err) : open_session(u, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(u);
        return 0;
}

static void on_committed(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryUpload *u = userdata;
        const char *digest;
        unsigned status;

        if (err) {
                e = tb_error_copy(err);
                upload_failed(u, e);
                return;
        }
        status = registry_call_status(call);
        digest = registry_call_header(call, "Docker-Content-Digest");
        if (status != 201 && status != 200 && status != 204)
                (void) registry_status_error(
                        call, &e, "cannot upload blob %s to %s", u->o.digest.text, u->ref->repository);
        else if (digest && !tb_streq(digest, u->o.digest.text)) {
                _cleanup_free_ char *shown = tb_escape(digest, 80);

                (void) tb_error_set(&e, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: uploaded blob %s, but the registry says it has %s", u->host->name,
                        u->o.digest.text, shown ? shown : "?");
        }
        if (e) {
                upload_failed(u, e);
                return;
        }
        free(u->location); /* committed: there is no session any more */
        u->location = NULL;
        u->o.event(u, REGISTRY_UPLOAD_DONE, NULL, u->o.userdata);
}

static int start_call(RegistryUpload *u, RegistryCallOptions *o, const char *range, TbError **err)
{
        const char *const headers[] = {"Content-Type: application/octet-stream", range, NULL};

        o->host = u->host;
        o->headers = headers;
        o->scopes[0] = u->push_scope;
        o->tries =
                1; /* a session that saw part of a body is in an unknown state: the owner opens a new one */
        o->low_speed_sec = u->client->stall_sec * SEND_STALL_FACTOR;
        o->userdata = u;
        u->call = registry_call_free(u->call);
        return registry_call_start(u->client, o, &u->call, err);
}

int registry_upload_send_small(RegistryUpload *u, const void *data, size_t size, TbError **err)
{
        RegistryCallOptions o = {.method = "PUT", .body = data, .body_size = size, .done = on_committed};
        _cleanup_free_ char *url = NULL;
        int r;

        r = registry_url_add_query(u->location, "digest", u->o.digest.text, &url, err);
        if (r < 0)
                return r;
        o.url = url;
        return start_call(u, &o, NULL, err);
}

/* A piece or a stream was taken: 1 = goes on, negative = it was not what should be there now. */
static int after_piece(RegistryUpload *u, RegistryCall *call, TbError **err)
{
        const char *header = registry_call_header(call, "Range");
        uint64_t have = 0, want = u->offset + u->piece;
        int r;

        r = take_location(u, call, err);
        if (r < 0)
                return r;
        if (u->piece == 0)
                return registry_upload_send_small(u, NULL, 0, err);
        u->offset = want;
        if (header) {
                r = registry_upload_range_parse(header, &have);
                if (r == -EAGAIN)
                        have = 1; /* "0-0": all of a piece of one byte, or next to nothing of a longer one */
                if (r == -EPROTO || have > want || (have < want && !u->o.seek) ||
                        ++u->reasks > REASKS_MAX * 1024)
                        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                                "%s: was given a piece of a blob up to byte %llu and says it has %llu",
                                u->host->name, (unsigned long long) want, (unsigned long long) have);
                if (have < want)
                        return ask(u, err);
        }
        return u->offset < u->o.size ? send_on(u, err) : registry_upload_send_small(u, NULL, 0, err);
}

/* 1 = goes on in smaller pieces, 0 = the refusal stands. */
static int too_large(RegistryUpload *u, unsigned status, TbError **err)
{
        uint64_t smaller = u->piece > 0 ? u->piece / 2 : CHUNK_AFTER_413;
        int r;

        /* 411: a stream has no Content-Length */
        if ((status != 413 && (status != 411 || u->piece > 0)) || !u->o.seek || u->o.size == 0 ||
                smaller < REGISTRY_CHUNK_MIN || ++u->reasks > REASKS_MAX)
                return 0;
        u->chunk = smaller;
        r = ask(u, err);
        return r < 0 ? r : 1;
}

static void on_sent(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryUpload *u = userdata;
        unsigned status;
        int r;

        if (err) {
                e = tb_error_copy(err);
                upload_failed(u, e);
                return;
        }
        status = registry_call_status(call);
        if (status == 202 || status == 201 || status == 204)
                r = after_piece(u, call, &e);
        else {
                r = too_large(u, status, &e);
                if (r == 0)
                        r = registry_status_error(call, &e, "cannot upload blob %s to %s", u->o.digest.text,
                                u->ref->repository);
        }
        if (r < 0)
                upload_failed(u, e);
}

/* The token ran out, or the registry sent us elsewhere, before it took anything of this PATCH. */
static int on_again(RegistryCall *call, char ***headers, void *userdata, TbError **err)
{
        RegistryUpload *u = userdata;

        return u->o.seek(u->offset, u->o.userdata, err);
}

/* The next PATCH, from u->offset on. */
static int send_on(RegistryUpload *u, TbError **err)
{
        RegistryCallOptions o = {
                .method = "PATCH",
                .url = u->location,
                .read = u->read,
                .read_userdata = u->o.userdata,
                .read_size = UINT64_MAX,
                .again = u->o.seek ? on_again : NULL,
                .done = on_sent,
        };
        _cleanup_free_ char *range = NULL;

        u->piece = 0;
        if (u->chunk > 0)
                u->piece = MIN2(u->chunk, u->o.size - u->offset);
        else if (u->offset > 0)
                u->piece = u->o.size - u->offset;
        if (u->piece > 0) { /* distribution-spec "Pushing a blob in chunks": both ends, inclusive */
                o.read_size = u->piece;
                range = tb_asprintf("Content-Range: %llu-%llu", (unsigned long long) u->offset,
                        (unsigned long long) (u->offset + u->piece - 1));
                if (!range)
                        return tb_error_oom(err);
        }
        return start_call(u, &o, range, err);
}

int registry_upload_send(RegistryUpload *u, TbHttpReadFn read, TbError **err)
{
        u->read = read;
        return send_on(u, err);
}

void registry_upload_set_digest(RegistryUpload *u, const TbDigest *digest)
{
        u->o.digest = *digest;
}

uint64_t registry_upload_offset(const RegistryUpload *u)
{
        return u->offset;
}

const char *registry_upload_session(const RegistryUpload *u)
{
        return u->location;
}

char *registry_upload_take_session(RegistryUpload *u)
{
        return TAKE_PTR(u->location);
}

void registry_upload_resume(RegistryUpload *u)
{
        if (u->call)
                registry_call_resume(u->call);
}

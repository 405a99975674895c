/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Blob upload (distribution-spec "Pushing blobs"): POST opens a session, one PUT with the digest sends and commits it
 *
 * The POST carries a mount when there is a repository to mount from; a registry that cannot mount answers with a
 * session as for a plain POST, so nothing is lost by asking. The session's Location holds state in its query and is used
 * as it is, with "digest" appended. Whatever ends an open session other than success, a DELETE is sent for it.
 *
 *         OPENING -> OPENED -> SENDING -> done
 *            |-> mounted
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define OPEN_TIMEOUT_USEC (60 * USEC_PER_SEC)
#define CANCEL_TIMEOUT_USEC (10 * USEC_PER_SEC)
/* The other side may have to move and hash the blob before it answers. */
#define SEND_LOW_SPEED_SEC 180U

struct RegistryUpload {
        RegistryClient *client;
        RegistryUploadOptions o;
        RegistryRef *ref;
        char *mount_from;
        RegistryHost *host;
        RegistryCall *call;
        char *location; /* of the open session; NULL = none */
        char *push_scope;
};

/* In the background: the session may be gone already, and nobody can do anything about a failure (registries purge
 * sessions that were left open). */
static void cancel_session(RegistryUpload *u)
{
        RegistryCallOptions o = {
                .host = u->host,
                .method = "DELETE",
                .url = u->location,
                .scopes = {u->push_scope},
                .tries = 1,
                .timeout_usec = CANCEL_TIMEOUT_USEC,
        };

        if (!u->location)
                return;
        registry_call_background(u->client, &o);
        free(u->location);
        u->location = NULL;
}

RegistryUpload *registry_upload_free(RegistryUpload *u)
{
        if (!u)
                return NULL;
        registry_call_free(u->call); /* first: a running PUT must end before its session is deleted */
        cancel_session(u);
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

static void upload_failed(RegistryUpload *u, const TbError *err)
{
        u->call = registry_call_free(u->call);
        cancel_session(u);
        u->o.event(u, REGISTRY_UPLOAD_FAILED, err, u->o.userdata);
}

static int open_session(RegistryUpload *u, TbError **err);

static int take_location(RegistryUpload *u, RegistryCall *call, TbError **err)
{
        const char *location = registry_call_header(call, "Location");
        char *url;
        int r;

        if (!location)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                        "%s: opened an upload without telling its Location", u->host->name);
        r = registry_url_resolve(registry_call_url(call), location, &url, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s: upload Location", u->host->name);
                return r;
        }
        r = registry_call_check_target(u->client, u->host, registry_call_url(call), url, err);
        if (r < 0) {
                free(url);
                return r;
        }
        free(u->location);
        u->location = url;
        return 0;
}

static void on_opened(RegistryCall *call, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryUpload *u = userdata;
        unsigned status;

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
                if (take_location(u, call, &e) < 0)
                        upload_failed(u, e);
                else
                        u->o.event(u, REGISTRY_UPLOAD_OPENED, NULL, u->o.userdata);
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
        return registry_call_start(u->client, &o, &u->call, err);
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
        u->o.mount_from = NULL;
        r = registry_client_get_host(c, u->ref->host, &u->host, err);
        if (r < 0)
                return r;
        r = open_session(u, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(u);
        return 0;
}

static void on_sent(RegistryCall *call, const TbError *err, void *userdata)
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

int registry_upload_send(RegistryUpload *u, uint64_t size, TbHttpReadFn read, TbError **err)
{
        const char *headers[] = {"Content-Type: application/octet-stream", NULL};
        _cleanup_free_ char *url = NULL;
        RegistryCallOptions o = {
                .host = u->host,
                .method = "PUT",
                .headers = headers,
                .scopes = {u->push_scope},
                .read = size > 0 ? read : NULL,
                .read_size = size,
                .tries =
                        1, /* a session that saw part of a body is in an unknown state: the owner opens a new one */
                .low_speed_sec = SEND_LOW_SPEED_SEC,
                .done = on_sent,
                .userdata = u,
        };
        int r;

        r = registry_url_add_query(u->location, "digest", u->o.digest.text, &url, err);
        if (r < 0)
                return r;
        o.url = url;
        o.read_userdata = u->o.userdata;
        u->call = registry_call_free(u->call);
        return registry_call_start(u->client, &o, &u->call, err);
}

void registry_upload_resume(RegistryUpload *u)
{
        if (u->call)
                registry_call_resume(u->call);
}

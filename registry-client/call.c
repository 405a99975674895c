/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One logical request to a registry
 *
 * A call becomes as many HTTP exchanges as it takes: a token is fetched before or after a 401, redirects are followed by
 * hand, what may help to repeat is repeated after a pause. The owner sees one `done` with the last answer, whatever
 * its status, or the transport error.
 *
 *         start -> [TOKEN] -> RUNNING -> done
 *                     ^          |-> 401 -> [HELPER] -> TOKEN or RUNNING with credentials, once
 *                     |          |-> 3xx -> RUNNING at the new place, at most 5 times
 *                     +-- PAUSE <+-> 408 429 500 502 503 504 or a retryable transport error, at most `tries` times
 *
 * Invariants: an Authorization header goes only to the registry's own origin (or, for token requests, to the origin of
 * the URL the call was started with); every URL but the first went through registry_call_check_target(). A body that
 * is streamed is sent again only when the owner can rewind it (`again`) or nothing of it was taken.
 *
 * Owners may free a call from any of its callbacks. `done` never comes from inside registry_call_start().
 */

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/call.h"
#include "registry-client/internal.h"

/* A transfer that is slower than this for the stall time is as good as dead: a byte now and then must not hold a job. */
#define STALL_BYTES_PER_SEC 1024U
#define REDIRECTS_MAX 5U
#define ERROR_BODY_MAX (64U * 1024)       /* kept of the body of an error status */
#define ERROR_BODY_GIVE_UP (1024U * 1024) /* stop listening to one */
#define RESPONSE_MAX_DEFAULT (1024U * 1024)
#define PROGRESS_REPEATS_MAX 20U

RegistryCall *registry_call_free(RegistryCall *call)
{
        if (!call)
                return NULL;
        registry_auth_forget_call(call->client, call);
        registry_credentials_forget_call(call->client, call);
        sd_event_source_disable_unref(call->timer);
        tb_http_request_free(call->request);
        tb_error_free(call->abort_reason);
        tb_buffer_done(&call->body);
        tb_strv_free(call->headers);
        tb_strv_free(call->scopes);
        registry_secret_free(call->authorization);
        registry_secret_free(call->token);
        if (call->request_body)
                explicit_bzero(call->request_body, call->o.body_size);
        free(call->request_body);
        free(call->first_url);
        free(call->url);
        free(call);
        return NULL;
}

static void call_finish(RegistryCall *call, const TbError *err)
{
        call->state = CALL_DONE;
        call->o.done(call, err, call->o.userdata); /* may free it */
}

/* For errors that come up in the middle, where nobody takes a return value. */
static void call_fail(RegistryCall *call, TbError **err)
{
        _cleanup_error_ TbError *e = TAKE_PTR(*err);

        if (!e)
                (void) tb_error_oom(&e);
        call_finish(call, e);
}

/* ---- where we may connect to ---- */

static bool host_is_public(const RegistryHost *h)
{
        return !h->seen_private && !registry_host_is_private(h->authority);
}

static bool at_home(const RegistryCall *call)
{
        _cleanup_free_ char *home = registry_host_url(call->o.host, "%s", "");

        return home && registry_url_same_origin(call->url, home);
}

int registry_call_check_target(
        RegistryClient *c, const RegistryHost *host, const char *from, const char *to, TbError **err)
{
        _cleanup_free_ char *authority = registry_url_authority(to);
        const RegistryHost *known;

        if (!authority)
                return tb_error_oom(err);
        if (registry_url_same_origin(from, to))
                return 0;
        known = registry_client_find_authority(c, authority);
        if (!registry_url_is_https(to)) {
                if (registry_url_is_https(from))
                        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                                "%s: sends us from https to http://%s: refused; is a proxy in front of it "
                                "not setting "
                                "X-Forwarded-Proto?",
                                host->name, authority);
                if (!registry_host_is_loopback(authority) && !(known && known->plain_http))
                        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                                "%s: sends us to http://%s, which is not marked as a plain http host",
                                host->name, authority);
        }
        if (host_is_public(host) && (registry_host_is_private(authority) || (known && known->seen_private)))
                return tb_error_set(err, TB_ERROR_REMOTE, -EACCES,
                        "%s: a public registry sends us to the private address %s: refused", host->name,
                        authority);
        return 0;
}

/* Asked by TbHttp before each connection: learns which registries are in private networks, and keeps public ones from
 * sending us there through a name that resolves to such an address. */
static bool on_address(TbHttpRequest *r, const struct sockaddr *address, void *userdata)
{
        RegistryCall *call = userdata;
        bool private = registry_address_is_private(address);

        if (call->proxied) /* the proxy's own address says nothing about where it leads */
                return true;
        if (call->home) {
                call->o.host->seen_private = call->o.host->seen_private || private;
                return true;
        }
        return !private || !host_is_public(call->o.host);
}

/* ---- sending ---- */

static bool status_is_good(unsigned status)
{
        return status >= 200 && status < 300;
}

static ssize_t collect(RegistryCall *call, const void *data, size_t size)
{
        if (!status_is_good(registry_call_status(call))) {
                size_t room = ERROR_BODY_MAX - MIN2(call->body.size, (size_t) ERROR_BODY_MAX);

                call->error_body_size += size;
                if (call->error_body_size > ERROR_BODY_GIVE_UP) {
                        call->heard_enough = true;
                        return -ECANCELED;
                }
                if (room == 0)
                        return 0;
                return tb_buffer_append(&call->body, data, MIN2(size, room), &call->abort_reason);
        }
        if (call->body.size + size > call->o.response_max)
                return tb_error_set(&call->abort_reason, TB_ERROR_REMOTE, -EMSGSIZE,
                        "%s: the answer is larger than %zu bytes", call->o.host->name, call->o.response_max);
        return tb_buffer_append(&call->body, data, size, &call->abort_reason);
}

static ssize_t on_write(TbHttpRequest *r, const void *data, size_t size, void *userdata)
{
        RegistryCall *call = userdata;
        ssize_t n;

        if (call->o.write && status_is_good(tb_http_request_status(r))) {
                call->consumed = true;
                return call->o.write(call, data, size, call->o.userdata);
        }
        n = collect(call, data, size);
        if (n < 0 && call->abort_reason)
                tb_http_request_abort_reason(r, TAKE_PTR(call->abort_reason));
        return n;
}

static ssize_t on_read(TbHttpRequest *r, void *buf, size_t size, void *userdata)
{
        RegistryCall *call = userdata;
        ssize_t n = call->o.read(r, buf, size, call->o.read_userdata);

        /* A negative answer may have freed the call. */
        if (n > 0)
                call->consumed = true;
        return n;
}

static void on_http_done(TbHttpRequest *r, const TbError *err, void *userdata);

static int build_headers(RegistryCall *call, char ***ret, TbError **err)
{
        _cleanup_strv_ char **headers = NULL;
        bool own_origin = registry_url_same_origin(call->url, call->first_url);
        const char *authorization = NULL;
        int r;

        for (size_t i = 0; call->headers && call->headers[i]; i++) {
                r = tb_strv_append(&headers, call->headers[i], err);
                if (r < 0)
                        return r;
        }
        if ((call->repeats > 0 || call->o.prepare) && call->o.again) {
                r = call->o.again(call, &headers, call->o.userdata, err);
                if (r < 0)
                        return r;
        }
        if (call->o.authorization)
                authorization = own_origin ? call->authorization : NULL;
        else if (call->home)
                authorization = call->token;
        if (authorization && *authorization) {
                char *line = tb_asprintf("Authorization: %s", authorization);

                if (!line)
                        return tb_error_oom(err);
                r = tb_strv_consume(&headers, line, err);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(headers);
        return 0;
}

static void headers_free(char ***headers)
{
        for (size_t i = 0; *headers && (*headers)[i]; i++)
                explicit_bzero((*headers)[i], strlen((*headers)[i])); /* Authorization is among them */
        tb_strv_free(*headers);
}

static int call_send(RegistryCall *call, TbError **err)
{
        _cleanup_(headers_free) char **headers = NULL;
        _cleanup_free_ char *authority = registry_url_authority(call->url);
        RegistryHost *settings;
        const char *proxy = "";
        TbHttpOptions o;
        int r;

        if (!authority)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "%s: bad address", call->o.host->name);
        settings = call->home ? call->o.host : registry_client_find_authority(call->client, authority);
        r = registry_host_load_certs(call->client, call->o.host, err);
        if (r >= 0 && settings)
                r = registry_host_load_certs(call->client, settings, err);
        if (r >= 0 && !(settings && settings->unix_socket))
                r = registry_proxy_for(&call->client->proxy, call->url, &proxy, err);
        if (r < 0)
                return r;
        call->proxied = *proxy;
        r = build_headers(call, &headers, err);
        if (r < 0)
                return r;

        tb_buffer_done(&call->body);
        call->body = TB_BUFFER_INIT(0);
        call->error_body_size = 0;
        call->heard_enough = false;
        call->consumed = false;
        call->progressed = false;
        o = (TbHttpOptions){
                .method = call->o.method,
                .url = call->url,
                .headers = (const char *const *) headers,
                .body = call->request_body,
                .body_size = call->o.body_size,
                .read = call->o.read ? on_read : NULL,
                .read_size = call->o.read_size,
                .write = on_write,
                .allow_address = on_address,
                .timeout_usec = call->o.timeout_usec,
                .low_speed_bps = STALL_BYTES_PER_SEC,
                .low_speed_sec = call->o.low_speed_sec,
                .done = on_http_done,
                .userdata = call,
        };
        o.proxy = proxy;
        if (settings)
                o.unix_socket = settings->unix_socket;
        if (settings)
                o.tls = (TbHttpTls){
                        .ca_file = settings->ca_file,
                        .ca_pem = settings->ca_pem,
                        .client_cert = settings->client_cert,
                        .client_key = settings->client_key,
                        .insecure = settings->insecure,
                };
        /* Its token server and its storage often have certificates of the same private CA (docker trusts it there too). */
        if (!o.tls.ca_file && !o.tls.ca_pem) {
                o.tls.ca_file = call->o.host->ca_file;
                o.tls.ca_pem = call->o.host->ca_pem;
        }
        call->request = tb_http_request_free(call->request);
        r = tb_http_start(call->client->http, &o, &call->request, err);
        if (r < 0)
                return r;
        call->state = CALL_RUNNING;
        call->client->stats.requests++;
        return 0;
}

/* Gets what the Authorization header needs, then sends; may have to wait for a token. */
int registry_call_attempt(RegistryCall *call, TbError **err)
{
        const char *token = NULL;
        int r;

        call->home = at_home(call);
        if (call->home && !call->o.authorization) {
                if (call->o.host->challenge.scheme == REGISTRY_AUTH_BASIC) {
                        call->token = registry_secret_free(call->token);
                        r = registry_auth_basic(call->client, call->o.host, &call->token, err);
                        if (r < 0)
                                return r;
                } else if (call->o.host->challenge.scheme == REGISTRY_AUTH_BEARER) {
                        r = registry_auth_get_token(call->client, call->o.host, call->scopes,
                                call->refused ? call->token : NULL, call, &token, err);
                        if (r < 0)
                                return r;
                        if (r == 0) {
                                call->state = CALL_TOKEN;
                                return 0;
                        }
                        return registry_call_use_token(call, token, err);
                }
        }
        return call_send(call, err);
}

int registry_call_use_token(RegistryCall *call, const char *token, TbError **err)
{
        char *copy = strdup(token);

        if (!copy)
                return tb_error_oom(err);
        registry_secret_free(call->token);
        call->token = copy;
        call->refused = false;
        return call_send(call, err);
}

void registry_call_token_ready(RegistryCall *call, const char *token, const TbError *err)
{
        _cleanup_error_ TbError *e = NULL;

        if (err || !token)
                call_finish(call, err);
        else if (registry_call_use_token(call, token, &e) < 0)
                call_fail(call, &e);
}

/* ---- answers that are not the last one ---- */

bool registry_call_may_repeat(const RegistryCall *call)
{
        return call->o.again || !call->consumed;
}

static int on_pause_over(sd_event_source *s, uint64_t usec, void *userdata)
{
        RegistryCall *call = userdata;
        _cleanup_error_ TbError *e = NULL;

        call->timer = sd_event_source_disable_unref(call->timer);
        if (registry_call_attempt(call, &e) < 0)
                call_fail(call, &e);
        return 0;
}

/* 1 = will try again, 0 = no (more) tries. */
static int call_retry(RegistryCall *call, const char *retry_after, TbError **err)
{
        uint64_t wait = registry_retry_after_usec(retry_after);
        /* A download that got further and can go on from there does not use up its tries, within reason. */
        bool progress = call->progressed && call->repeats < PROGRESS_REPEATS_MAX;
        int r;

        if ((call->tries_left <= 1 && !progress) || !registry_call_may_repeat(call) ||
                wait > REGISTRY_RETRY_AFTER_MAX_SEC * USEC_PER_SEC)
                return 0;
        if (!progress)
                call->tries_left--;
        call->tried =
                progress ? 1 : call->tried + 1; /* what goes on is not made to wait longer and longer */
        call->repeats++;
        /* A redirect may lead elsewhere now, or its signature may have run out: begin where we began. */
        free(call->url);
        call->url = strdup(call->first_url);
        if (!call->url)
                return tb_error_oom(err);
        call->redirects = 0;
        call->challenges = 0;
        call->client->stats.retries++;

        wait = registry_client_backoff(call->client, call->tried, wait);
        registry_client_debug(call->client, "registry %s: %s failed, next try in %llu ms",
                call->o.host->name, call->o.method, (unsigned long long) (wait / 1000));
        r = sd_event_add_time_relative(
                call->client->event, &call->timer, CLOCK_MONOTONIC, wait, 1000, on_pause_over, call);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot set a timer");
        call->state = CALL_PAUSE;
        return 1;
}

/* 1 = went on, 0 = the answer stands. */
static int call_redirect(RegistryCall *call, TbError **err)
{
        unsigned status = registry_call_status(call);
        const char *location = registry_call_header(call, "Location");
        _cleanup_free_ char *next = NULL;
        bool reading = tb_streq(call->o.method, "GET") || tb_streq(call->o.method, "HEAD");
        int r;

        if (status != 301 && status != 302 && status != 303 && status != 307 && status != 308)
                return 0;
        if (!location)
                return 0;
        /* 301 and 302 turn a POST into a GET in the wild (RFC 9110 15.4.2): no way to know what is meant. */
        if (!reading && status != 307 && status != 308)
                return 0;
        if (call->redirects++ >= REDIRECTS_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -ELOOP, "%s: more than %u redirects",
                        call->o.host->name, REDIRECTS_MAX);
        r = registry_url_resolve(call->url, location, &next, err);
        if (r < 0) {
                tb_error_prefix(err, "%s: redirect", call->o.host->name);
                return r;
        }
        r = registry_call_check_target(call->client, call->o.host, call->url, next, err);
        if (r < 0)
                return r;
        if (!registry_call_may_repeat(call))
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                        "%s: redirects an upload that is under way", call->o.host->name);
        if (call->consumed)
                call->repeats++;
        free(call->url);
        call->url = TAKE_PTR(next);
        r = registry_call_attempt(call, err);
        return r < 0 ? r : 1;
}

/*
 * distribution (2.8, file system driver) writes the links of a repository in place: a manifest that is pushed while another
 * request links one of its blobs there meets an empty link, which it calls an invalid digest. Bytes of ours were checked
 * before they went out.
 */
static bool is_torn(const RegistryCall *call)
{
        size_t size;
        const char *body = registry_call_body(call, &size);

        return call->o.again_on_digest && registry_call_status(call) == 400 &&
                memmem(body, size, "DIGEST_INVALID", strlen("DIGEST_INVALID"));
}

/* An exchange is over: goes on, or tells the owner. */
static void call_judge(RegistryCall *call, const TbError *err)
{
        _cleanup_error_ TbError *e = NULL;
        const char *retry_after = NULL;
        bool again;
        int r;

        if (!err) {
                r = call_redirect(call, &e);
                if (r == 0)
                        r = registry_call_challenge(call, &e);
                if (r != 0) {
                        if (r < 0)
                                call_fail(call, &e);
                        return;
                }
                again = registry_status_is_retryable(registry_call_status(call)) || is_torn(call);
                retry_after = registry_call_header(call, "Retry-After");
        } else
                again = err->retryable;

        if (again) {
                r = call_retry(call, retry_after, &e);
                if (r != 0) {
                        if (r < 0)
                                call_fail(call, &e);
                        return;
                }
        }
        call_finish(call, err);
}

static void on_http_done(TbHttpRequest *request, const TbError *err, void *userdata)
{
        RegistryCall *call = userdata;

        call->client->stats.bytes_received += tb_http_request_received(request);
        call->client->stats.bytes_sent += tb_http_request_sent(request);
        call->helper_asked = false;
        if (call->home)
                registry_notices_take(call->client, call->o.host, request);
        if (call->heard_enough)
                err = NULL; /* we hung up on an endless error text; the status is known */
        call_judge(call, err);
}

void registry_call_credentials_ready(RegistryCall *call)
{
        call_judge(call, NULL);
}

/* ---- what owners use ---- */

int registry_call_start(
        RegistryClient *c, const RegistryCallOptions *options, RegistryCall **ret, TbError **err)
{
        _cleanup_(registry_call_freep) RegistryCall *call = NULL;
        int r;

        call = calloc(1, sizeof(*call));
        if (!call)
                return tb_error_oom(err);
        call->client = c;
        call->o = *options;
        call->tries_left = options->tries > 0 ? options->tries : c->tries;
        if (call->o.response_max == 0)
                call->o.response_max = RESPONSE_MAX_DEFAULT;
        if (call->o.low_speed_sec == 0)
                call->o.low_speed_sec = c->stall_sec;
        call->url = strdup(options->url);
        call->first_url = strdup(options->url);
        if (!call->url || !call->first_url)
                return tb_error_oom(err);
        for (size_t i = 0; options->headers && options->headers[i]; i++) {
                r = tb_strv_append(&call->headers, options->headers[i], err);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < ELEMENTSOF(options->scopes) && options->scopes[i]; i++) {
                r = tb_strv_append(&call->scopes, options->scopes[i], err);
                if (r < 0)
                        return r;
        }
        if (options->authorization) {
                call->authorization = strdup(options->authorization);
                if (!call->authorization)
                        return tb_error_oom(err);
        }
        if (options->body_size > 0) {
                call->request_body = malloc(options->body_size);
                if (!call->request_body)
                        return tb_error_oom(err);
                memcpy(call->request_body, options->body, options->body_size);
        }
        r = registry_call_attempt(call, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(call);
        return 0;
}

bool registry_call_take_over(RegistryCall *call, TbHttpReadFn read,
        void (*done)(RegistryCall *call, const TbError *err, void *userdata), void *userdata)
{
        if (call->state != CALL_RUNNING)
                return false;
        if (call->o.read)
                call->o.read = read;
        call->o.read_userdata = userdata;
        call->o.again = NULL;
        call->o.done = done;
        call->o.userdata = userdata;
        call->tries_left = 1;
        registry_call_resume(call);
        return true;
}

unsigned registry_call_status(const RegistryCall *call)
{
        return call->request ? tb_http_request_status(call->request) : 0;
}

const char *registry_call_header(const RegistryCall *call, const char *name)
{
        return call->request ? tb_http_request_header(call->request, name) : NULL;
}

const char *registry_call_body(const RegistryCall *call, size_t *ret_size)
{
        *ret_size = call->body.size;
        return call->body.data ? call->body.data : "";
}

void registry_call_wipe_body(RegistryCall *call)
{
        if (call->body.data)
                explicit_bzero(call->body.data, call->body.allocated);
        call->body.size = 0;
}

const char *registry_call_url(const RegistryCall *call)
{
        return call->url;
}

RegistryHost *registry_call_host(const RegistryCall *call)
{
        return call->o.host;
}

RegistryClient *registry_call_client(const RegistryCall *call)
{
        return call->client;
}

void registry_call_progress(RegistryCall *call)
{
        call->progressed = true;
}

void registry_call_resume(RegistryCall *call)
{
        if (call->request)
                tb_http_request_resume(call->request);
}

void registry_call_abort_reason(RegistryCall *call, TbError *err)
{
        if (call->request)
                tb_http_request_abort_reason(call->request, err);
        else
                tb_error_free(err);
}

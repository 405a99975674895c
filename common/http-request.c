/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/http-internal.h"
#include "common/strv.h"

/*
 * One HTTP exchange
 *
 * Life: QUEUED -> RUNNING -> DONE (http-internal.h). Every callback of curl first looks whether anybody
 * still cares
 * (`freed`, `dead`, `abort_code`), calls the owner, and looks again, because the owner may have freed the
 * request meanwhile.
 */

#define CONNECT_TIMEOUT_MS 10000L
#define RESPONSE_MAX_DEFAULT (1024u * 1024u)
#define TRANSFER_BUFFER (128L * 1024L)

/* curl's own socket() call leaves the descriptor open across exec. */
static curl_socket_t open_socket_callback(
        void *userdata, curlsocktype purpose, struct curl_sockaddr *address)
{
        TbHttpRequest *r = userdata;
        int fd;

        if (r->allow_address && !r->freed && !r->allow_address(r, &address->addr, r->userdata)) {
                tb_error_set(&r->abort_reason, TB_ERROR_REMOTE, -EACCES,
                        "%s: leads to an address that is not allowed there", r->label);
                http_request_abort(r, -EACCES);
                return CURL_SOCKET_BAD;
        }
        fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
        return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* A connection that another request opened and left to be used again was checked for that request, not for this one. */
static int before_request_callback(
        void *userdata, char *remote, char *local, int remote_port, int local_port)
{
        TbHttpRequest *r = userdata;
        struct sockaddr_in v4 = {.sin_family = AF_INET};
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
        const struct sockaddr *address = NULL;

        if (remote && inet_pton(AF_INET, remote, &v4.sin_addr) == 1)
                address = (const struct sockaddr *) &v4;
        else if (remote && inet_pton(AF_INET6, remote, &v6.sin6_addr) == 1)
                address = (const struct sockaddr *) &v6;
        if (!address || r->freed || r->allow_address(r, address, r->userdata))
                return CURL_PREREQFUNC_OK;
        tb_error_set(&r->abort_reason, TB_ERROR_REMOTE, -EACCES,
                "%s: leads to an address that is not allowed there", r->label);
        http_request_abort(r, -EACCES);
        return CURL_PREREQFUNC_ABORT;
}

/* ---- setting up ---- */

#define SETOPT(option, value)                                            \
        do {                                                             \
                CURLcode _c = curl_easy_setopt(r->easy, option, value);  \
                if (_c != CURLE_OK)                                      \
                        return http_error_from_setopt(err, _c, #option); \
        } while (0)

static bool is_token(const char *s)
{
        /* RFC 9110 section 5.6.2 */
        return *s &&
                s[strspn(s,
                        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] ==
                0;
}

static int check_url(const char *url, TbError **err)
{
        _cleanup_free_ char *shown = NULL;
        bool ok = strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0;

        for (const char *p = url; ok && *p; p++)
                ok = (unsigned char) *p > 0x20 && *p != 0x7f;
        if (ok)
                return 0;

        shown = tb_escape(url, 200);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "\"%s\" is not an absolute http:// or https:// address without spaces", shown ?: "?");
}

/* Credentials and signed queries have no place in logs. */
static char *make_label(const char *method, const char *url)
{
        _cleanup_free_ char *shown = NULL;
        const char *host = strstr(url, "://") + 3;
        const char *at = memrchr(host, '@', strcspn(host, "/?#"));
        size_t scheme = (size_t) (host - url), length;

        if (at)
                host = at + 1;
        length = strcspn(host, "?#");
        if (length > 300)
                length = 300;
        shown = tb_escape(host, length);
        if (!shown)
                return NULL;
        /* tb_escape() marks the cut with "...": wanted for a long path, not for a dropped query. */
        if (host[length] && length < 300 && tb_endswith(shown, "..."))
                shown[strlen(shown) - 3] = 0;
        return tb_asprintf("%s %.*s%s", method, (int) scheme, url, shown);
}

static int add_header(TbHttpRequest *r, const char *line, TbError **err)
{
        struct curl_slist *list = curl_slist_append(r->request_headers, line);

        if (!list)
                return tb_error_oom(err);
        r->request_headers = list;
        return 0;
}

static int setup_headers(TbHttpRequest *r, const char *const *headers, TbError **err)
{
        int k;

        for (size_t i = 0; headers && headers[i]; i++) {
                const char *line = headers[i], *colon = strchr(line, ':');
                _cleanup_free_ char *name = colon ? strndup(line, (size_t) (colon - line)) : NULL;
                _cleanup_free_ char *empty = NULL;

                if (colon && !name)
                        return tb_error_oom(err);
                /* A line break would smuggle in headers or a whole request. */
                if (!name || !is_token(name) || strpbrk(line, "\r\n"))
                        return tb_error_set(err, TB_ERROR_BUG, -EINVAL,
                                "%s: request header %zu is not of the form \"Name: value\"", r->label, i);
                /* "Name:" without a value tells curl to drop the header, "Name;" to send it empty. */
                if (colon[1 + strspn(colon + 1, " \t")] == 0) {
                        empty = tb_asprintf("%s;", name);
                        if (!empty)
                                return tb_error_oom(err);
                        line = empty;
                }
                k = add_header(r, line, err);
                if (k < 0)
                        return k;
        }

        /* No waiting for "100 Continue": few registries send it and each upload would lose a second. */
        k = add_header(r, "Expect:", err);
        if (k < 0)
                return k;
        SETOPT(CURLOPT_HTTPHEADER, r->request_headers);
        return 0;
}

static int setup_method(TbHttpRequest *r, const TbHttpOptions *o, TbError **err)
{
        bool sends = r->read || r->body_size > 0 || strcmp(o->method, "POST") == 0 ||
                strcmp(o->method, "PUT") == 0 || strcmp(o->method, "PATCH") == 0;

        if (strcmp(o->method, "HEAD") == 0) {
                if (r->read || r->body_size > 0)
                        return tb_error_set(
                                err, TB_ERROR_BUG, -EINVAL, "%s: a HEAD request has no body", r->label);
                SETOPT(CURLOPT_NOBODY, 1L);
                return 0;
        }

        if (sends) {
                uint64_t size = r->read ? r->read_size : r->body_size;

                if (size != UINT64_MAX && size > (uint64_t) INT64_MAX)
                        return tb_error_set(
                                err, TB_ERROR_BUG, -ERANGE, "%s: body size out of range", r->label);
                /* Also for an empty body: POST and the like then carry "Content-Length: 0". */
                SETOPT(CURLOPT_UPLOAD, 1L);
                SETOPT(CURLOPT_READFUNCTION, http_on_read);
                SETOPT(CURLOPT_READDATA, r);
                SETOPT(CURLOPT_SEEKFUNCTION, http_on_seek);
                SETOPT(CURLOPT_SEEKDATA, r);
                SETOPT(CURLOPT_INFILESIZE_LARGE, size == UINT64_MAX ? (curl_off_t) -1 : (curl_off_t) size);
                SETOPT(CURLOPT_UPLOAD_BUFFERSIZE, TRANSFER_BUFFER);
        }
        SETOPT(CURLOPT_CUSTOMREQUEST, o->method);
        return 0;
}

static int setup_tls(TbHttpRequest *r, const TbHttpTls *tls, TbError **err)
{
        SETOPT(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
        SETOPT(CURLOPT_SSL_VERIFYPEER, tls->insecure ? 0L : 1L);
        SETOPT(CURLOPT_SSL_VERIFYHOST, tls->insecure ? 0L : 2L);
        if (tls->ca_file)
                SETOPT(CURLOPT_CAINFO, tls->ca_file);
        if (tls->ca_pem) {
                struct curl_blob blob = {
                        .data = (void *) (uintptr_t) tls->ca_pem, /* copied */
                        .len = strlen(tls->ca_pem),
                        .flags = CURL_BLOB_COPY,
                };

                SETOPT(CURLOPT_CAINFO_BLOB, &blob);
        }
        if (tls->client_cert)
                SETOPT(CURLOPT_SSLCERT, tls->client_cert);
        if (tls->client_key)
                SETOPT(CURLOPT_SSLKEY, tls->client_key);
        return 0;
}

static long clamp_long(uint64_t v)
{
        return v > LONG_MAX ? LONG_MAX : (long) v;
}

static int setup_limits(TbHttpRequest *r, const TbHttpOptions *o, TbError **err)
{
        SETOPT(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
        if (o->timeout_usec > 0) /* rounded up: 0 would be "none" */
                SETOPT(CURLOPT_TIMEOUT_MS,
                        clamp_long(o->timeout_usec / 1000 + (o->timeout_usec % 1000 > 0)));
        if (r->low_speed_bps > 0) {
                SETOPT(CURLOPT_LOW_SPEED_LIMIT, (long) r->low_speed_bps);
                SETOPT(CURLOPT_LOW_SPEED_TIME, clamp_long(o->low_speed_sec));
        }
        return 0;
}

static int setup_easy(TbHttpRequest *r, const TbHttpOptions *o, TbError **err)
{
        r->easy = curl_easy_init();
        if (!r->easy)
                return tb_error_oom(err);

        SETOPT(CURLOPT_PRIVATE, (char *) r);
        SETOPT(CURLOPT_ERRORBUFFER, r->curl_error);
        SETOPT(CURLOPT_URL, r->url);
        SETOPT(CURLOPT_PATH_AS_IS, 1L); /* signed addresses must arrive as they were given */
        SETOPT(CURLOPT_PROTOCOLS_STR, "http,https");
        SETOPT(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
        SETOPT(CURLOPT_FOLLOWLOCATION, 0L);
        SETOPT(CURLOPT_NOSIGNAL, 1L);
        SETOPT(CURLOPT_TCP_NODELAY, 1L);
        SETOPT(CURLOPT_TCP_KEEPALIVE, 1L);
        SETOPT(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
        SETOPT(CURLOPT_USERAGENT, r->http->user_agent);
        SETOPT(CURLOPT_BUFFERSIZE, TRANSFER_BUFFER);
        SETOPT(CURLOPT_OPENSOCKETFUNCTION, open_socket_callback);
        SETOPT(CURLOPT_OPENSOCKETDATA, r);
        if (o->allow_address) {
                SETOPT(CURLOPT_PREREQFUNCTION, before_request_callback);
                SETOPT(CURLOPT_PREREQDATA, r);
        }
        SETOPT(CURLOPT_HEADERFUNCTION, http_on_header);
        SETOPT(CURLOPT_HEADERDATA, r);
        SETOPT(CURLOPT_WRITEFUNCTION, http_on_write);
        SETOPT(CURLOPT_WRITEDATA, r);
        if (r->unix_socket) {
                SETOPT(CURLOPT_UNIX_SOCKET_PATH, r->unix_socket);
                SETOPT(CURLOPT_PROXY, ""); /* whatever the environment says */
        } else if (o->proxy) {
                SETOPT(CURLOPT_PROXY, o->proxy);
                SETOPT(CURLOPT_NOPROXY,
                        ""); /* the caller has decided; else curl would ask the environment */
        }
        return 0;
}

static int request_init(TbHttpRequest *r, const TbHttpOptions *o, TbError **err)
{
        if (!o->method || !is_token(o->method))
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "an HTTP request without a valid method");
        if (o->read && o->body_size > 0)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "an HTTP request with two bodies");

        r->url = strdup(o->url);
        r->label = make_label(o->method, o->url);
        if (!r->url || !r->label)
                return tb_error_oom(err);
        if (o->unix_socket) {
                r->unix_socket = strdup(o->unix_socket);
                if (!r->unix_socket)
                        return tb_error_oom(err);
        }
        if (o->body_size > 0) {
                r->body = malloc(o->body_size);
                if (!r->body)
                        return tb_error_oom(err);
                memcpy(r->body, o->body, o->body_size);
                r->body_size = o->body_size;
        }

        r->read = o->read;
        r->read_size = o->read_size;
        r->write = o->write;
        r->allow_address = o->allow_address;
        r->done = o->done;
        r->userdata = o->userdata;
        r->response.max = o->response_max > 0 ? o->response_max : RESPONSE_MAX_DEFAULT;
        if (o->low_speed_sec > 0)
                r->low_speed_bps = (uint64_t) clamp_long(MAX2(o->low_speed_bps, (uint64_t) 1));
        return 0;
}

int tb_http_start(TbHttp *h, const TbHttpOptions *options, TbHttpRequest **ret, TbError **err)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL;
        int k;

        if (!options->url)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "an HTTP request without an address");
        k = check_url(options->url, err);
        if (k < 0)
                return k;

        r = calloc(1, sizeof(*r));
        if (!r)
                return tb_error_oom(err);
        r->http = h;
        LIST_INSERT_HEAD(&h->requests, r, siblings);

        k = request_init(r, options, err);
        if (k >= 0)
                k = setup_easy(r, options, err);
        if (k >= 0)
                k = setup_method(r, options, err);
        if (k >= 0)
                k = setup_headers(r, options->headers, err);
        if (k >= 0)
                k = setup_tls(r, &options->tls, err);
        if (k >= 0)
                k = setup_limits(r, options, err);
        if (k < 0)
                return k;

        if (h->in_curl > 0 || h->dead)
                http_schedule(h, r);
        else {
                k = http_add(h, r, err);
                if (k < 0)
                        return k;
        }

        *ret = TAKE_PTR(r);
        return 0;
}

/* ---- the end ---- */

/* Not called from inside curl. The owner may free the request, or everything, in `done`. */
void http_request_finish(TbHttpRequest *r, CURLcode code)
{
        if (r->abort_reason || r->abort_code != 0) {
                if (!r->abort_reason)
                        tb_error_set_errno(&r->abort_reason, TB_ERROR_SYSTEM, r->abort_code,
                                "%s: stopped by its %s", r->label,
                                r->read ? "data source or consumer" : "consumer");
                (void) tb_error_move(&r->error, &r->abort_reason);
        } else if (code != CURLE_OK)
                (void) http_error_from_curl(&r->error, r, code);
        else if (!r->headers_complete) {
                /* curl takes a connection that ends among the headers for an answer with an empty body. */
                tb_error_set(&r->error, TB_ERROR_REMOTE, -ECONNRESET,
                        "%s: the connection ended in the middle of the answer's headers", r->label);
                tb_error_set_retryable(&r->error);
        }

        http_forget(r->http, r);
        curl_easy_cleanup(r->easy); /* its buffers are big */
        r->easy = NULL;

        if (r->done && !r->freed)
                r->done(r, r->error, r->userdata);
}

/* The TbHttp goes before the request: it is over, without a call to anybody. Not called from inside curl. */
void http_request_detach(TbHttpRequest *r)
{
        http_forget(r->http, r);
        curl_easy_cleanup(r->easy);
        r->easy = NULL;
        tb_error_set(&r->error, TB_ERROR_CANCELLED, -ECANCELED, "%s: the HTTP client was closed", r->label);
        LIST_REMOVE(r, siblings);
        r->http = NULL;
}

/* Not called from inside curl. */
void http_request_destroy(TbHttpRequest *r)
{
        if (r->http) {
                http_forget(r->http, r);
                LIST_REMOVE(r, siblings);
        }
        curl_easy_cleanup(r->easy);
        for (struct curl_slist *l = r->request_headers; l; l = l->next)
                explicit_bzero(l->data, strlen(l->data)); /* Authorization may be among them */
        curl_slist_free_all(r->request_headers);
        http_request_reset_headers(r);
        tb_buffer_done(&r->response);
        tb_error_free(r->abort_reason);
        tb_error_free(r->error);
        free(r->url);
        free(r->label);
        free(r->unix_socket);
        if (r->body)
                explicit_bzero(r->body, r->body_size); /* a form with a password */
        free(r->body);
        free(r);
}

TbHttpRequest *tb_http_request_free(TbHttpRequest *r)
{
        if (!r)
                return NULL;

        if (r->http && r->http->in_curl > 0) {
                TbHttp *h = r->http;

                r->freed = true;
                LIST_REMOVE(r, siblings);
                LIST_INSERT_HEAD(&h->graveyard, r, siblings);
                return NULL;
        }
        http_request_destroy(r);
        return NULL;
}

void tb_http_request_resume(TbHttpRequest *r)
{
        if (!r->http || r->freed || r->state == HTTP_DONE)
                return;
        r->want_resume = true;
        http_schedule(r->http, r);
}

void tb_http_request_abort_reason(TbHttpRequest *r, TbError *err)
{
        (void) tb_error_move(&r->abort_reason, &err);
}

/* ---- what it knows ---- */

bool tb_http_request_is_done(const TbHttpRequest *r)
{
        return r->state == HTTP_DONE;
}

unsigned tb_http_request_status(const TbHttpRequest *r)
{
        return r->status;
}

const char *tb_http_request_header(const TbHttpRequest *r, const char *name)
{
        return tb_http_request_header_nth(r, name, 0);
}

const char *tb_http_request_header_nth(const TbHttpRequest *r, const char *name, size_t index)
{
        for (size_t i = 0; i < r->n_headers; i++)
                if (strcasecmp(r->headers[i].name, name) == 0 && index-- == 0)
                        return r->headers[i].value;
        return NULL;
}

const char *tb_http_request_body(const TbHttpRequest *r, size_t *ret_size)
{
        if (ret_size)
                *ret_size = r->response.size;
        return r->response.data ?: "";
}

const char *tb_http_request_url(const TbHttpRequest *r)
{
        return r->url;
}

uint64_t tb_http_request_received(const TbHttpRequest *r)
{
        return r->received;
}

uint64_t tb_http_request_sent(const TbHttpRequest *r)
{
        return r->sent;
}

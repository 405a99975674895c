/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/error.h"

/*
 * HTTP client: libcurl's multi interface driven by an sd-event loop
 *
 * One TbHttp is one curl multi handle (connection pool, HTTP/2 multiplexing) attached to one loop. A
 * TbHttpRequest is one exchange. Nothing blocks; bodies are streamed both ways with back-pressure: a read or
 * write callback that returns TB_HTTP_PAUSE stops that direction until tb_http_request_resume().
 *
 * Policy that lives here and nowhere else: only http and https (and unix sockets), no signals, redirects are
 * never followed (the caller sees the 3xx and decides, so credentials cannot leak), response headers are
 * bounded (128 headers, 64 KiB), TLS >= 1.2 is verified unless `insecure`, connect time-out 10 s, a transfer
 * slower than `low_speed_bps` for `low_speed_sec` fails as retryable.
 *
 * An HTTP status is not an error here: the done callback gets err == NULL for every complete exchange,
 * whatever its status. Errors are transport errors, translated from CURLcode: kind REMOTE, retryable where
 * another try may help.
 *
 * Callers: free a request at any time, also from its own done callback; a freed request calls back no more.
 * The TbHttp must outlive its requests.
 */

typedef struct TbHttp TbHttp;
typedef struct TbHttpRequest TbHttpRequest;

#define TB_HTTP_PAUSE ((ssize_t) -EAGAIN)

/* Gives up to `size` bytes of the request body: > 0 bytes, 0 = end, TB_HTTP_PAUSE, other negative errno =
 * abort. */
typedef ssize_t (*TbHttpReadFn)(TbHttpRequest *r, void *buf, size_t size, void *userdata);
/* Takes response body bytes: 0 = all taken, TB_HTTP_PAUSE = none taken, come back later, other negative
 * errno = abort (set the reason with tb_http_request_abort_reason()). Called only for the final response;
 * tb_http_request_status() is known by then. */
typedef ssize_t (*TbHttpWriteFn)(TbHttpRequest *r, const void *data, size_t size, void *userdata);
struct sockaddr;
/* Asked before each new connection, and again before a request goes out on one that was open already; false refuses it:
 * the exchange fails with -EACCES. Against names that lead where the caller does not want to go. With a proxy, the address
 * is the proxy's. */
typedef bool (*TbHttpAddressFn)(TbHttpRequest *r, const struct sockaddr *address, void *userdata);
/* The exchange is over. `err` is borrowed; NULL = complete. */
typedef void (*TbHttpDoneFn)(TbHttpRequest *r, const TbError *err, void *userdata);

typedef struct TbHttpTls {
        const char *ca_file;     /* NULL = the system's */
        const char *ca_pem;      /* PEM text instead of a file; accepted beside the system's; NULL = none */
        const char *client_cert; /* PEM, NULL = none */
        const char *client_key;
        bool insecure; /* do not verify: only when the user named this host insecure */
} TbHttpTls;

typedef struct TbHttpOptions {
        const char *method;         /* "GET", "HEAD", "POST", ... */
        const char *url;            /* absolute http:// or https:// */
        const char *unix_socket;    /* connect here instead of the URL's host; NULL = TCP */
        const char *const *headers; /* NULL-terminated "Name: value"; NULL = none */
        const void *body;           /* small body, copied; NULL with body_size 0 = none */
        size_t body_size;
        TbHttpReadFn read;   /* streamed body; excludes `body` */
        uint64_t read_size;  /* its length; UINT64_MAX = unknown (chunked) */
        TbHttpWriteFn write; /* NULL = collect the body, readable with tb_http_request_body() */
        size_t response_max; /* limit of a collected body; 0 = 1 MiB. -EMSGSIZE beyond */
        TbHttpTls tls;
        /* URL of the proxy to use, which may hold a user and a password; "" = none; NULL = what curl finds in the
         * environment. Not looked at with unix_socket. */
        const char *proxy;
        uint64_t timeout_usec;  /* whole exchange; 0 = none (streams) */
        uint64_t low_speed_bps; /* bytes/s; 0 with low_speed_sec 0 = no check */
        uint64_t low_speed_sec;
        TbHttpAddressFn allow_address; /* NULL = any */
        TbHttpDoneFn done;
        void *userdata;
} TbHttpOptions;

int tb_http_new(sd_event *event, TbHttp **ret, TbError **err) _warn_unused_;
TbHttp *tb_http_free(TbHttp *h);
TB_DEFINE_CLEANUP(TbHttp *, tb_http_free)
/* User-Agent for all requests; default "tbnode/<version>". */
int tb_http_set_user_agent(TbHttp *h, const char *agent, TbError **err) _warn_unused_;
sd_event *tb_http_event(TbHttp *h);

/* Starts the exchange; callbacks come from the loop only, never from inside this call. */
int tb_http_start(TbHttp *h, const TbHttpOptions *options, TbHttpRequest **ret, TbError **err) _warn_unused_;
/* Cancels when still running. */
TbHttpRequest *tb_http_request_free(TbHttpRequest *r);
TB_DEFINE_CLEANUP(TbHttpRequest *, tb_http_request_free)

/* Both directions go on after a pause. Harmless when not paused. May be called from any callback. */
void tb_http_request_resume(TbHttpRequest *r);
/* From inside read/write callbacks: the error that `done` gets when the callback then returns a negative
 * errno. Takes ownership. */
void tb_http_request_abort_reason(TbHttpRequest *r, TbError *err);

bool tb_http_request_is_done(const TbHttpRequest *r);
unsigned tb_http_request_status(const TbHttpRequest *r); /* 0 = no response yet */
/* First header of that name (case-insensitive), or NULL. */
const char *tb_http_request_header(const TbHttpRequest *r, const char *name);
/* The index-th one, for headers that may come more than once. */
const char *tb_http_request_header_nth(const TbHttpRequest *r, const char *name, size_t index);
const char *tb_http_request_body(
        const TbHttpRequest *r, size_t *ret_size); /* collected body, NUL-terminated */
const char *tb_http_request_url(const TbHttpRequest *r);
/* Bytes of body moved so far. */
uint64_t tb_http_request_received(const TbHttpRequest *r);
uint64_t tb_http_request_sent(const TbHttpRequest *r);

/* Starts the exchange and runs the loop until it is over: for programs and workers that do one thing, never
 * for the daemon. On success *ret is complete and the caller's. options->done is ignored. */
int tb_http_perform(TbHttp *h, const TbHttpOptions *options, TbHttpRequest **ret, TbError **err)
        _warn_unused_;

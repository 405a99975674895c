/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shared by http.c (the loop), http-request.c (one exchange) and http-error.c (translation); nobody else's.
 */

#include <curl/curl.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "common/buffer.h"
#include "common/error.h"
#include "common/http.h"

#define HTTP_HEADERS_MAX 128u
#define HTTP_HEADER_BYTES_MAX (64u * 1024u)

typedef enum HttpState {
        HTTP_QUEUED,  /* accepted, not yet known to curl (it was started from inside a curl callback) */
        HTTP_RUNNING, /* curl has it */
        HTTP_DONE,    /* curl has forgotten it; status, headers, body and error are final */
        _HTTP_STATE_MAX,
} HttpState;

typedef struct HttpHeader {
        char *name; /* one allocation for both: value lies behind the name's NUL */
        char *value;
} HttpHeader;

struct TbHttpRequest {
        TbHttp *http; /* NULL when the TbHttp was freed first */
        LIST_ENTRY(TbHttpRequest) siblings;
        TAILQ_ENTRY(TbHttpRequest) pending;
        bool is_pending;
        HttpState state;
        bool freed; /* the owner let go of it from inside a curl callback: no more calls, reaped soon */
        bool want_resume; /* resume() was called: done from the loop */
        bool read_paused, write_paused;

        CURL *easy;
        struct curl_slist *request_headers;
        char *url;
        char *label; /* "GET https://host/path" for messages: no credentials, no query */
        char *unix_socket;
        char *body; /* small request body */
        size_t body_size;
        TbHttpReadFn read;
        uint64_t read_size;
        TbHttpWriteFn write;
        TbHttpAddressFn allow_address;
        TbHttpDoneFn done;
        void *userdata;
        uint64_t low_speed_bps;

        unsigned status;
        bool headers_complete;
        HttpHeader headers[HTTP_HEADERS_MAX];
        size_t n_headers;
        size_t header_bytes;
        TbBuffer response;
        uint64_t received, sent;

        int abort_code;        /* negative errno: a callback of ours or the owner's stopped the exchange */
        TbError *abort_reason; /* what `done` gets then */
        TbError *error;        /* the final one */
        char curl_error[CURL_ERROR_SIZE];
};

typedef struct HttpSocket HttpSocket;

struct TbHttp {
        sd_event *event;
        CURLM *multi;
        sd_event_source *timer; /* curl's one timer */
        sd_event_source *kick;  /* work that may not be done inside curl's callbacks */
        bool timeout_due;       /* curl asked for a time-out of 0 */
        char *user_agent;
        LIST_HEAD(, HttpSocket) sockets;
        LIST_HEAD(, TbHttpRequest) requests;
        LIST_HEAD(, TbHttpRequest) graveyard;
        TAILQ_HEAD(HttpPending, TbHttpRequest) queue;
        size_t n_pending;
        unsigned in_curl; /* inside a call to curl: the multi handle must not be touched */
        unsigned busy;    /* inside one of our event handlers: *this must stay */
        bool dead;        /* tb_http_free() was called meanwhile */
};

/* http.c */
void http_schedule(TbHttp *h, TbHttpRequest *r);
int http_add(TbHttp *h, TbHttpRequest *r, TbError **err) _warn_unused_;
void http_forget(TbHttp *h, TbHttpRequest *r);

/* http-request.c */
void http_request_finish(TbHttpRequest *r, CURLcode code);
void http_request_detach(TbHttpRequest *r);
void http_request_destroy(TbHttpRequest *r);

/* http-transfer.c: callbacks for curl */
void http_request_abort(TbHttpRequest *r, int code);
void http_request_reset_headers(TbHttpRequest *r);
size_t http_on_header(char *data, size_t size, size_t n, void *userdata);
size_t http_on_write(char *data, size_t size, size_t n, void *userdata);
size_t http_on_read(char *buf, size_t size, size_t n, void *userdata);
int http_on_seek(void *userdata, curl_off_t offset, int origin);

/* http-error.c */
int http_error_from_curl(TbError **err, const TbHttpRequest *r, CURLcode code);
int http_error_from_multi(TbError **err, CURLMcode code, const char *what);
int http_error_from_setopt(TbError **err, CURLcode code, const char *option);

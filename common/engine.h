/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "common/http.h"
#include "common/json-lines.h"
#include "common/json.h"

/*
 * Docker Engine API (https://docs.docker.com/engine/api/v1.41/) over its unix socket
 *
 * One TbEngine is one endpoint on one event loop; one TbEngineRequest is one exchange. Nothing blocks.
 *
 *         tb_engine_new(http, "unix:///var/run/docker.sock", &engine, err);
 *         tb_engine_connect(engine, on_connected, me, err);       asks for /version and chooses the API
 * version tb_engine_call(engine, &(TbEngineCall) { .method = "GET", .path = "/containers/json", .done = ...
 * }, ...);
 *
 * An answer with status >= 400 is an error here (unlike in http.h): the engine's own `message` becomes the
 * TbError, kind REMOTE, with the code of the status (see tb_engine_status_to_errno()). A socket that is not
 * there, or that we may not open, is ENVIRONMENT (-ECONNREFUSED, -ENOENT, -EACCES) and says what to do.
 *
 * Bounds: JSON answers 32 MiB (`response_max`), one line of a stream 1 MiB (`line_max`), an ordinary
 * exchange 60 s
 * (`timeout_usec`); streams have no time-out.
 *
 * Requests may be freed at any time EXCEPT from inside their own line/data/read callback: return a negative
 * errno there instead, and `done` follows. A freed request calls back no more. The TbEngine must outlive its
 * requests, the TbHttp the TbEngine.
 */

/* What both sides must have. 1.41 is Docker 20.10; the upper end is what this code was written against. */
#define TB_ENGINE_API_MIN 41 /* "1.41" */
#define TB_ENGINE_API_MAX 47 /* "1.47" */

#define TB_ENGINE_DEFAULT "unix:///var/run/docker.sock"

typedef struct TbEngine TbEngine;
typedef struct TbEngineRequest TbEngineRequest;

/* Splits an endpoint. "unix:///path" gives the path (to be freed). "tcp://..." and others: -EOPNOTSUPP with
 * the text that only unix sockets are supported; anything else -EINVAL. */
int tb_engine_parse_endpoint(const char *endpoint, char **ret_path, TbError **err) _warn_unused_;

/* Chooses the minor API version out of the engine's answer to GET /version: the highest <= 1.47 that both
 * have. -EPROTONOSUPPORT when there is none. Pure: tests and fuzzers feed it. */
int tb_engine_choose_version(const json_t *version, unsigned *ret_minor, TbError **err) _warn_unused_;

/* 400 -EINVAL, 401/403 -EACCES, 404 -ENOENT, 409 -EBUSY, 304 -EALREADY, 501 -EOPNOTSUPP, 503 -EAGAIN
 * (retryable), other 4xx -EINVAL, other 5xx -EREMOTEIO. */
int tb_engine_status_to_errno(unsigned status);

/* Percent-encodes everything but unreserved characters (RFC 3986, 2.3), for path segments and query values.
 * NULL when out of memory. */
char *tb_engine_escape(const char *s);

int tb_engine_new(TbHttp *http, const char *endpoint, TbEngine **ret, TbError **err) _warn_unused_;
TbEngine *tb_engine_free(TbEngine *e);
TB_DEFINE_CLEANUP(TbEngine *, tb_engine_free)
#define _cleanup_engine_ _cleanup_(tb_engine_freep)

const char *tb_engine_endpoint(const TbEngine *e);
/* Known after a successful connect; "" before. */
const char *tb_engine_version(const TbEngine *e);     /* "20.10.24" */
const char *tb_engine_api_version(const TbEngine *e); /* "1.41": the one in use */
bool tb_engine_is_connected(const TbEngine *e);

/* err == NULL: connected. Borrowed. */
typedef void (*TbEngineConnectedFn)(TbEngine *e, const TbError *err, void *userdata);
/* Asks for /version (again, if it did before: after the engine restarted it may be another one). One at a
 * time: a second call replaces the first, which then calls back no more. */
int tb_engine_connect(TbEngine *e, TbEngineConnectedFn done, void *userdata, TbError **err) _warn_unused_;
/* Stops a connect that is under way; harmless otherwise. */
void tb_engine_connect_cancel(TbEngine *e);

/* The exchange is over. `err` (borrowed) is NULL for a status < 400. `body` (borrowed) is the JSON answer,
 * NULL when there is none (204, streams, raw data). */
typedef void (*TbEngineDoneFn)(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata);
/* One JSON value of a stream (events, build, push, pull); borrowed. 0 = go on; negative errno aborts the
 * request with *err. Empty lines are skipped. */
typedef int (*TbEngineLineFn)(TbEngineRequest *r, const json_t *line, void *userdata, TbError **err);
/* Raw answer bytes (logs): 0 = taken, TB_HTTP_PAUSE = come back after tb_engine_request_resume(), negative =
 * abort. */
typedef ssize_t (*TbEngineDataFn)(TbEngineRequest *r, const void *data, size_t size, void *userdata);
/* Request body: as TbHttpReadFn. */
typedef ssize_t (*TbEngineReadFn)(TbEngineRequest *r, void *buf, size_t size, void *userdata);

typedef struct TbEngineCall {
        const char *method;
        const char *path;   /* "/containers/json?all=1": without version, already escaped */
        const json_t *body; /* borrowed, sent as application/json; NULL = none */
        const char *const
                *headers;      /* extra "Name: value", NULL-terminated (X-Registry-Auth, Content-Type) */
        TbEngineReadFn read;   /* streamed body (build context); excludes `body` */
        uint64_t read_size;    /* its length; UINT64_MAX = unknown */
        TbEngineLineFn line;   /* set: the answer is a stream of JSON values */
        TbEngineDataFn data;   /* set: the answer is raw bytes; excludes `line` */
        size_t response_max;   /* of a JSON answer; 0 = 32 MiB */
        size_t line_max;       /* of one streamed value; 0 = 1 MiB */
        uint64_t timeout_usec; /* 0 = 60 s for JSON answers, none for streams; UINT64_MAX = none */
        TbEngineDoneFn done;
        void *userdata;
} TbEngineCall;

/* Starts the exchange; callbacks come from the loop only. -ENOTCONN before a successful connect. */
int tb_engine_call(TbEngine *e, const TbEngineCall *call, TbEngineRequest **ret, TbError **err)
        _warn_unused_;
/* Cancels when still running. */
TbEngineRequest *tb_engine_request_free(TbEngineRequest *r);
TB_DEFINE_CLEANUP(TbEngineRequest *, tb_engine_request_free)
void tb_engine_request_resume(TbEngineRequest *r);
unsigned tb_engine_request_status(const TbEngineRequest *r); /* 0 = no answer yet */
/* Response header, or NULL. */
const char *tb_engine_request_header(const TbEngineRequest *r, const char *name);

/* What an answer with this status >= 400 to `what` ("POST /exec") says, as an error of ours. Returns its code. */
int tb_engine_refusal(const char *what, unsigned status, const char *body, size_t size, TbError **err);

/*
 * A connection that carries bytes both ways after the request (Engine API, "Attach to a container", "Hijacking"; also
 * POST /exec/ID/start). engine-stream.c
 */
typedef struct TbEngineStream TbEngineStream;
/* err == NULL: `fd` (non-blocking) is the callee's, and `early` the first bytes that came on it (borrowed). May free `s`. */
typedef void (*TbEngineStreamFn)(
        TbEngineStream *s, int fd, const void *early, size_t size, const TbError *err, void *userdata);
/* `path`: without version, escaped. Gives up after a minute (-ETIMEDOUT). Callbacks come from the loop only. */
int tb_engine_stream_new(TbEngine *e, const char *path, const json_t *body, TbEngineStreamFn done,
        void *userdata, TbEngineStream **ret, TbError **err) _warn_unused_;
/* Cancels when it has not called back yet. */
TbEngineStream *tb_engine_stream_free(TbEngineStream *s);
sd_event *tb_engine_event(const TbEngine *e);

/* For programs that do one thing (CLI, tests), never for the daemon: runs the loop until the exchange is
 * over. Connects first when needed. Streams are for callbacks that block, not for TB_HTTP_PAUSE. *ret_body (may be NULL) is the caller's, NULL when the answer has none.
 */
int tb_engine_perform(TbEngine *e, const TbEngineCall *call, unsigned *ret_status, json_t **ret_body,
        TbError **err) _warn_unused_;

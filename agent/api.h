/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "agent/access.h"
#include "agent/manager.h"
#include "common/error.h"

/*
 * The API: HTTP/1.1 and JSON on a unix socket, operations under /v1/ (api-ops.c has the table)
 *
 * libmicrohttpd runs inside our loop: its epoll descriptor is one event source, its time-out one timer. An operation
 * either answers at once, or takes its time: then the connection is suspended and costs nothing until the answer (or
 * the next line of a stream) is there. Whoever hangs up is noticed and the work that only they wanted is cancelled.
 *
 * Who may use it: whoever can open the socket (mode 0660, root and the group of the configuration), for what is his own;
 * root and operators for everything (access.h).
 *
 * Right after its start the agent does not know the nodes yet. Operations about them wait until it does, at most
 * API_WAIT_USEC; then, and as soon as it is clear that the engine does not answer, the answer is 503.
 *
 * Bounds: API_CONNECTIONS_MAX connections, API_USER_CONNECTIONS_MAX of them for one user and API_RESERVED_CONNECTIONS for root
 * alone (api-connection.c), API_BODY_MAX bytes of request body, API_SEND_USEC for a client to send a request, API_TAKE_USEC to
 * take its answer, API_STREAM_MAX bytes of a stream that its reader does not take (progress is dropped beyond).
 */

#define API_CONNECTIONS_MAX 256U
#define API_USER_CONNECTIONS_MAX 64U
#define API_RESERVED_CONNECTIONS 32U
#define API_SEND_USEC (30 * UINT64_C(1000000))
#define API_TAKE_USEC (60 * UINT64_C(1000000))
#define API_WAIT_USEC (10 * UINT64_C(1000000))
#define API_BODY_MAX (1024U * 1024)
#define API_STREAM_MAX (1024U * 1024)
#define API_SEGMENTS_MAX 8U

typedef struct ApiRequest ApiRequest;

int api_new(Manager *m, Api **ret, TbError **err) _warn_unused_;
Api *api_free(Api *a);
/* It is known which nodes there are, or that this can't be known now: what waited for it goes on. */
void api_nodes_known(Api *a);
/* Who the operators are may have changed: looks the group up again. */
int api_reload(Api *a, TbError **err) _warn_unused_;
/* Are there the groups that a configuration names? */
int api_check_groups(const Config *c, TbError **err) _warn_unused_;
/* Connections now, and requests since the start, for metrics. */
unsigned api_connections(const Api *a);
uint64_t api_requests_total(const Api *a);
uint64_t api_refused_total(const Api *a);

/* ---- For operations ---------------------------------------------------------------------------------------- */

Manager *api_request_manager(const ApiRequest *r);
uid_t api_request_uid(const ApiRequest *r);
const Caller *api_request_caller(const ApiRequest *r);
/* i-th variable part of the path ("/v1/nodes/{0}/shape/{1}"), decoded. */
const char *api_request_argument(const ApiRequest *r, size_t i);
/* Query parameter, or NULL; as it was sent: for api_decode(), where it may be anything. */
const char *api_request_query(const ApiRequest *r, const char *key);
/* The body, parsed: an object (an empty body gives an empty one). Borrowed. */
const json_t *api_request_body(const ApiRequest *r);

/* One of these ends a request. `body` is consumed (NULL: out of memory, answered as such). */
void api_reply(ApiRequest *r, unsigned status, json_t *body);
void api_reply_error(ApiRequest *r, const TbError *err);
/* Text of another type; consumes `text` (of malloc(3)). `type` is static. */
void api_reply_text(ApiRequest *r, unsigned status, const char *type, char *text, size_t size);

/* Long work: JSON lines, chunked. */
void api_stream_start(ApiRequest *r);
/* The same, of another type; `type` is static. */
void api_stream_start_as(ApiRequest *r, const char *type);
/* Consumes `line`. Dropped when the reader is too slow and !important. */
void api_stream_line(ApiRequest *r, json_t *line, bool important);
/* The same with text that has its newline (events) or is no JSON (logs). Returns false when there was no room. */
bool api_stream_text(ApiRequest *r, const char *text, size_t size);
bool api_stream_has_room(const ApiRequest *r, size_t size);
void api_stream_end(ApiRequest *r);
/* Not all of it came: behind what is there the connection is closed without the end of the transfer (RFC 9112, 8). */
void api_stream_break(ApiRequest *r);
/* Called when the reader has taken everything: time to give more. */
void api_stream_on_drained(ApiRequest *r, void (*fn)(ApiRequest *r, void *userdata), void *userdata);

/*
 * Another protocol on the same connection (RFC 9110, 7.8): answers 101, then `fn` gets the socket (non-blocking, the
 * server's; borrowed until api_upgrade_end()) and what came on it already. `gone` of api_request_on_gone() still tells of
 * the agent's end; the client's is the callee's to notice from now on.
 */
typedef void (*ApiUpgradedFn)(ApiRequest *r, int fd, const void *early, size_t size, void *userdata);
/* Did the client ask for it? If not, an operation that needs it answers 426. */
bool api_request_wants_upgrade(const ApiRequest *r, const char *protocol);
/* `protocol` is a literal. */
void api_upgrade(ApiRequest *r, const char *protocol, ApiUpgradedFn fn, void *userdata);
/* Closes the connection; ends the request. */
void api_upgrade_end(ApiRequest *r);

/* The client went away, or the agent stops, before the end: the operation must forget `r` now. */
void api_request_on_gone(ApiRequest *r, void (*fn)(ApiRequest *r, void *userdata), void *userdata);

/* {"kind","code","message","retryable"}; NULL when out of memory. */
json_t *api_error_to_json(const TbError *err);
/* HTTP status for an error. */
unsigned api_error_status(const TbError *err);

typedef void (*ApiFn)(ApiRequest *r);
typedef struct ApiOperation {
        const char *method;
        const char *path; /* segments; "{}" stands for a variable one */
        ApiFn fn;
        const char *summary;
        bool needs_nodes; /* waits until it is known which there are */
} ApiOperation;
/* api-ops.c; ends with an entry without method. */
extern const ApiOperation api_operations[];

/* The operation for a path (decoded segments): pure, for tests. `ret_args` gets indexes of the variable segments.
 * -ENOENT: no such path; -ENOTSUP: the path exists, with other methods. */
int api_match(
        const char *method, char *const *segments, size_t n, const ApiOperation **ret, size_t *ret_args);
/* Takes %-escapes back: -EINVAL for bad ones and for NULs. */
int api_decode(const char *s, size_t n, char **ret, TbError **err) _warn_unused_;
/* Splits and decodes "/v1/nodes/a%2Fb": -EINVAL for bad escapes, NULs, too many segments. */
int api_split_path(const char *path, char ***ret, TbError **err) _warn_unused_;

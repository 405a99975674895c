/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agent/api-internal.h"
#include "agent/docker-events.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"

/* What comes behind a body that is too large is thrown away, so that the refusal can be read; to a limit. */
#define TOO_LARGE_MAX (4U * API_BODY_MAX)
#define JSON_TYPE "application/json"
#define LINES_TYPE "application/x-ndjson"

Manager *api_request_manager(const ApiRequest *r)
{
        return r->api->manager;
}

uid_t api_request_uid(const ApiRequest *r)
{
        return r->caller.uid;
}

const Caller *api_request_caller(const ApiRequest *r)
{
        return &r->caller;
}

const char *api_request_argument(const ApiRequest *r, size_t i)
{
        return r->segments[r->arguments[i]];
}

const char *api_request_query(const ApiRequest *r, const char *key)
{
        return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, key);
}

const json_t *api_request_body(const ApiRequest *r)
{
        return r->body;
}

void api_request_on_gone(ApiRequest *r, void (*fn)(ApiRequest *r, void *userdata), void *userdata)
{
        r->gone = fn;
        r->gone_userdata = userdata;
}

void api_stream_on_drained(ApiRequest *r, void (*fn)(ApiRequest *r, void *userdata), void *userdata)
{
        r->drained = fn;
        r->drained_userdata = userdata;
}

static void request_resume(ApiRequest *r)
{
        if (!r->suspended || r->api->stopping)
                return;
        r->suspended = false;
        MHD_resume_connection(r->connection);
        api_kick(r->api);
}

/* ---- Answers ----------------------------------------------------------------------------------------------- */

static void set_response(ApiRequest *r, unsigned status, struct MHD_Response *response, const char *type)
{
        if (r->response)
                MHD_destroy_response(r->response);
        r->status = status;
        r->response = response;
        if (response && MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_NO)
                log_debug("cannot set the type of an answer");
        request_resume(r);
}

void api_reply(ApiRequest *r, unsigned status, json_t *body)
{
        _cleanup_json_ json_t *j = body;
        char *text = NULL;
        size_t size = 0;

        r->gone = NULL;
        if (!j || tb_json_dump(j, false, &text, &size, NULL) < 0) {
                static const char oom[] = "{\"error\":{\"kind\":\"resource\",\"code\":\"ENOMEM\","
                                          "\"message\":\"out of memory\","
                                          "\"retryable\":true}}";

                set_response(r, 507,
                        MHD_create_response_from_buffer(
                                sizeof(oom) - 1, (void *) oom, MHD_RESPMEM_PERSISTENT),
                        JSON_TYPE);
                return;
        }
        set_response(
                r, status, MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE), JSON_TYPE);
}

void api_reply_error(ApiRequest *r, const TbError *err)
{
        api_reply(r, api_error_status(err), json_pack("{s:o}", "error", api_error_to_json(err)));
}

void api_reply_text(ApiRequest *r, unsigned status, const char *type, char *text, size_t size)
{
        r->gone = NULL;
        set_response(r, status, MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE), type);
}

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
        ApiRequest *r = cls;
        size_t n;

        if (r->out.size == 0 && !r->ended && r->drained)
                r->drained(r, r->drained_userdata);
        if (r->out.size > 0) {
                n = r->out.size < max ? r->out.size : max;
                memcpy(buf, r->out.data, n);
                tb_buffer_consume(&r->out, n);
                return (ssize_t) n;
        }
        if (r->broken)
                return MHD_CONTENT_READER_END_WITH_ERROR;
        if (r->ended || r->api->stopping)
                return MHD_CONTENT_READER_END_OF_STREAM;
        r->suspended = true;
        MHD_suspend_connection(r->connection);
        return 0;
}

void api_stream_start(ApiRequest *r)
{
        api_stream_start_as(r, LINES_TYPE);
}

void api_stream_start_as(ApiRequest *r, const char *type)
{
        r->streaming = true;
        set_response(r, 200,
                MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 * 1024, stream_read, r, NULL), type);
}

bool api_stream_has_room(const ApiRequest *r, size_t size)
{
        return size <= API_STREAM_MAX - MIN2(r->out.size, (size_t) API_STREAM_MAX);
}

bool api_stream_text(ApiRequest *r, const char *text, size_t size)
{
        if (r->ended || !api_stream_has_room(r, size) || tb_buffer_append(&r->out, text, size, NULL) < 0)
                return false;
        request_resume(r);
        return true;
}

void api_stream_line(ApiRequest *r, json_t *line, bool important)
{
        _cleanup_json_ json_t *j = line;
        _cleanup_free_ char *text = NULL;
        size_t size = 0;

        if (!j || tb_json_dump(j, false, &text, &size, NULL) < 0)
                return;
        text[size] = '\n'; /* in place of the terminator */
        if (!important)
                (void) api_stream_text(r, text, size + 1);
        else if (!r->ended && tb_buffer_append(&r->out, text, size + 1, NULL) >= 0)
                request_resume(r); /* results are few and bounded: they always have room */
}

void api_stream_end(ApiRequest *r)
{
        r->gone = NULL;
        r->drained = NULL;
        r->ended = true;
        request_resume(r);
}

void api_stream_break(ApiRequest *r)
{
        r->broken = true;
        api_stream_end(r);
}

/* ---- Another protocol ---------------------------------------------------------------------------------------- */

bool api_request_wants_upgrade(const ApiRequest *r, const char *protocol)
{
        return tb_streq(MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_UPGRADE),
                protocol);
}

/* Called by MHD when 101 was sent. */
static void on_upgraded(void *cls, struct MHD_Connection *c, void *con_cls, const char *early, size_t size,
        MHD_socket fd, struct MHD_UpgradeResponseHandle *handle)
{
        ApiRequest *r = cls;

        /* A hang-up is seen by reading, now that somebody reads. */
        r->watch = sd_event_source_disable_unref(r->watch);
        r->watch_fd = tb_close(r->watch_fd);
        r->upgraded = handle;
        if (!r->upgraded_fn) /* gone meanwhile */
                api_upgrade_end(r);
        else
                r->upgraded_fn(r, fd, early ?: "", size, r->upgraded_userdata);
}

void api_upgrade(ApiRequest *r, const char *protocol, ApiUpgradedFn fn, void *userdata)
{
        struct MHD_Response *response = MHD_create_response_for_upgrade(on_upgraded, r);
        _cleanup_error_ TbError *err = NULL;

        if (!response || MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, protocol) == MHD_NO) {
                if (response)
                        MHD_destroy_response(response);
                (void) tb_error_oom(&err);
                api_request_gone(r);
                api_reply_error(r, err);
                return;
        }
        r->upgraded_fn = fn;
        r->upgraded_userdata = userdata;
        r->status = MHD_HTTP_SWITCHING_PROTOCOLS;
        r->response = response;
        request_resume(r);
}

void api_upgrade_end(ApiRequest *r)
{
        r->gone = NULL;
        if (!r->upgraded)
                return;
        (void) MHD_upgrade_action(TAKE_PTR(r->upgraded), MHD_UPGRADE_ACTION_CLOSE);
        api_kick(r->api);
}

/* ---- Requests ---------------------------------------------------------------------------------------------- */

static ApiRequest *request_free(ApiRequest *r)
{
        if (!r)
                return NULL;
        if (r->prev)
                r->prev->next = r->next;
        else
                r->api->requests = r->next;
        if (r->next)
                r->next->prev = r->prev;
        sd_event_source_disable_unref(r->watch);
        tb_close(r->watch_fd);
        if (r->response)
                MHD_destroy_response(r->response);
        tb_strv_free(r->segments);
        json_decref(r->body);
        tb_buffer_done(&r->received);
        tb_buffer_done(&r->out);
        free(r->method);
        free(r);
        return NULL;
}

void api_request_gone(ApiRequest *r)
{
        void (*fn)(ApiRequest *, void *) = r->gone;

        r->gone = NULL;
        r->drained = NULL;
        r->upgraded_fn = NULL;
        r->ended = true;
        if (fn)
                fn(r, r->gone_userdata);
}

static int on_hangup(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        ApiRequest *r = userdata;

        r->watch = sd_event_source_disable_unref(r->watch);
        api_request_gone(r);
        if (!r->response)
                api_reply(r, 503, json_object());
        request_resume(r);
        return 0;
}

/* MHD does not look at suspended connections, so we do. */
static void request_watch(ApiRequest *r)
{
        const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

        if (!info || r->watch)
                return;
        r->watch_fd = fcntl(info->connect_fd, F_DUPFD_CLOEXEC, 3);
        if (r->watch_fd < 0 ||
                sd_event_add_io(r->api->manager->event, &r->watch, r->watch_fd, EPOLLRDHUP, on_hangup, r) <
                        0)
                log_debug("cannot watch a client; that it hung up will be seen with the next write");
}

static void request_peer(ApiRequest *r)
{
        const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

        r->caller = info ? access_caller(info->connect_fd, r->api->operators) : (Caller){.uid = (uid_t) -1};
}

static ApiRequest *request_new(Api *a, struct MHD_Connection *c, const char *method, const char *path)
{
        ApiRequest *r = calloc(1, sizeof(*r));
        _cleanup_error_ TbError *err = NULL;
        int k;

        if (!r)
                return NULL;
        r->api = a;
        r->connection = c;
        r->watch_fd = -EBADF;
        r->received = TB_BUFFER_INIT(API_BODY_MAX);
        r->out = TB_BUFFER_INIT(0);
        r->next = a->requests;
        if (r->next)
                r->next->prev = r;
        a->requests = r;
        r->method = strdup(method);
        if (!r->method)
                return request_free(r);
        request_peer(r);
        a->n_requests++;

        k = api_split_path(path, &r->segments, &err);
        if (k >= 0) {
                k = api_match(method, r->segments, tb_strv_length(r->segments), &r->operation, r->arguments);
                if (k == -ENOENT)
                        (void) tb_error_set(&err, TB_ERROR_CONFIG, -ENOENT, "there is no such operation");
                else if (k < 0)
                        (void) tb_error_set(&err, TB_ERROR_CONFIG, -EINVAL,
                                "this path does not know the method %.16s", method);
        }
        if (k < 0)
                api_reply(r, k == -ENOTSUP ? 405 : api_error_status(err),
                        json_pack("{s:o}", "error", api_error_to_json(err)));
        return r;
}

/* ---- Until the nodes are known ------------------------------------------------------------------------------- */

static void refuse_without_nodes(ApiRequest *r)
{
        const TbError *engine = docker_events_error(r->api->manager->docker);
        _cleanup_error_ TbError *err = NULL;

        (void) tb_error_set(&err, TB_ERROR_ENVIRONMENT, -EAGAIN,
                "the agent does not know the nodes of this host yet: %s; it keeps trying",
                engine ? tb_error_message(engine) : "the engine has not answered with its containers");
        if (err)
                err->retryable = true;
        api_reply_error(r, err);
}

static void wait_for_nodes(ApiRequest *r)
{
        Api *a = r->api;

        int enabled = SD_EVENT_OFF;

        (void) sd_event_source_get_enabled(a->known, &enabled);
        /* Without the engine nobody can say how long that is going to last. Who comes later does not wait longer. */
        if (docker_events_error(a->manager->docker) ||
                (enabled == SD_EVENT_OFF &&
                        (sd_event_source_set_time_relative(a->known, API_WAIT_USEC) < 0 ||
                                sd_event_source_set_enabled(a->known, SD_EVENT_ONESHOT) < 0))) {
                refuse_without_nodes(r);
                return;
        }
        r->waiting = true;
}

/* From the loop: when it is known, or at the deadline of the first that began to wait. */
int api_on_known(sd_event_source *s, uint64_t usec, void *userdata)
{
        Api *a = userdata;
        ApiRequest *next;

        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        for (ApiRequest *r = a->requests; r; r = next) {
                next = r->next;
                if (!r->waiting)
                        continue;
                r->waiting = false;
                if (a->manager->nodes_known)
                        r->operation->fn(r);
                else
                        refuse_without_nodes(r);
        }
        return 0;
}

void api_nodes_known(Api *a)
{
        if (!a)
                return;
        if (sd_event_source_set_time_relative(a->known, 0) < 0 ||
                sd_event_source_set_enabled(a->known, SD_EVENT_ONESHOT) < 0)
                log_debug("cannot go on with requests that wait for nodes");
}

static void refuse_too_large(ApiRequest *r)
{
        api_reply(r, 413,
                json_pack("{s:{s:s, s:s, s:s, s:b}}", "error", "kind", "config", "code", "EMSGSIZE",
                        "message", "the request is too large", "retryable", 0));
}

static bool announces_too_much(struct MHD_Connection *c)
{
        const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
        uint32_t n;

        return length && tb_parse_u32(length, 0, API_BODY_MAX, &n, NULL) < 0;
}

static void request_dispatch(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;

        r->dispatched = true;
        if (r->response)
                return; /* refused already */
        if (r->too_large) {
                refuse_too_large(r);
                return;
        }
        if (r->received.size == 0)
                r->body = json_object();
        else if (tb_json_parse(r->received.data, r->received.size, API_BODY_MAX, "request", &r->body, &err) <
                0) {
                err->kind = TB_ERROR_CONFIG;
                api_reply_error(r, err);
                return;
        }
        if (!json_is_object(r->body)) {
                (void) tb_error_set(&err, TB_ERROR_CONFIG, -EINVAL, "the request's body is no JSON object");
                api_reply_error(r, err);
                return;
        }
        tb_buffer_done(&r->received);
        if (r->operation->needs_nodes && !r->api->manager->nodes_known)
                wait_for_nodes(r);
        else
                r->operation->fn(r);
}

enum MHD_Result api_on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method,
        const char *version, const char *data, size_t *size, void **con_cls)
{
        Api *a = cls;
        ApiRequest *r = *con_cls;

        if (!r) {
                r = *con_cls = request_new(a, c, method, url);
                if (!r)
                        return MHD_NO;
                if (!announces_too_much(c))
                        return MHD_YES; /* MHD answers "100 Continue" itself */
                /* Nothing of it is read: MHD closes the connection behind the answer. */
                refuse_too_large(r);
                r->dispatched = r->queued = true;
                api_connection_answered(c);
                return MHD_queue_response(c, r->status, r->response);
        }
        if (*size > 0) {
                if (!r->too_large && tb_buffer_append(&r->received, data, *size, NULL) < 0) {
                        r->too_large = true;
                        tb_buffer_done(&r->received);
                }
                if (r->too_large && (r->thrown_away += *size) > TOO_LARGE_MAX)
                        return MHD_NO; /* it is cut off */
                *size = 0;
                return MHD_YES;
        }
        if (!r->dispatched) {
                api_connection_busy(c);
                request_dispatch(r);
        }
        if (!r->response) {
                r->suspended = true;
                request_watch(r);
                MHD_suspend_connection(c);
                return MHD_YES;
        }
        if (r->streaming)
                request_watch(r);
        r->queued = true;
        if (!r->streaming && r->status != MHD_HTTP_SWITCHING_PROTOCOLS)
                api_connection_answered(c);
        return MHD_queue_response(c, r->status, r->response);
}

void api_on_completed(
        void *cls, struct MHD_Connection *c, void **con_cls, enum MHD_RequestTerminationCode why)
{
        ApiRequest *r = *con_cls;

        api_connection_idle(c);
        if (!r)
                return;
        api_request_gone(r);
        *con_cls = request_free(r);
}

/* The path goes to api_on_access() as it was sent: it is split before it is decoded. */
size_t api_on_unescape(void *cls, struct MHD_Connection *c, char *s)
{
        return strlen(s);
}

void api_on_mhd_log(void *cls, const char *fmt, va_list ap)
{
        char text[256];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void) vsnprintf(text, sizeof(text), fmt, ap);
#pragma GCC diagnostic pop
        log_debug("API: %.*s", (int) strcspn(text, "\n"), text);
}

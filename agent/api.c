/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <grp.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/api.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

#define CLIENT_TIMEOUT_SEC 30U
#define JSON_TYPE "application/json"
#define LINES_TYPE "application/x-ndjson"

struct Api {
        Manager *manager;
        int fd;
        char *path;
        struct MHD_Daemon *daemon;
        sd_event_source *io;
        sd_event_source *timer;
        ApiRequest *requests; /* list of those that are under way */
        bool stopping;
};

/*
 * A request is: RECEIVING its body -> dispatched to its operation -> either answered (response set), or suspended
 * until api_reply() or the stream have something. `connection` belongs to MHD and lives until on_completed().
 */
struct ApiRequest {
        Api *api;
        ApiRequest *next, *prev;
        struct MHD_Connection *connection;
        char *method;
        char **segments;
        const ApiOperation *operation;
        size_t arguments[API_SEGMENTS_MAX];
        uid_t uid;
        TbBuffer received;
        json_t *body;
        bool too_large;
        bool dispatched;
        bool suspended;

        unsigned status;
        struct MHD_Response *response; /* ready to be queued */
        bool queued;

        bool streaming;
        bool ended;
        TbBuffer out;
        void (*drained)(ApiRequest *r, void *userdata);
        void *drained_userdata;

        ApiUpgradedFn upgraded_fn;
        void *upgraded_userdata;
        struct MHD_UpgradeResponseHandle *upgraded; /* the connection speaks another protocol */

        int watch_fd; /* of the connection, to notice a hang-up while it is suspended */
        sd_event_source *watch;
        void (*gone)(ApiRequest *r, void *userdata);
        void *gone_userdata;
};

static void api_kick(Api *a);
static void request_gone(ApiRequest *r);

Manager *api_request_manager(const ApiRequest *r)
{
        return r->api->manager;
}

uid_t api_request_uid(const ApiRequest *r)
{
        return r->uid;
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
        if (r->ended || r->api->stopping)
                return MHD_CONTENT_READER_END_OF_STREAM;
        r->suspended = true;
        MHD_suspend_connection(r->connection);
        return 0;
}

void api_stream_start(ApiRequest *r)
{
        r->streaming = true;
        set_response(r, 200,
                MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16 * 1024, stream_read, r, NULL),
                LINES_TYPE);
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
                request_gone(r);
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

static void request_gone(ApiRequest *r)
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
        request_gone(r);
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
        struct ucred cred;
        socklen_t len = sizeof(cred);

        r->uid = (uid_t) -1;
        if (info && getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) >= 0)
                r->uid = cred.uid;
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

static void request_dispatch(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;

        r->dispatched = true;
        if (r->response)
                return; /* refused already */
        if (r->too_large) {
                api_reply(r, 413,
                        json_pack("{s:{s:s, s:s, s:s, s:b}}", "error", "kind", "config", "code", "EMSGSIZE",
                                "message", "the request is too large", "retryable", 0));
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
        r->operation->fn(r);
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method,
        const char *version, const char *data, size_t *size, void **con_cls)
{
        Api *a = cls;
        ApiRequest *r = *con_cls;

        if (!r) {
                r = *con_cls = request_new(a, c, method, url);
                return r ? MHD_YES : MHD_NO; /* MHD answers "100 Continue" itself */
        }
        if (*size > 0) {
                if (!r->too_large && tb_buffer_append(&r->received, data, *size, NULL) < 0) {
                        r->too_large = true;
                        tb_buffer_done(&r->received);
                }
                *size = 0;
                return MHD_YES;
        }
        if (!r->dispatched)
                request_dispatch(r);
        if (!r->response) {
                r->suspended = true;
                request_watch(r);
                MHD_suspend_connection(c);
                return MHD_YES;
        }
        if (r->streaming)
                request_watch(r);
        r->queued = true;
        return MHD_queue_response(c, r->status, r->response);
}

static void on_completed(
        void *cls, struct MHD_Connection *c, void **con_cls, enum MHD_RequestTerminationCode why)
{
        ApiRequest *r = *con_cls;

        if (!r)
                return;
        request_gone(r);
        *con_cls = request_free(r);
}

/* The path goes to on_access() as it was sent: it is split before it is decoded. */
static size_t on_unescape(void *cls, struct MHD_Connection *c, char *s)
{
        return strlen(s);
}

static void on_mhd_log(void *cls, const char *fmt, va_list ap)
{
        char text[256];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void) vsnprintf(text, sizeof(text), fmt, ap);
#pragma GCC diagnostic pop
        log_debug("API: %.*s", (int) strcspn(text, "\n"), text);
}

/* ---- Loop -------------------------------------------------------------------------------------------------- */

static void api_run(Api *a)
{
        MHD_UNSIGNED_LONG_LONG ms;

        if (MHD_run(a->daemon) == MHD_NO)
                log_debug("the API server could not run");
        if (MHD_get_timeout(a->daemon, &ms) == MHD_NO) {
                (void) sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
                return;
        }
        if (sd_event_source_set_time_relative(a->timer, ms * 1000) < 0 ||
                sd_event_source_set_enabled(a->timer, SD_EVENT_ONESHOT) < 0)
                log_debug("cannot set the API's timer");
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        api_run(userdata);
        return 0;
}

/* From the loop as soon as possible: MHD must not be entered from its own callbacks. */
static void api_kick(Api *a)
{
        if (sd_event_source_set_time_relative(a->timer, 0) < 0 ||
                sd_event_source_set_enabled(a->timer, SD_EVENT_ONESHOT) < 0)
                log_debug("cannot set the API's timer");
}

static int on_run_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        api_run(userdata);
        return 0;
}

static int api_listen(Api *a, TbError **err)
{
        const Config *c = &a->manager->config;
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        const char *path = config_socket(c);
        const struct group *group;

        if (strlen(path) >= sizeof(sa.sun_path))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -ENAMETOOLONG, "the socket path %s is too long", path);
        memcpy(sa.sun_path, path, strlen(path) + 1);
        a->path = strdup(path);
        if (!a->path)
                return tb_error_oom(err);
        a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (a->fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a socket");
        /* We hold the lock, so a socket that is there is a dead agent's. */
        if (unlink(path) < 0 && errno != ENOENT)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot remove the old %s", path);
        if (bind(a->fd, (struct sockaddr *) &sa, sizeof(sa)) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot bind %s", path);
        group = getgrnam(c->socket_group ?: "tbnode");
        if (!group && c->socket_group)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT, "there is no group '%s' (socket-group)",
                        c->socket_group);
        if (chown(path, 0, group ? group->gr_gid : 0) < 0 || chmod(path, 0660) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot set the owner of %s", path);
        if (listen(a->fd, 128) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot listen on %s", path);
        return 0;
}

static int api_setup(Api *a, TbError **err)
{
        sd_event *event = a->manager->event;
        const union MHD_DaemonInfo *info;
        int r;

        r = api_listen(a, err);
        if (r < 0)
                return r;
        a->daemon = MHD_start_daemon(
                MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG, 0, NULL,
                NULL, on_access, a, MHD_OPTION_LISTEN_SOCKET, a->fd, MHD_OPTION_NOTIFY_COMPLETED,
                on_completed, a, MHD_OPTION_CONNECTION_LIMIT, API_CONNECTIONS_MAX,
                MHD_OPTION_CONNECTION_TIMEOUT, CLIENT_TIMEOUT_SEC, MHD_OPTION_UNESCAPE_CALLBACK, on_unescape,
                a, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, a, MHD_OPTION_END);
        if (!a->daemon)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot start the API server");
        a->fd = -EBADF; /* MHD closes it */
        info = MHD_get_daemon_info(a->daemon, MHD_DAEMON_INFO_EPOLL_FD);
        if (!info)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "the API server has no epoll descriptor");
        r = sd_event_add_io(event, &a->io, info->epoll_fd, EPOLLIN, on_io, a);
        if (r >= 0)
                r = sd_event_add_time_relative(event, &a->timer, CLOCK_MONOTONIC, 0, 1000, on_run_timer, a);
        if (r >= 0)
                r = sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
        if (r < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, r, "cannot attach the API to the event loop");
        (void) sd_event_source_set_description(a->io, "api");
        (void) sd_event_source_set_description(a->timer, "api-timer");
        return 0;
}

int api_new(Manager *m, Api **ret, TbError **err)
{
        Api *a = calloc(1, sizeof(*a));
        int r;

        if (!a)
                return tb_error_oom(err);
        a->manager = m;
        a->fd = -EBADF;
        r = api_setup(a, err);
        if (r < 0) {
                api_free(a);
                return r;
        }
        *ret = a;
        return 0;
}

Api *api_free(Api *a)
{
        if (!a)
                return NULL;
        /* MHD demands that nothing is suspended when it stops. */
        for (ApiRequest *r = a->requests; r; r = r->next) {
                request_gone(r);
                api_upgrade_end(r);
                if (r->suspended) {
                        r->suspended = false;
                        MHD_resume_connection(r->connection);
                }
        }
        a->stopping = true;
        sd_event_source_disable_unref(a->io);
        sd_event_source_disable_unref(a->timer);
        if (a->daemon)
                MHD_stop_daemon(a->daemon);
        tb_close(a->fd);
        if (a->path)
                (void) unlink(a->path);
        free(a->path);
        free(a);
        return NULL;
}

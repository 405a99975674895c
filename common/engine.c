/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/strv.h"
#include "common/units.h"

#define RESPONSE_MAX (32U * 1024 * 1024)
#define LINE_MAX_DEFAULT (1024U * 1024)
#define ERROR_BODY_MAX (64U * 1024)
#define MESSAGE_SHOWN_MAX 1024U
#define CALL_TIMEOUT_USEC (60 * UINT64_C(1000000))

struct TbEngine {
        TbHttp *http;
        char *endpoint;
        char *path;
        char *version;
        char api[16];
        bool connected;

        TbEngineRequest *connect;
        TbEngineConnectedFn connected_fn;
        void *connected_userdata;
};

struct TbEngineRequest {
        TbEngine *engine;
        TbHttpRequest *http;
        char *what; /* "GET /containers/json", for messages */
        TbEngineReadFn read;
        TbEngineLineFn line;
        TbEngineDataFn data;
        TbEngineDoneFn done;
        void *userdata;
        size_t response_max;
        TbJsonLines *lines;
        bool own_error;      /* one of our callbacks ended it */
        TbBuffer error_body; /* of a stream that was answered with an error status */
};

int tb_engine_parse_endpoint(const char *endpoint, char **ret_path, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(endpoint, 128);
        const char *path = tb_startswith(endpoint, "unix://");
        char *copy;

        if (!shown)
                return tb_error_oom(err);
        if (!path && strstr(endpoint, "://"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EOPNOTSUPP,
                        "Docker endpoint '%s' is not supported: tbnode must run on the engine's own host; "
                        "use "
                        "unix:///path/to/docker.sock",
                        shown);
        if (!path || path[0] != '/')
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "Docker endpoint '%s' is not of the form unix:///path/to/docker.sock", shown);
        /* sockaddr_un.sun_path, unix(7) */
        if (strlen(path) >= 108)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENAMETOOLONG,
                        "Docker endpoint '%s' is too long: a socket path has at most 107 bytes", shown);
        copy = strdup(path);
        if (!copy)
                return tb_error_oom(err);
        *ret_path = copy;
        return 0;
}

/* "1.41" -> 41 */
static int parse_api_version(const char *s, unsigned *ret_minor, TbError **err)
{
        const char *minor = tb_startswith(s, "1.");
        uint32_t v;

        if (!minor || tb_parse_u32(minor, 0, 9999, &v, NULL) < 0) {
                _cleanup_free_ char *shown = tb_escape(s, 32);
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                        "the Docker engine names an API version '%s' that is not of the form 1.N",
                        shown ?: "");
        }
        *ret_minor = v;
        return 0;
}

int tb_engine_choose_version(const json_t *version, unsigned *ret_minor, TbError **err)
{
        const char *api = NULL, *min_api = NULL;
        unsigned highest, lowest = TB_ENGINE_API_MIN;
        int r;

        r = tb_json_get_string(version, "ApiVersion", &api, err);
        if (r < 0)
                return r;
        if (r == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                        "the Docker engine's answer to GET /version has no ApiVersion: is this a Docker "
                        "engine?");
        r = parse_api_version(api, &highest, err);
        if (r < 0)
                return r;
        r = tb_json_get_string(version, "MinAPIVersion", &min_api, err);
        if (r < 0)
                return r;
        if (r > 0 && min_api[0] != 0) {
                r = parse_api_version(min_api, &lowest, err);
                if (r < 0)
                        return r;
        }
        if (highest < TB_ENGINE_API_MIN)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EPROTONOSUPPORT,
                        "the Docker engine speaks API 1.%u, tbnode needs 1.%d or newer; install Docker "
                        "20.10 or newer",
                        highest, TB_ENGINE_API_MIN);
        if (lowest > TB_ENGINE_API_MAX)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EPROTONOSUPPORT,
                        "the Docker engine wants API 1.%u or newer, tbnode speaks up to 1.%d; install a "
                        "newer tbnode",
                        lowest, TB_ENGINE_API_MAX);
        *ret_minor = highest < TB_ENGINE_API_MAX ? highest : TB_ENGINE_API_MAX;
        return 0;
}

int tb_engine_status_to_errno(unsigned status)
{
        switch (status) {
        case 304:
                return -EALREADY;
        case 401:
        case 403:
                return -EACCES;
        case 404:
                return -ENOENT;
        case 409:
                return -EBUSY;
        case 501:
                return -EOPNOTSUPP;
        case 503:
                return -EAGAIN;
        default:
                return status >= 500 ? -EREMOTEIO : -EINVAL;
        }
}

char *tb_engine_escape(const char *s)
{
        static const char hex[] = "0123456789ABCDEF";
        char *out, *p;

        out = p = malloc(strlen(s) * 3 + 1);
        if (!out)
                return NULL;
        for (; *s; s++) {
                unsigned char c = (unsigned char) *s;

                if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                        strchr("-._~", c))
                        *p++ = (char) c;
                else {
                        *p++ = '%';
                        *p++ = hex[c >> 4];
                        *p++ = hex[c & 15];
                }
        }
        *p = 0;
        return out;
}

int tb_engine_new(TbHttp *http, const char *endpoint, TbEngine **ret, TbError **err)
{
        TbEngine *e;
        int r;

        e = calloc(1, sizeof(*e));
        if (!e)
                return tb_error_oom(err);
        e->http = http;
        e->endpoint = strdup(endpoint);
        e->version = strdup("");
        if (!e->endpoint || !e->version) {
                tb_engine_free(e);
                return tb_error_oom(err);
        }
        r = tb_engine_parse_endpoint(endpoint, &e->path, err);
        if (r < 0) {
                tb_engine_free(e);
                return r;
        }
        *ret = e;
        return 0;
}

TbEngine *tb_engine_free(TbEngine *e)
{
        if (!e)
                return NULL;
        tb_engine_connect_cancel(e);
        free(e->endpoint);
        free(e->path);
        free(e->version);
        free(e);
        return NULL;
}

const char *tb_engine_endpoint(const TbEngine *e)
{
        return e->endpoint;
}

const char *tb_engine_version(const TbEngine *e)
{
        return e->version;
}

const char *tb_engine_api_version(const TbEngine *e)
{
        return e->api;
}

sd_event *tb_engine_event(const TbEngine *e)
{
        return tb_http_event(e->http);
}

bool tb_engine_is_connected(const TbEngine *e)
{
        return e->connected;
}

/* What the transport error means for somebody whose engine is a local socket. curl only says "couldn't
 * connect", so the socket itself is asked why. */
static int transport_error(const TbEngine *e, const char *what, const TbError *cause, TbError **err)
{
        struct stat st;

        if (stat(e->path, &st) < 0 && (errno == ENOENT || errno == ENOTDIR)) {
                (void) tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOENT,
                        "no Docker engine at %s: there is no such socket; start Docker or set docker= in "
                        "tbnoded.conf",
                        e->endpoint);
                tb_error_set_retryable(err);
                return -ENOENT;
        }
        if (access(e->path, R_OK | W_OK) < 0 && errno == EACCES)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EACCES,
                        "no permission to use the Docker engine at %s; run as root or as a member of its "
                        "group",
                        e->endpoint);
        if (cause->code == -ECONNREFUSED) {
                (void) tb_error_set(err, TB_ERROR_ENVIRONMENT, -ECONNREFUSED,
                        "no Docker engine listens at %s; start Docker", e->endpoint);
                tb_error_set_retryable(err);
                return -ECONNREFUSED;
        }
        (void) tb_error_set(err, cause->kind, cause->code, "Docker engine: %s failed: %s", what,
                tb_error_message(cause));
        if (cause->retryable)
                tb_error_set_retryable(err);
        return cause->code;
}

/* The body of a status >= 400 is {"message": "..."}; a proxy in between may send anything. */
int tb_engine_refusal(const char *what, unsigned status, const char *body, size_t size, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        _cleanup_free_ char *shown = NULL;
        const char *message = NULL;
        int code = tb_engine_status_to_errno(status);

        if (tb_json_parse(body, size, ERROR_BODY_MAX, "error of the Docker engine", &j, NULL) < 0 ||
                tb_json_get_string(j, "message", &message, NULL) <= 0 || message[0] == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, code,
                        "Docker engine: %s was answered with status %u", what, status);
        shown = tb_escape(message, MESSAGE_SHOWN_MAX);
        if (!shown)
                return tb_error_oom(err);
        (void) tb_error_set(err, TB_ERROR_REMOTE, code, "Docker engine: %s", shown);
        if (code == -EAGAIN)
                tb_error_set_retryable(err);
        return code;
}

static void request_finish(TbEngineRequest *r, const json_t *body, const TbError *err)
{
        r->done(r, tb_http_request_status(r->http), body, err, r->userdata); /* may free r */
}

static void on_http_done(TbHttpRequest *http, const TbError *cause, void *userdata)
{
        TbEngineRequest *r = userdata;
        _cleanup_json_ json_t *body = NULL;
        _cleanup_error_ TbError *err = NULL;
        unsigned status = tb_http_request_status(http);
        const char *data;
        size_t size;

        if (cause) {
                /* An error that one of our own callbacks gave is passed on as it is. */
                if (!r->own_error)
                        (void) transport_error(r->engine, r->what, cause, &err);
                request_finish(r, NULL, err ?: cause);
                return;
        }
        if (r->line || r->data) {
                if (status >= 400)
                        (void) tb_engine_refusal(
                                r->what, status, r->error_body.data ?: "", r->error_body.size, &err);
                else if (r->lines && tb_json_lines_finish(r->lines, &err) < 0 && !err)
                        (void) tb_error_oom(&err);
                request_finish(r, NULL, err);
                return;
        }
        data = tb_http_request_body(http, &size);
        if (status >= 400)
                (void) tb_engine_refusal(r->what, status, data ?: "", size, &err);
        else if (data && size > 0 && strspn(data, " \r\n") < size) {
                const char *type = tb_http_request_header(http, "Content-Type");

                /* /_ping answers "OK" as text */
                if (type && tb_startswith(type, "application/json") &&
                        tb_json_parse(data, size, r->response_max, r->what, &body, &err) < 0)
                        body = NULL;
        }
        request_finish(r, body, err);
}

static ssize_t on_http_read(TbHttpRequest *http, void *buf, size_t size, void *userdata)
{
        TbEngineRequest *r = userdata;

        ssize_t n = r->read(r, buf, size, r->userdata);

        if (n < 0 && n != TB_HTTP_PAUSE)
                r->own_error = true;
        return n;
}

static ssize_t on_http_write(TbHttpRequest *http, const void *data, size_t size, void *userdata)
{
        TbEngineRequest *r = userdata;
        TbError *err = NULL;
        int k;

        if (tb_http_request_status(http) >= 400) {
                size_t room = ERROR_BODY_MAX - r->error_body.size;

                k = tb_buffer_append(&r->error_body, data, size < room ? size : room, &err);
        } else if (r->data) {
                ssize_t n = r->data(r, data, size, r->userdata);

                if (n < 0 && n != TB_HTTP_PAUSE)
                        r->own_error = true;
                return n;
        } else
                k = tb_json_lines_feed(r->lines, data, size, &err);
        if (k < 0)
                r->own_error = true;
        if (k < 0 && err)
                tb_http_request_abort_reason(http, err);
        return k;
}

static int on_json_line(const json_t *line, void *userdata, TbError **err)
{
        TbEngineRequest *r = userdata;

        return r->line(r, line, r->userdata, err);
}

TbEngineRequest *tb_engine_request_free(TbEngineRequest *r)
{
        if (!r)
                return NULL;
        tb_http_request_free(r->http);
        tb_json_lines_free(r->lines);
        tb_buffer_done(&r->error_body);
        free(r->what);
        free(r);
        return NULL;
}

/* `api` is "" for /version itself. */
static int engine_start(
        TbEngine *e, const char *api, const TbEngineCall *call, TbEngineRequest **ret, TbError **err)
{
        TbEngineRequest *r;
        _cleanup_free_ char *url = NULL, *body = NULL;
        _cleanup_strv_ char **headers = NULL;
        TbHttpOptions options = {};
        size_t body_size = 0;
        bool stream = call->line || call->data;
        int k;

        url = tb_asprintf("http://docker%s%s%s", api[0] ? "/v" : "", api, call->path);
        if (!url)
                return tb_error_oom(err);
        if (call->body) {
                k = tb_json_dump(call->body, false, &body, &body_size, err);
                if (k < 0)
                        return k;
                k = tb_strv_append(&headers, "Content-Type: application/json", err);
                if (k < 0)
                        return k;
        }
        for (const char *const *h = call->headers; h && *h; h++) {
                k = tb_strv_append(&headers, *h, err);
                if (k < 0)
                        return k;
        }

        r = calloc(1, sizeof(*r));
        if (!r)
                return tb_error_oom(err);
        r->engine = e;
        r->read = call->read;
        r->line = call->line;
        r->data = call->data;
        r->done = call->done;
        r->userdata = call->userdata;
        r->response_max = call->response_max ?: RESPONSE_MAX;
        r->error_body = TB_BUFFER_INIT(ERROR_BODY_MAX);
        r->what = tb_asprintf("%s %.*s", call->method, (int) strcspn(call->path, "?"), call->path);
        if (!r->what) {
                tb_engine_request_free(r);
                return tb_error_oom(err);
        }
        if (call->line) {
                k = tb_json_lines_new(
                        r->what, call->line_max ?: LINE_MAX_DEFAULT, on_json_line, r, &r->lines, err);
                if (k < 0) {
                        tb_engine_request_free(r);
                        return k;
                }
        }

        options.method = call->method;
        options.url = url;
        options.unix_socket = e->path;
        options.headers = (const char *const *) headers;
        options.body = body;
        options.body_size = body_size;
        options.read = call->read ? on_http_read : NULL;
        options.read_size = call->read_size;
        options.write = stream ? on_http_write : NULL;
        options.response_max = r->response_max;
        if (call->timeout_usec != UINT64_MAX)
                options.timeout_usec = call->timeout_usec ?: stream ? 0 : CALL_TIMEOUT_USEC;
        options.done = on_http_done;
        options.userdata = r;
        k = tb_http_start(e->http, &options, &r->http, err);
        if (k < 0) {
                tb_engine_request_free(r);
                return k;
        }
        *ret = r;
        return 0;
}

int tb_engine_call(TbEngine *e, const TbEngineCall *call, TbEngineRequest **ret, TbError **err)
{
        if (!e->connected) {
                (void) tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTCONN,
                        "no connection to the Docker engine at %s; is Docker running?", e->endpoint);
                tb_error_set_retryable(err);
                return -ENOTCONN;
        }
        return engine_start(e, e->api, call, ret, err);
}

void tb_engine_request_resume(TbEngineRequest *r)
{
        tb_http_request_resume(r->http);
}

unsigned tb_engine_request_status(const TbEngineRequest *r)
{
        return tb_http_request_status(r->http);
}

const char *tb_engine_request_header(const TbEngineRequest *r, const char *name)
{
        return tb_http_request_header(r->http, name);
}

static int engine_take_version(TbEngine *e, const json_t *body, TbError **err)
{
        const char *version = "";
        unsigned minor;
        char *copy;
        int r;

        r = tb_engine_choose_version(body, &minor, err);
        if (r < 0)
                return r;
        r = tb_json_get_string(body, "Version", &version, err);
        if (r < 0)
                return r;
        copy = tb_escape(version, 64);
        if (!copy)
                return tb_error_oom(err);
        free(e->version);
        e->version = copy;
        (void) snprintf(e->api, sizeof(e->api), "1.%u", minor);
        e->connected = true;
        return 0;
}

static void on_version(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *cause, void *userdata)
{
        TbEngine *e = userdata;
        _cleanup_error_ TbError *err = NULL;

        if (!cause)
                (void) engine_take_version(e, body, &err);
        e->connect = NULL;
        /* The callback may free the engine: nothing of it is used afterwards. `cause` lives in r. */
        e->connected_fn(e, cause ?: err, e->connected_userdata);
        tb_engine_request_free(r);
}

int tb_engine_connect(TbEngine *e, TbEngineConnectedFn done, void *userdata, TbError **err)
{
        tb_engine_connect_cancel(e);
        e->connected = false;
        e->connected_fn = done;
        e->connected_userdata = userdata;
        return engine_start(e, "",
                &(TbEngineCall){.method = "GET", .path = "/version", .done = on_version, .userdata = e},
                &e->connect, err);
}

void tb_engine_connect_cancel(TbEngine *e)
{
        e->connect = tb_engine_request_free(e->connect);
}

typedef struct Perform {
        const TbEngineCall *call;
        bool done;
        unsigned status;
        json_t *body;
        TbError *err;
} Perform;

static void on_perform_done(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        Perform *p = userdata;

        p->done = true;
        p->status = status;
        p->err = tb_error_copy(err);
        p->body = body ? json_incref((json_t *) body) : NULL;
}

/* `userdata` is the caller's for these. */
static int on_perform_line(TbEngineRequest *r, const json_t *line, void *userdata, TbError **err)
{
        const Perform *p = userdata;

        return p->call->line(r, line, p->call->userdata, err);
}

static ssize_t on_perform_data(TbEngineRequest *r, const void *data, size_t size, void *userdata)
{
        const Perform *p = userdata;

        return p->call->data(r, data, size, p->call->userdata);
}

static ssize_t on_perform_read(TbEngineRequest *r, void *buf, size_t size, void *userdata)
{
        const Perform *p = userdata;

        return p->call->read(r, buf, size, p->call->userdata);
}

static void on_perform_connected(TbEngine *e, const TbError *err, void *userdata)
{
        Perform *p = userdata;

        p->done = true;
        p->err = tb_error_copy(err);
}

static int perform_wait(TbEngine *e, Perform *p, TbError **err)
{
        while (!p->done) {
                int r = sd_event_run(tb_http_event(e->http), UINT64_MAX);
                if (r < 0)
                        return tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, r, "cannot wait for the Docker engine");
        }
        return p->err ? tb_error_move(err, &p->err) : 0;
}

int tb_engine_perform(
        TbEngine *e, const TbEngineCall *call, unsigned *ret_status, json_t **ret_body, TbError **err)
{
        TbEngineRequest *request = NULL;
        TbEngineCall own = *call;
        Perform p = {};
        int r;

        if (!e->connected) {
                r = tb_engine_connect(e, on_perform_connected, &p, err);
                if (r < 0)
                        return r;
                r = perform_wait(e, &p, err);
                if (r < 0) {
                        tb_engine_connect_cancel(e);
                        return r;
                }
                p = (Perform){};
        }
        own.done = on_perform_done;
        own.userdata = &p;
        own.line = call->line ? on_perform_line : NULL;
        own.data = call->data ? on_perform_data : NULL;
        own.read = call->read ? on_perform_read : NULL;
        p.call = call;
        r = tb_engine_call(e, &own, &request, err);
        if (r < 0)
                return r;
        r = perform_wait(e, &p, err);
        tb_engine_request_free(request);
        if (r < 0) {
                json_decref(p.body);
                return r;
        }
        if (ret_status)
                *ret_status = p.status;
        if (ret_body)
                *ret_body = p.body;
        else
                json_decref(p.body);
        return 0;
}

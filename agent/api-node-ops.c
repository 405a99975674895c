/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Operations on nodes that the engine carries out: stop, start, restart, rm, logs. */

#include <stdlib.h>
#include <string.h>

#include "agent/api-logs.h"
#include "agent/api-ops.h"
#include "agent/log-time.h"
#include "agent/network.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

/* docker stop waits 10 s for the container's end by itself. */
#define STOP_TIMEOUT_USEC (60 * UINT64_C(1000000))
/* That, and a start that waits at the gate. */
#define RESTART_TIMEOUT_USEC (180 * UINT64_C(1000000))
#define FRAME_HEADER 8U

typedef struct NodeOp {
        ApiRequest *request;
        Manager *manager;
        char id[CONTAINER_ID_LEN + 1];
        char *name;
        TbEngineRequest *call;
        NetworkJob *network;

        /* logs */
        LogsQuery logs;
        char *query;
        bool tty;
        unsigned char header[FRAME_HEADER]; /* of the frame that is being read */
        size_t header_size;
        uint32_t frame_left;
} NodeOp;

static void node_op_free(NodeOp *o)
{
        tb_engine_request_free(o->call);
        network_job_free(o->network);
        free(o->name);
        free(o->query);
        free(o);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        node_op_free(userdata);
}

static NodeOp *node_op_new(ApiRequest *r)
{
        NodeOp *o;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return NULL;
        o = calloc(1, sizeof(*o));
        if (!o || !(o->name = strdup(node_display_name(n)))) {
                free(o);
                api_reply(r, 507, NULL);
                return NULL;
        }
        o->request = r;
        o->manager = n->manager;
        memcpy(o->id, n->id, sizeof(o->id));
        api_request_on_gone(r, on_gone, o);
        return o;
}

static void finish_error(NodeOp *o, const TbError *err)
{
        api_reply_error(o->request, err);
        node_op_free(o);
}

static void finish_ok(NodeOp *o)
{
        api_reply(o->request, 200, json_pack("{s:s, s:s}", "node", o->name, "id", o->id));
        node_op_free(o);
}

/* ---- Stop, start, restart ---------------------------------------------------------------------------------------- */

static void on_done(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        /* 304: it is stopped (running) already */
        if (err && status != 304)
                finish_error(userdata, err);
        else
                finish_ok(userdata);
}

static void call_simple(
        ApiRequest *r, const char *method, const char *suffix, uint64_t timeout_usec, TbEngineDoneFn done)
{
        _cleanup_error_ TbError *err = NULL;
        NodeOp *o = node_op_new(r);
        char path[128];

        if (!o)
                return;
        (void) snprintf(path, sizeof(path), "/containers/%s%s", o->id, suffix);
        if (tb_engine_call(o->manager->engine,
                    &(TbEngineCall){.method = method,
                            .path = path,
                            .timeout_usec = timeout_usec,
                            .done = done,
                            .userdata = o},
                    &o->call, &err) < 0)
                finish_error(o, err);
}

void op_stop(ApiRequest *r)
{
        call_simple(r, "POST", "/stop", STOP_TIMEOUT_USEC, on_done);
}

void op_start(ApiRequest *r)
{
        call_simple(r, "POST", "/start", STOP_TIMEOUT_USEC, on_done);
}

void op_restart(ApiRequest *r)
{
        call_simple(r, "POST", "/restart", RESTART_TIMEOUT_USEC, on_done);
}

/* ---- Remove ------------------------------------------------------------------------------------------------------ */

static void on_networks(const char *made_id, const TbError *err, void *userdata)
{
        NodeOp *o = userdata;

        o->network = NULL;
        if (err)
                finish_error(o, err);
        else
                finish_ok(o);
}

static void on_removed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        NodeOp *o = userdata;
        _cleanup_error_ TbError *failed = NULL;

        if (err && status != 404) {
                finish_error(o, err);
                return;
        }
        if (network_remove_unused(o->manager, on_networks, o, &o->network, &failed) < 0)
                finish_error(o, failed);
}

void op_remove(ApiRequest *r)
{
        call_simple(r, "DELETE", "?force=1&v=1", STOP_TIMEOUT_USEC, on_removed);
}

/* ---- Logs -------------------------------------------------------------------------------------------------------- */

/* Without a terminal the engine sends frames: {stream, 0, 0, 0, length as 32 bits big-endian}, then that many bytes
 * (Engine API, "Attach to a container", stream format). Takes what it can; the text goes to the client. */
static ssize_t demultiplex(NodeOp *o, const unsigned char *p, size_t size)
{
        while (size > 0) {
                size_t n;

                if (o->frame_left == 0) {
                        o->header[o->header_size++] = *p++;
                        size--;
                        if (o->header_size < FRAME_HEADER)
                                continue;
                        o->header_size = 0;
                        o->frame_left = (uint32_t) o->header[4] << 24 | (uint32_t) o->header[5] << 16 |
                                (uint32_t) o->header[6] << 8 | o->header[7];
                        continue;
                }
                n = MIN2(size, (size_t) o->frame_left);
                if (!api_stream_text(o->request, (const char *) p, n))
                        return -ENOBUFS;
                o->frame_left -= (uint32_t) n;
                p += n;
                size -= n;
        }
        return 0;
}

static ssize_t on_log_data(TbEngineRequest *r, const void *data, size_t size, void *userdata)
{
        NodeOp *o = userdata;

        /* All or nothing: what is behind a pause comes again. */
        if (!api_stream_has_room(o->request, size))
                return TB_HTTP_PAUSE;
        if (o->tty)
                return api_stream_text(o->request, data, size) ? 0 : -ENOBUFS;
        return demultiplex(o, data, size);
}

static void on_log_drained(ApiRequest *r, void *userdata)
{
        NodeOp *o = userdata;

        if (o->call)
                tb_engine_request_resume(o->call);
}

static void on_log_done(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        NodeOp *o = userdata;

        api_stream_end(o->request);
        node_op_free(o);
}

/* With the system log, when that is asked for and there is one, or as JSON; true: the request is served, or refused. */
static bool start_with_syslog(NodeOp *o)
{
        const Node *n = manager_find(o->manager, o->id);
        _cleanup_error_ TbError *err = NULL;
        LogsQuery output = o->logs;
        int r;

        output.source = LOGS_OUTPUT;
        if (o->logs.source == LOGS_OUTPUT && !o->logs.json)
                return false;
        if (n && (n->identity.pid != 0 || o->logs.source == LOGS_OUTPUT))
                r = logs_op_start(o->request, n, &o->logs, o->tty, &err);
        else
                r = tb_error_set(&err, TB_ERROR_CONFIG, -ENOTCONN,
                        "it is not running; its system log is inside the container");
        if (r < 0 && n && o->logs.source == LOGS_ALL && o->logs.json) {
                err = tb_error_free(err);
                r = logs_op_start(o->request, n, &output, o->tty, &err);
        }
        if (r >= 0)
                node_op_free(o);
        else if (o->logs.source == LOGS_ALL && !o->logs.json)
                return false; /* then there is one log only */
        else {
                tb_error_prefix(&err, "node %s", o->name);
                finish_error(o, err);
        }
        return true;
}

static void on_log_inspect(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        NodeOp *o = userdata;
        _cleanup_error_ TbError *failed = NULL;
        _cleanup_free_ char *path = NULL;
        json_t *config = NULL;

        if (err) {
                finish_error(o, err);
                return;
        }
        if (tb_json_get_object(body, "Config", &config, NULL) <= 0 ||
                tb_json_get_bool(config, "Tty", &o->tty, NULL) < 0)
                o->tty = false;
        if (start_with_syslog(o))
                return;
        path = tb_asprintf("/containers/%s/logs?stdout=1&stderr=1%s", o->id, o->query);
        o->call = tb_engine_request_free(o->call);
        if (!path)
                (void) tb_error_oom(&failed);
        else if (tb_engine_call(o->manager->engine,
                         &(TbEngineCall){.method = "GET",
                                 .path = path,
                                 .data = on_log_data,
                                 .done = on_log_done,
                                 .userdata = o},
                         &o->call, &failed) >= 0) {
                api_stream_start(o->request);
                api_stream_on_drained(o->request, on_log_drained, o);
                return;
        }
        finish_error(o, failed);
}

static int read_flag(ApiRequest *r, const char *name, bool *ret, TbError **err)
{
        const char *value = api_request_query(r, name) ?: "0";

        *ret = tb_streq(value, "1");
        if (!*ret && !tb_streq(value, "0"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "\"%s\" is to be 0 or 1", name);
        return 0;
}

static int read_query(ApiRequest *r, LogsQuery *ret, TbError **err)
{
        const char *tail = api_request_query(r, "tail"), *since = api_request_query(r, "since"),
                   *source = api_request_query(r, "source") ?: "output",
                   *format = api_request_query(r, "format") ?: "text";
        _cleanup_free_ char *decoded = NULL;
        LogsQuery q = {.tail = LOGS_ALL_LINES};
        int k;

        k = read_flag(r, "follow", &q.follow, err);
        if (k >= 0)
                k = read_flag(r, "timestamps", &q.timestamps, err);
        if (k < 0)
                return k;
        q.json = tb_streq(format, "json");
        if (!q.json && !tb_streq(format, "text"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "\"format\" is to be text or json");
        if (tb_streq(source, "all"))
                q.source = LOGS_ALL;
        else if (tb_streq(source, "syslog"))
                q.source = LOGS_SYSLOG;
        else if (!tb_streq(source, "output"))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "\"source\" is to be all, output or syslog");
        if (q.timestamps && (q.source != LOGS_OUTPUT || q.json))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "\"timestamps\" is for \"source\": output as text; the system log and JSON have "
                        "their own");
        if (tail)
                k = tb_parse_u64(tail, 0, 1000000, &q.tail, err);
        if (k >= 0 && since)
                k = api_decode(since, strlen(since), &decoded, err);
        if (k >= 0 && since)
                k = log_time_since(decoded, log_time_now(), &q.since_ns, err);
        if (k >= 0)
                *ret = q;
        return k;
}

static char *engine_query(const LogsQuery *q)
{
        char tail[32] = "", since[48] = "";

        if (q->tail != LOGS_ALL_LINES)
                (void) snprintf(tail, sizeof(tail), "&tail=%llu", (unsigned long long) q->tail);
        if (q->since_ns > 0)
                (void) snprintf(since, sizeof(since), "&since=%llu.%09llu",
                        (unsigned long long) (q->since_ns / 1000000000),
                        (unsigned long long) (q->since_ns % 1000000000));
        return tb_asprintf(
                "%s%s%s%s", tail, since, q->follow ? "&follow=1" : "", q->timestamps ? "&timestamps=1" : "");
}

void op_logs(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        LogsQuery query;
        char path[128];
        NodeOp *o;

        if (read_query(r, &query, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        o = node_op_new(r);
        if (!o)
                return;
        o->logs = query;
        if (query.source == LOGS_SYSLOG && start_with_syslog(o))
                return;
        o->query = engine_query(&query);
        (void) snprintf(path, sizeof(path), "/containers/%s/json", o->id);
        if (!o->query)
                (void) tb_error_oom(&err);
        else if (tb_engine_call(o->manager->engine,
                         &(TbEngineCall){
                                 .method = "GET", .path = path, .done = on_log_inspect, .userdata = o},
                         &o->call, &err) >= 0)
                return;
        finish_error(o, err);
}

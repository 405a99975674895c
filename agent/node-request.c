/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/node-request.h"

#include <stdlib.h>
#include <string.h>

#include "agent/barrier.h"
#include "agent/declaration.h"
#include "agent/experiment.h"
#include "agent/log-node.h"
#include "agent/node-client.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

#define BARRIER_DEFAULT "barrier"
#define BARRIER_COUNT_MAX 65536U
#define TIMEOUT_MAX (365U * 86400U)

/* A request that is answered later. */
struct NodeWait {
        NodeConnection *connection;
        NodeWait *next;
        json_t *id; /* NULL = the request had none */
        BarrierWait *barrier;
        char *name;
        sd_event_source *timer;
};

/* ---- Answers ------------------------------------------------------------------------------------------------------- */

static void answer_id(NodeConnection *c, const json_t *id, json_t *body)
{
        if (body && id && json_object_set(body, "id", (json_t *) id) < 0) {
                json_decref(body);
                body = NULL;
        }
        node_connection_send(c, body);
}

static void answer(NodeConnection *c, const json_t *request, json_t *body)
{
        answer_id(c, json_object_get(request, "id"), body);
}

static json_t *error_body(const char *code, const char *message, bool retryable)
{
        return json_pack("{s:b, s:{s:s, s:s, s:b}}", "ok", 0, "error", "code", code, "message", message,
                "retryable", (int) retryable);
}

static void answer_error(NodeConnection *c, const json_t *request, const char *code, const TbError *err)
{
        answer(c, request, error_body(code, tb_error_message(err), err && err->retryable));
}

static void answer_ok(NodeConnection *c, const json_t *request)
{
        answer(c, request, json_pack("{s:b}", "ok", 1));
}

/* What reports answer: nothing but whether they were good. */
static void answer_result(NodeConnection *c, const json_t *request, int r, const TbError *err)
{
        if (r < 0)
                answer_error(c, request, r == -ENOMEM ? "resource" : "invalid", err);
        else
                answer_ok(c, request);
}

void node_request_refuse(NodeConnection *c, const char *why)
{
        node_connection_send(c, error_body("invalid", why, false));
}

/* ---- Operations ---------------------------------------------------------------------------------------------------- */

static void op_declaration(NodeConnection *c, const json_t *request)
{
        const Node *n = node_connection_node(c);
        json_t *view;

        if (n->client && n->client->error) {
                answer_error(c, request, "unavailable", n->client->error);
                return;
        }
        view = node_client_view(n, node_connection_is_root(c));
        if (view && json_object_set_new(view, "ok", json_true()) < 0) {
                json_decref(view);
                view = NULL;
        }
        answer(c, request, view);
}

static void op_attach(NodeConnection *c, const json_t *request)
{
        node_connection_attach(c);
        answer_ok(c, request);
        log_node(node_connection_node(c), LOG_DEBUG, "its client is connected");
}

static void op_state(NodeConnection *c, const json_t *request)
{
        const char *state = NULL, *reason = NULL;
        _cleanup_error_ TbError *err = NULL;
        int r;

        r = tb_json_get_string(request, "state", &state, &err);
        if (r >= 0)
                r = tb_json_get_string(request, "reason", &reason, &err);
        if (r >= 0)
                r = node_client_report_state(node_connection_node(c), state, reason, &err);
        answer_result(c, request, r, err);
}

static void op_startstatus(NodeConnection *c, const json_t *request)
{
        _cleanup_error_ TbError *err = NULL;
        int r = node_client_report_startup(node_connection_node(c), request, &err);

        answer_result(c, request, r, err);
}

static void op_program(NodeConnection *c, const json_t *request)
{
        _cleanup_error_ TbError *err = NULL;
        int r = node_client_report_program(node_connection_node(c), request, &err);

        answer_result(c, request, r, err);
}

static void op_experiment(NodeConnection *c, const json_t *request)
{
        json_t *nodes = experiment_nodes(node_connection_node(c));

        answer(c, request, nodes ? json_pack("{s:b, s:o}", "ok", 1, "nodes", nodes) : NULL);
}

static void op_ready(NodeConnection *c, const json_t *request)
{
        node_client_report_ready(node_connection_node(c));
        answer_ok(c, request);
}

static void op_readycount(NodeConnection *c, const json_t *request)
{
        const Node *n = node_connection_node(c);

        answer(c, request,
                json_pack("{s:b, s:i, s:i}", "ok", 1, "ready", (int) experiment_ready(n), "total",
                        (int) experiment_size(n)));
}

/* ---- Barriers ------------------------------------------------------------------------------------------------------ */

static void wait_free(NodeWait *w)
{
        NodeConnection *c = w->connection;

        for (NodeWait **p = node_connection_wait_list(c); *p; p = &(*p)->next)
                if (*p == w) {
                        *p = w->next;
                        (*node_connection_waits(c))--;
                        break;
                }
        barrier_leave(w->barrier);
        sd_event_source_disable_unref(w->timer);
        json_decref(w->id);
        free(w->name);
        free(w);
}

void node_request_cancel(NodeConnection *c)
{
        while (*node_connection_wait_list(c))
                wait_free(*node_connection_wait_list(c));
}

/* The last answer goes out when the wait is gone: then the connection's time to speak runs again. */
static void wait_end(NodeWait *w, json_t *body)
{
        NodeConnection *c = w->connection;
        json_t *id = w->id ? json_incref(w->id) : NULL;

        wait_free(w);
        answer_id(c, id, body);
        json_decref(id);
}

static void on_barrier_open(unsigned count, void *userdata)
{
        NodeWait *w = userdata;

        w->barrier = NULL;
        wait_end(w, json_pack("{s:b, s:i}", "ok", 1, "count", (int) count));
}

static int on_barrier_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        wait_end(userdata, error_body("timeout", "the others did not come to the barrier in time", true));
        return 0;
}

static int parse_sync(
        const json_t *request, const char **name, uint64_t *count, uint64_t *timeout, TbError **err)
{
        if (tb_json_get_string(request, "name", name, err) < 0 ||
                tb_json_get_u64(request, "count", count, err) < 0 ||
                tb_json_get_u64(request, "timeout", timeout, err) < 0)
                return -EINVAL;
        if (!declaration_program_name_is_valid(*name))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "a barrier's name is of letters, digits, '_', '.' and '-', at most 64");
        if (*count > BARRIER_COUNT_MAX || *timeout > TIMEOUT_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "count is at most %u, timeout at most %u",
                        BARRIER_COUNT_MAX, TIMEOUT_MAX);
        return 0;
}

static int wait_new(
        NodeConnection *c, const json_t *request, const char *name, uint64_t timeout, NodeWait **ret)
{
        const json_t *id = json_object_get(request, "id");
        NodeWait *w = calloc(1, sizeof(*w));

        if (!w)
                return -ENOMEM;
        w->connection = c;
        w->name = strdup(name);
        w->id = id ? json_incref((json_t *) id) : NULL;
        w->next = *node_connection_wait_list(c);
        *node_connection_wait_list(c) = w;
        (*node_connection_waits(c))++;
        if (!w->name ||
                (timeout > 0 &&
                        sd_event_add_time_relative(node_connection_node(c)->manager->event, &w->timer,
                                CLOCK_MONOTONIC, timeout * 1000000, 0, on_barrier_timeout, w) < 0)) {
                wait_free(w);
                return -ENOMEM;
        }
        *ret = w;
        return 0;
}

static void op_sync(NodeConnection *c, const json_t *request)
{
        const Node *n = node_connection_node(c);
        const char *name = BARRIER_DEFAULT;
        uint64_t count = 0, timeout = 0;
        _cleanup_error_ TbError *err = NULL;
        unsigned entered = 0;
        NodeWait *w;
        int r;

        if (parse_sync(request, &name, &count, &timeout, &err) < 0) {
                answer_error(c, request, "invalid", err);
                return;
        }
        for (w = *node_connection_wait_list(c); w; w = w->next)
                if (tb_streq(w->name, name)) {
                        answer(c, request,
                                error_body("busy", "this connection waits at that barrier already", false));
                        return;
                }
        if (*node_connection_waits(c) >= NODE_WAITS_MAX) {
                answer(c, request, error_body("limit", "this node waits at 64 barriers already", true));
                return;
        }
        if (wait_new(c, request, name, timeout, &w) < 0) {
                answer(c, request, NULL);
                return;
        }
        r = barrier_enter(n->manager->barriers, n->labels.experiment ?: n->id, name, (unsigned) count,
                experiment_size(n), on_barrier_open, w, &w->barrier, &entered, &err);
        if (r > 0)
                wait_end(w, json_pack("{s:b, s:i}", "ok", 1, "count", (int) entered));
        else if (r < 0) {
                wait_free(w);
                answer_error(c, request, r == -ENOMEM ? "resource" : "invalid", err);
        }
}

/* ---- Dispatch ------------------------------------------------------------------------------------------------------ */

static const struct {
        const char *op;
        bool root;
        void (*fn)(NodeConnection *c, const json_t *request);
} operations[] = {
        {"declaration", false, op_declaration},
        {"attach", true, op_attach},
        {"state", true, op_state},
        {"startstatus", true, op_startstatus},
        {"program", true, op_program},
        {"sync", false, op_sync},
        {"experiment", false, op_experiment},
        {"ready", false, op_ready},
        {"readycount", false, op_readycount},
};

int node_request_parse(const char *line, size_t size, json_t **ret, const char **ret_op, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        const json_t *id;
        const char *op = NULL;
        int r;

        r = tb_json_parse(line, size, NODE_REQUEST_MAX, "request", &j, err);
        if (r < 0)
                return r;
        if (!json_is_object(j))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "a request is an object");
        id = json_object_get(j, "id");
        if (id && !json_is_integer(id))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "id is a number");
        r = tb_json_get_string(j, "op", &op, err);
        if (r < 0)
                return r;
        if (!op)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "a request has an op");
        *ret_op = op;
        *ret = TAKE_PTR(j);
        return 0;
}

void node_request_take(NodeConnection *c, const char *line, size_t size)
{
        _cleanup_json_ json_t *request = NULL;
        _cleanup_error_ TbError *err = NULL;
        const char *op;

        if (node_request_parse(line, size, &request, &op, &err) < 0) {
                node_request_refuse(c, tb_error_message(err));
                return;
        }
        for (size_t i = 0; i < ELEMENTSOF(operations); i++) {
                if (!tb_streq(operations[i].op, op))
                        continue;
                if (operations[i].root && !node_connection_is_root(c))
                        answer(c, request,
                                error_body("not-root", "only root of the node may ask this", false));
                else
                        operations[i].fn(c, request);
                return;
        }
        answer(c, request, error_body("unknown", "there is no such op", false));
}

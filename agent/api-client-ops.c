/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Operations on the inside of nodes: what is declared for them, and their programs. */

#include <stdlib.h>
#include <string.h>

#include "agent/api-ops.h"
#include "agent/declaration.h"
#include "agent/node-client.h"
#include "agent/request-body.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* How long the client may take to say what became of an order: TERM, 5 s, KILL, and a bit. */
#define REPORT_USEC (10 * UINT64_C(1000000))

/* The node with its client's part, which a container that never ran may not have yet. */
static int request_client(ApiRequest *r, Node **ret)
{
        Node *n;

        if (api_request_node(r, &n) < 0)
                return -ENOENT;
        node_client_open(n);
        if (!n->client) {
                api_reply(r, 507, NULL);
                return -ENOMEM;
        }
        *ret = n;
        return 0;
}

/* Password hashes stay where they are: who may ask this can replace them, nobody needs to read them. */
static json_t *declaration_shown(const NodeClient *c)
{
        _cleanup_json_ json_t *copy = c->declaration ? json_deep_copy(c->declaration) : json_object();
        json_t *user;
        size_t i;

        json_array_foreach (json_object_get(json_object_get(copy, "accounts"), "users"), i, user)
                if (json_object_get(user, "password_hash") &&
                        json_object_set_new(user, "password_hash", json_string("*")) < 0)
                        return NULL;
        return TAKE_PTR(copy);
}

static json_t *reply_body(const Node *n)
{
        json_t *shown = declaration_shown(n->client);

        return shown ? json_pack("{s:s, s:I, s:b, s:o}", "node", node_display_name(n), "generation",
                               (json_int_t) n->client->generation, "attached",
                               (int) node_client_is_attached(n), "declaration", shown)
                     : NULL;
}

void op_declaration_get(ApiRequest *r)
{
        Node *n;

        if (request_client(r, &n) < 0)
                return;
        if (n->client->error)
                api_reply_error(r, n->client->error);
        else
                api_reply(r, 200, reply_body(n));
}

void op_declaration_set(ApiRequest *r)
{
        _cleanup_json_ json_t *declaration = NULL;
        _cleanup_error_ TbError *err = NULL;
        Node *n;

        if (request_client(r, &n) < 0)
                return;
        if (declaration_check(api_request_body(r), &declaration, &err) < 0 ||
                node_client_declare(n, declaration, &err) < 0)
                api_reply_error(r, err);
        else
                api_reply(r, 200, reply_body(n));
}

/* Each declared program with what its client said of it last. */
static json_t *program_to_json(const Node *n, const json_t *program)
{
        const char *name = json_string_value(json_object_get(program, "name"));
        const json_t *report = json_object_get(json_object_get(n->client->status, "programs"), name);
        json_t *j = json_deep_copy(program);

        if (j &&
                json_object_update_new(j, report ? json_deep_copy(report) : json_pack("{s:n}", "state")) <
                        0) {
                json_decref(j);
                return NULL;
        }
        return j;
}

void op_programs(ApiRequest *r)
{
        _cleanup_json_ json_t *list = json_array();
        const json_t *program;
        size_t i;
        Node *n;

        if (request_client(r, &n) < 0)
                return;
        json_array_foreach (json_object_get(n->client->declaration, "programs"), i, program)
                if (json_array_append_new(list, program_to_json(n, program)) < 0) {
                        api_reply(r, 507, NULL);
                        return;
                }
        api_reply(r, 200,
                json_pack("{s:s, s:b, s:O, s:O?}", "node", node_display_name(n), "attached",
                        (int) node_client_is_attached(n), "programs", list, "startup",
                        json_object_get(n->client->status, "startup")));
}

/* An order to the client, until it reports what became of it. */
typedef struct ProgramOrder {
        ApiRequest *request;
        ProgramWatch *watch;
        sd_event_source *timer;
        char *node, *program, *action;
} ProgramOrder;

static void order_free(ProgramOrder *o)
{
        node_client_unwatch(o->watch);
        sd_event_source_disable_unref(o->timer);
        free(o->node);
        free(o->program);
        free(o->action);
        free(o);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        order_free(userdata);
}

static void order_answer(ProgramOrder *o, const json_t *outcome)
{
        api_reply(o->request, 200,
                json_pack("{s:s, s:s, s:s, s:O?}", "node", o->node, "program", o->program, "action",
                        o->action, "reported", (json_t *) outcome));
        order_free(o);
}

static void on_report(const json_t *outcome, void *userdata)
{
        ProgramOrder *o = userdata;

        o->watch = NULL;
        order_answer(o, outcome);
}

static int on_silence(sd_event_source *s, uint64_t usec, void *userdata)
{
        order_answer(userdata, NULL);
        return 0;
}

static int order_new(
        ApiRequest *r, Node *n, const char *program, const char *action, ProgramOrder **ret, TbError **err)
{
        ProgramOrder *o = calloc(1, sizeof(*o));

        if (o)
                *o = (ProgramOrder){.request = r,
                        .node = strdup(node_display_name(n)),
                        .program = strdup(program),
                        .action = strdup(action)};
        if (!o || !o->node || !o->program || !o->action ||
                node_client_watch(n, program, on_report, o, &o->watch, NULL) < 0 ||
                sd_event_add_time_relative(
                        n->manager->event, &o->timer, CLOCK_MONOTONIC, REPORT_USEC, 0, on_silence, o) < 0) {
                if (o)
                        order_free(o);
                return tb_error_oom(err);
        }
        *ret = o;
        return 0;
}

/* A signal of one's own choice may end the program or not: its answer is that it was sent. */
static void do_program(ApiRequest *r, Node *n, const char *action, unsigned signal)
{
        const char *name = api_request_argument(r, 1);
        _cleanup_error_ TbError *err = NULL;
        ProgramOrder *o = NULL;

        if (order_new(r, n, name, action, &o, &err) < 0 ||
                node_client_program(n, name, action, signal, &err) < 0) {
                if (o)
                        order_free(o);
                api_reply_error(r, err);
        } else if (signal > 0)
                order_answer(o, NULL);
        else
                api_request_on_gone(r, on_gone, o);
}

void op_program(ApiRequest *r)
{
        static const char *const members[] = {"action", "signal", NULL};
        const char *action = NULL;
        const json_t *body = api_request_body(r);
        _cleanup_error_ TbError *err = NULL;
        uint64_t signal = 0;
        Node *n;

        if (request_client(r, &n) < 0)
                return;
        if (request_body_check_members(body, members, &err) < 0 ||
                api_blame_caller(tb_json_get_string(body, "action", &action, &err), &err) < 0 ||
                api_blame_caller(tb_json_get_u64(body, "signal", &signal, &err), &err) < 0 ||
                (signal > 64 &&
                        tb_error_set(&err, TB_ERROR_CONFIG, -EINVAL,
                                "a signal's number is between 1 and 64") < 0))
                api_reply_error(r, err);
        else
                do_program(r, n, action ?: "", (unsigned) signal);
}

void op_startup(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        Node *n;

        if (request_client(r, &n) < 0)
                return;
        if (node_client_startup(n, &err) < 0)
                api_reply_error(r, err);
        else
                api_reply(
                        r, 200, json_pack("{s:s, s:s}", "node", node_display_name(n), "action", "startup"));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The operations of the API that answer at once, and the table of all. */

#include <string.h>

#include "agent/api-ops.h"
#include "agent/augment-job.h"
#include "agent/docker-events.h"
#include "agent/log-node.h"
#include "agent/reconcile.h"
#include "agent/request-body.h"
#include "agent/run.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

int api_request_node(ApiRequest *r, Node **ret)
{
        _cleanup_error_ TbError *err = NULL;
        int k;

        k = manager_lookup(api_request_manager(r), api_request_argument(r, 0), ret, &err);
        if (k < 0)
                api_reply_error(r, err);
        return k;
}

int api_blame_caller(int r, TbError **err)
{
        if (r < 0 && err && *err && (*err)->kind == TB_ERROR_REMOTE)
                (*err)->kind = TB_ERROR_CONFIG;
        return r;
}

static void op_status(ApiRequest *r)
{
        const Manager *m = api_request_manager(r);
        size_t n[_NODE_STATE_MAX] = {};
        _cleanup_json_ json_t *states = json_object(), *limits = job_queue_rate_limits(m->jobs);
        const TbError *engine = docker_events_error(m->docker);
        char started[EVENT_TIME_MAX];
        json_t *j;

        for (size_t i = 0; i < m->n_nodes; i++)
                n[m->nodes[i]->state]++;
        for (NodeState s = 0; states && s < _NODE_STATE_MAX; s++)
                if (json_object_set_new(states, node_state_to_string(s), json_integer((json_int_t) n[s])) <
                        0) {
                        api_reply(r, 507, NULL);
                        return;
                }
        j = json_pack("{s:s, s:s, s:i, s:I, s:{s:s, s:b, s:s, s:s, s:s*}, s:s, s:s, s:I, s:O, s:{s:I, s:I, "
                      "s:I, s:I, "
                      "s:I}, s:O}",
                "version", TBNODE_VERSION, "started", event_time_format(started, m->started_us), "pid",
                (int) getpid(), "ready_us", (json_int_t) (m->ready ? m->ready_us : 0), "engine", "endpoint",
                m->config.docker, "connected", docker_events_is_connected(m->docker), "version",
                tb_engine_version(m->engine), "api", tb_engine_api_version(m->engine), "error",
                engine ? tb_error_message(engine) : NULL, "registry", m->config.registry, "control_network",
                m->config.control_network, "jobs", (json_int_t) job_queue_running(m->jobs), "nodes", states,
                "counters", "batches", (json_int_t) m->stats.batches, "kernel_writes",
                (json_int_t) m->stats.kernel_writes, "nodes_applied", (json_int_t) m->stats.nodes_applied,
                "engine_connects", (json_int_t) m->stats.engine_connects, "engine_events",
                (json_int_t) m->stats.events, "rate_limits", limits);
        api_reply(r, 200, j);
}

static void op_nodes(ApiRequest *r)
{
        const Manager *m = api_request_manager(r);
        _cleanup_json_ json_t *a = json_array();

        for (size_t i = 0; i < m->n_nodes; i++)
                if (json_array_append_new(a, node_to_json(m->nodes[i], false)) < 0) {
                        api_reply(r, 507, NULL);
                        return;
                }
        api_reply(r, 200, json_pack("{s:O}", "nodes", a));
}

static void op_inspect(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (n->state == NODE_CONFIGURED && reconcile_show(n->manager, n, &err) < 0)
                log_node(n, LOG_WARNING, "cannot read it from the kernel: %s", tb_error_message(err));
        api_reply(r, 200, node_to_json(n, true));
}

/* ---- Changes of running nodes ------------------------------------------------------------------------------------ */

static int check_changeable(const Node *n, TbError **err)
{
        if (n->state == NODE_CONFIGURED)
                return 0;
        if (n->error)
                return tb_error_set(err, TB_ERROR_CONFIG, -EBUSY, "node %s is %s: %s", node_display_name(n),
                        node_state_to_string(n->state), tb_error_message(n->error));
        return tb_error_set(err, TB_ERROR_CONFIG, -EBUSY,
                "node %s is %s; only a configured node can be changed", node_display_name(n),
                node_state_to_string(n->state));
}

/* An interface by its Docker network or by its name inside the container. */
static int find_network(const Node *n, const char *interface, const char **ret, TbError **err)
{
        _cleanup_free_ char *shown = NULL, *have = NULL;
        _cleanup_strv_ char **names = NULL;

        for (size_t i = 0; i < n->facts.n_endpoints; i++) {
                const Endpoint *e = &n->facts.endpoints[i];

                if (tb_streq(e->network, interface)) {
                        *ret = e->network;
                        return 0;
                }
                if (tb_strv_append(&names, e->network, err) < 0)
                        return -ENOMEM;
        }
        for (size_t i = 0; n->has_status && i < n->status.n_interfaces; i++)
                if (tb_streq(n->status.interfaces[i].ifname, interface)) {
                        for (size_t k = 0; k < n->facts.n_endpoints; k++)
                                if (tb_streq(n->facts.endpoints[k].network,
                                            n->status.interfaces[i].network)) {
                                        *ret = n->facts.endpoints[k].network;
                                        return 0;
                                }
                }
        shown = tb_escape(interface, 64);
        have = tb_strv_join(names, ", ");
        return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT, "node %s has no interface '%s'; it has %s",
                node_display_name(n), shown ?: "", have && have[0] ? have : "none");
}

/* Sets the override, writes it to the kernel and to the state file; on failure everything is as before. */
static int change_shape(Node *n, const char *network, const LinkShape *shape, TbError **err)
{
        const ShapeOverride *o = node_override(n, network);
        _cleanup_link_shape_ LinkShape before = {};
        bool existed = o != NULL, keep_up = o && o->keep_up, keep_down = o && o->keep_down;
        int r;

        if (o && link_shape_copy(&o->shape, &before, err) < 0)
                return -ENOMEM;

        r = node_set_override(n, network, shape, err);
        if (r < 0)
                return r;
        r = reconcile_now(n->manager, n, err);
        if (r >= 0)
                r = state_file_save(n->manager, err);
        if (r >= 0)
                return 0;
        if (existed) {
                ShapeOverride *back = (ShapeOverride *) node_override(n, network);

                link_shape_done(&back->shape);
                back->shape = before;
                before = (LinkShape){};
                back->keep_up = keep_up;
                back->keep_down = keep_down;
        } else {
                n->n_overrides--;
                shape_override_done(&n->overrides[n->n_overrides]);
        }
        /* When it was the state file that failed, the kernel is one step ahead. */
        if (reconcile_now(n->manager, n, NULL) < 0)
                node_event(n, NODE_EVENT_CHANGED, NULL);
        return r;
}

static void reply_changed(ApiRequest *r, Node *n, const char *what, const char *network)
{
        event_log_add(n->manager->log, what,
                json_pack(
                        "{s:s, s:s, s:s*}", "node", node_display_name(n), "id", n->id, "network", network));
        api_reply(r, 200, node_to_json(n, true));
}

/* {"spec": ...} changes what it names; {"rules": ...} has all rules that there shall be, and may name the default as well. */
static int merge_shape(const Node *n, const char *network, const char *spec, bool replace_rules,
        LinkShape *ret, TbError **err)
{
        _cleanup_link_shape_ LinkShape base = {}, change = {};
        int r;

        r = node_shape(n, network, &base, err);
        if (r >= 0 && !(replace_rules && spec[strspn(spec, "; \t\n")] == '\0')) /* no rules any more */
                r = link_shape_parse(spec, &change, err);
        return r < 0 ? r : link_shape_merge(&base, &change, replace_rules, ret, err);
}

static int read_change(const ApiRequest *r, const char **ret, bool *ret_rules, TbError **err)
{
        static const char *const members[] = {"spec", "rules", NULL};
        const char *spec = NULL, *rules = NULL;
        int k;

        k = request_body_check_members(api_request_body(r), members, err);
        if (k >= 0)
                k = api_blame_caller(tb_json_get_string(api_request_body(r), "spec", &spec, err), err);
        if (k >= 0)
                k = api_blame_caller(tb_json_get_string(api_request_body(r), "rules", &rules, err), err);
        if (k < 0)
                return k;
        if (spec && rules)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "give \"spec\" or \"rules\", not both");
        *ret = rules ?: spec ?: "";
        *ret_rules = rules != NULL;
        return 0;
}

static void op_shape_set(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_link_shape_ LinkShape shape = {};
        const char *network, *spec = NULL;
        bool rules;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (read_change(r, &spec, &rules, &err) < 0 || check_changeable(n, &err) < 0 ||
                find_network(n, api_request_argument(r, 1), &network, &err) < 0 ||
                merge_shape(n, network, spec, rules, &shape, &err) < 0 ||
                change_shape(n, network, &shape, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        reply_changed(r, n, "shape-set", network);
}

static void op_shape_clear(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        const LinkShape nothing = {};
        const char *network;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (check_changeable(n, &err) < 0 ||
                find_network(n, api_request_argument(r, 1), &network, &err) < 0 ||
                change_shape(n, network, &nothing, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        reply_changed(r, n, "shape-cleared", network);
}

static void op_firewall_set(ApiRequest *r)
{
        static const char *const members[] = {"style", NULL};
        _cleanup_error_ TbError *err = NULL;
        const char *text = NULL;
        FwStyle style, before;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (request_body_check_members(api_request_body(r), members, &err) < 0 ||
                check_changeable(n, &err) < 0 ||
                api_blame_caller(tb_json_get_string(api_request_body(r), "style", &text, &err), &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        style = text ? fw_style_from_string(text) : _FW_STYLE_INVALID;
        if (style < 0) {
                _cleanup_free_ char *shown = tb_escape(text ?: "", 64);

                (void) tb_error_set(&err, TB_ERROR_CONFIG, -EINVAL,
                        "there is no firewall style '%s'; use none, open, basic or closed", shown ?: "");
                api_reply_error(r, err);
                return;
        }
        before = n->firewall_override;
        n->firewall_override = style;
        if (reconcile_now(n->manager, n, &err) < 0 || state_file_save(n->manager, &err) < 0) {
                n->firewall_override = before;
                if (reconcile_now(n->manager, n, NULL) < 0)
                        node_event(n, NODE_EVENT_CHANGED, NULL);
                api_reply_error(r, err);
                return;
        }
        reply_changed(r, n, "firewall-set", NULL);
}

/* ---- Long work ----------------------------------------------------------------------------------------------------- */

static void op_run(ApiRequest *r)
{
        _cleanup_run_spec_ RunSpec spec = {};
        _cleanup_error_ TbError *err = NULL;

        const Config *config = &api_request_manager(r)->config;

        if (api_blame_caller(run_spec_parse(api_request_body(r), config, &spec, &err), &err) < 0 ||
                run_job_start(r, &spec, &err) < 0)
                api_reply_error(r, err);
}

const ApiOperation api_operations[] = {
        {"GET", "/v1/status", op_status, "The agent, its engine and what it counted"},
        {"GET", "/v1/nodes", op_nodes, "All nodes"},
        {"POST", "/v1/nodes", op_run,
                "Make a node of an image (JSON lines: progress, then result or error)"},
        {"GET", "/v1/nodes/{}", op_inspect, "One node, with what the kernel has for it"},
        {"DELETE", "/v1/nodes/{}", op_remove, "Remove a node and its container"},
        {"POST", "/v1/nodes/{}/stop", op_stop, "Stop a node"},
        {"POST", "/v1/nodes/{}/start", op_start, "Start a stopped node"},
        {"GET", "/v1/nodes/{}/logs", op_logs,
                "Output of its container, or with source=syslog its system log (text; follow=1, tail=N)"},
        {"PUT", "/v1/nodes/{}/shape/{}", op_shape_set,
                "Change the shape of one interface: {\"spec\": SPEC}, or all of its rules: {\"rules\": "
                "TEXT}"},
        {"DELETE", "/v1/nodes/{}/shape/{}", op_shape_clear, "Let everything pass at one interface"},
        {"PUT", "/v1/nodes/{}/firewall", op_firewall_set, "Change the firewall style: {\"style\": STYLE}"},
        {"GET", "/v1/nodes/{}/declaration", op_declaration_get, "What was declared for a node"},
        {"PUT", "/v1/nodes/{}/declaration", op_declaration_set, "Declare a node anew: the declaration"},
        {"GET", "/v1/nodes/{}/programs", op_programs,
                "Programs of a node, and what its client says of them"},
        {"POST", "/v1/nodes/{}/programs/{}", op_program,
                "Have its client do it: {\"action\": start|stop|kill, \"signal\": N}"},
        {"POST", "/v1/nodes/{}/startup", op_startup, "Have its client run the startup command once more"},
        {"POST", "/v1/links/check", op_links_check,
                "Measure links: {\"node\", \"network\", \"rate\"} (JSON lines: link, then result or error)"},
        {"POST", "/v1/augment", op_augment, "Augment an image (JSON lines: progress, then result or error)"},
        {"POST", "/v1/dockerfile", op_dockerfile, "The Dockerfile of an augmentation (JSON lines)"},
        {"GET", "/v1/events", op_events, "What happened (JSON lines; follow=1)"},
        {},
};

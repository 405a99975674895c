/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The operations of the API that answer at once, and the table of all. */

#include <string.h>

#include "agent/access.h"
#include "agent/api-ops.h"
#include "agent/augment-job.h"
#include "agent/docker-events.h"
#include "agent/log-node.h"
#include "agent/metrics.h"
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

        k = access_lookup(
                api_request_manager(r), api_request_caller(r), api_request_argument(r, 0), ret, &err);
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
                      "s:I, s:I, s:I, s:I}, s:O}",
                "version", TBNODE_VERSION, "started", event_time_format(started, m->started_us), "pid",
                (int) getpid(), "ready_us", (json_int_t) (m->ready ? m->ready_us : 0), "engine", "endpoint",
                m->config.docker, "connected", docker_events_is_connected(m->docker), "version",
                tb_engine_version(m->engine), "api", tb_engine_api_version(m->engine), "error",
                engine ? tb_error_message(engine) : NULL, "registry", m->config.registry, "control_network",
                m->config.control_network, "jobs", (json_int_t) job_queue_running(m->jobs), "nodes", states,
                "counters", "batches", (json_int_t) m->stats.batches, "kernel_writes",
                (json_int_t) m->stats.kernel_writes, "nodes_applied", (json_int_t) m->stats.nodes_applied,
                "engine_connects", (json_int_t) m->stats.engine_connects, "engine_events",
                (json_int_t) m->stats.events, "shape_repairs", (json_int_t) m->stats.shape_repairs,
                "firewall_repairs", (json_int_t) m->stats.firewall_repairs, "resyncs",
                (json_int_t) m->stats.resyncs, "rate_limits", limits);
        api_reply(r, 200, j);
}

static void op_metrics(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        char *text;
        size_t size;

        if (metrics_text(api_request_manager(r), api_request_caller(r), &text, &size, &err) < 0)
                api_reply_error(r, err);
        else
                api_reply_text(r, 200, METRICS_TYPE, text, size);
}

/* What this agent can be asked: for people with curl, and for the test that compares it with docs/api.yaml. */
static void op_operations(ApiRequest *r)
{
        _cleanup_json_ json_t *list = json_array();

        for (const ApiOperation *o = api_operations; o->method; o++)
                if (json_array_append_new(list,
                            json_pack("{s:s, s:s, s:s}", "method", o->method, "path", o->path, "summary",
                                    o->summary)) < 0) {
                        api_reply(r, 507, NULL);
                        return;
                }
        api_reply(r, 200, json_pack("{s:s, s:O}", "version", TBNODE_VERSION, "operations", list));
}

static void op_nodes(ApiRequest *r)
{
        const Manager *m = api_request_manager(r);
        _cleanup_json_ json_t *a = json_array();

        for (size_t i = 0; i < m->n_nodes; i++)
                if (access_may(api_request_caller(r), m->nodes[i]) &&
                        json_array_append_new(a, node_to_json(m->nodes[i], false)) < 0) {
                        api_reply(r, 507, NULL);
                        return;
                }
        api_reply(r, 200, json_pack("{s:O}", "nodes", a));
}

static void op_inspect(ApiRequest *r)
{
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        reconcile_show_many(n->manager, &n, 1);
        api_reply(r, 200, node_to_json(n, true));
}

/* ---- Long work ----------------------------------------------------------------------------------------------------- */

static void op_run(ApiRequest *r)
{
        _cleanup_run_spec_ RunSpec spec = {};
        _cleanup_error_ TbError *err = NULL;
        const Config *config = &api_request_manager(r)->config;

        if (api_blame_caller(run_spec_parse(api_request_body(r), config, &spec, &err), &err) < 0 ||
                access_check_run(api_request_manager(r), api_request_caller(r), &spec, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        spec.owner = api_request_uid(r);
        if (run_job_start(r, &spec, &err) < 0)
                api_reply_error(r, err);
}

const ApiOperation api_operations[] = {
        {"GET", "/metrics", op_metrics, "What was counted, for Prometheus"},
        {"GET", "/v1", op_operations, "The operations of the API"},
        {"GET", "/v1/status", op_status, "The agent, its engine and what it counted"},
        {"GET", "/v1/nodes", op_nodes, "All nodes", true},
        {"POST", "/v1/nodes", op_run, "Make a node of an image (JSON lines: progress, then result or error)",
                true},
        {"GET", "/v1/nodes/{}", op_inspect, "One node, with what the kernel has for it", true},
        {"DELETE", "/v1/nodes/{}", op_remove, "Remove a node and its container", true},
        {"POST", "/v1/nodes/{}/stop", op_stop, "Stop a node", true},
        {"POST", "/v1/nodes/{}/start", op_start, "Start a stopped node", true},
        {"POST", "/v1/nodes/{}/restart", op_restart, "Stop a node and start it again", true},
        {"POST", "/v1/nodes/{}/snapshot", op_snapshot,
                "Make an image of a node: {\"name\", \"project\", \"pause\": BOOL} (JSON lines: progress, "
                "then "
                "result or error)",
                true},
        {"GET", "/v1/nodes/{}/logs", op_logs,
                "Output of its container, its system log, or both (text; source=output|syslog|all, "
                "follow=1, "
                "tail=N, since=TIME, timestamps=1)",
                true},
        {"POST", "/v1/nodes/{}/files", op_files,
                "Files out of a running node: {\"paths\": [GLOB...]} (a tar archive, whose last entry "
                "report.json "
                "says what was left out)",
                true},
        {"POST", "/v1/nodes/{}/exec", op_exec,
                "Run a program in a node, connected to the caller: {\"cmd\", \"tty\", \"stdin\", \"user\", "
                "\"workdir\", \"env\", \"rows\", \"columns\"} (changes the protocol: tbnode-exec)",
                true},
        {"GET", "/v1/shapes", op_shapes, "The shapes of all nodes, as the kernel has them", true},
        {"GET", "/v1/nodes/{}/shape", op_shape_get, "The shapes of one node, as the kernel has them", true},
        {"PUT", "/v1/nodes/{}/shape/{}", op_shape_set,
                "Change the shape of one interface: {\"spec\": SPEC} or all its rules {\"rules\": TEXT}, "
                "\"for\": TIME, "
                "\"flap\": \"DOWN UP [COUNT]\"",
                true},
        {"DELETE", "/v1/nodes/{}/shape/{}", op_shape_clear, "Let everything pass at one interface", true},
        {"GET", "/v1/firewall", op_firewalls, "The firewall of all nodes, as the kernel has it", true},
        {"GET", "/v1/nodes/{}/firewall", op_firewall_show, "The firewall of a node, as the kernel has it",
                true},
        {"PUT", "/v1/nodes/{}/firewall", op_firewall_set,
                "Change the firewall: {\"style\": STYLE, \"rules\": RULES}", true},
        {"POST", "/v1/nodes/{}/firewall/explain", op_firewall_explain,
                "Which rule would decide: {\"direction\", \"protocol\", \"address\", \"port\"}", true},
        {"PUT", "/v1/nodes/{}/ssh-keys", op_keys_set,
                "Who may log in to a node that is served from outside: {\"ssh_keys\": [...]}", true},
        {"DELETE", "/v1/nodes/{}/ssh-keys", op_keys_clear, "The keys of its label again", true},
        {"GET", "/v1/nodes/{}/declaration", op_declaration_get, "What was declared for a node", true},
        {"PUT", "/v1/nodes/{}/declaration", op_declaration_set, "Declare a node anew: the declaration",
                true},
        {"GET", "/v1/nodes/{}/programs", op_programs, "Programs of a node, and what its client says of them",
                true},
        {"POST", "/v1/nodes/{}/programs/{}", op_program,
                "Have its client do it: {\"action\": start|stop|kill, \"signal\": N}", true},
        {"POST", "/v1/nodes/{}/startup", op_startup, "Have its client run the startup command once more",
                true},
        {"POST", "/v1/links/check", op_links_check,
                "Measure links: {\"node\", \"network\", \"rate\"} (JSON lines: link, then result or error)",
                true},
        {"POST", "/v1/augment", op_augment, "Augment an image (JSON lines: progress, then result or error)"},
        {"POST", "/v1/dockerfile", op_dockerfile, "The Dockerfile of an augmentation (JSON lines)"},
        {"GET", "/v1/images", op_images, "The images in the testbed's registry"},
        {"POST", "/v1/images/prune", op_prune,
                "Remove what nobody uses: {\"keep_days\": N, \"dry_run\": BOOL}"},
        {"GET", "/v1/events", op_events, "What happened (JSON lines; follow=1)"},
        {},
};

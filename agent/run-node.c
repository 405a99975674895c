/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Steps of `tbnode run` from the image to the configured node. */

#include <stdlib.h>
#include <string.h>

#include "agent/node-client.h"
#include "agent/node-dir.h"
#include "agent/outside-ssh.h"
#include "agent/run-internal.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

static void on_name(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        RunJob *j = userdata;
        TbError *taken = NULL;

        if (status == 404)
                run_go(j, RUN_NETWORKS);
        else if (err)
                run_fail(j, err);
        else {
                (void) tb_error_set(&taken, TB_ERROR_CONFIG, -EEXIST,
                        "there is a container named '%s' already; choose another --name or remove it: "
                        "tbnode rm %s",
                        j->spec.container, j->spec.container);
                run_fail_take(j, taken);
        }
        run_call_end(j);
}

void run_step_name(RunJob *j)
{
        char path[160];

        (void) snprintf(path, sizeof(path), "/containers/%s/json", j->spec.container);
        run_call(j, &(TbEngineCall){.method = "GET", .path = path, .done = on_name});
}

static void on_network(const char *made_id, const TbError *err, void *userdata)
{
        RunJob *j = userdata;
        TbError *failed = NULL;

        j->network = NULL;
        if (err)
                run_fail(j, err);
        else if (made_id && j->network_index > 0 && tb_strv_append(&j->networks_made, made_id, &failed) < 0)
                run_fail_take(j, failed);
        else {
                j->network_index++;
                run_go(j, RUN_NETWORKS);
        }
}

/* Index 0 is the control network: it is the host's, made once and kept. */
void run_step_networks(RunJob *j)
{
        const Config *c = &j->manager->config;
        TbError *err = NULL;
        int r;

        if (j->network_index > tb_strv_length(j->spec.networks)) {
                run_go(j, RUN_DIRECTORY);
                return;
        }
        if (j->network_index == 0)
                r = network_ensure(j->manager, c->control_network, c->control_subnet, true, on_network, j,
                        &j->network, &err);
        else
                r = network_ensure(j->manager, j->spec.networks[j->network_index - 1], NULL, false,
                        on_network, j, &j->network, &err);
        if (r < 0)
                run_fail_take(j, err);
}

static int write_node_file(const char *dir, const char *name, const char *text, TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("%s/%s", dir, name);

        if (!path || !text)
                return tb_error_oom(err);
        return tb_file_write_atomic(path, text, strlen(text), 0644, err);
}

void run_step_directory(RunJob *j)
{
        _cleanup_free_ char *dir = node_dir_path(j->manager, j->spec.container), *conf = NULL, *keys = NULL;
        TbError *err = NULL;
        int r;

        if (!run_image_is_augmented(j->inspect)) {
                run_go(j, RUN_CREATE);
                return;
        }
        keys = run_spec_authorized_keys(&j->spec);
        r = run_spec_node_conf(&j->spec, j->inspect, &conf, &err);
        if (r >= 0) /* the name is free: what is there is a leftover */
                r = dir ? tb_rm_rf(dir, &err) : tb_error_oom(&err);
        if (r >= 0)
                r = node_dir_make_parent(j->manager, &err);
        if (r >= 0)
                r = tb_mkdir_p(dir, 0755, &err);
        if (r >= 0) {
                j->dir_made = true;
                r = write_node_file(dir, "node.conf", conf, &err);
        }
        if (r >= 0)
                r = write_node_file(dir, "authorized_keys", keys, &err);
        if (r >= 0)
                r = node_client_prepare(j->manager, j->spec.container, j->spec.declare, &err);
        if (r < 0)
                run_fail_take(j, err);
        else
                run_go(j, RUN_CREATE);
}

static void on_created(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        RunJob *j = userdata;
        const char *id = NULL;
        TbError *bad = NULL;

        if (err && status != 0) { /* it said no */
                run_unmark(j->manager, j->number);
                j->number[0] = '\0';
        }
        if (err)
                run_fail(j, err);
        else if (tb_json_get_string(body, "Id", &id, &bad) <= 0 || !container_id_is_valid(id)) {
                if (!bad)
                        (void) tb_error_set(
                                &bad, TB_ERROR_REMOTE, -EPROTO, "the engine gave the container no valid id");
                run_fail_take(j, bad);
        } else {
                memcpy(j->container_id, id, CONTAINER_ID_LEN + 1);
                j->network_index = 0;
                /* A container without a directory is known by its id. */
                if (!j->dir_made && node_client_prepare(j->manager, id, j->spec.declare, &bad) < 0)
                        run_fail_take(j, bad);
                else
                        run_go(j, RUN_CONNECT);
        }
        run_call_end(j);
}

/* What lets people log in where the image has no sshd of ours; NULL: nothing is needed, or nobody may. */
static const char *run_programs(const RunJob *j)
{
        const char *tree = j->manager->config.ssh_tree;

        return !run_image_is_augmented(j->inspect) && j->spec.ssh_keys && j->spec.ssh_keys[0] &&
                        outside_ssh_has_programs(tree)
                ? tree
                : NULL;
}

void run_step_create(RunJob *j)
{
        _cleanup_free_ char *dir = j->dir_made ? node_dir_path(j->manager, j->spec.container) : NULL;
        _cleanup_json_ json_t *body = NULL;
        TbError *err = NULL;
        char path[160];

        if (run_spec_container(&j->spec, j->image, j->inspect, j->manager->config.control_network, dir,
                    run_programs(j), &body, &err) < 0) {
                run_fail_take(j, err);
                return;
        }
        if (run_mark(j->manager, j->number, &err) < 0 ||
                tb_json_set_string(json_object_get(body, "Labels"), RUN_LABEL, j->number, &err) < 0) {
                run_fail_take(j, err);
                return;
        }
        if (j->manager->engine_has_gate &&
                json_object_set_new(
                        json_object_get(body, "HostConfig"), "Runtime", json_string(GATE_RUNTIME)) < 0) {
                (void) tb_error_oom(&err);
                run_fail_take(j, err);
                return;
        }
        (void) snprintf(path, sizeof(path), "/containers/create?name=%s", j->spec.container);
        run_call(j, &(TbEngineCall){.method = "POST", .path = path, .body = body, .done = on_created});
}

static void on_network_connected(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        RunJob *j = userdata;

        if (err)
                run_fail(j, err);
        else {
                j->network_index++;
                run_go(j, RUN_CONNECT);
        }
        run_call_end(j);
}

void run_step_connect(RunJob *j)
{
        _cleanup_json_ json_t *body = NULL;
        char path[160];

        if (j->network_index >= tb_strv_length(j->spec.networks)) {
                run_go(j, RUN_START);
                return;
        }
        /* The node's name is resolved on its experiment networks, whatever the container is called. */
        body = json_pack(
                "{s:s, s:{s:[s]}}", "Container", j->container_id, "EndpointConfig", "Aliases", j->spec.node);
        (void) snprintf(path, sizeof(path), "/networks/%s/connect", j->spec.networks[j->network_index]);
        run_call(j,
                &(TbEngineCall){.method = "POST", .path = path, .body = body, .done = on_network_connected});
}

static void on_started(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        RunJob *j = userdata;

        if (err)
                run_fail(j, err);
        else
                run_go(j, RUN_CONFIGURE);
        run_call_end(j);
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        RunJob *j = userdata;
        const Node *n = manager_find(j->manager, j->container_id);
        TbError *err = NULL;

        (void) tb_error_set(&err, TB_ERROR_REMOTE, -ETIMEDOUT,
                "node %s was not configured within %lu s (it is %s)", j->spec.node,
                (unsigned long) (j->manager->config.start_timeout_usec / 1000000),
                n ? node_state_to_string(n->state) : "unknown to the engine's events");
        run_fail_take(j, err);
        return 0;
}

void run_step_start(RunJob *j)
{
        char path[160];

        if (sd_event_add_time_relative(j->manager->event, &j->timer, CLOCK_MONOTONIC,
                    j->manager->config.start_timeout_usec, 0, on_timeout, j) < 0)
                log_debug("no timer for the start of %s", j->spec.node);
        j->started = true;
        (void) snprintf(path, sizeof(path), "/containers/%s/start", j->container_id);
        run_call(j, &(TbEngineCall){.method = "POST", .path = path, .done = on_started});
}

static void run_check_node(RunJob *j, const Node *n)
{
        TbError *err = NULL;

        switch (n->state) {
        case NODE_CONFIGURED:
                if (n->client && n->client->route_error)
                        run_fail(j, n->client->route_error);
                else
                        run_go(j, RUN_DONE);
                break;
        case NODE_FAILED:
                if (n->error && n->error->retryable)
                        break; /* until the time is over */
                run_fail(j, n->error);
                break;
        case NODE_REMOVING:
        case NODE_STOPPED:
                (void) tb_error_set(&err, TB_ERROR_CONFIG, -ECHILD,
                        "the container ended while it was being set up; try the image with `docker run` to "
                        "see why");
                run_fail_take(j, err);
                break;
        case NODE_CREATED:
        case NODE_STARTING:
        case NODE_CONFIGURING:
        case _NODE_STATE_MAX:
        case _NODE_STATE_INVALID:
                break;
        }
}

void run_node_changed(Manager *m, const Node *n)
{
        for (RunJob *j = m->runs; j; j = j->next)
                if (tb_streq(j->container_id, n->id)) {
                        /* Before START was answered only the end counts: state changes come again. */
                        if (j->step == RUN_CONFIGURE && !j->error)
                                run_check_node(j, n);
                        return;
                }
}

void run_step_configure(RunJob *j)
{
        const Node *n = manager_find(j->manager, j->container_id);

        run_progress(j, "configuring its links");
        if (n)
                run_check_node(j, n);
}

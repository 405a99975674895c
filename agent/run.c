/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/docker-events.h"
#include "agent/message.h"
#include "agent/node-client.h"
#include "agent/node-dir.h"
#include "agent/outside-ssh.h"
#include "agent/run-internal.h"
#include "agent/run-turn.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"

#define RUNS_MAX 256U

static const char *const step_names[_RUN_STEP_MAX] = {
        [RUN_AUGMENT] = "augment",
        [RUN_WAIT] = "wait",
        [RUN_IMAGE] = "image",
        [RUN_PULL] = "pull",
        [RUN_INSPECT] = "inspect",
        [RUN_NAME] = "name",
        [RUN_NETWORKS] = "networks",
        [RUN_DIRECTORY] = "directory",
        [RUN_CREATE] = "create",
        [RUN_CONNECT] = "connect",
        [RUN_START] = "start",
        [RUN_CONFIGURE] = "configure",
        [RUN_DONE] = "done",
        [RUN_UNDO_CONTAINER] = "undo",
        [RUN_UNDO_NETWORKS] = "undo",
        [RUN_UNDO_END] = "undo",
};

static void run_step(RunJob *j);
static void give_turns(Manager *m);

RunJob *run_job_free(RunJob *j)
{
        Manager *m;

        if (!j)
                return NULL;
        m = j->manager;
        for (RunJob **p = &j->manager->runs; *p; p = &(*p)->next)
                if (*p == j) {
                        *p = j->next;
                        break;
                }
        job_waiter_free(j->augment);
        tb_engine_request_free(j->call);
        network_job_free(j->network);
        sd_event_source_disable_unref(j->timer);
        sd_event_source_disable_unref(j->next_step);
        run_spec_done(&j->spec);
        json_decref(j->augmented);
        json_decref(j->inspect);
        tb_strv_free(j->networks_made);
        tb_error_free(j->error);
        free(j->image);
        free(j);
        give_turns(m);
        return NULL;
}

/* ---- Moving on ------------------------------------------------------------------------------------------------- */

static int on_next_step(sd_event_source *s, void *userdata)
{
        RunJob *j = userdata;

        j->next_step = sd_event_source_disable_unref(j->next_step);
        run_step(j);
        return 0;
}

/* From the loop: a step may end the job, and callbacks of what just ended still run. */
void run_go(RunJob *j, RunStep step)
{
        j->step = step;
        if (!j->next_step && sd_event_add_defer(j->manager->event, &j->next_step, on_next_step, j) < 0)
                run_step(j); /* no memory for the detour: deeper stack, same work */
}

void run_progress(RunJob *j, const char *text)
{
        if (j->api)
                api_stream_line(j->api,
                        json_pack("{s:s, s:s, s:s*}", "event", "progress", "stage", step_names[j->step],
                                "text", text),
                        false);
}

/* Every failure comes here, once; what was made goes away, then the client hears why. */
void run_fail(RunJob *j, const TbError *cause)
{
        if (j->error)
                return;
        j->error = tb_error_copy(cause);
        j->timer = sd_event_source_disable_unref(j->timer);
        run_go(j, RUN_UNDO_CONTAINER);
}

void run_fail_take(RunJob *j, TbError *cause)
{
        run_fail(j, cause);
        tb_error_free(cause);
}

/* One engine call of a step; `done` frees the request by run_call_end(). */
void run_call(RunJob *j, const TbEngineCall *call)
{
        TbEngineCall own = *call;
        TbError *err = NULL;

        own.userdata = j;
        if (tb_engine_call(j->manager->engine, &own, &j->call, &err) < 0)
                run_fail_take(j, err);
}

void run_call_end(RunJob *j)
{
        j->call = tb_engine_request_free(j->call);
}

/* ---- Turns ----------------------------------------------------------------------------------------------------- */

/* As long as there is room, the next one goes on. */
static void give_turns(Manager *m)
{
        for (;;) {
                uid_t active[RUNS_ACTIVE_MAX], waiting[RUNS_MAX];
                RunJob *jobs[RUNS_MAX];
                size_t n_active = 0, n_waiting = 0, i;

                for (RunJob *j = m->runs; j; j = j->next)
                        if (j->has_turn)
                                active[n_active++] = j->uid;
                        else if (j->step == RUN_WAIT && !j->error)
                                jobs[n_waiting++] = j;
                if (n_waiting == 0 || n_active >= RUNS_ACTIVE_MAX)
                        return;
                /* The list has the newest first. */
                for (i = 0; i < n_waiting; i++)
                        waiting[i] = jobs[n_waiting - 1 - i]->uid;
                i = run_turn_choose(active, n_active, waiting, n_waiting);
                jobs[n_waiting - 1 - i]->has_turn = true;
                run_go(jobs[n_waiting - 1 - i], RUN_IMAGE);
        }
}

static void step_wait(RunJob *j)
{
        size_t active = 0;

        for (const RunJob *k = j->manager->runs; k; k = k->next)
                active += k->has_turn;
        if (active >= RUNS_ACTIVE_MAX)
                run_progress(j, "waiting for its turn");
        give_turns(j->manager);
}

/* ---- Steps ----------------------------------------------------------------------------------------------------- */

/* There is nothing that a later agent would have to undo. */
static void finished(RunJob *j)
{
        if (j->number[0])
                run_unmark(j->manager, j->number);
        j->number[0] = '\0';
}

static void step_done(RunJob *j)
{
        const Node *n = manager_find(j->manager, j->container_id);
        json_t *node = n ? node_to_json(n, false) : NULL;
        const char *ip = json_string_value(json_object_get(node, "ip"));
        json_t *line;

        finished(j);
        line = json_pack("{s:s, s:s, s:s, s:s, s:I, s:b, s:O, s:o*}", "event", "result", "name",
                j->spec.node, "container", j->spec.container, "id", j->container_id, "ms",
                (json_int_t) ((tb_now_us() - j->started_us) / 1000), "level_raised",
                (int) j->spec.level_raised, "augment", j->augmented, "node", node);
        if (line && ip)
                (void) json_object_set_new(line, "ip", json_string(ip));
        if (line && ip && j->dir_made)
                (void) json_object_set_new(
                        line, "ssh", json_pack("{s:s, s:i, s:s}", "host", ip, "port", 22, "user", "root"));
        else if (line && n && outside_ssh_is_open(n))
                (void) json_object_set_new(line, "ssh",
                        json_pack("{s:s, s:i, s:s}", "host", "127.0.0.1", "port", (int) n->ssh_port, "user",
                                "root"));
        if (j->api) {
                api_stream_line(j->api, line, true);
                api_stream_end(j->api);
        } else
                json_decref(line);
        run_job_free(j);
}

/* ---- Undo ------------------------------------------------------------------------------------------------------ */

static void on_undone(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        RunJob *j = userdata;

        if (err && status != 404)
                log_error("cannot remove container %.12s of the failed run of %s, trying again later: %s",
                        j->container_id, j->spec.node, tb_error_message(err));
        else
                finished(j);
        run_call_end(j);
        run_go(j, RUN_UNDO_NETWORKS);
}

/* Failures while undoing are logged and do not stop it: `run_call` would come back here. */
static void step_undo_container(RunJob *j)
{
        _cleanup_error_ TbError *err = NULL;
        char path[160];

        j->augment = job_waiter_free(j->augment);
        j->network = network_job_free(j->network);
        run_call_end(j);
        if (j->container_id[0] == 0) {
                run_go(j, RUN_UNDO_NETWORKS);
                return;
        }
        (void) snprintf(path, sizeof(path), "/containers/%s?force=1&v=1", j->container_id);
        if (tb_engine_call(j->manager->engine,
                    &(TbEngineCall){.method = "DELETE", .path = path, .done = on_undone, .userdata = j},
                    &j->call, &err) < 0) {
                log_error("cannot remove container %.12s of a failed run: %s", j->container_id,
                        tb_error_message(err));
                run_go(j, RUN_UNDO_NETWORKS);
        }
}

static void on_networks_cleaned(const char *made_id, const TbError *err, void *userdata)
{
        RunJob *j = userdata;

        j->network = NULL;
        if (err)
                log_error("cannot remove the networks of the failed run of %s: %s", j->spec.node,
                        tb_error_message(err));
        run_go(j, RUN_UNDO_END);
}

static void step_undo_networks(RunJob *j)
{
        _cleanup_error_ TbError *err = NULL;

        if (!j->networks_made) {
                run_go(j, RUN_UNDO_END);
                return;
        }
        if (network_remove_unused(j->manager, on_networks_cleaned, j, &j->network, &err) < 0) {
                log_error("cannot remove the networks of a failed run: %s", tb_error_message(err));
                run_go(j, RUN_UNDO_END);
        }
}

static void step_undo_end(RunJob *j)
{
        _cleanup_free_ char *dir = node_dir_path(j->manager, j->spec.container);
        _cleanup_error_ TbError *err = NULL;
        Manager *m = j->manager;
        bool unfinished;

        if (j->dir_made && dir && tb_rm_rf(dir, &err) < 0)
                log_error("cannot remove %s: %s", dir, tb_error_message(err));
        (void) node_client_prepare(
                j->manager, j->dir_made ? j->spec.container : j->container_id, NULL, NULL);
        log_message(LOG_WARNING, MESSAGE_RUN_FAILED, "run of %s failed: %s", j->spec.node,
                tb_error_message(j->error));
        if (j->api) {
                api_stream_line(j->api,
                        json_pack("{s:s, s:o}", "event", "error", "error", api_error_to_json(j->error)),
                        true);
                api_stream_end(j->api);
        }
        unfinished = j->number[0];
        run_job_free(j);
        if (unfinished)
                run_sweep(m); /* what the engine was asked for may have happened meanwhile */
}

static void (*const steps[_RUN_STEP_MAX])(RunJob *j) = {
        [RUN_AUGMENT] = run_step_augment,
        [RUN_WAIT] = step_wait,
        [RUN_IMAGE] = run_step_image,
        [RUN_PULL] = run_step_pull,
        [RUN_INSPECT] = run_step_image,
        [RUN_NAME] = run_step_name,
        [RUN_NETWORKS] = run_step_networks,
        [RUN_DIRECTORY] = run_step_directory,
        [RUN_CREATE] = run_step_create,
        [RUN_CONNECT] = run_step_connect,
        [RUN_START] = run_step_start,
        [RUN_CONFIGURE] = run_step_configure,
        [RUN_DONE] = step_done,
        [RUN_UNDO_CONTAINER] = step_undo_container,
        [RUN_UNDO_NETWORKS] = step_undo_networks,
        [RUN_UNDO_END] = step_undo_end,
};

static void run_step(RunJob *j)
{
        log_debug("run %s: %s", j->spec.node, step_names[j->step]);
        steps[j->step](j); /* may free j */
}

/* ---- Start ----------------------------------------------------------------------------------------------------- */

static void on_gone(ApiRequest *r, void *userdata)
{
        RunJob *j = userdata;
        TbError *err = NULL;

        j->api = NULL;
        if (j->step == RUN_DONE)
                return;
        (void) tb_error_set(&err, TB_ERROR_CANCELLED, -ECANCELED, "the client went away");
        run_fail_take(j, err);
}

int run_job_start(ApiRequest *r, RunSpec *spec, TbError **err)
{
        Manager *m = api_request_manager(r);
        size_t running = 0;
        RunJob *j;

        if (!docker_events_is_connected(m->docker)) {
                const TbError *e = docker_events_error(m->docker);

                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTCONN, "%s",
                        e ? tb_error_message(e)
                          : "there is no connection to the Docker engine yet; try again");
        }
        for (j = m->runs; j; j = j->next) {
                running++;
                if (tb_streq(j->spec.container, spec->container))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EEXIST,
                                "a node named '%s' is being made already", spec->container);
        }
        if (running >= RUNS_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -EAGAIN,
                        "%u nodes are being made; try again later", RUNS_MAX);
        j = calloc(1, sizeof(*j));
        if (!j)
                return tb_error_oom(err);
        j->manager = m;
        j->api = r;
        j->uid = api_request_uid(r);
        j->spec = *spec;
        *spec = (RunSpec){};
        j->started_us = tb_now_us();
        j->next = m->runs;
        m->runs = j;
        api_stream_start(r);
        api_request_on_gone(r, on_gone, j);
        run_go(j, RUN_AUGMENT);
        return 0;
}

bool run_uses_network(const Manager *m, const char *name)
{
        for (const RunJob *j = m->runs; j; j = j->next)
                if (!j->error && tb_strv_contains(j->spec.networks, name))
                        return true;
        return false;
}

bool run_is_making(const Manager *m, const char *id)
{
        for (const RunJob *j = m->runs; j; j = j->next)
                if (tb_streq(j->container_id, id))
                        return true;
        return false;
}

bool run_uses_dir(const Manager *m, const char *key)
{
        for (const RunJob *j = m->runs; j; j = j->next)
                if (j->dir_made && tb_streq(j->spec.container, key))
                        return true;
        return false;
}

int run_images_in_use(const Manager *m, const char *prefix, json_t *used, TbError **err)
{
        for (const RunJob *j = m->runs; j; j = j->next) {
                const char *key = j->image ? tb_startswith(j->image, prefix) : NULL;

                if (key && !json_object_get(used, key) &&
                        json_object_set_new(used, key, json_pack("[s]", j->spec.container)) < 0)
                        return tb_error_oom(err);
        }
        return 0;
}

bool run_is_under_way(const Manager *m, const char *number)
{
        for (const RunJob *j = m->runs; j; j = j->next)
                if (tb_streq(j->number, number))
                        return true;
        return false;
}

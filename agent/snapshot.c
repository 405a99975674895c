/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "agent/access.h"
#include "agent/augment-job.h"
#include "agent/docker-events.h"
#include "agent/project.h"
#include "agent/snapshot-image.h"
#include "agent/snapshot-internal.h"
#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"

#define SNAPSHOTS_MAX 16U
#define SNAPSHOTS_USER_MAX 4U

static const char *const step_names[_SNAPSHOT_STEP_MAX] = {
        [SNAPSHOT_INSPECT] = "inspect",
        [SNAPSHOT_IMAGE] = "inspect",
        [SNAPSHOT_COMMIT] = "commit",
        [SNAPSHOT_PUSH] = "push",
        [SNAPSHOT_READ] = "configure",
        [SNAPSHOT_CONFIG] = "configure",
        [SNAPSHOT_UPLOAD] = "configure",
        [SNAPSHOT_TAG] = "tag",
        [SNAPSHOT_REMOVE] = "clean",
        [SNAPSHOT_FORGET] = "clean",
        [SNAPSHOT_COVER] = "clean",
        [SNAPSHOT_END] = "end",
};

static void snapshot_step(SnapshotJob *j);

SnapshotJob *snapshot_free(SnapshotJob *j)
{
        if (!j)
                return NULL;
        for (SnapshotJob **p = &j->manager->snapshots; *p; p = &(*p)->next)
                if (*p == j) {
                        *p = j->next;
                        break;
                }
        tb_engine_request_free(j->call);
        registry_op_free(j->op);
        registry_session_unref(j->session);
        sd_event_source_disable_unref(j->next_step);
        sd_event_source_disable_unref(j->timer);
        registry_ref_free(j->target);
        registry_ref_free(j->raw);
        registry_manifest_free(j->manifest);
        json_decref(j->config);
        tb_error_free(j->error);
        free(j->node);
        free(j->default_name);
        free(j->asked_name);
        free(j->asked_project);
        free(j->host);
        free(j->project);
        free(j->raw_name);
        free(j->image_id);
        free(j->committed);
        free(j->config_text);
        free(j->manifest_text);
        free(j);
        return NULL;
}
TB_DEFINE_CLEANUP(SnapshotJob *, snapshot_free)

/* ---- Moving on --------------------------------------------------------------------------------------------------- */

static int on_next_step(sd_event_source *s, void *userdata)
{
        SnapshotJob *j = userdata;

        j->next_step = sd_event_source_disable_unref(j->next_step);
        snapshot_step(j);
        return 0;
}

void snapshot_go(SnapshotJob *j, SnapshotStep step)
{
        j->step = step;
        if (!j->next_step && sd_event_add_defer(j->manager->event, &j->next_step, on_next_step, j) < 0)
                snapshot_step(j); /* no memory for the detour: deeper stack, same work */
}

void snapshot_progress(SnapshotJob *j, const char *text)
{
        if (j->api)
                api_stream_line(j->api,
                        json_pack("{s:s, s:s, s:s*}", "event", "progress", "stage", step_names[j->step],
                                "text", text),
                        false);
}

void snapshot_fail(SnapshotJob *j, TbError *cause)
{
        if (j->error || j->step >= SNAPSHOT_REMOVE) {
                tb_error_free(cause);
                return;
        }
        j->error = cause;
        j->timer = sd_event_source_disable_unref(j->timer);
        j->call = tb_engine_request_free(j->call);
        j->op = registry_op_free(j->op);
        snapshot_go(j, SNAPSHOT_REMOVE);
}

void snapshot_call(SnapshotJob *j, const TbEngineCall *c)
{
        TbEngineCall own = *c;
        TbError *err = NULL;

        own.userdata = j;
        if (tb_engine_call(j->manager->engine, &own, &j->call, &err) < 0)
                snapshot_fail(j, err);
}

static void (*const steps[_SNAPSHOT_STEP_MAX])(SnapshotJob *j) = {
        [SNAPSHOT_INSPECT] = snapshot_step_inspect,
        [SNAPSHOT_IMAGE] = snapshot_step_image,
        [SNAPSHOT_COMMIT] = snapshot_step_commit,
        [SNAPSHOT_PUSH] = snapshot_step_push,
        [SNAPSHOT_READ] = snapshot_step_read,
        [SNAPSHOT_CONFIG] = snapshot_step_config,
        [SNAPSHOT_UPLOAD] = snapshot_step_upload,
        [SNAPSHOT_TAG] = snapshot_step_tag,
        [SNAPSHOT_REMOVE] = snapshot_step_remove,
        [SNAPSHOT_FORGET] = snapshot_step_forget,
        [SNAPSHOT_COVER] = snapshot_step_cover,
        [SNAPSHOT_END] = snapshot_step_end,
};

static void snapshot_step(SnapshotJob *j)
{
        log_debug("snapshot of %s: %s", j->node, step_names[j->step]);
        steps[j->step](j); /* may free j */
}

/* ---- Start ------------------------------------------------------------------------------------------------------- */

static void on_gone(ApiRequest *r, void *userdata)
{
        SnapshotJob *j = userdata;
        TbError *err = NULL;

        j->api = NULL;
        (void) tb_error_set(&err, TB_ERROR_CANCELLED, -ECANCELED, "the client went away");
        if (j->step == SNAPSHOT_COMMIT && j->call && !j->error)
                j->error = err; /* the engine goes on anyway: on_committed() */
        else
                snapshot_fail(j, err);
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        SnapshotJob *j = userdata;
        TbError *err = NULL;

        (void) tb_error_set(&err, TB_ERROR_REMOTE, -ETIMEDOUT,
                "the snapshot of node %s was not ready within %lu s (augment-timeout); it was at step %s",
                j->node, (unsigned long) (j->manager->config.job_timeout_usec / 1000000),
                step_names[j->step]);
        if (j->error) { /* the commit of one that was called off: it is not waited for any longer */
                tb_error_free(j->error);
                j->error = NULL;
        }
        snapshot_fail(j, err);
        return 0;
}

static int check_room(const Manager *m, const Node *n, uid_t uid, TbError **err)
{
        unsigned all = 0, own = 0;

        for (const SnapshotJob *j = m->snapshots; j; j = j->next) {
                all++;
                own += j->uid == uid;
                if (tb_streq(j->container_id, n->id))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EBUSY,
                                "a snapshot of node %s is being made already; wait for that", j->node);
        }
        if (all < SNAPSHOTS_MAX && own < SNAPSHOTS_USER_MAX)
                return 0;
        return tb_error_set(err, TB_ERROR_RESOURCE, -EAGAIN,
                "%u snapshots are being made, %u of them yours (at most %u and %u); try again later", all,
                own, SNAPSHOTS_MAX, SNAPSHOTS_USER_MAX);
}

static int check_project(const char *project, uid_t uid, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(project, 64);

        if (strchr(project, '/'))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "'%s' is no name of a project", shown ?: "");
        return project_may_act(uid, project)
                ? 0
                : tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                          "you are not in project '%s': only root and members of the group of that name "
                          "may act for it",
                          shown ?: "");
}

/* Before anything is made, also whether the name is one. */
static int check_name(const char *host, const char *name, const char *project, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;

        return snapshot_name_make(host, project ?: "project", name, &ref, err);
}

static int prepare(SnapshotJob *j, const Node *n, const SnapshotSpec *spec, TbError **err)
{
        unsigned char random[16];
        bool plain;
        int r;

        memcpy(j->container_id, n->id, sizeof(j->container_id));
        j->owner = access_owner(n);
        j->pause = spec->pause;
        j->node = strdup(node_display_name(n));
        j->default_name = snapshot_name_default(n->labels.experiment, node_display_name(n));
        if (!j->node || !j->default_name || (spec->name && !(j->asked_name = strdup(spec->name))) ||
                (spec->project && !(j->asked_project = strdup(spec->project))))
                return tb_error_oom(err);
        r = augment_registry_parse(j->manager->config.registry, &j->host, &plain, err);
        if (r >= 0 && spec->project)
                r = check_project(spec->project, j->uid, err);
        if (r >= 0)
                r = check_name(j->host, j->asked_name ?: j->default_name, spec->project, err);
        if (r >= 0)
                r = job_queue_session(j->manager->jobs, &j->session, err);
        if (r < 0)
                return r;
        if (getrandom(random, sizeof(random), 0) != (ssize_t) sizeof(random))
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot get random bytes");
        for (size_t i = 0; i < sizeof(random); i++)
                (void) snprintf(j->label + 2 * i, 3, "%02x", random[i]);
        r = sd_event_add_time_relative(j->manager->event, &j->timer, CLOCK_MONOTONIC,
                j->manager->config.job_timeout_usec, 0, on_timeout, j);
        return r < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot start a timer") : 0;
}

int snapshot_start(ApiRequest *r, const Node *n, const SnapshotSpec *spec, TbError **err)
{
        _cleanup_(snapshot_freep) SnapshotJob *j = NULL;
        Manager *m = api_request_manager(r);
        int k;

        if (!docker_events_is_connected(m->docker)) {
                const TbError *e = docker_events_error(m->docker);

                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTCONN, "%s",
                        e ? tb_error_message(e)
                          : "there is no connection to the Docker engine yet; try again");
        }
        k = check_room(m, n, api_request_uid(r), err);
        if (k < 0)
                return k;
        j = calloc(1, sizeof(*j));
        if (!j)
                return tb_error_oom(err);
        j->manager = m;
        j->uid = api_request_uid(r);
        j->started_us = tb_now_us();
        k = prepare(j, n, spec, err);
        if (k < 0)
                return k;
        j->api = r;
        j->next = m->snapshots;
        m->snapshots = j;
        api_stream_start(r);
        api_request_on_gone(r, on_gone, j);
        snapshot_go(j, SNAPSHOT_INSPECT);
        j = NULL;
        return 0;
}

bool snapshot_is_running(const Manager *m, const char *label)
{
        for (const SnapshotJob *j = m->snapshots; j; j = j->next)
                if (tb_streq(j->label, label))
                        return true;
        return false;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is done for an image that is not there yet: the worker, and the engine's build of what it mirrored. */

#include <stdlib.h>

#include "agent/augment-job-internal.h"
#include "agent/transfer-dir.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"

static void job_progress(Job *j, const json_t *line)
{
        if (line)
                for (JobWaiter *w = j->waiters; w; w = w->next)
                        if (w->callbacks.progress)
                                w->callbacks.progress(line, w->callbacks.userdata);
}

static void on_worker_progress(Worker *w, const AugmentProgress *p, void *userdata)
{
        _cleanup_json_ json_t *line = json_pack("{s:s, s:s, s:s*, s:I, s:I}", "event", "progress", "stage",
                p->stage, "blob", p->blob, "done", (json_int_t) p->done, "total", (json_int_t) p->total);

        job_progress(userdata, line);
}

static void on_build_progress(AugmentDockerBuild *b, const char *text, void *userdata)
{
        _cleanup_free_ char *shown = tb_escape(text, 200);
        _cleanup_json_ json_t *line =
                json_pack("{s:s, s:s, s:s*}", "event", "progress", "stage", "build", "text", shown);

        job_progress(userdata, line);
}

static void on_build_done(
        AugmentDockerBuild *b, const AugmentResult *result, const TbError *err, void *userdata)
{
        job_finish(userdata, result, err);
}

static void on_worker_done(Worker *w, const AugmentResult *result, const TbError *err, void *userdata)
{
        Job *j = userdata;
        _cleanup_error_ TbError *failed = NULL;

        if (!err && result->report) {
                (void) tb_error_set(
                        &failed, TB_ERROR_BUG, -EBADMSG, "the worker answered what it was not asked");
                err = failed;
        }
        if (err || j->op != AUGMENT_OP_AUGMENT || j->request.builder != AUGMENT_BUILDER_DOCKER) {
                job_finish(j, result, err);
                return;
        }
        j->state = JOB_BUILDING;
        if (augment_docker_build_start(j->queue->manager->engine,
                    &(AugmentDockerBuildOptions){
                            .request = &j->request,
                            .mirrored = result,
                            .registry = registry_session_client(j->session),
                            .progress = on_build_progress,
                            .done = on_build_done,
                            .userdata = j,
                    },
                    &j->build, &failed) < 0) {
                job_finish(j, NULL, failed);
                return;
        }
        worker_pool_return(j->queue->workers, TAKE_PTR(j->worker));
}

/* Without one, a download that breaks off begins anew; that is no reason not to try. */
static void make_transfer_dir(Job *j, const RegistryRef *source)
{
        const Config *c = &j->queue->manager->config;
        _cleanup_free_ char *name = registry_ref_name(source);
        _cleanup_error_ TbError *err = NULL;
        uid_t uid;
        gid_t gid;

        if (!name || worker_user(c->worker_user, &uid, &gid, &err) < 0 ||
                transfer_dir_make(c->state_dir, j->request.project, name, uid, gid, &j->transfer_dir, &err) <
                        0)
                log_debug("augmentation of %s keeps nothing of a broken-off download: %s", j->request.image,
                        err ? tb_error_message(err) : "no memory");
}

/* As the worker gets it: it finds the credentials elsewhere than we do. */
static int worker_request(const Job *j, bool credentials, char **ret, TbError **err)
{
        AugmentRequest request = j->request; /* borrowed contents */
        AugmentOp op = j->op;

        if (op == AUGMENT_OP_AUGMENT && request.builder == AUGMENT_BUILDER_DOCKER)
                op = AUGMENT_OP_MIRROR;
        request.docker_config = credentials ? (char *) WORKER_DOCKER_CONFIG : NULL;
        request.state_dir = j->transfer_dir;
        return augment_request_to_json(&request, op, ret, err);
}

static void on_credentials(JobCredentials *c, const char *config, void *userdata)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *text = NULL;
        Job *j = userdata;
        int r;

        r = worker_request(j, config, &text, &err);
        if (r >= 0)
                r = worker_pool_start(j->queue->workers,
                        &(WorkerJob){
                                .docker_config = config,
                                .progress = on_worker_progress,
                                .done = on_worker_done,
                                .userdata = j,
                        },
                        text, &j->worker, &err);
        if (r < 0)
                job_finish(j, NULL, err);
}

void job_work(Job *j)
{
        _cleanup_(registry_ref_freep) RegistryRef *source = NULL;
        _cleanup_free_ char *registry = NULL;
        _cleanup_error_ TbError *err = NULL;
        bool plain;
        int r;

        j->state = JOB_WORKING;
        if ((r = registry_ref_parse(j->request.image, &source, &err)) >= 0)
                r = augment_registry_parse(j->request.registry, &registry, &plain, &err);
        /* What lies in the testbed's registry already isn't copied. */
        if (r >= 0 && j->op != AUGMENT_OP_DOCKERFILE && !tb_streq(source->host, registry))
                make_transfer_dir(j, source);
        if (r < 0 ||
                job_credentials_start(registry_session_client(j->session), source->host, registry,
                        on_credentials, j, &j->credentials, &err) < 0)
                job_finish(j, NULL, err);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/augment-job-internal.h"
#include "agent/project.h"
#include "agent/transfer-dir.h"
#include "agent/usage.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "registry-client/registry.h"

#define WAITERS_MAX 1024U
#define JOBS_QUEUED_MAX 256U
#define ROOT_DOCKER_CONFIG "/root/.docker/config.json"

static void job_step(Job *j);
static bool job_can_step(const Job *j);
static void queue_pump(JobQueue *q);

/* ---- Queue ----------------------------------------------------------------------------------------------------- */

static void on_worker_gone(void *userdata)
{
        queue_pump(userdata);
}

int job_queue_new(Manager *m, JobQueue **ret, TbError **err)
{
        const Config *c = &m->config;
        JobQueue *q = calloc(1, sizeof(*q));
        int r;

        if (!q)
                return tb_error_oom(err);
        q->manager = m;
        r = worker_pool_new(m->event,
                &(WorkerProcessOptions){
                        .path = augment_worker_path(),
                        .user = c->worker_user,
                        .memory = c->job_memory,
                        .cpu_sec = c->job_timeout_usec / 1000000 + 1,
                },
                c->job_timeout_usec, &q->workers, err);
        if (r >= 0)
                r = augment_known_new(&q->known, err);
        if (r < 0) {
                worker_pool_free(q->workers);
                free(q);
                return r;
        }
        worker_pool_on_gone(q->workers, on_worker_gone, q);
        transfer_dirs_sweep(c->state_dir);
        *ret = q;
        return 0;
}

/* When this job is the last one that uses it. */
static void release_transfer_dir(Job *j)
{
        for (const Job *i = j->queue->jobs; i; i = i->next)
                if (i != j && j->transfer_dir && tb_streq(i->transfer_dir, j->transfer_dir))
                        return;
        transfer_dir_release(j->transfer_dir);
}

static void job_free(Job *j)
{
        for (Job **p = &j->queue->jobs; *p; p = &(*p)->next)
                if (*p == j) {
                        *p = j->next;
                        break;
                }
        while (j->waiters) {
                JobWaiter *w = j->waiters;

                j->waiters = w->next;
                free(w);
        }
        augment_lookup_free(j->lookup);
        job_credentials_free(j->credentials);
        worker_pool_return(j->queue->workers, j->worker);
        augment_docker_build_free(j->build);
        sd_event_source_disable_unref(j->later);
        registry_session_unref(j->session);
        release_transfer_dir(j);
        free(j->transfer_dir);
        augment_request_done(&j->request);
        if (j->text)
                explicit_bzero(j->text, strlen(j->text)); /* the caller's credentials may be in it */
        free(j->text);
        free(j->key);
        free(j);
}

JobQueue *job_queue_free(JobQueue *q)
{
        if (!q)
                return NULL;
        sd_event_source_disable_unref(q->pump);
        while (q->jobs)
                job_free(q->jobs);
        worker_pool_free(q->workers);
        augment_known_free(q->known);
        registry_session_unref(q->session);
        free(q);
        return NULL;
}

static size_t queue_count(const JobQueue *q, bool running_only)
{
        size_t n = 0;

        for (const Job *j = q->jobs; j; j = j->next)
                if (!running_only || j->state == JOB_WORKING || j->state == JOB_BUILDING)
                        n++;
        return n;
}

size_t job_queue_running(const JobQueue *q)
{
        return queue_count(q, false);
}

/* With credentials a registry may allow more than without: both are told. */
json_t *job_queue_rate_limits(const JobQueue *q)
{
        _cleanup_json_ json_t *all = json_array();

        if (all && q->session &&
                (registry_session_add_rate_limits(all, registry_session_client(q->session)) < 0 ||
                        registry_session_add_rate_limits(all, registry_session_anonymous(q->session)) < 0))
                return NULL;
        return TAKE_PTR(all);
}

static size_t running_of(const JobQueue *q, const char *project)
{
        size_t n = 0;

        for (const Job *j = q->jobs; j; j = j->next)
                if ((j->state == JOB_WORKING || j->state == JOB_BUILDING) &&
                        tb_streq(j->request.project, project))
                        n++;
        return n;
}

/* The oldest one of the project that has the fewest under way: nobody waits for all that somebody else asked for. */
static Job *next_job(const JobQueue *q)
{
        size_t fewest = SIZE_MAX;
        Job *next = NULL;

        for (Job *j = q->jobs; j; j = j->next) {
                size_t n = job_can_step(j) ? running_of(q, j->request.project) : SIZE_MAX;

                if (n < fewest) {
                        fewest = n;
                        next = j;
                }
        }
        return next;
}

static bool queue_is_idle(const JobQueue *q)
{
        for (const Job *j = q->jobs; j; j = j->next)
                if (j->state != JOB_QUEUED && j->state != JOB_WAITING)
                        return false;
        return true;
}

/* One job per turn: a step may end the job, and others with it. */
static int on_pump(sd_event_source *s, void *userdata)
{
        JobQueue *q = userdata;
        Job *next = next_job(q);
        void (*idle)(void *) = q->held && queue_is_idle(q) ? q->idle : NULL;

        if (idle) {
                q->idle = NULL;
                idle(q->idle_userdata);
        } else if (next)
                job_step(next);
        else
                (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        return 0;
}

/* Whoever waits for a turn or for another job looks again, soon. */
static void queue_pump(JobQueue *q)
{
        int r;

        if (!q->pump)
                r = sd_event_add_defer(q->manager->event, &q->pump, on_pump, q);
        else
                r = 0;
        if (r >= 0)
                r = sd_event_source_set_enabled(q->pump, SD_EVENT_ON);
        if (r < 0)
                log_error("cannot go on with waiting augmentations: %s", strerror(-r));
}

/* ---- One job --------------------------------------------------------------------------------------------------- */

static void job_count(AugmentStats *s, const AugmentResult *result)
{
        if (!result) {
                s->failures++;
                return;
        }
        if (result->cache_hit)
                s->hits++;
        else
                s->misses++;
        s->downloaded += result->bytes.downloaded;
        s->uploaded += result->bytes.uploaded;
        s->mounted += result->bytes.mounted;
}

void job_finish(Job *j, const AugmentResult *result, const TbError *err)
{
        JobQueue *q = j->queue;
        bool worked = j->worker || j->build, failed = err;

        j->finishing = true; /* nobody joins, and a waiter that leaves now frees nothing */
        if (j->op == AUGMENT_OP_AUGMENT)
                job_count(&q->manager->stats.augment, err ? NULL : result);
        if (err)
                log_debug("augmentation of %s failed: %s", j->request.image, tb_error_message(err));
        else if (j->op == AUGMENT_OP_AUGMENT) {
                usage_note(q->manager->usage, result->image, result->digest.text);
                usage_note(q->manager->usage, result->base, result->base_digest.text);
                if (!result->cache_hit) /* else it does not tell who made it */
                        augment_known_note_image(q->known, &result->digest,
                                &(KnownImage){.level = result->level, .builder = result->builder});
        }
        while (j->waiters) {
                JobWaiter *w = j->waiters;

                j->waiters = w->next;
                w->callbacks.done(result, err, w->callbacks.userdata);
                free(w);
        }
        job_free(j);
        queue_pump(q);
        if (!worked)
                return;
        if (failed)
                transfer_dirs_sweep(q->manager->config.state_dir);
        worker_pool_refill(q->workers);
}

static Job *same_key_working(const Job *j)
{
        for (Job *i = j->queue->jobs; i; i = i->next)
                if (i != j && j->key && (i->state == JOB_WORKING || i->state == JOB_BUILDING) && i->key &&
                        tb_streq(i->key, j->key))
                        return i;
        return NULL;
}

static void on_lookup_done(AugmentLookup *l, const TbError *err, void *userdata)
{
        Job *j = userdata;
        _cleanup_error_ TbError *failed = NULL;
        const AugmentResult *result;

        if (err) {
                job_finish(j, NULL, err);
                return;
        }
        result = augment_lookup_result(l);
        if (result->private)
                registry_session_note_private(j->session, j->request.image);
        if (augment_lookup_is_hit(l) && !j->request.update && j->op == AUGMENT_OP_AUGMENT) {
                job_finish(j, result, NULL);
                return;
        }
        free(j->key);
        /* Whoever builds it: a key has one image. */
        j->key = tb_asprintf("%s/%s", result->project ?: "", result->key_tag ?: "");
        /* The worker takes exactly what was looked up, whatever the tag means by then. */
        if (j->key ? augment_lookup_resolve(l, &j->request, &failed) < 0 : tb_error_oom(&failed) < 0) {
                job_finish(j, NULL, failed);
                return;
        }
        j->lookup = augment_lookup_free(j->lookup);
        j->state = JOB_QUEUED;
        queue_pump(j->queue);
}

static void job_lookup(Job *j)
{
        _cleanup_error_ TbError *err = NULL;

        j->state = JOB_LOOKUP;
        j->request.resolved = (TbDigest){};
        j->request.kind = AUGMENT_SOURCE_UNKNOWN;
        j->request.private = registry_session_is_private(j->session, j->request.image);
        if (augment_lookup_start(registry_session_client(j->session), registry_session_anonymous(j->session),
                    &j->request, j->queue->known, on_lookup_done, j, &j->lookup, &err) < 0)
                job_finish(j, NULL, err);
}

static bool job_can_step(const Job *j)
{
        const JobQueue *q = j->queue;

        if (q->held)
                return false;
        if (j->state == JOB_WAITING)
                return !same_key_working(j);
        return j->state == JOB_QUEUED &&
                ((j->key && same_key_working(j)) ||
                        queue_count(q, true) + worker_pool_leaving(q->workers) <
                                q->manager->config.jobs_max);
}

/* Only when job_can_step(). */
static void job_step(Job *j)
{
        if (j->state == JOB_WAITING)
                job_lookup(j);
        else if (j->key && same_key_working(j))
                j->state = JOB_WAITING;
        else
                job_work(j);
}

/* ---- Submitting ------------------------------------------------------------------------------------------------ */

static int request_complete(JobQueue *q, AugmentRequest *r, TbError **err)
{
        const Config *c = &q->manager->config;
        const char *config = c->docker_config;

        if (!config && access(ROOT_DOCKER_CONFIG, R_OK) >= 0)
                config = ROOT_DOCKER_CONFIG;
        free(r->registry);
        r->registry = strdup(c->registry);
        free(r->docker_config);
        r->docker_config = config ? strdup(config) : NULL;
        if (!r->registry || (config && !r->docker_config))
                return tb_error_oom(err);
        return augment_request_check(r, err);
}

static int on_later(sd_event_source *s, void *userdata)
{
        Job *j = userdata;

        j->later = sd_event_source_disable_unref(j->later);
        if (j->queue->held) {
                j->state = JOB_WAITING;
                queue_pump(j->queue);
        } else
                job_lookup(j);
        return 0;
}

static int job_new(
        JobQueue *q, AugmentRequest *request, AugmentOp op, const char *text, Job **ret, TbError **err)
{
        Job *j, **end = &q->jobs;
        int r;

        if (queue_count(q, false) >= JOBS_QUEUED_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -EAGAIN,
                        "%u augmentations are waiting already; try again later", JOBS_QUEUED_MAX);
        j = calloc(1, sizeof(*j));
        if (!j)
                return tb_error_oom(err);
        j->queue = q;
        j->op = op;
        j->state = JOB_LOOKUP;
        while (*end)
                end = &(*end)->next;
        *end = j;
        j->text = strdup(text);
        r = j->text ? registry_session_get(q->manager, &q->session, request, &j->session, err)
                    : tb_error_oom(err);
        if (r >= 0) {
                /* Callbacks come from the loop only, so the first step is taken there, too. */
                r = sd_event_add_defer(q->manager->event, &j->later, on_later, j);
                if (r < 0)
                        r = tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot start an augmentation");
        }
        if (r < 0) {
                job_free(j);
                return r;
        }
        j->request = *request;
        *request = (AugmentRequest){};
        *ret = j;
        return 0;
}

int job_submit(JobQueue *q, uid_t uid, AugmentRequest *request, AugmentOp op, const JobCallbacks *callbacks,
        JobWaiter **ret, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        JobWaiter *w;
        Job *j;
        int r;

        r = request_complete(q, request, err);
        if (r >= 0)
                r = project_check(request, uid, err);
        if (r >= 0)
                r = augment_request_to_json(request, op, &text, err);
        if (r < 0)
                return r;
        for (j = q->jobs; j; j = j->next)
                if (!j->finishing && tb_streq(j->text, text))
                        break;
        if (j && j->n_waiters >= WAITERS_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -EAGAIN,
                        "%u requests wait for this image already; try again later", WAITERS_MAX);
        w = calloc(1, sizeof(*w));
        if (!w)
                return tb_error_oom(err);
        if (!j) {
                r = job_new(q, request, op, text, &j, err);
                if (r < 0) {
                        free(w);
                        return r;
                }
        }
        *w = (JobWaiter){.job = j, .next = j->waiters, .callbacks = *callbacks};
        j->waiters = w;
        j->n_waiters++;
        *ret = w;
        return 0;
}

JobWaiter *job_waiter_free(JobWaiter *w)
{
        Job *j;

        if (!w)
                return NULL;
        j = w->job;
        for (JobWaiter **p = &j->waiters; *p; p = &(*p)->next)
                if (*p == w) {
                        *p = w->next;
                        break;
                }
        j->n_waiters--;
        free(w);
        if (j->waiters || j->finishing)
                return NULL;
        if (j->state == JOB_BUILDING)
                augment_docker_build_cancel(j->build); /* cleans up in the engine, then ends the job */
        else {
                JobQueue *q = j->queue;

                job_free(j);
                queue_pump(q);
        }
        return NULL;
}

/* ---- For those who look after the images ------------------------------------------------------------------------- */

int job_queue_own_request(JobQueue *q, AugmentRequest *ret, TbError **err)
{
        ret->image = strdup("tbnode/images"); /* is not looked at; the check wants one */
        return ret->image ? request_complete(q, ret, err) : tb_error_oom(err);
}

int job_queue_session(JobQueue *q, RegistrySession **ret, TbError **err)
{
        _cleanup_augment_request_ AugmentRequest request = {};
        int r = job_queue_own_request(q, &request, err);

        return r < 0 ? r : registry_session_get(q->manager, &q->session, &request, ret, err);
}

WorkerPool *job_queue_workers(JobQueue *q)
{
        return q->workers;
}

int job_queue_hold(JobQueue *q, void (*idle)(void *userdata), void *userdata, TbError **err)
{
        if (q->held)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EBUSY, "images are being removed already; wait for that");
        q->held = true;
        q->idle = idle;
        q->idle_userdata = userdata;
        queue_pump(q);
        return 0;
}

void job_queue_release(JobQueue *q)
{
        q->held = false;
        q->idle = NULL;
        queue_pump(q);
}

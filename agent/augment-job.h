/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/manager.h"
#include "agent/registry-session.h"
#include "agent/worker-pool.h"
#include "augment/augment.h"
#include "common/error.h"

/*
 * Augmentation requests inside the agent
 *
 *     LOOKUP -> (hit) DONE
 *            -> (miss) QUEUED -> WORKING -> [BUILDING] -> DONE
 *            -> (miss, and another job makes the same image) WAITING -> LOOKUP again, which is a hit then
 *
 * A request for exactly the same thing joins the job that is under way. Everything that reads what a registry sent
 * happens in the worker: a process of its own, as an unprivileged user, with limits on memory, files, descriptors, CPU
 * time and wall time, which dies with the agent. With the docker builder the worker only mirrors; the engine builds.
 */

typedef struct JobWaiter JobWaiter;

typedef struct JobCallbacks {
        /* {"event":"progress",...}; borrowed. May be NULL. */
        void (*progress)(const json_t *line, void *userdata);
        /* The end; both borrowed. err == NULL: result is complete. The waiter is freed afterwards by the queue. */
        void (*done)(const AugmentResult *result, const TbError *err, void *userdata);
        void *userdata;
} JobCallbacks;

int job_queue_new(Manager *m, JobQueue **ret, TbError **err) _warn_unused_;
JobQueue *job_queue_free(JobQueue *q);

/* In the name of `uid`, who must be allowed what is asked for (agent/project.h). Fills the request's registry, credentials and defaults in from the configuration, and checks it. Takes its content.
 * The callbacks come from the loop only. */
int job_submit(JobQueue *q, uid_t uid, AugmentRequest *request, AugmentOp op, const JobCallbacks *callbacks,
        JobWaiter **ret, TbError **err) _warn_unused_;
/* Forgets the waiter; a job that nobody waits for is cancelled. */
JobWaiter *job_waiter_free(JobWaiter *w);

/* A session with the agent's own credentials; the caller unrefs it. */
int job_queue_session(JobQueue *q, RegistrySession **ret, TbError **err) _warn_unused_;
/* A request about no image in particular, for agent/inventory-job.h: with the agent's own registry and credentials. */
int job_queue_own_request(JobQueue *q, AugmentRequest *ret, TbError **err) _warn_unused_;
WorkerPool *job_queue_workers(JobQueue *q);
/* Nothing new is begun from now on, also no lookup; `idle` is called, from the loop, when what was under way has ended. One
 * holder at a time: -EBUSY. */
int job_queue_hold(JobQueue *q, void (*idle)(void *userdata), void *userdata, TbError **err) _warn_unused_;
void job_queue_release(JobQueue *q);

/* Jobs under way, for `tbnode status`. */
size_t job_queue_running(const JobQueue *q);
/* What registries told the lookups about their limits (Docker Hub's pulls): an array, newest knowledge; NULL = no memory. */
json_t *job_queue_rate_limits(const JobQueue *q);

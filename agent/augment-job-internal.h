/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/augment-job.h"
#include "agent/job-credentials.h"
#include "augment/build-docker.h"
#include "augment/cache.h"
#include "augment/known.h"

/* Between augment-job.c (the queue, a job from its lookup to its end) and augment-job-work.c (what is done for a miss). */

typedef enum JobState {
        JOB_LOOKUP,   /* the registries are asked whether it is there already */
        JOB_WAITING,  /* another job makes the same image: look again when that one is done */
        JOB_QUEUED,   /* waits for its turn */
        JOB_WORKING,  /* the worker runs */
        JOB_BUILDING, /* the engine builds */
} JobState;

typedef struct Job Job;

struct JobWaiter {
        Job *job;
        JobWaiter *next;
        JobCallbacks callbacks;
};

struct Job {
        JobQueue *queue;
        Job *next;
        JobState state;
        AugmentRequest request;
        AugmentOp op;
        char *text; /* the request as JSON: equal texts are the same job */
        char *key;  /* "<project>/<key tag>" once the lookup gave it */
        JobWaiter *waiters;
        size_t n_waiters;
        RegistrySession *session;
        AugmentLookup *lookup;
        JobCredentials *credentials; /* for the worker */
        Worker *worker;
        AugmentDockerBuild *build;
        char *transfer_dir; /* of the worker; others may use the same */
        sd_event_source *later;
        bool finishing;
};

struct JobQueue {
        Manager *manager;
        Job *jobs; /* oldest first */
        RegistrySession *session;
        WorkerPool *workers;
        AugmentKnown *known;
        sd_event_source *pump;
        bool held;
        void (*idle)(void *userdata); /* the holder waits for this call; NULL = it was made */
        void *idle_userdata;
};

/* Tells all who wait; frees the job. Both borrowed. */
void job_finish(Job *j, const AugmentResult *result, const TbError *err);
/* Begins with the work: credentials, worker, the engine's build. It ends with job_finish(). */
void job_work(Job *j);

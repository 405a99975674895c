/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/worker-process.h"
#include "augment/augment.h"
#include "common/error.h"

/*
 * One run of tbnode-augment-worker (augment/augment.h says how it talks): started unprivileged, fed one line, read
 * line by line, killed when it is freed, when it takes too long, and when the agent dies.
 *
 * It does one job and ends: nothing of one image is left in memory when the next one comes. As a process takes longer to
 * start than a small augmentation takes, it may be started before there is a job for it (worker-pool.h).
 */

typedef struct Worker Worker;

typedef struct WorkerJob {
        const char *docker_config; /* the text of one: handed over as an open file; NULL = none */
        void (*progress)(Worker *w, const AugmentProgress *p, void *userdata);
        /* err == NULL: `result` is complete; both borrowed. The process may still be there. The worker may be freed from here. */
        void (*done)(Worker *w, const AugmentResult *result, const TbError *err, void *userdata);
        void *userdata;
} WorkerJob;

/* Starts the process, which waits for its job. `timeout_usec`: of the job. */
int worker_new(sd_event *event, const WorkerProcessOptions *options, uint64_t timeout_usec, Worker **ret,
        TbError **err) _warn_unused_;
/* `request`: one line of JSON. Only once; after a failure the worker can only be freed. */
int worker_start(Worker *w, const WorkerJob *job, const char *request, TbError **err) _warn_unused_;
/*
 * After done(), when it gave an answer: the process is left to clean up and go; true = `gone` will be called, from the loop, and
 * frees the worker. False: there is nothing to wait for, free it. One that doesn't go is killed after a while.
 */
bool worker_leave(Worker *w, void (*gone)(Worker *w, void *userdata), void *userdata);
/* It has no job yet, and as far as is known it still runs. */
bool worker_is_waiting(const Worker *w);
Worker *worker_free(Worker *w);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-event.h>

#include "agent/worker.h"
#include "common/error.h"

/*
 * One worker in reserve
 *
 * Starting a worker takes longer than a native augmentation: its libraries have to be linked and made ready. So when jobs
 * come, the next worker is started while nobody waits for it, and is there for the next job. It has seen nothing and does
 * one job only, as every worker. After some minutes without a job it goes: an idle agent has no processes.
 */

typedef struct WorkerPool WorkerPool;

/* The strings of the options must outlive the pool. */
int worker_pool_new(sd_event *event, const WorkerProcessOptions *options, uint64_t timeout_usec,
        WorkerPool **ret, TbError **err) _warn_unused_;
/* Ends the one in reserve and those that are leaving; workers that were handed out are their owners'. */
WorkerPool *worker_pool_free(WorkerPool *p);

/* Gives the job to the worker in reserve, else to a new one. *ret is the caller's. */
int worker_pool_start(WorkerPool *p, const WorkerJob *job, const char *request, Worker **ret, TbError **err)
        _warn_unused_;
/* Takes a worker that was handed out: one that gave its answer ends by itself, any other is killed. NULL does nothing. */
void worker_pool_return(WorkerPool *p, Worker *w);
/* How many of those have not gone yet: they still take what a worker takes. */
size_t worker_pool_leaving(const WorkerPool *p);
/* Called from the loop when one has gone. */
void worker_pool_on_gone(WorkerPool *p, void (*gone)(void *userdata), void *userdata);
/* A job has ended: in the next quiet moment there is a worker in reserve again. */
void worker_pool_refill(WorkerPool *p);

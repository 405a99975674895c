/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "agent/worker-pool.h"
#include "common/cleanup.h"
#include "common/log.h"

#define IDLE_USEC (UINT64_C(300) * 1000000)

/* One that has given its answer, and whose process has not gone yet. */
typedef struct Leaving {
        WorkerPool *pool;
        Worker *worker;
        LIST_ENTRY(Leaving) others;
} Leaving;

struct WorkerPool {
        sd_event *event;
        WorkerProcessOptions options;
        uint64_t timeout_usec;
        Worker *spare;
        sd_event_source *refill; /* when nothing else is to be done */
        sd_event_source *idle;   /* the spare one has waited long enough */
        LIST_HEAD(, Leaving) leaving;
        size_t n_leaving;
        void (*gone)(void *userdata);
        void *gone_userdata;
};

static void leaving_free(Leaving *l)
{
        LIST_REMOVE(l, others);
        worker_free(l->worker);
        free(l);
}

int worker_pool_new(sd_event *event, const WorkerProcessOptions *options, uint64_t timeout_usec,
        WorkerPool **ret, TbError **err)
{
        WorkerPool *p = calloc(1, sizeof(*p));

        if (!p)
                return tb_error_oom(err);
        p->event = event;
        p->options = *options;
        p->timeout_usec = timeout_usec;
        *ret = p;
        return 0;
}

WorkerPool *worker_pool_free(WorkerPool *p)
{
        if (!p)
                return NULL;
        sd_event_source_disable_unref(p->refill);
        sd_event_source_disable_unref(p->idle);
        worker_free(p->spare);
        while (!LIST_EMPTY(&p->leaving))
                leaving_free(LIST_FIRST(&p->leaving));
        free(p);
        return NULL;
}

int worker_pool_start(WorkerPool *p, const WorkerJob *job, const char *request, Worker **ret, TbError **err)
{
        Worker *w = p->spare;
        int r;

        p->spare = NULL;
        p->idle = sd_event_source_disable_unref(p->idle);
        if (w && worker_is_waiting(w)) {
                _cleanup_error_ TbError *e = NULL;

                if (worker_start(w, job, request, &e) >= 0) {
                        *ret = w;
                        return 0;
                }
                log_debug("the worker in reserve can't be used: %s", tb_error_message(e));
        }
        worker_free(w);
        r = worker_new(p->event, &p->options, p->timeout_usec, &w, err);
        if (r < 0)
                return r;
        r = worker_start(w, job, request, err);
        if (r < 0) {
                worker_free(w);
                return r;
        }
        *ret = w;
        return 0;
}

static void on_gone(Worker *w, void *userdata)
{
        Leaving *l = userdata;
        WorkerPool *p = l->pool;

        leaving_free(l);
        p->n_leaving--;
        if (p->gone)
                p->gone(p->gone_userdata);
}

size_t worker_pool_leaving(const WorkerPool *p)
{
        return p->n_leaving;
}

void worker_pool_on_gone(WorkerPool *p, void (*gone)(void *userdata), void *userdata)
{
        p->gone = gone;
        p->gone_userdata = userdata;
}

void worker_pool_return(WorkerPool *p, Worker *w)
{
        Leaving *l = w ? calloc(1, sizeof(*l)) : NULL;

        if (l && worker_leave(w, on_gone, l)) {
                l->pool = p;
                l->worker = w;
                p->n_leaving++;
                LIST_INSERT_HEAD(&p->leaving, l, others);
                return;
        }
        free(l);
        worker_free(w);
}

static int on_idle(sd_event_source *s, uint64_t usec, void *userdata)
{
        WorkerPool *p = userdata;

        p->idle = sd_event_source_disable_unref(p->idle);
        p->spare = worker_free(p->spare);
        return 0;
}

static int on_refill(sd_event_source *s, void *userdata)
{
        WorkerPool *p = userdata;
        _cleanup_error_ TbError *err = NULL;

        p->refill = sd_event_source_disable_unref(p->refill);
        if (!p->spare && worker_new(p->event, &p->options, p->timeout_usec, &p->spare, &err) < 0)
                log_debug("no worker in reserve: %s", tb_error_message(err)); /* the next job will say it */
        sd_event_source_disable_unref(p->idle);
        p->idle = NULL;
        if (p->spare &&
                sd_event_add_time_relative(
                        p->event, &p->idle, CLOCK_MONOTONIC, IDLE_USEC, IDLE_USEC / 10, on_idle, p) < 0)
                p->spare = worker_free(p->spare); /* not for ever */
        return 0;
}

void worker_pool_refill(WorkerPool *p)
{
        if (p->spare && !worker_is_waiting(p->spare))
                p->spare = worker_free(p->spare);
        if (!p->refill && sd_event_add_defer(p->event, &p->refill, on_refill, p) >= 0)
                (void) sd_event_source_set_priority(p->refill, SD_EVENT_PRIORITY_IDLE);
}

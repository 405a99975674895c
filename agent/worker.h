/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "augment/augment.h"
#include "common/error.h"

/*
 * One run of tbnode-augment-worker (augment/augment.h says how it talks): started unprivileged, fed one line, read
 * line by line, killed when it is freed, when it takes too long, and when the agent dies.
 */

typedef struct Worker Worker;

typedef struct WorkerOptions {
        const char *path; /* of the program */
        const char *user; /* NULL = "tbnode-worker" when there is one, else "nobody" */
        const char *
                docker_config; /* handed over as an open file, because the worker may not read it; NULL = none */
        uint64_t memory;
        uint64_t timeout_usec;
        void (*progress)(Worker *w, const AugmentProgress *p, void *userdata);
        /* err == NULL: `result` is complete; both borrowed. The worker may be freed from here. */
        void (*done)(Worker *w, const AugmentResult *result, const TbError *err, void *userdata);
        void *userdata;
} WorkerOptions;

/* Where the worker finds docker_config. */
#define WORKER_DOCKER_CONFIG "/proc/self/fd/3"

/* `request`: one line of JSON. */
int worker_start(sd_event *event, const WorkerOptions *options, const char *request, Worker **ret,
        TbError **err) _warn_unused_;
Worker *worker_free(Worker *w);

/* Can it be run at all (the program is there, the user exists)? For `doctor`. */
int worker_check(const char *path, const char *user, TbError **err) _warn_unused_;

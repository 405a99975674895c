/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/*
 * The process of a worker: started as an unprivileged user without groups and capabilities, with limits on address space,
 * CPU time, file size, descriptors and threads, and an environment of a few variables. It dies with the agent. What it
 * gives up by itself, when it has read what the agent tells it, is in augment/sandbox.h.
 */

typedef struct WorkerProcessOptions {
        const char *path; /* of the program */
        const char *user; /* NULL = "tbnode-worker" when there is one, else "nobody" */
        uint64_t memory;  /* bytes of address space */
        uint64_t cpu_sec;
} WorkerProcessOptions;

/* Where the worker finds the credentials. */
#define WORKER_FD_CONFIG 3
#define WORKER_DOCKER_CONFIG "/proc/self/fd/3"

typedef struct WorkerProcess {
        pid_t pid;
        int in;       /* its standard input */
        int out, err; /* what it says; not blocking */
        int config;   /* a memory file, empty: it is WORKER_DOCKER_CONFIG */
} WorkerProcess;
#define WORKER_PROCESS_INIT ((WorkerProcess){.in = -EBADF, .out = -EBADF, .err = -EBADF, .config = -EBADF})

/* The caller reaps it, and closes what is open. */
int worker_process_start(const WorkerProcessOptions *o, WorkerProcess *ret, TbError **err) _warn_unused_;
/* The descriptors; those that are closed already are -EBADF. */
void worker_process_close(WorkerProcess *p);

/* Can it be run at all (the program is there, the user exists)? For `doctor`. */
int worker_check(const char *path, const char *user, TbError **err) _warn_unused_;
/* Who it runs as. */
int worker_user(const char *name, uid_t *ret_uid, gid_t *ret_gid, TbError **err) _warn_unused_;

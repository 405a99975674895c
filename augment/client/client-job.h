/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Jobs: the startup command and the programs of a node
 *
 * A job runs under a supervisor of its own, a process forked by the client, which starts it, watches it, ends it when its
 * time is over, and writes its outcome into a file; a second one copies the output into a bounded log for as long as anybody writes.
 * Hence nothing is lost when the client ends (sv restart client): the next one finds the supervisors by their pid and start time,
 * and the outcomes in the files. All of it lies in <rundir>/client, which init clears when the container starts.
 *
 *      NAME.job   "PID STARTTIME\n" of the supervisor
 *      NAME.run   "running PID", "exited N", "signaled N", "timeout", "failed REASON"
 *
 * Signals to the supervisor: TERM = end the job (TERM to its process group, after 5 s KILL); USR1 with a number = that signal to
 * the group.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "augment/client/macro.h"

#define JOB_STOP_MS 5000
#define JOB_NAME_MAX 80

typedef enum JobState {
        JOB_NONE, /* never started since the container has */
        JOB_STARTING,
        JOB_RUNNING,
        JOB_EXITED,
        JOB_SIGNALED,
        JOB_TIMEOUT,
        JOB_FAILED,
        _JOB_STATE_MAX,
} JobState;

/* As in the protocol ("running", ...); NULL for JOB_NONE. */
const char *job_state_to_string(JobState s);

typedef struct JobSpec {
        const char *command;    /* for the user's shell -c */
        const char *user;       /* user[:group] by name or number; NULL: root */
        const char *directory;  /* NULL: the user's home, / if that isn't there */
        uint64_t timeout;       /* seconds; 0: none */
        char *const *image_env; /* NULL-terminated: what the image has */
        char *const *declared;  /* NAME=value of the declaration: wins */
        const char *rundir;
        const char *log_path;
        size_t log_max;
} JobSpec;

typedef struct Job {
        char name[JOB_NAME_MAX + 1]; /* of its files: "startup", "program-NAME" */
        JobState state;
        int status; /* exit code or signal */
        pid_t pid;  /* of the job while it runs */
        char reason[256];
        int pidfd;    /* of the supervisor; -1: none runs */
        int ready_fd; /* at its end the .run file is there; -1: it was */
} Job;

/* What the files say; watches a supervisor that is still there. */
void job_load(Job *j, const char *directory, const char *name);
/* Starts it. -EALREADY while it runs. What goes wrong later is in its state. */
int job_start(Job *j, const char *directory, const JobSpec *spec) _warn_unused_;
/* Reads the state again after pidfd or ready_fd became readable; true if it is another one. */
bool job_update(Job *j, const char *directory);
/* -ESRCH if it doesn't run. */
int job_stop(Job *j) _warn_unused_;
int job_kill(Job *j, int signal) _warn_unused_;
void job_done(Job *j);

/* One line of a .run file; false: it isn't one. */
bool job_parse(const char *line, Job *ret);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One runsv per service, as children of init
 *
 * This is what runit's runsvdir does, without its look at the directory every five seconds: a node that has nothing to do
 * doesn't wake up. Services are those that were laid out; a runsv that ends is started again after a second. The service
 * that a killed runsv left behind has become our own child: it is ended first, so that there are never two of it. Only
 * main is let go on: it comes under a new runsv when it has ended.
 */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "augment/client/macro.h"
#include "augment/client/services.h"

typedef struct Supervisor {
        ServiceContext context;    /* handed down to the services */
        uint64_t mask;             /* their signal mask */
        pid_t runsv[_SERVICE_MAX]; /* 0: not running */
        int64_t due[_SERVICE_MAX]; /* when to start it again, in ms of CLOCK_MONOTONIC; 0: not at all */
} Supervisor;

/* Starts a runsv for each service that has been laid out. Negative errno if main's can't be started. */
int supervisor_start(Supervisor *s) _warn_unused_;

/* A child of ours has ended: is it one of these? _SERVICE_INVALID: no. A service other than main is taken care of;
 * what becomes of main is for the caller to say: supervisor_again(). */
Service supervisor_reaped(Supervisor *s, pid_t pid, int64_t now);
/* Starts a service's runsv again, a second from `now`. With `down` it waits for `sv start` before it runs the service. */
void supervisor_again(Supervisor *s, Service service, bool down, int64_t now);

/* When supervisor_dispatch() is due; 0: never. */
int64_t supervisor_due(const Supervisor *s);
void supervisor_dispatch(Supervisor *s, int64_t now);

/* Sends a signal to all children of this process, whoever started them: what is left of a container whose PID 1 is
 * somebody else. They are found in /proc; their own children become ours when they end (we are a subreaper). Returns how
 * many there were. */
size_t children_signal(int signal);
/* Kills and reaps all children, and their children as they become ours, for a second at most. */
void children_kill(void);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The services of a node, as runit sees them
 *
 * Their directories are laid out anew at each start of the container, in a place that can be written. ./run
 * and ./finish of every service are symlinks to /tbnode/init: no shell is needed, the place may be mounted
 * noexec, and the role follows from the name (./run) and the working directory (service/sshd). init and its
 * roles know each other's pipe and the description of main by two inherited descriptors named in the
 * environment of runsv, which holds nothing else of the container's: services start clean.
 *
 * main is different from the others in one thing: it isn't started again when it has ended. runit has that ("once"), but
 * shows it as a wish for its end ("want down") while it runs. So main is wanted up as everything is, and its ./finish says
 * "down", unless somebody asked for a restart: those who do (sv restart, sv term) go through ./control/t, which leaves a
 * mark; and sends the image's own stop signal instead of TERM.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "augment/client/macro.h"
#include "augment/client/node-conf.h"

typedef enum Service {
        SERVICE_MAIN,
        SERVICE_SSHD,
        SERVICE_SYSLOG,
        SERVICE_CLIENT, /* level core and up: where its program is */
        _SERVICE_MAX,
        _SERVICE_INVALID = -EINVAL,
} Service;

const char *service_to_string(Service s);
int service_from_string(const char *s);

/* What main's run and finish tell init, one write() each (smaller than PIPE_BUF: never torn). */
typedef enum MainEventKind {
        MAIN_EVENT_STARTED = 1,
        MAIN_EVENT_ENDED,
} MainEventKind;

typedef struct MainEvent {
        uint32_t kind;
        int32_t pid;         /* started */
        int32_t code;        /* ended: exit status, -1 if by a signal */
        int32_t signal;      /* ended: signal, 0 if none */
        int32_t starts_anew; /* ended: runit has been asked to start it again */
} MainEvent;

/* Finds the place (/run/tbnode or /dev/.tbnode), clears what an earlier start left, lays out the service
 * directories. *ret_rundir is static. Negative errno if nothing can be written. */
int services_lay_out(const char **ret_rundir) _warn_unused_;

/* What init hands down to the programs of its services. */
typedef struct ServiceContext {
        const char *rundir;
        int spec_fd;     /* main_spec_to_fd() */
        int event_fd;    /* MainEvent: where they are written to */
        int stop_signal; /* of main */
} ServiceContext;

#define SERVICE_ENV_MAX 6
#define SERVICE_ENV_SIZE 512
/* The whole environment of a runsv: `env` (of SERVICE_ENV_MAX) points into `memory` (of SERVICE_ENV_SIZE). */
void service_context_to_env(const ServiceContext *c, char *memory, char **env);

/* Tells the run of main that the container is ending: it is not to start main again. */
int services_mark_stopping(const char *rundir) _warn_unused_;

/* The program of the service whose directory is the working directory. `what` is "run", "finish" or "t" (./control/t).
 * Returns only a status to exit with. */
int service_main(const char *what, char **argv) _warn_unused_;

/* One per service: becomes it. They return only a status to exit with. */
int service_run_main(const ServiceContext *c, uint64_t mask) _warn_unused_;
int service_finish_main(const ServiceContext *c, OnExit on_exit, char **argv) _warn_unused_;
int service_stop_main(const ServiceContext *c) _warn_unused_;
int service_run_sshd(const char *rundir, const NodeConf *conf, const char *image_path) _warn_unused_;
int service_run_syslog(const char *rundir) _warn_unused_;
int service_run_client(const char *rundir, int spec_fd) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/client/client-job.h"

/* The supervisor of a job (client-job.h), in a process forked for it. `ready_fd` is closed when the outcome file says "running" or why
 * not. Returns a status to exit with. */
int supervise(const char *directory, const char *name, const JobSpec *spec, int ready_fd) _warn_unused_;

/* Writes NAME.run: word and rest. */
int supervise_write_outcome(const char *directory, const char *name, const char *word, const char *rest)
        _warn_unused_;

/* The environment of a job: the image's, then HOME USER LOGNAME SHELL PATH SVDIR, then the declared one. NULL-terminated, to be freed with its
 * strings. NULL without memory. */
char **job_environment(const JobSpec *spec, const char *name, const char *home, const char *shell);

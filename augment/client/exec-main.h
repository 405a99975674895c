/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Becoming the image's program: the last steps that an OCI runtime takes, in its order (runc,
 * standard_init_linux.go and finalizeNamespace): working directory, user, HOME, program lookup in the
 * container's PATH as that user, execve.
 */

#include <stdint.h>

#include "augment/client/spec.h"

/* The terminal among stdin, stdout, stderr that controls this process, or -1. */
int session_tty(void);

/* Becomes main. `tty` is session_tty(): without one it leads a session of its own; with one it is a process group in the
 * foreground of init's session: a terminal is hung up when its session's leader ends, and main may be started again.
 * Signals are unblocked, dispositions are the inherited ones. Returns only a status to exit with, after having said why:
 * 127 not found, 126 not executable, 125 no such user or no right to become it. */
int main_exec(const MainSpec *s, int tty, uint64_t mask) _warn_unused_;

/* The part of it from the user on, in the current session: the whole of the as-user role, and without a user (NULL) of
 * a plain container. An empty argv is an error as well. */
int program_exec(char **argv, char **env, const char *user, bool keep_home) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Becoming the image's program: the last steps that an OCI runtime takes, in its order (runc,
 * standard_init_linux.go and finalizeNamespace): working directory, user, HOME, program lookup in the
 * container's PATH as that user, execve.
 */

#include <stdint.h>

#include "augment/client/spec.h"

/* Where the program stands towards the terminal and its session. As the container's first process the
 * original leads its own session, and owns the terminal if there is one. */
typedef enum MainSession {
        MAIN_SESSION_NEW,        /* no terminal: lead a new session */
        MAIN_SESSION_TAKE_TTY,   /* lead a new session, take the terminal that init gave up */
        MAIN_SESSION_FOREGROUND, /* own process group, in the foreground of init's terminal */
        MAIN_SESSION_GROUP,      /* own process group only */
} MainSession;

/* The terminal among stdin, stdout, stderr that controls this process, or -1. */
int session_tty(void);

/* How main is to be started by this process, which stays its ancestor. `tty` is session_tty(). With
 * `keep_tty` the terminal stays init's, for a main that may be started again: when a session's leader ends,
 * its terminal is hung up. */
MainSession main_session_choose(int tty, bool keep_tty);

/* The init's part of MAIN_SESSION_TAKE_TTY: gives the terminal up. No-op for the others. The kernel sends HUP and CONT to
 * the foreground group for it (tty_jobctrl.c, disassociate_ctty), in our own name: not to be forwarded. */
void main_session_prepare(MainSession session, int tty);

/* Becomes main. Signals are unblocked, dispositions are the inherited ones. Returns only a status to exit
 * with, after having said why: 127 not found, 126 not executable, 125 no such user or no right to become it.
 */
int main_exec(const MainSpec *s, MainSession session, int tty, uint64_t mask) _warn_unused_;

/* The part of it from the user on, in the current session: the whole of the as-user role, and without a user (NULL) of
 * a plain container. An empty argv is an error as well. */
int program_exec(char **argv, char **env, const char *user, bool keep_home) _warn_unused_;

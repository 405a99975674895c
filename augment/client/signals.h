/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Signals as the kernel and Docker number them
 *
 * Images stop with any of 64 signals. Two facts make the libc's own functions useless here: musl keeps 32 to
 * 34 for itself (its sigfillset() and sigprocmask() leave them out, its SIGRTMIN is 35), and glibc keeps 32
 * and 33 (SIGRTMIN 34), while Docker's SIGRTMIN is 34 (moby/sys/signal, signal_linux.go). So masks are the
 * kernel's plain 64 bits here, set by the raw system call, and names are looked up in a table of our own.
 */

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "augment/client/macro.h"

#define SIGNAL_MAX 64
#define SIGNAL_RTMIN 34

/* "SIGTERM", "term", "15", "SIGRTMIN+3", "RTMAX-1". Returns the number or -EINVAL. */
int signal_from_string(const char *s);

/* What moby makes of a StopSignal (container.StopSignal): unknown or empty text means SIGTERM. */
int stop_signal_from_string(const char *s);

/* Replaces the signal mask; the old one goes to *ret_old if that isn't NULL. Bit n-1 is signal n. */
int signal_mask_set(uint64_t mask, uint64_t *ret_old) _warn_unused_;

/* Takes one of these pending (blocked) signals, or waits for one until the time is over: its number or negative errno
 * (-EAGAIN). */
int signal_wait(uint64_t mask, const struct timespec *timeout);

/* A signalfd for these signals, nonblocking and close-on-exec. Returns the descriptor or negative errno. */
int signal_fd_new(uint64_t mask) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/error.h"

/* The lock that all users of the legacy tables take from before their snapshot until after their commit: flock(2) on
 * /run/xtables.lock, or on what XTABLES_LOCKFILE names, as iptables(8) has it. Closing the descriptor gives it back. */

/* Where it is: XTABLES_LOCKFILE of the environment, as iptables(8), else FW_LOCK_PATH. */
const char *xtables_lock_path(void);

/* Opens the file and asks for the lock without waiting. 1: locked, 0: somebody else has it. */
int xtables_lock_open(int *ret_fd, TbError **err) _warn_unused_;

/* For who does not wait: -EBUSY, retryable. */
int xtables_lock_is_busy(TbError **err);

/* Waits for the lock on an open file, at most timeout_ms: then -EBUSY, retryable. */
int xtables_lock_wait(int fd, int timeout_ms, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The locks of account files, as everybody takes them who edits these: lckpwdf(3) (a POSIX lock on .pwd.lock) and
 * shadow-utils' own (passwd.lock and the like, made with link(2), holding a pid). Stale ones of shadow-utils, whose process is gone,
 * are taken away as useradd(8) does.
 */

#include "augment/client/macro.h"

#define ACCOUNT_LOCKS_MAX 4

typedef struct AccountLock {
        int fd;                            /* of .pwd.lock, -1: none */
        char path[ACCOUNT_LOCKS_MAX][256]; /* lock files that are ours */
        unsigned n;
} AccountLock;

/* Waits at most 10 s in all: -EBUSY then. `etc` is the directory. */
int account_lock(AccountLock *l, const char *etc) _warn_unused_;
void account_unlock(AccountLock *l);

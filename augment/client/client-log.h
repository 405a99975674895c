/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A log of bounded size: when it is full, its older half is dropped, in the same file, so that who follows it goes on. */

#include <stddef.h>
#include <sys/types.h>

#include "augment/client/macro.h"

#define LOG_MAX (8U * 1024 * 1024)

typedef struct BoundedLog {
        int fd; /* open for reading and writing */
        size_t size, max;
} BoundedLog;

/* Starts anew; what was there becomes PATH.0. The file belongs to uid:gid, mode 0640. */
int log_open(BoundedLog *l, const char *path, size_t max, uid_t uid, gid_t gid) _warn_unused_;
int log_write(BoundedLog *l, const char *data, size_t size) _warn_unused_;
void log_close(BoundedLog *l);

/* Copies `from` to the log until its end. A log that can't be written (disk full) loses lines; `from` is read all the same, so that the
 * program goes on. */
void log_copy(BoundedLog *l, int from);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Points of time in logs, in ns since 1970 (UTC), and back. Pure.
 */

/* RFC 3339 (5.6) at the beginning of `s`, with any fraction and any offset; gives the bytes it has. 0: there is none. */
size_t log_time_rfc3339(const char *s, size_t size, uint64_t *ret_ns);
/* "Nov 21 20:38:50.123 " or without fraction (RFC 3164, 4.1.2), in UTC, at the beginning of a line of the system log; it has no
 * year: taken for the last one before `now` (and a day: clocks). False: there is none. */
bool log_time_syslog(const char *s, size_t size, uint64_t now_ns, uint64_t *ret_ns);
/* What users write for "since": RFC 3339, or how long before `now`: 90s, 10m, 1h30m, 2d. -EINVAL. */
int log_time_since(const char *s, uint64_t now_ns, uint64_t *ret_ns, TbError **err) _warn_unused_;
/* "2026-11-21T20:38:50.123456789Z". */
#define LOG_TIME_MAX sizeof("2026-11-21T20:38:50.123456789Z")
const char *log_time_print(char buffer[static LOG_TIME_MAX], uint64_t ns);
/* CLOCK_REALTIME. */
uint64_t log_time_now(void);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <syslog.h>

#include "common/error.h"

/*
 * Structured log, to the journal when stderr is connected to it (JOURNAL_STREAM), else to stderr as one
 * line.
 *
 * Libraries (everything but agent/ and the main.c files) log nothing above LOG_DEBUG: they return a TbError
 * and the program logs it once. Fields are "NAME=value" strings; on stderr they are appended as name=value.
 * Logging never blocks and never fails: what cannot be written is dropped and counted.
 */

/* Reads TBNODE_LOG_LEVEL (emerg ... debug) and finds out where stderr goes. Optional; the default is
 * info/stderr. */
void tb_log_open(const char *program);
void tb_log_set_level(int level);
int tb_log_get_level(void);
/* Lines dropped because the target was not ready. */
unsigned long tb_log_dropped(void);

/* `fields` is a NULL-terminated array of "NAME=value" (journal field names: upper case) or NULL. */
void tb_log_full(int level, const char *file, int line, const char *func, const char *const *fields,
        const char *fmt, ...) _printf_(6, 7);

#define tb_log(level, ...) tb_log_full((level), __FILE__, __LINE__, __func__, NULL, __VA_ARGS__)
#define tb_log_fields(level, fields, ...) \
        tb_log_full((level), __FILE__, __LINE__, __func__, (fields), __VA_ARGS__)
#define log_debug(...) tb_log(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) tb_log(LOG_INFO, __VA_ARGS__)
#define log_notice(...) tb_log(LOG_NOTICE, __VA_ARGS__)
#define log_warning(...) tb_log(LOG_WARNING, __VA_ARGS__)
#define log_error(...) tb_log(LOG_ERR, __VA_ARGS__)

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Strings and NULL-terminated arrays of strings. */

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "common/error.h"

static inline bool tb_streq(const char *a, const char *b)
{
        return a == b || (a && b && strcmp(a, b) == 0);
}

/* Returns the rest of s behind prefix, or NULL. */
const char *tb_startswith(const char *s, const char *prefix);
const char *tb_endswith(const char *s, const char *suffix);

/* asprintf that returns the string, or NULL when out of memory. */
char *tb_asprintf(const char *fmt, ...) _printf_(1, 2);

size_t tb_strv_length(char *const *v);
char **tb_strv_copy(char *const *v);
/* Appends a copy of s; *v may be NULL (an empty array). */
int tb_strv_append(char ***v, const char *s, TbError **err) _warn_unused_;
/* Takes ownership of s in every case, also on failure. */
int tb_strv_consume(char ***v, char *s, TbError **err) _warn_unused_;
bool tb_strv_contains(char *const *v, const char *s);
bool tb_strv_equal(char *const *a, char *const *b);
char *tb_strv_join(char *const *v, const char *separator);
char **tb_strv_free(char **v);
TB_DEFINE_CLEANUP(char **, tb_strv_free)
#define _cleanup_strv_ _cleanup_(tb_strv_freep)

/* A copy of s for messages to people: control bytes, quotes and invalid UTF-8 are escaped as in C, at most
 * `max` bytes of s are shown. Use it around every string that came from outside. NULL when out of memory. */
char *tb_escape(const char *s, size_t max);
/* The same for text that is shown without quotes around it: quotes and backslashes stay as they are. */
char *tb_escape_control(const char *s, size_t max);

bool tb_utf8_is_valid(const char *s);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A file of lines and fields (passwd, group, shadow, gshadow), edited line by line: what isn't touched comes out byte
 * for byte as it went in. Fields are separated by ':', the first is the name. The first line of a name counts, as for
 * every libc. Lines that begin with '#' are nobody's; those that begin with '+' or '-' are NIS's (nsswitch "compat") and
 * stay behind what is added.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "augment/client/macro.h"

#define TABLE_FIELDS_MAX 12
#define TABLE_NONE SIZE_MAX

typedef struct Table {
        char **lines; /* without newline; NULL: taken away */
        size_t n, room;
        bool changed;
        bool failed; /* out of memory; sticks */
} Table;

/* NULL: a file that isn't there. */
void table_parse(Table *t, const char *text);
void table_done(Table *t);
#define _cleanup_table_ _cleanup_(table_done)
/* The text (to be freed); NULL without memory. */
char *table_render(const Table *t);

size_t table_find(const Table *t, const char *name);
/* A copy of field `n` of a line (to be freed), "" if there are fewer. NULL without memory. */
char *table_field(const Table *t, size_t line, unsigned n);
/* Field `n` as a number; false if it is none. */
bool table_number(const Table *t, size_t line, unsigned n, uint32_t *ret);
/* Puts another text into a field; a line with fewer fields gets them. */
void table_set_field(Table *t, size_t line, unsigned n, const char *value);
void table_add(Table *t, const char *line);
void table_drop(Table *t, size_t line);

/* Field `n` as a list separated by ','. */
bool table_list_has(const Table *t, size_t line, unsigned n, const char *item);
void table_list_add(Table *t, size_t line, unsigned n, const char *item);
void table_list_remove(Table *t, size_t line, unsigned n, const char *item);

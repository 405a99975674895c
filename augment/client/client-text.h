/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the client's parts share: texts that grow, problems that are collected, cleanup. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "augment/client/macro.h"

#define _cleanup_(f) __attribute__((cleanup(f)))
static inline void cleanup_freep(void *p)
{
        free(*(void **) p);
}
#define _cleanup_free_ _cleanup_(cleanup_freep)
static inline void cleanup_closep(int *fd)
{
        if (*fd >= 0)
                close(*fd);
}
#define _cleanup_close_ _cleanup_(cleanup_closep)
static inline void cleanup_jsonp(json_t **j)
{
        json_decref(*j);
}
#define _cleanup_json_ _cleanup_(cleanup_jsonp)

/* A text that grows. Running out of memory sticks: text_take() gives NULL then. */
typedef struct Text {
        char *data;
        size_t size, room;
        bool failed;
} Text;

void text_add(Text *t, const void *data, size_t size);
void text_adds(Text *t, const char *s);
void text_addf(Text *t, const char *fmt, ...) _printf_(2, 3);
/* The text (to be freed), "" for an empty one; the Text is empty then. */
char *text_take(Text *t);
void text_done(Text *t);
#define _cleanup_text_ _cleanup_(text_done)

/* What could not be done. The first reasons are kept, the rest is counted. */
#define PROBLEMS_KEPT 16
typedef struct Problems {
        char reason[PROBLEMS_KEPT][320];
        unsigned count;
} Problems;

void problem(Problems *p, const char *fmt, ...) _printf_(2, 3);

/* Members of an object as what they must be, or the default. Borrowed. */
const char *member_string(const json_t *obj, const char *key, const char *otherwise);
/* -ENOENT: it isn't there; -EINVAL: it is no number between 0 and `max`. */
int member_number(const json_t *obj, const char *key, uint64_t max, uint64_t *ret) _warn_unused_;

/* Names that go into files of lines and fields. Agents check them too: this is the last look before they are written. */
bool account_name_is_valid(const char *s);
bool program_name_is_valid(const char *s);
/* One line without control characters, and without any of `forbidden`; at most `max` bytes. */
bool line_is_clean(const char *s, const char *forbidden, size_t max);
/* Absolute, clean, without "." and ".." and colons. */
bool path_is_clean(const char *s);

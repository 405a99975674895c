/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What main is: everything that init got and that the process which becomes main, several generations later,
 * needs to be exactly what the image's program would have been.
 *
 * In node mode it travels in a sealed memory file that runsv passes on without knowing: an
 * environment holds secrets, and these must not lie in a file that a snapshot of the node would take along.
 *
 * Text form: NUL-terminated strings: magic, umask (octal), keep-home (0|1), user ("" = none), cwd, count and
 * strings of argv, count and strings of env; and nothing after.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "augment/client/macro.h"

/* The kernel's own bound on argv and environment together is a quarter of the stack limit, 2 MB as a rule.
 */
#define MAIN_SPEC_MAX (16U * 1024 * 1024)

typedef struct MainSpec {
        char **argv; /* NULL-terminated, at least one */
        char **env;
        const char *user; /* NULL: stay who we are */
        bool keep_home;
        const char *cwd;
        mode_t umask;
        void *memory; /* what the pointers point into, if it is ours */
} MainSpec;

/* Encodes into a new buffer (to be freed). */
int main_spec_encode(const MainSpec *s, char **ret, size_t *ret_size) _warn_unused_;

/* Takes over `text` (malloc'ed, `size` bytes) in any case. -EBADMSG when it isn't what encode wrote. */
int main_spec_decode(char *text, size_t size, MainSpec *ret) _warn_unused_;

/* Frees what decode allocated. */
void main_spec_done(MainSpec *s);

/* Encodes into a sealed memory file, close-on-exec. Returns the descriptor or negative errno. */
int main_spec_to_fd(const MainSpec *s) _warn_unused_;
/* Reads it back, from its beginning, whoever read it before. */
int main_spec_from_fd(int fd, MainSpec *ret) _warn_unused_;

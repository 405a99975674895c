/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The command lines of README.md. They are in image configurations for good: what is accepted here stays
 * accepted. */

#include <stdbool.h>
#include <stddef.h>

#include "augment/client/macro.h"

typedef struct InitOptions {
        const char *user;  /* of the image, for a node that isn't told otherwise; NULL: stay who we are */
        bool keep_home;    /* the same: HOME is the image's own */
        int stop_signal;   /* what docker stop will send */
        const char *level; /* for people only */
        char **command;    /* NULL-terminated, points into argv; may be empty */
} InitOptions;

/* Both parse argv[1...] and keep pointers into it. 0, or -EINVAL with the reason in `why`. */
int init_options_parse(char **argv, InitOptions *ret, char *why, size_t why_size) _warn_unused_;
/* argv[1] is "as-user". */
int as_user_options_parse(char **argv, InitOptions *ret, char *why, size_t why_size) _warn_unused_;

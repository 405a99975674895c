/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Files of the image that we have to change
 *
 * They belong to a stranger. Names may be symlinks (followed: the file behind is changed, the link stays), FIFOs or
 * devices (refused), bind mounts (can't be replaced: written in place), or lie on a read-only file system. Owner and
 * mode stay what they are.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "augment/client/macro.h"

#define IMAGE_FILE_MAX (8U * 1024 * 1024)

/* *ret = the whole text (to be freed), NULL when there is no such file: 0 in both cases. -EINVAL: not a regular file;
 * -EFBIG: more than IMAGE_FILE_MAX; -EILSEQ: it has NUL bytes. */
int image_file_read(const char *path, char **ret) _warn_unused_;

/* Replaces the content, or makes the file with `mode` and owner 0:`gid`. Temp file + fsync + rename; in place where that can't be:
 * it is a mount, or its directory can't be written. */
int image_file_replace(const char *path, const char *text, mode_t mode, gid_t gid) _warn_unused_;

/* In place, always: for files that somebody has mounted or holds open by name. */
int image_file_rewrite(const char *path, const char *text, mode_t mode) _warn_unused_;

/* mkdir -p: what is missing is made with mode 0755, owner 0. */
int make_dirs(const char *path) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/* Reads a whole regular file of at most max bytes (-EFBIG beyond). *ret_data is NUL-terminated and the
 * caller's. */
int tb_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size, TbError **err)
        _warn_unused_;

/* Replaces path atomically: temporary file in the same directory, fsync, rename, fsync of the directory. On
 * failure the old content stays and no temporary file is left. */
int tb_file_write_atomic(const char *path, const void *data, size_t size, mode_t mode, TbError **err)
        _warn_unused_;

/* mkdir -p; directories that exist are left as they are. */
int tb_mkdir_p(const char *path, mode_t mode, TbError **err) _warn_unused_;

/* rm -rf that follows no symlink and crosses no mount point; a missing path is success. */
int tb_rm_rf(const char *path, TbError **err) _warn_unused_;

/* Makes a private directory from a template like mkdtemp(3) ("/tmp/tbnode-XXXXXX"); the caller owns
 * *ret_path. */
int tb_mkdtemp(const char *pattern, char **ret_path, TbError **err) _warn_unused_;

/* write(2) until all is written. */
int tb_write_all(int fd, const void *data, size_t size, TbError **err) _warn_unused_;

int tb_set_nonblock(int fd, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What init needs of a runtime library and musl doesn't have. All of it works in an image with nothing in
 * it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "augment/client/macro.h"

/* Where things are inside an image; design.md 4.6. */
#define TBNODE_INIT_PATH "/tbnode/init"
#define TBNODE_BIN_DIR "/tbnode/bin"
#define TBNODE_RUN_DIR "/tbnode/run"
#define TBNODE_CLIENT_PATH TBNODE_BIN_DIR "/tbnode-client"

/* Exit statuses that are init's own; the same ones docker run uses. */
enum {
        EXIT_EXEC_FAILED = 1, /* found, but execve(2) wouldn't have it: what runc ends with */
        EXIT_INIT_FAILED = 125,
        EXIT_NOT_EXECUTABLE = 126,
        EXIT_NOT_FOUND = 127,
};

/* One line on stderr. The only way init ever prints anything. */
void say(const char *fmt, ...) _printf_(1, 2);

/* Decimal digits only, no sign, at most `max`. 0 or -EINVAL, -ERANGE. */
int parse_u32(const char *s, uint32_t max, uint32_t *ret) _warn_unused_;

/* snprintf() for paths inside the run directory, whose length is known to be small (RUNDIR_MAX): can't be cut. */
#define RUNDIR_MAX 64
void format_path(char *ret, size_t size, const char *fmt, ...) _printf_(3, 4);

/* The whole file as a NUL-terminated string (to be freed), at most `max` bytes (-EFBIG). Negative errno on
 * failure; NUL bytes inside cut the text there. */
int read_text_file(const char *path, size_t max, char **ret, size_t *ret_size) _warn_unused_;

/* Writes all of it, also through short writes and EINTR. */
int write_all(int fd, const void *data, size_t size) _warn_unused_;

/* Temp file beside it + fsync + rename: a reader sees the old or the new text, never half of it. */
int write_text_file(const char *path, mode_t mode, const char *text) _warn_unused_;

/* As mkdir(2); a directory that exists is fine, anything else by that name (a symlink too) is -ENOTDIR. */
int make_dir(const char *path, mode_t mode) _warn_unused_;

/* Removes a directory and what is in it; never follows symlinks. Absent is fine. At most 16 levels deep. */
int remove_tree(const char *path) _warn_unused_;

/* Marks a descriptor to be closed by exec. */
int set_cloexec(int fd) _warn_unused_;

/* Points stdin, stdout and stderr to /dev/null. */
int null_stdio(void) _warn_unused_;

/* Value of NAME in an environment block, or NULL. */
const char *env_get(char *const *env, const char *name);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "common/error.h"

/*
 * Files out of a node, as a tar archive
 *
 * What is in a node is its user's, and hostile: names, symlinks, sizes that change while they are read. So this runs in a
 * process of its own (api-files-op.c), which has the container's root directory and a pipe and nothing else.
 *
 * - Patterns are absolute; each component is one of fnmatch(3). They are looked up with openat2(2), RESOLVE_IN_ROOT |
 *   RESOLVE_NO_MAGICLINKS: symlinks lead where they lead in the node, never out of it. Below a directory that matched,
 *   everything is taken, and no symlink followed.
 * - Only regular files, and none of a file system that the kernel makes up (proc, sysfs, ...): what root of the host may read
 *   there is not for the node's user. A file is looked at (O_PATH) before it is opened: a device notices nothing.
 * - In the archive a name is "files/" and the path, where every byte but printable ASCII without '%' and '\\' is written as
 *   %XX: no name can lead anywhere, or do anything to a terminal.
 * - The last entry, "report.json", has what was left out and why: {"files", "bytes", "skipped": [{"path", "reason"}]}. Without it
 *   the archive is not complete.
 */

#define NODE_FILES_PATTERNS_MAX 64U
#define NODE_FILES_PATTERN_MAX 1024U
#define NODE_FILES_MAX 2000U
#define NODE_FILES_FILE_MAX (UINT64_C(64) << 20)
#define NODE_FILES_BYTES_MAX (UINT64_C(256) << 20)
#define NODE_FILES_ENTRIES_MAX 100000U /* that are looked at */
#define NODE_FILES_DEPTH_MAX 16U       /* below a directory that matched */
#define NODE_FILES_REPORT "report.json"
#define NODE_FILES_PREFIX "files/"
#define NODE_FILES_NOTHING "there is no such file"

/* A list of strings of a request: -EINVAL, kind CONFIG. Pure. */
int node_files_check(const json_t *patterns, TbError **err) _warn_unused_;
/* The name in the archive of a path without leading '/'; NULL: it would be too long. Pure. */
char *node_files_name(const char *path);
/* Writes the archive to `out`; blocks. `root`: descriptor of a directory. */
int node_files_pack(int root, const json_t *patterns, int out, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/error.h"

/*
 * The system log of a node, as its service syslog collects it: <rundir>/log/messages and, before it, messages.0
 * (augment/client/README.md). Read from outside, through a descriptor of the container's root directory.
 *
 * Everything in there is the user's: files are opened so that no symlink leads out of the container (openat2(2),
 * RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), only regular files count, at most NODE_SYSLOG_FILE_MAX bytes at the end of
 * each are read, and what a terminal would obey comes out as '?'.
 *
 * inotify(7) works across: a watch belongs to the inode, and the container's own mount is what /proc/PID/root leads
 * to, so writes inside are seen outside.
 */

#define NODE_SYSLOG_FILE_MAX (384U * 1024)

typedef struct NodeSyslog NodeSyslog;

/* `root` (consumed, also on failure) is the container's root directory. -ENOENT: there is no log. */
int node_syslog_new(int root, NodeSyslog **ret, TbError **err) _warn_unused_;
NodeSyslog *node_syslog_free(NodeSyslog *s);
TB_DEFINE_CLEANUP(NodeSyslog *, node_syslog_free)
#define _cleanup_node_syslog_ _cleanup_(node_syslog_freep)

/* Begins at the beginning of what there is, the older file first. */
void node_syslog_rewind(NodeSyslog *s);
/* A descriptor that becomes readable when something may have been written; stays the reader's. */
int node_syslog_watch(NodeSyslog *s, int *ret_fd, TbError **err) _warn_unused_;
/* What comes next, also in a file that has taken the place of the other: at most `size` bytes, 0 = nothing
 * more now. Takes the pending notifications away. */
size_t node_syslog_more(NodeSyslog *s, char *buffer, size_t size);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/manager.h"

/*
 * The directory that a node made by `tbnode run` sees as /tbnode/run: <state-dir>/nodes/<container>/, with node.conf,
 * authorized_keys and the socket to its agent. It lies in the state directory because the container's mount must
 * still be there after a reboot, and is named after the container when that was made: a later `docker rename` leaves
 * the mount, and so the directory, as they are. Whose it is is therefore told by the container's mounts, never by its
 * name. Its name is the node's *key*; what else is kept about a node is kept under the same key.
 *
 * It goes when the container is destroyed, and, if that happened while no agent ran, when the agent lists the
 * containers and finds none that mounts it.
 */

#define NODE_DIR_TARGET "/tbnode/run"

/* NULL when out of memory. */
char *node_dir_path(const Manager *m, const char *key);
/* <state-dir>/nodes, which only root may list. */
int node_dir_make_parent(const Manager *m, TbError **err) _warn_unused_;
/* The key in the path of a directory; NULL when the path is none of ours. Borrowed from `path`. */
const char *node_dir_key(const Manager *m, const char *path);
/* The node's container mounts `path` (borrowed; NULL: nothing) on NODE_DIR_TARGET. The first node that has a directory
 * keeps it: another container that mounts it as well is not the node. */
void node_dir_take(Node *n, const char *path);
/* The container is gone: its directory, and what is kept under its key, go, unless a run is using the name anew. */
void node_dir_remove(Node *n);
/* `containers`: the engine's list of all (GET /containers/json?all=1). Removes what belongs to none of them. */
void node_dir_sweep(Manager *m, const json_t *containers);

/* Does one of these containers mount the directory of this key? */
bool node_dir_is_mounted(const Manager *m, const json_t *containers, const char *key);

/* Is a run about to use this directory? (run.c) */
bool run_uses_dir(const Manager *m, const char *key);

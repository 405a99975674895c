/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * Frames of many segments on a network (netctl-offload.c). What reaches a node with a lossy or slow link is made by the other
 * nodes of its network, so when the shape of one of them counts packets, all nodes of the network send segment by segment.
 */

/* The networks, by name, on which some running node has such a shape. */
int segmentation_networks(const Manager *m, char ***ret, TbError **err) _warn_unused_;

/* Takes over a new list. */
void segmentation_take(Manager *m, char **networks);

/* Is the node on a network that is in one of the lists but not in the other? */
bool segmentation_differs(const Node *n, char *const *a, char *const *b);

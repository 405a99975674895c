/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <netinet/in.h>

#include "common/error.h"

/*
 * The default route of a node leads through the control network
 *
 * Docker gives the default route to the first of a container's networks in alphabetical order, so a node on "lan0" and
 * "tbnode-control" would reach the outside, and be reached from it, through the shaped experiment link. The agent puts
 * that right in the container's network namespace when it configures the node.
 *
 * Docker's default route has metric 0. When a network is connected that sorts before the others, it deletes the one that it
 * made, whatever has become of that, and adds another one; if there is one of metric 0, "file exists", it gives up and the
 * network is not connected. So ours has metric 1 and Docker's goes: the place is free when Docker wants it.
 *
 * Looks first: 0 = it was right already, 1 = it was changed. The calling thread enters the namespace for a moment and
 * always returns (failure to return ends the process: nothing may run in a foreign namespace).
 */
int route_ensure_default(int netns_fd, struct in_addr gateway, TbError **err) _warn_unused_;

/*
 * Declared routes: `routes` is the list of a checked declaration (NULL = none). They carry a protocol number of ours
 * (ROUTE_PROTOCOL; rtnetlink(7), rtm_protocol), so that those that are declared no more are found and removed, and nobody
 * else's ever is. Looks first; returns how many were written. A route that the kernel refuses does not keep the others from
 * being made: the first such error is returned, and names the route.
 */
#define ROUTE_PROTOCOL 116
int route_ensure_declared(int netns_fd, const json_t *routes, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Host name, routes and mounts. The host name can be set from inside only with CAP_SYS_ADMIN, routes only with CAP_NET_ADMIN,
 * mounts not at all: the engine and the agent make them, from outside, and the client looks whether they are there. */

#include <jansson.h>

#include "augment/client/client-text.h"

void hostname_apply(const char *name, Problems *p);

/* Is each of `routes` (to, via) in this network namespace's main table? Those that aren't are added to `p`. Returns how many. */
unsigned routes_check(const json_t *routes, Problems *p);
/* A netlink socket that becomes readable when routes change. Negative errno without one. */
int routes_watch(void) _warn_unused_;

/* Is each of `mounts` (target, read_only) a mount point? `text` is mountinfo's (proc(5)). */
void mounts_check(const char *text, const json_t *mounts, Problems *p);

/* /usr/local/etc/emulab/tmcc becomes a link to /tbnode/bin/tmcc, if there is nothing by that name. A node whose root is read-only is
 * left without. */
void tmcc_link(const char *root);

/* The interface with this hardware address; NULL if there is none. `ret` has IF_NAMESIZE bytes. */
const char *interface_by_mac(const char *mac, char *ret);

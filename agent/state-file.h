/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * /var/lib/tbnode/state.json: what neither Docker nor the kernel remembers, that is, what `tbnode shape set` and
 * `tbnode firewall set` declared for containers that still exist. Everything else is derived at start.
 *
 *         { "version": 1,
 *           "nodes": { "<container id>": {
 *                   "shapes": { "<network>": { "spec": "up rate 10mbit", "keep": ["up"],
 *                           "until": INSTANT, "before": "",                               changes for a time
 *                           "flap": { "start": INSTANT, "down_us": 2000000, "up_us": 5000000, "count": 0 } } },
 *                   "firewall": "closed; allow in icmp", "ssh_port": 20001 } } }
 *
 * INSTANT is { "boot": id, "boottime_us": N, "realtime_us": N }, see shape-schedule.h.
 *
 * A newer version, or a file that is broken, is refused at start (nobody's declared state is thrown away silently).
 */

#define STATE_VERSION 1

/* Reads the file into manager->saved_nodes; a missing file is an empty state. */
int state_file_load(Manager *m, TbError **err) _warn_unused_;
/* Writes the overrides of all nodes, and those of containers not seen yet. */
int state_file_save(Manager *m, TbError **err) _warn_unused_;
/* Gives a new node its saved overrides. What is broken in them is an error of the node (label_error stays first). */
int state_file_restore(Manager *m, Node *n, TbError **err) _warn_unused_;
/* Is this ssh port kept for a container that was not seen yet? */
bool state_file_has_port(const Manager *m, uint16_t port);
/* After the first list: entries of containers that do not exist any more are dropped. */
void state_file_forget_missing(Manager *m);

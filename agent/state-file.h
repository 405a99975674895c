/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * /var/lib/tbnode/state.json: what neither Docker nor the kernel remembers, that is, what `tbnode shape set` and
 * `tbnode firewall set` and `tbnode keys set` declared for containers that still exist. Everything else is derived at start.
 *
 *         { "version": 2,
 *           "nodes": { "<container id>": {
 *                   "shapes": { "<network>": { "spec": "up rate 10mbit", "keep": ["up"],
 *                           "until": INSTANT, "before": "",                               changes for a time
 *                           "flap": { "start": INSTANT, "down_us": 2000000, "up_us": 5000000, "count": 0 } } },
 *                   "firewall": "closed; allow in icmp", "ssh_port": 20001,
 *                   "ssh_keys": "ssh-ed25519 AAAA joe" } } }
 *
 * INSTANT is { "boot": id, "boottime_us": N, "realtime_us": N }, see shape-schedule.h.
 *
 * Versions: an agent that does not know a member would drop it with the next write, so a new member is a new version. Each older one
 * is read, and written as the newest with the next change; until then it stays as it is, for an agent that goes back.
 *         1   without "ssh_keys"; at first also without "until", "before", "flap" and "ssh_port", which may be missing anyway
 *         2   this one
 * A newer one is refused at start, and nothing is written. A file that is no such file (cut off, overwritten) gets another name,
 * state.json.broken-TIME, is reported, and the agent starts without: labels and the kernel have the rest. Nothing is thrown away.
 */

#define STATE_VERSION 2

/* Reads the file into manager->saved_nodes; a missing file is an empty state, and so is a broken one, which is put aside. A newer one
 * (-EPROTONOSUPPORT) and one that cannot be read or put aside are errors. */
int state_file_load(Manager *m, TbError **err) _warn_unused_;
/* Writes the overrides of all nodes, and those of containers not seen yet. */
int state_file_save(Manager *m, TbError **err) _warn_unused_;
/* Gives a new node its saved overrides. What is broken in them is an error of the node (label_error stays first). */
int state_file_restore(Manager *m, Node *n, TbError **err) _warn_unused_;
/* Is this ssh port kept for a container that was not seen yet? */
bool state_file_has_port(const Manager *m, uint16_t port);
/* After the first list: entries of containers that do not exist any more are dropped. */
void state_file_forget_missing(Manager *m);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * From nodes to the kernel. Whatever became pending in one turn of the loop is written together: first everything that
 * is to go (one batch, one firewall commit), then everything that is to be there (again one of each). The batch runs
 * when the loop has no other event, so a burst of starts ends in few commits, and a single one waits for nothing.
 */

/* Ask for a batch; cheap, as often as one likes. */
void reconcile_schedule(Manager *m);

/* For a node at the start gate while the engine cannot be asked yet: does not wait for the first batch (gate.h). */
void reconcile_before_sync(Manager *m, Node *n);

/* Writes one running node right now and reads it back, for the API: on failure the kernel has what it had before, and
 * the node's state is unchanged. `replace_foreign`: as the configuration key, for this once. */
int reconcile_now(Manager *m, Node *n, bool replace_foreign, TbError **err) _warn_unused_;
/* The same for many, with one batch; what went wrong for a node is in its errors[], which the caller frees. */
int reconcile_now_many(Manager *m, Node *const *nodes, size_t n, bool replace_foreign, TbError **errors,
        TbError **err) _warn_unused_;

/* Reads the firewall of nodes with one look at the kernel; `ret` has one entry per node. */
int reconcile_firewall_show(Manager *m, Node *const *nodes, size_t n, FwReadback *ret, TbError **err)
        _warn_unused_;

/* Are the rules of all configured nodes in the kernel as declared? What is not is written again, all with one commit, and
 * told in an event. */
int reconcile_firewall_repair(Manager *m, TbError **err) _warn_unused_;

/* Are the queues and host sides of these configured nodes as declared? What is not is written again, with one batch, and told in an
 * event. Nodes that cannot be put right are FAILED. */
int reconcile_repair(Manager *m, Node *const *nodes, size_t n, TbError **err) _warn_unused_;

/* The iptables lock is another program's: what is pending is tried again soon, and nothing waits in the loop. `why`: what netctl
 * said. */
void reconcile_wait_for_lock(Manager *m, const TbError *why);
/* Nothing has asked for it in vain. */
void reconcile_got_lock(Manager *m);

/* Takes over what was applied and read back; for a node that has an error: what that means for its state. */
void reconcile_take_status(Manager *m, Node *n, NetctlNodeStatus *s);

/* Removes what carries our tag and belongs to no node; later, when the iptables lock is needed for it and another program's. */
int reconcile_sweep(Manager *m, unsigned long *ret_removed, TbError **err) _warn_unused_;

/* Reads the interfaces of these nodes, as far as they are configured, from the kernel in one go (counters, what is in
 * force). What cannot be read is logged and stays as it was known. */
void reconcile_show_many(Manager *m, Node *const *nodes, size_t n);

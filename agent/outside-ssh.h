/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "agent/node.h"

/*
 * ssh to nodes in which no sshd runs, from outside
 *
 * A node whose label tbnode.ssh-keys says who may log in has its port of `ssh-ports` not translated to its own port 22, but listened
 * to here. For each connection the engine runs a server in the container, as for `tbnode exec`, and this agent carries bytes:
 *
 *         client -- TCP -- agent -- engine -- /tbnode/init ssh = dropbear -i, in the container
 *
 * So what strangers send is parsed where it can do no more than a program of the node's can: in its namespaces, with its limits and
 * filters, and paid for by it. Sessions, scp, sftp, forwarding and users are those of nodes with an sshd, because it is the same
 * program. The client's socket itself never gets in: who holds a socket of the host's namespace can connect it elsewhere.
 *
 * The programs come by a read-only mount of `ssh-tree` on /tbnode: `tbnode run` declares it, and tbnode-runtime adds it to containers
 * with the label. Host keys and authorized keys go ahead of the connection's bytes (augment/client/ssh-outside.h).
 *
 * Who may connect is what the node's firewall says of port 22, asked at each connection: a socket of the host's is not subject to it.
 * Who has the keys may change while the node runs (`tbnode keys set`): connections that begin from then on are asked for the new ones,
 * sessions go on. Keys that were set so are their setter's, whatever the label is. They go with the container.
 *
 * Limits: so many connections at once and a second for each node, and for all; those beyond wait in the kernel's queue.
 *
 * Sessions end with the agent: it carries their bytes.
 */

#define OUTSIDE_NODE_MAX 48U  /* connections to one node */
#define OUTSIDE_ALL_MAX 384U  /* to all */
#define OUTSIDE_BURST 48U     /* connections to one node at once, */
#define OUTSIDE_PER_SECOND 8U /* and from then on */

/* Is it meant to be served so? */
bool outside_ssh_is_declared(const Node *n);
/* Does it listen? */
bool outside_ssh_is_open(const Node *n);
/* Why it does not although it is meant to; NULL: it does. Static or the node's. */
const char *outside_ssh_missing(const Node *n);

/* The keys that log in now: those that were set, else the label's. Borrowed; NULL: none. */
const char *outside_ssh_keys(const Node *n);
/* Keys instead of the label's, one a line; NULL: the label's again. -EINVAL, kind CONFIG: that are none. What follows from it is
 * outside_ssh_keys_changed()'s. */
int node_set_ssh_keys_override(Node *n, const char *keys, TbError **err) _warn_unused_;
void outside_ssh_keys_changed(Node *n);

/* Connections of all nodes now, since the start, and those that the firewall or want of memory turned away; for metrics. */
typedef struct OutsideCounts {
        uint64_t open, total, refused;
} OutsideCounts;
OutsideCounts outside_ssh_counts(const Manager *m);

/* After each event of the node: opens or closes its port as its state says. */
void outside_ssh_update(Node *n);
/* Closes the port and ends all sessions. */
void outside_ssh_stop(Node *n);

/* The programs at `tree`, when they are there. */
bool outside_ssh_has_programs(const char *tree);

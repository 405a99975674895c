/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "agent/manager.h"

/*
 * The nodes of one experiment on this host, as each other sees them. A node without an experiment is an experiment of
 * its own. Only nodes of the own experiment are ever named to a node.
 */

bool experiment_same(const Node *a, const Node *b);
/* How many nodes belong to it: those that run, and those that have not run yet (they are being made). */
unsigned experiment_size(const Node *n);
/* Nodes of it that are marked ready. */
unsigned experiment_ready(const Node *n);

/* [{"name", "address", "aliases"}] of all its nodes on every experiment network, then `declared` (may be NULL). */
json_t *experiment_hosts(const Node *n, const json_t *declared);
/* [{"network", "mac", "address", "prefix"}] of one node, without the control network. */
json_t *experiment_interfaces(const Node *n);
/* [{"node", "state", "client", "startup"}] of all its nodes. */
json_t *experiment_nodes(const Node *n);
/* The node that a stock Emulab client is told to run the sync server on: the first by name. */
const Node *experiment_first(const Node *n);

/* Something about some node changed: once the loop has nothing else to do, clients whose answers are others now are told,
 * and barriers that wait for all nodes are looked at. Cheap; call it as often as one likes. */
void experiment_changed(Manager *m);

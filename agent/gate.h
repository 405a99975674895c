/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"
#include "common/error.h"

/*
 * The start gate, the agent's side
 *
 * tbnode-runtime asks on <run-dir>/gate.sock (root only) before it lets a labelled container start, and waits for the answer. The
 * request describes the container, because the engine can't: it holds the container's lock, and after a reboot it does not even
 * listen while it starts containers. What the container's interfaces are is read from its network namespace, which exists by then
 * and which no code of the user's has touched; which network each belongs to tells the bridge that the host side is a port of.
 *
 *   tbnode-runtime                 gate.c                         node.c
 *   request (one line of JSON) --> the node, made if need be ---> START; described from the namespace: FACTS -> batch
 *   answer  (one line of JSON) <-- {"ok": true}              <--- CONFIGURED
 *                                  {"error": TEXT}           <--- FAILED for good, died, or GATE_TIMEOUT
 *
 * While a node is held at the gate (node_is_held()), the engine is not asked about it. Its `start` event, after the gate, has the
 * engine describe it as always, which confirms what is there: no further write.
 *
 * Docker brings containers up again before its API answers. Nodes at the gate are then configured one by one and at once, not with
 * the first batch, which waits for the engine's list.
 */

typedef struct Gate Gate;
typedef struct GateCall GateCall;

#define GATE_CALLS_MAX 1024U
#define GATE_REQUEST_MAX (256U * 1024)
/* From the request to the answer. */
#define GATE_TIMEOUT_USEC (UINT64_C(30) * 1000000)

int gate_new(Manager *m, Gate **ret, TbError **err) _warn_unused_;
Gate *gate_free(Gate *g);

/* The node is at the gate and shall be described (again). Later, from the loop. */
void gate_describe(GateCall *c);
/* Something about a node that is held has changed: perhaps there is an answer. Called by manager_node_changed(). */
void gate_node_changed(Node *n);
/* The node is going: nobody will answer for it. */
void gate_node_gone(Node *n);

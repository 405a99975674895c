/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "agent/manager.h"

/*
 * The connections of one node to its agent: over the unix socket in its directory (agent.sock; JSON lines or TMCD text,
 * told apart by the first byte) and over TCP (TMCD, tmcd-server.h). Who asks is known before a byte is read: by the socket,
 * or by the source address.
 *
 * A node is a stranger with root rights of its own. What it can take of the agent is bounded, and what it asks beyond is
 * not answered with work but with waiting, its own: NODE_CONNECTIONS_MAX connections (more stay in the kernel's queue), of
 * which the last ones are kept for root of the node; NODE_RATE requests and connections a second with bursts of
 * NODE_BURST, beyond which nothing of this node is read for a moment; one request line or packet of memory per connection;
 * answers that are not taken end the connection. A connection that has asked nothing is closed after NODE_TALK_USEC. An
 * attached client, or one that waits at a barrier, may be silent for ever and costs no wake-up.
 */

#define NODE_CONNECTIONS_MAX 32U
#define NODE_CONNECTIONS_ROOT 8U    /* of them for root only */
#define NODE_CONNECTIONS_FREE 4U    /* so many each node may always have ... */
#define NODE_CONNECTIONS_POOL 2048U /* ... and all nodes together so many more */
#define NODE_RATE 100U
#define NODE_BURST 200U
#define NODE_REQUEST_MAX (64U * 1024)                /* a JSON line */
#define NODE_ANSWERS_MAX (1024U * 1024 + 64U * 1024) /* bytes that wait to be taken */
#define NODE_WAITS_MAX 64U                           /* barrier entries of a node */
#define NODE_TALK_USEC \
        (30 * UINT64_C(1000000)) /* for a request to be there, and for an answer to be taken */

typedef struct NodeSocket NodeSocket;
typedef struct NodeConnection NodeConnection;

/* Listens, when the node has a directory, but accepts nothing before node_socket_serve(). */
int node_socket_new(Node *n, NodeSocket **ret, TbError **err) _warn_unused_;
NodeSocket *node_socket_free(NodeSocket *s);
/* The node runs as `identity`: who its root is, is known now. NULL socket: nothing happens. */
void node_socket_serve(NodeSocket *s, const ProcessIdentity *identity);
/* It does not run: connections are closed, new ones wait for its next run. */
void node_socket_pause(NodeSocket *s);
/* A TCP connection from the node's address. Takes the descriptor in every case. */
void node_socket_adopt(NodeSocket *s, int fd);

bool node_socket_is_attached(const NodeSocket *s);
/* Sends an event (consumed) to the attached client. -ENOTCONN (kind CONFIG): there is none. */
int node_socket_event(NodeSocket *s, json_t *event, TbError **err);

/* ---- For those who answer ------------------------------------------------------------------------------------------ */

Node *node_connection_node(const NodeConnection *c);
bool node_connection_is_root(const NodeConnection *c);
/* One answer or event (consumed; NULL: the connection is closed for want of memory). Never frees the connection. */
void node_connection_send(NodeConnection *c, json_t *line);
/* Makes it the one that gets events; the former one is closed. */
void node_connection_attach(NodeConnection *c);
/* Barrier entries of this node that wait, to be kept below NODE_WAITS_MAX. */
unsigned *node_connection_waits(NodeConnection *c);
/* The list of requests of this connection that wait (node-request.c owns what is in it). */
struct NodeWait **node_connection_wait_list(NodeConnection *c);

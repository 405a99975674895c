/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between node-socket.c (the listening end) and node-connection.c (what is said). */

#include <stdbool.h>

#include "agent/node-request.h"
#include "agent/node-socket.h"
#include "agent/token-bucket.h"
#include "common/buffer.h"

typedef enum Speech {
        SPEECH_UNKNOWN, /* no byte was read yet */
        SPEECH_JSON,
        SPEECH_TMCD,
} Speech;

struct NodeConnection {
        NodeSocket *socket;
        NodeConnection *next;
        int fd;
        bool tcp;
        bool root;
        bool counted; /* among the ordinary users' */
        Speech speech;
        bool eof;     /* the peer sends no more */
        bool closing; /* to be closed when `out` is taken */
        bool broken;  /* to be closed at once */
        TbBuffer in, out;
        NodeWait *waits;
        sd_event_source *io, *deadline;
};

struct NodeSocket {
        Node *node;
        int listen_fd; /* -EBADF: a node without a directory, which has TCP only */
        sd_event_source *accept;
        bool serving;
        uid_t root_uid; /* of the node's root, as the host sees it */
        bool has_root;
        NodeConnection *connections;
        NodeConnection *attached;
        unsigned n_connections, n_users, n_waits;
        TokenBucket rate;
        sd_event_source *thaw; /* set while nothing is read */
};

/* Takes the descriptor in every case. */
int node_connection_new(NodeSocket *s, int fd, bool tcp, bool root) _warn_unused_;
void node_connection_free(NodeConnection *c);
/* Goes on with what was received and could not be answered before. */
void node_connection_pump(NodeConnection *c);
/* To be called when something changed that says what the connection waits for. */
void node_connection_update(NodeConnection *c);

/* Takes a token; false: nothing of this node is to be read for a moment, and its connections know already. */
bool node_socket_may_ask(NodeSocket *s);
/* Is a new connection welcome? */
void node_socket_update_accept(NodeSocket *s);

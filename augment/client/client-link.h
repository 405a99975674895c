/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The connection to the agent (docs/node-protocol.md): JSON lines over a unix socket. What comes in is bounded (LINK_LINE_MAX) and must be
 * objects; anything else ends the connection.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "augment/client/client-text.h"

#define AGENT_SOCKET "/tbnode/run/agent.sock"
#define LINK_LINE_MAX (1024U * 1024)

/* Lines out of a stream of bytes. */
typedef struct LineReader {
        char *data;
        size_t size, room, taken;
} LineReader;

/* Takes bytes in. -EMSGSIZE: a line is longer than LINK_LINE_MAX; -ENOMEM. */
int line_reader_feed(LineReader *r, const char *data, size_t size) _warn_unused_;
/* The next whole line, without its end; valid until the next call. NULL: there is none yet. */
const char *line_reader_next(LineReader *r, size_t *ret_size);
void line_reader_done(LineReader *r);

/* A message as the agent may send it: an object. To be freed; NULL: it is none. */
json_t *message_parse(const char *line, size_t size);

typedef struct Link {
        int fd; /* nonblocking; -1: closed */
        LineReader in;
        Text out;
        size_t sent; /* of `out` */
} Link;

/* Negative errno: nobody listens there. */
int link_open(Link *l, const char *path) _warn_unused_;
void link_close(Link *l);
/* Queues a message (consumed; NULL is an error). */
int link_send(Link *l, json_t *message) _warn_unused_;
bool link_wants_write(const Link *l);
/* Writes what is queued, as far as it goes. */
int link_flush(Link *l) _warn_unused_;
/* Reads what is there. 0 at the end of the connection, 1 if it goes on, negative errno. */
int link_read(Link *l) _warn_unused_;
/* The next message (to be freed); NULL: none yet. *ret_bad is set when there was something else. */
json_t *link_next(Link *l, bool *ret_bad);

/* One question and its answer, for the commands. `request` is consumed. `timeout_ms` < 0: none. *ret = the answer, which said ok. -ENOTCONN: the agent isn't
 * reachable; others: it said no, or nothing; `why` says what and what to do. */
int link_ask(const char *path, json_t *request, int timeout_ms, json_t **ret, char *why, size_t why_size)
        _warn_unused_;
/* Connects a blocking socket. */
int agent_connect(const char *path) _warn_unused_;

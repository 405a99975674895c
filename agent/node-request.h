/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "agent/node-socket.h"

/* The operations of docs/node-protocol.md ("Requests"). */

typedef struct NodeWait NodeWait;

/* One line without its newline: does what it asks and answers, at once or later. */
void node_request_take(NodeConnection *c, const char *line, size_t size);
/* An answer that says no, without a request that could be told. */
void node_request_refuse(NodeConnection *c, const char *why);
/* The connection goes: what waits on it waits no more. */
void node_request_cancel(NodeConnection *c);

/* Pure, for tests and the fuzzer: is this text a request? *ret_op is borrowed from *ret. */
int node_request_parse(const char *line, size_t size, json_t **ret, const char **ret_op, TbError **err)
        _warn_unused_;

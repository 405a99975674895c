/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * TMCD over TCP, for stock Emulab clients: on the address that nodes have as the gateway of the control network, or on the
 * one of the configuration (`tmcd`). The control network may appear after the agent started, and again with other
 * addresses: the server follows what the running nodes' own gateway is. Who asks is told by the source address, which the
 * firewall pins to the node's veth.
 */

typedef struct TmcdServer TmcdServer;

int tmcd_server_new(Manager *m, TmcdServer **ret, TbError **err) _warn_unused_;
TmcdServer *tmcd_server_free(TmcdServer *s);
/* A node was looked at: is the server where this node looks for it? NULL: nothing happens. */
void tmcd_server_look(TmcdServer *s, const Node *n);

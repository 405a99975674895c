/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/manager.h"
#include "netctl/fw-model.h"

/* What the firewalls of this host's nodes say to a packet between a node and somebody, from the sender to the receiver. */

typedef struct FirewallQuestion {
        FwDirection direction; /* FW_IN or FW_OUT */
        FwPacket packet;       /* protocol, destination port */
        FwNetwork peer;
} FirewallQuestion;

/* {"verdict": "allow" | "deny", "host": is the host the other end, "steps": [what each node's rules said]}; NULL and *err. */
json_t *firewall_explain(Node *n, const FirewallQuestion *q, TbError **err);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Firewall of the nodes, independent of what the kernel is told with. Back ends: iptables (fw-iptables.c).
 *
 * Chains of a node (`<id>` = first 12 bytes of its id):
 *   TBNODE-<id>-O  what the node sends: first the source address of each pinned veth, then the style
 *   TBNODE-<id>-I  what is sent to the node: the style (not there for `open`)
 * They are reached from TBNODE-FORWARD and TBNODE-INPUT (what the node sends to the host itself), which are
 * the first rule of FORWARD and INPUT. What the host itself sends to a node is not filtered, as in the
 * original (emulab.md c.5:
 * `-A OUTPUT -d IP -j ACCEPT`): the host is trusted. In our chains "allowed" is RETURN, never ACCEPT: the
 * packet still has to pass the chains of the other node and everything that others (Docker, the operator)
 * have in FORWARD.
 *
 * Styles (emulab.md c.6, with what FwSite names):
 *   open    no filter; pinned source addresses hold
 *   basic   in: replies, ssh from anywhere, ICMP, everything from gateways;
 *           out: replies, DNS, NTP, ICMP, gateways, the agent's own port
 *   closed  in: replies, ICMP echo and ssh from gateways and servers only, everything from those;
 *           out: replies, DNS, NTP, the agent's own port
 * The last rule of basic and closed drops, in both directions. The host's own ssh to the node always works.
 */

typedef enum FwStyle {
        FW_NONE, /* no chains at all */
        FW_OPEN,
        FW_BASIC,
        FW_CLOSED,
        _FW_STYLE_MAX,
        _FW_STYLE_INVALID = -EINVAL,
} FwStyle;

const char *fw_style_to_string(FwStyle s);
FwStyle fw_style_from_string(const char *s);

typedef struct FwNetwork {
        struct in_addr address;
        uint8_t prefix; /* 0..32 */
} FwNetwork;

/* "10.1.0.0/16" or "10.1.2.3"; bits behind the prefix must be zero. TB_ERROR_CONFIG -EINVAL. */
int fw_network_parse(const char *s, FwNetwork *ret, TbError **err) _warn_unused_;

#define FW_SITE_MAX 32
/* What the site's configuration names. */
typedef struct FwSite {
        FwNetwork gateways[FW_SITE_MAX]; /* EMULAB_GWIP: control net routers, boss, ops */
        size_t n_gateways;
        FwNetwork servers[FW_SITE_MAX]; /* EMULAB_SERVERS */
        size_t n_servers;
        FwNetwork dns[FW_SITE_MAX];
        size_t n_dns;
        FwNetwork ntp[FW_SITE_MAX];
        size_t n_ntp;
        /* What the host itself offers its nodes over TCP, whatever their style (emulab.md c.5: the tmcc proxy); port 0: nothing. */
        FwNetwork agent;
        uint16_t agent_port;
} FwSite;

#define FW_LOCK_PATH "/run/xtables.lock"
#define FW_LOCK_TIMEOUT_MS 5000
#define FW_COMMIT_TRIES 3
#define FW_CHAIN_PREFIX "TBNODE-"
#define FW_ID_LENGTH 12

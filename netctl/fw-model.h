/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw.h"

/*
 * What a node's firewall is, in neutral terms. Both back ends make the kernel do what is written here, fw_explain() says in
 * user space what they do, and the same behaviour tests run against both.
 *
 * A packet of a node goes through, in this order:
 *   1. identity   (from the node, on a pinned interface) MAC and source address must be the interface's own; else dropped
 *   2. isolation  (between two nodes, whatever the way) both groups must be the same, or one of them 0; else dropped
 *   3. the list   of its direction, FW_IN and FW_OUT on filtered interfaces only, FW_HOST on all; the first rule that
 *                 matches decides, none: allowed
 * What goes from one node to another passes the sender's FW_OUT and the receiver's FW_IN: both must allow it. What the host
 * itself sends to a node is not filtered, as in the original (emulab.md c.5: `-A OUTPUT -d IP -j ACCEPT`): the host is trusted.
 *
 * Address translation (IPv4):
 *   ssh         new TCP connections to `ssh_port` of any address of the host go to port 22 of the node's address, before
 *               its FW_IN is asked
 *   masquerade  as FwSite says, after everything else
 */

#define FW_IPV6_MAX 4

/* One interface of a node: who it is. Everything was read and verified by netctl, nothing is the container's word. */
typedef struct FwInterface {
        char ifname[IFNAMSIZ]; /* host side of the veth */
        uint32_t ifindex;
        uint32_t bridge; /* master of the host side, 0: routed directly */
        char bridge_name[IFNAMSIZ];
        bool filtered, pinned; /* as in NetctlInterface */
        uint8_t mac[6];
        struct in_addr ipv4; /* 0: none may be used, when pinned */
        struct in6_addr ipv6[FW_IPV6_MAX];
        size_t n_ipv6; /* besides the link-local one that is made of the MAC, which is always allowed */
} FwInterface;

typedef struct FwNode {
        const char *id;
        const char *name; /* for the log */
        FwStyle style;    /* FW_NONE: remove */
        const FwInterface *interfaces;
        size_t n_interfaces;
        const FwRules *rules; /* of its user; NULL: none */
        uint16_t group;       /* number of its experiment; 0: not kept apart from anybody */
        uint16_t ssh_port;    /* host port for its ssh; 0: none */
        bool agent;           /* may reach FwSite.agent */
} FwNode;

/* The link-local address that Linux makes of a MAC (RFC 4291, appendix A). */
struct in6_addr fw_link_local(const uint8_t mac[static 6]);

/* Where its ssh is: the address of the first filtered interface that has one; INADDR_ANY: there is none. */
struct in_addr fw_node_address(const FwNode *node);

/* Compiled: the lists, ready to be encoded rule by rule. A style that filters ends in a rule that denies all. */
typedef struct FwPolicy {
        FwRules list[_FW_DIRECTION_MAX];
} FwPolicy;
void fw_policy_done(FwPolicy *p);
#define _cleanup_fw_policy_ _cleanup_(fw_policy_done)

/* `site` may be NULL. Of FW_NONE all lists are empty. */
int fw_policy_compile(const FwSite *site, const FwNode *node, FwPolicy *ret, TbError **err) _warn_unused_;

/* A packet that would begin a connection (or belongs to one, `reply`). */
typedef struct FwPacket {
        FwDirection direction;
        uint8_t protocol; /* IPPROTO_*; IPPROTO_ICMP for both families; 0: one that nobody names */
        bool echo;        /* ICMP: an echo request */
        bool reply;       /* ... of a connection that was allowed */
        FwNetwork source, destination; /* addresses, of one family */
        uint16_t source_port, destination_port;
        uint16_t peer_group; /* of the other node; 0: it is none */
} FwPacket;

typedef enum FwReason {
        FW_REASON_NO_FIREWALL, /* the node has no firewall, or none on an interface of this packet */
        FW_REASON_IDENTITY,    /* not an address of the node */
        FW_REASON_ISOLATION,
        FW_REASON_RULE,
        FW_REASON_NO_RULE, /* none matched */
        _FW_REASON_MAX,
} FwReason;
const char *fw_reason_to_string(FwReason r);

typedef struct FwDecision {
        FwVerdict verdict;
        FwReason reason;
        const FwRule *rule; /* FW_REASON_RULE; inside the policy */
        size_t position;    /* ... counted from 1 */
} FwDecision;

/* Does the rule match this packet? */
bool fw_rule_matches(const FwRule *r, const FwPacket *p);
/* Which step decides. `policy` is the node's. */
FwDecision fw_explain(const FwNode *node, const FwPolicy *policy, const FwPacket *packet);

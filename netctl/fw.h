/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Firewall of the nodes: the words that its users know. What they mean for a node is in fw-model.h, how the kernel is told
 * in the back ends (fw-backend.h).
 *
 * Styles (emulab.md c.6, with what FwSite names):
 *   none        nothing of ours at all: no rules, no pinned addresses, no isolation
 *   open        no filter between nodes and to the outside
 *   basic       in: replies, ssh from anywhere, ICMP, everything from gateways;
 *               out: replies, DNS, NTP, ICMP, everything to gateways
 *   closed      in: replies, everything from gateways and servers; out: replies, DNS, NTP
 *   elabinelab  basic, and in: what a testbed inside the node offers (http, https, image loader)
 * All but `none` pin addresses, keep experiments apart, deny what is for 169.254.0.0/16 (a cloud's metadata service), and let the node reach of the host itself only what is declared.
 *
 * Rules of users and of the site:
 *
 *   RULES  = RULE { ";" RULE }
 *   RULE   = ("allow" | "deny") [ "log" ] [ "in" | "out" ] [ WHAT ] [ "from" END ] [ "to" END ]
 *   WHAT   = "tcp" | "udp" | "icmp" [ "echo" ] | "proto" NUMBER | "any"
 *   END    = [ "any" | ADDRESS [ "/" PREFIX ] ] [ "port" PORT [ "-" PORT ] { "," PORT [ "-" PORT ] } ]
 *
 * Seen from the node: "in" is to the node. Without the word, a rule that says "to ADDRESS" but not "from ADDRESS" is an
 * "out" rule, every other one is "in". The first rule that matches decides; they come before those of the style.
 */

typedef enum FwStyle {
        FW_NONE,
        FW_OPEN,
        FW_BASIC,
        FW_CLOSED,
        FW_ELABINELAB,
        _FW_STYLE_MAX,
        _FW_STYLE_INVALID = -EINVAL,
} FwStyle;

const char *fw_style_to_string(FwStyle s);
FwStyle fw_style_from_string(const char *s);

/* An IPv4 or IPv6 address with prefix; AF_UNSPEC: everybody, of either family. */
typedef struct FwNetwork {
        sa_family_t family;
        uint8_t prefix; /* 0..32, 0..128 */
        union {
                struct in_addr ipv4;
                struct in6_addr ipv6;
                uint8_t bytes[16]; /* what the family does not use is zero */
        };
} FwNetwork;

/* "10.1.0.0/16", "10.1.2.3", "fd00::/8"; bits behind the prefix must be zero. TB_ERROR_CONFIG -EINVAL. */
int fw_network_parse(const char *s, FwNetwork *ret, TbError **err) _warn_unused_;
#define FW_NETWORK_TEXT_MAX (INET6_ADDRSTRLEN + 5)
/* "any", "10.1.2.3", "10.1.0.0/16". Returns buf. */
const char *fw_network_print(const FwNetwork *n, char buf[static FW_NETWORK_TEXT_MAX]);
FwNetwork fw_network_ipv4(struct in_addr address);
FwNetwork fw_network_ipv6(const struct in6_addr *address);
/* Does `n` hold the address (a network of full prefix)? */
bool fw_network_contains(const FwNetwork *n, const FwNetwork *address);

/* First to last; {0, 0}: any. */
typedef struct FwPorts {
        uint16_t first, last;
} FwPorts;

/* Which way, seen from the node. */
typedef enum FwDirection {
        FW_IN,   /* to the node */
        FW_OUT,  /* from the node, to anything but its host */
        FW_HOST, /* from the node to the host itself (never in rules of users: their "out" holds for both) */
        _FW_DIRECTION_MAX,
        _FW_DIRECTION_INVALID = -EINVAL,
} FwDirection;
const char *fw_direction_to_string(FwDirection d);

typedef enum FwVerdict {
        FW_ALLOW, /* as far as this node is concerned: the other node's and everybody else's rules still hold */
        FW_DENY, /* dropped without an answer */
} FwVerdict;

/* Whose rule it is. */
typedef enum FwOrigin {
        FW_ORIGIN_STATE, /* replies to what was allowed; neighbour discovery */
        FW_ORIGIN_USER,
        FW_ORIGIN_SITE,
        FW_ORIGIN_STYLE,
        FW_ORIGIN_HOST, /* what a node may reach of its host */
        _FW_ORIGIN_MAX,
} FwOrigin;
const char *fw_origin_to_string(FwOrigin o);

/* Conntrack states, or'ed. */
#define FW_STATE_ESTABLISHED 1U
#define FW_STATE_RELATED 2U
#define FW_STATE_UNTRACKED \
        4U /* of ICMPv6: neighbour discovery and MLD, and only these (nf_conntrack_proto_icmpv6.c) */

/* One rule. Matches when everything that is set does. */
typedef struct FwRule {
        FwVerdict verdict;
        FwOrigin origin;
        FwDirection direction;
        sa_family_t family; /* AF_UNSPEC: both; else as source and destination have it */
        uint8_t protocol;   /* 0: any; IPPROTO_*. IPPROTO_ICMP is ICMPv6 in IPv6 */
        bool echo;          /* of ICMP: echo requests only */
        uint8_t states;     /* FW_STATE_*, 0: any */
        FwNetwork source, destination;
        FwPorts source_ports, destination_ports; /* only with TCP and UDP */
        bool log;                                /* rate-limited, with the node's name */
} FwRule;

#define FW_RULES_MAX 64        /* of a user, of the site */
#define FW_RULES_TEXT_MAX 4096 /* bytes of their text */

typedef struct FwRules {
        FwRule *v;
        size_t n, allocated;
} FwRules;
void fw_rules_done(FwRules *r);
#define _cleanup_fw_rules_ _cleanup_(fw_rules_done)
int fw_rules_add(FwRules *r, const FwRule *rule, TbError **err) _warn_unused_;
int fw_rules_copy(const FwRules *from, FwRules *ret, TbError **err) _warn_unused_;
bool fw_rules_equal(const FwRules *a, const FwRules *b);

/* RULES as above; empty text is no rule. Several ports make several rules. `origin` is noted in each. TB_ERROR_CONFIG -EINVAL or
 * -E2BIG naming the rule and the word. */
int fw_rules_parse(const char *text, FwOrigin origin, FwRules *ret, TbError **err) _warn_unused_;
/* "STYLE [; RULES]": what the label tbnode.firewall holds. */
int fw_firewall_parse(const char *text, FwStyle *ret_style, FwRules *ret, TbError **err) _warn_unused_;

#define FW_RULE_TEXT_MAX 256
/* Canonical text; of a user's rule it parses back to the same. Returns buf. */
const char *fw_rule_print(const FwRule *r, char buf[static FW_RULE_TEXT_MAX]);
/* "STYLE; RULE; RULE". NULL when out of memory. */
char *fw_firewall_print(FwStyle style, const FwRules *rules);

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
        /* Rules for every node with a style that filters (syslog, NFS, pubsub of emulab.md c.6); behind those of its user. */
        FwRules rules;
        /* What the host offers over TCP to the nodes that are declared to need it (FwNode.agent: emulab.md c.5, the tmcc
         * proxy); port 0: nothing. */
        FwNetwork agent;
        uint16_t agent_port;
        /* What nodes of `masquerade` send to anywhere but `networks` and themselves gets the host's address. IPv4. */
        FwNetwork networks[FW_SITE_MAX];
        size_t n_networks;
        FwNetwork masquerade[FW_SITE_MAX];
        size_t n_masquerade;
        bool log;                    /* what a style's last rule denies is logged */
        const struct FwGuard *guard; /* fw-guard.h; NULL: no managed bridges */
} FwSite;

/* Logging: at most so many lines a minute for each rule, after a burst; the rest is dropped unseen. */
#define FW_LOG_PER_MINUTE 6
#define FW_LOG_BURST 5
/* "tbnode NAME in: ", for the kernel's log. `name` is cut so that all fits. Returns buf. */
#define FW_LOG_PREFIX_MAX 30 /* with the end; struct ipt_log_info */
const char *fw_log_prefix(const char *name, FwDirection direction, char buf[static FW_LOG_PREFIX_MAX]);

#define FW_LOCK_PATH "/run/xtables.lock"
#define FW_LOCK_TIMEOUT_MS 5000
#define FW_COMMIT_TRIES 3
#define FW_CHAIN_PREFIX "TBNODE-"
#define FW_ID_LENGTH 12

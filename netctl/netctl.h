/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "netctl/capabilities.h"
#include "netctl/fw-backend.h"
#include "netctl/shape-rule.h"

/*
 * netctl: traffic shaping and firewall of the containers ("nodes") of one host, on the host side of their
 * veths.
 *
 * The caller declares what each node shall have; netctl looks at the kernel, plans, writes the difference
 * and reads back. It keeps no state that matters: everything it needs to find its objects again (after a
 * crash, after the veth is gone) is in the kernel, by handle (qdiscs), name and alias (ifbs) and name
 * (chains). See docs in state.h.
 *
 * Calls are synchronous and take milliseconds: rtnetlink answers within the call; waiting for
 * /run/xtables.lock is bounded (FW_LOCK_TIMEOUT_MS), receive time-outs are NETCTL_TIMEOUT_MS. One thread at
 * a time. The calling thread's network namespace is "the host"; apply enters container namespaces for
 * moments (setns(2)) and always returns.
 */

typedef struct Netctl Netctl;

#define NETCTL_TIMEOUT_MS 2000
#define NETCTL_INTERFACES_MAX 64
#define NETCTL_NODES_MAX 4096
/* A node id: a container id or anything of [A-Za-z0-9], 1..64 bytes. The first 12 bytes name its chains and
 * must be unique on the host. */
#define NETCTL_ID_MAX 64

/* Which back end filters; see netctl_firewall_choose(). A host that was filtered by the other one before is moved node by node:
 * what the other one has of a node goes when the node's rules of this one are there, so that no moment is without. */
typedef enum NetctlFirewall {
        NETCTL_FIREWALL_AUTO,
        NETCTL_FIREWALL_IPTABLES,
        NETCTL_FIREWALL_NFTABLES,
        _NETCTL_FIREWALL_MAX,
        _NETCTL_FIREWALL_INVALID = -EINVAL,
} NetctlFirewall;
const char *netctl_firewall_to_string(NetctlFirewall f);
NetctlFirewall netctl_firewall_from_string(const char *s);

typedef struct NetctlOptions {
        /* Turn bridge-nf-call-iptables on where a filtered veth is a bridge port (else: an error). Default
         * true. */
        bool enable_bridge_nf;
        /* Firewall: servers and gateways of the site. Borrowed until netctl_free(); may be NULL. */
        const FwSite *site;
        /* Directories in which namespaces have names, NULL-terminated and borrowed; NULL: netns_list()'s. */
        char *const *netns_directories;
        /* Where the tables of `distribution NAME` are (netem-dist.h). Borrowed; NULL: NETEM_TABLES_DIRECTORY. */
        const char *distributions;
        NetctlFirewall firewall;
        /* Who holds the iptables lock is not waited for: what would have to be written then fails with
         * netctl_lock_is_busy(). Default false: FW_LOCK_TIMEOUT_MS. */
        bool try_lock;
        /* Names of bridges where no containers but nodes live: there, what is not known passes nothing (fw-guard.h).
         * NULL-terminated, borrowed until netctl_free(); may be NULL. */
        char *const *managed_bridges;
} NetctlOptions;

/* Is this the error of an iptables lock that another program holds? */
bool netctl_lock_is_busy(const TbError *e);

/* `options` may be NULL (the defaults). Opens its rtnetlink socket and notes the current network namespace;
 * probes nothing and writes nothing. Errors: TB_ERROR_ENVIRONMENT -EPERM without CAP_NET_ADMIN. */
int netctl_new(const NetctlOptions *options, Netctl **ret, TbError **err) _warn_unused_;
Netctl *netctl_free(Netctl *n);
TB_DEFINE_CLEANUP(Netctl *, netctl_free)

/* What this kernel can do; probed once in a throw-away network namespace (a forked child), then remembered.
 */
int netctl_capabilities(Netctl *n, const Capabilities **ret, TbError **err) _warn_unused_;

/* The back end for this host, and why, in words (static storage). `auto` is the one that has rules of nodes already; else nftables
 * where the kernel has what it needs, unless somebody on this host has something in the legacy tables and Docker is not on nftables:
 * what stands beside Docker's rules is seen by the same tools. Looks at the kernel, writes nothing. TB_ERROR_ENVIRONMENT -ENOENT: the kernel has not what was asked for. */
int netctl_firewall_choose(const Capabilities *caps, NetctlFirewall wanted, NetctlFirewall *ret,
        const char **ret_why, TbError **err) _warn_unused_;

/* One interface of a node. */
typedef struct NetctlInterface {
        uint8_t mac[6];      /* of the container's side: how it is found */
        const char *network; /* for messages and results ("exp1"); may be NULL */

        /* What to do with packets to (`down`) and from (`up`) the node. NULL: this direction carries nothing
         * of ours (what is ours is removed). An empty shape: our permanent root is there and lets everything
         * pass; give this after "clear" to a running node, because removing a root drops what is queued. */
        const Shape *up;
        const Shape *down;
        /* Traffic with a shape of its own, in the order of shape_match_compare(); only looked at in directions that are not
         * NULL. */
        const ShapeRule *rules;
        size_t n_rules;
        /* Somebody else on this network has a shape that counts packets (netctl_counts_packets()), so frames of many segments
         * must not leave this node. */
        bool per_packet;
        /* Where its host side belongs, if it is in the host's namespace: the bridge of this name, when it is a port of none
         * ("": nobody knows); and in a repair the one with this index, whatever it is a port of (0: as before). */
        char bridge_name[IFNAMSIZ];
        uint32_t bridge;

        /* Firewall, only looked at when the node has one: */
        bool filtered; /* the node's style holds for this interface (the control network) */
        bool pinned;   /* packets from the node with another source address than `ipv4` are dropped */
        struct in6_addr ipv6
                [FW_IPV6_MAX]; /* its IPv6 addresses besides the link-local one, as the engine gave them */
        size_t n_ipv6;
        struct in_addr
                ipv4; /* the address as the engine gave it; INADDR_ANY: read from the container's interface,
                       * which is only trustworthy before the container's own processes run */
} NetctlInterface;

/* Does the shape at this interface count packets, so that frames of many segments would distort it? */
bool netctl_counts_packets(const NetctlInterface *x);

typedef enum NetctlParts {
        NETCTL_ALL,
        NETCTL_SHAPES,   /* the firewall stays as it is */
        NETCTL_FIREWALL, /* the shapes stay as they are (up and down are not looked at) */
} NetctlParts;

/* Desired state of one node. Everything is borrowed for the duration of the call. */
typedef struct NetctlNode {
        const char *id;   /* see NETCTL_ID_MAX */
        const char *name; /* for messages; NULL: the id */
        int netns_fd;     /* the container's network namespace (/proc/PID/ns/net) */
        /* NULL, or a place to keep the number that the host has for that namespace, < 0 at first: what was found out by one call
         * the next one doesn't ask for. It holds as long as netns_fd is open, and not for what is opened after it. */
        int32_t *nsid;
        const NetctlInterface *interfaces;
        size_t n_interfaces;
        FwStyle style;     /* FW_NONE: no chains for this node (existing ones are removed) */
        NetctlParts parts; /* what of this node is declared here */
        /* Somebody else's qdiscs where ours belong, and their filters, are deleted. They do not come back: when ours are
         * removed the interface has what the kernel gives it. */
        bool replace_foreign;
        /* The node was configured, and somebody may have changed something since: what now stands in the place of ours came
         * later and goes, and host sides that were set down or taken from their bridge are put back. */
        bool repair;
        /* With try_lock: it is asked for again soon, so when only the lock is missing its shape is not put back meanwhile. */
        bool waits;
        /* Looked at for the first time: filters that somebody has put at our roots are looked for, too. (They are listed device by
         * device, and whoever puts them there while we listen is heard.) */
        bool thorough;
        /* With a style only; fw-model.h: */
        const FwRules *rules; /* of its user; NULL: none */
        uint16_t group;       /* number of its experiment; 0: not kept apart */
        uint16_t ssh_port;    /* host port for its ssh; 0: none */
        bool agent;           /* may reach FwSite.agent */
} NetctlNode;

/* How much a change disturbed, worst last. */
typedef enum NetctlChange {
        NETCTL_UNCHANGED,     /* nothing was written */
        NETCTL_IN_PLACE,      /* parameters changed, no packet dropped */
        NETCTL_LEAF_REPLACED, /* the queue was exchanged: what was in it is lost */
        NETCTL_REBUILT,       /* made, removed, or made anew */
        _NETCTL_CHANGE_MAX,
        _NETCTL_CHANGE_INVALID = -EINVAL,
} NetctlChange;
const char *netctl_change_to_string(NetctlChange c);

/* One rule as read back from the kernel. */
typedef struct NetctlRule {
        ShapeMatch match;
        Shape shape;    /* kernel's values; `limit` is always set */
        uint16_t class; /* 7462:<class> */
        uint64_t bytes, packets, drops;
} NetctlRule;

/* One direction as read back from the kernel. */
typedef struct NetctlDirection {
        bool present;          /* our root is there */
        Shape shape;           /* kernel's values; `limit` is always set (the effective one) */
        char device[IFNAMSIZ]; /* where: the host veth (down) or its ifb (up) */
        uint32_t burst_bytes;  /* of HTB */
        uint32_t quantum_bytes;
        bool netem; /* the leaf is netem (else pfifo) */
        /* Since the root was made: */
        uint64_t bytes, packets, drops, overlimits;
        uint32_t backlog_packets;
        NetctlRule *rules; /* most specific first */
        size_t n_rules;
} NetctlDirection;

typedef struct NetctlInterfaceStatus {
        uint8_t mac[6];
        char *network;         /* copy of NetctlInterface.network, or NULL */
        int ifindex;           /* inside the container */
        char ifname[IFNAMSIZ]; /* inside the container */
        char *host_netns;      /* the named namespace that the host side is in; NULL: the host's own */
        int host_ifindex;      /* the host side of the veth */
        char host_ifname[IFNAMSIZ];
        int bridge_ifindex;  /* master of the host side, 0: none */
        struct in_addr ipv4; /* pinned or read */
        NetctlDirection up;
        NetctlDirection down;
        /* May frames of many segments (TSO, GSO) leave the node? And why, in words, static storage. */
        bool offload_off;
        const char *offload;
        NetctlChange change;
} NetctlInterfaceStatus;

/* Outcome for one node. */
typedef struct NetctlNodeStatus {
        TbError *error; /* NULL: CONFIGURED as declared, and read back from the kernel. Else the node's state
                         * is what it was before the call (rolled back) and nothing below but `interfaces`
                         * found so far is valid. */
        NetctlInterfaceStatus *interfaces;
        size_t n_interfaces;
        bool firewall;          /* the node's chains are in the kernel */
        bool firewall_changed;  /* ... and were written by this call */
        bool bridge_nf_enabled; /* this call turned bridge-nf-call-iptables on: tell the operator */
        NetctlChange change;    /* the worst of the interfaces */
} NetctlNodeStatus;

/* Frees what is inside. */
void netctl_node_status_done(NetctlNodeStatus *s);

typedef struct NetctlReport {
        NetctlNodeStatus *nodes; /* one per node given, same order */
        size_t n_nodes;
        /* Kernel writes of the whole call: rtnetlink messages that change something, table commits, sysctls.
         */
        unsigned long netlink_writes, netlink_sends, firewall_commits, sysctl_writes;
        uint64_t resolve_ns, observe_ns, plan_ns, apply_ns, firewall_ns, verify_ns;
} NetctlReport;
void netctl_report_done(NetctlReport *r);
#define _cleanup_netctl_report_ _cleanup_(netctl_report_done)

/*
 * Brings the kernel to what `nodes` declare: resolve all veths, observe once, plan, ONE netlink batch for
 * all nodes, ONE firewall commit for all nodes, read back. An unchanged host gets zero writes. Nodes that
 * are not given are not touched.
 *
 * Failures of one node are in its status and do not hinder the others: bad id, interface not found, not a
 * veth, host side in another namespace, somebody else's qdisc in the way (TB_ERROR_ENVIRONMENT -EEXIST,
 * nothing replaced), kernel without a qdisc (TB_ERROR_ENVIRONMENT -ENOENT naming module and package),
 * container gone (-ESRCH or -ENODEV, retryable false). The function itself fails (and *ret is untouched)
 * only when nothing could be done at all: bad arguments, dumps failing. A firewall that could not be
 * committed (lock held for too long: retryable) fails every node that wanted a change there, and their
 * shaping is rolled back too: a node is configured wholly or not.
 */
int netctl_apply(Netctl *n, const NetctlNode *nodes, size_t n_nodes, NetctlReport *ret, TbError **err)
        _warn_unused_;

/* Reads the nodes' state from the kernel (same fields as apply, nothing is written; `up`/`down`/`style` are
 * ignored). */
int netctl_show(Netctl *n, const NetctlNode *nodes, size_t n_nodes, NetctlReport *ret, TbError **err)
        _warn_unused_;

/* What the kernel has of the nodes' firewall; `ret` has one entry per node, each is done with fw_readback_done(). A node that
 * cannot be looked at (its container is gone) is read as "not present". */
int netctl_firewall_show(Netctl *n, const NetctlNode *nodes, size_t n_nodes, FwReadback *ret, TbError **err)
        _warn_unused_;

/* The node as its firewall is told it, as far as it is declared (nothing is looked up): for fw_policy_compile() and fw_explain().
 * `interfaces` has room for NETCTL_INTERFACES_MAX and is borrowed by *ret, as is `node`. */
int netctl_firewall_describe(const NetctlNode *node, FwInterface *interfaces, FwNode *ret, TbError **err)
        _warn_unused_;

/* Takes away everything of this node: roots and ingress of its veths, ifbs, chains. Works with netns_fd < 0
 * and after the veths or the container are gone. Idempotent: nothing there is success. *ret_writes may be
 * NULL. */
int netctl_remove(Netctl *n, const NetctlNode *node, unsigned long *ret_writes, TbError **err) _warn_unused_;
/* Same for many, with one batch and one commit. */
int netctl_remove_many(Netctl *n, const NetctlNode *nodes, size_t n_nodes, unsigned long *ret_writes,
        TbError **err) _warn_unused_;

/* Removes what carries our tag and belongs to none of the `known` ids (NULL-terminated), and ifbs of known ids whose veth
 * is gone: ifbs (and the
 * ingress that feeds them), chains with their dispatch rules. With known empty: everything of ours on this
 * host. */
int netctl_sweep(Netctl *n, char *const *known, unsigned long *ret_removed, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <linux/pkt_sched.h>
#include <net/if.h>

#include "netctl/nlmsg.h"
#include "netctl/shape.h"

/*
 * The kernel objects of one shaped interface, as data: what observe.c reads, what state.c computes from shapes, what
 * plan.c compares. One struct for both sides, so that plan(x, x) is empty by construction and a roll-back is nothing but
 * plan(before, now).
 *
 *   host veth  root  HTB 7462: ── class 7462:1 (rate) ── leaf: netem 75xx: or pfifo 7463:          "down"
 *              ingress ffff: ── u32 match-all, pref 0x7462, ETH_P_ALL ── mirred redirect ─┐
 *   ifb tbi<N> root  HTB 7462: ── class 7462:1 (rate) ── leaf                       <──────┘         "up"
 *
 * Ownership is in the kernel: qdisc and class handles 7462 ("tb"), filter preference 0x7462, ifb name `tbi<ifindex of the
 * veth>` with alias `tbnode:<node id>:<ifindex>:up`. A root or ingress qdisc with other handles is foreign: reported, never
 * replaced. Qdiscs with handle 0 are the kernel's defaults and count as none.
 *
 * The root is permanent while the node runs: replacing a root deactivates the device and drops what is queued (pitfall
 * P13). A direction without a rate has the same tree with a class of TC_UNLIMITED: HTB then passes every packet on
 * arrival (its token bucket never empties at what a veth can carry), and a rate can be set later in place.
 *
 * The leaf's handle says what the kernel does not tell back: the distribution of the delay and whether the seed is the
 * user's (netem dumps neither a table's name nor that). Another distribution therefore is another leaf.
 */

#define TC_MAJOR_ROOT 0x7462U
#define TC_MAJOR_FIFO 0x7463U
#define TC_MAJOR_NETEM 0x7500U /* + distribution + 16 when seeded */
#define TC_SEEDED 0x10U
#define TC_FILTER_PREF 0x7462U
#define TC_HANDLE_ROOT (TC_MAJOR_ROOT << 16)
#define TC_HANDLE_CLASS (TC_HANDLE_ROOT | 1U)
/* bit/s; above any veth, below what costs HTB precision. */
#define TC_UNLIMITED UINT64_C(100000000000)

typedef enum TcOwner {
        TC_NONE,
        TC_OURS,
        TC_FOREIGN,
} TcOwner;

typedef struct HtbClass {
        uint64_t rate;   /* bytes/s; ceil is the same */
        uint32_t buffer; /* psched ticks (64 ns) at the rate; cbuffer is the same */
        uint32_t quantum;
} HtbClass;

typedef struct Netem {
        uint64_t latency, jitter; /* ns */
        uint64_t seed;
        uint32_t limit;
        uint32_t delay_correlation;
        uint32_t loss, loss_correlation;
        uint32_t duplicate, duplicate_correlation;
        uint32_t corrupt, corrupt_correlation;
        uint32_t reorder, reorder_correlation;
        uint32_t gap;
        bool seeded;  /* compare and send the seed */
        bool foreign; /* (decoded only) has options that we never set: loss model, slot, rate, ecn */
} Netem;

typedef enum LeafKind {
        LEAF_NONE,
        LEAF_PFIFO,
        LEAF_NETEM,
        LEAF_OTHER, /* somebody exchanged it */
        _LEAF_KIND_MAX,
} LeafKind;

typedef struct Leaf {
        LeafKind kind;
        uint32_t major;
        uint32_t limit; /* pfifo */
        Netem netem;
} Leaf;

typedef struct TcStats {
        uint64_t bytes, packets;
        uint32_t drops, overlimits, qlen;
} TcStats;

typedef struct TcTree {
        TcOwner owner;
        char kind[IFNAMSIZ]; /* of a foreign root */
        bool has_class;
        HtbClass htb_class;
        Leaf leaf;
        TcStats stats; /* read only, not compared */
} TcTree;

typedef struct IngressState {
        TcOwner owner;
        char kind[IFNAMSIZ];
        bool filtered;      /* our filter is there */
        uint32_t redirect;  /* ifindex it sends to; 0: that device is gone */
        unsigned n_foreign; /* (decoded only) filters of others */
} IngressState;

#define TC_ALIAS_MAX 128
#define TC_IFB_TXQLEN 1000U
/* ifbs get an ifindex of our choice, so that creating one and hanging queues on it fits into one batch. */
#define TC_IFB_INDEX_BASE 0x40000000U

typedef struct IfbState {
        bool present;
        bool foreign; /* (decoded only) the name or index is taken by something else */
        bool up;
        uint32_t ifindex;
        uint32_t txqlen;
        char name[IFNAMSIZ];
        char alias[TC_ALIAS_MAX];
} IfbState;

typedef struct IfaceState {
        uint32_t veth; /* ifindex of the host side */
        TcTree down;   /* on veth */
        IngressState ingress;
        IfbState ifb;
        TcTree up; /* on ifb */
} IfaceState;

/* Encoders and decoders of one kind of qdisc each; `options` is the payload of TCA_OPTIONS. */
typedef struct LeafVtable {
        const char *kind;
        const char *module;
        void (*encode)(NlWriter *w, const Leaf *leaf); /* puts TCA_OPTIONS */
        bool (*decode)(const NlAttr *options, Leaf *leaf);
        bool (*equal)(const Leaf *a, const Leaf *b);
} LeafVtable;

extern const LeafVtable leaf_pfifo_vtable;
extern const LeafVtable leaf_netem_vtable;
/* NULL for LEAF_NONE and LEAF_OTHER. */
const LeafVtable *leaf_vtable(LeafKind kind);
LeafKind leaf_kind_from_string(const char *kind);

/* HTB: root, class (tc-htb.c). */
void htb_encode_root(NlWriter *w);
void htb_encode_class(NlWriter *w, const HtbClass *c);
bool htb_decode_class(const NlAttr *options, HtbClass *ret);
/* The class for a rate in bit/s (0: unlimited) at an MTU; the rules are in tc-htb.c. */
void htb_class_for_rate(uint64_t rate_bps, uint32_t mtu, HtbClass *ret);
uint32_t htb_burst_bytes(const HtbClass *c);

/* Ingress, u32, mirred (tc-ingress.c): one match-all filter that redirects to `ifindex`. */
void ingress_encode_filter(NlWriter *w, uint32_t ifindex);
/* Takes one RTM_NEWTFILTER into the state of its device. */
void ingress_decode_filter(const struct nlmsghdr *h, IngressState *ret);

/* ifb (link-ifb.c) */
void ifb_encode_create(NlWriter *w, const IfbState *ifb);
void ifb_encode_setup(NlWriter *w, const IfbState *ifb);
void ifb_encode_delete(NlWriter *w, uint32_t ifindex);
/* Name, alias, index of the ifb for a veth. -EINVAL: the id is too long. */
int ifb_identity(uint32_t veth, const char *node_id, IfbState *ret);
/* Parses an alias of ours; false when it is none. `id` has room for TC_ALIAS_MAX. */
bool ifb_parse_alias(const char *alias, char *id, uint32_t *veth);

/* The table for netem's tabledist() (netem-dist.c): 4096 entries of a distribution with mean 0 and deviation 1, scaled by
 * NETEM_DIST_SCALE. NULL for uniform. Computed once. */
const int16_t *netem_distribution(ShapeDistribution d, size_t *ret_entries);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <linux/pkt_sched.h>
#include <net/if.h>

#include "netctl/classify.h"
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
 * An interface with rules (shape-rule.h) has, under the same root, one more class with its own leaf for each of them,
 * 7462:2 and up, and BPF programs at the root that say which class a packet belongs to (classify.h); what they don't know
 * goes to class 1 as before. Nothing but the programs changes when another rule comes or goes. Programs are exchanged all at
 * once: the new ones are put under the other of two preferences, then the old preference goes.
 *
 * Ownership is in the kernel: qdisc and class handles 7462 ("tb"), filter preference 0x7462, ifb name `tbi<ifindex of the
 * veth>` with alias `tbnode:<node id>:<ifindex>:up`. A root or ingress qdisc with other handles is foreign: reported, never
 * replaced. Qdiscs with handle 0 are the kernel's defaults and count as none.
 *
 * The root is permanent while the node runs: replacing a root deactivates the device and drops what is queued (pitfall
 * P13). A direction without a rate has the same tree with a class of TC_UNLIMITED: HTB then passes every packet on
 * arrival (its token bucket never empties at what a veth can carry), and a rate can be set later in place.
 *
 * What the kernel does not tell back about a netem is the name of its table and whose its seed is. Both are noted in netem's
 * packet and cell overhead (TCA_NETEM_RATE): the kernel keeps and dumps these, and uses them only with a rate of netem's own,
 * which we never give (shape.h says why). So another distribution is a change in place.
 *
 * A leaf's handle says which class it is of and its kind, because one handle cannot become another kind (leaf_major()).
 */

#define TC_MAJOR_ROOT 0x7462U
#define TC_MAJOR_LEAF 0x7500U /* + variant: of class 1 */
#define TC_MAJOR_LEAVES \
        0x8004U /* + 6 * (class - 2) + variant: of further classes; both are multiples of 6 */
#define TC_MAJOR_VARIANTS 6U
#define TC_FILTER_PREF 0x7462U
#define TC_PROGRAM_PREF 0x7462U /* and the next */
#define TC_GENERATIONS 2
#define TC_CLASS_DEFAULT 1U
#define TC_CLASS_RULES 2U /* .. 2 + SHAPE_RULES_MAX - 1 */
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
        uint16_t overhead, mpu; /* bytes per frame */
        bool atm;               /* counts cells of 53 bytes for 48 */
} HtbClass;

typedef enum NetemLoss {
        NETEM_RANDOM,  /* loss, loss_correlation */
        NETEM_STATE,   /* loss_state */
        NETEM_GEMODEL, /* loss_gemodel */
} NetemLoss;

typedef struct Netem {
        uint64_t latency, jitter; /* ns */
        uint64_t seed;
        uint64_t slot_min, slot_max, slot_delay, slot_jitter; /* ns */
        uint64_t rate;                                        /* (decoded only) bytes/s; never ours */
        uint32_t slot_packets, slot_bytes;
        uint32_t table, slot_table; /* netem-dist.h; 0: none, that is uniform */
        uint32_t limit;
        uint32_t delay_correlation;
        NetemLoss loss_model;
        uint32_t loss, loss_correlation;
        uint32_t loss_state[_SHAPE_STATE_MAX];
        uint32_t loss_gemodel[_SHAPE_GE_MAX]; /* as in Shape: 1-h, not h */
        uint32_t duplicate, duplicate_correlation;
        uint32_t corrupt, corrupt_correlation;
        uint32_t reorder, reorder_correlation;
        uint32_t gap;
        bool ecn;
        bool seeded; /* compare and send the seed */
        bool reset_table; /* (not compared) a table is there that the kernel would go on using: send a uniform one */
} Netem;

typedef struct Red {
        uint32_t limit, min, max; /* bytes */
        uint32_t probability;     /* of 2^32 */
        uint8_t wlog, plog, cell_log;
        bool ecn, harddrop, adaptive;
        double damping; /* (not told back, not compared) powers of two that the average loses per tick of idle time */
} Red;

typedef enum LeafKind {
        LEAF_NONE,
        LEAF_PFIFO,
        LEAF_BFIFO,
        LEAF_NETEM,
        LEAF_RED,
        LEAF_BLACKHOLE,
        LEAF_OTHER, /* somebody exchanged it */
        _LEAF_KIND_MAX,
} LeafKind;

typedef struct Leaf {
        LeafKind kind;
        uint32_t major;
        union {
                uint32_t limit; /* fifos: packets or bytes */
                Netem netem;
                Red red;
        };
} Leaf;

typedef struct TcStats {
        uint64_t bytes, packets;
        uint32_t drops, overlimits, qlen;
} TcStats;

/* The class of one rule. */
typedef struct TcRule {
        uint16_t minor;
        bool has_class; /* (decoded only) false: a leaf without class can't be, but was seen on its own */
        HtbClass htb_class;
        Leaf leaf;
        TcStats stats;           /* read only, not compared */
        const ShapeMatch *match; /* whose it is; NULL: no program leads to it. Not compared */
} TcRule;

#define TC_STRANGERS_MAX 8 /* what is more is found when these are gone */

typedef struct TcTree {
        TcOwner owner;
        char kind[IFNAMSIZ]; /* of a foreign root */
        bool has_class;
        HtbClass htb_class;
        Leaf leaf;
        TcStats stats; /* read only, not compared */
        TcRule *rules; /* sorted by minor, in the arena of the state, like what follows */
        size_t n_rules;
        Programs programs[TC_GENERATIONS];
        /* Preferences of filters that somebody has put before ours: they lead packets past their classes. (decoded only) */
        uint16_t strangers[TC_STRANGERS_MAX];
        unsigned n_strangers;
} TcTree;

typedef struct IngressState {
        TcOwner owner;
        char kind[IFNAMSIZ];
        bool filtered;      /* our filter is there */
        uint32_t redirect;  /* ifindex it sends to; 0: that device is gone */
        unsigned n_foreign; /* (decoded only) filters of others */
} IngressState;

/* The class of a rule, or NULL. */
TcRule *tree_find_rule(const TcTree *t, uint16_t minor);
/* Says of each class whose it is, as the programs carry it; the generation that the kernel asks first counts. -ENOMEM. */
int tree_name_rules(TcTree *t, Arena *arena) _warn_unused_;

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
        bool ruled;    /* (given to observe()) look for classes of rules in any case */
        bool thorough; /* (given to observe()) look for filters of others at our roots in any case */
        TcTree down;   /* on veth */
        IngressState ingress;
        IfbState ifb;
        TcTree up; /* on ifb */
} IfaceState;

/* Encoders and decoders of one kind of qdisc each; `options` is the payload of TCA_OPTIONS (empty when the kernel gave none). */
typedef struct LeafVtable {
        const char *kind;
        const char *module;
        void (*encode)(NlWriter *w, const Leaf *leaf); /* puts TCA_OPTIONS */
        bool (*decode)(const NlAttr *options, Leaf *leaf);
        bool (*equal)(const Leaf *a, const Leaf *b);
        bool change_drops; /* the kernel makes a new queue when parameters change */
} LeafVtable;

extern const LeafVtable leaf_pfifo_vtable;
extern const LeafVtable leaf_bfifo_vtable;
extern const LeafVtable leaf_netem_vtable;
extern const LeafVtable leaf_red_vtable;
extern const LeafVtable leaf_blackhole_vtable;
/* NULL for LEAF_NONE and LEAF_OTHER. */
const LeafVtable *leaf_vtable(LeafKind kind);
LeafKind leaf_kind_from_string(const char *kind);

/* The handle of the leaf of class 7462:<class> (1..). `slotted`: a netem that has got a table for slots, which the kernel
 * never lets go, so that it can't do "slot MIN MAX" any more. */
uint32_t leaf_major(LeafKind kind, bool slotted, uint32_t class);
bool leaf_is_slotted(const Leaf *leaf);

/* Fills in everything that follows from limit, min, max, probability and the rate (bit/s): tc-red.c. */
void red_compute(Red *red, uint64_t rate_bps);

/* HTB: root, class (tc-htb.c). */
void htb_encode_root(NlWriter *w);
void htb_encode_class(NlWriter *w, const HtbClass *c);
bool htb_decode_class(const NlAttr *options, HtbClass *ret);
/* The class for a rate in bit/s (0: unlimited) at an MTU; the rules are in tc-htb.c. */
void htb_class_for_rate(uint64_t rate_bps, uint32_t mtu, HtbClass *ret);
/* The same for all of a shape that is the class's business: rate, overhead, mpu, linklayer, burst, quantum. And back, without
 * burst and quantum (NetctlDirection has them). */
void htb_class_for_shape(const Shape *s, uint32_t mtu, HtbClass *ret);
void htb_class_to_shape(const HtbClass *c, Shape *s);
bool htb_class_equal(const HtbClass *a, const HtbClass *b);
uint32_t htb_burst_bytes(const HtbClass *c);

/* cls_bpf (tc-bpf.c): one program at a root, under generation 0 or 1, with handle 1, 2, ... */
void program_encode(NlWriter *w, const Program *p);
/* Takes one RTM_NEWTFILTER of our root into the tree; what is not ours is left out. -ENOMEM. */
int program_decode(const struct nlmsghdr *h, Arena *arena, TcTree *tree);
/* Notes a filter that is none of ours in tree->strangers. */
void program_decode_stranger(const struct nlmsghdr *h, TcTree *tree);

/* Ingress, u32, mirred (tc-ingress.c): one match-all filter that redirects to `ifindex`. */
void ingress_encode_filter(NlWriter *w, uint32_t ifindex);
/* Takes one RTM_NEWTFILTER into the state of its device. */
void ingress_decode_filter(const struct nlmsghdr *h, IngressState *ret);

/* ifb (link-ifb.c) */
void ifb_encode_create(NlWriter *w, const IfbState *ifb);
void ifb_encode_setup(NlWriter *w, const IfbState *ifb);
void ifb_encode_delete(NlWriter *w, uint32_t ifindex);
/* Many at once: put them into a group that is nobody's, and delete that. */
void ifb_encode_group(NlWriter *w, uint32_t ifindex, uint32_t group);
void ifb_encode_delete_group(NlWriter *w, uint32_t group);
/* Name, alias, index of the ifb for a veth. -EINVAL: the id is too long. */
int ifb_identity(uint32_t veth, const char *node_id, IfbState *ret);
/* Parses an alias of ours; false when it is none. `id` has room for TC_ALIAS_MAX. */
bool ifb_parse_alias(const char *alias, char *id, uint32_t *veth);

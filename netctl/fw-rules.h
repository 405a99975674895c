/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw-xt.h"

/*
 * What the tables shall hold of the nodes: chains with their rules, and how packets get to them.
 *
 * Chains of a node (`<id>` = first 12 bytes of its id), made only where they have something to say:
 *   TBNODE-<id>-O  from the node, filtered interfaces: identity, number of its experiment, FW_OUT
 *   TBNODE-<id>-I  to the node, filtered interfaces: isolation, FW_IN
 *   TBNODE-<id>-Q, -P  the same of its other interfaces, without the lists
 *   TBNODE-<id>-H  to the host: identity, FW_HOST; where this is what -O says, -O is used
 *   TBNODE-<id>-S  its source addresses, where there are several
 *   TBNODE-<id>-N  (nat) its ssh
 * In our chains "allowed" is RETURN, never ACCEPT: the packet still has to pass the chains of the other node and everything
 * that others (Docker, the operator) have in FORWARD. (nat is different: there ACCEPT ends the table, not the filter.)
 *
 * They are reached from TBNODE-FORWARD and TBNODE-INPUT (and of nat TBNODE-PREROUTING and -OUTPUT), which are the first rule
 * of the built-in chains, through dispatch trees: fw-tree.h.
 *
 * Isolation: the number of the sender's experiment is put into the upper half of the packet's mark on its way through
 * TBNODE-FORWARD and compared there by the receiver. What comes in with something in that half has it cleared first, so it
 * cannot be brought along; the lower half belongs to others.
 */

#define FW_CHAIN_FORWARD FW_CHAIN_PREFIX "FORWARD"
#define FW_CHAIN_INPUT FW_CHAIN_PREFIX "INPUT"
#define FW_CHAIN_FROM FW_CHAIN_PREFIX "FROM"
#define FW_CHAIN_TO FW_CHAIN_PREFIX "TO"
#define FW_CHAIN_PREROUTING FW_CHAIN_PREFIX "PREROUTING"
#define FW_CHAIN_OUTPUT FW_CHAIN_PREFIX "OUTPUT"
#define FW_CHAIN_POSTROUTING FW_CHAIN_PREFIX "POSTROUTING"
#define FW_CHAIN_MASQUERADE FW_CHAIN_PREFIX "MASQUERADE"
#define FW_MARK_MASK UINT32_C(0xffff0000)
#define FW_MARK_SHIFT 16

typedef enum XtTable {
        XT_FILTER,
        XT_NAT,
} XtTable;

typedef struct Chain {
        char name[XT_FUNCTION_MAXNAMELEN];
        Rules rules;
        /* Rules that come before those of a list (identity, isolation), and whose list it is. */
        size_t preamble;
        FwDirection direction;
} Chain;

/* Sorted by name when asked to be. */
typedef struct Chains {
        Chain *v;
        size_t n, allocated;
} Chains;
void chains_done(Chains *c);
#define _cleanup_chains_ _cleanup_(chains_done)
/* A new, empty one; valid until the next call. NULL: no memory. */
Chain *chains_add(Chains *c, const char *name);
void chains_sort(Chains *c);
Chain *chains_find(const Chains *c, const char *name);
/* -ENOMEM when one of its rules could not be made. */
int chains_check(const Chains *c, TbError **err) _warn_unused_;

/* Which tree: what it looks at and where it hangs. */
typedef enum TreeKind {
        TREE_SOURCE,      /* FORWARD: source address */
        TREE_DESTINATION, /* FORWARD: destination address */
        TREE_FROM_PORT, /* FORWARD: name of the bridge port it came in through, when TREE_SOURCE knew nothing */
        TREE_FROM_DEVICE, /* ... of the device, for veths that are no bridge ports */
        TREE_TO_PORT,     /* FORWARD: ... it leaves through, when TREE_DESTINATION knew nothing */
        TREE_TO_DEVICE,
        TREE_HOST_PORT, /* INPUT: name of the bridge port it came in through */
        TREE_HOST_DEVICE,
        TREE_SSH, /* nat: host port */
        _TREE_MAX,
} TreeKind;

/* One way to a node's chain. */
typedef struct Leaf {
        TreeKind kind;
        uint8_t key[16];       /* name, address, or port (big-endian); zero behind its end */
        char device[IFNAMSIZ]; /* with an address: the veth it must come from or go to */
        bool physdev;          /* ... which is a bridge port */
        size_t order;
        char target[XT_FUNCTION_MAXNAMELEN];
} Leaf;

typedef struct Leaves {
        Leaf *v;
        size_t n, allocated;
} Leaves;
void leaves_done(Leaves *l);
#define _cleanup_leaves_ _cleanup_(leaves_done)
int leaves_add(Leaves *l, const Leaf *leaf, TbError **err) _warn_unused_;

/* "TBNODE-<id>-<letter>". */
void fw_chain_name(const char *id, char letter, char ret[static XT_FUNCTION_MAXNAMELEN]);
/* The short id of a node's chain; false for every other one. */
bool fw_chain_id(const char *chain, char ret[static FW_ID_LENGTH + 1]);
/* Ours, but no node's. */
bool fw_chain_is_common(const char *chain);

/* Appends the node's chains and leaves for one table. */
int node_compile(const XtFamily *family, XtTable table, const FwNode *node, const FwPolicy *policy,
        Chains *chains, Leaves *leaves, TbError **err) _warn_unused_;

/* The chains that all nodes share: trees of these leaves, the chains they hang in, masquerading. `leaves` gets sorted. */
int common_compile(const XtFamily *family, XtTable table, const FwSite *site, Leaves *leaves, Chains *chains,
        TbError **err) _warn_unused_;

/* Does this table have anything to do for the site or one of the nodes? */
bool table_is_needed(XtTable table, const FwSite *site, const FwNode *nodes, size_t n);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/netctl.h"
#include "netctl/observe.h"
#include "netctl/tc.h"

typedef enum OpKind {
        OP_IFB_CREATE,
        OP_IFB_SETUP,
        OP_IFB_DELETE,
        OP_LINK_UP,
        OP_LINK_MASTER,
        OP_ROOT_ADD,
        OP_ROOT_DELETE,
        OP_CLASS_ADD,
        OP_CLASS_CHANGE,
        OP_CLASS_DELETE,
        OP_LEAF_ADD,
        OP_LEAF_CHANGE,
        OP_LEAF_RESET, /* parameters of a kind that makes a new queue then */
        OP_LEAF_REPLACE,
        OP_INGRESS_ADD,
        OP_INGRESS_DELETE,
        OP_FILTER_ADD,
        OP_PROGRAM_ADD,
        OP_PROGRAMS_DELETE, /* of one generation */
        OP_FOREIGN_ROOT_DELETE,
        OP_FOREIGN_INGRESS_DELETE,
        OP_STRANGER_DELETE, /* filters of others at our root, of the preference `handle` */
        _OP_KIND_MAX,
} OpKind;

/* One rtnetlink message to be. */
typedef struct Op {
        OpKind kind;
        uint32_t device; /* ifindex */
        size_t owner;    /* the caller's: which interface this is for */
        uint16_t minor;  /* class operations and leaves: of which class; 0: the default one */
        union {
                const IfbState *ifb; /* borrowed */
                HtbClass htb_class;
                const Leaf *leaf; /* borrowed */
                uint32_t redirect;
                uint32_t master; /* ifindex of the bridge */
                struct {
                        int generation;
                        uint32_t handle;
                        Program program; /* borrowed */
                };
        };
} Op;

typedef struct Plan {
        Op *ops;
        size_t n, allocated;
} Plan;
void plan_done(Plan *p);
#define _cleanup_plan_ _cleanup_(plan_done)

const char *op_to_string(OpKind k);
NetctlChange op_change(OpKind k);

/*
 * Appends to `plan` what turns `actual` into `desired` (same veth), in the order in which the kernel must be told: an ifb
 * carries its whole tree before packets are sent to it, and gets no packets any more before it goes; classes of rules come
 * before the programs that lead to them and go after them. Pure; plan(x, x) appends nothing. What it appends borrows from
 * `desired` and its arena.
 *
 * *ret_change: the worst class of the operations. Fails with TB_ERROR_ENVIRONMENT -EEXIST, and appends nothing, when
 * something foreign is in the way of what is desired; foreign objects where nothing is desired are left alone. With
 * `replace_foreign` qdiscs in the way are deleted first, and filters with them; a device in the place of our ifb never is.
 */
int plan_iface(const IfaceState *desired, const IfaceState *actual, bool replace_foreign, size_t owner,
        Plan *plan, NetctlChange *ret_change, TbError **err) _warn_unused_;

/* Appends what puts the host side of a veth back to where it was: up, and (`bridge` not 0) a port of that bridge. */
int plan_link(const Link *host, uint32_t bridge, size_t owner, Plan *plan, NetctlChange *change,
        TbError **err) _warn_unused_;

/* What the kernel would hold after `op`, on a model (for the tests of the planner and for nothing else in the kernel's
 * stead). */
void plan_simulate(const Op *op, IfaceState *s, Arena *arena);

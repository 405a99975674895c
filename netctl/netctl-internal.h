/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/apply.h"
#include "netctl/fw-backend.h"
#include "netctl/netctl.h"
#include "netctl/observe.h"
#include "netctl/state.h"
#include "netctl/veth.h"

struct Netctl {
        NetctlOptions options;
        Rtnl *rtnl;
        int host_fd; /* the host's network namespace */
        bool have_caps;
        Capabilities caps;
};

/* One interface of one node on its way through a call. */
typedef struct Iface {
        size_t node; /* index into nodes[] */
        const NetctlInterface *want;
        ContainerInterface inside;
        Link host;
        NetctlChange change;
} Iface;

/* All resolved interfaces of a call, node by node, and what each node's trouble is. */
typedef struct Work {
        const NetctlNode *nodes;
        size_t n_nodes;
        TbError **errors; /* per node */
        size_t *first;    /* per node: its interfaces are first[i] .. first[i + 1] - 1 */
        Iface *ifaces;
        size_t n_ifaces;
        IfaceState *before, *desired, *now; /* per interface */
        Links links;
        Arena arena;                   /* what the states are too small for */
        bool *fw_changed, *fw_present; /* per node */
} Work;
void work_done(Work *w);
#define _cleanup_work_ _cleanup_(work_done)

bool netctl_may_write(Netctl *n);
int node_check_id(const char *id, TbError **err) _warn_unused_;

/* Checks ids, dumps the host's links, enters each container and finds its veths, reads the kernel into before[]. Trouble
 * of a node goes to errors[]; < 0 when nothing can be done at all. `optional`: nodes without namespace are fine and have no
 * interfaces (removal). */
int work_prepare(Netctl *n, Work *w, const NetctlNode *nodes, size_t n_nodes, bool optional, TbError **err)
        _warn_unused_;

/* In words, for the status. */
const char *offload_decision(const Shape *up, const Shape *down);

/* Puts the interface's names before a message about it. */
void work_name_error(TbError **err, const Work *w, size_t iface);

/* The firewall of the call's nodes: one call of the back end; trouble goes to errors[]. netctl-firewall.c */
int work_apply_firewall(Netctl *n, Work *w, FwOutcome *outcome, TbError **err) _warn_unused_;
/* `ret`: one entry per node; those with errors are not touched. */
int work_read_firewall(Netctl *n, Work *w, FwReadback *ret, TbError **err) _warn_unused_;

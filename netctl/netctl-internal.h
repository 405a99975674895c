/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/apply.h"
#include "netctl/fw-backend.h"
#include "netctl/fw-guard.h"
#include "netctl/inside.h"
#include "netctl/netctl.h"
#include "netctl/observe.h"
#include "netctl/state.h"
#include "netctl/veth.h"

#define NETCTL_SPACES_MAX 256

struct Netctl {
        NetctlOptions options;
        Rtnl *rtnl;
        int host_fd; /* the host's network namespace */
        /* Other namespaces in which something of ours may be; all of those that have a name until they were looked at once. */
        struct {
                dev_t dev;
                ino_t ino;
        } spaces[NETCTL_SPACES_MAX];
        size_t n_spaces;
        bool looked;
        bool have_caps;
        Capabilities caps;
        bool asked_netem, has_netem;
        const FwBackend *backend; /* NULL: not chosen yet */
};

/* A namespace in which host sides of veths are, for the time of a call. The first one is the host's own. */
typedef struct Space {
        int fd;
        Rtnl *rtnl;
        char *path; /* NULL: the host */
        dev_t dev;
        ino_t ino;
        Links links;
        Plan plan;
} Space;

/* One interface of one node on its way through a call. */
typedef struct Iface {
        size_t node;  /* index into nodes[] */
        size_t space; /* index into spaces[] */
        const NetctlInterface *want;
        ContainerInterface inside;
        Link host;
        NetctlChange change;
        uint32_t segments_before, segments_wanted; /* netctl-offload.c */
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
        Space *spaces;
        size_t n_spaces;
        Arena arena;                   /* what the states are too small for */
        bool *fw_changed, *fw_present; /* per node */
        ApplyCounts *offload_counts;   /* set: work_prepare() also says how many segments frames may have */
        /* Of a host full of nodes a call for a few reads what concerns them. spaces[0].links are these then, and no others. */
        bool few;
        LinkKey *keys;
        size_t n_keys;
} Work;
void work_done(Work *w);
#define _cleanup_work_ _cleanup_(work_done)

bool netctl_may_write(Netctl *n);
/* Asked of the kernel once, with one message. */
bool netctl_has_netem(Netctl *n);
int node_check_id(const char *id, TbError **err) _warn_unused_;

/* Checks ids, dumps the host's links, enters each container and finds its veths, reads the kernel into before[]. Trouble
 * of a node goes to errors[]; < 0 when nothing can be done at all. `optional`: nodes without namespace are fine and have no
 * interfaces (removal). */
int work_prepare(Netctl *n, Work *w, const NetctlNode *nodes, size_t n_nodes, bool optional, TbError **err)
        _warn_unused_;

/* The host's namespace as the first space; with `list`, its links listed. */
int spaces_begin(Netctl *n, Work *w, bool list, TbError **err) _warn_unused_;
/* The space of a namespace (fd is duplicated), entered and its links listed when it is new. */
int spaces_add(Netctl *n, Work *w, int fd, const char *path, size_t *ret, TbError **err) _warn_unused_;
/* All other namespaces in which something of ours may be. Those that can't be entered are left out. */
int spaces_add_known(Netctl *n, Work *w, TbError **err) _warn_unused_;
void spaces_done(Work *w);

/* Before anything is resolved: are these few nodes, all of whose interfaces are veths between a container and the host? Then *insides
 * has them, and the links of the first space are theirs, their bridges and their ifbs: 1. Else 0, and everything has to be listed.
 * (work-few.c) */
int work_read_few(Netctl *n, Work *w, Insides *insides, TbError **err) _warn_unused_;
/* These links again. */
int work_read_few_links(Work *w, TbError **err) _warn_unused_;
/* What is to be asked for from outside, per node: its namespace (-EBADF: nothing), and the number it is known to have. */
int work_ask(const Work *w, int **ret_fds, int32_t **ret_known, TbError **err) _warn_unused_;

/* Lists the links of all spaces again and reads the state of all interfaces into states[]. */
int work_observe_again(Work *w, IfaceState *states, TbError **err) _warn_unused_;
int work_observe(Work *w, IfaceState *states, TbError **err) _warn_unused_;
/* One batch for each space, after which their plans are empty. */
int work_apply(Work *w, TbError **errors, ApplyCounts *counts, TbError **err) _warn_unused_;
/* Links of the namespace of interface i. */
const Links *work_links(const Work *w, size_t i);

/* What the caller gets to see; states[] per interface (netctl-report.c). */
int work_report(Work *w, const IfaceState *states, bool bridge_nf, NetctlReport *ret, TbError **err)
        _warn_unused_;
/* The back end's calls with the guard in place; `links` as of now (NULL: read here). */
int firewall_apply(Netctl *n, const Links *links, const FwNode *nodes, size_t count, bool sweep,
        char *const *keep, FwOutcome *outcome, TbError **err) _warn_unused_;
int firewall_read(Netctl *n, const Links *links, const FwNode *nodes, size_t count, FwReadback *ret,
        TbError **err) _warn_unused_;
/* Takes away what the other back end has of these nodes and (`sweep`) of all that are not in `keep`. */
int firewall_leave_other(Netctl *n, const FwNode *nodes, size_t count, bool sweep, char *const *keep,
        FwOutcome *outcome, TbError **err) _warn_unused_;

/* How many segments the frames of a node may have: netctl-offload.c. `inside` is a socket of its namespace, or NULL: one is
 * opened if there is anything to write. */
int work_apply_offload(Netctl *n, Work *w, size_t node, Rtnl *inside, TbError **err) _warn_unused_;
/* Puts back what work_apply_offload() changed for nodes that have an error. */
/* It failed, and is not asked for again at once: it goes back to what it was. */
bool work_goes_back(const Work *w, size_t node);
void work_undo_offload(Netctl *n, Work *w, ApplyCounts *counts);
/* Gives interfaces that have our mark the kernel's default. */
int work_remove_offload(Netctl *n, Work *w, ApplyCounts *counts, TbError **err) _warn_unused_;
bool offload_is_off(const Link *inside);
/* In words, for the status. */
const char *offload_decision(const Link *inside, const NetctlInterface *x);

/* Puts the interface's names before a message about it. */
void work_name_error(TbError **err, const Work *w, size_t iface);

/* The firewall of the call's nodes: one call of the back end; trouble goes to errors[]. netctl-firewall.c */
int work_apply_firewall(Netctl *n, Work *w, FwOutcome *outcome, TbError **err) _warn_unused_;
/* `ret`: one entry per node; those with errors are not touched. */
int work_read_firewall(Netctl *n, Work *w, FwReadback *ret, TbError **err) _warn_unused_;

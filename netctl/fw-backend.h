/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw-model.h"

/* What a firewall back end is told and tells. */

/* Packets and bytes that a node's rules have seen, by verdict. */
typedef struct FwCounters {
        uint64_t packets[_FW_DIRECTION_MAX],
                bytes[_FW_DIRECTION_MAX]; /* entered the node's chain of that direction */
        uint64_t dropped_identity, dropped_isolation, dropped_rules; /* packets */
} FwCounters;

/* One rule as read back. */
typedef struct FwRuleCount {
        FwRule rule;
        uint64_t packets, bytes;
} FwRuleCount;

/* What the kernel has of one node. */
typedef struct FwReadback {
        bool looked_at; /* false: its container is gone, or it was left out */
        bool present;   /* something of this node is there */
        bool intact;    /* ... and all of it is as declared */
        FwStyle style;  /* the declared one when intact, else _FW_STYLE_INVALID */
        FwCounters counters;
        /* The declared lists with what they counted, where they are as declared. What the node sends to its host may be
         * counted in FW_OUT when both lists say the same. */
        FwRuleCount *rules[_FW_DIRECTION_MAX];
        size_t n_rules[_FW_DIRECTION_MAX];
        /* Of lists that are not: what can be read of what is there instead. */
        FwRuleCount *found[_FW_DIRECTION_MAX];
        size_t n_found[_FW_DIRECTION_MAX];
} FwReadback;
void fw_readback_done(FwReadback *r);

typedef struct FwOutcome {
        bool *changed; /* caller's array, one per node: this call wrote something for it */
        bool *present; /* its rules are there afterwards */
        bool bridge_nf_enabled;
        unsigned long commits, sysctl_writes, removed;
} FwOutcome;

/* As NetctlOptions has them. */
#define FW_APPLY_BRIDGE_NF 1U /* enable_bridge_nf */
#define FW_APPLY_TRY_LOCK 2U  /* try_lock */

typedef struct FwBackend {
        const char *name;
        /* Brings the nodes' rules (and their address translation) to what is declared, with at most one commit per table
         * for all; nodes not given stay. With `sweep`, what belongs to ids that `keep` (NULL-terminated) does not hold is
         * removed as well, and with nobody kept everything of ours. All or nothing for each table, tables in an order in
         * which no moment is more open than before and after. `how`: FW_APPLY_*. */
        int (*apply)(const FwSite *site, const FwNode *nodes, size_t n, bool sweep, char *const *keep,
                unsigned how, FwOutcome *ret, TbError **err);
        /* Reads the kernel for these nodes; `ret` has one entry per node. Writes nothing. */
        int (*read)(const FwSite *site, const FwNode *nodes, size_t n, FwReadback *ret, TbError **err);
} FwBackend;

extern const FwBackend fw_iptables;
extern const FwBackend fw_nftables;

/* Of the nftables back end, family inet. */
#define FW_NFTABLES_TABLE "tbnode"

/* Who has something in the legacy tables of this namespace: rules of ours, and rules, chains or policies of others. That the tables
 * are there says nothing: whoever lists them makes them. A look at tables that are not there does not. */
void fw_iptables_use(bool *ret_ours, bool *ret_others);

/* Takes away what the nftables back end has (but not the guard, which both have): as FwBackend.apply with nodes of FW_NONE. No
 * error where the kernel has no nf_tables. */
int fw_nftables_leave(const FwSite *site, const FwNode *nodes, size_t n, bool sweep, char *const *keep,
        FwOutcome *ret, TbError **err) _warn_unused_;

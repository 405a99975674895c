/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw.h"

/* What a firewall back end is told; made by netctl.c from verified links. */

typedef struct FwInterface {
        char ifname[IFNAMSIZ]; /* host side of the veth */
        bool bridged;          /* a bridge port (physdev), else routed directly (-i/-o) */
        bool filtered, pinned; /* as in NetctlInterface */
        struct in_addr ipv4;
} FwInterface;

typedef struct FwNode {
        const char *id;
        FwStyle style; /* FW_NONE: remove */
        const FwInterface *interfaces;
        size_t n_interfaces;
} FwNode;

typedef struct FwOutcome {
        bool *changed; /* caller's array, one per node: this call wrote something for it */
        bool *present; /* its chains are there afterwards */
        bool bridge_nf_enabled;
        unsigned long commits, sysctl_writes, removed;
} FwOutcome;

typedef struct FwBackend {
        const char *name;
        /* Brings the nodes' rules to what is declared with at most one commit for all; chains of nodes not given stay.
         * With `sweep`, chains of ids that `keep` (NULL-terminated) does not hold are removed as well. All or nothing.
         * `enable_bridge_nf`: as NetctlOptions. */
        int (*apply)(const FwSite *site, const FwNode *nodes, size_t n, bool sweep, char *const *keep,
                bool enable_bridge_nf, FwOutcome *ret, TbError **err);
} FwBackend;

extern const FwBackend fw_iptables;

/* Is there a chain of this node? Reads a snapshot, no lock. */
int fw_iptables_present(const char *id, bool *ret, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw-backend.h"
#include "netctl/nft-table.h"

/*
 * The guard: what nodes may send on layer 2, whatever back end filters above it. Table `bridge tbnode-guard`.
 *
 * A pinned (or filtered) interface on a bridge sends frames of three kinds only, each with the interface's own MAC:
 *   IPv4  from its own address; never as a DHCP server
 *   ARP   Ethernet/IPv4, with its own MAC and address as sender (a probe may have no address): neither answers nor gratuitous
 *         announcements for others
 *   IPv6  from its own addresses (the link-local one that is made of the MAC included), or from none while it looks for
 *         duplicates; neighbour discovery names its own MAC, advertisements its own addresses; no router advertisement, no redirect,
 *         no DHCPv6 server
 * Everything else is dropped: tagged and double-tagged frames, STP, LLDP and what else is for bridges, other protocols. Other
 * interfaces (experiment networks) send what they like to their own network: an experimenter may bridge, route, and use VLANs
 * there. Only what the host itself takes from them, to keep or to route, must come from their own addresses.
 *
 * A pinned interface without a bridge (the host routes to it alone) is in the tables `arp tbnode-guard` and `inet tbnode-guard` with
 * the same rules for ARP and IPv6; otherwise its packets are known to the back end by the interface's name.
 *
 * Nodes of different groups (experiments) don't reach each other over a common bridge: no unicast, no copy of a broadcast or
 * multicast, and nothing that the host routes back into the bridge.
 *
 * On a managed bridge (the site's word: no other containers live there), a port that is not known passes nothing: neither to
 * known ports, nor from them, nor to the host. Where the kernel can name the bridge of a port (nft_meta_bridge), that is one
 * rule. Where it can't, the frames of known ports carry a bit of the packet mark from the bridge's first hook to the host's
 * first one (`inet tbnode-guard`, `arp tbnode-guard`), which takes it away again; without the bit nothing passes. Left open
 * there is what two unknown ports say to each other that is neither IPv4 nor IPv6.
 */

#define FW_GUARD_TABLE "tbnode-guard"
#define FW_GUARD_MARK 0x10000000U
#define FW_GUARD_BRIDGES_MAX 16
#define FW_GUARD_PRIORITY (-310)

typedef struct FwGuard {
        char managed[FW_GUARD_BRIDGES_MAX][IFNAMSIZ];
        size_t n_managed;
        uint32_t *uplinks; /* ports of managed bridges that are no veths: the host's own */
        size_t n_uplinks;
        bool bridge_names; /* CAPABILITY_NFT_BRIDGE_META */
} FwGuard;

bool fw_guard_manages(const FwGuard *g, const char *bridge);
/* Pinned, and its host side is no bridge's port. */
bool fw_guard_is_lone(const FwInterface *x);

/* The guard's tables as they shall be; `bridge`, `inet` and `arp` are to be given to nft_sync() together. */
void fw_guard_build(
        const FwGuard *g, const FwNode *nodes, size_t n, NftTable *bridge, NftTable *inet, NftTable *arp);

/* What the kernel has of these three, in this order. */
#define FW_GUARD_TABLES 3U
typedef struct FwGuardSeen {
        NftSeen v[FW_GUARD_TABLES];
} FwGuardSeen;
void fw_guard_seen_done(FwGuardSeen *s);
#define _cleanup_fw_guard_seen_ _cleanup_(fw_guard_seen_done)
int fw_guard_see(Nft *nft, const NftTable *const tables[static FW_GUARD_TABLES], const NftScope *scope,
        FwGuardSeen *ret, TbError **err) _warn_unused_;
/* Is everything of this owner ("": what belongs to nobody) as the tables say? */
bool fw_guard_is_as(
        const NftTable *const tables[static FW_GUARD_TABLES], const FwGuardSeen *seen, const char *owner);

/* What the calls of both back ends have in common: whose objects they are about, and which of them were written. */
int fw_guard_scope(const FwNode *nodes, size_t n, bool sweep, char *const *keep, NftScope *ret,
        TbError **err) _warn_unused_;
void fw_guard_note(const FwNode *nodes, size_t n, const NftScope *scope, FwOutcome *ret);
/* Is anything of the node there? Adds what it counted. */
bool fw_guard_read(const FwGuardSeen *seen, const char *id, FwCounters *counters);

/* The guard's part of what back ends that don't have it in them read: counters, and whether it is as it should be. */
int fw_guard_read_nodes(const FwSite *site, const FwNode *nodes, size_t n, FwReadback *ret, TbError **err)
        _warn_unused_;

/* The guard alone, for back ends that don't have it in them: as FwBackend.apply. A kernel without nf_tables has no guard, and
 * that is no error: `doctor` says what is not pinned there. */
int fw_guard_apply(const FwSite *site, const FwNode *nodes, size_t n, bool sweep, char *const *keep,
        FwOutcome *ret, TbError **err) _warn_unused_;

/* Name of a node's chain: "drop" counts what was dropped because of its identity, "apart" what was for another group. */
void fw_guard_chain(const char *id, const char *suffix, char ret[static NFT_NAME_MAX]);

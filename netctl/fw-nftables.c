/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Firewall through nf_tables: table `inet tbnode` for what fw-model.h calls the list, and address translation; the guard's
 * tables (fw-guard.h) for identity and isolation. All in one transaction per call.
 *
 * Bridged packets meet `inet` chains through br_netfilter, with the bridge's name as interface, whatever the port: family
 * `bridge` would see the port, but has connection tracking only where the kernel was built with nf_conntrack_bridge. So the maps
 * that dispatch have (interface, address) as key. That is as good as the port, because the guard has already dropped whatever
 * does not come from its own port: a filtered interface is always pinned here. Hash lookups: the same cost with 10 nodes and with
 * 1,000.
 *
 * Chains of a node: `n<id>-out`, `n<id>-in`, `n<id>-host`, those that have rules. "Allowed" is return: the packet still passes the
 * other node's list, and everything that others have; accept is not final between tables anyway, drop is. Our chains come
 * before Docker's (priority `filter` - 10), so that what we count and log is what nodes really sent.
 */

/* Before anything of linux/: the other way round they clash. */
#include <net/if_arp.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/fw-backend.h"
#include "netctl/fw-bridge-nf.h"
#include "netctl/fw-guard.h"

#define PRIORITY_FILTER (-10)
#define PRIORITY_DIRECT (-299)
#define PRIORITY_DNAT (-101)
#define PRIORITY_SNAT 99
#define PORT_SSH 22
#define KEY4 (IFNAMSIZ + 4)
#define KEY6 (IFNAMSIZ + 16)
#define KEY_MAC (IFNAMSIZ + 8) /* each part of a key fills registers of 4 bytes */

static const char *const suffix_table[_FW_DIRECTION_MAX] = {"in", "out", "host"};

static void chain_name(const char *id, FwDirection d, char ret[static NFT_NAME_MAX])
{
        (void) snprintf(ret, NFT_NAME_MAX, "n%.*s-%s", FW_ID_LENGTH, id, suffix_table[d]);
}

/* ---- Rules -------------------------------------------------------------------------------------------------------- */

static void match_family(NlWriter *w, sa_family_t family)
{
        nfe_meta_u8(w, NFT_META_NFPROTO, family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6);
}

static void match_network(NlWriter *w, const FwNetwork *n, bool source)
{
        static const uint8_t none[16];
        uint32_t size = n->family == AF_INET ? 4 : 16;
        uint32_t offset = n->family == AF_INET ? (source ? 12 : 16) : (source ? 8 : 24);
        uint8_t mask[16] = {};

        if (n->family == AF_UNSPEC)
                return;
        nfe_payload(w, NFT_PAYLOAD_NETWORK_HEADER, offset, size, NFT_REG_1);
        for (unsigned i = 0; i < n->prefix; i++)
                mask[i / 8] |= (uint8_t) (0x80 >> i % 8);
        if (n->prefix < size * 8)
                nfe_bitwise(w, NFT_REG_1, size, mask, none);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, n->bytes, size);
}

static void match_state(NlWriter *w, uint8_t states)
{
        static const uint32_t none;
        uint32_t bits = 0;

        if (states & FW_STATE_ESTABLISHED)
                bits |= NF_CT_STATE_BIT(IP_CT_ESTABLISHED);
        if (states & FW_STATE_RELATED)
                bits |= NF_CT_STATE_BIT(IP_CT_RELATED);
        if (states & FW_STATE_UNTRACKED)
                bits |= NF_CT_STATE_UNTRACKED_BIT;
        nfe_ct_state(w, NFT_REG_1);
        nfe_bitwise(w, NFT_REG_1, sizeof(bits), &bits, &none);
        nfe_cmp(w, NFT_CMP_NEQ, NFT_REG_1, &none, sizeof(none));
}

/* Everything the rule asks for, in one family where it is needed. */
static void match_rule(NlWriter *w, const FwRule *r, sa_family_t family)
{
        if (family != AF_UNSPEC)
                match_family(w, family);
        match_network(w, &r->source, true);
        match_network(w, &r->destination, false);
        if (r->protocol)
                nfe_meta_u8(w, NFT_META_L4PROTO,
                        r->protocol == IPPROTO_ICMP && family == AF_INET6 ? IPPROTO_ICMPV6 : r->protocol);
        if (r->protocol && r->echo) {
                uint8_t type = family == AF_INET6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
                nfe_payload(w, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
                nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &type, 1);
        }
        if (r->source_ports.last)
                nfe_port(w, 0, r->source_ports.first, r->source_ports.last);
        if (r->destination_ports.last)
                nfe_port(w, 2, r->destination_ports.first, r->destination_ports.last);
        if (r->states)
                match_state(w, r->states);
}

static void add_rule(NftTable *t, const FwNode *node, const FwRule *r, size_t position, sa_family_t family)
{
        char text[FW_RULE_TEXT_MAX], prefix[FW_LOG_PREFIX_MAX];

        if (r->log) {
                NlWriter *w = nft_rule(t);
                match_rule(w, r, family);
                nfe_limit(w, FW_LOG_PER_MINUTE, FW_LOG_BURST);
                nfe_log(w, fw_log_prefix(node->name, r->direction, prefix));
                nft_rule_end(t, "log");
        }
        NlWriter *w = nft_rule(t);
        match_rule(w, r, family);
        nfe_counter(w);
        nfe_verdict(w, r->verdict == FW_DENY ? NF_DROP : NFT_RETURN, NULL);
        nft_rule_end(t, "%zu: %s", position, fw_rule_print(r, text));
}

static void add_list(NftTable *t, const FwNode *node, const FwRules *rules, FwDirection d)
{
        char name[NFT_NAME_MAX];

        chain_name(node->id, d, name);
        nft_add_chain(t, name);
        NlWriter *w = nft_rule(t);
        nfe_counter(w);
        nft_rule_end(t, "all");
        for (size_t i = 0; i < rules->n; i++) {
                const FwRule *r = rules->v + i;
                bool both = r->protocol == IPPROTO_ICMP && r->family == AF_UNSPEC;
                add_rule(t, node, r, i + 1, both ? AF_INET : r->family);
                if (both)
                        add_rule(t, node, r, i + 1, AF_INET6);
        }
}

/* ---- Dispatch ----------------------------------------------------------------------------------------------------- */

/* (interface as `inet` sees it, address) */
static size_t make_key(const FwInterface *x, const void *address, size_t size, uint8_t ret[static KEY6])
{
        memset(ret, 0, KEY6);
        memcpy(ret, x->bridge ? x->bridge_name : x->ifname, IFNAMSIZ);
        memcpy(ret + IFNAMSIZ, address, size);
        return IFNAMSIZ + size;
}

static void add_address(NftTable *t, const FwNode *node, const FwInterface *x, const FwPolicy *p,
        const void *address, size_t size)
{
        static const char *const maps[2][_FW_DIRECTION_MAX] = {
                {"in4", "out4", "host4"}, {"in6", "out6", "host6"}};
        uint8_t key[KEY6];
        size_t n = make_key(x, address, size, key);

        for (FwDirection d = 0; d < _FW_DIRECTION_MAX; d++) {
                char chain[NFT_NAME_MAX];
                chain_name(node->id, d, chain);
                if (p->list[d].n > 0 && (x->filtered || d == FW_HOST))
                        nft_add_element(t, maps[size == 16][d], node->id, key, n, NULL, 0, chain);
        }
        if (!x->bridge && (x->filtered || x->pinned))
                nft_add_element(t, size == 16 ? "own6" : "own4", node->id, key, n, NULL, 0, NULL);
}

static bool add_node(NftTable *t, const FwNode *node, const FwPolicy *p)
{
        struct in_addr address = fw_node_address(node);
        bool bridged = false;

        for (FwDirection d = 0; d < _FW_DIRECTION_MAX; d++)
                if (p->list[d].n > 0)
                        add_list(t, node, p->list + d, d);
        for (size_t i = 0; i < node->n_interfaces; i++) {
                const FwInterface *x = node->interfaces + i;
                struct in6_addr local = fw_link_local(x->mac);
                if (!x->bridge && !x->filtered && !x->pinned)
                        continue;
                bridged |= x->bridge && x->filtered;
                if (x->ipv4.s_addr)
                        add_address(t, node, x, p, &x->ipv4, 4);
                add_address(t, node, x, p, &local, 16);
                for (size_t k = 0; k < x->n_ipv6; k++)
                        add_address(t, node, x, p, x->ipv6 + k, 16);
                if (!x->bridge) {
                        uint8_t key[KEY6];
                        /* No address yet: the guard lets nothing but the search for duplicates through. */
                        if (fw_guard_is_lone(x)) {
                                size_t size = make_key(x, &in6addr_any, sizeof(in6addr_any), key);
                                nft_add_element(t, "own6", node->id, key, size, NULL, 0, NULL);
                        }
                        (void) make_key(x, x->mac, sizeof(x->mac), key);
                        nft_add_element(t, "direct", node->id, x->ifname, IFNAMSIZ, NULL, 0, NULL);
                        nft_add_element(t, "macs", node->id, key, KEY_MAC, NULL, 0, NULL);
                }
        }
        if (node->ssh_port && address.s_addr) {
                uint16_t port = htons(node->ssh_port);
                nft_add_element(t, "ssh", node->id, &port, sizeof(port), &address, 4, NULL);
        }
        return bridged && (p->list[FW_IN].n > 0 || p->list[FW_OUT].n > 0);
}

static void load_pair(NlWriter *w, uint32_t interface, sa_family_t family, bool source)
{
        match_family(w, family);
        nfe_meta(w, interface, NFT_REG32_00);
        if (family == AF_INET)
                nfe_payload(w, NFT_PAYLOAD_NETWORK_HEADER, source ? 12 : 16, 4, NFT_REG32_04);
        else
                nfe_payload(w, NFT_PAYLOAD_NETWORK_HEADER, source ? 8 : 24, 16, NFT_REG32_04);
}

static void add_dispatch(NftTable *t, uint32_t interface, sa_family_t family, bool source, const char *map)
{
        NlWriter *w = nft_rule(t);

        load_pair(w, interface, family, source);
        nfe_map(w, map, NFT_REG32_00, NFT_REG_VERDICT);
        nft_rule_end(t, "%s", source ? "from nodes" : "to nodes");
}

/* A veth that is no bridge port: the guard does not see it, its name is the key. */
static void add_direct_mac(NftTable *t)
{
        static const uint16_t ethernet = ARPHRD_ETHER;
        NlWriter *w = nft_rule(t);

        nfe_meta(w, NFT_META_IIFNAME, NFT_REG_1);
        nfe_lookup(w, "direct", NFT_REG_1, false);
        /* A veth is nothing else; but nft(8) can't write down what it can't read without being told. */
        nfe_meta(w, NFT_META_IIFTYPE, NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &ethernet, sizeof(ethernet));
        nfe_meta(w, NFT_META_IIFNAME, NFT_REG32_00);
        nfe_payload(w, NFT_PAYLOAD_LL_HEADER, 6, 6, NFT_REG32_04);
        nfe_lookup(w, "macs", NFT_REG32_00, true);
        nfe_counter(w);
        nfe_verdict(w, NF_DROP, NULL);
        nft_rule_end(t, "another's MAC");
}

static void add_direct(NftTable *t, sa_family_t family, const char *set)
{
        NlWriter *w = nft_rule(t);

        nfe_meta(w, NFT_META_IIFNAME, NFT_REG_1);
        nfe_lookup(w, "direct", NFT_REG_1, false);
        load_pair(w, NFT_META_IIFNAME, family, true);
        nfe_lookup(w, set, NFT_REG32_00, true);
        nfe_counter(w);
        nfe_verdict(w, NF_DROP, NULL);
        nft_rule_end(t, "another's address");
}

/* New connections to a node's port of the host, wherever they come from. */
static void add_ssh(NftTable *t)
{
        static const uint32_t local = RTN_LOCAL;
        uint16_t port = htons(PORT_SSH);
        NlWriter *w = nft_rule(t);

        match_family(w, AF_INET);
        nfe_destination_type(w, NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &local, sizeof(local));
        nfe_meta_u8(w, NFT_META_L4PROTO, IPPROTO_TCP);
        nfe_payload(w, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, NFT_REG_1);
        nfe_map(w, "ssh", NFT_REG_1, NFT_REG_1);
        nfe_immediate(w, NFT_REG_2, &port, sizeof(port));
        nfe_dnat(w, NFT_REG_1, NFT_REG_2);
        nft_rule_end(t, "ssh of nodes");
}

static void add_masquerade(NftTable *t, const FwSite *site)
{
        const struct {
                const FwNetwork *v;
                size_t n;
        } inside[] = {{site->networks, site->n_networks}, {site->masquerade, site->n_masquerade}};

        for (size_t i = 0; i < ELEMENTSOF(inside); i++)
                for (size_t k = 0; k < inside[i].n; k++) {
                        if (inside[i].v[k].family != AF_INET)
                                continue;
                        NlWriter *w = nft_rule(t);
                        match_family(w, AF_INET);
                        match_network(w, inside[i].v + k, false);
                        nfe_verdict(w, NFT_RETURN, NULL);
                        nft_rule_end(t, "inside the testbed");
                }
        for (size_t k = 0; k < site->n_masquerade; k++) {
                if (site->masquerade[k].family != AF_INET)
                        continue;
                NlWriter *w = nft_rule(t);
                match_family(w, AF_INET);
                match_network(w, site->masquerade + k, true);
                nfe_counter(w);
                nfe_masquerade(w);
                nft_rule_end(t, "to the outside");
        }
}

static void build_base(NftTable *t, const FwSite *site)
{
        static const char *const pairs[] = {"in", "out", "host"};
        static const char *const names[][2] = {{"in4", "in6"}, {"out4", "out6"}, {"host4", "host6"}};
        const uint32_t key4 = NFT_TYPE_PAIR(NFT_TYPE_IFNAME, NFT_TYPE_IPV4),
                       key6 = NFT_TYPE_PAIR(NFT_TYPE_IFNAME, NFT_TYPE_IPV6);

        for (size_t i = 0; i < ELEMENTSOF(pairs); i++) {
                nft_add_set(t, names[i][0], key4, KEY4, NFT_DATA_VERDICT, 0);
                nft_add_set(t, names[i][1], key6, KEY6, NFT_DATA_VERDICT, 0);
        }
        nft_add_set(t, "direct", NFT_TYPE_IFNAME, IFNAMSIZ, 0, 0);
        nft_add_set(t, "macs", NFT_TYPE_PAIR(NFT_TYPE_IFNAME, NFT_TYPE_ETHER), KEY_MAC, 0, 0);
        nft_add_set(t, "own4", key4, KEY4, 0, 0);
        nft_add_set(t, "own6", key6, KEY6, 0, 0);
        nft_add_set(t, "ssh", NFT_TYPE_PORT, 2, NFT_TYPE_IPV4, 4);

        nft_add_base_chain(t, "direct", "filter", NF_INET_PRE_ROUTING, PRIORITY_DIRECT);
        add_direct_mac(t);
        add_direct(t, AF_INET, "own4");
        add_direct(t, AF_INET6, "own6");
        nft_add_base_chain(t, "forward", "filter", NF_INET_FORWARD, PRIORITY_FILTER);
        add_dispatch(t, NFT_META_IIFNAME, AF_INET, true, "out4");
        add_dispatch(t, NFT_META_OIFNAME, AF_INET, false, "in4");
        add_dispatch(t, NFT_META_IIFNAME, AF_INET6, true, "out6");
        add_dispatch(t, NFT_META_OIFNAME, AF_INET6, false, "in6");
        nft_add_base_chain(t, "input", "filter", NF_INET_LOCAL_IN, PRIORITY_FILTER);
        add_dispatch(t, NFT_META_IIFNAME, AF_INET, true, "host4");
        add_dispatch(t, NFT_META_IIFNAME, AF_INET6, true, "host6");
        nft_add_base_chain(t, "ssh_outside", "nat", NF_INET_PRE_ROUTING, PRIORITY_DNAT);
        add_ssh(t);
        nft_add_base_chain(t, "ssh_local", "nat", NF_INET_LOCAL_OUT, PRIORITY_DNAT);
        add_ssh(t);
        nft_add_base_chain(t, "outside", "nat", NF_INET_POST_ROUTING, PRIORITY_SNAT);
        add_masquerade(t, site);
}

/* ---- The back end -------------------------------------------------------------------------------------------------- */

typedef struct Tables {
        NftTable rules, bridge, inet, arp;
        bool bridged; /* br_netfilter is needed */
} Tables;

static void tables_done(Tables *t)
{
        nft_table_done(&t->rules);
        nft_table_done(&t->bridge);
        nft_table_done(&t->inet);
        nft_table_done(&t->arp);
}

static int build(const FwSite *site, const FwNode *nodes, size_t n, Tables *ret, TbError **err)
{
        static const FwSite no_site;

        if (!site)
                site = &no_site;
        fw_guard_build(site->guard, nodes, n, &ret->bridge, &ret->inet, &ret->arp);
        nft_table_init(&ret->rules, NFPROTO_INET, FW_NFTABLES_TABLE);
        build_base(&ret->rules, site);
        for (size_t i = 0; i < n; i++) {
                _cleanup_fw_policy_ FwPolicy p = {};
                if (nodes[i].style == FW_NONE)
                        continue;
                int r = fw_policy_compile(site, nodes + i, &p, err);
                if (r < 0)
                        return r;
                ret->bridged |= add_node(&ret->rules, nodes + i, &p);
        }
        return 0;
}

static int apply(const FwSite *site, const FwNode *nodes, size_t n, bool sweep, char *const *keep,
        unsigned how, FwOutcome *ret, TbError **err)
{
        _cleanup_(tables_done) Tables t = {};
        _cleanup_nft_scope_ NftScope scope = {};
        _cleanup_nft_ Nft *nft = NULL;

        int r = nft_new(&nft, err);
        if (r >= 0)
                r = fw_guard_scope(nodes, n, sweep, keep, &scope, err);
        if (r >= 0)
                r = build(site, nodes, n, &t, err);
        if (r >= 0 && t.bridged)
                r = fw_bridge_nf_ensure(how & FW_APPLY_BRIDGE_NF, ret, err);
        if (r < 0)
                return r;
        const NftTable *all[] = {&t.bridge, &t.inet, &t.arp, &t.rules};
        r = nft_sync(nft, all, ELEMENTSOF(all), &scope, &ret->commits, err);
        if (r < 0)
                return r;
        ret->removed += scope.removed;
        fw_guard_note(nodes, n, &scope, ret);
        return 0;
}

int fw_nftables_leave(const FwSite *site, const FwNode *nodes, size_t n, bool sweep, char *const *keep,
        FwOutcome *ret, TbError **err)
{
        static const FwSite no_site;
        _cleanup_nft_table_ NftTable rules = {};
        _cleanup_nft_scope_ NftScope scope = {};
        _cleanup_nft_ Nft *nft = NULL;

        int r = nft_open(&nft, err);
        if (r <= 0)
                return r;
        nft_table_init(&rules, NFPROTO_INET, FW_NFTABLES_TABLE);
        r = nft_table_present(nft, &rules, err);
        if (r <= 0)
                return r;
        r = fw_guard_scope(nodes, n, sweep, keep, &scope, err);
        if (r < 0)
                return r;
        const NftTable *all[] = {&rules};
        build_base(&rules, site ? site : &no_site);
        r = nft_sync(nft, all, 1, &scope, &ret->commits, err);
        if (r >= 0)
                ret->removed += scope.removed;
        return r;
}

/* Adds what the kernel has counted for a direction's list. */
static int read_list(const Tables *t, const NftSeen *seen, const FwNode *node, const FwRules *rules,
        FwDirection d, FwReadback *ret, TbError **err)
{
        char name[NFT_NAME_MAX];

        chain_name(node->id, d, name);
        const NftSeenChain *c = nft_seen_chain(seen, name);
        if (!c)
                return 0;
        ret->rules[d] = calloc(rules->n + 1, sizeof(*ret->rules[d]));
        if (!ret->rules[d])
                return tb_error_oom(err);
        ret->n_rules[d] = rules->n;
        for (size_t i = 0; i < rules->n; i++)
                ret->rules[d][i].rule = rules->v[i];
        for (size_t i = 0; i < c->n; i++) {
                const NftSeenRule *r = seen->rules + c->first + i;
                unsigned long position = strtoul(r->comment, NULL, 10);
                if (tb_startswith(r->comment, "all ")) {
                        ret->counters.packets[d] += r->packets;
                        ret->counters.bytes[d] += r->bytes;
                }
                if (position < 1 || position > rules->n)
                        continue;
                ret->rules[d][position - 1].packets += r->packets;
                ret->rules[d][position - 1].bytes += r->bytes;
                if (rules->v[position - 1].verdict == FW_DENY)
                        ret->counters.dropped_rules += r->packets;
        }
        return 0;
}

static int read_node(const FwSite *site, const FwNode *node, const Tables *t, const NftSeen *rules,
        const FwGuardSeen *guard, FwReadback *ret, TbError **err)
{
        const NftTable *const tables[] = {&t->bridge, &t->inet, &t->arp};
        _cleanup_fw_policy_ FwPolicy p = {};
        char owner[NFT_OWNER_MAX], other[NFT_OWNER_MAX];

        (void) snprintf(owner, sizeof(owner), "%s", node->id);
        int r = fw_policy_compile(site, node, &p, err);
        for (FwDirection d = 0; d < _FW_DIRECTION_MAX && r >= 0; d++)
                r = read_list(t, rules, node, p.list + d, d, ret, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < rules->n_chains && !ret->present; i++) {
                nft_chain_owner(rules->chains[i].name, other);
                ret->present = tb_streq(owner, other);
        }
        ret->present |= fw_guard_read(guard, node->id, &ret->counters);
        ret->intact = ret->present && nft_owner_is_as(&t->rules, rules, owner) &&
                fw_guard_is_as(tables, guard, owner) && nft_owner_is_as(&t->rules, rules, "") &&
                fw_guard_is_as(tables, guard, "");
        ret->style = ret->intact ? node->style : _FW_STYLE_INVALID;
        return 0;
}

static int read_nodes(const FwSite *site, const FwNode *nodes, size_t n, FwReadback *ret, TbError **err)
{
        _cleanup_(tables_done) Tables t = {};
        _cleanup_nft_scope_ NftScope scope = {};
        const NftTable *const tables[] = {&t.bridge, &t.inet, &t.arp};
        _cleanup_fw_guard_seen_ FwGuardSeen guard = {};
        _cleanup_nft_seen_ NftSeen rules = {};
        _cleanup_nft_ Nft *nft = NULL;

        memset(ret, 0, n * sizeof(*ret));
        int r = nft_new(&nft, err);
        if (r >= 0)
                r = fw_guard_scope(nodes, n, false, NULL, &scope, err);
        if (r >= 0)
                r = build(site, nodes, n, &t, err);
        if (r >= 0)
                r = nft_see_again(nft, &t.rules, &scope, &rules, err);
        if (r >= 0)
                r = fw_guard_see(nft, tables, &scope, &guard, err);
        for (size_t i = 0; i < n && r >= 0; i++)
                r = read_node(site, nodes + i, &t, &rules, &guard, ret + i, err);
        for (size_t i = 0; i < n && r < 0; i++)
                fw_readback_done(ret + i);
        return r;
}

const FwBackend fw_nftables = {.name = "nftables", .apply = apply, .read = read_nodes};

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-guard.h"

#include <linux/if_ether.h>
#include <linux/netfilter.h>
#include <linux/netfilter_arp.h>
#include <linux/netfilter_bridge.h>
#include <netinet/icmp6.h>
#include <netinet/ip6.h>
#include <stdio.h>

#include "common/cleanup.h"
#include "common/strv.h"

#define PORT_DHCP_SERVER 67
#define PORT_DHCP6_SERVER 547
#define ICMP6_MLD1_REPORT 131
#define ICMP6_MLD2_REPORT 143
#define PRIORITY_BEFORE_DEFRAGMENTATION (-450) /* NF_IP_PRI_RAW_BEFORE_DEFRAG */

#define LINK NFT_PAYLOAD_LL_HEADER
#define NETWORK NFT_PAYLOAD_NETWORK_HEADER
#define TRANSPORT NFT_PAYLOAD_TRANSPORT_HEADER

/* One interface on its way into the table. */
typedef struct Port {
        NftTable *t;
        const FwNode *node;
        const FwInterface *x;
        char drop[NFT_NAME_MAX];
        struct in6_addr own[FW_IPV6_MAX + 1];
        size_t n_own;
} Port;

bool fw_guard_manages(const FwGuard *g, const char *bridge)
{
        for (size_t i = 0; g && i < g->n_managed; i++)
                if (bridge[0] && tb_streq(g->managed[i], bridge))
                        return true;
        return false;
}

void fw_guard_chain(const char *id, const char *suffix, char ret[static NFT_NAME_MAX])
{
        (void) snprintf(ret, NFT_NAME_MAX, "n%.*s-%s", FW_ID_LENGTH, id, suffix);
}

static void deny(const Port *p, NlWriter *w, const char *what)
{
        nfe_counter(w);
        nfe_verdict(w, NFT_GOTO, p->drop);
        nft_rule_end(p->t, "%s", what);
}

static void allow(const Port *p, NlWriter *w, const char *what)
{
        nfe_verdict(w, NFT_RETURN, NULL);
        nft_rule_end(p->t, "%s", what);
}

static void source_port(NlWriter *w, uint16_t port)
{
        nfe_meta_u8(w, NFT_META_L4PROTO, IPPROTO_UDP);
        nfe_port(w, 0, port, port);
}

static void add_ipv4(const Port *p)
{
        NlWriter *w = nft_rule(p->t);

        nfe_ether_type(w, ETH_P_IP);
        source_port(w, PORT_DHCP_SERVER);
        deny(p, w, "a DHCP server");

        w = nft_rule(p->t);
        nfe_ether_type(w, ETH_P_IP);
        nfe_payload(w, NETWORK, 12, 4, NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &p->x->ipv4, 4);
        allow(p, w, "own IPv4 address");
}

/* RFC 826 with Ethernet and IPv4: 6 bytes that are always the same, operation, sender's MAC and address. */
static void add_arp(const Port *p)
{
        static const uint8_t format[6] = {0, ARPHRD_ETHER, ETH_P_IP >> 8, ETH_P_IP & 0xff, 6, 4};
        static const uint8_t request[2] = {0, 1};
        uint8_t sender[10];

        memcpy(sender, p->x->mac, 6);
        memcpy(sender + 6, &p->x->ipv4, 4);
        NlWriter *w = nft_rule(p->t);
        nfe_ether_type(w, ETH_P_ARP);
        nfe_payload(w, NETWORK, 0, sizeof(format), NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, format, sizeof(format));
        nfe_payload(w, NETWORK, 8, sizeof(sender), NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, sender, sizeof(sender));
        allow(p, w, "own ARP");

        memset(sender + 6, 0, 4);
        w = nft_rule(p->t);
        nfe_ether_type(w, ETH_P_ARP);
        nfe_payload(w, NETWORK, 0, sizeof(format), NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, format, sizeof(format));
        nfe_payload(w, NETWORK, 6, sizeof(request), NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, request, sizeof(request));
        nfe_payload(w, NETWORK, 8, sizeof(sender), NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, sender, sizeof(sender));
        allow(p, w, "an ARP probe");
}

/* None of the interface's own. */
static void not_own(const Port *p, NlWriter *w, uint32_t base, uint32_t offset)
{
        nfe_payload(w, base, offset, sizeof(struct in6_addr), NFT_REG_1);
        for (size_t i = 0; i < p->n_own; i++)
                nfe_cmp(w, NFT_CMP_NEQ, NFT_REG_1, p->own + i, sizeof(struct in6_addr));
}

/* Of a bridge's port the frame says so. */
static NlWriter *is_ipv6(const Port *p)
{
        NlWriter *w = nft_rule(p->t);

        if (p->t->family == NFPROTO_BRIDGE)
                nfe_ether_type(w, ETH_P_IPV6);
        else
                nfe_meta_u8(w, NFT_META_NFPROTO, NFPROTO_IPV6);
        return w;
}

static NlWriter *icmp6(const Port *p, uint8_t type)
{
        NlWriter *w = is_ipv6(p);

        nfe_meta_u8(w, NFT_META_L4PROTO, IPPROTO_ICMPV6);
        nfe_payload(w, TRANSPORT, 0, 1, NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &type, 1);
        return w;
}

static void from_nowhere(NlWriter *w)
{
        nfe_payload(w, NETWORK, 8, sizeof(struct in6_addr), NFT_REG_1);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &in6addr_any, sizeof(in6addr_any));
}

/* An option at `offset` must be the interface's own MAC: of several, receivers take the first (RFC 4861 4.6.1; ndisc_parse_options()
 * in net/ipv6/ndisc.c). Where there is none, the message has no such bytes, and the rule does not match. In fragments neighbour
 * discovery is not heard (RFC 6980). */
static void add_link_option(const Port *p, uint8_t type, uint32_t offset, uint8_t option)
{
        uint8_t own[8] = {option, 1};
        NlWriter *w = icmp6(p, type);

        memcpy(own + 2, p->x->mac, 6);
        nfe_payload(w, TRANSPORT, offset, sizeof(own), NFT_REG_1);
        nfe_cmp(w, NFT_CMP_NEQ, NFT_REG_1, own, sizeof(own));
        deny(p, w, "another's MAC in neighbour discovery");
}

static void add_ipv6(const Port *p)
{
        deny(p, icmp6(p, ND_ROUTER_ADVERT), "a router advertisement");
        deny(p, icmp6(p, ND_REDIRECT), "a redirect");

        NlWriter *w = icmp6(p, ND_NEIGHBOR_ADVERT);
        not_own(p, w, TRANSPORT, 8);
        deny(p, w, "an advertisement of another's address");
        add_link_option(p, ND_NEIGHBOR_ADVERT, sizeof(struct nd_neighbor_advert), ND_OPT_TARGET_LINKADDR);

        w = is_ipv6(p);
        source_port(w, PORT_DHCP6_SERVER);
        deny(p, w, "a DHCPv6 server");

        /* Duplicate address detection (RFC 4862 5.4.2), and the reports that go with it (RFC 3810 5.2.13). */
        for (size_t i = 0; i < p->n_own; i++) {
                w = icmp6(p, ND_NEIGHBOR_SOLICIT);
                from_nowhere(w);
                nfe_payload(w, TRANSPORT, 8, sizeof(struct in6_addr), NFT_REG_1);
                nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, p->own + i, sizeof(struct in6_addr));
                allow(p, w, "duplicate address detection");
        }
        /* Those that look for duplicates may begin with another option (RFC 7527). */
        add_link_option(p, ND_NEIGHBOR_SOLICIT, sizeof(struct nd_neighbor_solicit), ND_OPT_SOURCE_LINKADDR);
        add_link_option(p, ND_ROUTER_SOLICIT, sizeof(struct nd_router_solicit), ND_OPT_SOURCE_LINKADDR);

        static const uint8_t reports[] = {ICMP6_MLD1_REPORT, ICMP6_MLD2_REPORT};
        for (size_t i = 0; i < ELEMENTSOF(reports); i++) {
                w = icmp6(p, reports[i]);
                from_nowhere(w);
                allow(p, w, "a multicast report");
        }

        w = is_ipv6(p);
        not_own(p, w, NETWORK, 8);
        deny(p, w, "another's IPv6 address");

        w = is_ipv6(p);
        allow(p, w, "own IPv6 address");
}

static void add_port_chain(const Port *p, const char *name)
{
        nft_add_chain(p->t, name);
        NlWriter *w = nft_rule(p->t);
        nfe_payload(w, LINK, 6, 6, NFT_REG_1);
        nfe_cmp(w, NFT_CMP_NEQ, NFT_REG_1, p->x->mac, 6);
        deny(p, w, "another's MAC");
        if (p->x->ipv4.s_addr) {
                add_ipv4(p);
                add_arp(p);
        }
        add_ipv6(p);
        deny(p, nft_rule(p->t), "anything else");
}

/* Where a node's dropped frames are counted, and the first of them logged (but not those of ARP, for which a kernel may have no
 * logger). */
static void add_drop_chain(NftTable *t, const FwNode *node, const char *suffix, const char *what)
{
        char name[NFT_NAME_MAX], prefix[80];
        _cleanup_free_ char *shown = tb_escape_control(node->name ? node->name : node->id, 30);

        fw_guard_chain(node->id, suffix, name);
        (void) snprintf(prefix, sizeof(prefix), "tbnode %s %s: ", shown ? shown : "?", what);
        nft_add_chain(t, name);
        NlWriter *w;
        if (t->family != NFPROTO_ARP) {
                w = nft_rule(t);
                nfe_limit(w, FW_LOG_PER_MINUTE, FW_LOG_BURST);
                nfe_log(w, prefix);
                nft_rule_end(t, "log");
        }
        w = nft_rule(t);
        nfe_counter(w);
        nfe_verdict(w, NF_DROP, NULL);
        nft_rule_end(t, "%s", what);
}

/* Its group, and the way to the chain that knows it: by port, and by address for what the host routes. */
static void add_group(const Port *p)
{
        const FwNode *node = p->node;
        uint32_t group = node->group;
        char chain[NFT_NAME_MAX];

        fw_guard_chain(node->id, "peers", chain);
        nft_add_element(p->t, "group", node->id, &p->x->ifindex, 4, &group, 4, NULL);
        nft_add_element(p->t, "peers", node->id, &p->x->ifindex, 4, NULL, 0, chain);
        if (p->x->ipv4.s_addr)
                nft_add_element(p->t, "peers4", node->id, &p->x->ipv4, 4, NULL, 0, chain);
        for (size_t i = 0; i < p->n_own; i++)
                nft_add_element(p->t, "peers6", node->id, p->own + i, 16, NULL, 0, chain);
}

/* What of this node goes to a port of another group. (nft(8) of Debian 12 can't list a value of a map as a part of a key; so the
 * group is a constant in a chain of the node's own.) */
static void add_peers_chain(NftTable *t, const FwNode *node)
{
        uint32_t group = node->group;
        char name[NFT_NAME_MAX], apart[NFT_NAME_MAX];

        fw_guard_chain(node->id, "peers", name);
        fw_guard_chain(node->id, "apart", apart);
        nft_add_chain(t, name);
        NlWriter *w = nft_rule(t);
        nfe_meta(w, NFT_META_OIF, NFT_REG_1);
        nfe_map(w, "group", NFT_REG_1, NFT_REG_1);
        nfe_cmp(w, NFT_CMP_NEQ, NFT_REG_1, &group, sizeof(group));
        nfe_verdict(w, NFT_GOTO, apart);
        nft_rule_end(t, "between groups");
}

/* An interface that is not pinned sends what it likes to its own network; but what the host takes from it, for itself or to route
 * it, is of its own addresses: the lists behind the bridge know a node by them. */
static void add_host_chain(const Port *p, const char *name)
{
        nft_add_chain(p->t, name);
        NlWriter *w;
        if (p->x->ipv4.s_addr) {
                w = nft_rule(p->t);
                nfe_ether_type(w, ETH_P_IP);
                nfe_payload(w, NETWORK, 12, 4, NFT_REG_1);
                nfe_cmp(w, NFT_CMP_NEQ, NFT_REG_1, &p->x->ipv4, 4);
                deny(p, w, "another's IPv4 address");
        }
        w = nft_rule(p->t);
        nfe_ether_type(w, ETH_P_IPV6);
        not_own(p, w, NETWORK, 8);
        nfe_cmp(w, NFT_CMP_NEQ, NFT_REG_1, &in6addr_any, sizeof(in6addr_any));
        deny(p, w, "another's IPv6 address");
}

static void add_own(Port *p)
{
        p->own[p->n_own++] = fw_link_local(p->x->mac);
        for (size_t i = 0; i < p->x->n_ipv6; i++)
                p->own[p->n_own++] = p->x->ipv6[i];
}

static void add_interface(const FwGuard *g, NftTable *t, const FwNode *node, const FwInterface *x)
{
        Port p = {.t = t, .node = node, .x = x};
        char name[NFT_NAME_MAX], suffix[16];

        if (!x->bridge)
                return;
        if (fw_guard_manages(g, x->bridge_name))
                nft_add_element(t, "trusted", node->id, &x->ifindex, 4, NULL, 0, NULL);
        if (node->style == FW_NONE)
                return;
        add_own(&p);
        if (node->group)
                add_group(&p);
        fw_guard_chain(node->id, "drop", p.drop);
        bool pinned = x->pinned || x->filtered;
        (void) snprintf(suffix, sizeof(suffix), "%c%u", pinned ? 'p' : 'h', x->ifindex);
        fw_guard_chain(node->id, suffix, name);
        if (!pinned) {
                add_host_chain(&p, name);
                nft_add_element(t, "hosts", node->id, &x->ifindex, 4, NULL, 0, name);
                return;
        }
        add_port_chain(&p, name);
        if (x->filtered && node->style != FW_OPEN)
                nft_add_element(t, "quiet", node->id, &x->ifindex, 4, NULL, 0, NULL);
        nft_add_element(t, "pinned", node->id, &x->ifindex, 4, NULL, 0, NULL);
        nft_add_element(t, "ports", node->id, &x->ifindex, 4, NULL, 0, name);
}

static void drop_counted(NftTable *t, NlWriter *w, const char *what)
{
        nfe_counter(w);
        nfe_verdict(w, NF_DROP, NULL);
        nft_rule_end(t, "%s", what);
}

/* A port of a managed bridge that nobody knows. */
static void add_unknown(NftTable *t)
{
        NlWriter *w = nft_rule(t);

        nfe_meta(w, NFT_META_BRI_IIFNAME, NFT_REG_1);
        nfe_lookup(w, "managed", NFT_REG_1, false);
        nfe_meta(w, NFT_META_IIF, NFT_REG_1);
        nfe_lookup(w, "trusted", NFT_REG_1, true);
        drop_counted(t, w, "unknown port of a managed bridge");
}

static void add_mark(NftTable *t)
{
        static const uint32_t mask = ~FW_GUARD_MARK, bit = FW_GUARD_MARK;
        NlWriter *w = nft_rule(t);

        nfe_meta(w, NFT_META_IIF, NFT_REG_1);
        nfe_lookup(w, "trusted", NFT_REG_1, false);
        nfe_meta(w, NFT_META_MARK, NFT_REG_1);
        nfe_bitwise(w, NFT_REG_1, 4, &mask, &bit);
        nfe_meta_set(w, NFT_META_MARK, NFT_REG_1);
        nft_rule_end(t, "known port of a managed bridge");
}

static void add_prerouting(const FwGuard *g, NftTable *t)
{
        nft_add_base_chain(t, "prerouting", "filter", NF_BR_PRE_ROUTING, FW_GUARD_PRIORITY);
        NlWriter *w = nft_rule(t);
        nfe_meta(w, NFT_META_IIF, NFT_REG_1);
        nfe_map(w, "ports", NFT_REG_1, NFT_REG_VERDICT);
        nft_rule_end(t, "pinned ports");
        if (g && g->n_managed > 0 && g->bridge_names)
                add_unknown(t);
        else if (g && g->n_managed > 0)
                add_mark(t);
}

/* Frames to 01:80:c2:00:00:0x come here without prerouting (net/bridge/br_input.c). */
static void add_input(const FwGuard *g, NftTable *t)
{
        static const uint8_t mask[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}, none[6] = {},
                             bridges[6] = {0x01, 0x80, 0xc2, 0, 0, 0};

        nft_add_base_chain(t, "input", "filter", NF_BR_LOCAL_IN, FW_GUARD_PRIORITY);
        NlWriter *w = nft_rule(t);
        nfe_meta(w, NFT_META_IIF, NFT_REG_1);
        nfe_lookup(w, "pinned", NFT_REG_1, false);
        nfe_payload(w, LINK, 0, 6, NFT_REG_1);
        nfe_bitwise(w, NFT_REG_1, 6, mask, none);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, bridges, 6);
        drop_counted(t, w, "for bridges");
        w = nft_rule(t);
        nfe_meta(w, NFT_META_IIF, NFT_REG_1);
        nfe_map(w, "hosts", NFT_REG_1, NFT_REG_VERDICT);
        nft_rule_end(t, "to the host, from ports that are not pinned");
        if (g && g->n_managed > 0 && g->bridge_names)
                add_unknown(t);
}

/* Is one end a port of a managed bridge, then both must be known. */
static void add_both_known(NftTable *t, uint32_t known, uint32_t other)
{
        NlWriter *w = nft_rule(t);

        nfe_meta(w, known, NFT_REG_1);
        nfe_lookup(w, "trusted", NFT_REG_1, false);
        nfe_meta(w, other, NFT_REG_1);
        nfe_lookup(w, "trusted", NFT_REG_1, true);
        drop_counted(t, w, "unknown port of a managed bridge");
}

/* Broadcasts and multicasts for nodes whose style filters: there is no address by which they would find the node's list. What
 * makes IPv6 work is let through. */
static void add_quiet(NftTable *t, uint16_t type)
{
        static const uint8_t bit = 1, none = 0, icmp6 = IPPROTO_ICMPV6;
        NlWriter *w = nft_rule(t);

        nfe_meta(w, NFT_META_OIF, NFT_REG_1);
        nfe_lookup(w, "quiet", NFT_REG_1, false);
        nfe_payload(w, LINK, 0, 1, NFT_REG_1);
        nfe_bitwise(w, NFT_REG_1, 1, &bit, &none);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &bit, 1);
        nfe_ether_type(w, type);
        if (type == ETH_P_IPV6) {
                nfe_meta(w, NFT_META_L4PROTO, NFT_REG_1);
                nfe_cmp(w, NFT_CMP_NEQ, NFT_REG_1, &icmp6, 1);
        }
        drop_counted(t, w, "to many");
}

static void add_forward(NftTable *t)
{
        nft_add_base_chain(t, "forward", "filter", NF_BR_FORWARD, FW_GUARD_PRIORITY);
        add_both_known(t, NFT_META_OIF, NFT_META_IIF);
        add_both_known(t, NFT_META_IIF, NFT_META_OIF);
        add_quiet(t, ETH_P_IP);
        add_quiet(t, ETH_P_IPV6);
        NlWriter *w = nft_rule(t);
        nfe_meta(w, NFT_META_IIF, NFT_REG_1);
        nfe_map(w, "peers", NFT_REG_1, NFT_REG_VERDICT);
        nft_rule_end(t, "groups");
}

/* What the host routes into a bridge: the sender is known by its address. */
static void add_output_family(NftTable *t, uint16_t type, uint32_t offset, uint32_t size, const char *map)
{
        NlWriter *w = nft_rule(t);

        nfe_ether_type(w, type);
        nfe_payload(w, NETWORK, offset, size, NFT_REG_1);
        nfe_map(w, map, NFT_REG_1, NFT_REG_VERDICT);
        nft_rule_end(t, "groups, routed");
}

static void build_bridge(const FwGuard *g, const FwNode *nodes, size_t n, NftTable *t)
{
        nft_add_set(t, "ports", NFT_TYPE_IFINDEX, 4, NFT_DATA_VERDICT, 0);
        nft_add_set(t, "hosts", NFT_TYPE_IFINDEX, 4, NFT_DATA_VERDICT, 0);
        nft_add_set(t, "pinned", NFT_TYPE_IFINDEX, 4, 0, 0);
        nft_add_set(t, "trusted", NFT_TYPE_IFINDEX, 4, 0, 0);
        nft_add_set(t, "quiet", NFT_TYPE_IFINDEX, 4, 0, 0);
        nft_add_set(t, "group", NFT_TYPE_IFINDEX, 4, NFT_TYPE_MARK, 4);
        nft_add_set(t, "peers", NFT_TYPE_IFINDEX, 4, NFT_DATA_VERDICT, 0);
        nft_add_set(t, "peers4", NFT_TYPE_IPV4, 4, NFT_DATA_VERDICT, 0);
        nft_add_set(t, "peers6", NFT_TYPE_IPV6, 16, NFT_DATA_VERDICT, 0);
        if (g && g->bridge_names)
                nft_add_set(t, "managed", NFT_TYPE_IFNAME, IFNAMSIZ, 0, 0);
        add_prerouting(g, t);
        add_input(g, t);
        add_forward(t);
        nft_add_base_chain(t, "output", "filter", NF_BR_LOCAL_OUT, FW_GUARD_PRIORITY);
        add_output_family(t, ETH_P_IP, 12, 4, "peers4");
        add_output_family(t, ETH_P_IPV6, 8, 16, "peers6");

        for (size_t i = 0; g && i < g->n_uplinks; i++)
                nft_add_element(t, "trusted", NULL, g->uplinks + i, 4, NULL, 0, NULL);
        for (size_t i = 0; i < n; i++) {
                bool pinned = false, grouped = false;
                for (size_t k = 0; k < nodes[i].n_interfaces && nodes[i].style != FW_NONE; k++) {
                        const FwInterface *x = nodes[i].interfaces + k;
                        pinned |= x->bridge != 0;
                        grouped |= x->bridge && nodes[i].group;
                }
                if (pinned)
                        add_drop_chain(t, nodes + i, "drop", "guard");
                if (grouped) {
                        add_drop_chain(t, nodes + i, "apart", "isolation");
                        add_peers_chain(t, nodes + i);
                }
                for (size_t k = 0; k < nodes[i].n_interfaces; k++)
                        add_interface(g, t, nodes + i, nodes[i].interfaces + k);
        }
}

/* In the host's first hook: the bit is there, or the packet ends; and the bit goes. */
static void add_bit(const FwGuard *g, NftTable *t)
{
        static const uint32_t bit = FW_GUARD_MARK, mask = ~FW_GUARD_MARK, none = 0;

        nft_add_set(t, "managed", NFT_TYPE_IFNAME, IFNAMSIZ, 0, 0);
        for (size_t i = 0; i < g->n_managed; i++)
                nft_add_element(t, "managed", NULL, g->managed[i], IFNAMSIZ, NULL, 0, NULL);
        NlWriter *w = nft_rule(t);
        nfe_meta(w, NFT_META_IIFNAME, NFT_REG_1);
        nfe_lookup(w, "managed", NFT_REG_1, false);
        nfe_meta(w, NFT_META_MARK, NFT_REG_1);
        nfe_bitwise(w, NFT_REG_1, 4, &bit, &none);
        nfe_cmp(w, NFT_CMP_EQ, NFT_REG_1, &none, 4);
        drop_counted(t, w, "unknown port of a managed bridge");
        if (t->family == NFPROTO_ARP)
                return;
        w = nft_rule(t);
        nfe_meta(w, NFT_META_IIFNAME, NFT_REG_1);
        nfe_lookup(w, "managed", NFT_REG_1, false);
        nfe_meta(w, NFT_META_MARK, NFT_REG_1);
        nfe_bitwise(w, NFT_REG_1, 4, &mask, &none);
        nfe_meta_set(w, NFT_META_MARK, NFT_REG_1);
        nft_rule_end(t, "the bit goes");
}

/* An interface whose host side is no bridge's port. The lists of the back end know its IP packets by its name; what it says about
 * neighbours reaches nobody but the host, which shall not learn from it who else is there. */
static void add_lone_interface(NftTable *t, const FwNode *node, const FwInterface *x)
{
        Port p = {.t = t, .node = node, .x = x};
        char name[NFT_NAME_MAX], suffix[16];

        (void) snprintf(suffix, sizeof(suffix), "p%u", x->ifindex);
        fw_guard_chain(node->id, suffix, name);
        fw_guard_chain(node->id, "drop", p.drop);
        nft_add_chain(t, name);
        if (t->family == NFPROTO_ARP) {
                if (x->ipv4.s_addr)
                        add_arp(&p);
                deny(&p, nft_rule(t), "another's ARP");
        } else {
                add_own(&p);
                add_ipv6(&p);
        }
        nft_add_element(t, "ports", node->id, &x->ifindex, 4, NULL, 0, name);
}

bool fw_guard_is_lone(const FwInterface *x)
{
        return !x->bridge && (x->pinned || x->filtered);
}

/* What the host itself takes, ARP or IP: of marked bridges, and of interfaces without a bridge. */
static void build_host(const FwGuard *g, const FwNode *nodes, size_t n, bool marks, NftTable *t)
{
        if (t->family == NFPROTO_ARP)
                nft_add_base_chain(t, "input", "filter", NF_ARP_IN, FW_GUARD_PRIORITY);
        else
                nft_add_base_chain(
                        t, "prerouting", "filter", NF_INET_PRE_ROUTING, PRIORITY_BEFORE_DEFRAGMENTATION);
        if (marks)
                add_bit(g, t);
        nft_add_set(t, "ports", NFT_TYPE_IFINDEX, 4, NFT_DATA_VERDICT, 0);
        NlWriter *w = nft_rule(t);
        if (t->family != NFPROTO_ARP)
                nfe_meta_u8(w, NFT_META_NFPROTO, NFPROTO_IPV6);
        nfe_meta(w, NFT_META_IIF, NFT_REG_1);
        nfe_map(w, "ports", NFT_REG_1, NFT_REG_VERDICT);
        nft_rule_end(t, "pinned interfaces without a bridge");

        for (size_t i = 0; i < n; i++) {
                bool dropping = false;
                for (size_t k = 0; k < nodes[i].n_interfaces && nodes[i].style != FW_NONE; k++) {
                        if (!fw_guard_is_lone(nodes[i].interfaces + k))
                                continue;
                        if (!dropping)
                                add_drop_chain(t, nodes + i, "drop", "guard");
                        dropping = true;
                        add_lone_interface(t, nodes + i, nodes[i].interfaces + k);
                }
        }
        t->permanent = marks;
}

void fw_guard_build(
        const FwGuard *g, const FwNode *nodes, size_t n, NftTable *bridge, NftTable *inet, NftTable *arp)
{
        bool managed = g && g->n_managed > 0, marks = managed && !g->bridge_names;

        nft_table_init(bridge, NFPROTO_BRIDGE, FW_GUARD_TABLE);
        nft_table_init(inet, NFPROTO_INET, FW_GUARD_TABLE);
        nft_table_init(arp, NFPROTO_ARP, FW_GUARD_TABLE);
        build_bridge(g, nodes, n, bridge);
        bridge->permanent = managed;
        for (size_t i = 0; managed && g->bridge_names && i < g->n_managed; i++)
                nft_add_element(bridge, "managed", NULL, g->managed[i], IFNAMSIZ, NULL, 0, NULL);
        build_host(g, nodes, n, marks, inet);
        build_host(g, nodes, n, marks, arp);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-model.h"

#include <assert.h>
#include <string.h>

#define PORT_SSH 22
#define PORT_DNS 53
#define PORT_HTTP 80
#define PORT_NTP 123
#define PORT_HTTPS 443
#define PORT_FRISBEE 3069 /* emulab.md c.6 */

static const char *const reason_table[] = {
        [FW_REASON_NO_FIREWALL] = "no-firewall",
        [FW_REASON_IDENTITY] = "identity",
        [FW_REASON_ISOLATION] = "isolation",
        [FW_REASON_RULE] = "rule",
        [FW_REASON_NO_RULE] = "no-rule",
};
static_assert(ELEMENTSOF(reason_table) == _FW_REASON_MAX, "one name per reason");

const char *fw_reason_to_string(FwReason r)
{
        return r < _FW_REASON_MAX ? reason_table[r] : NULL;
}

struct in6_addr fw_link_local(const uint8_t mac[static 6])
{
        return (struct in6_addr){.s6_addr = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff,
                                         0xfe, mac[3], mac[4], mac[5]}};
}

struct in_addr fw_node_address(const FwNode *node)
{
        for (size_t i = 0; i < node->n_interfaces; i++)
                if (node->interfaces[i].filtered && node->interfaces[i].ipv4.s_addr)
                        return node->interfaces[i].ipv4;
        return (struct in_addr){};
}

void fw_policy_done(FwPolicy *p)
{
        for (int i = 0; i < _FW_DIRECTION_MAX; i++)
                fw_rules_done(p->list + i);
}

/* ---- Compiling --------------------------------------------------------------------------------------------------- */

typedef struct Compiler {
        const FwSite *site;
        const FwNode *node;
        FwRules *list;
        FwDirection direction;
        FwOrigin origin;
        int error;
} Compiler;

static void add(Compiler *c, FwRule rule)
{
        rule.direction = c->direction;
        rule.origin = c->origin;
        if (c->error >= 0)
                c->error = fw_rules_add(c->list, &rule, NULL);
}

static void add_protocol(Compiler *c, uint8_t protocol)
{
        add(c, (FwRule){.protocol = protocol});
}

static void add_port(Compiler *c, const FwNetwork *to, uint8_t protocol, uint16_t port)
{
        FwRule rule = {.protocol = protocol, .destination_ports = {port, port}};

        if (to) {
                rule.destination = *to;
                rule.family = to->family;
        }
        add(c, rule);
}

static void add_networks(Compiler *c, const FwNetwork *networks, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                FwRule rule = {.family = networks[i].family};
                *(c->direction == FW_IN ? &rule.source : &rule.destination) = networks[i];
                add(c, rule);
        }
}

/* Rules as somebody wrote them; "out" holds for the host, too. */
static void add_written(Compiler *c, const FwRules *rules, FwOrigin origin)
{
        c->origin = origin;
        for (size_t i = 0; rules && i < rules->n; i++)
                if ((rules->v[i].direction == FW_IN) == (c->direction == FW_IN))
                        add(c, rules->v[i]);
}

static void add_state(Compiler *c)
{
        c->origin = FW_ORIGIN_STATE;
        add(c, (FwRule){.states = FW_STATE_ESTABLISHED | FW_STATE_RELATED});
        /* Without it an IPv6 node finds nobody; what it may claim there is pinned. */
        add(c, (FwRule){.family = AF_INET6, .protocol = IPPROTO_ICMP, .states = FW_STATE_UNTRACKED});
}

/* What style `basic` (and what is built on it), `closed` say; fw.h. */
static void add_style_in(Compiler *c, FwStyle style)
{
        const FwSite *site = c->site;

        c->origin = FW_ORIGIN_STYLE;
        if (style != FW_CLOSED) {
                add_port(c, NULL, IPPROTO_TCP, PORT_SSH);
                add_protocol(c, IPPROTO_ICMP);
        }
        if (style == FW_ELABINELAB) {
                add_port(c, NULL, IPPROTO_TCP, PORT_HTTP);
                add_port(c, NULL, IPPROTO_TCP, PORT_HTTPS);
                add_port(c, NULL, IPPROTO_TCP, PORT_FRISBEE);
        }
        add_networks(c, site->gateways, site->n_gateways);
        if (style == FW_CLOSED)
                add_networks(c, site->servers, site->n_servers);
}

static void add_style_out(Compiler *c, FwStyle style)
{
        const FwSite *site = c->site;

        c->origin = FW_ORIGIN_STYLE;
        for (size_t i = 0; i < site->n_dns; i++) {
                add_port(c, site->dns + i, IPPROTO_UDP, PORT_DNS);
                add_port(c, site->dns + i, IPPROTO_TCP, PORT_DNS);
        }
        for (size_t i = 0; i < site->n_ntp; i++)
                add_port(c, site->ntp + i, IPPROTO_UDP, PORT_NTP);
        if (style != FW_CLOSED) {
                add_protocol(c, IPPROTO_ICMP);
                add_networks(c, site->gateways, site->n_gateways);
        }
}

/* What the host offers: its agent where it is declared; in `open` also what the site's DNS and NTP are when the host is
 * one of them, and an answer to ping, so that a gateway can be seen to be there. */
static void add_host(Compiler *c)
{
        c->origin = FW_ORIGIN_HOST;
        if (c->node->agent && c->site->agent_port != 0)
                add_port(c, &c->site->agent, IPPROTO_TCP, c->site->agent_port);
        if (c->direction == FW_HOST && c->node->style == FW_OPEN) {
                for (size_t i = 0; i < c->site->n_dns; i++) {
                        add_port(c, c->site->dns + i, IPPROTO_UDP, PORT_DNS);
                        add_port(c, c->site->dns + i, IPPROTO_TCP, PORT_DNS);
                }
                for (size_t i = 0; i < c->site->n_ntp; i++)
                        add_port(c, c->site->ntp + i, IPPROTO_UDP, PORT_NTP);
                add(c, (FwRule){.protocol = IPPROTO_ICMP, .echo = true});
        }
}

/* 169.254.0.0/16 (RFC 3927) is not to be routed; hosts that route it nevertheless have a cloud's metadata service there, which takes
 * a node's question for the host's. Before all rules, as no experimenter may have it. */
static void add_link_local(Compiler *c)
{
        c->origin = FW_ORIGIN_STYLE;
        add(c,
                (FwRule){.family = AF_INET,
                        .destination = {.family = AF_INET, .prefix = 16, .ipv4 = {htonl(0xa9fe0000)}},
                        .verdict = FW_DENY});
}

static bool has_user_rules(const Compiler *c)
{
        for (size_t i = 0; c->node->rules && i < c->node->rules->n; i++)
                if ((c->node->rules->v[i].direction == FW_IN) == (c->direction == FW_IN))
                        return true;
        return false;
}

static void compile_list(Compiler *c)
{
        FwStyle style = c->node->style;
        bool filters = style != FW_OPEN || c->direction == FW_HOST;

        if (c->direction == FW_OUT)
                add_link_local(c);
        if (!filters && !has_user_rules(c))
                return;
        add_state(c);
        add_written(c, c->node->rules, FW_ORIGIN_USER);
        if (!filters)
                return;
        add_written(c, &c->site->rules, FW_ORIGIN_SITE);
        if (c->direction != FW_IN)
                add_host(c);
        if (style != FW_OPEN && c->direction == FW_IN)
                add_style_in(c, style);
        else if (style != FW_OPEN)
                add_style_out(c, style);
        c->origin = style == FW_OPEN ? FW_ORIGIN_HOST : FW_ORIGIN_STYLE;
        add(c, (FwRule){.verdict = FW_DENY, .log = c->site->log});
}

int fw_policy_compile(const FwSite *site, const FwNode *node, FwPolicy *ret, TbError **err)
{
        static const FwSite no_site;
        _cleanup_fw_policy_ FwPolicy p = {};

        for (FwDirection d = 0; d < _FW_DIRECTION_MAX && node->style != FW_NONE; d++) {
                Compiler c = {
                        .site = site ? site : &no_site,
                        .node = node,
                        .list = p.list + d,
                        .direction = d,
                };
                compile_list(&c);
                if (c.error < 0)
                        return tb_error_oom(err);
        }
        *ret = p;
        p = (FwPolicy){};
        return 0;
}

/* ---- Explaining -------------------------------------------------------------------------------------------------- */

static bool ports_match(FwPorts p, uint16_t port)
{
        return p.last == 0 || (port >= p.first && port <= p.last);
}

bool fw_rule_matches(const FwRule *r, const FwPacket *p)
{
        bool is_reply = (r->states & (FW_STATE_ESTABLISHED | FW_STATE_RELATED)) != 0;

        if (r->states && (!is_reply || !p->reply))
                return false;
        if (r->family != AF_UNSPEC && r->family != p->source.family)
                return false;
        if (r->protocol && (r->protocol != p->protocol || (r->echo && !p->echo)))
                return false;
        return fw_network_contains(&r->source, &p->source) &&
                fw_network_contains(&r->destination, &p->destination) &&
                ports_match(r->source_ports, p->source_port) &&
                ports_match(r->destination_ports, p->destination_port);
}

/* The interface that the packet's own end belongs to; NULL: no address of this node. */
static const FwInterface *find_interface(const FwNode *node, const FwNetwork *address)
{
        for (size_t i = 0; i < node->n_interfaces; i++) {
                const FwInterface *x = node->interfaces + i;
                if (address->family == AF_INET && x->ipv4.s_addr == address->ipv4.s_addr)
                        return x;
                if (address->family != AF_INET6)
                        continue;
                struct in6_addr local = fw_link_local(x->mac);
                if (IN6_ARE_ADDR_EQUAL(&local, &address->ipv6))
                        return x;
                for (size_t k = 0; k < x->n_ipv6; k++)
                        if (IN6_ARE_ADDR_EQUAL(x->ipv6 + k, &address->ipv6))
                                return x;
        }
        return NULL;
}

static bool pins_all(const FwNode *node)
{
        for (size_t i = 0; i < node->n_interfaces; i++)
                if (!node->interfaces[i].pinned)
                        return false;
        return true;
}

FwDecision fw_explain(const FwNode *node, const FwPolicy *policy, const FwPacket *packet)
{
        const FwInterface *x =
                find_interface(node, packet->direction == FW_IN ? &packet->destination : &packet->source);
        const FwRules *list = policy->list + packet->direction;

        if (node->style == FW_NONE)
                return (FwDecision){.verdict = FW_ALLOW, .reason = FW_REASON_NO_FIREWALL};
        if (!x && packet->direction != FW_IN && pins_all(node))
                return (FwDecision){.verdict = FW_DENY, .reason = FW_REASON_IDENTITY};
        if (packet->direction != FW_HOST && node->group && packet->peer_group &&
                node->group != packet->peer_group)
                return (FwDecision){.verdict = FW_DENY, .reason = FW_REASON_ISOLATION};
        if (packet->direction != FW_HOST && (!x || !x->filtered))
                return (FwDecision){.verdict = FW_ALLOW, .reason = FW_REASON_NO_FIREWALL};
        for (size_t i = 0; i < list->n; i++)
                if (fw_rule_matches(list->v + i, packet))
                        return (FwDecision){.verdict = list->v[i].verdict,
                                .reason = FW_REASON_RULE,
                                .rule = list->v + i,
                                .position = i + 1};
        return (FwDecision){.verdict = FW_ALLOW, .reason = FW_REASON_NO_RULE};
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/firewall-explain.h"

#include <ifaddrs.h>
#include <string.h>

#include "agent/node-firewall.h"
#include "common/cleanup.h"
#include "common/json.h"

static bool is_address_of_host(const FwNetwork *a)
{
        struct ifaddrs *all;
        bool found = false;

        if (getifaddrs(&all) < 0)
                return false;
        for (const struct ifaddrs *i = all; i && !found; i = i->ifa_next) {
                if (!i->ifa_addr || i->ifa_addr->sa_family != a->family)
                        continue;
                if (a->family == AF_INET)
                        found = ((const struct sockaddr_in *) (const void *) i->ifa_addr)->sin_addr.s_addr ==
                                a->ipv4.s_addr;
                else
                        found = memcmp(&((const struct sockaddr_in6 *) (const void *) i->ifa_addr)
                                                ->sin6_addr,
                                        &a->ipv6, sizeof(a->ipv6)) == 0;
        }
        freeifaddrs(all);
        return found;
}

static const Endpoint *endpoint_of(const Node *n, const FwNetwork *a)
{
        for (size_t i = 0; i < n->facts.n_endpoints; i++) {
                const Endpoint *e = n->facts.endpoints + i;
                if (a->family == AF_INET ? e->address.s_addr == a->ipv4.s_addr
                                         : e->has_ipv6 && memcmp(&e->ipv6, &a->ipv6, sizeof(e->ipv6)) == 0)
                        return e;
        }
        return NULL;
}

static Node *node_of(const Manager *m, const FwNetwork *a)
{
        for (size_t i = 0; i < m->n_nodes; i++)
                if (node_is_running(m->nodes[i]) && endpoint_of(m->nodes[i], a))
                        return m->nodes[i];
        return NULL;
}

/* The node's own end: on the peer's network if they share one, else the control network's, else its first. */
static int own_address(const Node *n, const FwNetwork *peer, FwNetwork *ret, TbError **err)
{
        const Endpoint *best = container_facts_endpoint(&n->facts, n->manager->config.control_network);

        for (size_t i = 0; i < n->facts.n_endpoints && peer->family == AF_INET; i++) {
                const Endpoint *e = n->facts.endpoints + i;
                uint32_t mask = e->prefix == 0 ? 0 : UINT32_MAX << (32 - e->prefix);
                if (e->address.s_addr && ((ntohl(e->address.s_addr) ^ ntohl(peer->ipv4.s_addr)) & mask) == 0)
                        best = e;
        }
        if (!best && n->facts.n_endpoints > 0)
                best = n->facts.endpoints;
        if (!best || (peer->family == AF_INET ? best->address.s_addr == 0 : !best->has_ipv6))
                return tb_error_set(err, TB_ERROR_CONFIG, -EADDRNOTAVAIL, "node %s has no %s address",
                        node_display_name(n), peer->family == AF_INET ? "IPv4" : "IPv6");
        *ret = peer->family == AF_INET ? fw_network_ipv4(best->address) : fw_network_ipv6(&best->ipv6);
        return 0;
}

static json_t *decision_json(const Node *n, FwDirection direction, const FwDecision *d)
{
        char rule[FW_RULE_TEXT_MAX];

        return json_pack("{s:s, s:s, s:s, s:s, s:s*, s:s*, s:i}", "node", node_display_name(n), "direction",
                fw_direction_to_string(direction), "verdict", d->verdict == FW_ALLOW ? "allow" : "deny",
                "reason", fw_reason_to_string(d->reason), "rule",
                d->rule ? fw_rule_print(d->rule, rule) : NULL, "from",
                d->rule ? fw_origin_to_string(d->rule->origin) : NULL, "position", (int) d->position);
}

/* One node's part of the way. */
static int explain_at(
        Node *n, FwPacket p, FwDirection direction, json_t *steps, bool *allowed, TbError **err)
{
        _cleanup_node_declaration_ NodeDeclaration d = {};
        _cleanup_fw_policy_ FwPolicy policy = {};
        FwInterface interfaces[NETCTL_INTERFACES_MAX] = {};
        FwNode fw = {};
        FwDecision decision;
        int r;

        r = node_declare(n, n->manager->config.control_network, &d, err);
        if (r >= 0)
                r = netctl_firewall_describe(&d.node, interfaces, &fw, err);
        if (r >= 0)
                r = fw_policy_compile(&n->manager->site, &fw, &policy, err);
        if (r < 0)
                return r;
        p.direction = direction;
        decision = fw_explain(&fw, &policy, &p);
        *allowed = decision.verdict == FW_ALLOW;
        return json_array_append_new(steps, decision_json(n, direction, &decision)) < 0 ? tb_error_oom(err)
                                                                                        : 0;
}

/* From the sender to the receiver, whichever of them are nodes. */
json_t *firewall_explain(Node *n, const FirewallQuestion *q, TbError **err)
{
        _cleanup_json_ json_t *steps = json_array();
        Node *other = node_of(n->manager, &q->peer), *from = q->direction == FW_IN ? other : n,
             *to = q->direction == FW_IN ? n : other;
        bool to_host = q->direction == FW_OUT && !other && is_address_of_host(&q->peer),
             from_host = q->direction == FW_IN && !other && is_address_of_host(&q->peer), allowed = true;
        FwPacket p = q->packet;
        FwNetwork own;
        uint16_t groups[2] = {};
        int r;

        if (!node_is_running(n)) {
                (void) tb_error_set(err, TB_ERROR_CONFIG, -EBUSY,
                        "node %s is %s: only of one that runs the way of a packet is known",
                        node_display_name(n), node_state_to_string(n->state));
                return NULL;
        }
        if (other == n) {
                (void) tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "this is an address of node %s itself: what it sends there does not leave it",
                        node_display_name(n));
                return NULL;
        }
        r = steps ? own_address(n, &q->peer, &own, err) : tb_error_oom(err);
        if (r >= 0 && from)
                r = node_firewall_group(from, &groups[0], err);
        if (r >= 0 && to)
                r = node_firewall_group(to, &groups[1], err);
        if (r < 0)
                return NULL;
        p.source = q->direction == FW_IN ? q->peer : own;
        p.destination = q->direction == FW_IN ? own : q->peer;
        if (from && node_firewall(from) != FW_NONE) {
                p.peer_group = to && node_firewall(to) != FW_NONE ? groups[1] : 0;
                r = explain_at(from, p, to_host ? FW_HOST : FW_OUT, steps, &allowed, err);
        }
        if (r >= 0 && allowed && to && !from_host && node_firewall(to) != FW_NONE) {
                p.peer_group = from && node_firewall(from) != FW_NONE ? groups[0] : 0;
                r = explain_at(to, p, FW_IN, steps, &allowed, err);
        }
        if (r < 0)
                return NULL;
        return json_pack("{s:s, s:b, s:O}", "verdict", allowed ? "allow" : "deny", "host",
                to_host || from_host, "steps", steps);
}

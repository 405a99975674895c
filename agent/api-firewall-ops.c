/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The API's words about the firewall: what is in the kernel, changes, and which rule would decide. */

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

#include "agent/access.h"
#include "agent/api-ops.h"
#include "agent/node-firewall.h"
#include "agent/reconcile.h"
#include "agent/request-body.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "netctl/fw-json.h"

/* ---- Show -------------------------------------------------------------------------------------------------------- */

static json_t *firewall_json(const Node *n, const FwReadback *back)
{
        _cleanup_json_ json_t *j = fw_readback_json(back);
        const char *style = fw_style_to_string(node_firewall(n));
        const Endpoint *e = container_facts_endpoint(&n->facts, n->manager->config.control_network);
        char ip[INET_ADDRSTRLEN] = "";

        if (!e && n->facts.n_endpoints > 0)
                e = n->facts.endpoints;
        if (e && e->address.s_addr)
                (void) inet_ntop(AF_INET, &e->address, ip, sizeof(ip));
        if (!j ||
                json_object_update_new(j,
                        json_pack("{s:s, s:s, s:s, s:s*, s:s*, s:b, s:o}", "node", node_display_name(n),
                                "style", style ?: "none", "declared", node_firewall_text(n) ?: "none",
                                "experiment", n->labels.experiment, "ip", ip[0] ? ip : NULL, "changed_live",
                                n->firewall_override != NULL, "ssh_port",
                                n->ssh_port ? json_integer(n->ssh_port) : json_null())) < 0)
                return NULL;
        return TAKE_PTR(j);
}

/* All of `nodes` with one look at the kernel; those that do not run have nothing there. */
static json_t *show(Manager *m, Node *const *nodes, size_t n, TbError **err)
{
        _cleanup_free_ FwReadback *back = calloc(n + 1, sizeof(*back));
        _cleanup_json_ json_t *list = json_array();
        int r;

        if (!back || !list) {
                (void) tb_error_oom(err);
                return NULL;
        }
        r = reconcile_firewall_show(m, nodes, n, back, err);
        for (size_t i = 0; i < n; i++) {
                if (r >= 0 && json_array_append_new(list, firewall_json(nodes[i], back + i)) < 0)
                        r = tb_error_oom(err);
                fw_readback_done(back + i);
        }
        return r < 0 ? NULL : json_pack("{s:O}", "nodes", list);
}

void op_firewalls(ApiRequest *r)
{
        Manager *m = api_request_manager(r);
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ Node **nodes = NULL;
        json_t *j = NULL;
        size_t n;

        if (access_visible(m, api_request_caller(r), &nodes, &n, &err) >= 0)
                j = show(m, nodes, n, &err);
        if (j)
                api_reply(r, 200, j);
        else
                api_reply_error(r, err);
}

void op_firewall_show(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        json_t *j;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        j = show(n->manager, &n, 1, &err);
        if (j)
                api_reply(r, 200, j);
        else
                api_reply_error(r, err);
}

/* ---- Set --------------------------------------------------------------------------------------------------------- */

/* Changes it; when the kernel or the disk does not want it, everything is as before. */
static int change(Node *n, const char *text, TbError **err)
{
        _cleanup_free_ char *before = TAKE_PTR(n->firewall_override);
        int r;

        r = node_set_firewall_override(n, text, err);
        if (r < 0) {
                n->firewall_override = TAKE_PTR(before);
                return r;
        }
        r = reconcile_now(n->manager, n, false, err);
        if (r >= 0)
                r = state_file_save(n->manager, err);
        if (r >= 0)
                return 0;
        free(n->firewall_override);
        n->firewall_override = TAKE_PTR(before);
        if (reconcile_now(n->manager, n, false, NULL) < 0)
                node_event(n, NODE_EVENT_CHANGED, NULL);
        return r;
}

void op_firewall_set(ApiRequest *r)
{
        static const char *const members[] = {"style", "rules", NULL};
        _cleanup_error_ TbError *err = NULL;
        const char *style = NULL, *rules = NULL;
        _cleanup_free_ char *text = NULL;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (request_body_check_members(api_request_body(r), members, &err) < 0 ||
                api_check_changeable(n, &err) < 0 ||
                api_blame_caller(tb_json_get_string(api_request_body(r), "style", &style, &err), &err) < 0 ||
                api_blame_caller(tb_json_get_string(api_request_body(r), "rules", &rules, &err), &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        text = tb_asprintf("%s%s%s", style ?: "", rules ? "; " : "", rules ?: "");
        if (!text)
                (void) tb_error_oom(&err);
        if (!text || change(n, text, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        api_reply_changed(r, n, "firewall-set", NULL);
}

/* ---- Explain ----------------------------------------------------------------------------------------------------- */

typedef struct Question {
        FwDirection direction; /* FW_IN or FW_OUT */
        FwPacket packet;       /* protocol, destination port */
        FwNetwork peer;
} Question;

static int read_question(const json_t *body, Question *ret, TbError **err)
{
        static const char *const members[] = {"direction", "protocol", "address", "port", NULL};
        const char *direction = "out", *protocol = NULL, *address = NULL;
        uint64_t port = 0;
        int r;

        r = request_body_check_members(body, members, err);
        if (r >= 0)
                r = tb_json_get_string(body, "direction", &direction, err);
        if (r >= 0)
                r = tb_json_get_string(body, "protocol", &protocol, err);
        if (r >= 0)
                r = tb_json_get_string(body, "address", &address, err);
        if (r >= 0)
                r = tb_json_get_u64(body, "port", &port, err);
        if (r < 0)
                return r;
        *ret = (Question){.direction = tb_streq(direction, "in") ? FW_IN : FW_OUT};
        if (!tb_streq(direction, "in") && !tb_streq(direction, "out"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the direction is 'in' or 'out'");
        if (tb_streq(protocol, "tcp"))
                ret->packet.protocol = IPPROTO_TCP;
        else if (tb_streq(protocol, "udp"))
                ret->packet.protocol = IPPROTO_UDP;
        else if (tb_streq(protocol, "icmp"))
                ret->packet.protocol = IPPROTO_ICMP;
        else
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the protocol is 'tcp', 'udp' or 'icmp'");
        ret->packet.echo = ret->packet.protocol == IPPROTO_ICMP;
        if (port > UINT16_MAX || (port == 0 && !ret->packet.echo))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "a port between 1 and 65535 is needed");
        ret->packet.destination_port = (uint16_t) port;
        if (!address)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "an address is needed");
        r = fw_network_parse(address, &ret->peer, err);
        if (r >= 0 && ret->peer.prefix != (ret->peer.family == AF_INET6 ? 128 : 32))
                r = tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "one address is needed, not a network");
        return r;
}

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
static json_t *explain(Node *n, const Question *q, TbError **err)
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

void op_firewall_explain(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        Question q;
        json_t *j;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (api_blame_caller(read_question(api_request_body(r), &q, &err), &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        j = explain(n, &q, &err);
        if (j)
                api_reply(r, 200, j);
        else
                api_reply_error(r, err);
}

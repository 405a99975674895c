/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-rules.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_physdev.h>
#include <linux/netfilter/xt_tcpudp.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/strv.h"

#define RULE_SIZE_MAX 1024

/* A rule under construction. */
typedef struct Draft {
        size_t size;
        /* struct ipt_entry, matches, target; last, because the entry ends in an array of what follows it */
        union {
                struct ipt_entry entry;
                uint8_t bytes[RULE_SIZE_MAX];
        };
} Draft;

void rules_done(Rules *r)
{
        for (size_t i = 0; i < r->n; i++)
                free(r->v[i].data);
        free(r->v);
        *r = (Rules){};
}

void node_rules_done(NodeRules *r)
{
        rules_done(&r->in);
        rules_done(&r->out);
        rules_done(&r->forward);
        rules_done(&r->input);
}

static void draft_begin(Draft *d)
{
        memset(d, 0, sizeof(*d));
        d->size = sizeof(struct ipt_entry);
}

/* `data` must be zeroed by memset(), not by an initialiser: the kernel keeps padding as it is, and rules are compared byte by
 * byte with what it gives back. */
static void draft_match(Draft *d, const char *name, uint8_t revision, const void *data, size_t size)
{
        struct xt_entry_match m;
        size_t total = XT_ALIGN(sizeof(m) + size);

        memset(&m, 0, sizeof(m));
        m.u.user.match_size = (uint16_t) total;
        m.u.user.revision = revision;
        (void) snprintf(m.u.user.name, sizeof(m.u.user.name), "%s", name);
        memcpy(d->bytes + d->size, &m, sizeof(m));
        memcpy(d->bytes + d->size + sizeof(m), data, size);
        d->size += total;
}

static void rules_add(Rules *r, Draft *d, const char *target)
{
        struct xt_standard_target t;

        memset(&t, 0, sizeof(t));
        d->entry.target_offset = (uint16_t) d->size;
        t.target.u.user.target_size = XT_ALIGN(sizeof(t));
        (void) snprintf(t.target.u.user.name, sizeof(t.target.u.user.name), "%s", target);
        memcpy(d->bytes + d->size, &t, sizeof(t));
        d->size += XT_ALIGN(sizeof(t));
        d->entry.next_offset = (uint16_t) d->size;

        if (r->error < 0)
                return;
        if (r->n == r->allocated) {
                size_t want = r->allocated > 0 ? r->allocated * 2 : 8;
                Rule *p = reallocarray(r->v, want, sizeof(*p));
                if (!p) {
                        r->error = -ENOMEM;
                        return;
                }
                r->v = p;
                r->allocated = want;
        }
        uint8_t *data = malloc(d->size);
        if (!data) {
                r->error = -ENOMEM;
                return;
        }
        memcpy(data, d->bytes, d->size);
        r->v[r->n++] = (Rule){
                .data = data,
                .size = d->size,
                .target = (const char *) data + d->entry.target_offset +
                        offsetof(struct xt_entry_target, u.user.name),
        };
}

void rules_add_jump(Rules *r, const char *target)
{
        Draft d;

        draft_begin(&d);
        rules_add(r, &d, target);
}

/* One match: name, revision, data. Not byte by byte: the kernel gives back a name up to its end only, what is behind it in
 * the field is whatever libiptc's buffer held. */
static bool match_equal(const struct xt_entry_match *a, const struct xt_entry_match *b)
{
        return a->u.user.match_size == b->u.user.match_size && a->u.user.revision == b->u.user.revision &&
                strncmp(a->u.user.name, b->u.user.name, sizeof(a->u.user.name)) == 0 &&
                memcmp(a->data, b->data, a->u.user.match_size - sizeof(*a)) == 0;
}

bool rule_equal(const Rule *a, const struct ipt_entry *e, const char *target)
{
        const struct ipt_entry *x = (const void *) a->data;

        if (x->target_offset != e->target_offset || memcmp(&x->ip, &e->ip, sizeof(x->ip)) != 0 ||
                !tb_streq(a->target, target))
                return false;
        for (size_t at = sizeof(*x); at < x->target_offset;) {
                const struct xt_entry_match *m = (const void *) ((const uint8_t *) x + at);
                if (!match_equal(m, (const void *) ((const uint8_t *) e + at)))
                        return false;
                at += m->u.user.match_size;
        }
        return true;
}

/* Name and mask as iptables writes them: exact, terminator included. */
static void put_ifname(const char *ifname, char name[static IFNAMSIZ], unsigned char mask[static IFNAMSIZ])
{
        size_t n = strnlen(ifname, IFNAMSIZ - 1);

        memcpy(name, ifname, n);
        memset(mask, 0xff, n + 1);
}

/* The packet came in through / leaves through the node's veth. */
static void match_in(Draft *d, const FwInterface *i)
{
        if (i->bridge != 0) {
                struct xt_physdev_info p;
                memset(&p, 0, sizeof(p));
                p.bitmask = XT_PHYSDEV_OP_IN;
                put_ifname(i->ifname, p.physindev, (unsigned char *) p.in_mask);
                draft_match(d, "physdev", 0, &p, sizeof(p));
        } else
                put_ifname(i->ifname, d->entry.ip.iniface, d->entry.ip.iniface_mask);
}

static void match_out(Draft *d, const FwInterface *i)
{
        if (i->bridge != 0) {
                struct xt_physdev_info p;
                memset(&p, 0, sizeof(p));
                p.bitmask = XT_PHYSDEV_OP_OUT | XT_PHYSDEV_OP_BRIDGED;
                put_ifname(i->ifname, p.physoutdev, (unsigned char *) p.out_mask);
                draft_match(d, "physdev", 0, &p, sizeof(p));
        } else
                put_ifname(i->ifname, d->entry.ip.outiface, d->entry.ip.outiface_mask);
}

static void match_not_bridged(Draft *d)
{
        struct xt_physdev_info p;

        memset(&p, 0, sizeof(p));
        p.bitmask = p.invert = XT_PHYSDEV_OP_BRIDGED;
        draft_match(d, "physdev", 0, &p, sizeof(p));
}

static struct in_addr prefix_mask(uint8_t prefix)
{
        return (struct in_addr){.s_addr = prefix == 0 ? 0 : htonl(UINT32_MAX << (32 - prefix))};
}

static void match_source(Draft *d, const FwNetwork *n)
{
        d->entry.ip.src = n->ipv4;
        d->entry.ip.smsk = prefix_mask(n->prefix);
}

static void match_destination(Draft *d, const FwNetwork *n)
{
        d->entry.ip.dst = n->ipv4;
        d->entry.ip.dmsk = prefix_mask(n->prefix);
}

static void match_ports(Draft *d, const FwRule *rule)
{
        FwPorts from = rule->source_ports, to = rule->destination_ports;

        if (from.last == 0)
                from = (FwPorts){.last = UINT16_MAX};
        if (to.last == 0)
                to = (FwPorts){.last = UINT16_MAX};
        if (rule->protocol == IPPROTO_TCP) {
                struct xt_tcp m;
                memset(&m, 0, sizeof(m));
                m.spts[0] = from.first;
                m.spts[1] = from.last;
                m.dpts[0] = to.first;
                m.dpts[1] = to.last;
                draft_match(d, "tcp", 0, &m, sizeof(m));
        } else {
                struct xt_udp m;
                memset(&m, 0, sizeof(m));
                m.spts[0] = from.first;
                m.spts[1] = from.last;
                m.dpts[0] = to.first;
                m.dpts[1] = to.last;
                draft_match(d, "udp", 0, &m, sizeof(m));
        }
}

static void match_echo(Draft *d)
{
        struct ipt_icmp m;

        memset(&m, 0, sizeof(m));
        m.type = ICMP_ECHO;
        m.code[1] = 0xff;
        draft_match(d, "icmp", 0, &m, sizeof(m));
}

static void match_states(Draft *d, uint8_t states)
{
        struct xt_conntrack_mtinfo3 m;

        memset(&m, 0, sizeof(m));
        m.match_flags = XT_CONNTRACK_STATE;
        if (states & FW_STATE_ESTABLISHED)
                m.state_mask |= XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED);
        if (states & FW_STATE_RELATED)
                m.state_mask |= XT_CONNTRACK_STATE_BIT(IP_CT_RELATED);
        draft_match(d, "conntrack", 3, &m, sizeof(m));
}

static void add_rule(Rules *r, const FwRule *rule)
{
        Draft d;

        draft_begin(&d);
        if (rule->source.family == AF_INET)
                match_source(&d, &rule->source);
        if (rule->destination.family == AF_INET)
                match_destination(&d, &rule->destination);
        d.entry.ip.proto = rule->protocol;
        if (rule->source_ports.last || rule->destination_ports.last)
                match_ports(&d, rule);
        if (rule->echo)
                match_echo(&d);
        if (rule->states)
                match_states(&d, rule->states);
        rules_add(r, &d, rule->verdict == FW_ALLOW ? IPTC_LABEL_RETURN : IPTC_LABEL_DROP);
}

/* What concerns IPv4. */
static void add_list(Rules *r, const FwRules *list)
{
        for (size_t i = 0; i < list->n; i++)
                if (list->v[i].family != AF_INET6)
                        add_rule(r, list->v + i);
}

static bool has_style_rules(FwStyle s)
{
        return s == FW_BASIC || s == FW_CLOSED || s == FW_ELABINELAB;
}

/* Rules of the out chain that depend on the veth: pinned sources, and veths that the style does not hold for. */
static void compile_sources(const FwNode *node, Rules *r)
{
        for (size_t i = 0; i < node->n_interfaces; i++) {
                const FwInterface *x = node->interfaces + i;
                Draft d;
                if (!x->pinned)
                        continue;
                draft_begin(&d);
                match_in(&d, x);
                match_source(&d, &(FwNetwork){.family = AF_INET, .ipv4 = x->ipv4, .prefix = 32});
                d.entry.ip.invflags |= IPT_INV_SRCIP;
                rules_add(r, &d, IPTC_LABEL_DROP);
        }
        for (size_t i = 0; i < node->n_interfaces && has_style_rules(node->style); i++) {
                const FwInterface *x = node->interfaces + i;
                Draft d;
                if (!x->pinned || x->filtered)
                        continue;
                draft_begin(&d);
                match_in(&d, x);
                rules_add(r, &d, IPTC_LABEL_RETURN);
        }
}

static void compile_dispatch(const FwNode *node, NodeRules *r)
{
        for (size_t i = 0; i < node->n_interfaces; i++) {
                const FwInterface *x = node->interfaces + i;
                bool styled = x->filtered && has_style_rules(node->style);
                Draft d;

                if (styled || x->pinned) {
                        Rules *both[] = {&r->forward, &r->input};
                        for (size_t k = 0; k < ELEMENTSOF(both); k++) {
                                draft_begin(&d);
                                match_in(&d, x);
                                rules_add(both[k], &d, r->out_chain);
                        }
                        r->bridged |= x->bridge != 0;
                }
                if (!styled)
                        continue;
                draft_begin(&d);
                match_out(&d, x);
                rules_add(&r->forward, &d, r->in_chain);
                if (x->bridge != 0 && x->ipv4.s_addr) {
                        /* Routed by the host into the bridge: the port is not known yet in FORWARD (xt_physdev). */
                        draft_begin(&d);
                        match_destination(
                                &d, &(FwNetwork){.family = AF_INET, .ipv4 = x->ipv4, .prefix = 32});
                        match_not_bridged(&d);
                        rules_add(&r->forward, &d, r->in_chain);
                }
        }
}

void fw_chain_names(
        const char *id, char in[static XT_FUNCTION_MAXNAMELEN], char out[static XT_FUNCTION_MAXNAMELEN])
{
        (void) snprintf(in, XT_FUNCTION_MAXNAMELEN, FW_CHAIN_PREFIX "%.*s-I", FW_ID_LENGTH, id);
        (void) snprintf(out, XT_FUNCTION_MAXNAMELEN, FW_CHAIN_PREFIX "%.*s-O", FW_ID_LENGTH, id);
}

bool fw_chain_id(const char *chain, char ret[static FW_ID_LENGTH + 1])
{
        const char *id = chain ? tb_startswith(chain, FW_CHAIN_PREFIX) : NULL;
        const char *dash = id ? strrchr(id, '-') : NULL;

        if (!dash || dash == id || dash - id > FW_ID_LENGTH ||
                !(tb_streq(dash, "-I") || tb_streq(dash, "-O")))
                return false;
        memcpy(ret, id, (size_t) (dash - id));
        ret[dash - id] = '\0';
        return true;
}

int node_rules_compile(const FwSite *site, const FwNode *node, NodeRules *ret, TbError **err)
{
        _cleanup_fw_policy_ FwPolicy policy = {};
        NodeRules r = {};

        int k = fw_policy_compile(site, node, &policy, err);
        if (k < 0)
                return k;
        fw_chain_names(node->id, r.in_chain, r.out_chain);
        if (node->style != FW_NONE) {
                r.has_out = true;
                r.has_in = has_style_rules(node->style);
                compile_sources(node, &r.out);
                if (r.has_in) {
                        add_list(&r.out, policy.list + FW_OUT);
                        add_list(&r.in, policy.list + FW_IN);
                }
                compile_dispatch(node, &r);
        }
        if (r.in.error < 0 || r.out.error < 0 || r.forward.error < 0 || r.input.error < 0) {
                node_rules_done(&r);
                return tb_error_oom(err);
        }
        *ret = r;
        return 0;
}

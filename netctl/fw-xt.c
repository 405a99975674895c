/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Encoders (and the few decoders) of the matches and targets that we use. Structures are zeroed by memset(), not by an
 * initialiser: the kernel keeps padding as it is, and rules are compared byte by byte with what it gives back.
 */

#include "netctl/fw-xt.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/xt_LOG.h>
#include <linux/netfilter/xt_addrtype.h>
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_limit.h>
#include <linux/netfilter/xt_mac.h>
#include <linux/netfilter/xt_mark.h>
#include <linux/netfilter/xt_physdev.h>
#include <linux/netfilter/xt_tcpudp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "common/strv.h"

/* Kernel's numbers; <netinet/ip_icmp.h> and <netinet/icmp6.h> clash with the kernel's headers. */
#define ICMP_ECHO_REQUEST 8
#define ICMPV6_ECHO_REQUEST 128

void rules_done(Rules *r)
{
        for (size_t i = 0; i < r->n; i++)
                free(r->v[i].data);
        free(r->v);
        *r = (Rules){};
}

static bool is_v6(const Draft *d)
{
        return d->family->family == AF_INET6;
}

void draft_begin(Draft *d, const XtFamily *family)
{
        memset(d, 0, sizeof(*d));
        d->family = family;
        d->size = family->entry_size;
}

static void add_match(Draft *d, const char *name, uint8_t revision, const void *data, size_t size)
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

/* ---- Matches ----------------------------------------------------------------------------------------------------- */

static void prefix_mask(uint8_t *mask, uint8_t prefix)
{
        for (unsigned i = 0; i < prefix; i++)
                mask[i / 8] = (uint8_t) (mask[i / 8] | (0x80U >> (i % 8)));
}

void draft_source(Draft *d, const FwNetwork *n, bool invert)
{
        if (n->family == AF_UNSPEC)
                return;
        if (is_v6(d)) {
                d->v6.ipv6.src = n->ipv6;
                prefix_mask(d->v6.ipv6.smsk.s6_addr, n->prefix);
                d->v6.ipv6.invflags |= invert ? IP6T_INV_SRCIP : 0;
        } else {
                d->v4.ip.src = n->ipv4;
                prefix_mask((uint8_t *) &d->v4.ip.smsk, n->prefix);
                d->v4.ip.invflags |= invert ? IPT_INV_SRCIP : 0;
        }
}

void draft_source_masked(Draft *d, const uint8_t *value, const uint8_t *mask)
{
        size_t n = is_v6(d) ? 16 : 4;

        memcpy(is_v6(d) ? (void *) &d->v6.ipv6.src : (void *) &d->v4.ip.src, value, n);
        memcpy(is_v6(d) ? (void *) &d->v6.ipv6.smsk : (void *) &d->v4.ip.smsk, mask, n);
}

void draft_destination_masked(Draft *d, const uint8_t *value, const uint8_t *mask)
{
        size_t n = is_v6(d) ? 16 : 4;

        memcpy(is_v6(d) ? (void *) &d->v6.ipv6.dst : (void *) &d->v4.ip.dst, value, n);
        memcpy(is_v6(d) ? (void *) &d->v6.ipv6.dmsk : (void *) &d->v4.ip.dmsk, mask, n);
}

void draft_destination(Draft *d, const FwNetwork *n)
{
        uint8_t mask[16] = {};

        if (n->family == AF_UNSPEC)
                return;
        prefix_mask(mask, n->prefix);
        draft_destination_masked(d, n->bytes, mask);
}

void draft_not_destination(Draft *d, const FwNetwork *n)
{
        draft_destination(d, n);
        if (is_v6(d))
                d->v6.ipv6.invflags |= IP6T_INV_DSTIP;
        else
                d->v4.ip.invflags |= IPT_INV_DSTIP;
}

void draft_protocol(Draft *d, uint8_t protocol)
{
        if (protocol == 0)
                return;
        if (is_v6(d)) {
                d->v6.ipv6.proto = protocol == IPPROTO_ICMP ? IPPROTO_ICMPV6 : protocol;
                d->v6.ipv6.flags |= IP6T_F_PROTO;
        } else
                d->v4.ip.proto = protocol;
}

/* Name and mask as iptables writes them: exact with the terminator; of a prefix the "+" is in the name, but not in the mask.
 * Anything else the kernel would take as well, but iptables-save could not say it. */
static void put_name(const char *name, bool prefix, char *ret, unsigned char *mask)
{
        size_t n = strnlen(name, IFNAMSIZ - 1);

        memcpy(ret, name, n);
        if (prefix && n < IFNAMSIZ - 1)
                ret[n] = '+';
        memset(mask, 0xff, prefix ? n : n + 1);
}

void draft_in(Draft *d, const char *name, bool prefix)
{
        if (is_v6(d))
                put_name(name, prefix, d->v6.ipv6.iniface, d->v6.ipv6.iniface_mask);
        else
                put_name(name, prefix, d->v4.ip.iniface, d->v4.ip.iniface_mask);
}

void draft_out(Draft *d, const char *name, bool prefix)
{
        if (is_v6(d))
                put_name(name, prefix, d->v6.ipv6.outiface, d->v6.ipv6.outiface_mask);
        else
                put_name(name, prefix, d->v4.ip.outiface, d->v4.ip.outiface_mask);
}

void draft_physdev_in(Draft *d, const char *name, bool prefix)
{
        struct xt_physdev_info p;

        memset(&p, 0, sizeof(p));
        p.bitmask = XT_PHYSDEV_OP_IN;
        put_name(name, prefix, p.physindev, (unsigned char *) p.in_mask);
        add_match(d, "physdev", 0, &p, sizeof(p));
}

void draft_physdev_out(Draft *d, const char *name, bool prefix)
{
        struct xt_physdev_info p;

        memset(&p, 0, sizeof(p));
        p.bitmask = XT_PHYSDEV_OP_OUT | XT_PHYSDEV_OP_BRIDGED;
        put_name(name, prefix, p.physoutdev, (unsigned char *) p.out_mask);
        add_match(d, "physdev", 0, &p, sizeof(p));
}

void draft_physdev_is_in(Draft *d)
{
        struct xt_physdev_info p;

        memset(&p, 0, sizeof(p));
        p.bitmask = XT_PHYSDEV_OP_ISIN;
        add_match(d, "physdev", 0, &p, sizeof(p));
}

void draft_not_bridged(Draft *d)
{
        struct xt_physdev_info p;

        memset(&p, 0, sizeof(p));
        p.bitmask = p.invert = XT_PHYSDEV_OP_BRIDGED;
        add_match(d, "physdev", 0, &p, sizeof(p));
}

void draft_not_mac(Draft *d, const uint8_t mac[static 6])
{
        struct xt_mac_info m;

        memset(&m, 0, sizeof(m));
        memcpy(m.srcaddr, mac, sizeof(m.srcaddr));
        m.invert = 1;
        add_match(d, "mac", 0, &m, sizeof(m));
}

static FwPorts all_if_any(FwPorts p)
{
        return p.last == 0 ? (FwPorts){.last = UINT16_MAX} : p;
}

void draft_ports(Draft *d, uint8_t protocol, FwPorts source, FwPorts destination)
{
        FwPorts from = all_if_any(source), to = all_if_any(destination);

        draft_protocol(d, protocol);
        if (protocol == IPPROTO_TCP) {
                struct xt_tcp m;
                memset(&m, 0, sizeof(m));
                m.spts[0] = from.first;
                m.spts[1] = from.last;
                m.dpts[0] = to.first;
                m.dpts[1] = to.last;
                add_match(d, "tcp", 0, &m, sizeof(m));
        } else {
                struct xt_udp m;
                memset(&m, 0, sizeof(m));
                m.spts[0] = from.first;
                m.spts[1] = from.last;
                m.dpts[0] = to.first;
                m.dpts[1] = to.last;
                add_match(d, "udp", 0, &m, sizeof(m));
        }
}

/* struct ipt_icmp and ip6t_icmp are the same. */
void draft_echo(Draft *d)
{
        struct ipt_icmp m;

        memset(&m, 0, sizeof(m));
        m.type = is_v6(d) ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST;
        m.code[1] = 0xff;
        add_match(d, is_v6(d) ? "icmp6" : "icmp", 0, &m, sizeof(m));
}

void draft_states(Draft *d, uint8_t states)
{
        struct xt_conntrack_mtinfo3 m;

        memset(&m, 0, sizeof(m));
        m.match_flags = XT_CONNTRACK_STATE;
        if (states & FW_STATE_ESTABLISHED)
                m.state_mask |= XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED);
        if (states & FW_STATE_RELATED)
                m.state_mask |= XT_CONNTRACK_STATE_BIT(IP_CT_RELATED);
        if (states & FW_STATE_UNTRACKED)
                m.state_mask |= XT_CONNTRACK_STATE_UNTRACKED;
        add_match(d, "conntrack", 3, &m, sizeof(m));
}

void draft_mark(Draft *d, uint32_t value, uint32_t mask, bool invert)
{
        struct xt_mark_mtinfo1 m;

        memset(&m, 0, sizeof(m));
        m.mark = value;
        m.mask = mask;
        m.invert = invert;
        add_match(d, "mark", 1, &m, sizeof(m));
}

void draft_to_host(Draft *d)
{
        struct xt_addrtype_info_v1 m;

        memset(&m, 0, sizeof(m));
        m.dest = XT_ADDRTYPE_LOCAL;
        add_match(d, "addrtype", 1, &m, sizeof(m));
}

void draft_limit(Draft *d)
{
        struct xt_rateinfo m;

        memset(&m, 0, sizeof(m));
        m.avg = XT_LIMIT_SCALE * 60 / FW_LOG_PER_MINUTE;
        m.burst = FW_LOG_BURST;
        add_match(d, "limit", 0, &m, sizeof(m));
}

void draft_rule(Draft *d, const FwRule *rule)
{
        draft_source(d, &rule->source, false);
        draft_destination(d, &rule->destination);
        draft_protocol(d, rule->protocol);
        if (rule->source_ports.last || rule->destination_ports.last)
                draft_ports(d, rule->protocol, rule->source_ports, rule->destination_ports);
        if (rule->echo)
                draft_echo(d);
        if (rule->states)
                draft_states(d, rule->states);
}

/* ---- Targets ----------------------------------------------------------------------------------------------------- */

static void finish(Draft *d, const char *name, uint8_t revision, const void *data, size_t size, Rules *r)
{
        struct xt_entry_target t;
        size_t offset = d->size, total = XT_ALIGN(sizeof(t) + size);

        memset(&t, 0, sizeof(t));
        t.u.user.target_size = (uint16_t) total;
        t.u.user.revision = revision;
        (void) snprintf(t.u.user.name, sizeof(t.u.user.name), "%s", name);
        memcpy(d->bytes + offset, &t, sizeof(t));
        if (size > 0)
                memcpy(d->bytes + offset + sizeof(t), data, size);
        d->size += total;
        if (is_v6(d)) {
                d->v6.target_offset = (uint16_t) offset;
                d->v6.next_offset = (uint16_t) d->size;
        } else {
                d->v4.target_offset = (uint16_t) offset;
                d->v4.next_offset = (uint16_t) d->size;
        }

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
        uint8_t *copy = malloc(d->size);
        if (!copy) {
                r->error = -ENOMEM;
                return;
        }
        memcpy(copy, d->bytes, d->size);
        r->v[r->n++] = (Rule){
                .data = copy,
                .size = d->size,
                .target = (const char *) copy + offset + offsetof(struct xt_entry_target, u.user.name),
        };
}

void draft_end(Draft *d, const char *target, Rules *r)
{
        int verdict = 0; /* libiptc fills it in */

        finish(d, target, 0, &verdict, sizeof(verdict), r);
}

void draft_end_goto(Draft *d, const char *chain, Rules *r)
{
        if (is_v6(d))
                d->v6.ipv6.flags |= IP6T_F_GOTO;
        else
                d->v4.ip.flags |= IPT_F_GOTO;
        draft_end(d, chain, r);
}

void draft_end_log(Draft *d, const char *prefix, Rules *r)
{
        struct xt_log_info t;

        memset(&t, 0, sizeof(t));
        t.level = LOG_INFO;
        (void) snprintf(t.prefix, sizeof(t.prefix), "%s", prefix);
        finish(d, "LOG", 0, &t, sizeof(t), r);
}

void draft_end_mark(Draft *d, uint32_t value, uint32_t mask, Rules *r)
{
        struct xt_mark_tginfo2 t;

        memset(&t, 0, sizeof(t));
        t.mark = value;
        t.mask = mask;
        finish(d, "MARK", 2, &t, sizeof(t), r);
}

void draft_end_dnat(Draft *d, struct in_addr to, uint16_t port, Rules *r)
{
        struct nf_nat_range2 t; /* revision 2: the one that iptables-save can write down; Linux 4.18 */

        memset(&t, 0, sizeof(t));
        t.flags = NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED;
        t.min_addr.in = t.max_addr.in = to;
        t.min_proto.tcp.port = t.max_proto.tcp.port = htons(port);
        finish(d, "DNAT", 2, &t, sizeof(t), r);
}

void draft_end_masquerade(Draft *d, Rules *r)
{
        struct nf_nat_ipv4_multi_range_compat t;

        memset(&t, 0, sizeof(t));
        t.rangesize = 1;
        finish(d, "MASQUERADE", 0, &t, sizeof(t), r);
}

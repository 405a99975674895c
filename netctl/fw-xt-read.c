/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The kernel's entries read: compared, decoded, keys of the dispatch. What is read may be anybody's rule: sizes are
 * checked by libiptc (offsets inside the entry), names and contents here. */

#include "netctl/fw-xt.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/xt_conntrack.h>
#include <linux/netfilter/xt_limit.h>
#include <linux/netfilter/xt_physdev.h>
#include <linux/netfilter/xt_tcpudp.h>
#include <stddef.h>
#include <string.h>

#include "common/strv.h"

static size_t target_offset(const XtFamily *f, const void *entry)
{
        return f->family == AF_INET6 ? ((const struct ip6t_entry *) entry)->target_offset
                                     : ((const struct ipt_entry *) entry)->target_offset;
}

const struct xt_counters *xt_entry_counters(const XtFamily *f, const void *entry)
{
        return f->family == AF_INET6 ? &((const struct ip6t_entry *) entry)->counters
                                     : &((const struct ipt_entry *) entry)->counters;
}

static const void *at_offset(const void *entry, size_t offset)
{
        return (const uint8_t *) entry + offset;
}

/* One match: name, revision, data. Not byte by byte: the kernel gives back a name up to its end only, what is behind it in
 * the field is whatever libiptc's buffer held; and of a rate limit only what the user set. */
static bool match_equal(const struct xt_entry_match *a, const struct xt_entry_match *b)
{
        size_t size = a->u.user.match_size - sizeof(*a);

        if (a->u.user.match_size != b->u.user.match_size || a->u.user.revision != b->u.user.revision ||
                strncmp(a->u.user.name, b->u.user.name, sizeof(a->u.user.name)) != 0)
                return false;
        if (strncmp(a->u.user.name, "limit", sizeof(a->u.user.name)) == 0)
                size = offsetof(struct xt_rateinfo, prev);
        return memcmp(a->data, b->data, size) == 0;
}

static bool target_equal(const struct xt_entry_target *a, const struct xt_entry_target *b)
{
        /* A verdict or a chain: libiptc has the names, what is behind them are its own numbers. */
        if (a->u.user.target_size == XT_ALIGN(sizeof(struct xt_standard_target)) &&
                a->u.user.revision == 0 && b->u.user.name[0] == '\0')
                return true;
        return a->u.user.target_size == b->u.user.target_size && a->u.user.revision == b->u.user.revision &&
                memcmp(a->data, b->data, a->u.user.target_size - sizeof(*a)) == 0;
}

bool rule_equal(const XtFamily *f, const Rule *a, const void *entry, const char *target)
{
        size_t end = target_offset(f, a->data);
        size_t head = f->family == AF_INET6 ? sizeof(struct ip6t_ip6) : sizeof(struct ipt_ip);

        if (end != target_offset(f, entry) || memcmp(a->data, entry, head) != 0 ||
                !tb_streq(a->target, target))
                return false;
        for (size_t at = f->entry_size; at < end;) {
                const struct xt_entry_match *m = at_offset(a->data, at);
                if (!match_equal(m, at_offset(entry, at)))
                        return false;
                at += m->u.user.match_size;
        }
        return target_equal(at_offset(a->data, end), at_offset(entry, end));
}

/* ---- Neutral rules ----------------------------------------------------------------------------------------------- */

/* Bits of a mask, which must be a prefix. */
static bool mask_prefix(const uint8_t *mask, size_t bytes, uint8_t *ret)
{
        unsigned n = 0;

        while (n < bytes * 8 && (mask[n / 8] & (0x80U >> (n % 8))))
                n++;
        for (unsigned i = n; i < bytes * 8; i++)
                if (mask[i / 8] & (0x80U >> (i % 8)))
                        return false;
        *ret = (uint8_t) n;
        return true;
}

static bool decode_network(sa_family_t family, const void *address, const void *mask, FwNetwork *ret)
{
        size_t bytes = family == AF_INET6 ? 16 : 4;
        FwNetwork n = {.family = family};

        if (!mask_prefix(mask, bytes, &n.prefix))
                return false;
        memcpy(n.bytes, address, bytes);
        *ret = n.prefix > 0 ? n : (FwNetwork){};
        return true;
}

static FwPorts any_if_all(const uint16_t p[static 2])
{
        return p[0] == 0 && p[1] == UINT16_MAX ? (FwPorts){} : (FwPorts){.first = p[0], .last = p[1]};
}

static bool decode_match(const struct xt_entry_match *m, FwRule *ret)
{
        char name[sizeof(m->u.user.name) + 1] = "";

        memcpy(name, m->u.user.name, sizeof(m->u.user.name));
        if (tb_streq(name, "tcp")) {
                const struct xt_tcp *t = (const void *) m->data;
                ret->source_ports = any_if_all(t->spts);
                ret->destination_ports = any_if_all(t->dpts);
                return !t->invflags && !t->flg_mask && !t->option;
        }
        if (tb_streq(name, "udp")) {
                const struct xt_udp *u = (const void *) m->data;
                ret->source_ports = any_if_all(u->spts);
                ret->destination_ports = any_if_all(u->dpts);
                return !u->invflags;
        }
        if (tb_streq(name, "icmp") || tb_streq(name, "icmp6")) {
                const struct ipt_icmp *i = (const void *) m->data;
                ret->echo = true;
                return !i->invflags && (i->type == 8 || i->type == 128);
        }
        if (tb_streq(name, "conntrack") && m->u.user.revision == 3) {
                const struct xt_conntrack_mtinfo3 *c = (const void *) m->data;
                if (c->state_mask & XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED))
                        ret->states |= FW_STATE_ESTABLISHED;
                if (c->state_mask & XT_CONNTRACK_STATE_BIT(IP_CT_RELATED))
                        ret->states |= FW_STATE_RELATED;
                if (c->state_mask & XT_CONNTRACK_STATE_UNTRACKED)
                        ret->states |= FW_STATE_UNTRACKED;
                return c->match_flags == XT_CONNTRACK_STATE && !c->invert_flags;
        }
        return tb_streq(name, "limit");
}

static bool decode_head(const XtFamily *f, const void *entry, FwRule *ret)
{
        static const uint8_t no_interface[IFNAMSIZ];
        const struct ipt_entry *v4 = entry;
        const struct ip6t_entry *v6 = entry;

        if (f->family == AF_INET6) {
                ret->protocol = v6->ipv6.flags & IP6T_F_PROTO ? (uint8_t) v6->ipv6.proto : 0;
                if (ret->protocol == IPPROTO_ICMPV6)
                        ret->protocol = IPPROTO_ICMP;
                return !v6->ipv6.invflags && memcmp(v6->ipv6.iniface_mask, no_interface, IFNAMSIZ) == 0 &&
                        memcmp(v6->ipv6.outiface_mask, no_interface, IFNAMSIZ) == 0 &&
                        decode_network(AF_INET6, &v6->ipv6.src, &v6->ipv6.smsk, &ret->source) &&
                        decode_network(AF_INET6, &v6->ipv6.dst, &v6->ipv6.dmsk, &ret->destination);
        }
        ret->protocol = (uint8_t) v4->ip.proto;
        return !v4->ip.invflags && memcmp(v4->ip.iniface_mask, no_interface, IFNAMSIZ) == 0 &&
                memcmp(v4->ip.outiface_mask, no_interface, IFNAMSIZ) == 0 &&
                decode_network(AF_INET, &v4->ip.src, &v4->ip.smsk, &ret->source) &&
                decode_network(AF_INET, &v4->ip.dst, &v4->ip.dmsk, &ret->destination);
}

bool xt_rule_decode(const XtFamily *f, const void *entry, const char *target, FwRule *ret)
{
        FwRule r = {};

        if (tb_streq(target, IPTC_LABEL_DROP))
                r.verdict = FW_DENY;
        else if (tb_streq(target, "LOG"))
                r.log = true;
        else if (!tb_streq(target, IPTC_LABEL_RETURN))
                return false;
        if (!decode_head(f, entry, &r))
                return false;
        for (size_t at = f->entry_size; at < target_offset(f, entry);) {
                const struct xt_entry_match *m = at_offset(entry, at);
                if (m->u.user.match_size < sizeof(*m) || !decode_match(m, &r))
                        return false;
                at += m->u.user.match_size;
        }
        if (r.source.family || r.destination.family || (r.states & FW_STATE_UNTRACKED))
                r.family = f->family;
        *ret = r;
        return true;
}

/* ---- Dispatch keys ----------------------------------------------------------------------------------------------- */

static const void *find_match(const XtFamily *f, const void *entry, const char *name)
{
        for (size_t at = f->entry_size; at < target_offset(f, entry);) {
                const struct xt_entry_match *m = at_offset(entry, at);
                if (m->u.user.match_size < sizeof(*m))
                        return NULL;
                if (strncmp(m->u.user.name, name, sizeof(m->u.user.name)) == 0)
                        return m->data;
                at += m->u.user.match_size;
        }
        return NULL;
}

static void copy_name(char ret[static IFNAMSIZ], const char *name)
{
        size_t n = strnlen(name, IFNAMSIZ - 1);

        memcpy(ret, name, n);
        ret[n] = '\0';
}

void xt_entry_keys(const XtFamily *f, const void *entry, XtKeys *ret)
{
        const struct ipt_entry *v4 = entry;
        const struct ip6t_entry *v6 = entry;
        bool six = f->family == AF_INET6;
        const struct xt_physdev_info *p = find_match(f, entry, "physdev");
        const struct xt_tcp *tcp = find_match(f, entry, "tcp");

        memset(ret, 0, sizeof(*ret));
        memcpy(ret->source, six ? (const void *) &v6->ipv6.src : &v4->ip.src, six ? 16 : 4);
        memcpy(ret->destination, six ? (const void *) &v6->ipv6.dst : &v4->ip.dst, six ? 16 : 4);
        ret->physdev = p != NULL;
        copy_name(ret->in, p ? p->physindev : six ? v6->ipv6.iniface : v4->ip.iniface);
        copy_name(ret->out, p ? p->physoutdev : six ? v6->ipv6.outiface : v4->ip.outiface);
        ret->port = tcp ? tcp->dpts[0] : 0;
}

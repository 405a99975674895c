/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which back end, and the guard beside it. */

/* Before anything of linux/: the other way round they clash. */
#include <netinet/in.h>

#include <assert.h>
#include <linux/netfilter.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/log.h"
#include "common/strv.h"
#include "netctl/netctl-internal.h"

#define LEGACY_TABLES "/proc/net/ip_tables_names"

static const char *const firewall_table[] = {
        [NETCTL_FIREWALL_AUTO] = "auto",
        [NETCTL_FIREWALL_IPTABLES] = "iptables",
        [NETCTL_FIREWALL_NFTABLES] = "nftables",
};
static_assert(ELEMENTSOF(firewall_table) == _NETCTL_FIREWALL_MAX, "one name per back end");

const char *netctl_firewall_to_string(NetctlFirewall f)
{
        return f >= 0 && f < _NETCTL_FIREWALL_MAX ? firewall_table[f] : NULL;
}

NetctlFirewall netctl_firewall_from_string(const char *s)
{
        for (int i = 0; i < _NETCTL_FIREWALL_MAX; i++)
                if (tb_streq(s, firewall_table[i]))
                        return (NetctlFirewall) i;
        return _NETCTL_FIREWALL_INVALID;
}

/* Are there legacy tables in this namespace? They come into being with the first look at them. */
static bool legacy_tables_exist(void)
{
        _cleanup_free_ char *text = NULL;

        return tb_file_read(LEGACY_TABLES, 4096, &text, NULL, NULL) >= 0 && strstr(text, "filter\n");
}

static bool has_nft_table(uint8_t family, const char *name)
{
        _cleanup_nft_ Nft *nft = NULL;
        NftTable t;

        nft_table_init(&t, family, name);
        return nft_new(&nft, NULL) >= 0 && nft_table_present(nft, &t, NULL) > 0;
}

/* Docker with firewall-backend=nftables makes this table (reference/shaping.md 6.5; `docker info` says so from API 1.49 on). */
static bool docker_uses_nftables(void)
{
        return has_nft_table(NFPROTO_IPV4, "docker-bridges");
}

static bool can(const Capabilities *caps, NetctlFirewall f)
{
        return f == NETCTL_FIREWALL_NFTABLES
                ? caps->has[CAPABILITY_NF_TABLES_INET] && caps->has[CAPABILITY_NF_TABLES_BRIDGE]
                : caps->has[CAPABILITY_IPTABLES_FILTER];
}

/* The kernel is the memory: while nodes have their rules in one back end, they stay there, whatever others begin to use. */
static NetctlFirewall choose(const Capabilities *caps, const char **ret_why)
{
        bool ours, others;

        if (!can(caps, NETCTL_FIREWALL_IPTABLES)) {
                *ret_why = "the kernel has no legacy iptables tables";
                return NETCTL_FIREWALL_NFTABLES;
        }
        if (!can(caps, NETCTL_FIREWALL_NFTABLES)) {
                *ret_why = "the kernel has no nf_tables with families inet and bridge";
                return NETCTL_FIREWALL_IPTABLES;
        }
        fw_iptables_use(&ours, &others);
        if (ours != has_nft_table(NFPROTO_INET, FW_NFTABLES_TABLE)) {
                *ret_why = "the nodes of this host have their rules there already";
                return ours ? NETCTL_FIREWALL_IPTABLES : NETCTL_FIREWALL_NFTABLES;
        }
        if (docker_uses_nftables()) {
                *ret_why = "Docker uses nftables";
                return NETCTL_FIREWALL_NFTABLES;
        }
        if (others) {
                *ret_why = "legacy iptables tables are in use on this host";
                return NETCTL_FIREWALL_IPTABLES;
        }
        *ret_why = "nobody on this host uses legacy iptables tables";
        return NETCTL_FIREWALL_NFTABLES;
}

int netctl_firewall_choose(const Capabilities *caps, NetctlFirewall wanted, NetctlFirewall *ret,
        const char **ret_why, TbError **err)
{
        const char *why = "the configuration says so";

        if (wanted == NETCTL_FIREWALL_AUTO)
                wanted = choose(caps, &why);
        if (!can(caps, wanted))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOENT,
                        "this kernel lacks what the %s firewall needs; see 'tbnode doctor'",
                        netctl_firewall_to_string(wanted));
        *ret = wanted;
        if (ret_why)
                *ret_why = why;
        return 0;
}

bool netctl_lock_is_busy(const TbError *e)
{
        return e && e->kind == TB_ERROR_RESOURCE && e->code == -EBUSY && e->retryable;
}

static unsigned how(const Netctl *n)
{
        return (n->options.enable_bridge_nf ? FW_APPLY_BRIDGE_NF : 0) |
                (n->options.try_lock ? FW_APPLY_TRY_LOCK : 0);
}

static int backend(Netctl *n, const FwBackend **ret, TbError **err)
{
        const Capabilities *caps;
        NetctlFirewall f;
        const char *why;

        if (!n->backend && n->options.firewall != NETCTL_FIREWALL_AUTO) {
                /* Said is done: a kernel that can't says so itself. */
                n->backend = n->options.firewall == NETCTL_FIREWALL_NFTABLES ? &fw_nftables : &fw_iptables;
        } else if (!n->backend) {
                int r = netctl_capabilities(n, &caps, err);
                if (r >= 0)
                        r = netctl_firewall_choose(caps, n->options.firewall, &f, &why, err);
                if (r < 0)
                        return r;
                log_debug("firewall by %s: %s", netctl_firewall_to_string(f), why);
                n->backend = f == NETCTL_FIREWALL_NFTABLES ? &fw_nftables : &fw_iptables;
        }
        *ret = n->backend;
        return 0;
}

/* The site of the configuration together with what the guard has to know of this moment. */
typedef struct Site {
        FwSite *site;
        FwGuard guard;
        Links own;
} Site;

static void site_done(Site *s)
{
        free(s->site);
        free(s->guard.uplinks);
        links_done(&s->own);
}

static int site_prepare(Netctl *n, const Links *links, Site *s, TbError **err)
{
        const Capabilities *caps;
        char *const *names = n->options.managed_bridges;
        FwGuard *g = &s->guard;

        s->site = calloc(1, sizeof(*s->site));
        if (!s->site)
                return tb_error_oom(err);
        if (n->options.site)
                *s->site = *n->options.site;
        s->site->guard = g;
        if (!names || !names[0])
                return 0;
        int r = netctl_capabilities(n, &caps, err);
        if (r >= 0 && !links) {
                r = links_dump(n->rtnl, &s->own, err);
                links = &s->own;
        }
        if (r < 0)
                return r;
        g->bridge_names = caps->has[CAPABILITY_NFT_BRIDGE_META];
        g->uplinks = calloc(links->n + 1, sizeof(*g->uplinks));
        if (!g->uplinks)
                return tb_error_oom(err);
        for (size_t i = 0; names[i] && g->n_managed < FW_GUARD_BRIDGES_MAX; i++)
                (void) snprintf(g->managed[g->n_managed++], IFNAMSIZ, "%s", names[i]);
        for (size_t i = 0; i < links->n; i++) {
                const Link *l = links->v + i, *bridge = l->master ? links_find(links, l->master) : NULL;
                if (bridge && !tb_streq(l->kind, "veth") && fw_guard_manages(g, bridge->name))
                        g->uplinks[g->n_uplinks++] = l->ifindex;
        }
        return 0;
}

/* A kernel whose nf_tables has no family bridge has no guard, like one without nf_tables, and that is no error with iptables: `doctor`
 * says what is not pinned there. Asked only when there is reason to. */
static int guard_is_possible(Netctl *n, TbError **err)
{
        const Capabilities *caps;

        int r = netctl_capabilities(n, &caps, err);
        return r < 0 ? r : caps->has[CAPABILITY_NF_TABLES_BRIDGE];
}

static int apply_guard(Netctl *n, const FwSite *site, const FwNode *nodes, size_t count, bool sweep,
        char *const *keep, FwOutcome *outcome, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;

        if (n->have_caps && guard_is_possible(n, NULL) == 0)
                return 0;
        int r = fw_guard_apply(site, nodes, count, sweep, keep, outcome, &e);
        if (r == -EOPNOTSUPP && guard_is_possible(n, NULL) == 0)
                return 0;
        return r < 0 ? tb_error_move(err, &e) : 0;
}

int firewall_apply(Netctl *n, const Links *links, const FwNode *nodes, size_t count, bool sweep,
        char *const *keep, FwOutcome *outcome, TbError **err)
{
        _cleanup_(site_done) Site s = {};
        const FwBackend *b;

        int r = backend(n, &b, err);
        if (r >= 0)
                r = site_prepare(n, links, &s, err);
        if (r < 0 || b == &fw_nftables)
                return r < 0 ? r : b->apply(s.site, nodes, count, sweep, keep, how(n), outcome, err);
        /* What is more closed comes first. */
        _cleanup_free_ bool *changed = calloc(count + 1, sizeof(bool));
        FwOutcome guard = {.changed = changed};
        if (!changed)
                return tb_error_oom(err);
        r = apply_guard(n, s.site, nodes, count, sweep, keep, &guard, err);
        if (r < 0)
                return r;
        r = b->apply(s.site, nodes, count, sweep, keep, how(n), outcome, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < count && outcome->changed; i++)
                outcome->changed[i] |= changed[i];
        outcome->commits += guard.commits;
        outcome->removed = MAX2(outcome->removed, guard.removed);
        return 0;
}

int firewall_read(
        Netctl *n, const Links *links, const FwNode *nodes, size_t count, FwReadback *ret, TbError **err)
{
        _cleanup_(site_done) Site s = {};
        const FwBackend *b;

        int r = backend(n, &b, err);
        if (r >= 0)
                r = site_prepare(n, links, &s, err);
        if (r >= 0)
                r = b->read(s.site, nodes, count, ret, err);
        if (r < 0 || b == &fw_nftables)
                return r;
        r = guard_is_possible(n, err);
        if (r > 0)
                r = fw_guard_read_nodes(s.site, nodes, count, ret, err);
        for (size_t i = 0; i < count && r < 0; i++)
                fw_readback_done(ret + i);
        return r;
}

int firewall_leave_other(Netctl *n, const FwNode *nodes, size_t count, bool sweep, char *const *keep,
        FwOutcome *outcome, TbError **err)
{
        _cleanup_free_ FwNode *gone = calloc(count + 1, sizeof(*gone));
        FwOutcome other = {};
        const FwBackend *b;

        if (!gone)
                return tb_error_oom(err);
        for (size_t i = 0; i < count; i++)
                gone[i] = (FwNode){.id = nodes[i].id, .style = FW_NONE};
        int r = backend(n, &b, err);
        if (r < 0)
                return r;
        if (b == &fw_iptables)
                r = fw_nftables_leave(n->options.site, gone, count, sweep, keep, &other, err);
        else if (legacy_tables_exist()) /* a look at tables that nobody uses would bring them into being */
                r = fw_iptables.apply(
                        n->options.site, gone, count, sweep, keep, how(n) & FW_APPLY_TRY_LOCK, &other, err);
        outcome->commits += other.commits;
        outcome->removed += other.removed;
        return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/inside.h"

#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"

void insides_done(Insides *x)
{
        free(x->v);
        free(x->nsids);
        *x = (Insides){};
}

static int compare_nsid(const void *a, const void *b)
{
        int32_t x = *(const int32_t *) a, y = *(const int32_t *) b;

        return x < y ? -1 : x > y;
}

static int compare_inside(const void *a, const void *b)
{
        int32_t x = ((const InsideLink *) a)->nsid, y = ((const InsideLink *) b)->nsid;

        return x < y ? -1 : x > y;
}

typedef struct Asked {
        Insides *insides;
        size_t *which; /* per message: the namespace or the link that it is about */
} Asked;

static int take_nsid(size_t message, const struct nlmsghdr *h, void *userdata)
{
        const Asked *a = userdata;
        uint32_t v;
        NlIter i = nl_message_attributes(h, sizeof(struct rtgenmsg));

        for (NlAttr attr; h->nlmsg_type == RTM_NEWNSID && nl_iter_next(&i, &attr);)
                if (attr.type == NETNSA_NSID && nl_attr_u32(&attr, &v))
                        a->insides->nsids[a->which[message]] = (int32_t) v;
        return 0;
}

static int ask_nsids(Rtnl *host, const int *fds, const int32_t *known, size_t n, Asked *a, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        const struct rtgenmsg m = {.rtgen_family = AF_UNSPEC};

        for (size_t i = 0; i < n; i++) {
                a->insides->nsids[i] = fds[i] >= 0 && known[i] >= 0 ? known[i] : NETNSA_NSID_NOT_ASSIGNED;
                if (fds[i] < 0 || known[i] >= 0)
                        continue;
                a->which[w.n_messages] = i;
                nlw_begin(&w, RTM_GETNSID, 0, &m, sizeof(m));
                nlw_put_u32(&w, NETNSA_FD, (uint32_t) fds[i]);
                nlw_end(&w);
        }
        return w.n_messages > 0 ? rtnl_get_many(host, &w, take_nsid, a, err) : 0;
}

static int take_inside(size_t message, const struct nlmsghdr *h, void *userdata)
{
        const Asked *a = userdata;
        InsideLink *x = a->insides->v + a->which[message];
        Link link;

        if (link_decode(h, &link) && link.ifindex == x->host->peer && link.peer == x->host->ifindex &&
                tb_streq(link.kind, "veth"))
                x->link = link;
        return 0;
}

static bool is_wanted(const Link *l, const int32_t *nsids, size_t n)
{
        return tb_streq(l->kind, "veth") && l->has_netnsid && l->peer_netnsid >= 0 && l->peer > 0 &&
                bsearch(&l->peer_netnsid, nsids, n, sizeof(*nsids), compare_nsid);
}

static int ask_links(
        Rtnl *host, const Links *links, const int32_t *sorted, size_t n, Asked *a, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};
        Insides *x = a->insides;

        for (size_t i = 0; i < links->n; i++)
                if (is_wanted(links->v + i, sorted, n))
                        x->v[x->n++] = (InsideLink){.nsid = links->v[i].peer_netnsid, .host = links->v + i};
        if (x->n > 1)
                qsort(x->v, x->n, sizeof(*x->v), compare_inside);
        for (size_t i = 0; i < x->n; i++) {
                const struct ifinfomsg m = {.ifi_family = AF_UNSPEC, .ifi_index = (int) x->v[i].host->peer};
                a->which[w.n_messages] = i;
                nlw_begin(&w, RTM_GETLINK, 0, &m, sizeof(m));
                nlw_put_u32(&w, IFLA_TARGET_NETNSID, (uint32_t) x->v[i].nsid);
                nlw_put_u32(&w, IFLA_EXT_MASK, LINKS_SKIP_STATS);
                nlw_end(&w);
        }
        return rtnl_get_many(host, &w, take_inside, a, err);
}

int insides_read(Rtnl *host, const Links *links, const int *fds, const int32_t *known, size_t n,
        Insides *ret, TbError **err)
{
        _cleanup_insides_ Insides x = {};
        _cleanup_free_ size_t *which = reallocarray(NULL, MAX2(n, links->n) + 1, sizeof(*which));
        _cleanup_free_ int32_t *sorted = reallocarray(NULL, n + 1, sizeof(*sorted));
        Asked asked = {.insides = &x, .which = which};

        x.nsids = reallocarray(NULL, n + 1, sizeof(*x.nsids));
        x.v = reallocarray(NULL, links->n + 1, sizeof(*x.v));
        if (!which || !sorted || !x.nsids || !x.v)
                return tb_error_oom(err);
        int r = ask_nsids(host, fds, known, n, &asked, err);
        if (r < 0)
                return r;
        memcpy(sorted, x.nsids, n * sizeof(*sorted));
        if (n > 1)
                qsort(sorted, n, sizeof(*sorted), compare_nsid);
        r = ask_links(host, links, sorted, n, &asked, err);
        if (r < 0)
                return r;
        *ret = x;
        x = (Insides){};
        return 0;
}

/* Veths in namespace number `nsid` whose other end is elsewhere. */
static int list_inside(Rtnl *host, int32_t nsid, Insides *x, size_t *allocated, TbError **err)
{
        _cleanup_links_ Links links = {};

        int r = links_dump_inside(host, nsid, &links, err);
        for (size_t i = 0; i < links.n && r >= 0; i++) {
                const Link *l = links.v + i;
                if (!tb_streq(l->kind, "veth") || !l->has_netnsid || l->peer == 0)
                        continue;
                if (x->n == *allocated) {
                        size_t want = *allocated * 2 + 8;
                        InsideLink *p = reallocarray(x->v, want, sizeof(*p));
                        if (!p)
                                return tb_error_oom(err);
                        x->v = p;
                        *allocated = want;
                }
                x->v[x->n++] = (InsideLink){.nsid = nsid, .link = *l};
        }
        return r;
}

/* Which of them have their other end on the host, as both sides say. */
static int meet_hosts(Rtnl *host, Insides *x, Links *links, TbError **err)
{
        _cleanup_free_ LinkKey *keys = calloc(x->n + 1, sizeof(*keys));
        size_t n = 0;

        if (!keys)
                return tb_error_oom(err);
        for (size_t i = 0; i < x->n; i++)
                keys[i].ifindex = x->v[i].link.peer;
        int r = links_get(host, keys, x->n, links, err);
        for (size_t i = 0; i < x->n && r >= 0; i++) {
                const Link *h = links_find(links, x->v[i].link.peer);
                if (!h || !tb_streq(h->kind, "veth") || h->peer != x->v[i].link.ifindex || !h->has_netnsid ||
                        h->peer_netnsid != x->v[i].nsid)
                        continue;
                x->v[n] = x->v[i];
                x->v[n++].host = h;
        }
        x->n = n;
        return r;
}

int insides_read_few(Rtnl *host, const int *fds, const int32_t *known, size_t n, Links *links, Insides *ret,
        TbError **err)
{
        _cleanup_insides_ Insides x = {};
        _cleanup_free_ size_t *which = reallocarray(NULL, n + 1, sizeof(*which));
        _cleanup_free_ int32_t *sorted = reallocarray(NULL, n + 1, sizeof(*sorted));
        Asked asked = {.insides = &x, .which = which};
        size_t allocated = 0;

        x.nsids = reallocarray(NULL, n + 1, sizeof(*x.nsids));
        if (!which || !sorted || !x.nsids)
                return tb_error_oom(err);
        int r = ask_nsids(host, fds, known, n, &asked, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++)
                if (fds[i] >= 0 && x.nsids[i] < 0)
                        return 0;
        memcpy(sorted, x.nsids, n * sizeof(*sorted));
        if (n > 1)
                qsort(sorted, n, sizeof(*sorted), compare_nsid);
        for (size_t i = 0; i < n && r >= 0; i++)
                if (sorted[i] >= 0 && (i == 0 || sorted[i - 1] != sorted[i]))
                        r = list_inside(host, sorted[i], &x, &allocated, err);
        if (r >= 0)
                r = meet_hosts(host, &x, links, err);
        if (r < 0)
                return r;
        *ret = x;
        x = (Insides){};
        return 1;
}

const InsideLink *insides_find(const Insides *x, size_t i, const uint8_t mac[static 6])
{
        const InsideLink *hit = NULL;
        size_t low = 0, high = x->n;

        if (!x->nsids || x->nsids[i] < 0)
                return NULL;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (x->v[middle].nsid < x->nsids[i])
                        low = middle + 1;
                else
                        high = middle;
        }
        for (; low < x->n && x->v[low].nsid == x->nsids[i]; low++) {
                if (x->v[low].link.ifindex == 0 || memcmp(x->v[low].link.mac, mac, 6) != 0)
                        continue;
                if (hit)
                        return NULL;
                hit = x->v + low;
        }
        return hit;
}

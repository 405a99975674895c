/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Devices of one namespace: dump and decode. */

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>

#include "common/strv.h"
#include "netctl/observe.h"

void links_done(Links *l)
{
        free(l->v);
        *l = (Links){};
}

static void decode_info(const NlAttr *info, Link *l)
{
        NlIter i = nl_iter_nested(info);

        for (NlAttr a; nl_iter_next(&i, &a);)
                if (a.type == IFLA_INFO_KIND)
                        nl_attr_string(&a, l->kind, sizeof(l->kind));
}

bool link_decode(const struct nlmsghdr *h, Link *ret)
{
        const struct ifinfomsg *m = nl_message_header(h, sizeof(*m));
        uint32_t v;

        if (h->nlmsg_type != RTM_NEWLINK || !m || m->ifi_index <= 0)
                return false;
        Link l = {.ifindex = (uint32_t) m->ifi_index, .flags = m->ifi_flags};

        NlIter i = nl_message_attributes(h, sizeof(*m));
        for (NlAttr a; nl_iter_next(&i, &a);)
                switch (a.type) {
                case IFLA_IFNAME:
                        nl_attr_string(&a, l.name, sizeof(l.name));
                        break;
                case IFLA_IFALIAS:
                        nl_attr_string(&a, l.alias, sizeof(l.alias));
                        break;
                case IFLA_ADDRESS:
                        if (a.size == sizeof(l.mac))
                                memcpy(l.mac, a.data, sizeof(l.mac));
                        break;
                case IFLA_LINK:
                        (void) nl_attr_u32(&a, &l.peer);
                        break;
                case IFLA_LINK_NETNSID:
                        if (nl_attr_u32(&a, &v)) {
                                l.peer_netnsid = (int32_t) v;
                                l.has_netnsid = true;
                        }
                        break;
                case IFLA_GROUP:
                        (void) nl_attr_u32(&a, &l.group);
                        break;
                case IFLA_MASTER:
                        (void) nl_attr_u32(&a, &l.master);
                        break;
                case IFLA_MTU:
                        (void) nl_attr_u32(&a, &l.mtu);
                        break;
                case IFLA_GSO_MAX_SEGS:
                        (void) nl_attr_u32(&a, &l.gso_max_segs);
                        break;
                case IFLA_TXQLEN:
                        (void) nl_attr_u32(&a, &l.txqlen);
                        break;
                case IFLA_LINKINFO:
                        decode_info(&a, &l);
                        break;
                default:
                        break;
                }
        *ret = l;
        return true;
}

static int add_link(Links *l, const Link *link)
{
        if (l->n == LINKS_MAX)
                return -E2BIG;
        if (l->n == l->allocated) {
                size_t want = l->allocated > 0 ? l->allocated * 2 : 64;
                Link *p = reallocarray(l->v, want, sizeof(*p));
                if (!p)
                        return -ENOMEM;
                l->v = p;
                l->allocated = want;
        }
        l->v[l->n++] = *link;
        return 0;
}

static int take_link(const struct nlmsghdr *h, void *userdata)
{
        Link link;

        return link_decode(h, &link) ? add_link(userdata, &link) : 0;
}

static int compare_link(const void *a, const void *b)
{
        uint32_t x = ((const Link *) a)->ifindex, y = ((const Link *) b)->ifindex;

        return x < y ? -1 : x > y;
}

static void links_sort(Links *l)
{
        size_t n = 0;

        if (l->n > 1)
                qsort(l->v, l->n, sizeof(*l->v), compare_link);
        for (size_t i = 0; i < l->n; i++)
                if (n == 0 || l->v[n - 1].ifindex != l->v[i].ifindex)
                        l->v[n++] = l->v[i];
        l->n = n;
}

/* `nsid` < 0: of the socket's own namespace. */
static int dump(Rtnl *r, int32_t nsid, Links *ret, TbError **err)
{
        enum {
                TRIES = 5,
        };

        for (int i = 0;; i++) {
                _cleanup_links_ Links l = {};
                _cleanup_nlw_ NlWriter w = {};
                _cleanup_error_ TbError *e = NULL;
                struct ifinfomsg m = {.ifi_family = AF_UNSPEC};

                nlw_begin(&w, RTM_GETLINK, 0, &m, sizeof(m));
                if (nsid >= 0)
                        nlw_put_u32(&w, IFLA_TARGET_NETNSID, (uint32_t) nsid);
                else /* with a mask the kernel first goes through all of our devices, whoever's are asked for */
                        nlw_put_u32(&w, IFLA_EXT_MASK, LINKS_SKIP_STATS);
                nlw_end(&w);
                int k = rtnl_dump(r, &w, take_link, &l, &e);
                if (k == -EINTR && i + 1 < TRIES)
                        continue;
                if (k < 0) {
                        tb_error_prefix(&e, "cannot list network interfaces");
                        (void) tb_error_move(err, &e);
                        return k;
                }
                links_sort(&l);
                *ret = l;
                l = (Links){};
                return 0;
        }
}

int links_dump(Rtnl *r, Links *ret, TbError **err)
{
        return dump(r, -1, ret, err);
}

int links_dump_inside(Rtnl *r, int32_t nsid, Links *ret, TbError **err)
{
        return dump(r, nsid, ret, err);
}

static int take_one(size_t message, const struct nlmsghdr *h, void *userdata)
{
        int code = rtnl_answer_error(h);

        return code == -ENODEV ? 0 : code < 0 ? code : take_link(h, userdata);
}

int links_get(Rtnl *r, const LinkKey *keys, size_t n, Links *links, TbError **err)
{
        _cleanup_nlw_ NlWriter w = {};

        for (size_t i = 0; i < n; i++) {
                const struct ifinfomsg m = {.ifi_family = AF_UNSPEC, .ifi_index = (int) keys[i].ifindex};
                if (keys[i].ifindex == 0 && !keys[i].name[0])
                        continue;
                nlw_begin(&w, RTM_GETLINK, 0, &m, sizeof(m));
                if (keys[i].ifindex == 0)
                        nlw_put_string(&w, IFLA_IFNAME, keys[i].name);
                nlw_put_u32(&w, IFLA_EXT_MASK, LINKS_SKIP_STATS);
                nlw_end(&w);
        }
        int k = w.n_messages > 0 ? rtnl_get_many(r, &w, take_one, links, err) : 0;
        if (k < 0) {
                tb_error_prefix(err, "cannot read network interfaces");
                return k;
        }
        links_sort(links);
        return 0;
}

const Link *links_find(const Links *l, uint32_t ifindex)
{
        Link key = {.ifindex = ifindex};

        return l->n > 0 ? bsearch(&key, l->v, l->n, sizeof(*l->v), compare_link) : NULL;
}

const Link *links_find_name(const Links *l, const char *name)
{
        for (size_t i = 0; i < l->n; i++)
                if (tb_streq(l->v[i].name, name))
                        return l->v + i;
        return NULL;
}

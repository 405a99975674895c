/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/veth.h"

#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/netns.h"

void container_done(Container *c)
{
        rtnl_free(c->inside);
        for (size_t i = 0; i < c->n_peers; i++) {
                tb_close(c->peers[i].fd);
                free(c->peers[i].path);
        }
        free(c->peers);
        free(c->interfaces);
        *c = (Container){};
}

static int take_address(const struct nlmsghdr *h, void *userdata)
{
        Container *c = userdata;
        const struct ifaddrmsg *m = nl_message_header(h, sizeof(*m));
        struct in_addr address = {};

        if (h->nlmsg_type != RTM_NEWADDR || !m || m->ifa_family != AF_INET)
                return 0;
        NlIter i = nl_message_attributes(h, sizeof(*m));
        for (NlAttr a; nl_iter_next(&i, &a);)
                if (a.type == IFA_LOCAL && a.size == sizeof(address))
                        memcpy(&address, a.data, sizeof(address));
        for (size_t k = 0; k < c->n; k++)
                if (c->interfaces[k].link.ifindex == m->ifa_index && c->interfaces[k].ipv4.s_addr == 0) {
                        c->interfaces[k].ipv4 = address;
                        c->interfaces[k].prefix = m->ifa_prefixlen;
                }
        return 0;
}

static int read_inside(Rtnl *inside, bool addresses, Container *c, TbError **err)
{
        _cleanup_links_ Links links = {};
        _cleanup_nlw_ NlWriter w = {};
        struct ifaddrmsg m = {.ifa_family = AF_INET};

        int k = links_dump(inside, &links, err);
        if (k < 0)
                return k;
        c->interfaces = calloc(links.n + 1, sizeof(*c->interfaces));
        if (!c->interfaces)
                return tb_error_oom(err);
        c->n = links.n;
        for (size_t i = 0; i < links.n; i++)
                c->interfaces[i].link = links.v[i];
        if (!addresses)
                return 0;

        nlw_begin(&w, RTM_GETADDR, 0, &m, sizeof(m));
        nlw_end(&w);
        k = rtnl_dump(inside, &w, take_address, c, err);
        if (k ==
                -EINTR) /* addresses came or went meanwhile; the first one of each interface is what counts */
                tb_error_set_retryable(err);
        return k;
}

static bool leads_to_host(const Container *c, const Link *l)
{
        return tb_streq(l->kind, "veth") && l->has_netnsid && c->host_known &&
                l->peer_netnsid == c->host_nsid;
}

static const ContainerPeer *leads_to_peer(const Container *c, const Link *l)
{
        for (size_t i = 0; i < c->n_peers && tb_streq(l->kind, "veth") && l->has_netnsid; i++)
                if (c->peers[i].nsid == l->peer_netnsid)
                        return c->peers + i;
        return NULL;
}

/* Of the namespaces that have a name, those that veths of this container lead to. They are told by the ids that the
 * container's namespace has for them, and by nothing else. */
static int find_peers(Rtnl *inside, char *const *directories, Container *c, TbError **err)
{
        _cleanup_netns_list_ NetnsList list = {};
        size_t wanted = 0;

        for (size_t i = 0; i < c->n; i++) {
                const Link *l = &c->interfaces[i].link;
                wanted += tb_streq(l->kind, "veth") && l->has_netnsid && !leads_to_host(c, l);
        }
        if (wanted == 0)
                return 0;
        int r = netns_list(directories, &list, err);
        if (r < 0)
                return r;
        c->peers = calloc(wanted, sizeof(*c->peers));
        if (!c->peers)
                return tb_error_oom(err);
        for (size_t i = 0; i < list.n && c->n_peers < wanted; i++) {
                _cleanup_close_ int fd = netns_open(list.v + i);
                ContainerPeer peer = {.fd = -EBADF};
                bool known, used = false;
                if (fd < 0)
                        continue;
                r = netns_id(inside, fd, &peer.nsid, &known, err);
                if (r < 0)
                        return r;
                for (size_t k = 0; k < c->n && known; k++) {
                        const Link *l = &c->interfaces[k].link;
                        used |= tb_streq(l->kind, "veth") && l->has_netnsid && l->peer_netnsid == peer.nsid;
                }
                if (!used || (c->host_known && peer.nsid == c->host_nsid))
                        continue;
                peer.path = strdup(list.v[i].path);
                if (!peer.path)
                        return tb_error_oom(err);
                peer.fd = TAKE_FD(fd);
                c->peers[c->n_peers++] = peer;
        }
        return 0;
}

int container_read(Rtnl *host, int host_fd, int netns_fd, bool addresses, char *const *directories,
        Container *ret, TbError **err)
{
        _cleanup_container_ Container c = {};

        int k = rtnl_new_in(netns_fd, host_fd, false, &c.inside, err);
        if (k < 0)
                return k;
        k = read_inside(c.inside, addresses, &c, err);
        if (k < 0) {
                tb_error_prefix(err, "cannot read the container's interfaces");
                return k;
        }
        k = netns_id(c.inside, host_fd, &c.host_nsid, &c.host_known, err);
        if (k < 0)
                return k;
        k = netns_id(host, netns_fd, &c.container_nsid, &c.container_known, err);
        if (k >= 0)
                k = find_peers(c.inside, directories, &c, err);
        if (k < 0)
                return k;
        *ret = c;
        c = (Container){};
        return 0;
}

const char *mac_print(const uint8_t mac[static 6], char buf[static 18])
{
        (void) snprintf(
                buf, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
        return buf;
}

bool mac_parse(const char *s, uint8_t ret[static 6])
{
        unsigned v[6];
        char end;

        if (strlen(s) != 17 ||
                sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%c", v, v + 1, v + 2, v + 3, v + 4, v + 5, &end) != 6)
                return false;
        for (int i = 0; i < 6; i++)
                ret[i] = (uint8_t) v[i];
        return true;
}

const ContainerInterface *container_find_name(const Container *c, const char *name)
{
        for (size_t i = 0; i < c->n; i++)
                if (tb_streq(c->interfaces[i].link.name, name))
                        return c->interfaces + i;
        return NULL;
}

static int find_inside(const Container *c, const uint8_t mac[static 6], const char *text,
        const ContainerInterface **ret, TbError **err)
{
        const ContainerInterface *any = NULL, *good = NULL;
        unsigned n_good = 0;

        for (size_t i = 0; i < c->n; i++) {
                const ContainerInterface *x = c->interfaces + i;
                if (memcmp(x->link.mac, mac, 6) != 0)
                        continue;
                any = x;
                if (leads_to_host(c, &x->link) || leads_to_peer(c, &x->link)) {
                        good = x;
                        n_good++;
                }
        }
        if (n_good > 1)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTUNIQ,
                        "%u veths of the container have MAC address %s; give each its own", n_good, text);
        if (good) {
                *ret = good;
                return 0;
        }
        if (!any)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENXIO,
                        "the container has no interface with MAC address %s", text);
        if (!tb_streq(any->link.kind, "veth"))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EMEDIUMTYPE,
                        "interface %s (%s) of the container is %s%s, not a veth: it has no side on the host "
                        "that could be shaped; use a bridge network",
                        any->link.name, text, any->link.kind[0] ? "of kind " : "a plain device",
                        any->link.kind);
        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EXDEV,
                "the other end of the container's veth %s (%s) is in another network namespace, and in none "
                "that has a name in /run/docker/netns or /run/netns; give it one with 'ip netns attach', or "
                "use a bridge network",
                any->link.name, text);
}

int container_find(const Container *c, const uint8_t mac[static 6], const ContainerInterface **ret_inside,
        const ContainerPeer **ret_peer, TbError **err)
{
        const ContainerInterface *x = NULL;
        char text[18];

        int k = find_inside(c, mac, mac_print(mac, text), &x, err);
        if (k < 0)
                return k;
        *ret_inside = x;
        *ret_peer = leads_to_host(c, &x->link) ? NULL : leads_to_peer(c, &x->link);
        return 0;
}

int container_verify(const ContainerInterface *x, const Links *links, bool container_known,
        int32_t container_nsid, const Link **ret_host, TbError **err)
{
        const Link *h = links_find(links, x->link.peer);
        const char *why = NULL;
        char text[18];

        if (!h)
                why = "is gone";
        else if (!tb_streq(h->kind, "veth"))
                why = "is not a veth";
        else if (h->peer != x->link.ifindex)
                why = "has another peer";
        else if (!h->has_netnsid || !container_known || h->peer_netnsid != container_nsid)
                why = "belongs to another container";
        if (why) {
                (void) tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENODEV,
                        "host side of the container's veth %s (%s), interface index %u, %s", x->link.name,
                        mac_print(x->link.mac, text), x->link.peer, why);
                tb_error_set_retryable(err);
                return -ENODEV;
        }
        *ret_host = h;
        return 0;
}

int container_resolve(const Container *c, const Links *host_links, const uint8_t mac[static 6],
        const ContainerInterface **ret_inside, const Link **ret_host, TbError **err)
{
        const ContainerPeer *peer = NULL;

        int k = container_find(c, mac, ret_inside, &peer, err);
        if (k < 0)
                return k;
        if (peer)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EXDEV,
                        "the other end of the container's veth %s is in %s", (*ret_inside)->link.name,
                        peer->path);
        return container_verify(
                *ret_inside, host_links, c->container_known, c->container_nsid, ret_host, err);
}

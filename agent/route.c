/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "agent/route.h"
#include "common/cleanup.h"
#include "common/event-nl.h"

/* A socket keeps the namespace that it was made in. */
static int open_inside(int netns_fd, struct nl_sock **ret, TbError **err)
{
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = nl_socket_alloc();
        _cleanup_close_ int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        int r;

        if (!sock)
                return tb_error_oom(err);
        if (here < 0 || setns(netns_fd, CLONE_NEWNET) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot enter the container's network namespace");
        r = nl_connect(sock, NETLINK_ROUTE);
        if (setns(here, CLONE_NEWNET) < 0)
                _exit(EXIT_FAILURE);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, tb_nl_errno(r),
                        "cannot open a netlink socket in the container");
        *ret = TAKE_PTR(sock);
        return 0;
}

/* Is there a default route in the main table, through this gateway and nothing else? */
static bool is_right(struct nl_cache *routes, struct in_addr gateway)
{
        bool found = false;

        for (struct nl_object *o = nl_cache_get_first(routes); o; o = nl_cache_get_next(o)) {
                struct rtnl_route *route = (struct rtnl_route *) o;
                struct rtnl_nexthop *hop;
                struct nl_addr *via;

                if (rtnl_route_get_table(route) != RT_TABLE_MAIN ||
                        rtnl_route_get_type(route) != RTN_UNICAST ||
                        nl_addr_get_prefixlen(rtnl_route_get_dst(route)) != 0)
                        continue;
                hop = rtnl_route_get_nnexthops(route) == 1 ? rtnl_route_nexthop_n(route, 0) : NULL;
                via = hop ? rtnl_route_nh_get_gateway(hop) : NULL;
                if (!via || nl_addr_get_len(via) != sizeof(gateway) ||
                        memcmp(nl_addr_get_binary_addr(via), &gateway, sizeof(gateway)) != 0)
                        return false;
                found = true;
        }
        return found;
}

static int replace_default(struct nl_sock *sock, struct in_addr gateway, TbError **err)
{
        struct rtnl_route *route = rtnl_route_alloc();
        struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
        struct nl_addr *dst = nl_addr_build(AF_INET, NULL, 0);
        struct nl_addr *via = nl_addr_build(AF_INET, &gateway, sizeof(gateway));
        char text[INET_ADDRSTRLEN];
        int r = -NLE_NOMEM;

        if (route && hop && dst && via) {
                nl_addr_set_prefixlen(dst, 0);
                rtnl_route_nh_set_gateway(hop, via);
                rtnl_route_add_nexthop(route, hop); /* takes it */
                hop = NULL;
                r = rtnl_route_set_family(route, AF_INET);
                if (r >= 0)
                        r = rtnl_route_set_dst(route, dst);
                if (r >= 0)
                        r = rtnl_route_add(sock, route, NLM_F_CREATE | NLM_F_REPLACE);
        }
        nl_addr_put(dst);
        nl_addr_put(via);
        if (hop)
                rtnl_route_nh_free(hop);
        rtnl_route_put(route);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, tb_nl_errno(r),
                        "cannot set the default route through the control network (%s)",
                        inet_ntop(AF_INET, &gateway, text, sizeof(text)));
        return 1;
}

int route_ensure_default(int netns_fd, struct in_addr gateway, TbError **err)
{
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = NULL;
        struct nl_cache *routes = NULL;
        bool right;
        int r;

        r = open_inside(netns_fd, &sock, err);
        if (r < 0)
                return r;
        r = rtnl_route_alloc_cache(sock, AF_INET, 0, &routes);
        if (r < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, tb_nl_errno(r), "cannot read the container's routes");
        right = is_right(routes, gateway);
        nl_cache_free(routes);
        return right ? 0 : replace_default(sock, gateway, err);
}

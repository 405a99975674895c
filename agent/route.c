/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <stdlib.h>
#include <string.h>

#include "agent/netns-socket.h"
#include "agent/route.h"
#include "common/cleanup.h"
#include "common/event-nl.h"
#include "common/units.h"

#define DEFAULT_METRIC 1U

static bool is_default(struct rtnl_route *route)
{
        return rtnl_route_get_table(route) == RT_TABLE_MAIN && rtnl_route_get_type(route) == RTN_UNICAST &&
                nl_addr_get_prefixlen(rtnl_route_get_dst(route)) == 0;
}

static bool leads_through(struct rtnl_route *route, struct in_addr gateway)
{
        struct rtnl_nexthop *hop =
                rtnl_route_get_nnexthops(route) == 1 ? rtnl_route_nexthop_n(route, 0) : NULL;
        struct nl_addr *via = hop ? rtnl_route_nh_get_gateway(hop) : NULL;

        return via && nl_addr_get_len(via) == sizeof(gateway) &&
                memcmp(nl_addr_get_binary_addr(via), &gateway, sizeof(gateway)) == 0;
}

/* Does the default route that the kernel takes, the one with the lowest metric, lead through this gateway? */
static bool is_right(struct nl_cache *routes, struct in_addr gateway)
{
        uint32_t best = UINT32_MAX;
        bool right = false;

        for (struct nl_object *o = nl_cache_get_first(routes); o; o = nl_cache_get_next(o)) {
                struct rtnl_route *route = (struct rtnl_route *) o;

                if (!is_default(route) || rtnl_route_get_priority(route) > best)
                        continue;
                /* Two with one metric: the kernel may take either. */
                right = leads_through(route, gateway) &&
                        (right || rtnl_route_get_priority(route) < best || best == UINT32_MAX);
                best = rtnl_route_get_priority(route);
        }
        return right;
}

/* A unicast route of the main table through a gateway. */
static int build(struct in_addr to, unsigned prefix, struct in_addr gateway, struct rtnl_route **ret)
{
        struct rtnl_route *route = rtnl_route_alloc();
        struct rtnl_nexthop *hop = rtnl_route_nh_alloc();
        struct nl_addr *dst = nl_addr_build(AF_INET, prefix > 0 ? &to : NULL, prefix > 0 ? sizeof(to) : 0);
        struct nl_addr *via = nl_addr_build(AF_INET, &gateway, sizeof(gateway));
        int r = -NLE_NOMEM;

        if (route && hop && dst && via) {
                nl_addr_set_prefixlen(dst, (int) prefix);
                rtnl_route_nh_set_gateway(hop, via);
                rtnl_route_add_nexthop(route, hop); /* takes it */
                hop = NULL;
                r = rtnl_route_set_family(route, AF_INET);
                if (r >= 0)
                        r = rtnl_route_set_dst(route, dst);
        }
        nl_addr_put(dst);
        nl_addr_put(via);
        if (hop)
                rtnl_route_nh_free(hop);
        if (r < 0) {
                rtnl_route_put(route);
                return r;
        }
        *ret = route;
        return 0;
}

/* Ours first, so that there is always one. See route.h about the metric. */
static int replace_default(
        struct nl_sock *sock, struct nl_cache *routes, struct in_addr gateway, TbError **err)
{
        struct rtnl_route *ours;
        char text[INET_ADDRSTRLEN];
        int r;

        r = build((struct in_addr){}, 0, gateway, &ours);
        if (r >= 0) {
                rtnl_route_set_priority(ours, DEFAULT_METRIC);
                r = rtnl_route_add(sock, ours, NLM_F_CREATE | NLM_F_REPLACE);
                rtnl_route_put(ours);
        }
        for (struct nl_object *o = nl_cache_get_first(routes); r >= 0 && o; o = nl_cache_get_next(o)) {
                struct rtnl_route *route = (struct rtnl_route *) o;

                if (!is_default(route) || rtnl_route_get_priority(route) >= DEFAULT_METRIC ||
                        leads_through(route, gateway))
                        continue;
                r = rtnl_route_delete(sock, route, 0);
                if (r == -NLE_OBJ_NOTFOUND)
                        r = 0;
        }
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, tb_nl_errno(r),
                        "cannot set the default route through the control network (%s)",
                        inet_ntop(AF_INET, &gateway, text, sizeof(text)));
        return 1;
}

static int read_routes(struct nl_sock *sock, struct nl_cache **ret, TbError **err)
{
        int r = rtnl_route_alloc_cache(sock, AF_INET, 0, ret);

        if (r < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, tb_nl_errno(r), "cannot read the container's routes");
        return 0;
}

int route_ensure_default(int netns_fd, struct in_addr gateway, TbError **err)
{
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = NULL;
        struct nl_cache *routes = NULL;
        int r;

        r = netns_socket_open(netns_fd, NETLINK_ROUTE, &sock, err);
        if (r >= 0)
                r = read_routes(sock, &routes, err);
        if (r < 0)
                return r;
        r = is_right(routes, gateway) ? 0 : replace_default(sock, routes, gateway, err);
        nl_cache_free(routes);
        return r;
}

/* ---- Declared routes --------------------------------------------------------------------------------------------- */

typedef struct DeclaredRoute {
        struct in_addr to, via;
        unsigned prefix;
} DeclaredRoute;

static int read_declared(const json_t *j, DeclaredRoute *ret, TbError **err)
{
        const char *to = json_string_value(json_object_get(j, "to")), *slash = to ? strchr(to, '/') : NULL;
        const char *via = json_string_value(json_object_get(j, "via"));
        char address[INET_ADDRSTRLEN] = "";
        uint32_t prefix;

        if (slash && (size_t) (slash - to) < sizeof(address))
                memcpy(address, to, (size_t) (slash - to));
        if (!slash || !via || inet_pton(AF_INET, address, &ret->to) != 1 ||
                inet_pton(AF_INET, via, &ret->via) != 1 || tb_parse_u32(slash + 1, 1, 32, &prefix, NULL) < 0)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "a declared route was not checked");
        ret->prefix = prefix;
        return 0;
}

static bool route_is(struct rtnl_route *route, const DeclaredRoute *d)
{
        struct rtnl_nexthop *hop =
                rtnl_route_get_nnexthops(route) == 1 ? rtnl_route_nexthop_n(route, 0) : NULL;
        struct nl_addr *dst = rtnl_route_get_dst(route), *via = hop ? rtnl_route_nh_get_gateway(hop) : NULL;

        return via && nl_addr_get_prefixlen(dst) == d->prefix && nl_addr_get_len(dst) == sizeof(d->to) &&
                nl_addr_get_len(via) == sizeof(d->via) &&
                memcmp(nl_addr_get_binary_addr(dst), &d->to, sizeof(d->to)) == 0 &&
                memcmp(nl_addr_get_binary_addr(via), &d->via, sizeof(d->via)) == 0;
}

static bool is_ours(struct rtnl_route *route)
{
        return rtnl_route_get_table(route) == RT_TABLE_MAIN &&
                rtnl_route_get_protocol(route) == ROUTE_PROTOCOL;
}

static bool is_there(struct nl_cache *routes, const DeclaredRoute *d)
{
        for (struct nl_object *o = nl_cache_get_first(routes); o; o = nl_cache_get_next(o))
                if (is_ours((struct rtnl_route *) o) && route_is((struct rtnl_route *) o, d))
                        return true;
        return false;
}

static int add_declared(struct nl_sock *sock, const DeclaredRoute *d, const json_t *j, TbError **err)
{
        struct rtnl_route *route;
        int r;

        r = build(d->to, d->prefix, d->via, &route);
        if (r >= 0) {
                rtnl_route_set_protocol(route, ROUTE_PROTOCOL);
                r = rtnl_route_add(sock, route, NLM_F_CREATE | NLM_F_REPLACE);
                rtnl_route_put(route);
        }
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, tb_nl_errno(r),
                        "cannot make the declared route to %s via %s",
                        json_string_value(json_object_get(j, "to")),
                        json_string_value(json_object_get(j, "via")));
        return 1;
}

static int remove_undeclared(struct nl_sock *sock, struct nl_cache *routes, const DeclaredRoute *declared,
        size_t n, TbError **err)
{
        int removed = 0;

        for (struct nl_object *o = nl_cache_get_first(routes); o; o = nl_cache_get_next(o)) {
                struct rtnl_route *route = (struct rtnl_route *) o;
                bool wanted = !is_ours(route);
                int r;

                for (size_t i = 0; !wanted && i < n; i++)
                        wanted = route_is(route, &declared[i]);
                if (wanted)
                        continue;
                r = rtnl_route_delete(sock, route, 0);
                if (r < 0 && r != -NLE_OBJ_NOTFOUND)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, tb_nl_errno(r),
                                "cannot remove a route of the container that is not declared any more");
                removed++;
        }
        return removed;
}

int route_ensure_declared(int netns_fd, const json_t *routes, TbError **err)
{
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = NULL;
        _cleanup_free_ DeclaredRoute *declared = calloc(json_array_size(routes) + 1, sizeof(*declared));
        struct nl_cache *present = NULL;
        TbError *first = NULL;
        int r, written = 0;
        const json_t *j;
        size_t i;

        if (!declared)
                return tb_error_oom(err);
        json_array_foreach ((json_t *) routes, i, j) {
                r = read_declared(j, &declared[i], err);
                if (r < 0)
                        return r;
        }
        r = netns_socket_open(netns_fd, NETLINK_ROUTE, &sock, err);
        if (r >= 0)
                r = read_routes(sock, &present, err);
        if (r < 0)
                return r;
        r = remove_undeclared(sock, present, declared, json_array_size(routes), &first);
        written += r > 0 ? r : 0;
        json_array_foreach ((json_t *) routes, i, j) {
                if (is_there(present, &declared[i]))
                        continue;
                r = add_declared(sock, &declared[i], j, first ? NULL : &first);
                written += r > 0;
        }
        nl_cache_free(present);
        return first ? tb_error_move(err, &first) : written;
}

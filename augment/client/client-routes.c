/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "augment/client/client-system.h"
#include "augment/client/util.h"

/* One route as the kernel tells it (rtnetlink(7)): 4 or 16 bytes of each address. */
typedef struct Route {
        int family;
        uint8_t bits;
        unsigned char to[16], via[16];
} Route;

typedef struct Wanted {
        Route route;
        bool found;
} Wanted;

#define ROUTES_MAX 1024

static size_t address_size(int family)
{
        return family == AF_INET ? 4 : 16;
}

static bool parse_route(const json_t *j, Route *ret)
{
        char to[INET6_ADDRSTRLEN + 8];
        uint32_t bits;
        char *slash;

        *ret = (Route){};
        snprintf(to, sizeof(to), "%s", member_string(j, "to", ""));
        slash = strchr(to, '/');
        if (!slash)
                return false;
        *slash = '\0';
        ret->family = strchr(to, ':') ? AF_INET6 : AF_INET;
        if (parse_u32(slash + 1, (uint32_t) address_size(ret->family) * 8, &bits) < 0)
                return false;
        ret->bits = (uint8_t) bits;
        return inet_pton(ret->family, to, ret->to) == 1 &&
                inet_pton(ret->family, member_string(j, "via", ""), ret->via) == 1;
}

static bool same_route(const Route *a, const Route *b)
{
        return a->family == b->family && a->bits == b->bits &&
                memcmp(a->to, b->to, address_size(a->family)) == 0 &&
                memcmp(a->via, b->via, address_size(a->family)) == 0;
}

static void note_route(const struct nlmsghdr *h, Wanted *wanted, size_t n)
{
        const struct rtmsg *m = NLMSG_DATA(h);
        Route route = {.family = m->rtm_family, .bits = m->rtm_dst_len};
        size_t size = address_size(m->rtm_family);
        int left = (int) (h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)));
        bool has_via = false;

        if ((m->rtm_family != AF_INET && m->rtm_family != AF_INET6) || m->rtm_type != RTN_UNICAST ||
                m->rtm_table != RT_TABLE_MAIN)
                return;
        for (const struct rtattr *a = RTM_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
                if (RTA_PAYLOAD(a) < size)
                        continue;
                if (a->rta_type == RTA_DST)
                        memcpy(route.to, RTA_DATA(a), size);
                else if (a->rta_type == RTA_GATEWAY) {
                        memcpy(route.via, RTA_DATA(a), size);
                        has_via = true;
                }
        }
        for (size_t i = 0; has_via && i < n; i++)
                wanted[i].found |= same_route(&wanted[i].route, &route);
}

/* One answer of a dump: 1 more to come, 0 done, negative errno. */
static int read_dump(int fd, Wanted *wanted, size_t n)
{
        _Alignas(struct nlmsghdr) char buffer[32768];
        ssize_t size = recv(fd, buffer, sizeof(buffer), 0);

        if (size < 0)
                return errno == EINTR ? 1 : -errno;
        if (size == 0)
                return -EIO;
        /* NLMSG_NEXT() takes off the padding, too, and so may come below zero. */
        for (struct nlmsghdr *h = (struct nlmsghdr *) buffer; size > 0 && NLMSG_OK(h, (uint32_t) size);
                h = NLMSG_NEXT(h, size)) {
                if (h->nlmsg_type == NLMSG_DONE)
                        return 0;
                if (h->nlmsg_type == NLMSG_ERROR)
                        return -EIO;
                if (h->nlmsg_type == RTM_NEWROUTE && h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct rtmsg)))
                        note_route(h, wanted, n);
        }
        return 1;
}

static int find_routes(Wanted *wanted, size_t n)
{
        struct {
                struct nlmsghdr header;
                struct rtmsg message;
        } request = {
                .header = {.nlmsg_len = sizeof(request),
                        .nlmsg_type = RTM_GETROUTE,
                        .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
                .message = {.rtm_family = AF_UNSPEC},
        };
        struct timeval bound = {.tv_sec = 5};
        _cleanup_close_ int fd = -1;
        int r;

        fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (fd < 0)
                return -errno;
        (void) setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
        if (send(fd, &request, sizeof(request), 0) < 0)
                return -errno;
        do
                r = read_dump(fd, wanted, n);
        while (r > 0);
        return r;
}

unsigned routes_check(const json_t *routes, Problems *p)
{
        static Wanted wanted[ROUTES_MAX];
        unsigned missing = 0;
        const json_t *route;
        size_t i, n = 0;
        int r;

        if (json_array_size(routes) == 0)
                return 0;
        json_array_foreach ((json_t *) routes, i, route)
                if (n < ROUTES_MAX) {
                        wanted[n] = (Wanted){};
                        if (!parse_route(route, &wanted[n].route))
                                wanted[n].route.family = AF_UNSPEC;
                        n++;
                }
        r = find_routes(wanted, n);
        if (r < 0) {
                problem(p, "cannot read the routes: %s", strerror(-r));
                return 1;
        }
        json_array_foreach ((json_t *) routes, i, route)
                if (i < n && !wanted[i].found) {
                        missing++;
                        problem(p,
                                "the route to %.60s via %.60s is not there; it needs a network with that "
                                "gateway, and tbnode declare puts back what was taken away",
                                member_string(route, "to", "?"), member_string(route, "via", "?"));
                }
        return missing;
}

int routes_watch(void)
{
        struct sockaddr_nl address = {
                .nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE};
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE), r;

        if (fd < 0)
                return -errno;
        if (bind(fd, (struct sockaddr *) &address, sizeof(address)) == 0)
                return fd;
        r = -errno;
        close(fd);
        return r;
}

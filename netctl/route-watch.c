/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/route-watch.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "netctl/netctl-internal.h"

/* One change is one datagram; a device is told in some 1.5 kB. */
#define RECEIVE_SIZE 32768
#define RECEIVE_BUFFER (8 << 20)

struct RouteWatch {
        int fd;
        uint8_t buffer[RECEIVE_SIZE];
};

/* Drops what these ports asked for. A packet filter reads numbers in network order, netlink writes them in the host's. */
static int ignore_ports(int fd, const uint32_t ports[static RTNL_PORTS])
{
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_pid)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(ports[0]), 1, 0),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(ports[1]), 0, 1),
                BPF_STMT(BPF_RET | BPF_K, 0),
                BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        };
        struct sock_fprog program = {.len = ELEMENTSOF(code), .filter = code};

        return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}

static int join(int fd, int group)
{
        return setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0 ? -errno : 0;
}

int route_watch_new(const Netctl *n, RouteWatch **ret, TbError **err)
{
        _cleanup_(route_watch_freep) RouteWatch *w = calloc(1, sizeof(*w));
        struct sockaddr_nl address = {.nl_family = AF_NETLINK};
        int size = RECEIVE_BUFFER, r = 0;
        uint32_t ports[RTNL_PORTS];

        if (!w)
                return tb_error_oom(err);
        rtnl_ports(n->rtnl, ports);
        w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
        if (w->fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot open an rtnetlink socket");
        if (setsockopt(w->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
                (void) setsockopt(w->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        if (bind(w->fd, (struct sockaddr *) &address, sizeof(address)) < 0)
                r = -errno;
        if (r >= 0)
                r = ignore_ports(w->fd, ports);
        if (r >= 0)
                r = join(w->fd, RTNLGRP_TC);
        if (r >= 0)
                r = join(w->fd, RTNLGRP_LINK);
        if (r < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, r, "cannot listen to changes of queues and interfaces");
        *ret = TAKE_PTR(w);
        return 0;
}

RouteWatch *route_watch_free(RouteWatch *w)
{
        if (!w)
                return NULL;
        tb_close(w->fd);
        free(w);
        return NULL;
}

int route_watch_fd(const RouteWatch *w)
{
        return w->fd;
}

static bool decode(const struct nlmsghdr *h, RouteEvent *ret)
{
        const struct ifinfomsg *link;
        const struct tcmsg *tc;

        switch (h->nlmsg_type) {
        case RTM_NEWLINK:
                /* Those of family AF_BRIDGE tell of a port, with a part of the device only. */
                link = nl_message_header(h, sizeof(*link));
                *ret = (RouteEvent){.change = ROUTE_LINK};
                if (!link || link->ifi_family != AF_UNSPEC || !link_decode(h, &ret->link))
                        return false;
                ret->ifindex = ret->link.ifindex;
                return true;
        case RTM_DELLINK:
                link = nl_message_header(h, sizeof(*link));
                if (!link || link->ifi_index <= 0 || link->ifi_family != AF_UNSPEC) /* else: left a bridge */
                        return false;
                *ret = (RouteEvent){.change = ROUTE_LINK_GONE, .ifindex = (uint32_t) link->ifi_index};
                return true;
        case RTM_NEWQDISC:
        case RTM_DELQDISC:
        case RTM_NEWTCLASS:
        case RTM_DELTCLASS:
        case RTM_NEWTFILTER:
        case RTM_DELTFILTER:
                tc = nl_message_header(h, sizeof(*tc));
                if (!tc || tc->tcm_ifindex <= 0)
                        return false;
                *ret = (RouteEvent){
                        .change = ROUTE_QUEUE,
                        .ifindex = (uint32_t) tc->tcm_ifindex,
                        .removed = h->nlmsg_type == RTM_DELQDISC || h->nlmsg_type == RTM_DELTFILTER,
                };
                return true;
        default:
                return false;
        }
}

bool route_watch_read(RouteWatch *w, RouteEventFn fn, void *userdata)
{
        bool complete = true;

        for (unsigned i = 0; i < ROUTE_WATCH_MESSAGES; i++) {
                struct sockaddr_nl from = {};
                socklen_t from_size = sizeof(from);
                RouteEvent e;

                ssize_t n = recvfrom(
                        w->fd, w->buffer, sizeof(w->buffer), 0, (struct sockaddr *) &from, &from_size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == ENOBUFS) {
                        complete = false;
                        continue;
                }
                if (n <= 0)
                        break;
                if (from.nl_pid != 0) /* another process, not the kernel */
                        continue;
                NlIter messages = nl_iter(w->buffer, (size_t) n);
                const struct nlmsghdr *h;
                while ((h = nl_next_message(&messages)))
                        if (decode(h, &e))
                                fn(&e, userdata);
        }
        return complete;
}

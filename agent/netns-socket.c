/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/netns-socket.h"

#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <sched.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/event-nl.h"

int netns_socket_open(int netns_fd, int protocol, struct nl_sock **ret, TbError **err)
{
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = nl_socket_alloc();
        _cleanup_close_ int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        int r;

        if (!sock)
                return tb_error_oom(err);
        if (here < 0 || setns(netns_fd, CLONE_NEWNET) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot enter the container's network namespace");
        r = nl_connect(sock, protocol);
        if (setns(here, CLONE_NEWNET) < 0)
                _exit(EXIT_FAILURE);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, tb_nl_errno(r),
                        "cannot open a netlink socket in the container");
        *ret = TAKE_PTR(sock);
        return 0;
}

typedef struct Owner {
        uid_t uid;
        bool found;
} Owner;

static int on_answer(struct nl_msg *msg, void *userdata)
{
        const struct nlmsghdr *h = nlmsg_hdr(msg);
        const struct inet_diag_msg *d = nlmsg_data(h);
        Owner *owner = userdata;

        if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY && nlmsg_datalen(h) >= (int) sizeof(*d) &&
                d->idiag_inode != 0)
                *owner = (Owner){.uid = d->idiag_uid, .found = true};
        return NL_OK;
}

int netns_socket_owner(int netns_fd, const struct sockaddr_in *local, const struct sockaddr_in *remote,
        uid_t *ret, TbError **err)
{
        struct inet_diag_req_v2 request = {
                .sdiag_family = AF_INET,
                .sdiag_protocol = IPPROTO_TCP,
                .idiag_states = UINT32_MAX,
                .id = {.idiag_sport = local->sin_port,
                        .idiag_dport = remote->sin_port,
                        .idiag_src = {local->sin_addr.s_addr},
                        .idiag_dst = {remote->sin_addr.s_addr},
                        .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}},
        };
        _cleanup_(tb_nl_socket_freep) struct nl_sock *sock = NULL;
        Owner owner = {};
        int r;

        r = netns_socket_open(netns_fd, NETLINK_SOCK_DIAG, &sock, err);
        if (r < 0)
                return r;
        nl_socket_disable_seq_check(sock);
        nl_socket_disable_auto_ack(sock);
        (void) nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, on_answer, &owner);
        r = nl_send_simple(sock, SOCK_DIAG_BY_FAMILY, 0, &request, sizeof(request));
        if (r >= 0)
                r = nl_recvmsgs_default(sock);
        if (r == -NLE_OBJ_NOTFOUND)
                return 0;
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, tb_nl_errno(r),
                        "cannot see whose a connection of the container is");
        if (!owner.found)
                return 0;
        *ret = owner.uid;
        return 1;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/nft-watch.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/nft.h"

#define RECEIVE_SIZE 65536
#define RECEIVE_BUFFER (4 << 20)
#define OUR_PREFIX "tbnode"

struct NftWatch {
        int fd;
        bool touched; /* our tables, in the transaction whose messages are being read */
        uint8_t *buffer;
};

int nft_watch_new(NftWatch **ret, TbError **err)
{
        _cleanup_(nft_watch_freep) NftWatch *w = calloc(1, sizeof(*w));
        struct sockaddr_nl address = {.nl_family = AF_NETLINK};
        int group = NFNLGRP_NFTABLES, size = RECEIVE_BUFFER;

        if (!w)
                return tb_error_oom(err);
        w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
        if (w->fd < 0 && errno != EPROTONOSUPPORT && errno != EAFNOSUPPORT)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot listen to nf_tables");
        if (w->fd < 0)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOENT,
                        "this kernel has no nf_tables (module nf_tables)");
        w->buffer = malloc(RECEIVE_SIZE);
        if (!w->buffer)
                return tb_error_oom(err);
        if (setsockopt(w->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
                (void) setsockopt(w->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        if (bind(w->fd, (struct sockaddr *) &address, sizeof(address)) < 0 ||
                setsockopt(w->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, errno, "cannot listen to changes of nf_tables");
        *ret = TAKE_PTR(w);
        return 0;
}

NftWatch *nft_watch_free(NftWatch *w)
{
        if (!w)
                return NULL;
        tb_close(w->fd);
        free(w->buffer);
        free(w);
        return NULL;
}

int nft_watch_fd(const NftWatch *w)
{
        return w->fd;
}

/* The first attribute of all messages about tables, chains, rules, sets and elements is the table's name; that of a
 * transaction's end is its number. */
bool nft_watch_take(bool *touched, const struct nlmsghdr *h)
{
        NlIter i = nl_message_attributes(h, sizeof(struct nfgenmsg));
        bool end = (h->nlmsg_type & 0xff) == NFT_MSG_NEWGEN, foreign = false;
        char name[32];
        NlAttr a;

        if (h->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES)
                return false;
        while (nl_iter_next(&i, &a)) {
                if (end && a.type == NFTA_GEN_ID)
                        foreign = *touched && !nft_generation_is_ours(nft_get_be32(&a));
                else if (!end && a.type == NFTA_TABLE_NAME) {
                        nl_attr_string(&a, name, sizeof(name));
                        *touched |= tb_startswith(name, OUR_PREFIX) != NULL;
                }
        }
        if (end)
                *touched = false;
        return foreign;
}

bool nft_watch_read(NftWatch *w)
{
        bool foreign = false;

        for (;;) {
                struct sockaddr_nl from = {};
                socklen_t size = sizeof(from);
                ssize_t n = recvfrom(w->fd, w->buffer, RECEIVE_SIZE, 0, (struct sockaddr *) &from, &size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == ENOBUFS) {
                        foreign = true;
                        w->touched = false;
                        continue;
                }
                if (n <= 0)
                        return foreign;
                if (from.nl_pid != 0) /* another process, not the kernel */
                        continue;
                NlIter messages = nl_iter(w->buffer, (size_t) n);
                const struct nlmsghdr *h;
                while ((h = nl_next_message(&messages)))
                        foreign |= nft_watch_take(&w->touched, h);
        }
}

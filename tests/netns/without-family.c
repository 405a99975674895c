/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * To be preloaded: a kernel whose nf_tables lacks one family, for the program that runs on it. Messages of the family that
 * WITHOUT_FAMILY numbers (NFPROTO_ARP is 3, NFPROTO_BRIDGE 7) are sent as of one that no kernel knows, which the kernel answers
 * as it answers for those that it was built without.
 */

#include <dlfcn.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define NO_FAMILY 99

typedef ssize_t (*SendFn)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);

static void rewrite(unsigned char *data, size_t size, unsigned char family)
{
        struct nlmsghdr h;

        for (size_t at = 0; at + sizeof(h) + sizeof(struct nfgenmsg) <= size;
                at += NLMSG_ALIGN(h.nlmsg_len)) {
                memcpy(&h, data + at, sizeof(h));
                if (h.nlmsg_len < sizeof(h))
                        return;
                if (h.nlmsg_type >> 8 == NFNL_SUBSYS_NFTABLES && data[at + sizeof(h)] == family)
                        data[at + sizeof(h)] = NO_FAMILY;
        }
}

ssize_t sendto(
        int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t to_size);

ssize_t sendto(
        int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t to_size)
{
        SendFn next = (SendFn) dlsym(RTLD_NEXT, "sendto");
        const char *family = getenv("WITHOUT_FAMILY");
        socklen_t n = sizeof(int);
        int protocol = -1;

        if (!family || getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n) < 0 ||
                protocol != NETLINK_NETFILTER)
                return next(fd, data, size, flags, to, to_size);
        unsigned char *copy = malloc(size);
        if (!copy)
                return -1;
        memcpy(copy, data, size);
        rewrite(copy, size, (unsigned char) atoi(family));
        ssize_t r = next(fd, copy, size, flags, to, to_size);
        free(copy);
        return r;
}

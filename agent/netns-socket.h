/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <netinet/in.h>
#include <netlink/socket.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/error.h"

/*
 * Looking into a container's network from outside. A netlink socket keeps the namespace that it was made in, so the calling
 * thread is in a foreign one only for a moment; failure to return ends the process: nothing may run there.
 */

/* `protocol`: NETLINK_ROUTE, ... The caller frees *ret. */
int netns_socket_open(int netns_fd, int protocol, struct nl_sock **ret, TbError **err) _warn_unused_;

/*
 * Whose the other end of a TCP connection is that comes from a process in that namespace: sock_diag(7). `local` is the
 * process' end, `remote` ours. 1 = *ret is the user as this host counts it; 0 = nobody has that socket open any more (its
 * owner is then not told by the kernel, which says 0 for it).
 */
int netns_socket_owner(int netns_fd, const struct sockaddr_in *local, const struct sockaddr_in *remote,
        uid_t *ret, TbError **err) _warn_unused_;

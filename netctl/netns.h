/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include "netctl/rtnl.h"

/* Network namespaces that have a name on this host: mounts of nsfs in the directories where Docker ("/run/docker/netns", where
 * overlay networks live) and ip-netns(8), CNI and others ("/run/netns") keep them. */

#define NETNS_MAX 4096

typedef struct Netns {
        char *path;
        dev_t dev;
        ino_t ino;
} Netns;

typedef struct NetnsList {
        Netns *v;
        size_t n;
} NetnsList;
void netns_list_done(NetnsList *l);
#define _cleanup_netns_list_ _cleanup_(netns_list_done)

/* Each namespace once, whatever it is called. `directories` NULL: the usual ones; those that are not there are empty. */
int netns_list(char *const *directories, NetnsList *ret, TbError **err) _warn_unused_;

/* -EBADF: it is gone, or no network namespace. */
int netns_open(const Netns *x);

/* The id by which the namespace of the socket knows the one of `fd`; *ret_known false when it has none. Ids are given when
 * links are listed. */
int netns_id(Rtnl *r, int fd, int32_t *ret, bool *ret_known, TbError **err) _warn_unused_;

/* Gives the socket's own namespace (`fd`) an id in itself, if it has none. The kernel would do so itself when the first
 * container's interface is asked for, and whose id it needs it finds by going through all ids from the lowest: each answer about
 * an interface in a container names the host's, so on a host full of containers, where ours is the last one, they take twice as
 * long. */
void netns_take_own_id(Rtnl *r, int fd);

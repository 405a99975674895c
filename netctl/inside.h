/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/veth.h"

/*
 * The container's sides of the host's veths, looked at from the host.
 *
 * The host's list of links says of each veth which interface of which namespace is its other end (IFLA_LINK,
 * IFLA_LINK_NETNSID). So the interfaces of a thousand containers are read with a few calls, without entering one of
 * them: RTM_GETNSID says which number the host has for a container's namespace, and RTM_GETLINK with
 * IFLA_TARGET_NETNSID (Linux 4.16) shows an interface there. A pair counts when both ends name each other, as in veth.h.
 *
 * It is a short cut. Whatever it does not find (a namespace without a number, a veth of an overlay network, an interface
 * that is no veth, a kernel that can't) is looked for by container_read(), which also has the words for what is wrong.
 *
 * insides_read_few() begins at the other end: it lists what is in the containers, and of the host's devices it reads only the
 * other ends of that. For one container of a thousand that is a thousandth of the work.
 */

typedef struct InsideLink {
        int32_t nsid;
        Link link;        /* in the container */
        const Link *host; /* borrowed from the host's links */
} InsideLink;

typedef struct Insides {
        InsideLink *v; /* sorted by nsid */
        size_t n;
        int32_t *nsids; /* per namespace asked for; < 0: the host has no number for it */
} Insides;
void insides_done(Insides *x);
#define _cleanup_insides_ _cleanup_(insides_done)

/* `fds`: namespaces, < 0 where nothing is asked for; `known`: their numbers, < 0 where they have to be asked for. A namespace
 * keeps its number until it ends, that is, as long as somebody has it open. `links`: the host's, which must outlive *ret. */
int insides_read(Rtnl *host, const Links *links, const int *fds, const int32_t *known, size_t n,
        Insides *ret, TbError **err) _warn_unused_;

/* The same without a list of the host's links: *links gets those that lead to these namespaces. 0: a namespace has no number yet,
 * which only a list of all links gives it. */
int insides_read_few(Rtnl *host, const int *fds, const int32_t *known, size_t n, Links *links, Insides *ret,
        TbError **err) _warn_unused_;

/* The one veth in namespace number `i` that has this MAC; NULL: there is none, or several. */
const InsideLink *insides_find(const Insides *x, size_t i, const uint8_t mac[static 6]);

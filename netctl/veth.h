/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <netinet/in.h>

#include "netctl/observe.h"

/*
 * From a container's interface to the host side of its veth, by numbers only (never by name: names change at every start,
 * and ifindexes of different namespaces collide; pitfall P20).
 *
 * A pair is accepted when both sides agree:
 *   in the container  kind veth, IFLA_LINK = H, IFLA_LINK_NETNSID = an id that RTM_GETNSID there gives for the host's netns
 *   on the host       device H: kind veth, IFLA_LINK = the container's ifindex, IFLA_LINK_NETNSID = the id that
 *                     RTM_GETNSID here gives for the container's netns
 *
 * "The host" may be another namespace than ours: Docker's overlay networks keep the bridge, and the host side of each
 * container's veth, in a namespace of the network. It is found among the namespaces that have a name (netns.h), by the same
 * ids.
 */

typedef struct ContainerInterface {
        Link link;
        struct in_addr ipv4; /* the first, INADDR_ANY: none */
        uint8_t prefix;
} ContainerInterface;

/* A namespace that veths of the container lead to and that is not ours. */
typedef struct ContainerPeer {
        int32_t nsid; /* as the container's namespace knows it */
        int fd;
        char *path;
} ContainerPeer;

/* What one container has, read inside its namespace, and how the two namespaces call each other. */
typedef struct Container {
        Rtnl *inside; /* a socket of the container's namespace */
        ContainerInterface *interfaces;
        size_t n;
        bool host_known, container_known;
        int32_t host_nsid;      /* the host's id as the container's namespace knows it */
        int32_t container_nsid; /* the container's id as the host's namespace knows it */
        ContainerPeer *peers;
        size_t n_peers;
} Container;
void container_done(Container *c);
#define _cleanup_container_ _cleanup_(container_done)

/* Enters the namespace once. `host` is a socket of the host's namespace, `host_fd` that namespace. `addresses`: also
 * read these (else `ipv4` stays empty). `directories`: where namespaces have names, see netns_list(). */
int container_read(Rtnl *host, int host_fd, int netns_fd, bool addresses, char *const *directories,
        Container *ret, TbError **err) _warn_unused_;

/* The interface with this MAC (among several the one veth that leads to a known place), and where it leads: *ret_peer is
 * NULL for the host. Errors as container_resolve(). */
int container_find(const Container *c, const uint8_t mac[static 6], const ContainerInterface **ret_inside,
        const ContainerPeer **ret_peer, TbError **err) _warn_unused_;

/* The other side of x in the namespace of `links`, which knows the container by `container_nsid`. -ENODEV as below. */
int container_verify(const ContainerInterface *x, const Links *links, bool container_known,
        int32_t container_nsid, const Link **ret_host, TbError **err) _warn_unused_;

/* Both, for veths to the host itself: the interface and its verified host side.
 * Errors, all TB_ERROR_ENVIRONMENT unless said: -ENXIO no such interface, -EMEDIUMTYPE not a veth, -EXDEV the host side is in
 * another namespace, -ENODEV the host side is gone or the two sides do not agree (retryable: links were changing),
 * -ENOTUNIQ several match. */
int container_resolve(const Container *c, const Links *host_links, const uint8_t mac[static 6],
        const ContainerInterface **ret_inside, const Link **ret_host, TbError **err) _warn_unused_;

const ContainerInterface *container_find_name(const Container *c, const char *name);

/* "02:42:..." into buf of 18. */
const char *mac_print(const uint8_t mac[static 6], char buf[static 18]);
bool mac_parse(const char *s, uint8_t ret[static 6]);

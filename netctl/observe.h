/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/rtnl.h"
#include "netctl/tc.h"

/* One network device, as far as we look at it. */
typedef struct Link {
        uint32_t ifindex;
        uint32_t peer; /* IFLA_LINK; 0: none */
        uint32_t master;
        uint32_t mtu;
        uint32_t txqlen;
        uint32_t gso_max_segs; /* 0: the kernel does not say */
        uint32_t flags;        /* IFF_* */
        uint32_t group;
        int32_t peer_netnsid; /* IFLA_LINK_NETNSID; only with has_netnsid */
        bool has_netnsid;
        uint8_t mac[6];
        char name[IFNAMSIZ];
        char kind[IFNAMSIZ]; /* "veth", "ifb", ... or "" */
        char alias[TC_ALIAS_MAX];
} Link;

/* All devices of a namespace, sorted by ifindex. */
typedef struct Links {
        Link *v;
        size_t n, allocated;
} Links;
void links_done(Links *l);
#define _cleanup_links_ _cleanup_(links_done)

#define LINKS_MAX 65536
/* In IFLA_EXT_MASK; uapi linux/rtnetlink.h: leaves out the counters, two thirds of the answer. */
#define LINKS_SKIP_STATS (1U << 3)

int links_dump(Rtnl *r, Links *ret, TbError **err) _warn_unused_;

/* A device by its number, or (0) by its name. */
typedef struct LinkKey {
        uint32_t ifindex;
        char name[IFNAMSIZ];
} LinkKey;
/* Adds to *links those of these devices that are there: what one of a thousand costs does not depend on the others. */
int links_get(Rtnl *r, const LinkKey *keys, size_t n, Links *links, TbError **err) _warn_unused_;
/* All devices of the namespace with this number. */
int links_dump_inside(Rtnl *r, int32_t nsid, Links *ret, TbError **err) _warn_unused_;
const Link *links_find(const Links *l, uint32_t ifindex);
const Link *links_find_name(const Links *l, const char *name);

/* Decodes one RTM_NEWLINK; false when it is none. */
bool link_decode(const struct nlmsghdr *h, Link *ret);

/* Decodes one RTM_NEWQDISC / RTM_NEWTCLASS. */
typedef struct Qdisc {
        uint32_t ifindex, handle, parent;
        char kind[IFNAMSIZ];
        Leaf leaf; /* when it is a kind of leaf */
        TcStats stats;
} Qdisc;
bool qdisc_decode(const struct nlmsghdr *h, Qdisc *ret);
bool class_decode(const struct nlmsghdr *h, uint32_t *ret_ifindex, uint32_t *ret_handle, HtbClass *ret);

/*
 * Fills states[].down, .ingress, .ifb and .up from the kernel for the veths named in states[].veth (sorted or not, each
 * once; .ruled says where classes of rules are looked for even when no leaf of one is there). `links` is a dump of this moment.
 * One dump of all qdiscs, which also shows classes that nobody declared; filters (which the kernel only lists per device) only
 * where an ingress qdisc was found; of our roots the default class, and all classes and programs where there are rules. Repeats
 * itself when the tables changed meanwhile. Rules and programs lie in the arena.
 *
 * `few`: the same without a look at anybody else's queues. Each is asked for by its place, and classes are listed where a root is
 * ours; `links` need not have more than these veths and what has the number or the name of their ifbs.
 */
int observe(Rtnl *r, const Links *links, IfaceState *states, size_t n, bool few, Arena *arena, TbError **err)
        _warn_unused_;

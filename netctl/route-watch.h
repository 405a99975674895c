/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "common/error.h"
#include "netctl/netctl.h"
#include "netctl/observe.h"

/*
 * Who else changes queues and links of this host? The kernel tells every change of qdiscs, classes, filters and devices to those
 * who listen, together with the socket that asked for it. What our own Netctl asked for is left out before it is even queued, so
 * that our writes wake nobody up. (Kernels before 6.2 don't say who asked for a change of a device: such a message comes
 * through, and has to be judged by what it says.)
 *
 * Devices in other namespaces (overlay networks keep host sides there) are not heard of.
 */
typedef struct RouteWatch RouteWatch;

typedef enum RouteChange {
        ROUTE_QUEUE,     /* a qdisc, class or filter of `ifindex` was made, changed or removed */
        ROUTE_LINK,      /* a device is new or other than it was: `link` */
        ROUTE_LINK_GONE, /* a device was removed, or moved to another namespace */
} RouteChange;

typedef struct RouteEvent {
        RouteChange change;
        uint32_t ifindex;
        bool removed; /* ROUTE_QUEUE: it was removed */
        Link link;    /* ROUTE_LINK */
} RouteEvent;

typedef void (*RouteEventFn)(const RouteEvent *e, void *userdata);

/* In the network namespace that the thread is in, which must be that of `n`. */
int route_watch_new(const Netctl *n, RouteWatch **ret, TbError **err) _warn_unused_;
RouteWatch *route_watch_free(RouteWatch *w);
TB_DEFINE_CLEANUP(RouteWatch *, route_watch_free)

/* To be polled for reading; never blocks. */
int route_watch_fd(const RouteWatch *w);
/* Takes what has come, ROUTE_WATCH_MESSAGES at most (what is left is there for the next call), and calls fn for each change. False: the kernel had
 * more to tell than fits its queue, and anything may be other than we left it. */
bool route_watch_read(RouteWatch *w, RouteEventFn fn, void *userdata);
#define ROUTE_WATCH_MESSAGES 4096U

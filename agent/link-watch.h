/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * Somebody else changed queues or interfaces of a node by hand
 *
 * The kernel tells of it (netctl/route-watch.h); which node it concerns is noted in Node.drift, and once things have been quiet
 * for a moment all such nodes are looked at together. What is other than declared is written again, counted and told in an event
 * (`shape-repaired`); a look that finds everything in place writes nothing and says nothing. Our own writes are no news.
 *
 *   told by the kernel                           what follows for the node
 *   queue, class, filter of its host side, ifb   looked at: repaired
 *   host side or ifb down, off its bridge, gone  looked at: repaired
 *   host side renamed                            looked at: its rules name the new one
 *   host side gone or in another namespace       its container lives: the engine is asked again what it has (network disconnect),
 *                                                and what then is not there makes it FAILED. What fed its ifb is swept
 *   an interface is new, another qdisc is gone   nodes that FAILED because something was missing or in their way try again
 *   more than fits the queue                     everything is looked at, and leftovers are swept (counted as a resync)
 */

typedef struct LinkWatch LinkWatch;

int link_watch_new(Manager *m, LinkWatch **ret, TbError **err) _warn_unused_;
LinkWatch *link_watch_free(LinkWatch *w);

/* The nodes, or what is known of their interfaces, have changed. Cheap. */
void link_watch_stale(Manager *m);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * Notices when somebody else takes the nodes' rules away or puts something before them (iptables -F, iptables-restore, a
 * reload of firewalld, a setting turned off), and repairs them.
 *
 * The kernel says nothing about changes of legacy tables. But whoever changes them takes /run/xtables.lock, and closing
 * that file can be watched (inotify): an idle host costs nothing, and a change is looked at when the other program is done,
 * at most once a second. The look reads the tables without the lock; only a needed repair is written. What changes them
 * without that lock (a program in another mount namespace) is found by the look every `firewall-check`.
 */

/* Begins when the first node has a firewall; nothing happens before. */
void firewall_watch_start(Manager *m);
FirewallWatch *firewall_watch_free(FirewallWatch *w);
/* Somebody may have changed something: a look follows soon. For back ends that hear of it themselves. */
void firewall_watch_poke(Manager *m);

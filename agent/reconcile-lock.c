/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * While another program holds the iptables lock
 *
 * Whoever reloads a host's rules may hold it for seconds, and the loop must not wait for that: netctl only asks for it. What could not
 * be written stays as it is, nodes CONFIGURING, removals and the look for leftovers pending, and is tried again, soon at first.
 * Nothing is let go for it: a container at the start gate goes on waiting there.
 */

#include "agent/message.h"
#include "agent/reconcile.h"
#include "common/log.h"

#define RETRY_FIRST_USEC UINT64_C(10000)
#define RETRY_MAX_USEC UINT64_C(500000)

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
        Manager *m = userdata;

        m->lock_retry = sd_event_source_disable_unref(m->lock_retry);
        if (m->synced) {
                reconcile_schedule(m);
                return 0;
        }
        for (size_t i = 0; i < m->n_nodes; i++)
                if (m->nodes[i]->gate && m->nodes[i]->state == NODE_CONFIGURING)
                        reconcile_before_sync(m, m->nodes[i]);
        reconcile_got_lock(m);
        return 0;
}

void reconcile_wait_for_lock(Manager *m, const TbError *why)
{
        if (m->lock_retry)
                return;
        if (m->lock_delay_us == 0)
                log_notice("firewall rules have to wait: %s", tb_error_message(why));
        m->lock_delay_us =
                m->lock_delay_us == 0 ? RETRY_FIRST_USEC : MIN2(m->lock_delay_us * 2, RETRY_MAX_USEC);
        if (sd_event_add_time_relative(
                    m->event, &m->lock_retry, CLOCK_MONOTONIC, m->lock_delay_us, 0, on_retry, m) < 0)
                log_error("cannot set a timer: firewall rules are written with the next container event");
}

void reconcile_got_lock(Manager *m)
{
        if (!m->lock_retry)
                m->lock_delay_us = 0;
}

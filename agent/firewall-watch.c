/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/firewall-watch.h"
#include "agent/message.h"

#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

#include "agent/node-firewall.h"
#include "agent/reconcile.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/units.h"
#include "netctl/xtables-lock.h"

/* After legacy tables were changed: whoever reloads them calls iptables(8) many times, and `-X` fails when somebody fills chains in
 * between. A transaction of nf_tables is all that its writer wanted, so there is nothing to wait for. */
#define LOOK_DELAY_USEC UINT64_C(20000)
/* Looking costs at most one part in so many of the time, when somebody writes again and again. */
#define LOOK_SHARE UINT64_C(20)
#define LOOK_INTERVAL_MAX_USEC UINT64_C(1000000)

struct FirewallWatch {
        Manager *manager;
        sd_event_source *lock;  /* inotify; NULL: the file is not there */
        sd_event_source *soon;  /* a look that is due */
        sd_event_source *timer; /* firewall-check */
        uint64_t again_us;      /* CLOCK_MONOTONIC: not before */
};

static bool anybody_has_one(const Manager *m)
{
        for (size_t i = 0; i < m->n_nodes; i++)
                if (m->nodes[i]->state == NODE_CONFIGURED && m->nodes[i]->has_status &&
                        m->nodes[i]->status.firewall)
                        return true;
        return false;
}

static int on_lock(sd_event_source *s, const struct inotify_event *e, void *userdata);

static void watch_lock(FirewallWatch *w)
{
        if (w->lock)
                return;
        /* Missing: nobody has ever used it, not even we. */
        if (sd_event_add_inotify(w->manager->event, &w->lock, xtables_lock_path(),
                    IN_CLOSE | IN_DELETE_SELF | IN_MOVE_SELF | IN_DONT_FOLLOW, on_lock, w) < 0)
                w->lock = NULL;
}

static void look_soon(FirewallWatch *w, uint64_t delay);

static void look(FirewallWatch *w)
{
        _cleanup_error_ TbError *err = NULL;

        watch_lock(w);
        if (!anybody_has_one(w->manager))
                return;
        uint64_t begin = tb_now_us();
        int r = reconcile_firewall_repair(w->manager, &err);
        if (r < 0 && !netctl_lock_is_busy(err))
                log_message(LOG_ERR, MESSAGE_FIREWALL_UNWATCHED, "cannot check or repair the firewall: %s",
                        tb_error_message(err));
        uint64_t end = tb_now_us();
        w->again_us = end + MIN2((end - begin) * LOOK_SHARE, LOOK_INTERVAL_MAX_USEC);
        if (r < 0 && netctl_lock_is_busy(err)) /* somebody is writing: when he has ended, again */
                look_soon(w, LOOK_DELAY_USEC);
}

static int on_soon(sd_event_source *s, uint64_t usec, void *userdata)
{
        FirewallWatch *w = userdata;

        w->soon = sd_event_source_disable_unref(w->soon);
        look(w);
        return 0;
}

static void look_soon(FirewallWatch *w, uint64_t delay)
{
        uint64_t now = tb_now_us();

        if (w->soon)
                return;
        if (w->again_us > now + delay)
                delay = w->again_us - now;
        if (sd_event_add_time_relative(w->manager->event, &w->soon, CLOCK_MONOTONIC, delay, 0, on_soon, w) <
                0)
                log_message(LOG_ERR, MESSAGE_FIREWALL_UNWATCHED,
                        "cannot set a timer: the firewall is looked at with the next change");
}

static int on_lock(sd_event_source *s, const struct inotify_event *e, void *userdata)
{
        FirewallWatch *w = userdata;

        if (e->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED | IN_UNMOUNT))
                w->lock = sd_event_source_disable_unref(w->lock);
        look_soon(w, LOOK_DELAY_USEC);
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        FirewallWatch *w = userdata;

        look(w);
        (void) sd_event_source_set_time_relative(s, w->manager->config.firewall_check_usec);
        (void) sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
        return 0;
}

void firewall_watch_start(Manager *m)
{
        uint64_t interval = m->config.firewall_check_usec;
        FirewallWatch *w = m->firewall_watch;

        if (w) {
                watch_lock(w);
                return;
        }
        if (!anybody_has_one(m))
                return;
        w = calloc(1, sizeof(*w));
        if (!w) {
                log_message(
                        LOG_ERR, MESSAGE_FIREWALL_UNWATCHED, "out of memory: nobody watches the firewall");
                return;
        }
        w->manager = m;
        m->firewall_watch = w;
        watch_lock(w);
        if (interval > 0 &&
                sd_event_add_time_relative(
                        m->event, &w->timer, CLOCK_MONOTONIC, interval, interval / 4, on_timer, w) < 0)
                log_message(LOG_ERR, MESSAGE_FIREWALL_UNWATCHED,
                        "cannot set a timer: the firewall is only looked at when somebody takes its lock");
}

FirewallWatch *firewall_watch_free(FirewallWatch *w)
{
        if (!w)
                return NULL;
        sd_event_source_disable_unref(w->lock);
        sd_event_source_disable_unref(w->soon);
        sd_event_source_disable_unref(w->timer);
        free(w);
        return NULL;
}

void firewall_watch_poke(Manager *m)
{
        if (m->firewall_watch)
                look_soon(m->firewall_watch, 0);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/link-watch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "agent/log-node.h"
#include "agent/reconcile.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/route-watch.h"

/* A command line that changes several things is one look; and who undoes our repairs at once makes us write once a second at most. */
#define LOOK_DELAY_USEC UINT64_C(20000)
#define LOOK_INTERVAL_USEC UINT64_C(1000000)

enum {
        DRIFT_QUEUE = 1 << 0,
        DRIFT_LINK = 1 << 1,
        DRIFT_GONE = 1 << 2,
};

/* The host side of a node's interface, in our own namespace. The ifb that belongs to it has an index of our choice. */
typedef struct Known {
        uint32_t veth;
        Node *node;
        const NetctlInterfaceStatus *status;
} Known;

struct LinkWatch {
        Manager *manager;
        RouteWatch *watch;
        sd_event_source *source;
        sd_event_source *soon; /* a look that is due */
        uint64_t looked_us;    /* CLOCK_MONOTONIC */
        bool all;              /* messages were lost */
        bool blocked;          /* what was missing or in the way of a node may have changed */
        Known *known;          /* sorted by veth */
        size_t n_known;
        bool stale;
};

static int compare_known(const void *a, const void *b)
{
        uint32_t x = ((const Known *) a)->veth, y = ((const Known *) b)->veth;

        return x < y ? -1 : x > y;
}

static void know(LinkWatch *w)
{
        const Manager *m = w->manager;
        size_t n = 0;

        w->n_known = 0;
        for (size_t i = 0; i < m->n_nodes; i++)
                n += m->nodes[i]->has_status ? m->nodes[i]->status.n_interfaces : 0;
        Known *known = reallocarray(w->known, n + 1, sizeof(*known));
        if (!known)
                return; /* out of memory: tried again with the next message */
        w->known = known;
        for (size_t i = 0; i < m->n_nodes; i++) {
                Node *node = m->nodes[i];
                for (size_t k = 0; node->has_status && k < node->status.n_interfaces; k++) {
                        const NetctlInterfaceStatus *s = node->status.interfaces + k;
                        if (!s->host_netns && s->host_ifindex > 0)
                                w->known[w->n_known++] = (Known){
                                        .veth = (uint32_t) s->host_ifindex, .node = node, .status = s};
                }
        }
        if (w->n_known > 0)
                qsort(w->known, w->n_known, sizeof(*w->known), compare_known);
        w->stale = false;
}

static const Known *find(LinkWatch *w, uint32_t ifindex)
{
        Known key = {.veth = ifindex > TC_IFB_INDEX_BASE ? ifindex - TC_IFB_INDEX_BASE : ifindex};

        if (w->stale)
                know(w);
        return w->n_known > 0 ? bsearch(&key, w->known, w->n_known, sizeof(key), compare_known) : NULL;
}

static void look_soon(LinkWatch *w);

/* ---- The look ---------------------------------------------------------------------------------------------------- */

/* FAILED for something that may have been put right by what the kernel told. */
static bool is_blocked(const Node *n)
{
        return n->state == NODE_FAILED && n->has_facts && n->error && !n->label_error &&
                (n->error->code == -EEXIST || n->error->code == -ENXIO || n->error->code == -ENODEV ||
                        n->error->code == -EXDEV);
}

static void look(LinkWatch *w)
{
        _cleanup_error_ TbError *err = NULL;
        Manager *m = w->manager;
        _cleanup_free_ Node **nodes = calloc(m->n_nodes + 1, sizeof(*nodes));
        bool all = w->all, blocked = w->blocked;
        size_t k = 0;

        if (!nodes) {
                log_error("out of memory: changes of queues and interfaces are looked at with the next one");
                return;
        }
        w->looked_us = tb_now_us();
        w->all = w->blocked = false;
        for (size_t i = 0; i < m->n_nodes; i++) {
                Node *n = m->nodes[i];
                unsigned drift = n->drift | (all ? DRIFT_QUEUE : 0);

                n->drift = 0;
                if (blocked && is_blocked(n) && !process_identity_is_over(&n->identity))
                        node_event(n, NODE_EVENT_RETRY, NULL);
                else if (n->state != NODE_CONFIGURED || drift == 0 || process_identity_is_over(&n->identity))
                        continue; /* when it is over, the engine will say more */
                else if (drift & DRIFT_GONE)
                        node_event(n, NODE_EVENT_CHANGED, NULL);
                else
                        nodes[k++] = n;
        }
        if (k > 0 && reconcile_repair(m, nodes, k, &err) < 0) {
                log_error("cannot check or repair the interfaces of %zu node(s), trying again: %s", k,
                        tb_error_message(err));
                w->all = true;
                look_soon(w);
        }
}

static int on_soon(sd_event_source *s, uint64_t usec, void *userdata)
{
        LinkWatch *w = userdata;

        w->soon = sd_event_source_disable_unref(w->soon);
        look(w);
        return 0;
}

static void look_soon(LinkWatch *w)
{
        uint64_t now = tb_now_us(), delay = LOOK_DELAY_USEC;

        if (w->soon)
                return;
        if (w->looked_us + LOOK_INTERVAL_USEC > now + delay)
                delay = w->looked_us + LOOK_INTERVAL_USEC - now;
        if (sd_event_add_time_relative(w->manager->event, &w->soon, CLOCK_MONOTONIC, delay, 0, on_soon, w) <
                0)
                log_error("cannot set a timer: interfaces are looked at with the next change");
        else
                (void) sd_event_source_set_description(w->soon, "interfaces");
}

static bool anybody_is_blocked(const Manager *m)
{
        for (size_t i = 0; i < m->n_nodes; i++)
                if (is_blocked(m->nodes[i]))
                        return true;
        return false;
}

/* ---- What the kernel says ------------------------------------------------------------------------------------------ */

static void may_unblock(LinkWatch *w)
{
        if (w->blocked || !anybody_is_blocked(w->manager))
                return;
        w->blocked = true;
        look_soon(w);
}

static void note(LinkWatch *w, const Known *k, unsigned drift)
{
        if (k->node->state != NODE_CONFIGURED)
                return; /* it is being worked on, or looked at when something changes */
        k->node->drift |= drift;
        look_soon(w);
}

static void sweep_soon(LinkWatch *w)
{
        w->manager->want_sweep = true;
        reconcile_schedule(w->manager);
}

static bool host_side_differs(const NetctlInterfaceStatus *s, const Link *l)
{
        return !(l->flags & IFF_UP) || !tb_streq(l->name, s->host_ifname) ||
                l->master != (uint32_t) s->bridge_ifindex;
}

static void on_link(LinkWatch *w, const Known *k, const Link *l)
{
        bool ifb = l->ifindex > TC_IFB_INDEX_BASE;
        char id[TC_ALIAS_MAX];
        uint32_t veth;

        if (!k) {
                if (ifb_parse_alias(l->alias, id, &veth))
                        sweep_soon(w); /* ours by its looks, and nobody's */
                else if (tb_streq(l->kind, "veth"))
                        may_unblock(w);
        } else if (ifb ? !(l->flags & IFF_UP) || !ifb_parse_alias(l->alias, id, &veth)
                       : host_side_differs(k->status, l))
                note(w, k, DRIFT_LINK);
}

static void on_change(const RouteEvent *e, void *userdata)
{
        LinkWatch *w = userdata;
        const Known *k = find(w, e->ifindex);

        switch (e->change) {
        case ROUTE_QUEUE:
                if (k)
                        note(w, k, DRIFT_QUEUE);
                else if (e->removed)
                        may_unblock(w);
                break;
        case ROUTE_LINK:
                on_link(w, k, &e->link);
                break;
        case ROUTE_LINK_GONE:
                if (!k)
                        may_unblock(w);
                else if (e->ifindex > TC_IFB_INDEX_BASE)
                        note(w, k, DRIFT_LINK);
                else {
                        note(w, k, DRIFT_GONE);
                        if (k->node->state == NODE_CONFIGURED)
                                sweep_soon(w); /* what its ifb was fed by is gone */
                }
                break;
        }
}

static int on_readable(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        LinkWatch *w = userdata;

        if (route_watch_read(w->watch, on_change, w))
                return 0;
        w->manager->stats.resyncs++;
        w->all = w->blocked = true;
        log_warning("the kernel changed more interfaces than could be followed: all nodes are looked at");
        look_soon(w);
        sweep_soon(w);
        return 0;
}

/* ---- Life ---------------------------------------------------------------------------------------------------------- */

int link_watch_new(Manager *m, LinkWatch **ret, TbError **err)
{
        LinkWatch *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return tb_error_oom(err);
        w->manager = m;
        w->stale = true;
        r = route_watch_new(m->netctl, &w->watch, err);
        if (r >= 0) {
                r = sd_event_add_io(m->event, &w->source, route_watch_fd(w->watch), EPOLLIN, on_readable, w);
                if (r < 0)
                        (void) tb_error_set_errno(err, TB_ERROR_RESOURCE, r, "cannot watch the interfaces");
        }
        if (r < 0) {
                link_watch_free(w);
                return r;
        }
        (void) sd_event_source_set_description(w->source, "interfaces");
        *ret = w;
        return 0;
}

LinkWatch *link_watch_free(LinkWatch *w)
{
        if (!w)
                return NULL;
        sd_event_source_disable_unref(w->source);
        sd_event_source_disable_unref(w->soon);
        route_watch_free(w->watch);
        free(w->known);
        free(w);
        return NULL;
}

void link_watch_stale(Manager *m)
{
        if (m->link_watch)
                m->link_watch->stale = true;
}

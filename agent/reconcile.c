/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/firewall-watch.h"
#include "agent/link-watch.h"
#include "agent/log-node.h"
#include "agent/message.h"
#include "agent/node-client.h"
#include "agent/reconcile.h"
#include "agent/route.h"
#include "agent/segmentation.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"

#define REMOVAL_RETRY_USEC UINT64_C(1000000)

/* Nodes by id, because events may free them while a batch goes through its results. */
typedef struct Batch {
        Node **nodes;
        NodeDeclaration *declarations;
        NetctlNode *netctl;
        size_t n;
} Batch;

static void batch_done(Batch *b)
{
        for (size_t i = 0; i < b->n; i++)
                node_declaration_done(&b->declarations[i]);
        free(b->nodes);
        free(b->declarations);
        free(b->netctl);
}
#define _cleanup_batch_ _cleanup_(batch_done)

static int batch_alloc(Batch *b, size_t n, TbError **err)
{
        b->nodes = calloc(n + 1, sizeof(*b->nodes));
        b->declarations = calloc(n + 1, sizeof(*b->declarations));
        b->netctl = calloc(n + 1, sizeof(*b->netctl));
        return b->nodes && b->declarations && b->netctl ? 0 : tb_error_oom(err);
}

static int on_batch_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
        Manager *m = userdata;

        m->batch_retry = sd_event_source_disable_unref(m->batch_retry);
        reconcile_schedule(m);
        return 0;
}

static void schedule_retry(Manager *m)
{
        if (m->batch_retry)
                return;
        if (sd_event_add_time_relative(m->event, &m->batch_retry, CLOCK_MONOTONIC, REMOVAL_RETRY_USEC, 0,
                    on_batch_retry, m) < 0)
                log_error("cannot set a timer: removals are tried again with the next container event");
}

/* Everything that is to go. A failed removal stays pending: nodes keep `needs_removal`. */
static void batch_remove(Manager *m)
{
        _cleanup_batch_ Batch b = {};
        _cleanup_error_ TbError *err = NULL;
        unsigned long writes = 0;
        int r;

        r = batch_alloc(&b, m->n_nodes, &err);
        if (r >= 0) {
                for (size_t i = 0; i < m->n_nodes; i++) {
                        Node *n = m->nodes[i];

                        if (!n->needs_removal)
                                continue;
                        b.nodes[b.n] = n;
                        b.netctl[b.n] =
                                (NetctlNode){.id = n->id, .name = node_display_name(n), .netns_fd = -1};
                        b.n++;
                }
                if (b.n == 0)
                        return;
                r = netctl_remove_many(m->netctl, b.netctl, b.n, &writes, &err);
        }
        m->stats.kernel_writes += writes;
        if (r < 0 && netctl_lock_is_busy(err)) {
                reconcile_wait_for_lock(m, err);
                return;
        }
        if (r < 0) {
                log_message(LOG_ERR, MESSAGE_REMOVAL_FAILED,
                        "cannot remove the kernel objects of %zu ended node(s), trying again: %s", b.n,
                        tb_error_message(err));
                schedule_retry(m);
                return;
        }
        for (size_t i = 0; i < b.n; i++) {
                b.nodes[i]->needs_removal = false;
                if (b.nodes[i]->state == NODE_REMOVING)
                        node_event(b.nodes[i], NODE_EVENT_REMOVED, NULL); /* may free it */
        }
}

/* The container went away under our hands: not the node's fault, its next event says what is. */
static bool vanished(const Node *n, const TbError *e)
{
        if (e->code != -ESRCH && e->code != -ENODEV && e->code != -ENOENT && e->code != -ENXIO)
                return false;
        return process_identity_is_over(&n->identity);
}

/* See route.h. A node that is on the control network only has no other choice anyway. */
static int ensure_route(Manager *m, const Node *n, TbError **err)
{
        const Endpoint *e = container_facts_endpoint(&n->facts, m->config.control_network);
        int r;

        if (!e || e->gateway.s_addr == 0 || n->facts.n_endpoints < 2)
                return 0;
        r = route_ensure_default(n->netns_fd, e->gateway, err);
        if (r > 0)
                m->stats.kernel_writes++;
        return r;
}

/* One that is being configured goes on being it, and says what it waits for; a configured one has its queues, and is looked at by
 * who watches the firewall. */
static void wait_with_node(Manager *m, Node *n, TbError **why)
{
        reconcile_wait_for_lock(m, *why);
        if (n->state == NODE_CONFIGURING) {
                tb_error_free(n->error);
                n->error = TAKE_PTR(*why);
        } else
                firewall_watch_poke(m);
}

void reconcile_take_status(Manager *m, Node *n, NetctlNodeStatus *s)
{
        if (netctl_lock_is_busy(s->error)) {
                wait_with_node(m, n, &s->error);
                return;
        }
        if (!s->error && ensure_route(m, n, &s->error) < 0 && !s->error)
                (void) tb_error_oom(&s->error);
        if (s->error) {
                if (vanished(n, s->error))
                        node_event(n, NODE_EVENT_CHANGED, NULL);
                else
                        node_event(n, NODE_EVENT_FAIL, s->error);
                return;
        }
        if (s->bridge_nf_enabled)
                log_message(LOG_NOTICE, MESSAGE_BRIDGE_NF_ENABLED,
                        "turned on net.bridge.bridge-nf-call-iptables: firewall rules of nodes need it");
        node_status_done(&n->status);
        n->status = *s;
        n->has_status = true;
        *s = (NetctlNodeStatus){};
        link_watch_stale(m);
        m->stats.nodes_applied++;
        (void) node_client_apply_routes(
                n, NULL); /* shown by `tbnode inspect`; links and rules are right all the same */
        if (n->state != NODE_CONFIGURED) /* else it only followed a neighbour */
                node_event(n, NODE_EVENT_APPLIED, NULL);
}

/* Nodes that run well but have to send in another way, because the shape of a neighbour changed. */
static int update_segmentation(Manager *m, Batch *b, TbError **err)
{
        _cleanup_strv_ char **networks = NULL;
        int r;

        r = segmentation_networks(m, &networks, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < m->n_nodes; i++)
                if (m->nodes[i]->state == NODE_CONFIGURED &&
                        segmentation_differs(m->nodes[i], networks, m->packet_networks))
                        b->nodes[b->n++] = m->nodes[i];
        segmentation_take(m, TAKE_PTR(networks));
        return 0;
}

static int batch_collect(Manager *m, Batch *b, TbError **err)
{
        size_t changed;
        int r;

        r = batch_alloc(b, m->n_nodes, err);
        if (r >= 0)
                r = update_segmentation(m, b, err);
        if (r < 0)
                return r;
        changed = b->n;
        b->n = 0;
        for (size_t i = 0; i < changed; i++) {
                Node *n = b->nodes[i];

                if (node_declare(n, m->config.control_network, &b->declarations[b->n], NULL) < 0)
                        continue;
                b->nodes[b->n] = n;
                b->netctl[b->n] = b->declarations[b->n].node;
                b->netctl[b->n].waits = true;
                b->n++;
        }
        for (size_t i = 0; i < m->n_nodes; i++) {
                _cleanup_error_ TbError *cause = NULL;
                Node *n = m->nodes[i];
                const char *missing;

                if (n->state != NODE_CONFIGURING)
                        continue;
                if (!node_check_ready(n, &missing)) {
                        log_node(n, LOG_DEBUG, "not configured yet: %s", missing);
                        continue;
                }
                r = node_declare(n, m->config.control_network, &b->declarations[b->n], &cause);
                if (r < 0) {
                        node_event(n, NODE_EVENT_FAIL, cause);
                        continue;
                }
                b->nodes[b->n] = n;
                b->netctl[b->n] = b->declarations[b->n].node;
                b->netctl[b->n].replace_foreign = m->config.replace_foreign;
                b->netctl[b->n].waits = true;
                b->n++;
        }
        return 0;
}

static void count(Manager *m, const NetctlReport *r)
{
        m->stats.batches++;
        m->stats.kernel_writes += r->netlink_writes + r->firewall_commits + r->sysctl_writes;
        histogram_add(&m->stats.plan, r->plan_ns);
        histogram_add(&m->stats.apply,
                r->resolve_ns + r->observe_ns + r->plan_ns + r->apply_ns + r->firewall_ns + r->verify_ns);
}

static void batch_apply(Manager *m)
{
        _cleanup_batch_ Batch b = {};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_netctl_report_ NetctlReport report = {};
        int r;

        r = batch_collect(m, &b, &err);
        if (r >= 0 && b.n == 0)
                return;
        if (r >= 0)
                r = netctl_apply(m->netctl, b.netctl, b.n, &report, &err);
        if (r < 0) {
                log_message(LOG_ERR, MESSAGE_BATCH_FAILED, "cannot configure %zu node(s): %s", b.n,
                        tb_error_message(err));
                for (size_t i = 0; i < b.n; i++)
                        node_event(b.nodes[i], NODE_EVENT_FAIL, err);
                return;
        }
        count(m, &report);
        log_debug("batch: %zu nodes, %lu netlink writes, %lu firewall commits", b.n, report.netlink_writes,
                report.firewall_commits);
        for (size_t i = 0; i < b.n && i < report.n_nodes; i++)
                reconcile_take_status(m, b.nodes[i], &report.nodes[i]);
}

void reconcile_before_sync(Manager *m, Node *n)
{
        _cleanup_node_declaration_ NodeDeclaration d = {};
        _cleanup_netctl_report_ NetctlReport report = {};
        _cleanup_error_ TbError *err = NULL;
        const char *missing;
        int r;

        n->needs_removal =
                false; /* what its last run left is removed by the sweep that follows the engine's list */
        if (!node_check_ready(n, &missing)) {
                log_node(n, LOG_DEBUG, "not configured yet: %s", missing);
                return;
        }
        r = node_declare(n, m->config.control_network, &d, &err);
        d.node.waits = true;
        if (r >= 0)
                r = netctl_apply(m->netctl, &d.node, 1, &report, &err);
        if (r < 0) {
                node_event(n, NODE_EVENT_FAIL, err);
                return;
        }
        count(m, &report);
        reconcile_take_status(m, n, &report.nodes[0]);
}

/* Until then the kernel may still have what is about to be known. */
static bool no_node_is_starting(const Manager *m)
{
        for (size_t i = 0; i < m->n_nodes; i++)
                if (m->nodes[i]->state == NODE_STARTING)
                        return false;
        return true;
}

static int on_batch(sd_event_source *s, void *userdata)
{
        Manager *m = userdata;

        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        if (!m->synced)
                return 0; /* the first batch is for all nodes together */
        batch_remove(m);
        batch_apply(m);
        if (m->want_sweep && no_node_is_starting(m)) {
                _cleanup_error_ TbError *err = NULL;
                unsigned long removed = 0;

                m->want_sweep = false;
                if (reconcile_sweep(m, &removed, &err) < 0)
                        log_message(LOG_ERR, MESSAGE_REMOVAL_FAILED, "cannot look for leftovers: %s",
                                tb_error_message(err));
        }
        reconcile_got_lock(m);
        firewall_watch_start(m);
        manager_update_status(m);
        return 0;
}

void reconcile_schedule(Manager *m)
{
        int r = 0;

        if (m->batch)
                r = sd_event_source_set_enabled(m->batch, SD_EVENT_ONESHOT);
        else {
                r = sd_event_add_defer(m->event, &m->batch, on_batch, m);
                if (r >= 0)
                        r = sd_event_source_set_priority(m->batch, SD_EVENT_PRIORITY_IDLE);
                if (r >= 0)
                        (void) sd_event_source_set_description(m->batch, "batch");
        }
        if (r < 0)
                log_error("cannot schedule a batch: %s", strerror(-r));
}

static void take_written(Manager *m, Node *n, NetctlNodeStatus *s, TbError **ret_error)
{
        if (s->error) {
                *ret_error = TAKE_PTR(s->error);
                return;
        }
        node_status_done(&n->status);
        n->status = *s;
        n->has_status = true;
        *s = (NetctlNodeStatus){};
        link_watch_stale(m);
        reconcile_schedule(m); /* its neighbours may have to follow: segmentation.h */
}

int reconcile_now_many(
        Manager *m, Node *const *nodes, size_t n, bool replace_foreign, TbError **errors, TbError **err)
{
        _cleanup_batch_ Batch b = {};
        _cleanup_free_ TbError ***where = calloc(n + 1, sizeof(*where));
        _cleanup_netctl_report_ NetctlReport report = {};

        int r = where ? batch_alloc(&b, n, err) : tb_error_oom(err);
        for (size_t i = 0; r >= 0 && i < n; i++) {
                if (node_declare(nodes[i], m->config.control_network, &b.declarations[b.n], errors + i) < 0)
                        continue;
                b.nodes[b.n] = nodes[i];
                where[b.n] = errors + i;
                b.netctl[b.n] = b.declarations[b.n].node;
                b.netctl[b.n].replace_foreign = replace_foreign || m->config.replace_foreign;
                b.n++;
        }
        if (r >= 0 && b.n > 0)
                r = netctl_apply(m->netctl, b.netctl, b.n, &report, err);
        if (r < 0)
                return r;
        count(m, &report);
        for (size_t i = 0; i < b.n && i < report.n_nodes; i++)
                take_written(m, b.nodes[i], report.nodes + i, where[i]);
        return 0;
}

int reconcile_now(Manager *m, Node *n, bool replace_foreign, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;

        int r = reconcile_now_many(m, &n, 1, replace_foreign, &e, err);
        return r >= 0 && e ? tb_error_move(err, &e) : r;
}

static void take_shown(Node *n, NetctlNodeStatus *s)
{
        if (s->error) {
                log_node(n, LOG_WARNING, "cannot read it from the kernel: %s", tb_error_message(s->error));
                return;
        }
        /* What the last write did is not known to a look at the kernel. */
        for (size_t i = 0; i < s->n_interfaces; i++)
                for (size_t k = 0; k < n->status.n_interfaces; k++)
                        if (memcmp(s->interfaces[i].mac, n->status.interfaces[k].mac, 6) == 0)
                                s->interfaces[i].change = n->status.interfaces[k].change;
        s->change = n->status.change;
        node_status_done(&n->status);
        n->status = *s;
        n->has_status = true;
        *s = (NetctlNodeStatus){};
        link_watch_stale(n->manager);
}

void reconcile_show_many(Manager *m, Node *const *nodes, size_t n)
{
        _cleanup_batch_ Batch b = {};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_netctl_report_ NetctlReport report = {};

        int r = batch_alloc(&b, n, &err);
        for (size_t i = 0; r >= 0 && i < n; i++) {
                if (nodes[i]->state != NODE_CONFIGURED ||
                        node_declare(nodes[i], m->config.control_network, &b.declarations[b.n], NULL) < 0)
                        continue;
                b.nodes[b.n] = nodes[i];
                b.netctl[b.n] = b.declarations[b.n].node;
                b.n++;
        }
        if (r >= 0 && b.n > 0)
                r = netctl_show(m->netctl, b.netctl, b.n, &report, &err);
        if (r < 0) {
                log_warning("cannot read shapes from the kernel: %s", tb_error_message(err));
                return;
        }
        for (size_t i = 0; i < b.n && i < report.n_nodes; i++)
                take_shown(b.nodes[i], &report.nodes[i]);
}

int reconcile_sweep(Manager *m, unsigned long *ret_removed, TbError **err)
{
        _cleanup_free_ char **known = NULL;
        _cleanup_error_ TbError *e = NULL;
        size_t k = 0;
        int r;

        /* Only nodes that run have anything to keep: what an ended one left is an orphan like any other. */
        known = calloc(m->n_nodes + 1, sizeof(*known));
        if (!known)
                return tb_error_oom(err);
        for (size_t i = 0; i < m->n_nodes; i++)
                if (node_is_running(m->nodes[i]))
                        known[k++] = m->nodes[i]->id;
        r = netctl_sweep(m->netctl, known, ret_removed, &e);
        if (r < 0 && netctl_lock_is_busy(e)) {
                m->want_sweep = true;
                reconcile_wait_for_lock(m, e);
                return 0;
        }
        if (r < 0)
                return tb_error_move(err, &e);
        m->stats.kernel_writes += *ret_removed;
        return r;
}

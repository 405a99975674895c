/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * netctl_apply(): resolve, observe, plan, one batch, one firewall commit, read back.
 *
 * A node is configured wholly or not. Whatever goes wrong for a node after the batch was sent, its interfaces are put back
 * to what was observed before, by planning in the other direction from what is there now; the firewall commit is all or
 * nothing by itself and is only attempted for nodes whose shaping went well.
 */

#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/netctl-internal.h"
#include "netctl/netem-dist.h"

void work_name_error(TbError **err, const Work *w, size_t iface)
{
        const Iface *x = w->ifaces + iface;

        tb_error_prefix(err, "interface %s%s%s (host side %s)", x->inside.link.name,
                x->want->network ? " on " : "", x->want->network ? x->want->network : "", x->host.name);
}

/* Would a new plain leaf be made? Only then it matters whether the kernel has netem. */
static bool needs_leaf_choice(const Work *w)
{
        for (size_t i = 0; i < w->n_ifaces; i++) {
                const NetctlInterface *x = w->ifaces[i].want;
                const IfaceState *b = w->before + i;
                if (w->nodes[w->ifaces[i].node].parts == NETCTL_FIREWALL)
                        continue;
                if (x->n_rules > 0)
                        return true;
                if (x->down && !shape_needs_netem(x->down) && !b->down.has_class)
                        return true;
                if (x->up && !shape_needs_netem(x->up) && !(b->ifb.present && b->up.has_class))
                        return true;
        }
        return false;
}

static int add_rules(Work *w, size_t i, bool have_netem, TbError **err)
{
        const Iface *x = w->ifaces + i;
        const IfaceState *before = w->before + i;
        int r = 0;

        if (x->want->n_rules == 0)
                return 0;
        if (x->want->down)
                r = tree_add_rules(x->want->rules, x->want->n_rules, false, x->host.mtu, &before->down,
                        have_netem, &w->arena, &w->desired[i].down, err);
        if (r >= 0 && x->want->up)
                r = tree_add_rules(x->want->rules, x->want->n_rules, true, x->host.mtu,
                        before->ifb.present ? &before->up : NULL, have_netem, &w->arena, &w->desired[i].up,
                        err);
        return r;
}

/* Operations of this node were the last to be planned. */
static void unplan_node(Work *w, size_t node)
{
        for (size_t s = 0; s < w->n_spaces; s++) {
                Plan *p = &w->spaces[s].plan;
                while (p->n > 0 && p->ops[p->n - 1].owner >= w->first[node])
                        p->n--;
        }
}

/* The bridge that the host side is to be put to; 0: it stays where it is. One that is gone can have no ports. */
static uint32_t bridge_of(const Work *w, size_t i)
{
        const Iface *x = w->ifaces + i;
        const Links *links = work_links(w, i);

        if (w->nodes[x->node].repair && x->want->bridge > 0 && links_find(links, x->want->bridge))
                return x->want->bridge;
        if (x->host.master > 0 || !x->want->bridge_name[0])
                return 0;
        const Link *bridge = links_find_name(links, x->want->bridge_name);
        return bridge && tb_streq(bridge->kind, "bridge") ? bridge->ifindex : 0;
}

static int put_link(Work *w, size_t i, TbError **err)
{
        Iface *x = w->ifaces + i;
        uint32_t bridge = bridge_of(w, i);

        if (!w->nodes[x->node].repair && !x->want->bridge_name[0])
                return 0;
        int r = plan_link(&x->host, bridge, i, &w->spaces[x->space].plan, &x->change, err);
        if (r >= 0 && bridge > 0)
                x->host.master = bridge; /* as it will be told */
        return r;
}

static int plan_node(Work *w, size_t node, bool have_netem, TbError **err)
{
        for (size_t i = w->first[node]; i < w->first[node + 1]; i++) {
                Iface *x = w->ifaces + i;
                if (w->nodes[node].parts == NETCTL_FIREWALL) {
                        w->desired[i] = w->before[i];
                        continue;
                }
                int r = iface_from_shapes(x->want->up, x->want->down, x->host.mtu, w->nodes[node].id,
                        w->before + i, have_netem, w->desired + i);
                if (r < 0)
                        (void) tb_error_set(err, TB_ERROR_RESOURCE, -ERANGE,
                                "interface index %u or id is out of range", x->host.ifindex);
                else
                        r = add_rules(w, i, have_netem, err);
                if (r >= 0)
                        r = plan_iface(w->desired + i, w->before + i,
                                w->nodes[node].replace_foreign || w->nodes[node].repair, i,
                                &w->spaces[x->space].plan, &x->change, err);
                if (r >= 0)
                        r = put_link(w, i, err);
                if (r < 0) {
                        work_name_error(err, w, i);
                        unplan_node(w, node);
                        return r;
                }
        }
        return 0;
}

/* First error of each interface becomes the node's. */
static void collect_errors(Work *w, TbError **iface_errors)
{
        for (size_t i = 0; i < w->n_ifaces; i++) {
                if (!iface_errors[i])
                        continue;
                work_name_error(iface_errors + i, w, i);
                if (!w->errors[w->ifaces[i].node])
                        w->errors[w->ifaces[i].node] = TAKE_PTR(iface_errors[i]);
                else
                        iface_errors[i] = tb_error_free(iface_errors[i]);
        }
}

/* An ingress qdisc that was not there before is the one that we have just made, also when nothing else says so, because
 * making its ifb and its filter failed. */
static void claim_ingress(const IfaceState *before, IfaceState *now)
{
        if (before->ingress.owner == TC_NONE && now->ingress.owner == TC_FOREIGN &&
                now->ingress.n_foreign == 0 && tb_streq(now->ingress.kind, "ingress"))
                now->ingress.owner = TC_OURS;
}

bool work_goes_back(const Work *w, size_t node)
{
        return w->errors[node] && !(w->nodes[node].waits && netctl_lock_is_busy(w->errors[node]));
}

/* Puts the interfaces of all failed nodes back to before[]. Best effort: what can't be put back (a container that ended
 * took its veth along) is logged at debug level, the node is failed already. */
static int roll_back(Work *w, ApplyCounts *counts, TbError **err)
{
        bool any = false;

        for (size_t i = 0; i < w->n_ifaces; i++)
                any |= work_goes_back(w, w->ifaces[i].node) && w->ifaces[i].change != NETCTL_UNCHANGED;
        if (!any)
                return 0;
        int r = work_observe_again(w, w->now, err);
        if (r < 0)
                return r;
        for (size_t s = 0; s < w->n_spaces; s++)
                w->spaces[s].plan.n = 0;
        for (size_t i = 0; i < w->n_ifaces; i++) {
                _cleanup_error_ TbError *ignored = NULL;
                NetctlChange change;
                if (!work_goes_back(w, w->ifaces[i].node) || w->ifaces[i].change == NETCTL_UNCHANGED)
                        continue;
                claim_ingress(w->before + i, w->now + i);
                if (!links_find(work_links(w, i), w->now[i].veth)) {
                        /* The veth is gone: only the ifb can be left. */
                        w->before[i].down = w->now[i].down;
                        w->before[i].ingress = (IngressState){};
                        w->before[i].ifb.present = false;
                }
                if (plan_iface(w->before + i, w->now + i, false, i, &w->spaces[w->ifaces[i].space].plan,
                            &change, &ignored) < 0)
                        log_debug("cannot plan to put %s back: %s", w->ifaces[i].host.name,
                                tb_error_message(ignored));
                w->ifaces[i].change = NETCTL_UNCHANGED;
        }
        _cleanup_free_ TbError **errors = calloc(w->n_ifaces + 1, sizeof(*errors));
        if (!errors)
                return tb_error_oom(err);
        r = work_apply(w, errors, counts, err);
        for (size_t i = 0; i < w->n_ifaces; i++) {
                if (errors[i])
                        log_debug("cannot put %s back: %s", w->ifaces[i].host.name,
                                tb_error_message(errors[i]));
                tb_error_free(errors[i]);
        }
        return r;
}

/* Did the kernel take what it said it took? (Older ones ignore attributes that they don't know.) */
static int verify(Work *w, TbError **err)
{
        int r = work_observe_again(w, w->now, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < w->n_ifaces; i++) {
                _cleanup_plan_ Plan plan = {};
                _cleanup_error_ TbError *e = NULL;
                NetctlChange change = NETCTL_UNCHANGED;
                TbError **node_error = w->errors + w->ifaces[i].node;

                if (*node_error || w->nodes[w->ifaces[i].node].parts == NETCTL_FIREWALL)
                        continue;
                r = plan_iface(w->desired + i, w->now + i, false, i, &plan, &change, &e);
                if (r >= 0 && plan.n == 0)
                        continue;
                const Leaf *up = &w->desired[i].up.leaf, *down = &w->desired[i].down.leaf;
                bool seeded = (up->kind == LEAF_NETEM && up->netem.seeded) ||
                        (down->kind == LEAF_NETEM && down->netem.seeded);
                if (e)
                        (void) tb_error_move(node_error, &e);
                else if (!links_find(work_links(w, i), w->now[i].veth))
                        (void) tb_error_set(node_error, TB_ERROR_SYSTEM, -ENODEV,
                                "the interface went away; the container has probably ended");
                else {
                        (void) tb_error_set(node_error, TB_ERROR_ENVIRONMENT, -EOPNOTSUPP,
                                "the kernel did not take the shape, or somebody changed it at once (it "
                                "would need '%s' again)%s",
                                op_to_string(plan.ops[0].kind),
                                seeded ? "; 'seed' needs Linux 6.6 or later" : "");
                        /* Which of the two it was can't be told; the latter passes. */
                        tb_error_set_retryable(node_error);
                }
                work_name_error(node_error, w, i);
        }
        return 0;
}

static uint64_t lap(uint64_t *mark)
{
        uint64_t now = tb_now_ns(), d = now - *mark;

        *mark = now;
        return d;
}

int netctl_apply(Netctl *n, const NetctlNode *nodes, size_t n_nodes, NetctlReport *ret, TbError **err)
{
        _cleanup_netctl_report_ NetctlReport report = {};
        _cleanup_work_ Work w = {};
        ApplyCounts counts = {};
        bool have_netem = false;
        uint64_t mark = tb_now_ns();

        w.offload_counts = &counts;
        int r = work_prepare(n, &w, nodes, n_nodes, false, err);
        if (r < 0)
                return r;
        report.observe_ns = lap(&mark);

        if (needs_leaf_choice(&w))
                have_netem = netctl_has_netem(n);
        for (size_t i = 0; i < n_nodes; i++)
                if (!w.errors[i] && plan_node(&w, i, have_netem, w.errors + i) == -ENOMEM)
                        return tb_error_move(err, w.errors + i);
        report.plan_ns = lap(&mark);

        _cleanup_free_ TbError **iface_errors = calloc(w.n_ifaces + 1, sizeof(*iface_errors));
        if (!iface_errors)
                return tb_error_oom(err);
        r = work_apply(&w, iface_errors, &counts, err);
        if (r < 0)
                return r;
        const unsigned long planned = counts.writes;
        collect_errors(&w, iface_errors);
        report.apply_ns = lap(&mark);

        /* Reading back before the firewall is touched: its commit is for those who went through. */
        if (planned > 0) {
                r = verify(&w, err);
                if (r < 0)
                        return r;
        }
        report.verify_ns = lap(&mark);

        FwOutcome outcome = {};
        r = work_apply_firewall(n, &w, &outcome, err);
        if (r < 0)
                return r;
        report.firewall_ns = lap(&mark);

        work_undo_offload(n, &w, &counts);
        r = roll_back(&w, &counts, err);
        if (r < 0)
                return r;

        r = work_report(&w, planned > 0 ? w.now : w.before, outcome.bridge_nf_enabled, &report, err);
        if (r < 0)
                return r;
        report.netlink_writes = counts.writes;
        report.netlink_sends = counts.sends;
        report.firewall_commits = outcome.commits;
        report.sysctl_writes = outcome.sysctl_writes;
        *ret = report;
        report = (NetctlReport){};
        return 0;
}

static bool leaf_is_known(const Leaf *leaf)
{
        ShapeName name;

        return leaf->kind != LEAF_NETEM ||
                (netem_table_name(leaf->netem.table, &name) &&
                        netem_table_name(leaf->netem.slot_table, &name));
}

static bool tree_is_known(const TcTree *t)
{
        bool known = leaf_is_known(&t->leaf);

        for (size_t i = 0; known && i < t->n_rules; i++)
                known = leaf_is_known(&t->rules[i].leaf);
        return known;
}

/* Tables that another process has put into the kernel have to be read before they have a name. */
static void know_tables(const Netctl *n, const Work *w)
{
        for (size_t i = 0; i < w->n_ifaces; i++)
                if (!tree_is_known(&w->before[i].down) || !tree_is_known(&w->before[i].up)) {
                        netem_table_load_all(n->options.distributions);
                        return;
                }
}

int netctl_show(Netctl *n, const NetctlNode *nodes, size_t n_nodes, NetctlReport *ret, TbError **err)
{
        _cleanup_netctl_report_ NetctlReport report = {};
        _cleanup_work_ Work w = {};
        uint64_t mark = tb_now_ns();

        int r = work_prepare(n, &w, nodes, n_nodes, false, err);
        if (r < 0)
                return r;
        _cleanup_free_ FwReadback *back = calloc(n_nodes + 1, sizeof(*back));
        if (!back)
                return tb_error_oom(err);
        if (work_read_firewall(n, &w, back, NULL) >= 0)
                for (size_t i = 0; i < n_nodes; i++) {
                        w.fw_present[i] = back[i].present;
                        fw_readback_done(back + i);
                }
        know_tables(n, &w);
        report.observe_ns = lap(&mark);
        r = work_report(&w, w.before, false, &report, err);
        if (r < 0)
                return r;
        *ret = report;
        report = (NetctlReport){};
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* States of interfaces as the caller gets to see them. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/netctl-internal.h"

static int compare_netctl_rule(const void *a, const void *b)
{
        return shape_match_compare(&((const NetctlRule *) a)->match, &((const NetctlRule *) b)->match);
}

static int fill_rules(const TcTree *t, NetctlDirection *ret, TbError **err)
{
        if (t->n_rules == 0)
                return 0;
        ret->rules = calloc(t->n_rules, sizeof(*ret->rules));
        if (!ret->rules)
                return tb_error_oom(err);
        for (size_t i = 0; i < t->n_rules; i++) {
                const TcRule *rule = t->rules + i;
                const TcTree as_tree = {
                        .has_class = rule->has_class, .htb_class = rule->htb_class, .leaf = rule->leaf};
                if (!rule->match)
                        continue;
                NetctlRule *out = ret->rules + ret->n_rules++;
                *out = (NetctlRule){
                        .match = *rule->match,
                        .class = rule->minor,
                        .bytes = rule->stats.bytes,
                        .packets = rule->stats.packets,
                        .drops = rule->stats.drops,
                };
                tree_to_shape(&as_tree, &out->shape);
        }
        if (ret->n_rules > 1)
                qsort(ret->rules, ret->n_rules, sizeof(*ret->rules), compare_netctl_rule);
        return 0;
}

static int fill_direction(const TcTree *t, const char *device, NetctlDirection *ret, TbError **err)
{
        *ret = (NetctlDirection){};
        if (t->owner != TC_OURS)
                return 0;
        *ret = (NetctlDirection){
                .present = true,
                .burst_bytes = htb_burst_bytes(&t->htb_class),
                .quantum_bytes = t->htb_class.quantum,
                .netem = t->leaf.kind == LEAF_NETEM,
                .bytes = t->stats.bytes,
                .packets = t->stats.packets,
                .drops = t->stats.drops,
                .overlimits = t->stats.overlimits,
                .backlog_packets = t->stats.qlen,
        };
        tree_to_shape(t, &ret->shape);
        (void) snprintf(ret->device, sizeof(ret->device), "%s", device);
        return fill_rules(t, ret, err);
}

static int fill_node(const Work *w, size_t i, const IfaceState *states, NetctlNodeStatus *s, TbError **err)
{
        size_t count = w->first[i + 1] - w->first[i];

        s->interfaces = calloc(count + 1, sizeof(*s->interfaces));
        if (!s->interfaces)
                return tb_error_oom(err);
        for (size_t k = 0; k < count; k++) {
                const Iface *x = w->ifaces + w->first[i] + k;
                const IfaceState *state = states + w->first[i] + k;
                NetctlInterfaceStatus *o = s->interfaces + k;

                memcpy(o->mac, x->want->mac, sizeof(o->mac));
                if (x->want->network) {
                        o->network = strdup(x->want->network);
                        if (!o->network)
                                return tb_error_oom(err);
                }
                s->n_interfaces = k + 1;
                o->ifindex = (int) x->inside.link.ifindex;
                memcpy(o->ifname, x->inside.link.name, sizeof(o->ifname));
                o->host_ifindex = (int) x->host.ifindex;
                memcpy(o->host_ifname, x->host.name, sizeof(o->host_ifname));
                if (w->spaces[x->space].path) {
                        o->host_netns = strdup(w->spaces[x->space].path);
                        if (!o->host_netns)
                                return tb_error_oom(err);
                }
                o->bridge_ifindex = (int) x->host.master;
                o->ipv4 = x->want->ipv4.s_addr ? x->want->ipv4 : x->inside.ipv4;
                int r = fill_direction(&state->down, x->host.name, &o->down, err);
                if (r >= 0 && state->ifb.present)
                        r = fill_direction(&state->up, state->ifb.name, &o->up, err);
                if (r < 0)
                        return r;
                o->offload_off = offload_is_off(&x->inside.link);
                o->offload = offload_decision(&x->inside.link, x->want);
                o->change = x->change;
                s->change = MAX2(s->change, x->change);
        }
        return 0;
}

int work_report(Work *w, const IfaceState *states, bool bridge_nf, NetctlReport *report, TbError **err)
{
        report->nodes = calloc(w->n_nodes + 1, sizeof(*report->nodes));
        if (!report->nodes)
                return tb_error_oom(err);
        report->n_nodes = w->n_nodes;
        for (size_t i = 0; i < w->n_nodes; i++) {
                NetctlNodeStatus *s = report->nodes + i;
                int r = fill_node(w, i, states, s, err);
                if (r < 0)
                        return r;
                if (w->errors[i]) {
                        const char *name = w->nodes[i].name ? w->nodes[i].name : w->nodes[i].id;
                        tb_error_prefix(w->errors + i, "node %.64s", name ? name : "?");
                        s->error = TAKE_PTR(w->errors[i]);
                        s->change = NETCTL_UNCHANGED;
                }
                s->firewall = w->fw_present[i];
                s->firewall_changed = w->fw_changed[i];
                s->bridge_nf_enabled = bridge_nf && w->fw_present[i];
        }
        return 0;
}

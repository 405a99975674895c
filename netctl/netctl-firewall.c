/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From resolved interfaces to the firewall's back end. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/netctl-internal.h"

/* The nodes of a call as a back end is told them. */
typedef struct FwWork {
        FwInterface *interfaces; /* node by node, those on the host itself */
        FwNode *nodes;
        size_t *index; /* into Work.nodes */
        size_t n;
        bool wanted; /* one of them shall have a firewall */
} FwWork;

static void fw_work_done(FwWork *f)
{
        free(f->interfaces);
        free(f->nodes);
        free(f->index);
}

static void identity(const Work *w, const Iface *x, FwInterface *ret)
{
        const Link *bridge = links_find(&w->spaces[x->space].links, x->host.master);

        *ret = (FwInterface){
                .ifindex = x->host.ifindex,
                .bridge = x->space == 0 ? x->host.master : 0, /* elsewhere there is nothing of ours */
                .filtered = x->want->filtered,
                .pinned = x->want->pinned,
                .ipv4 = x->want->ipv4.s_addr ? x->want->ipv4 : x->inside.ipv4,
                .n_ipv6 = x->want->n_ipv6,
        };
        memcpy(ret->ifname, x->host.name, sizeof(ret->ifname));
        memcpy(ret->mac, x->want->mac, sizeof(ret->mac));
        memcpy(ret->ipv6, x->want->ipv6, sizeof(ret->ipv6));
        if (bridge)
                memcpy(ret->bridge_name, bridge->name, sizeof(ret->bridge_name));
}

static void node_to_fw(const NetctlNode *n, FwNode *ret)
{
        *ret = (FwNode){
                .id = n->id,
                .name = n->name ? n->name : n->id,
                .style = n->style,
                .rules = n->rules,
                .group = n->group,
                .ssh_port = n->ssh_port,
                .agent = n->agent,
        };
}

/* The guard of an interface without a bridge has a part that not every kernel with nf_tables can hold. (One without nf_tables
 * has no guard at all, of no interface: `doctor` says so.) */
static int check_lone(Netctl *n, TbError **err)
{
        const Capabilities *caps;

        int r = netctl_capabilities(n, &caps, err);
        if (r < 0 || !caps->has[CAPABILITY_NF_TABLES] || caps->has[CAPABILITY_NF_TABLES_ARP])
                return r;
        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EOPNOTSUPP,
                "it is no bridge's port, and its ARP can't be pinned: nf_tables of this kernel has no "
                "family "
                "arp; boot a kernel with CONFIG_NF_TABLES_ARP, use a bridge network as the control network, "
                "or style none");
}

/* What cannot be filtered becomes an error of its node. */
static void check_interface(Netctl *n, Work *w, size_t i)
{
        const Iface *x = w->ifaces + i;
        TbError **err = w->errors + x->node;

        if (w->nodes[x->node].style == FW_NONE || !(x->want->filtered || x->want->pinned))
                return;
        if (x->space > 0)
                (void) tb_error_set(err, TB_ERROR_ENVIRONMENT, -EXDEV,
                        "its host side is in %s, where there is no firewall of ours; use a bridge network "
                        "as the "
                        "control network, or style none",
                        w->spaces[x->space].path);
        else if (x->want->pinned && x->want->ipv4.s_addr == 0 && x->inside.ipv4.s_addr == 0)
                (void) tb_error_set(
                        err, TB_ERROR_ENVIRONMENT, -EADDRNOTAVAIL, "no IPv4 address to pin packets to");
        else if (x->host.master > 0 || check_lone(n, err) >= 0)
                return;
        work_name_error(err, w, i);
}

/* Nodes with errors, and those that say nothing about their firewall, are left out. */
static int collect(Netctl *n, Work *w, FwWork *f, TbError **err)
{
        f->interfaces = calloc(w->n_ifaces + 1, sizeof(*f->interfaces));
        f->nodes = calloc(w->n_nodes + 1, sizeof(*f->nodes));
        f->index = calloc(w->n_nodes + 1, sizeof(*f->index));
        if (!f->interfaces || !f->nodes || !f->index)
                return tb_error_oom(err);
        size_t used = 0;
        for (size_t i = 0; i < w->n_nodes; i++) {
                size_t first = used;
                if (w->nodes[i].parts == NETCTL_SHAPES)
                        continue;
                for (size_t k = w->first[i]; k < w->first[i + 1] && !w->errors[i]; k++) {
                        if (w->ifaces[k].space == 0)
                                identity(w, w->ifaces + k, f->interfaces + used++);
                        check_interface(n, w, k);
                }
                if (w->errors[i])
                        continue;
                node_to_fw(w->nodes + i, f->nodes + f->n);
                f->nodes[f->n].interfaces = f->interfaces + first;
                f->nodes[f->n].n_interfaces = used - first;
                f->wanted |= w->nodes[i].style != FW_NONE;
                f->index[f->n++] = i;
        }
        return 0;
}

int work_apply_firewall(Netctl *n, Work *w, FwOutcome *outcome, TbError **err)
{
        _cleanup_free_ bool *changed = calloc(w->n_nodes + 1, sizeof(bool));
        _cleanup_free_ bool *present = calloc(w->n_nodes + 1, sizeof(bool));
        _cleanup_(fw_work_done) FwWork f = {};
        _cleanup_error_ TbError *e = NULL;

        if (!changed || !present)
                return tb_error_oom(err);
        int r = collect(n, w, &f, err);
        if (r < 0 || f.n == 0)
                return r;
        outcome->changed = changed;
        outcome->present = present;
        r = firewall_apply(n, w->few ? NULL : &w->spaces[0].links, f.nodes, f.n, false, NULL, outcome, &e);
        outcome->changed = outcome->present = NULL;
        if (r < 0) {
                /* Without legacy tables there can be no chains of ours to remove either. */
                if (!f.wanted && (r == -ENOENT || r == -ENOPROTOOPT))
                        return 0;
                if (!f.wanted && !netctl_lock_is_busy(e))
                        return tb_error_move(err, &e);
                for (size_t k = 0; k < f.n; k++)
                        if (f.nodes[k].style != FW_NONE || !f.wanted)
                                w->errors[f.index[k]] = tb_error_copy(e);
                return 0;
        }
        for (size_t k = 0; k < f.n; k++) {
                w->fw_changed[f.index[k]] = changed[k];
                w->fw_present[f.index[k]] = present[k];
        }
        /* Theirs are in place: what the other back end had of them before can go. */
        r = firewall_leave_other(n, f.nodes, f.n, false, NULL, outcome, &e);
        if (r < 0 && !netctl_lock_is_busy(e))
                return tb_error_move(err, &e);
        for (size_t k = 0; k < f.n && r < 0; k++)
                w->errors[f.index[k]] = tb_error_copy(e);
        return 0;
}

int work_read_firewall(Netctl *n, Work *w, FwReadback *ret, TbError **err)
{
        _cleanup_(fw_work_done) FwWork f = {};

        int r = collect(n, w, &f, err);
        if (r < 0)
                return r;
        _cleanup_free_ FwReadback *back = calloc(f.n + 1, sizeof(*back));
        if (!back)
                return tb_error_oom(err);
        r = firewall_read(n, w->few ? NULL : &w->spaces[0].links, f.nodes, f.n, back, err);
        if (r < 0)
                return r;
        for (size_t k = 0; k < f.n; k++) {
                ret[f.index[k]] = back[k];
                ret[f.index[k]].looked_at = true;
        }
        return 0;
}

int netctl_firewall_show(Netctl *n, const NetctlNode *nodes, size_t n_nodes, FwReadback *ret, TbError **err)
{
        _cleanup_work_ Work w = {};

        int r = work_prepare(n, &w, nodes, n_nodes, false, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_nodes; i++)
                ret[i] = (FwReadback){.style = _FW_STYLE_INVALID};
        return work_read_firewall(n, &w, ret, err);
}

int netctl_firewall_describe(const NetctlNode *node, FwInterface *interfaces, FwNode *ret, TbError **err)
{
        if (node->n_interfaces > NETCTL_INTERFACES_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -E2BIG, "more than %d interfaces", NETCTL_INTERFACES_MAX);
        for (size_t i = 0; i < node->n_interfaces; i++) {
                const NetctlInterface *x = node->interfaces + i;
                interfaces[i] = (FwInterface){
                        .filtered = x->filtered, .pinned = x->pinned, .ipv4 = x->ipv4, .n_ipv6 = x->n_ipv6};
                memcpy(interfaces[i].mac, x->mac, sizeof(x->mac));
                memcpy(interfaces[i].ipv6, x->ipv6, sizeof(x->ipv6));
        }
        node_to_fw(node, ret);
        ret->interfaces = interfaces;
        ret->n_interfaces = node->n_interfaces;
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Nodes whose queues or interfaces somebody else has changed: link-watch.h */

#include <stdlib.h>
#include <string.h>

#include "agent/log-node.h"
#include "agent/message.h"
#include "agent/reconcile.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"

typedef struct Repair {
        Node **nodes;
        NodeDeclaration *declarations;
        NetctlNode *netctl;
        size_t n;
} Repair;

static void repair_done(Repair *p)
{
        for (size_t i = 0; i < p->n; i++)
                node_declaration_done(p->declarations + i);
        free(p->nodes);
        free(p->declarations);
        free(p->netctl);
}

/* Each host side belongs to the bridge that it was a port of when the node was configured. */
static void remember_bridges(const Node *n, NodeDeclaration *d)
{
        for (size_t i = 0; i < d->node.n_interfaces; i++)
                for (size_t k = 0; k < n->status.n_interfaces; k++)
                        if (memcmp(d->interfaces[i].mac, n->status.interfaces[k].mac, 6) == 0)
                                d->interfaces[i].bridge = (uint32_t) n->status.interfaces[k].bridge_ifindex;
}

static int declare(Manager *m, Node *const *nodes, size_t n, Repair *p, TbError **err)
{
        p->nodes = calloc(n + 1, sizeof(*p->nodes));
        p->declarations = calloc(n + 1, sizeof(*p->declarations));
        p->netctl = calloc(n + 1, sizeof(*p->netctl));
        if (!p->nodes || !p->declarations || !p->netctl)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++) {
                NodeDeclaration *d = p->declarations + p->n;
                if (node_declare(nodes[i], m->config.control_network, d, NULL) < 0)
                        continue;
                remember_bridges(nodes[i], d);
                p->netctl[p->n] = d->node;
                p->netctl[p->n].repair = p->netctl[p->n].waits = true;
                p->nodes[p->n++] = nodes[i];
        }
        return 0;
}

/* The names of those whose queues and interfaces, or whose rules, were written. */
static json_t *repaired(const Repair *p, const NetctlReport *report, bool firewall)
{
        json_t *names = json_array();

        for (size_t i = 0; i < p->n && i < report->n_nodes; i++) {
                const NetctlNodeStatus *s = report->nodes + i;
                if (!s->error && (firewall ? s->firewall_changed : s->change != NETCTL_UNCHANGED))
                        (void) json_array_append_new(names, json_string(node_display_name(p->nodes[i])));
        }
        return names;
}

static void tell(Manager *m, const char *event, const char *what, json_t *names, uint64_t *counter)
{
        _cleanup_json_ json_t *owned = names;
        size_t n = json_array_size(names);

        if (n == 0)
                return;
        *counter += n;
        log_message(LOG_WARNING, MESSAGE_DRIFT_REPAIRED,
                "somebody changed %s of %zu node(s); they are as declared again", what, n);
        event_log_add(m->log, event, json_pack("{s:O}", "nodes", owned));
}

int reconcile_repair(Manager *m, Node *const *nodes, size_t n, TbError **err)
{
        _cleanup_(repair_done) Repair p = {};
        _cleanup_netctl_report_ NetctlReport report = {};
        int r;

        r = declare(m, nodes, n, &p, err);
        if (r < 0 || p.n == 0)
                return r;
        r = netctl_apply(m->netctl, p.netctl, p.n, &report, err);
        if (r < 0)
                return r;
        m->stats.kernel_writes += report.netlink_writes + report.firewall_commits + report.sysctl_writes;
        tell(m, "shape-repaired", "queues or interfaces", repaired(&p, &report, false),
                &m->stats.shape_repairs);
        tell(m, "firewall-repaired", "the firewall rules", repaired(&p, &report, true),
                &m->stats.firewall_repairs);
        for (size_t i = 0; i < p.n && i < report.n_nodes; i++)
                reconcile_take_status(m, p.nodes[i], report.nodes + i);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The firewall as it is in the kernel: shown, and repaired when somebody else changed it. */

#include <stdlib.h>
#include <string.h>

#include "agent/message.h"
#include "agent/node-firewall.h"
#include "agent/reconcile.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"

typedef struct Declared {
        Node **nodes;
        NodeDeclaration *declarations;
        NetctlNode *netctl;
        size_t *index; /* into what was asked for */
        size_t n;
} Declared;

static void declared_done(Declared *d)
{
        for (size_t i = 0; i < d->n; i++)
                node_declaration_done(d->declarations + i);
        free(d->nodes);
        free(d->declarations);
        free(d->netctl);
        free(d->index);
}

/* Those of the nodes that are in the kernel and shall have a firewall. */
static int declare(Manager *m, Node *const *nodes, size_t n, Declared *d, TbError **err)
{
        d->nodes = calloc(n + 1, sizeof(*d->nodes));
        d->declarations = calloc(n + 1, sizeof(*d->declarations));
        d->netctl = calloc(n + 1, sizeof(*d->netctl));
        d->index = calloc(n + 1, sizeof(*d->index));
        if (!d->nodes || !d->declarations || !d->netctl || !d->index)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++) {
                if (nodes[i]->state != NODE_CONFIGURED || node_firewall(nodes[i]) <= FW_NONE)
                        continue;
                if (node_declare(nodes[i], m->config.control_network, d->declarations + d->n, NULL) < 0)
                        continue;
                d->netctl[d->n] = d->declarations[d->n].node;
                d->netctl[d->n].parts = NETCTL_FIREWALL;
                d->nodes[d->n] = nodes[i];
                d->index[d->n++] = i;
        }
        return 0;
}

int reconcile_firewall_show(Manager *m, Node *const *nodes, size_t n, FwReadback *ret, TbError **err)
{
        _cleanup_(declared_done) Declared d = {};
        _cleanup_free_ FwReadback *back = NULL;
        int r;

        r = declare(m, nodes, n, &d, err);
        if (r < 0 || d.n == 0)
                return r;
        back = calloc(d.n, sizeof(*back));
        if (!back)
                return tb_error_oom(err);
        r = netctl_firewall_show(m->netctl, d.netctl, d.n, back, err);
        for (size_t i = 0; i < d.n && r >= 0; i++)
                ret[d.index[i]] = back[i];
        return r;
}

/* Those whose own rules were written; all of them when it was what they share. */
static json_t *repaired(const Declared *d, const NetctlReport *report)
{
        json_t *names = json_array(), *all = json_array();

        for (size_t i = 0; i < d->n && i < report->n_nodes; i++) {
                const char *name = node_display_name(d->nodes[i]);
                (void) json_array_append_new(all, json_string(name));
                if (report->nodes[i].firewall_changed)
                        (void) json_array_append_new(names, json_string(name));
        }
        if (json_array_size(names) > 0) {
                json_decref(all);
                return names;
        }
        json_decref(names);
        return all;
}

/* The container goes away in this moment, and its rules with it. */
static bool is_leaving(const TbError *e)
{
        return e->code == -ESRCH || e->code == -ENODEV || e->code == -ENXIO || e->code == -ENOENT;
}

/* Planning all again tells what is other than declared, also of what the nodes share: the jumps and trees that lead to their chains.
 * Nothing is locked or written when nothing is. */
int reconcile_firewall_repair(Manager *m, TbError **err)
{
        _cleanup_(declared_done) Declared d = {};
        _cleanup_netctl_report_ NetctlReport report = {};
        _cleanup_json_ json_t *names = NULL;
        int r;

        r = declare(m, m->nodes, m->n_nodes, &d, err);
        if (r < 0 || d.n == 0)
                return r;
        r = netctl_apply(m->netctl, d.netctl, d.n, &report, err);
        if (r < 0)
                return r;
        if (report.firewall_commits + report.sysctl_writes > 0) {
                m->stats.kernel_writes += report.firewall_commits + report.sysctl_writes;
                names = repaired(&d, &report);
                m->stats.firewall_repairs += json_array_size(names);
                log_message(LOG_WARNING, MESSAGE_FIREWALL_REPAIRED,
                        "somebody changed the firewall rules of %zu node(s); they are as declared again",
                        json_array_size(names));
                event_log_add(m->log, "firewall-repaired", json_pack("{s:O}", "nodes", names));
        }
        for (size_t i = 0; i < report.n_nodes; i++)
                if (report.nodes[i].error && !is_leaving(report.nodes[i].error))
                        return tb_error_move(err, &report.nodes[i].error);
        return 0;
}

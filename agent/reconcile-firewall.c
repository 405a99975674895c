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

/* Writes those that were found damaged. */
static int repair(Manager *m, Declared *d, const bool *damaged, TbError **err)
{
        _cleanup_netctl_report_ NetctlReport report = {};
        _cleanup_json_ json_t *names = json_array();
        size_t k = 0;
        int r;

        for (size_t i = 0; i < d->n; i++) {
                if (!damaged[i])
                        continue;
                d->netctl[k++] = d->netctl[i];
                (void) json_array_append_new(names, json_string(node_display_name(d->nodes[i])));
        }
        if (k == 0)
                return 0;
        r = netctl_apply(m->netctl, d->netctl, k, &report, err);
        if (r < 0)
                return r;
        m->stats.kernel_writes += report.firewall_commits + report.sysctl_writes;
        for (size_t i = 0; i < report.n_nodes; i++)
                if (report.nodes[i].error)
                        return tb_error_move(err, &report.nodes[i].error);
        m->stats.firewall_repairs += k;
        log_message(LOG_WARNING, MESSAGE_FIREWALL_REPAIRED,
                "somebody changed the firewall rules of %zu node(s); they are as declared again", k);
        event_log_add(m->log, "firewall-repaired", json_pack("{s:O}", "nodes", names));
        return 0;
}

int reconcile_firewall_repair(Manager *m, TbError **err)
{
        _cleanup_(declared_done) Declared d = {};
        _cleanup_free_ FwReadback *back = NULL;
        _cleanup_free_ bool *damaged = NULL;
        int r;

        r = declare(m, m->nodes, m->n_nodes, &d, err);
        if (r < 0 || d.n == 0)
                return r;
        back = calloc(d.n, sizeof(*back));
        damaged = calloc(d.n, sizeof(*damaged));
        if (!back || !damaged)
                return tb_error_oom(err);
        r = netctl_firewall_show(m->netctl, d.netctl, d.n, back, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < d.n; i++) {
                /* Not looked at: its container went away in this moment. */
                damaged[i] = back[i].looked_at && !back[i].intact;
                fw_readback_done(back + i);
        }
        return repair(m, &d, damaged, err);
}

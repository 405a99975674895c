/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/segmentation.h"

#include <stdlib.h>

#include "agent/node.h"
#include "common/cleanup.h"
#include "common/strv.h"

static bool endpoint_counts(const Node *n, const Endpoint *e)
{
        _cleanup_link_shape_ LinkShape shape = {};

        if (!node_network_is_shaped(n, e->network) || node_shape(n, e->network, &shape, NULL) < 0)
                return false;
        return netctl_counts_packets(&(NetctlInterface){
                .up = &shape.base.up,
                .down = &shape.base.down,
                .rules = shape.rules,
                .n_rules = shape.n_rules,
        });
}

int segmentation_networks(const Manager *m, char ***ret, TbError **err)
{
        _cleanup_strv_ char **networks = NULL;

        for (size_t i = 0; i < m->n_nodes; i++) {
                const Node *n = m->nodes[i];
                if (!node_is_running(n))
                        continue;
                for (size_t k = 0; k < n->facts.n_endpoints; k++) {
                        const Endpoint *e = &n->facts.endpoints[k];
                        if (tb_strv_contains(networks, e->network) || !endpoint_counts(n, e))
                                continue;
                        int r = tb_strv_append(&networks, e->network, err);
                        if (r < 0)
                                return r;
                }
        }
        *ret = TAKE_PTR(networks);
        return 0;
}

void segmentation_take(Manager *m, char **networks)
{
        tb_strv_free(m->packet_networks);
        m->packet_networks = networks;
}

bool segmentation_differs(const Node *n, char *const *a, char *const *b)
{
        for (size_t i = 0; i < n->facts.n_endpoints; i++) {
                const char *network = n->facts.endpoints[i].network;
                if (tb_strv_contains(a, network) != tb_strv_contains(b, network))
                        return true;
        }
        return false;
}

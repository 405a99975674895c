/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a node shall have in the kernel: labels and overrides, turned into netctl's terms. */

#include <stdlib.h>
#include <string.h>

#include "agent/manager.h"
#include "agent/node-firewall.h"
#include "common/cleanup.h"
#include "common/strv.h"

void node_declaration_done(NodeDeclaration *d)
{
        for (size_t i = 0; d->shapes && i < d->node.n_interfaces; i++)
                link_shape_done(&d->shapes[i]);
        fw_rules_done(&d->rules);
        free(d->interfaces);
        free(d->shapes);
        *d = (NodeDeclaration){};
}

/* SPECs are checked whether their network is there or not: a typo is reported at the start, not at some later
 * `docker network connect`. */
static int check_shapes(const Node *n, TbError **err)
{
        for (size_t i = 0; i < n->labels.n_shapes; i++) {
                const NetworkShape *s = &n->labels.shapes[i];
                _cleanup_free_ char *shown = NULL, *network = NULL;
                _cleanup_link_shape_ LinkShape shape = {};
                int r;

                r = link_shape_parse_complete(s->spec, &shape, err);
                if (r >= 0)
                        continue;
                shown = tb_escape(s->spec, 100);
                network = s->network ? tb_escape(s->network, 80) : NULL;
                (void) tb_error_prefix(
                        err, "label tbnode.shape%s%s=%s", network ? "." : "", network ?: "", shown ?: "");
                return r;
        }
        return 0;
}

int node_check_labels(const Node *n, TbError **err)
{
        int r;

        r = node_check_firewall(n, err);
        return r < 0 ? r : check_shapes(n, err);
}

/* A container that shares somebody else's network stack has no veth of its own. */
static int check_network_mode(const Node *n, TbError **err)
{
        const char *mode = n->facts.network_mode;
        const char *what = tb_streq(mode, "host")   ? "uses the host's network"
                : tb_startswith(mode, "container:") ? "shares another container's network"
                                                    : NULL;

        if (!what || (n->labels.n_shapes == 0 && node_firewall(n) == FW_NONE))
                return 0;
        return tb_error_set(err, TB_ERROR_CONFIG, -EOPNOTSUPP,
                "the container %s, so it cannot be shaped or filtered; start it on a bridge network", what);
}

/* A link that is down is down for all of its traffic. */
static void cut_rules(LinkShape *l)
{
        const Shape down = {.set = UINT64_C(1) << SHAPE_LINK, .link_down = 1};

        for (size_t i = 0; i < l->n_rules; i++) {
                Shape out;
                if (shape_has(&l->base.up, SHAPE_LINK)) {
                        shape_merge(&l->rules[i].up, &down, &out);
                        l->rules[i].up = out;
                }
                if (shape_has(&l->base.down, SHAPE_LINK)) {
                        shape_merge(&l->rules[i].down, &down, &out);
                        l->rules[i].down = out;
                }
        }
}

static int declare_interface(const Node *n, const Endpoint *e, bool filtered, NetctlInterface *ret,
        LinkShape *ret_shape, TbError **err)
{
        const ShapeOverride *o = node_override(n, e->network);
        int r;

        *ret = (NetctlInterface){
                .network = e->network,
                .filtered = filtered,
                .pinned = filtered,
                .ipv4 = e->address,
                .n_ipv6 = e->has_ipv6,
                .ipv6 = {e->ipv6},
                .per_packet = tb_strv_contains(n->manager->packet_networks, e->network),
        };
        memcpy(ret->mac, e->mac.ether_addr_octet, sizeof(ret->mac));
        endpoint_bridge(e, ret->bridge_name);
        if (node_network_is_shaped(n, e->network)) {
                r = node_shape(n, e->network, ret_shape, err);
                if (r < 0)
                        return r;
                cut_rules(ret_shape);
                if (link_shape_has_up(ret_shape) || (o && o->keep_up))
                        ret->up = &ret_shape->base.up;
                if (link_shape_has_down(ret_shape) || (o && o->keep_down))
                        ret->down = &ret_shape->base.down;
                ret->rules = ret_shape->rules;
                ret->n_rules = ret_shape->n_rules;
        }
        return 0;
}

int node_declare(Node *n, const char *control_network, NodeDeclaration *ret, TbError **err)
{
        _cleanup_node_declaration_ NodeDeclaration d = {};
        const ContainerFacts *f = &n->facts;
        bool has_control = container_facts_endpoint(f, control_network) != NULL;
        size_t k = 0;
        int r;

        r = check_network_mode(n, err);
        if (r < 0)
                return r;

        d.interfaces = calloc(f->n_endpoints + 1, sizeof(*d.interfaces));
        d.shapes = calloc(f->n_endpoints + 1, sizeof(*d.shapes));
        if (!d.interfaces || !d.shapes)
                return tb_error_oom(err);
        for (size_t i = 0; i < f->n_endpoints; i++) {
                const Endpoint *e = &f->endpoints[i];
                bool control = tb_streq(e->network, control_network);

                if (!e->has_mac) /* network "none", "host" */
                        continue;
                /* The style holds for the control network: on experiment links nodes may be routers and send with
                 * any source address. A node without control network is filtered wherever it is attached. */
                r = declare_interface(n, e, control || !has_control, &d.interfaces[k], &d.shapes[k], err);
                d.node.n_interfaces = ++k;
                if (r < 0)
                        return r;
        }
        d.node = (NetctlNode){
                .id = n->id,
                .name = node_display_name(n),
                .netns_fd = n->netns_fd,
                .nsid = &n->nsid,
                .thorough = !n->has_status,
                .interfaces = d.interfaces,
                .n_interfaces = k,
        };
        r = node_declare_firewall(n, &d.node, &d.rules, err);
        if (r < 0)
                return r;
        *ret = d;
        if (d.node.rules)
                ret->node.rules = &ret->rules;
        d = (NodeDeclaration){};
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <linux/net_namespace.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "netctl/netctl-internal.h"
#include "netctl/netem-dist.h"
#include "netctl/netns.h"

void work_done(Work *w)
{
        for (size_t i = 0; w->errors && i < w->n_nodes; i++)
                tb_error_free(w->errors[i]);
        free(w->errors);
        free(w->first);
        free(w->ifaces);
        free(w->before);
        free(w->desired);
        free(w->now);
        free(w->fw_changed);
        free(w->fw_present);
        free(w->keys);
        spaces_done(w);
        arena_done(&w->arena);
        *w = (Work){};
}

static int check_shape(const Netctl *n, const Shape *s, const char *direction, TbError **err)
{
        if (!s)
                return 0;
        int r = shape_validate(s, direction, err);
        if (r >= 0 && shape_has(s, SHAPE_DISTRIBUTION))
                r = netem_table_load(n->options.distributions, &s->distribution, err);
        if (r >= 0 && shape_has(s, SHAPE_SLOT_DISTRIBUTION))
                r = netem_table_load(n->options.distributions, &s->slot_distribution.name, err);
        return r;
}

static int check_rules(const Netctl *n, const NetctlInterface *x, TbError **err)
{
        if (x->n_rules > SHAPE_RULES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG, "more than %u rules at one interface",
                        SHAPE_RULES_MAX);
        for (size_t i = 1; i < x->n_rules; i++)
                if (shape_match_compare(&x->rules[i - 1].match, &x->rules[i].match) >= 0)
                        return tb_error_set(
                                err, TB_ERROR_BUG, -EINVAL, "rules of an interface are not in order");
        for (size_t i = 0; i < x->n_rules; i++) {
                int r = check_shape(n, &x->rules[i].up, "up", err);
                if (r >= 0)
                        r = check_shape(n, &x->rules[i].down, "down", err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_node(const Netctl *n, const NetctlNode *node, bool optional, TbError **err)
{
        int r = node_check_id(node->id, err);
        if (r < 0)
                return r;
        if (node->n_interfaces > NETCTL_INTERFACES_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -E2BIG, "more than %d interfaces", NETCTL_INTERFACES_MAX);
        if (node->netns_fd < 0 && !optional)
                return tb_error_set(
                        err, TB_ERROR_SYSTEM, -ESRCH, "the container's network namespace is not there");
        for (size_t i = 0; i < node->n_interfaces && !optional; i++) {
                r = check_shape(n, node->interfaces[i].up, "up", err);
                if (r >= 0)
                        r = check_shape(n, node->interfaces[i].down, "down", err);
                if (r >= 0)
                        r = check_rules(n, node->interfaces + i, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* An interface and its host side, in whichever namespace that is. */
static int resolve_interface(Netctl *n, Work *w, const NetctlNode *node, const Container *c,
        const NetctlInterface *want, const ContainerInterface **ret_inside, const Link **ret_host,
        size_t *ret_space, TbError **err)
{
        const ContainerPeer *peer = NULL;
        bool known = c->container_known;
        int32_t nsid = c->container_nsid;
        size_t space = 0;

        int r = container_find(c, want->mac, ret_inside, &peer, err);
        if (r < 0)
                return r;
        if (peer) {
                r = spaces_add(n, w, peer->fd, peer->path, &space, err);
                if (r >= 0)
                        r = netns_id(w->spaces[space].rtnl, node->netns_fd, &nsid, &known, err);
                if (r < 0)
                        return r;
        }
        *ret_space = space;
        return container_verify(*ret_inside, &w->spaces[space].links, known, nsid, ret_host, err);
}

/* The same veth twice in one node: its host side can have one shape. */
static int add_interface(Work *w, size_t index, const Iface *x, TbError **err)
{
        for (size_t k = w->first[index]; k < w->n_ifaces; k++)
                if (w->ifaces[k].host.ifindex == x->host.ifindex && w->ifaces[k].space == x->space)
                        return tb_error_set(err, TB_ERROR_BUG, -ENOTUNIQ,
                                "two interfaces of the node are the same veth (%s)", x->host.name);
        w->ifaces[w->n_ifaces++] = *x;
        return 0;
}

/* Those of a node whose interfaces are all known from outside. 0: not this one. */
static int resolve_from_outside(Work *w, size_t index, const Insides *insides, TbError **err)
{
        const NetctlNode *node = w->nodes + index;

        for (size_t i = 0; i < node->n_interfaces; i++)
                if (node->interfaces[i].ipv4.s_addr == INADDR_ANY ||
                        !insides_find(insides, index, node->interfaces[i].mac))
                        return 0;
        for (size_t i = 0; i < node->n_interfaces; i++) {
                const InsideLink *found = insides_find(insides, index, node->interfaces[i].mac);
                int r = add_interface(w, index,
                        &(Iface){.node = index,
                                .want = node->interfaces + i,
                                .inside.link = found->link,
                                .host = *found->host},
                        err);
                if (r < 0)
                        return r;
        }
        return 1;
}

/* The interfaces of one node, appended to w->ifaces. With `optional` those that are not there are left out. */
static int resolve_inside(Netctl *n, Work *w, size_t index, bool optional, Container *c, TbError **err)
{
        const NetctlNode *node = w->nodes + index;
        bool addresses = false;

        for (size_t i = 0; i < node->n_interfaces; i++)
                addresses |= node->interfaces[i].ipv4.s_addr == INADDR_ANY;
        int r = container_read(
                n->rtnl, n->host_fd, node->netns_fd, addresses, n->options.netns_directories, c, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < node->n_interfaces; i++) {
                const NetctlInterface *want = node->interfaces + i;
                const ContainerInterface *inside = NULL;
                const Link *host = NULL;
                size_t space = 0;

                r = resolve_interface(n, w, node, c, want, &inside, &host, &space, optional ? NULL : err);
                if (r < 0 && optional)
                        continue;
                if (r < 0) {
                        if (want->network)
                                tb_error_prefix(err, "network %s", want->network);
                        return r;
                }
                r = add_interface(w, index,
                        &(Iface){.node = index,
                                .space = space,
                                .want = want,
                                .inside = *inside,
                                .host = *host},
                        err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int resolve_node(
        Netctl *n, Work *w, size_t index, bool optional, const Insides *insides, TbError **err)
{
        _cleanup_container_ Container c = {};

        if (w->nodes[index].n_interfaces == 0)
                return 0;
        int r = resolve_from_outside(w, index, insides, err);
        if (r == 0)
                r = resolve_inside(n, w, index, optional, &c, err);
        return r >= 0 && w->offload_counts ? work_apply_offload(n, w, index, c.inside, err) : MIN2(r, 0);
}

int work_ask(const Work *w, int **ret_fds, int32_t **ret_known, TbError **err)
{
        _cleanup_free_ int *fds = reallocarray(NULL, w->n_nodes + 1, sizeof(*fds));
        _cleanup_free_ int32_t *known = reallocarray(NULL, w->n_nodes + 1, sizeof(*known));

        if (!fds || !known)
                return tb_error_oom(err);
        for (size_t i = 0; i < w->n_nodes; i++) {
                const NetctlNode *x = w->nodes + i;
                fds[i] = x->n_interfaces > 0 ? x->netns_fd : -EBADF;
                known[i] = x->nsid ? *x->nsid : NETNSA_NSID_NOT_ASSIGNED;
        }
        *ret_fds = TAKE_PTR(fds);
        *ret_known = TAKE_PTR(known);
        return 0;
}

/* See inside.h; without it every container is entered, and what is wrong is said there. */
static void look_from_outside(Netctl *n, Work *w, Insides *insides)
{
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ int *fds = NULL;
        _cleanup_free_ int32_t *known = NULL;

        if (work_ask(w, &fds, &known, NULL) < 0)
                return;
        if (insides_read(n->rtnl, &w->spaces[0].links, fds, known, w->n_nodes, insides, &e) < 0) {
                log_debug("containers are entered one by one: %s", tb_error_message(e));
                return;
        }
        for (size_t i = 0; i < w->n_nodes; i++)
                if (w->nodes[i].nsid && fds[i] >= 0)
                        *w->nodes[i].nsid = insides->nsids[i];
}

static int work_allocate(Work *w, const NetctlNode *nodes, size_t n_nodes, TbError **err)
{
        size_t total = 0;

        if (n_nodes > NETCTL_NODES_MAX)
                return tb_error_set(
                        err, TB_ERROR_BUG, -E2BIG, "more than %d nodes in one call", NETCTL_NODES_MAX);
        for (size_t i = 0; i < n_nodes; i++)
                total += MIN2(nodes[i].n_interfaces, (size_t) NETCTL_INTERFACES_MAX);

        w->nodes = nodes;
        w->errors = calloc(n_nodes + 1, sizeof(*w->errors));
        w->first = calloc(n_nodes + 1, sizeof(*w->first));
        w->fw_changed = calloc(n_nodes + 1, sizeof(bool));
        w->fw_present = calloc(n_nodes + 1, sizeof(bool));
        w->ifaces = calloc(total + 1, sizeof(*w->ifaces));
        w->before = calloc(total + 1, sizeof(*w->before));
        w->desired = calloc(total + 1, sizeof(*w->desired));
        w->now = calloc(total + 1, sizeof(*w->now));
        if (!w->errors || !w->first || !w->fw_changed || !w->fw_present || !w->ifaces || !w->before ||
                !w->desired || !w->now)
                return tb_error_oom(err);
        w->n_nodes = n_nodes;
        return 0;
}

static int compare_string(const void *a, const void *b)
{
        return strncmp(*(const char *const *) a, *(const char *const *) b, FW_ID_LENGTH);
}

/* Two nodes with one short id would share chains. */
static int check_unique(const NetctlNode *nodes, size_t n, TbError **err)
{
        if (n < 2)
                return 0;
        _cleanup_free_ const char **ids = reallocarray(NULL, n, sizeof(*ids));
        if (!ids)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++)
                ids[i] = nodes[i].id ? nodes[i].id : "";
        qsort(ids, n, sizeof(*ids), compare_string);
        for (size_t i = 1; i < n; i++)
                if (ids[i][0] && strncmp(ids[i - 1], ids[i], FW_ID_LENGTH) == 0)
                        return tb_error_set(err, TB_ERROR_BUG, -ENOTUNIQ,
                                "node ids '%.64s' and '%.64s' have the same first %d bytes", ids[i - 1],
                                ids[i], FW_ID_LENGTH);
        return 0;
}

int work_prepare(Netctl *n, Work *w, const NetctlNode *nodes, size_t n_nodes, bool optional, TbError **err)
{
        _cleanup_insides_ Insides insides = {};

        int r = work_allocate(w, nodes, n_nodes, err);
        if (r < 0)
                return r;
        r = check_unique(nodes, n_nodes, err);
        if (r < 0)
                return r;
        r = spaces_begin(n, w, false, err);
        if (r >= 0 && !optional)
                r = work_read_few(n, w, &insides, err);
        if (r == 0) {
                /* Before the containers are read: listing links is what makes the kernel give namespaces their ids. */
                r = links_dump(n->rtnl, &w->spaces[0].links, err);
                look_from_outside(n, w, &insides);
        }
        if (r < 0)
                return r;

        for (size_t i = 0; i < n_nodes; i++) {
                w->first[i] = w->n_ifaces;
                r = check_node(n, nodes + i, optional, w->errors + i);
                if (r >= 0 && nodes[i].netns_fd >= 0) {
                        r = resolve_node(n, w, i, optional, &insides, w->errors + i);
                        /* Not back in our own namespace: nothing more may be done by this thread. */
                        if (r < 0 && w->errors[i]->kind == TB_ERROR_BUG && r != -ENOTUNIQ)
                                return tb_error_move(err, w->errors + i);
                }
                if (r < 0)
                        w->n_ifaces = w->first[i];
        }
        w->first[n_nodes] = w->n_ifaces;
        return work_observe(w, w->before, err);
}

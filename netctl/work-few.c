/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A call for a few nodes on a host that has a thousand
 *
 * A list of all links costs the kernel some 15 ms there, one of all queues as many, and a node that starts needs both of them
 * twice (before and after). So for a few nodes the objects that concern them are asked for one by one: the container's
 * interfaces, their other ends on the host, and by number and by name what must be there or be in the way: bridges and ifbs.
 *
 * Nothing is remembered from one call to the next, so there is nothing that could be out of date. What is not as simple as that
 * (host sides in other namespaces, addresses that have to be read inside, an interface that is not there) is left to the look at
 * everything, which also has the words for what is wrong.
 */

#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "netctl/netctl-internal.h"

/* Some ten questions each; a list answers them all from a few hundred devices on. */
#define FEW_INTERFACES 16U
#define KEYS_PER_INTERFACE 6U

static size_t count_interfaces(const Work *w)
{
        size_t n = 0;

        for (size_t i = 0; i < w->n_nodes; i++)
                if (w->nodes[i].netns_fd < 0 || w->nodes[i].n_interfaces > FEW_INTERFACES)
                        return SIZE_MAX;
                else
                        n += w->nodes[i].n_interfaces;
        return n;
}

/* All that is declared, as resolve_from_outside() wants it. */
static bool all_found(const Work *w, const Insides *insides)
{
        for (size_t i = 0; i < w->n_nodes; i++)
                for (size_t k = 0; k < w->nodes[i].n_interfaces; k++) {
                        const NetctlInterface *x = w->nodes[i].interfaces + k;
                        if (x->ipv4.s_addr == INADDR_ANY || !insides_find(insides, i, x->mac))
                                return false;
                }
        return true;
}

static void add_keys(Work *w, const NetctlInterface *want, const Link *host)
{
        LinkKey *k = w->keys + w->n_keys;

        w->n_keys += KEYS_PER_INTERFACE;
        k[0].ifindex = host->ifindex;
        k[1].ifindex = host->master;
        k[2].ifindex = TC_IFB_INDEX_BASE + host->ifindex;
        (void) snprintf(k[3].name, sizeof(k[3].name), "tbi%u", host->ifindex);
        k[4].ifindex = want->bridge;
        memcpy(k[5].name, want->bridge_name, sizeof(k[5].name));
}

int work_read_few_links(Work *w, TbError **err)
{
        links_done(&w->spaces[0].links);
        return links_get(w->spaces[0].rtnl, w->keys, w->n_keys, &w->spaces[0].links, err);
}

/* Of the insides only those that are declared count, and their host sides as they are in the links that were read last. */
static bool meet_again(Work *w, Insides *insides)
{
        const Links *links = &w->spaces[0].links;
        size_t n = 0;

        for (size_t i = 0; i < insides->n; i++) {
                InsideLink *x = insides->v + i;
                const Link *h = links_find(links, x->link.peer);
                if (!h || h->peer != x->link.ifindex || !h->has_netnsid || h->peer_netnsid != x->nsid)
                        continue;
                insides->v[n] = *x;
                insides->v[n++].host = h;
        }
        insides->n = n;
        return all_found(w, insides);
}

static int read_few(Netctl *n, Work *w, Insides *insides, TbError **err)
{
        _cleanup_links_ Links hosts = {};
        _cleanup_free_ int *fds = NULL;
        _cleanup_free_ int32_t *known = NULL;

        int r = work_ask(w, &fds, &known, err);
        if (r >= 0)
                r = insides_read_few(n->rtnl, fds, known, w->n_nodes, &hosts, insides, err);
        if (r <= 0)
                return r;
        for (size_t i = 0; i < w->n_nodes; i++)
                if (w->nodes[i].nsid && fds[i] >= 0)
                        *w->nodes[i].nsid = insides->nsids[i];
        if (!all_found(w, insides))
                return 0;
        for (size_t i = 0; i < w->n_nodes; i++)
                for (size_t k = 0; k < w->nodes[i].n_interfaces; k++) {
                        const NetctlInterface *x = w->nodes[i].interfaces + k;
                        add_keys(w, x, insides_find(insides, i, x->mac)->host);
                }
        r = work_read_few_links(w, err);
        return r < 0 ? r : meet_again(w, insides);
}

int work_read_few(Netctl *n, Work *w, Insides *insides, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;
        size_t count = count_interfaces(w);

        if (count == 0 || count > FEW_INTERFACES)
                return 0;
        w->keys = calloc(count * KEYS_PER_INTERFACE, sizeof(*w->keys));
        if (!w->keys)
                return tb_error_oom(err);
        int r = read_few(n, w, insides, &e);
        if (r < 0)
                log_debug("everything is listed: %s", tb_error_message(e));
        w->few = r > 0;
        if (!w->few) {
                insides_done(insides);
                links_done(&w->spaces[0].links);
        }
        return w->few;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Taking away: of given nodes, and of whatever carries our tag and belongs to nobody. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "netctl/netctl-internal.h"

typedef struct Targets {
        IfaceState *v;
        size_t n, allocated;
} Targets;

static void targets_done(Targets *t)
{
        free(t->v);
}

static int targets_add(Targets *t, uint32_t veth, TbError **err)
{
        for (size_t i = 0; i < t->n; i++)
                if (t->v[i].veth == veth)
                        return 0;
        if (t->n == t->allocated) {
                size_t want = t->allocated > 0 ? t->allocated * 2 : 16;
                IfaceState *p = reallocarray(t->v, want, sizeof(*p));
                if (!p)
                        return tb_error_oom(err);
                t->v = p;
                t->allocated = want;
        }
        t->v[t->n++] = (IfaceState){.veth = veth};
        return 0;
}

/* Everything of ours on these veths and their ifbs. */
static int remove_targets(const Space *space, Targets *t, unsigned long *writes, TbError **err)
{
        _cleanup_plan_ Plan plan = {};
        _cleanup_(arena_done) Arena arena = {};
        ApplyCounts counts = {};

        int r = observe(space->rtnl, &space->links, t->v, t->n, false, &arena, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < t->n; i++) {
                IfaceState nothing = {.veth = t->v[i].veth};
                NetctlChange change;
                r = plan_iface(&nothing, t->v + i, false, i, &plan, &change, err);
                if (r < 0)
                        return r;
        }
        _cleanup_free_ TbError **errors = calloc(t->n + 1, sizeof(*errors));
        if (!errors)
                return tb_error_oom(err);
        r = apply_plan(space->rtnl, &space->links, &plan, errors, &counts, err);
        for (size_t i = 0; i < t->n; i++) {
                if (!errors[i])
                        continue;
                if (r >= 0)
                        r = tb_error_move(err, errors + i);
                tb_error_free(errors[i]);
        }
        *writes += counts.writes;
        return r;
}

/* Host veths of ifbs with our tag: all of `id`, or (id NULL) all whose id is not in `known` or whose veth is gone (a
 * network was disconnected: the node goes on, its interface does not). */
static int add_tagged(const Links *links, const char *id, char *const *known, Targets *t, TbError **err)
{
        for (size_t i = 0; i < links->n; i++) {
                char tag[TC_ALIAS_MAX];
                uint32_t veth;
                if (!tb_streq(links->v[i].kind, "ifb") || !ifb_parse_alias(links->v[i].alias, tag, &veth))
                        continue;
                if (id ? !tb_streq(id, tag) : tb_strv_contains(known, tag) && links_find(links, veth))
                        continue;
                int r = targets_add(t, veth, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* What of these nodes is in one namespace. */
static int remove_in_space(const Work *w, size_t space, unsigned long *writes, TbError **err)
{
        _cleanup_(targets_done) Targets t = {};
        const Space *s = w->spaces + space;
        int r;

        for (size_t i = 0; i < w->n_nodes; i++) {
                r = add_tagged(&s->links, w->nodes[i].id, NULL, &t, err);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < w->n_ifaces; i++) {
                if (w->ifaces[i].space != space)
                        continue;
                r = targets_add(&t, w->ifaces[i].host.ifindex, err);
                if (r < 0)
                        return r;
        }
        return remove_targets(s, &t, writes, err);
}

int netctl_remove_many(
        Netctl *n, const NetctlNode *nodes, size_t n_nodes, unsigned long *ret_writes, TbError **err)
{
        _cleanup_work_ Work w = {};
        _cleanup_free_ FwNode *fw = calloc(n_nodes + 1, sizeof(*fw));
        unsigned long writes = 0;
        ApplyCounts counts = {};
        FwOutcome outcome = {};

        if (!fw)
                return tb_error_oom(err);
        for (size_t i = 0; i < n_nodes; i++) {
                int r = node_check_id(nodes[i].id, err);
                if (r < 0)
                        return r;
                fw[i] = (FwNode){.id = nodes[i].id, .style = FW_NONE};
        }
        int r = work_prepare(n, &w, nodes, n_nodes, true, err);
        if (r >= 0)
                r = spaces_add_known(n, &w, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_nodes; i++)
                /* An interface that can't be found any more took its qdiscs with it; ifbs are found by their tag. */
                if (w.errors[i])
                        log_debug("removing %s: %s", nodes[i].id, tb_error_message(w.errors[i]));
        for (size_t i = 0; i < w.n_spaces && r >= 0; i++)
                r = remove_in_space(&w, i, &writes, err);
        int o = work_remove_offload(n, &w, &counts, r < 0 ? NULL : err);
        if (r >= 0)
                r = o;
        writes += counts.writes;

        /* The other half is done even when one half fails. */
        _cleanup_error_ TbError *e = NULL;
        int k = firewall_apply(n, NULL, fw, n_nodes, false, NULL, &outcome, &e);
        if (k >= 0)
                k = firewall_leave_other(n, fw, n_nodes, false, NULL, &outcome, &e);
        if (k < 0 && k != -ENOENT && k != -ENOPROTOOPT && r >= 0)
                r = tb_error_move(err, &e);
        if (r < 0)
                return r;
        if (ret_writes)
                *ret_writes = writes + outcome.commits;
        return 0;
}

int netctl_remove(Netctl *n, const NetctlNode *node, unsigned long *ret_writes, TbError **err)
{
        return netctl_remove_many(n, node, 1, ret_writes, err);
}

int netctl_sweep(Netctl *n, char *const *known, unsigned long *ret_removed, TbError **err)
{
        static char *const nobody[] = {NULL};
        _cleanup_work_ Work w = {};
        unsigned long writes = 0, removed = 0;
        FwOutcome outcome = {};

        if (!known)
                known = nobody;
        int r = spaces_begin(n, &w, true, err);
        if (r >= 0)
                r = spaces_add_known(n, &w, err);
        for (size_t i = 0; i < w.n_spaces && r >= 0; i++) {
                _cleanup_(targets_done) Targets t = {};
                r = add_tagged(&w.spaces[i].links, NULL, known, &t, err);
                if (r >= 0)
                        r = remove_targets(w.spaces + i, &t, &writes, err);
                removed += t.n;
        }
        if (r < 0)
                return r;

        _cleanup_error_ TbError *e = NULL;
        int k = firewall_apply(n, NULL, NULL, 0, true, known, &outcome, &e);
        if (k >= 0)
                k = firewall_leave_other(n, NULL, 0, true, known, &outcome, &e);
        if (k < 0 && k != -ENOENT && k != -ENOPROTOOPT)
                return tb_error_move(err, &e);
        if (ret_removed)
                *ret_removed = removed + outcome.removed;
        return 0;
}

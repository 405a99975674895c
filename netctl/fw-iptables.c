/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Firewall through the legacy tables, in process, by libiptc.
 *
 * init() takes a snapshot of one whole table, commit() writes all of it back with the counters that have grown meanwhile.
 * Two such programs would undo each other, so everybody takes /run/xtables.lock (flock) from before the snapshot until
 * after the commit; iptables(8) does too. In addition the kernel refuses a commit with EAGAIN when the number of entries
 * changed since the snapshot: then everything is done again, at most FW_COMMIT_TRIES times.
 *
 * The lock is asked for without waiting first. When somebody holds it, the tables are compared without it: reading is safe,
 * and an unchanged host must not wait. Only a needed change waits for the lock, FW_LOCK_TIMEOUT_MS at most; or, with
 * FW_APPLY_TRY_LOCK, fails and is asked for again.
 *
 * Nothing is written unless something differs. Chains are compared rule by rule in the kernel's binary form and replaced
 * when they differ. Nodes that a call says nothing about are known by what leads to their chains: the leaves of the
 * dispatch trees (fw-tree.h) are read from the snapshot, and the trees are made anew of those and the given nodes', so
 * neither comments nor memory of ours are needed. When the last node goes, everything of ours goes.
 *
 * Tables in this order: filter of IPv6 and IPv4, then nat. What is new is filtered before anybody is sent there.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/fw-iptables.h"
#include "netctl/fw-tree.h"
#include "netctl/xtables-lock.h"

static const struct {
        const XtFamily *family;
        XtTable table;
} tables[FW_TABLES_MAX] = {{&xt_ipv6, XT_FILTER}, {&xt_ipv4, XT_FILTER}, {&xt_ipv4, XT_NAT}};

static const struct {
        XtTable table;
        const char *builtin, *chain;
} jumps[] = {
        {XT_FILTER, "FORWARD", FW_CHAIN_FORWARD},
        {XT_FILTER, "INPUT", FW_CHAIN_INPUT},
        {XT_NAT, "PREROUTING", FW_CHAIN_PREROUTING},
        {XT_NAT, "OUTPUT", FW_CHAIN_OUTPUT},
        {XT_NAT, "POSTROUTING", FW_CHAIN_POSTROUTING},
};

/* A node of the call, found by its short id. */
typedef struct Target {
        char id[FW_ID_LENGTH + 1];
        size_t index; /* in the caller's array */
        size_t ways;  /* leaves that it shall have */
        size_t seen;  /* ... and has already */
} Target;

/* What one table is to be, and its snapshot. */
typedef struct Session {
        const XtFamily *family;
        XtTable table;
        const FwSite *site;
        struct xtc_handle *handle;
        Chains node_chains; /* of the given nodes */
        Leaves leaves;      /* of the given nodes, sorted */
        Target *targets;    /* sorted */
        size_t n;
        bool sweep;
        char *const *keep;
        bool anybody; /* nodes are left; nat is told by filter, which every node is in */
        bool dirty;
        bool *changed; /* per caller's node */
        unsigned long removed;
} Session;

static void session_done(Session *s)
{
        chains_done(&s->node_chains);
        leaves_done(&s->leaves);
        free(s->targets);
        free(s->changed);
}

int fw_iptables_error(const XtFamily *f, XtTable table, const char *what, TbError **err)
{
        int code = errno ? errno : EPROTO;
        const char *program = f->family == AF_INET6 ? "ip6tables" : "iptables";

        if (code == ENOENT || code == ENOPROTOOPT)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -code,
                        "%s: this kernel has no legacy %s %s table or a match that we use (modules "
                        "iptable_%s, xt_physdev, xt_conntrack, xt_mac, xt_mark); see 'tbnode doctor'",
                        what, program, fw_iptables_table_name(table), fw_iptables_table_name(table));
        if (code == EPERM)
                return tb_error_set(
                        err, TB_ERROR_ENVIRONMENT, -code, "%s: not permitted; run as root", what);
        return tb_error_set(err, TB_ERROR_SYSTEM, -code, "%s (%s, %s): %s", what, program,
                fw_iptables_table_name(table), f->strerror(code));
}

static int failed(const Session *s, const char *what, TbError **err)
{
        return fw_iptables_error(s->family, s->table, what, err);
}

static int compare_target(const void *a, const void *b)
{
        return strcmp(((const Target *) a)->id, ((const Target *) b)->id);
}

static Target *find_target(const Session *s, const char *id)
{
        Target key;

        if (s->n == 0)
                return NULL;
        (void) snprintf(key.id, sizeof(key.id), "%s", id);
        return bsearch(&key, s->targets, s->n, sizeof(*s->targets), compare_target);
}

static bool is_kept(const Session *s, const char *short_id)
{
        if (!s->sweep)
                return true;
        for (char *const *k = s->keep; k && *k; k++)
                if (strncmp(*k, short_id, FW_ID_LENGTH) == 0)
                        return true;
        return false;
}

/* ---- Looking at the snapshot ------------------------------------------------------------------------------------- */

/* Leaves of nodes that are not ours to decide about in this call, and how many of the given ones' are there. */
static int collect_leaves(Session *s, Leaves *kept, TbError **err)
{
        for (const char *c = s->family->first_chain(s->handle); c; c = s->family->next_chain(s->handle)) {
                TreeKind kind;
                if (!tree_chain_kind(c, &kind))
                        continue;
                for (const void *e = s->family->first_rule(c, s->handle); e;
                        e = s->family->next_rule(e, s->handle)) {
                        const char *target = s->family->get_target(e, s->handle);
                        char id[FW_ID_LENGTH + 1];
                        Leaf leaf;

                        if (!fw_chain_id(target, id) || !s->family->is_chain(target, s->handle))
                                continue;
                        tree_leaf_decode(kind, s->family, e, &leaf);
                        (void) snprintf(leaf.target, sizeof(leaf.target), "%s", target);
                        Target *t = find_target(s, id);
                        if (t) {
                                t->seen += leaves_have(&s->leaves, &leaf) ? 1 : s->leaves.n + 1;
                                continue;
                        }
                        int r = is_kept(s, id) ? leaves_add(kept, &leaf, err) : 0;
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

/* What the table shall have in chains that all nodes share. The given nodes' ways come first: of two for one veth they win,
 * because veth names are used again. */
static int plan_common(Session *s, Chains *ret, TbError **err)
{
        _cleanup_leaves_ Leaves all = {}, kept = {};
        int r = 0;

        for (size_t i = 0; i < s->n; i++)
                s->targets[i].seen = 0;
        r = collect_leaves(s, &kept, err);
        for (size_t i = 0; i < s->leaves.n && r >= 0; i++)
                r = leaves_add(&all, s->leaves.v + i, err);
        for (size_t i = 0; i < kept.n && r >= 0; i++)
                r = leaves_add(&all, kept.v + i, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < s->n; i++)
                if (s->targets[i].seen != s->targets[i].ways)
                        s->changed[s->targets[i].index] = true;
        s->anybody |= all.n > 0;
        r = common_compile(s->family, s->table, s->anybody ? s->site : NULL, &all, ret, err);
        return r < 0 ? r : chains_check(ret, err);
}

static bool chain_equal(Session *s, const Chain *want)
{
        size_t i = 0;

        for (const void *e = s->family->first_rule(want->name, s->handle); e;
                e = s->family->next_rule(e, s->handle), i++)
                if (i >= want->rules.n ||
                        !rule_equal(s->family, want->rules.v + i, e, s->family->get_target(e, s->handle)))
                        return false;
        return i == want->rules.n;
}

/* ---- Changing it ------------------------------------------------------------------------------------------------- */

static void note_change(Session *s, const char *chain)
{
        char id[FW_ID_LENGTH + 1];
        const Target *t = fw_chain_id(chain, id) ? find_target(s, id) : NULL;

        s->dirty = true;
        if (t)
                s->changed[t->index] = true;
}

static int create_missing(Session *s, const Chains *want, TbError **err)
{
        for (size_t i = 0; i < want->n; i++) {
                if (s->family->is_chain(want->v[i].name, s->handle))
                        continue;
                if (!s->family->create_chain(want->v[i].name, s->handle))
                        return failed(s, "cannot create a firewall chain", err);
                note_change(s, want->v[i].name);
        }
        return 0;
}

/* All chains are there, so rules may point to any of them. */
static int fill(Session *s, const Chains *want, TbError **err)
{
        for (size_t i = 0; i < want->n; i++) {
                const Chain *c = want->v + i;
                if (chain_equal(s, c))
                        continue;
                if (!s->family->flush_chain(c->name, s->handle))
                        return failed(s, "cannot empty a firewall chain", err);
                for (size_t k = 0; k < c->rules.n; k++)
                        if (!s->family->append(c->name, c->rules.v[k].data, s->handle))
                                return failed(s, "cannot add a firewall rule", err);
                note_change(s, c->name);
        }
        return 0;
}

/* The jump from a built-in chain to ours: its first rule, and only once. */
static int ensure_jump(Session *s, const char *builtin, const char *chain, bool wanted, TbError **err)
{
        unsigned position = 0;
        bool first = false;

        for (const void *e = s->family->first_rule(builtin, s->handle); e; position++) {
                const void *next = s->family->next_rule(e, s->handle);
                bool ours = tb_streq(s->family->get_target(e, s->handle), chain);
                if (ours && wanted && position == 0)
                        first = true;
                else if (ours) {
                        if (!s->family->delete_num(builtin, position, s->handle))
                                return failed(s, "cannot remove a firewall rule", err);
                        position--;
                        s->dirty = true;
                }
                e = next;
        }
        if (!wanted || first)
                return 0;
        Rules jump = {};
        Draft d;
        draft_begin(&d, s->family);
        draft_end(&d, chain, &jump);
        int r = jump.error < 0 ? tb_error_oom(err)
                : s->family->insert(builtin, jump.v[0].data, 0, s->handle)
                ? 0
                : failed(s, "cannot add a firewall rule", err);
        rules_done(&jump);
        s->dirty = true;
        return r;
}

static bool is_doomed(Session *s, const char *chain, const Chains *common)
{
        char id[FW_ID_LENGTH + 1];

        if (fw_chain_is_common(chain))
                return !chains_find(common, chain);
        if (!fw_chain_id(chain, id))
                return false;
        return find_target(s, id) ? !chains_find(&s->node_chains, chain) : !is_kept(s, id);
}

/* Chains that shall not be (any more). Names first: deleting while iterating upsets libiptc. All are emptied before the first
 * one is deleted: they point to each other. */
static int remove_chains(Session *s, const Chains *common, TbError **err)
{
        _cleanup_strv_ char **doomed = NULL;
        char last[FW_ID_LENGTH + 1] = "";

        for (const char *c = s->family->first_chain(s->handle); c; c = s->family->next_chain(s->handle)) {
                char id[FW_ID_LENGTH + 1];
                if (!is_doomed(s, c, common))
                        continue;
                if (fw_chain_id(c, id) && !find_target(s, id) && !tb_streq(id, last)) {
                        s->removed++; /* nodes; their chains are neighbours, for chains are sorted */
                        (void) snprintf(last, sizeof(last), "%s", id);
                }
                int r = tb_strv_append(&doomed, c, err);
                if (r < 0)
                        return r;
        }
        for (char **c = doomed; c && *c; c++) {
                note_change(s, *c);
                if (!s->family->flush_chain(*c, s->handle))
                        return failed(s, "cannot empty a firewall chain", err);
        }
        for (char **c = doomed; c && *c; c++)
                if (!s->family->delete_chain(*c, s->handle))
                        return failed(s, "cannot remove a firewall chain", err);
        return 0;
}

static int session_plan(Session *s, size_t n_nodes, TbError **err)
{
        _cleanup_chains_ Chains common = {};

        s->dirty = false;
        s->removed = 0;
        for (size_t i = 0; i < n_nodes; i++)
                s->changed[i] = false;
        int r = plan_common(s, &common, err);
        if (r < 0)
                return r;
        chains_sort(&common);
        r = create_missing(s, &s->node_chains, err);
        if (r >= 0)
                r = create_missing(s, &common, err);
        if (r >= 0)
                r = fill(s, &s->node_chains, err);
        if (r >= 0)
                r = fill(s, &common, err);
        for (size_t i = 0; i < ELEMENTSOF(jumps) && r >= 0; i++)
                if (jumps[i].table == s->table && s->family->is_chain(jumps[i].builtin, s->handle))
                        r = ensure_jump(s, jumps[i].builtin, jumps[i].chain,
                                chains_find(&common, jumps[i].chain) != NULL, err);
        return r < 0 ? r : remove_chains(s, &common, err);
}

/* libiptc takes the counters of every built-in chain's policy for "to be zeroed" and so resets them with each commit (iptables(8)
 * does so to this day). Setting each policy to what it is, with its counters, makes them stay; what passes between snapshot
 * and commit is not counted there. */
static int keep_policy_counters(Session *s, TbError **err)
{
        for (const char *c = s->family->first_chain(s->handle); c; c = s->family->next_chain(s->handle)) {
                struct xt_counters counters;
                const char *p = s->family->get_policy(c, &counters, s->handle);
                if (p && !s->family->set_policy(c, p, &counters, s->handle))
                        return failed(s, "cannot keep a policy's counters", err);
        }
        return 0;
}

/* Snapshot, plan and (with the lock) commit. Returns 1 when a change is needed and `locked` is false. */
static int session_try(Session *s, size_t n_nodes, bool locked, unsigned long *commits, TbError **err)
{
        for (int try = 1;; try++) {
                errno = 0;
                s->handle = s->family->init(fw_iptables_table_name(s->table));
                if (!s->handle)
                        return failed(s, "cannot read the firewall", err);
                int r = session_plan(s, n_nodes, err);
                if (r >= 0 && s->dirty && locked)
                        r = keep_policy_counters(s, err);
                if (r >= 0 && s->dirty) {
                        errno = 0;
                        if (!locked)
                                r = 1;
                        else if (!s->family->commit(s->handle))
                                r = errno == EAGAIN ? -EAGAIN : failed(s, "cannot write the firewall", err);
                        else
                                (*commits)++;
                }
                s->family->free(s->handle);
                s->handle = NULL;
                if (r != -EAGAIN)
                        return r;
                if (try == FW_COMMIT_TRIES) {
                        (void) tb_error_set(err, TB_ERROR_SYSTEM, -EAGAIN,
                                "the iptables %s table changed under every one of %d attempts to write it",
                                fw_iptables_table_name(s->table), try);
                        tb_error_set_retryable(err);
                        return -EAGAIN;
                }
        }
}

/* ---- All tables -------------------------------------------------------------------------------------------------- */

static int session_prepare(Session *s, const FwNode *nodes, size_t n, TbError **err)
{
        s->targets = calloc(n + 1, sizeof(*s->targets));
        s->changed = calloc(n + 1, sizeof(*s->changed));
        if (!s->targets || !s->changed)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++) {
                _cleanup_fw_policy_ FwPolicy policy = {};
                Target *t = s->targets + i;

                (void) snprintf(t->id, sizeof(t->id), "%.*s", FW_ID_LENGTH, nodes[i].id);
                t->index = i;
                int r = fw_policy_compile(s->site, nodes + i, &policy, err);
                if (r >= 0)
                        r = node_compile(
                                s->family, s->table, nodes + i, &policy, &s->node_chains, &s->leaves, err);
                if (r < 0)
                        return r;
        }
        s->n = n;
        if (n > 0)
                qsort(s->targets, n, sizeof(*s->targets), compare_target);
        chains_sort(&s->node_chains);
        leaves_sort(&s->leaves);
        for (size_t i = 0; i < s->leaves.n; i++) {
                char id[FW_ID_LENGTH + 1];
                Target *t = fw_chain_id(s->leaves.v[i].target, id) ? find_target(s, id) : NULL;
                if (t)
                        t->ways++;
        }
        return chains_check(&s->node_chains, err);
}

/* No IPv6 tables: nothing that can be filtered there; `doctor` says so. */
static bool may_be_missing(const XtFamily *f, int code)
{
        return f->family == AF_INET6 &&
                (code == -ENOENT || code == -ENOPROTOOPT || code == -EPROTONOSUPPORT ||
                        code == -EAFNOSUPPORT);
}

static int apply_table(Session *s, size_t n_nodes, unsigned how, int *lock, bool *locked,
        unsigned long *commits, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;

        int r = session_try(s, n_nodes, *locked, commits, &e);
        if (r == 1) {
                r = how & FW_APPLY_TRY_LOCK ? xtables_lock_is_busy(&e)
                                            : xtables_lock_wait(*lock, FW_LOCK_TIMEOUT_MS, &e);
                *locked = r >= 0;
                if (r >= 0)
                        r = session_try(s, n_nodes, true, commits, &e);
        }
        if (r < 0 && may_be_missing(s->family, r))
                return 0;
        return r < 0 ? tb_error_move(err, &e) : 0;
}

static bool has_bridge_port(const FwNode *nodes, size_t n)
{
        for (size_t i = 0; i < n; i++)
                for (size_t k = 0; k < nodes[i].n_interfaces && nodes[i].style != FW_NONE; k++)
                        if (nodes[i].interfaces[k].bridge)
                                return true;
        return false;
}

static int fw_iptables_apply(const FwSite *site, const FwNode *nodes, size_t n, bool sweep,
        char *const *keep, unsigned how, FwOutcome *ret, TbError **err)
{
        _cleanup_close_ int lock = -EBADF;
        bool anybody = false;
        int r = 0;

        if (has_bridge_port(nodes, n)) {
                r = fw_iptables_bridge_nf(&xt_ipv4, how & FW_APPLY_BRIDGE_NF, ret, err);
                if (r >= 0 && fw_iptables_available(&xt_ipv6, XT_FILTER))
                        r = fw_iptables_bridge_nf(&xt_ipv6, how & FW_APPLY_BRIDGE_NF, ret, err);
                if (r < 0)
                        return r;
        }
        int k = xtables_lock_open(&lock, err);
        if (k < 0)
                return k;
        bool locked = k > 0;
        for (size_t i = 0; i < n; i++) {
                if (ret->changed)
                        ret->changed[i] = false;
                if (ret->present)
                        ret->present[i] = nodes[i].style != FW_NONE;
        }
        for (size_t i = 0; i < ELEMENTSOF(tables); i++) {
                _cleanup_(session_done) Session s = {.family = tables[i].family,
                        .table = tables[i].table,
                        .site = site,
                        .sweep = sweep,
                        .keep = keep,
                        .anybody = tables[i].table == XT_NAT && anybody};

                if (!table_is_needed(s.table, site, nodes, n) && !fw_iptables_exists(s.family, s.table))
                        continue;
                r = session_prepare(&s, nodes, n, err);
                if (r >= 0)
                        r = apply_table(&s, n, how, &lock, &locked, &ret->commits, err);
                if (r < 0)
                        return r;
                anybody |= s.anybody;
                for (size_t j = 0; j < n && ret->changed; j++)
                        ret->changed[j] |= s.changed[j];
                ret->removed = MAX2(ret->removed, s.removed);
        }
        return 0;
}

const FwBackend fw_iptables = {
        .name = "iptables",
        .apply = fw_iptables_apply,
        .read = fw_iptables_read,
};

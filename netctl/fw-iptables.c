/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Firewall through the legacy tables, in process, by libiptc.
 *
 * iptc_init() takes a snapshot of the whole table, iptc_commit() writes all of it back with the counters that have grown
 * meanwhile. Two such programs would undo each other, so everybody takes /run/xtables.lock (flock) from before the
 * snapshot until after the commit; iptables(8) does too. In addition the kernel refuses a commit with EAGAIN when the
 * number of entries changed since the snapshot: then everything is done again, at most FW_COMMIT_TRIES times.
 *
 * The lock is asked for without waiting first. When somebody holds it, the table is compared without it: reading is safe,
 * and an unchanged host must not wait. Only a needed change waits for the lock, FW_LOCK_TIMEOUT_MS at most.
 *
 * Nothing is written unless something differs. Rules are compared in the kernel's binary form. A node's chains are
 * replaced when they differ; its dispatch rules are recognised by their targets, so that neither comments nor memory of
 * ours are needed. When the last node goes, our base chains and the jumps to them go as well.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/fw-rules.h"
#include "netctl/xtables-lock.h"

#define TABLE "filter"
#define BRIDGE_NF "/proc/sys/net/bridge/bridge-nf-call-iptables"

/* One call's view: nodes sorted by short id, what they should have, and the snapshot. */
typedef struct Target {
        char id[FW_ID_LENGTH + 1];
        size_t index; /* in the caller's array */
        bool remove;
        NodeRules rules;
        size_t forward_seen, input_seen; /* dispatch rules met in the walk */
        bool forward_dirty, input_dirty;
} Target;

typedef struct Session {
        struct xtc_handle *handle;
        Target *targets;
        size_t n;
        bool sweep;
        char *const *keep;
        bool dirty;
        bool *changed; /* per caller's node */
        unsigned long removed;
} Session;

static int iptc_error(TbError **err, const char *what)
{
        int code = errno ? errno : EPROTO;

        if (code == ENOENT || code == ENOPROTOOPT)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -code,
                        "%s: this kernel has no legacy iptables " TABLE
                        " table or a match that we use (modules "
                        "iptable_filter, xt_physdev, xt_conntrack); see 'tbnode doctor'",
                        what);
        if (code == EPERM)
                return tb_error_set(
                        err, TB_ERROR_ENVIRONMENT, -code, "%s: not permitted; run as root", what);
        return tb_error_set(err, TB_ERROR_SYSTEM, -code, "%s: %s", what, iptc_strerror(code));
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
        for (char *const *k = s->keep; k && *k; k++)
                if (strncmp(*k, short_id, FW_ID_LENGTH) == 0)
                        return true;
        return false;
}

static bool chain_equal(Session *s, const char *chain, const Rules *want)
{
        size_t i = 0;

        for (const struct ipt_entry *e = iptc_first_rule(chain, s->handle); e;
                e = iptc_next_rule(e, s->handle), i++)
                if (i >= want->n || !rule_equal(want->v + i, e, iptc_get_target(e, s->handle)))
                        return false;
        return i == want->n;
}

static int append_rules(Session *s, const char *chain, const Rules *rules, TbError **err)
{
        xt_chainlabel label = {};

        (void) snprintf(label, sizeof(label), "%s", chain);
        for (size_t i = 0; i < rules->n; i++)
                if (!iptc_append_entry(label, (const struct ipt_entry *) rules->v[i].data, s->handle))
                        return iptc_error(err, "cannot add a firewall rule");
        return 0;
}

/* Creates the chain when it is missing and makes its content as wanted. */
static int ensure_chain(Session *s, const char *chain, const Rules *want, bool *changed, TbError **err)
{
        xt_chainlabel label = {};

        (void) snprintf(label, sizeof(label), "%s", chain);
        if (!iptc_is_chain(chain, s->handle)) {
                if (!iptc_create_chain(label, s->handle))
                        return iptc_error(err, "cannot create a firewall chain");
        } else if (!want || chain_equal(s, chain, want))
                return 0;
        else if (!iptc_flush_entries(label, s->handle))
                return iptc_error(err, "cannot empty a firewall chain");
        *changed = s->dirty = true;
        return want ? append_rules(s, chain, want, err) : 0;
}

/* The jump from a built-in chain to ours: its first rule, and only once. */
static int ensure_jump(Session *s, const char *builtin, const char *chain, bool wanted, TbError **err)
{
        xt_chainlabel label = {};
        unsigned position = 0;
        bool first = false;

        (void) snprintf(label, sizeof(label), "%s", builtin);
        for (const struct ipt_entry *e = iptc_first_rule(builtin, s->handle); e; position++) {
                const struct ipt_entry *next = iptc_next_rule(e, s->handle);
                bool ours = tb_streq(iptc_get_target(e, s->handle), chain);
                if (ours && wanted && position == 0)
                        first = true;
                else if (ours) {
                        if (!iptc_delete_num_entry(label, position, s->handle))
                                return iptc_error(err, "cannot remove a firewall rule");
                        position--;
                        s->dirty = true;
                }
                e = next;
        }
        if (!wanted || first)
                return 0;
        Rules jump = {};
        rules_add_jump(&jump, chain);
        int r = jump.error < 0 ? tb_error_oom(err)
                : iptc_insert_entry(label, (const struct ipt_entry *) jump.v[0].data, 0, s->handle)
                ? 0
                : iptc_error(err, "cannot add a firewall rule");
        rules_done(&jump);
        s->dirty = true;
        return r;
}

/* One dispatch chain: checks every rule against its node's, removes what is stale (of dirty, removed, swept nodes), then
 * appends what is missing. */
static int sync_dispatch(Session *s, const char *chain, bool forward, TbError **err)
{
        xt_chainlabel label = {};
        unsigned count = 0;

        if (!iptc_is_chain(chain, s->handle))
                return 0;
        (void) snprintf(label, sizeof(label), "%s", chain);
        for (size_t i = 0; i < s->n; i++)
                *(forward ? &s->targets[i].forward_seen : &s->targets[i].input_seen) = 0;

        for (const struct ipt_entry *e = iptc_first_rule(chain, s->handle); e;
                e = iptc_next_rule(e, s->handle), count++) {
                char id[FW_ID_LENGTH + 1];
                const char *target = iptc_get_target(e, s->handle);
                Target *t = fw_chain_id(target, id) ? find_target(s, id) : NULL;
                if (!t)
                        continue;
                const Rules *want = forward ? &t->rules.forward : &t->rules.input;
                size_t *seen = forward ? &t->forward_seen : &t->input_seen;
                if (*seen >= want->n || !rule_equal(want->v + *seen, e, target))
                        *(forward ? &t->forward_dirty : &t->input_dirty) = true;
                (*seen)++;
        }
        for (size_t i = 0; i < s->n; i++) {
                Target *t = s->targets + i;
                if ((forward ? t->forward_seen : t->input_seen) !=
                        (forward ? t->rules.forward.n : t->rules.input.n))
                        *(forward ? &t->forward_dirty : &t->input_dirty) = true;
        }

        /* Which rules go; then from the last to the first, so that numbers stay right. */
        _cleanup_free_ bool *drop = calloc(count + 1, sizeof(bool));
        if (!drop)
                return tb_error_oom(err);
        unsigned k = 0;
        for (const struct ipt_entry *e = iptc_first_rule(chain, s->handle); e;
                e = iptc_next_rule(e, s->handle), k++) {
                char id[FW_ID_LENGTH + 1];
                if (!fw_chain_id(iptc_get_target(e, s->handle), id))
                        continue;
                const Target *t = find_target(s, id);
                drop[k] = t ? (forward ? t->forward_dirty : t->input_dirty) : s->sweep && !is_kept(s, id);
        }
        while (k-- > 0)
                if (drop[k]) {
                        if (!iptc_delete_num_entry(label, k, s->handle))
                                return iptc_error(err, "cannot remove a firewall rule");
                        s->dirty = true;
                }
        for (size_t i = 0; i < s->n; i++) {
                Target *t = s->targets + i;
                if (!(forward ? t->forward_dirty : t->input_dirty))
                        continue;
                int r = append_rules(s, chain, forward ? &t->rules.forward : &t->rules.input, err);
                if (r < 0)
                        return r;
                s->dirty = s->changed[t->index] = true;
        }
        return 0;
}

static int delete_chain(Session *s, const char *chain, TbError **err)
{
        xt_chainlabel label = {};

        (void) snprintf(label, sizeof(label), "%s", chain);
        if (!iptc_flush_entries(label, s->handle) || !iptc_delete_chain(label, s->handle))
                return iptc_error(err, "cannot remove a firewall chain");
        s->dirty = true;
        return 0;
}

/* Chains that shall not be (any more). Names first: deleting while iterating upsets libiptc. */
static int remove_chains(Session *s, TbError **err)
{
        _cleanup_strv_ char **doomed = NULL;
        bool others = false;

        for (const char *c = iptc_first_chain(s->handle); c; c = iptc_next_chain(s->handle)) {
                char id[FW_ID_LENGTH + 1];
                if (!fw_chain_id(c, id))
                        continue;
                const Target *t = find_target(s, id);
                bool gone = t ? (tb_streq(c, t->rules.in_chain) ? !t->rules.has_in : !t->rules.has_out)
                              : s->sweep && !is_kept(s, id);
                if (!gone) {
                        others = true;
                        continue;
                }
                if (t)
                        s->changed[t->index] = true;
                else
                        s->removed++;
                int r = tb_strv_append(&doomed, c, err);
                if (r < 0)
                        return r;
        }
        for (char **c = doomed; c && *c; c++) {
                int r = delete_chain(s, *c, err);
                if (r < 0)
                        return r;
        }
        if (others)
                return 0;
        static const char *const base[][2] = {{"FORWARD", FW_CHAIN_FORWARD}, {"INPUT", FW_CHAIN_INPUT}};
        for (size_t i = 0; i < ELEMENTSOF(base); i++) {
                if (!iptc_is_chain(base[i][1], s->handle))
                        continue;
                int r = ensure_jump(s, base[i][0], base[i][1], false, err);
                if (r < 0)
                        return r;
                r = delete_chain(s, base[i][1], err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int session_plan(Session *s, TbError **err)
{
        bool wanted = false, ignored = false;

        s->dirty = false;
        s->removed = 0;
        for (size_t i = 0; i < s->n; i++) {
                Target *t = s->targets + i;
                t->forward_dirty = t->input_dirty = false;
                s->changed[t->index] = false;
                wanted |= !t->remove;
        }
        if (wanted) {
                int r = ensure_chain(s, FW_CHAIN_FORWARD, NULL, &ignored, err);
                if (r >= 0)
                        r = ensure_chain(s, FW_CHAIN_INPUT, NULL, &ignored, err);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < s->n; i++) {
                Target *t = s->targets + i;
                int r = 0;
                if (t->rules.has_out)
                        r = ensure_chain(s, t->rules.out_chain, &t->rules.out, s->changed + t->index, err);
                if (r >= 0 && t->rules.has_in)
                        r = ensure_chain(s, t->rules.in_chain, &t->rules.in, s->changed + t->index, err);
                if (r < 0)
                        return r;
        }
        int r = sync_dispatch(s, FW_CHAIN_FORWARD, true, err);
        if (r >= 0)
                r = sync_dispatch(s, FW_CHAIN_INPUT, false, err);
        if (r >= 0 && wanted)
                r = ensure_jump(s, "FORWARD", FW_CHAIN_FORWARD, true, err);
        if (r >= 0 && wanted)
                r = ensure_jump(s, "INPUT", FW_CHAIN_INPUT, true, err);
        if (r >= 0)
                r = remove_chains(s, err);
        return r;
}

/* libiptc takes the counters of every built-in chain's policy for "to be zeroed" and so resets them with each commit (iptables(8)
 * does so to this day). Setting each policy to what it is, with its counters, makes them stay; what passes between snapshot
 * and commit is not counted there. */
static int keep_policy_counters(Session *s, TbError **err)
{
        for (const char *c = iptc_first_chain(s->handle); c; c = iptc_next_chain(s->handle)) {
                xt_chainlabel label = {}, policy = {};
                struct xt_counters counters;
                const char *p = iptc_get_policy(c, &counters, s->handle);
                if (!p)
                        continue;
                (void) snprintf(label, sizeof(label), "%s", c);
                (void) snprintf(policy, sizeof(policy), "%s", p);
                if (!iptc_set_policy(label, policy, &counters, s->handle))
                        return iptc_error(err, "cannot keep a policy's counters");
        }
        return 0;
}

/* Snapshot, plan and (with the lock) commit. Returns 1 when a change is needed and `locked` is false. */
static int session_try(Session *s, bool locked, unsigned long *commits, TbError **err)
{
        for (int try = 1;; try++) {
                errno = 0;
                s->handle = iptc_init(TABLE);
                if (!s->handle)
                        return iptc_error(err, "cannot read the iptables " TABLE " table");
                int r = session_plan(s, err);
                if (r >= 0 && s->dirty && locked)
                        r = keep_policy_counters(s, err);
                if (r >= 0 && s->dirty) {
                        if (!locked)
                                r = 1;
                        else if (!iptc_commit(s->handle))
                                r = errno == EAGAIN
                                        ? -EAGAIN
                                        : iptc_error(err, "cannot write the iptables " TABLE " table");
                        else
                                (*commits)++;
                }
                iptc_free(s->handle);
                s->handle = NULL;
                if (r != -EAGAIN)
                        return r;
                if (try == FW_COMMIT_TRIES) {
                        (void) tb_error_set(err, TB_ERROR_SYSTEM, -EAGAIN,
                                "the iptables " TABLE
                                " table changed under every one of %d attempts to write it",
                                try);
                        tb_error_set_retryable(err);
                        return -EAGAIN;
                }
        }
}

static int session_run(Session *s, unsigned long *commits, TbError **err)
{
        _cleanup_close_ int lock = -EBADF;

        int locked = xtables_lock_open(&lock, err);
        if (locked < 0)
                return locked;
        int r = session_try(s, locked, commits, err);
        if (r != 1)
                return r;
        r = xtables_lock_wait(lock, FW_LOCK_TIMEOUT_MS, err);
        if (r < 0)
                return r;
        return session_try(s, true, commits, err);
}

/* Bridged packets only meet iptables with this on (it is a setting of the network namespace). */
static int ensure_bridge_nf(bool enable, FwOutcome *outcome, TbError **err)
{
        char value = 0;

        _cleanup_close_ int fd = open(BRIDGE_NF, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOSYS,
                        "cannot filter a bridge port: module br_netfilter is not loaded; run 'modprobe "
                        "br_netfilter'");
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno, "cannot open %s", BRIDGE_NF);
        if (pread(fd, &value, 1, 0) == 1 && value == '1')
                return 0;
        if (!enable)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOSYS,
                        "cannot filter a bridge port: bridge-nf-call-iptables is off; run 'sysctl "
                        "net.bridge.bridge-nf-call-iptables=1'");
        if (pwrite(fd, "1", 1, 0) != 1)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, errno, "cannot write %s", BRIDGE_NF);
        outcome->bridge_nf_enabled = true;
        outcome->sysctl_writes++;
        return 0;
}

static void targets_free(Session *s)
{
        for (size_t i = 0; i < s->n; i++)
                node_rules_done(&s->targets[i].rules);
        free(s->targets);
}

static int fw_iptables_apply(const FwSite *site, const FwNode *nodes, size_t n, bool sweep,
        char *const *keep, bool enable_bridge_nf, FwOutcome *ret, TbError **err)
{
        _cleanup_(targets_free) Session s = {.sweep = sweep, .keep = keep};
        bool bridged = false;

        _cleanup_free_ bool *changed = calloc(n + 1, sizeof(bool));
        s.targets = calloc(n + 1, sizeof(*s.targets));
        if (!changed || !s.targets)
                return tb_error_oom(err);
        s.changed = changed;
        for (size_t i = 0; i < n; i++) {
                Target *t = s.targets + i;
                (void) snprintf(t->id, sizeof(t->id), "%.*s", FW_ID_LENGTH, nodes[i].id);
                t->index = i;
                t->remove = nodes[i].style == FW_NONE;
                int r = node_rules_compile(site, nodes + i, &t->rules, err);
                if (r < 0)
                        return r;
                s.n = i + 1;
                bridged |= t->rules.bridged;
        }
        if (n > 0)
                qsort(s.targets, n, sizeof(*s.targets), compare_target);

        int r = bridged ? ensure_bridge_nf(enable_bridge_nf, ret, err) : 0;
        if (r < 0)
                return r;
        r = session_run(&s, &ret->commits, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++) {
                if (ret->changed)
                        ret->changed[i] = changed[i];
                if (ret->present)
                        ret->present[i] = nodes[i].style != FW_NONE;
        }
        ret->removed = s.removed;
        return 0;
}

int fw_iptables_present(const char *id, bool *ret, TbError **err)
{
        char in[XT_FUNCTION_MAXNAMELEN], out[XT_FUNCTION_MAXNAMELEN];

        fw_chain_names(id, in, out);
        errno = 0;
        struct xtc_handle *h = iptc_init(TABLE);
        if (!h)
                return iptc_error(err, "cannot read the iptables " TABLE " table");
        *ret = iptc_is_chain(out, h);
        iptc_free(h);
        return 0;
}

const FwBackend fw_iptables = {
        .name = "iptables",
        .apply = fw_iptables_apply,
};

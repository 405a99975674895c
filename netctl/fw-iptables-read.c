/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the legacy tables have of nodes: is it as declared, and what did it count. Reads snapshots, takes no lock. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "netctl/fw-iptables.h"
#include "netctl/fw-tree.h"

typedef struct Reader {
        const XtFamily *family;
        struct xtc_handle *handle;
        const FwNode *node;
        const FwPolicy *policy;
        FwReadback *ret;
} Reader;

void fw_readback_done(FwReadback *r)
{
        for (int i = 0; i < _FW_DIRECTION_MAX; i++) {
                free(r->rules[i]);
                free(r->found[i]);
        }
        *r = (FwReadback){};
}

static FwRuleCount *add_rule(FwRuleCount **v, size_t *n, const FwRule *rule)
{
        FwRuleCount *p = reallocarray(*v, *n + 1, sizeof(*p));

        if (!p)
                return NULL;
        *v = p;
        p[*n] = (FwRuleCount){.rule = *rule};
        return p + (*n)++;
}

static void count(FwRuleCount *c, const struct xt_counters *k)
{
        c->packets += k->pcnt;
        c->bytes += k->bcnt;
}

/* The declared lists, to be counted in. */
static int begin(FwReadback *b, const FwPolicy *policy)
{
        for (FwDirection d = 0; d < _FW_DIRECTION_MAX; d++)
                for (size_t i = 0; i < policy->list[d].n; i++)
                        if (!add_rule(b->rules + d, b->n_rules + d, policy->list[d].v + i))
                                return -ENOMEM;
        return 0;
}

/* The rules of a chain that is as declared: the i-th one is the i-th that this family has of the list; a log line comes before
 * the rule that it is of. */
static void count_list(
        Reader *r, const Chain *c, FwDirection d, size_t position, const struct xt_counters *k)
{
        size_t at = c->preamble;

        for (size_t i = 0; i < r->policy->list[d].n; i++) {
                const FwRule *rule = r->policy->list[d].v + i;
                if (rule->family != AF_UNSPEC && rule->family != r->family->family)
                        continue;
                at += rule->log;
                if (at++ != position)
                        continue;
                count(r->ret->rules[d] + i, k);
                if (rule->verdict == FW_DENY)
                        r->ret->counters.dropped_rules += k->pcnt;
        }
}

static void count_preamble(Reader *r, const Chain *c, const char *target, const struct xt_counters *k)
{
        if (!tb_streq(target, IPTC_LABEL_DROP))
                return;
        if (c->direction == FW_IN && c->name[strlen(c->name) - 1] != 'S')
                r->ret->counters.dropped_isolation += k->pcnt;
        else
                r->ret->counters.dropped_identity += k->pcnt;
}

/* A chain that is not as declared: what is there that a list could have. */
static int read_foreign(Reader *r, const Chain *c)
{
        FwDirection d = c->direction;

        for (const void *e = r->family->first_rule(c->name, r->handle); e;
                e = r->family->next_rule(e, r->handle)) {
                FwRule rule;
                if (!xt_rule_decode(r->family, e, r->family->get_target(e, r->handle), &rule))
                        continue;
                rule.direction = d;
                rule.origin = FW_ORIGIN_USER;
                FwRuleCount *found = add_rule(r->ret->found + d, r->ret->n_found + d, &rule);
                if (!found)
                        return -ENOMEM;
                count(found, xt_entry_counters(r->family, e));
        }
        return 0;
}

static bool is_equal(Reader *r, const Chain *c)
{
        size_t i = 0;

        for (const void *e = r->family->first_rule(c->name, r->handle); e;
                e = r->family->next_rule(e, r->handle), i++)
                if (i >= c->rules.n ||
                        !rule_equal(r->family, c->rules.v + i, e, r->family->get_target(e, r->handle)))
                        return false;
        return i == c->rules.n;
}

static int read_chain(Reader *r, const Chain *c)
{
        size_t i = 0;

        if (!r->family->is_chain(c->name, r->handle)) {
                r->ret->intact = false;
                return 0;
        }
        r->ret->present = true;
        if (!is_equal(r, c)) {
                r->ret->intact = false;
                return read_foreign(r, c);
        }
        for (const void *e = r->family->first_rule(c->name, r->handle); e;
                e = r->family->next_rule(e, r->handle), i++) {
                const struct xt_counters *k = xt_entry_counters(r->family, e);
                if (i < c->preamble)
                        count_preamble(r, c, r->family->get_target(e, r->handle), k);
                else
                        count_list(r, c, c->direction, i, k);
        }
        return 0;
}

/* All leaves of the trees, counted for whom they lead to. */
typedef struct Way {
        char id[FW_ID_LENGTH + 1];
        Leaf leaf;
        struct xt_counters counters;
} Way;

typedef struct Ways {
        Way *v;
        size_t n, allocated;
        bool reached; /* the built-in chains' first rules are our jumps */
} Ways;

static void ways_done(Ways *w)
{
        free(w->v);
}

static int compare_way(const void *a, const void *b)
{
        return strcmp(((const Way *) a)->id, ((const Way *) b)->id);
}

static int collect_ways(const XtFamily *f, struct xtc_handle *h, Ways *ret, TbError **err)
{
        const void *first = f->first_rule("FORWARD", h);

        ret->reached = first && tb_streq(f->get_target(first, h), FW_CHAIN_FORWARD);
        for (const char *c = f->first_chain(h); c; c = f->next_chain(h)) {
                TreeKind kind;
                if (!tree_chain_kind(c, &kind))
                        continue;
                for (const void *e = f->first_rule(c, h); e; e = f->next_rule(e, h)) {
                        Way w;
                        if (!fw_chain_id(f->get_target(e, h), w.id))
                                continue;
                        if (ret->n == ret->allocated) {
                                size_t want = ret->allocated > 0 ? ret->allocated * 2 : 64;
                                Way *p = reallocarray(ret->v, want, sizeof(*p));
                                if (!p)
                                        return tb_error_oom(err);
                                ret->v = p;
                                ret->allocated = want;
                        }
                        tree_leaf_decode(kind, f, e, &w.leaf);
                        memcpy(w.leaf.target, f->get_target(e, h), strlen(f->get_target(e, h)) + 1);
                        w.counters = *xt_entry_counters(f, e);
                        ret->v[ret->n++] = w;
                }
        }
        if (ret->n > 1)
                qsort(ret->v, ret->n, sizeof(*ret->v), compare_way);
        return 0;
}

static FwDirection way_direction(TreeKind kind)
{
        return kind == TREE_HOST_PORT || kind == TREE_HOST_DEVICE                            ? FW_HOST
                : kind == TREE_DESTINATION || kind == TREE_TO_PORT || kind == TREE_TO_DEVICE ? FW_IN
                                                                                             : FW_OUT;
}

static void read_ways(Reader *r, const Ways *ways, const Leaves *want)
{
        Way key;
        size_t good = 0;

        memset(key.id, 0, sizeof(key.id));
        memcpy(key.id, r->node->id, strnlen(r->node->id, FW_ID_LENGTH));
        const Way *w = ways->n > 0 ? bsearch(&key, ways->v, ways->n, sizeof(*ways->v), compare_way) : NULL;
        while (w && w > ways->v && compare_way(w - 1, &key) == 0)
                w--;
        for (; w && w < ways->v + ways->n && compare_way(w, &key) == 0; w++) {
                FwDirection d = way_direction(w->leaf.kind);
                r->ret->present = true;
                r->ret->counters.packets[d] += w->counters.pcnt;
                r->ret->counters.bytes[d] += w->counters.bcnt;
                good += leaves_have(want, &w->leaf);
        }
        if (good != want->n || (want->n > 0 && !ways->reached))
                r->ret->intact = false;
}

static int read_node(Reader *r, const Ways *ways, TbError **err)
{
        _cleanup_chains_ Chains chains = {};
        _cleanup_leaves_ Leaves leaves = {};

        int k = node_compile(r->family, XT_FILTER, r->node, r->policy, &chains, &leaves, err);
        if (k < 0)
                return k;
        leaves_sort(&leaves);
        k = chains_check(&chains, err);
        if (k < 0)
                return k;
        for (size_t i = 0; i < chains.n; i++) {
                k = read_chain(r, chains.v + i);
                if (k < 0)
                        return tb_error_oom(err);
        }
        read_ways(r, ways, &leaves);
        return 0;
}

static bool setting_is_on(const char *path)
{
        _cleanup_free_ char *value = NULL;

        return tb_file_read(path, 64, &value, NULL, NULL) >= 0 && value[0] == '1';
}

/* Without it the rules are there, but bridged packets don't meet them. */
static bool meets_packets(const XtFamily *f, const FwNode *node)
{
        for (size_t i = 0; i < node->n_interfaces && node->style != FW_NONE; i++)
                if (node->interfaces[i].bridge)
                        return setting_is_on(f->bridge_nf);
        return true;
}

static int read_family(const XtFamily *f, const FwNode *nodes, const FwPolicy *policies, size_t n,
        FwReadback *ret, TbError **err)
{
        _cleanup_(ways_done) Ways ways = {};
        int r = 0;

        errno = 0;
        struct xtc_handle *h = f->init("filter");
        if (!h && f->family == AF_INET6)
                return 0;
        if (!h)
                return fw_iptables_error(f, XT_FILTER, "cannot read the firewall", err);
        r = collect_ways(f, h, &ways, err);
        for (size_t i = 0; i < n && r >= 0; i++) {
                Reader reader = {
                        .family = f, .handle = h, .node = nodes + i, .policy = policies + i, .ret = ret + i};
                r = read_node(&reader, &ways, err);
                if (!meets_packets(f, nodes + i))
                        ret[i].intact = false;
        }
        f->free(h);
        return r;
}

int fw_iptables_read(const FwSite *site, const FwNode *nodes, size_t n, FwReadback *ret, TbError **err)
{
        _cleanup_free_ FwPolicy *policies = calloc(n + 1, sizeof(*policies));
        _cleanup_free_ FwReadback *back = calloc(n + 1, sizeof(*back));
        int r = 0;

        if (!policies || !back)
                return tb_error_oom(err);
        for (size_t i = 0; i < n && r >= 0; i++) {
                r = fw_policy_compile(site, nodes + i, policies + i, err);
                if (r < 0)
                        break;
                back[i].intact = true;
                if (begin(back + i, policies + i) < 0)
                        r = tb_error_oom(err);
        }
        if (r >= 0)
                r = read_family(&xt_ipv4, nodes, policies, n, back, err);
        if (r >= 0)
                r = read_family(&xt_ipv6, nodes, policies, n, back, err);
        for (size_t i = 0; i < n; i++) {
                fw_policy_done(policies + i);
                back[i].style = back[i].intact ? nodes[i].style : _FW_STYLE_INVALID;
                if (r >= 0)
                        ret[i] = back[i];
                else
                        fw_readback_done(back + i);
        }
        return r;
}

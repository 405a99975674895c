/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The chains that all nodes share: how packets get to the trees, and masquerading. */

#include "netctl/fw-tree.h"

static void add_jump(const XtFamily *f, const char *chain, Rules *r)
{
        Draft d;

        draft_begin(&d, f);
        draft_end(&d, chain, r);
}

static void add_tree_jump(const XtFamily *f, TreeKind kind, Rules *r)
{
        char root[XT_FUNCTION_MAXNAMELEN];
        Draft d;

        tree_root_name(kind, root);
        draft_begin(&d, f);
        /* What did not come in through a bridge port needn't be asked which one. */
        if (kind == TREE_FROM_PORT || kind == TREE_HOST_PORT)
                draft_physdev_is_in(&d);
        draft_end(&d, root, r);
}

/* A chain that asks the trees of names one after the other. `wanted`: somebody goes there even if there are none. */
static int add_names(const XtFamily *f, const char *name, TreeKind port, TreeKind device, bool wanted,
        const bool has[static _TREE_MAX], Chains *chains)
{
        if (!wanted && !has[port] && !has[device])
                return 0;
        Chain *c = chains_add(chains, name);
        if (!c)
                return -ENOMEM;
        if (has[port])
                add_tree_jump(f, port, &c->rules);
        if (has[device])
                add_tree_jump(f, device, &c->rules);
        return 0;
}

static int common_filter(const XtFamily *f, const bool has[static _TREE_MAX], Chains *chains)
{
        static const struct {
                TreeKind addresses, port, device;
                const char *names;
        } ways[] = {{TREE_SOURCE, TREE_FROM_PORT, TREE_FROM_DEVICE, FW_CHAIN_FROM},
                {TREE_DESTINATION, TREE_TO_PORT, TREE_TO_DEVICE, FW_CHAIN_TO}};
        Draft d;

        Chain *c = chains_add(chains, FW_CHAIN_FORWARD);
        if (!c)
                return -ENOMEM;
        draft_begin(&d, f);
        draft_end_mark(&d, 0, FW_MARK_MASK, &c->rules);
        for (size_t i = 0; i < ELEMENTSOF(ways); i++)
                if (has[ways[i].addresses])
                        add_tree_jump(f, ways[i].addresses, &c->rules);
                else if (has[ways[i].port] || has[ways[i].device])
                        add_jump(f, ways[i].names, &c->rules);
        int r = 0;
        for (size_t i = 0; i < ELEMENTSOF(ways) && r >= 0; i++)
                r = add_names(
                        f, ways[i].names, ways[i].port, ways[i].device, has[ways[i].addresses], has, chains);
        return r < 0 ? r
                     : add_names(f, FW_CHAIN_INPUT, TREE_HOST_PORT, TREE_HOST_DEVICE, false, has, chains);
}

/* New connections to one of the host's own addresses; what the host itself sends to its loopback addresses stays there. */
static int add_ssh(const XtFamily *f, const char *name, bool from_host, Chains *chains)
{
        static const FwNetwork loopback = {.family = AF_INET, .prefix = 8, .bytes = {127}};
        char root[XT_FUNCTION_MAXNAMELEN];
        Draft d;

        Chain *c = chains_add(chains, name);
        if (!c)
                return -ENOMEM;
        tree_root_name(TREE_SSH, root);
        draft_begin(&d, f);
        draft_protocol(&d, IPPROTO_TCP);
        if (from_host)
                draft_not_destination(&d, &loopback);
        draft_to_host(&d);
        draft_end(&d, root, &c->rules);
        return 0;
}

static int add_masquerade(const XtFamily *f, const FwSite *site, Chains *chains)
{
        static const FwNetwork groups = {.family = AF_INET, .prefix = 4, .bytes = {224}};
        static const FwNetwork broadcast = {.family = AF_INET, .prefix = 32, .bytes = {255, 255, 255, 255}};
        const struct {
                const FwNetwork *v;
                size_t n;
        } inside[] = {{site->masquerade, site->n_masquerade}, {site->networks, site->n_networks},
                {&groups, 1}, {&broadcast, 1}};
        Draft d;

        Chain *c = chains_add(chains, FW_CHAIN_POSTROUTING);
        if (!c)
                return -ENOMEM;
        for (size_t i = 0; i < site->n_masquerade; i++) {
                draft_begin(&d, f);
                draft_source(&d, site->masquerade + i, false);
                draft_end(&d, FW_CHAIN_MASQUERADE, &c->rules);
        }
        c = chains_add(chains, FW_CHAIN_MASQUERADE);
        if (!c)
                return -ENOMEM;
        for (size_t k = 0; k < ELEMENTSOF(inside); k++)
                for (size_t i = 0; i < inside[k].n; i++) {
                        if (inside[k].v[i].family != AF_INET)
                                continue;
                        draft_begin(&d, f);
                        draft_destination(&d, inside[k].v + i);
                        draft_end(&d, IPTC_LABEL_ACCEPT, &c->rules);
                }
        draft_begin(&d, f);
        draft_end_masquerade(&d, &c->rules);
        return 0;
}

int common_compile(
        const XtFamily *f, XtTable table, const FwSite *site, Leaves *leaves, Chains *chains, TbError **err)
{
        bool has[_TREE_MAX] = {};
        int r = 0;

        leaves_sort(leaves);
        for (size_t i = 0, end; i < leaves->n; i = end) {
                TreeKind kind = leaves->v[i].kind;
                for (end = i + 1; end < leaves->n && leaves->v[end].kind == kind; end++)
                        ;
                has[kind] = true;
                r = tree_build(f, leaves->v + i, end - i,
                        kind == TREE_SOURCE                ? FW_CHAIN_FROM
                                : kind == TREE_DESTINATION ? FW_CHAIN_TO
                                                           : NULL,
                        chains, err);
                if (r < 0)
                        return r;
        }
        if (table == XT_FILTER && leaves->n > 0)
                r = common_filter(f, has, chains);
        if (table == XT_NAT && has[TREE_SSH])
                r = add_ssh(f, FW_CHAIN_PREROUTING, false, chains);
        if (r >= 0 && table == XT_NAT && has[TREE_SSH])
                r = add_ssh(f, FW_CHAIN_OUTPUT, true, chains);
        if (r >= 0 && table == XT_NAT && site && site->n_masquerade > 0)
                r = add_masquerade(f, site, chains);
        return r < 0 ? tb_error_oom(err) : 0;
}

bool table_is_needed(XtTable table, const FwSite *site, const FwNode *nodes, size_t n)
{
        bool masquerade = site && site->n_masquerade > 0;

        for (size_t i = 0; i < n; i++)
                if (nodes[i].style != FW_NONE &&
                        (table == XT_FILTER || nodes[i].ssh_port != 0 || masquerade))
                        return true;
        return false;
}

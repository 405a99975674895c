/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/strv.h"
#include "netctl/fw-tree.h"

#define PORT_SSH 22

void chains_done(Chains *c)
{
        for (size_t i = 0; i < c->n; i++)
                rules_done(&c->v[i].rules);
        free(c->v);
        *c = (Chains){};
}

Chain *chains_add(Chains *c, const char *name)
{
        if (c->n == c->allocated) {
                size_t want = c->allocated > 0 ? c->allocated * 2 : 32;
                Chain *p = reallocarray(c->v, want, sizeof(*p));
                if (!p)
                        return NULL;
                c->v = p;
                c->allocated = want;
        }
        Chain *chain = c->v + c->n++;
        *chain = (Chain){};
        (void) snprintf(chain->name, sizeof(chain->name), "%s", name);
        return chain;
}

static int compare_chain(const void *a, const void *b)
{
        return strcmp(((const Chain *) a)->name, ((const Chain *) b)->name);
}

void chains_sort(Chains *c)
{
        if (c->n > 1)
                qsort(c->v, c->n, sizeof(*c->v), compare_chain);
}

Chain *chains_find(const Chains *c, const char *name)
{
        Chain key = {};

        if (c->n == 0)
                return NULL;
        (void) snprintf(key.name, sizeof(key.name), "%s", name);
        return bsearch(&key, c->v, c->n, sizeof(*c->v), compare_chain);
}

int chains_check(const Chains *c, TbError **err)
{
        for (size_t i = 0; i < c->n; i++)
                if (c->v[i].rules.error < 0)
                        return tb_error_oom(err);
        return 0;
}

void leaves_done(Leaves *l)
{
        free(l->v);
        *l = (Leaves){};
}

int leaves_add(Leaves *l, const Leaf *leaf, TbError **err)
{
        if (l->n == l->allocated) {
                size_t want = l->allocated > 0 ? l->allocated * 2 : 64;
                Leaf *p = reallocarray(l->v, want, sizeof(*p));
                if (!p)
                        return tb_error_oom(err);
                l->v = p;
                l->allocated = want;
        }
        l->v[l->n++] = *leaf;
        return 0;
}

void fw_chain_name(const char *id, char letter, char ret[static XT_FUNCTION_MAXNAMELEN])
{
        (void) snprintf(ret, XT_FUNCTION_MAXNAMELEN, FW_CHAIN_PREFIX "%.*s-%c", FW_ID_LENGTH, id, letter);
}

bool fw_chain_id(const char *chain, char ret[static FW_ID_LENGTH + 1])
{
        const char *id = chain ? tb_startswith(chain, FW_CHAIN_PREFIX) : NULL;
        const char *dash = id ? strrchr(id, '-') : NULL;

        if (!dash || dash == id || dash - id > FW_ID_LENGTH || dash[1] == '\0' || dash[2] != '\0' ||
                !strchr("IOQPHSN", dash[1]))
                return false;
        memcpy(ret, id, (size_t) (dash - id));
        ret[dash - id] = '\0';
        return true;
}

bool fw_chain_is_common(const char *chain)
{
        static const char *const names[] = {FW_CHAIN_FORWARD, FW_CHAIN_INPUT, FW_CHAIN_FROM, FW_CHAIN_TO,
                FW_CHAIN_PREROUTING, FW_CHAIN_OUTPUT, FW_CHAIN_POSTROUTING, FW_CHAIN_MASQUERADE};
        TreeKind kind;

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (tb_streq(chain, names[i]))
                        return true;
        return tree_chain_kind(chain, &kind);
}

/* ---- Chains of a node -------------------------------------------------------------------------------------------- */

typedef struct Compiler {
        const XtFamily *family;
        const FwNode *node;
        const FwPolicy *policy;
        Chains *chains;
        Leaves *leaves;
        bool host_as_out; /* FW_HOST says what FW_OUT says */
} Compiler;

/* Which chain this interface's packets go through; 0: none. */
static char chain_from(const Compiler *c, const FwInterface *x)
{
        if (!x->pinned && !c->node->group && !(x->filtered && c->policy->list[FW_OUT].n > 0))
                return 0;
        return x->filtered ? 'O' : 'Q';
}

static char chain_to(const Compiler *c, const FwInterface *x)
{
        if (!c->node->group && !(x->filtered && c->policy->list[FW_IN].n > 0))
                return 0;
        return x->filtered ? 'I' : 'P';
}

static char chain_host(const Compiler *c, const FwInterface *x)
{
        if (x->filtered && c->host_as_out)
                return chain_from(c, x);
        return x->pinned || c->policy->list[FW_HOST].n > 0 ? 'H' : 0;
}

/* Only when the chain has packets of other interfaces as well. */
static void match_interface(Draft *d, const FwInterface *x, bool several)
{
        if (several && x->bridge)
                draft_physdev_in(d, x->ifname, false);
        else if (several)
                draft_in(d, x->ifname, false);
}

static FwNetwork interface_address(const FwInterface *x, size_t i)
{
        struct in6_addr local = fw_link_local(x->mac);

        return fw_network_ipv6(i == 0 ? &local : x->ipv6 + i - 1);
}

/* What this interface may send with, IPv6: its link-local address and its others, and none at all for neighbour discovery. */
static void add_ipv6_identity(const Compiler *c, const FwInterface *x, bool several, Rules *r)
{
        static const FwNetwork unspecified = {.family = AF_INET6, .prefix = 128};
        FwNetwork local = interface_address(x, 0);
        char sources[XT_FUNCTION_MAXNAMELEN];
        Draft d;

        draft_begin(&d, c->family);
        match_interface(&d, x, several);
        draft_source(&d, &unspecified, false);
        draft_protocol(&d, IPPROTO_ICMP);
        draft_end(&d, IPTC_LABEL_RETURN, r);

        draft_begin(&d, c->family);
        match_interface(&d, x, several);
        if (x->n_ipv6 == 0) {
                draft_source(&d, &local, true);
                draft_end(&d, IPTC_LABEL_DROP, r);
        } else {
                fw_chain_name(c->node->id, 'S', sources);
                draft_end(&d, sources, r);
        }
}

static void add_identity(const Compiler *c, const FwInterface *x, bool several, Rules *r)
{
        Draft d;

        draft_begin(&d, c->family);
        match_interface(&d, x, several);
        draft_not_mac(&d, x->mac);
        draft_end(&d, IPTC_LABEL_DROP, r);
        if (c->family->family == AF_INET6) {
                add_ipv6_identity(c, x, several, r);
                return;
        }
        FwNetwork own = fw_network_ipv4(x->ipv4);
        draft_begin(&d, c->family);
        match_interface(&d, x, several);
        draft_source(&d, &own, true);
        draft_end(&d, IPTC_LABEL_DROP, r);
}

static void add_list(const Compiler *c, FwDirection direction, Rules *r)
{
        const FwRules *list = c->policy->list + direction;
        char prefix[FW_LOG_PREFIX_MAX];
        Draft d;

        for (size_t i = 0; i < list->n; i++) {
                const FwRule *rule = list->v + i;
                if (rule->family != AF_UNSPEC && rule->family != c->family->family)
                        continue;
                if (rule->log) {
                        draft_begin(&d, c->family);
                        draft_rule(&d, rule);
                        draft_limit(&d);
                        draft_end_log(&d, fw_log_prefix(c->node->name, direction, prefix), r);
                }
                draft_begin(&d, c->family);
                draft_rule(&d, rule);
                draft_end(&d, rule->verdict == FW_ALLOW ? IPTC_LABEL_RETURN : IPTC_LABEL_DROP, r);
        }
}

static Chain *add_node_chain(const Compiler *c, char letter)
{
        char name[XT_FUNCTION_MAXNAMELEN];

        fw_chain_name(c->node->id, letter, name);
        return chains_add(c->chains, name);
}

static uint32_t group_mark(const FwNode *node)
{
        return (uint32_t) node->group << FW_MARK_SHIFT;
}

/* A chain for packets from the node: 'O', 'Q' or 'H'. */
static int compile_from(const Compiler *c, char letter)
{
        const FwNode *node = c->node;
        size_t users = 0;
        Draft d;

        for (size_t i = 0; i < node->n_interfaces; i++)
                users += chain_from(c, node->interfaces + i) == letter ||
                        chain_host(c, node->interfaces + i) == letter;
        if (users == 0)
                return 0;
        Chain *chain = add_node_chain(c, letter);
        if (!chain)
                return -ENOMEM;
        for (size_t i = 0; i < node->n_interfaces; i++) {
                const FwInterface *x = node->interfaces + i;
                if (x->pinned && (chain_from(c, x) == letter || chain_host(c, x) == letter))
                        add_identity(c, x, users > 1, &chain->rules);
        }
        if (node->group && letter != 'H') {
                draft_begin(&d, c->family);
                draft_end_mark(&d, group_mark(node), FW_MARK_MASK, &chain->rules);
        }
        chain->preamble = chain->rules.n;
        chain->direction = letter == 'H' ? FW_HOST : FW_OUT;
        if (letter != 'Q')
                add_list(c, chain->direction, &chain->rules);
        return 0;
}

/* A chain for packets to the node: 'I' or 'P'. */
static int compile_to(const Compiler *c, char letter)
{
        const FwNode *node = c->node;
        bool used = false;
        Draft d;

        for (size_t i = 0; i < node->n_interfaces; i++)
                used |= chain_to(c, node->interfaces + i) == letter;
        if (!used)
                return 0;
        Chain *chain = add_node_chain(c, letter);
        if (!chain)
                return -ENOMEM;
        if (node->group) {
                draft_begin(&d, c->family);
                draft_mark(&d, 0, FW_MARK_MASK, true);
                draft_mark(&d, group_mark(node), FW_MARK_MASK, true);
                draft_end(&d, IPTC_LABEL_DROP, &chain->rules);
        }
        chain->preamble = chain->rules.n;
        chain->direction = FW_IN;
        if (letter == 'I')
                add_list(c, FW_IN, &chain->rules);
        return 0;
}

/* Sources of IPv6 interfaces that have more than the link-local one. */
static int compile_sources(const Compiler *c)
{
        const FwNode *node = c->node;
        Chain *chain = NULL;
        Draft d;

        for (size_t i = 0; i < node->n_interfaces && c->family->family == AF_INET6; i++) {
                const FwInterface *x = node->interfaces + i;
                if (!x->pinned || x->n_ipv6 == 0)
                        continue;
                if (!chain)
                        chain = add_node_chain(c, 'S');
                if (!chain)
                        return -ENOMEM;
                for (size_t k = 0; k <= x->n_ipv6; k++) {
                        FwNetwork address = interface_address(x, k);
                        draft_begin(&d, c->family);
                        match_interface(&d, x, node->n_interfaces > 1);
                        draft_source(&d, &address, false);
                        draft_end(&d, IPTC_LABEL_RETURN, &chain->rules);
                }
        }
        if (chain) {
                draft_begin(&d, c->family);
                draft_end(&d, IPTC_LABEL_DROP, &chain->rules);
                chain->preamble = chain->rules.n;
        }
        return 0;
}

/* ---- The ways to them -------------------------------------------------------------------------------------------- */

static int add_way(const Compiler *c, Leaf leaf, const void *key, size_t size, char letter, TbError **err)
{
        memcpy(leaf.key, key, size);
        fw_chain_name(c->node->id, letter, leaf.target);
        return leaves_add(c->leaves, &leaf, err);
}

static int add_name_way(
        const Compiler *c, const FwInterface *x, TreeKind port, TreeKind device, char letter, TbError **err)
{
        if (!letter)
                return 0;
        return add_way(c, (Leaf){.kind = x->bridge ? port : device}, x->ifname,
                strnlen(x->ifname, IFNAMSIZ - 1), letter, err);
}

static int add_address_ways(const Compiler *c, const FwInterface *x, const FwNetwork *address, TbError **err)
{
        size_t size = address->family == AF_INET6 ? 16 : 4;
        char from = chain_from(c, x), to = chain_to(c, x);
        Leaf leaf = {.physdev = x->bridge != 0};
        int r = 0;

        memcpy(leaf.device, x->ifname, sizeof(leaf.device));
        leaf.kind = TREE_SOURCE;
        if (from)
                r = add_way(c, leaf, address->bytes, size, from, err);
        leaf.kind = TREE_DESTINATION;
        if (r >= 0 && to)
                r = add_way(c, leaf, address->bytes, size, to, err);
        if (r >= 0 && to && x->bridge)
                r = add_way(
                        c, (Leaf){.kind = TREE_DESTINATION, .physdev = true}, address->bytes, size, to, err);
        return r;
}

static int compile_ways(const Compiler *c, TbError **err)
{
        int r = 0;

        for (size_t i = 0; i < c->node->n_interfaces && r >= 0; i++) {
                const FwInterface *x = c->node->interfaces + i;
                r = add_name_way(c, x, TREE_FROM_PORT, TREE_FROM_DEVICE, chain_from(c, x), err);
                if (r >= 0)
                        r = add_name_way(c, x, TREE_TO_PORT, TREE_TO_DEVICE, chain_to(c, x), err);
                if (r >= 0)
                        r = add_name_way(c, x, TREE_HOST_PORT, TREE_HOST_DEVICE, chain_host(c, x), err);
                if (c->family->family == AF_INET) {
                        FwNetwork address = fw_network_ipv4(x->ipv4);
                        if (r >= 0 && x->ipv4.s_addr)
                                r = add_address_ways(c, x, &address, err);
                        continue;
                }
                for (size_t k = 0; k <= x->n_ipv6 && r >= 0; k++) {
                        FwNetwork address = interface_address(x, k);
                        r = add_address_ways(c, x, &address, err);
                }
        }
        return r;
}

static int compile_ssh(const Compiler *c, TbError **err)
{
        struct in_addr to = fw_node_address(c->node);
        uint8_t port[2] = {(uint8_t) (c->node->ssh_port >> 8), (uint8_t) c->node->ssh_port};
        Draft d;

        if (c->node->ssh_port == 0 || to.s_addr == 0)
                return 0;
        Chain *chain = add_node_chain(c, 'N');
        if (!chain)
                return tb_error_oom(err);
        draft_begin(&d, c->family);
        draft_protocol(&d, IPPROTO_TCP);
        draft_end_dnat(&d, to, PORT_SSH, &chain->rules);
        chain->preamble = chain->rules.n;
        return add_way(c, (Leaf){.kind = TREE_SSH}, port, sizeof(port), 'N', err);
}

int node_compile(const XtFamily *family, XtTable table, const FwNode *node, const FwPolicy *policy,
        Chains *chains, Leaves *leaves, TbError **err)
{
        Compiler c = {
                .family = family,
                .node = node,
                .policy = policy,
                .chains = chains,
                .leaves = leaves,
                .host_as_out = fw_rules_equal(policy->list + FW_OUT, policy->list + FW_HOST),
        };
        int r = 0;

        if (node->style == FW_NONE)
                return 0;
        if (table == XT_NAT)
                return compile_ssh(&c, err);
        for (const char *letter = "OQH"; *letter && r >= 0; letter++)
                r = compile_from(&c, *letter);
        for (const char *letter = "IP"; *letter && r >= 0; letter++)
                r = compile_to(&c, *letter);
        if (r >= 0)
                r = compile_sources(&c);
        return r < 0 ? tb_error_oom(err) : compile_ways(&c, err);
}

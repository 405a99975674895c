/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-tree.h"

#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <linux/netfilter/xt_physdev.h>
#include <stdio.h>
#include <string.h>

static void test_networks(void **state)
{
        TbError *err = NULL;
        FwNetwork n;
        static const char *const bad[] = {"", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "10.0.0.0/", "a",
                "10.0.0.0/8 ", "fd00::1/8", "fd00::/129", "fd00:::", "::ffff:1.2.3.4.5",
                "1.2.3.4.5.6.7.8.9.10.11.12"};

        assert_ok(fw_network_parse("10.1.0.0/16", &n, &err), err);
        assert_int_equal(n.prefix, 16);
        assert_int_equal(ntohl(n.ipv4.s_addr), 0x0a010000);
        assert_ok(fw_network_parse("0.0.0.0/0", &n, &err), err);
        assert_ok(fw_network_parse("10.1.2.3", &n, &err), err);
        assert_int_equal(n.prefix, 32);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_error(fw_network_parse(bad[i], &n, &err), -EINVAL, err);
}

static void test_chain_names(void **state)
{
        char name[XT_FUNCTION_MAXNAMELEN], id[FW_ID_LENGTH + 1];

        fw_chain_name("0123456789abcdef0123456789abcdef", 'I', name);
        assert_string_equal(name, "TBNODE-0123456789ab-I");
        assert_true(strlen(name) <= 28);
        assert_true(fw_chain_id(name, id));
        assert_string_equal(id, "0123456789ab");
        static const char *const others[] = {"TBNODE-FORWARD", "TBNODE-INPUT", "TBNODE.i", "DOCKER",
                "TBNODE--I", "TBNODE-x-Z", "TBNODE-x-", "TBNODE-0123456789abc-I", "xTBNODE-1-I", ""};
        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                assert_false(fw_chain_id(others[i], id));
        assert_false(fw_chain_id(NULL, id));
        assert_true(fw_chain_is_common("TBNODE.i.veth1"));
        assert_true(fw_chain_is_common("TBNODE-FROM"));
        assert_false(fw_chain_is_common("TBNODE.x"));
        assert_false(fw_chain_is_common("TBNODE-a-O"));
}

/* A node with everything: two interfaces, addresses of both families, a log, an experiment, ssh. */
typedef struct Example {
        FwInterface interfaces[2];
        FwRules rules;
        FwSite site;
        FwNode node;
} Example;

static void example(Example *e, FwStyle style)
{
        TbError *err = NULL;

        *e = (Example){
                .interfaces = {{.ifname = "fifteen-chars-x",
                                       .bridge = 7,
                                       .filtered = true,
                                       .pinned = true,
                                       .mac = {2, 0x42, 1, 2, 3, 4},
                                       .ipv4 = {.s_addr = htonl(0x0a090001)},
                                       .ipv6 = {{.s6_addr = {0xfd, [15] = 1}}},
                                       .n_ipv6 = 1},
                        {.ifname = "v2", .pinned = true, .ipv4 = {.s_addr = htonl(0x0a080001)}}},
                .site = {.n_gateways = 2, .n_servers = 3, .n_dns = 1, .n_ntp = 1, .log = true},
                .node = {.id = "abc",
                        .name = "node-1",
                        .style = style,
                        .n_interfaces = 2,
                        .group = 7,
                        .ssh_port = 2222},
        };
        for (size_t i = 0; i < 3; i++)
                e->site.gateways[i] = e->site.servers[i] = e->site.dns[i] = e->site.ntp[i] =
                        fw_network_ipv4((struct in_addr){.s_addr = htonl(0x0a0900fd)});
        assert_ok(
                fw_rules_parse(
                        "allow tcp from fd00::/8 to port 80-90; deny log icmp echo; allow out udp to port 9",
                        FW_ORIGIN_USER, &e->rules, &err),
                err);
        e->node.rules = &e->rules;
        e->node.interfaces = e->interfaces;
}

static void compile(const XtFamily *f, XtTable table, const Example *e, Chains *chains, Leaves *leaves)
{
        _cleanup_fw_policy_ FwPolicy policy = {};
        TbError *err = NULL;

        assert_ok(fw_policy_compile(&e->site, &e->node, &policy, &err), err);
        assert_ok(node_compile(f, table, &e->node, &policy, chains, leaves, &err), err);
        assert_ok(common_compile(f, table, &e->site, leaves, chains, &err), err);
        assert_ok(chains_check(chains, &err), err);
        chains_sort(chains);
}

static const char *last_target(const Chains *chains, const char *name)
{
        const Chain *c = chains_find(chains, name);

        return c && c->rules.n > 0 ? c->rules.v[c->rules.n - 1].target : NULL;
}

static void test_styles(void **state)
{
        for (FwStyle s = 0; s < _FW_STYLE_MAX; s++) {
                _cleanup_chains_ Chains chains = {};
                _cleanup_leaves_ Leaves leaves = {};
                Example e;

                example(&e, s);
                compile(&xt_ipv4, XT_FILTER, &e, &chains, &leaves);
                if (s == FW_NONE) {
                        assert_int_equal(chains.n, 0);
                        fw_rules_done(&e.rules);
                        continue;
                }
                /* The first thing a node's packet meets is its identity. */
                const Chain *out = chains_find(&chains, "TBNODE-abc-O");
                assert_string_equal(out->rules.v[0].target, "DROP");
                assert_string_equal(out->rules.v[1].target, "DROP");
                const struct ipt_entry *entry = (const void *) out->rules.v[1].data;
                assert_int_equal(entry->ip.invflags, IPT_INV_SRCIP);
                assert_int_equal(entry->ip.src.s_addr, e.interfaces[0].ipv4.s_addr);
                assert_string_equal(out->rules.v[2].target, "MARK");
                /* The host is closed but for what is declared; and none of ours accepts over other people's heads. */
                assert_string_equal(last_target(&chains, "TBNODE-abc-H"), "DROP");
                assert_string_equal(last_target(&chains, "TBNODE-abc-P"), "DROP");
                for (size_t i = 0; i < chains.n; i++)
                        for (size_t k = 0; k < chains.v[i].rules.n; k++)
                                assert_string_not_equal(chains.v[i].rules.v[k].target, "ACCEPT");
                if (s != FW_OPEN) {
                        assert_string_equal(last_target(&chains, "TBNODE-abc-I"), "DROP");
                        assert_string_equal(last_target(&chains, "TBNODE-abc-O"), "DROP");
                }
                fw_rules_done(&e.rules);
        }
}

static void each_family_and_table(void (*fn)(const XtFamily *f, const Chains *chains))
{
        static const struct {
                const XtFamily *family;
                XtTable table;
        } all[] = {{&xt_ipv4, XT_FILTER}, {&xt_ipv6, XT_FILTER}, {&xt_ipv4, XT_NAT}};

        for (size_t i = 0; i < ELEMENTSOF(all); i++) {
                _cleanup_chains_ Chains chains = {};
                _cleanup_leaves_ Leaves leaves = {};
                Example e;

                example(&e, FW_CLOSED);
                e.site.n_masquerade = e.site.n_networks = 1;
                e.site.masquerade[0] = e.site.networks[0] = e.site.dns[0];
                compile(all[i].family, all[i].table, &e, &chains, &leaves);
                assert_true(chains.n > 3);
                fn(all[i].family, &chains);
                fw_rules_done(&e.rules);
        }
}

static size_t entry_offsets(const XtFamily *f, const uint8_t *data, size_t *ret_next)
{
        const struct ipt_entry *v4 = (const void *) data;
        const struct ip6t_entry *v6 = (const void *) data;

        *ret_next = f->family == AF_INET6 ? v6->next_offset : v4->next_offset;
        return f->family == AF_INET6 ? v6->target_offset : v4->target_offset;
}

static void check_form(const XtFamily *f, const Chains *chains)
{
        for (size_t k = 0; k < chains->n; k++)
                for (size_t i = 0; i < chains->v[k].rules.n; i++) {
                        const Rule *rule = chains->v[k].rules.v + i;
                        size_t next, target = entry_offsets(f, rule->data, &next);
                        const struct xt_entry_target *t = (const void *) (rule->data + target);

                        assert_int_equal(next, rule->size);
                        assert_int_equal(rule->size % 8, 0);
                        assert_int_equal(target + t->u.user.target_size, rule->size);
                        /* As the kernel gives it back: a verdict has no name, and nothing behind the end of a match's name. */
                        _Alignas(8) uint8_t copy[RULE_SIZE_MAX];
                        memcpy(copy, rule->data, rule->size);
                        for (size_t at = f->entry_size; at < target;) {
                                struct xt_entry_match *m = (void *) (copy + at);
                                size_t n = strlen(m->u.user.name) + 1;
                                memset(m->u.user.name + n, 0xbe, sizeof(m->u.user.name) - n);
                                at += m->u.user.match_size;
                        }
                        if (t->u.user.target_size == XT_ALIGN(sizeof(struct xt_standard_target)))
                                copy[target + offsetof(struct xt_entry_target, u.user.name)] = 0;
                        assert_true(rule_equal(f, rule, copy, rule->target));
                        copy[0] ^= 1;
                        assert_false(rule_equal(f, rule, copy, rule->target));
                        copy[0] ^= 1;
                        assert_false(rule_equal(f, rule, copy, "ELSEWHERE"));
                }
}

static void test_rules_are_well_formed(void **state)
{
        each_family_and_table(check_form);
}

static void __attribute__((noinline)) dirty_stack(int value)
{
        volatile unsigned char bytes[8192];

        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (unsigned char) value;
}

/* Rules are compared with the kernel's byte by byte: padding must not depend on what was on the stack. */
static void test_bytes_do_not_depend_on_the_stack(void **state)
{
        Chains chains[2] = {};

        for (int k = 0; k < 2; k++) {
                _cleanup_leaves_ Leaves leaves = {};
                Example e;
                example(&e, FW_BASIC);
                dirty_stack(k ? 0xff : 0x55);
                compile(&xt_ipv6, XT_FILTER, &e, chains + k, &leaves);
                fw_rules_done(&e.rules);
        }
        assert_int_equal(chains[0].n, chains[1].n);
        for (size_t k = 0; k < chains[0].n; k++) {
                const Rules *a = &chains[0].v[k].rules, *b = &chains[1].v[k].rules;
                assert_int_equal(a->n, b->n);
                for (size_t i = 0; i < a->n; i++)
                        assert_memory_equal(a->v[i].data, b->v[i].data, a->v[i].size);
        }
        chains_done(chains);
        chains_done(chains + 1);
}

/* What is written down reads back as the same neutral rule. */
static void test_rules_read_back(void **state)
{
        static const char text[] =
                "allow tcp from 10.1.0.0/16 port 20 to 10.2.0.0/15 port 80-90; deny icmp echo; allow udp; "
                "allow proto 47 to fd00::/9; deny icmp from fe80::1; allow out";
        static const XtFamily *const families[] = {&xt_ipv4, &xt_ipv6};
        _cleanup_fw_rules_ FwRules rules = {};
        TbError *err = NULL;
        size_t seen = 0;

        assert_ok(fw_rules_parse(text, FW_ORIGIN_USER, &rules, &err), err);
        assert_ok(fw_rules_add(&rules,
                          &(FwRule){.origin = FW_ORIGIN_USER,
                                  .states = FW_STATE_ESTABLISHED | FW_STATE_RELATED},
                          &err),
                err);
        for (size_t k = 0; k < ELEMENTSOF(families); k++)
                for (size_t i = 0; i < rules.n; i++) {
                        const XtFamily *f = families[k];
                        Rules encoded = {};
                        FwRule back;
                        Draft d;

                        if (rules.v[i].family != AF_UNSPEC && rules.v[i].family != f->family)
                                continue;
                        draft_begin(&d, f);
                        draft_rule(&d, rules.v + i);
                        draft_end(&d, rules.v[i].verdict == FW_ALLOW ? "RETURN" : "DROP", &encoded);
                        assert_true(xt_rule_decode(f, encoded.v[0].data, encoded.v[0].target, &back));
                        assert_true(fw_rules_equal(
                                &(FwRules){.v = rules.v + i, .n = 1}, &(FwRules){.v = &back, .n = 1}));
                        rules_done(&encoded);
                        seen++;
                }
        assert_int_equal(seen, 4 * 2 + 3);
}

/* ---- Dispatch trees ---------------------------------------------------------------------------------------------- */

/* What the kernel would do with a packet that has this key: how many rules it looks at, and where it ends. */
static const char *walk(const Chains *chains, TreeKind kind, const uint8_t *key, size_t *ret_rules)
{
        char root[XT_FUNCTION_MAXNAMELEN];
        const Chain *c;

        tree_root_name(kind, root);
        c = chains_find(chains, root);
        for (size_t i = 0; c && i < c->rules.n; i++) {
                const Rule *rule = c->rules.v + i;
                const struct ipt_entry *e = (const void *) rule->data;
                const struct xt_entry_match *m = (const void *) e->elems;
                bool match = true;

                (*ret_rules)++;
                if (kind == TREE_SOURCE)
                        for (size_t k = 0; k < 4; k++)
                                match &= ((key[k] ^ ((const uint8_t *) &e->ip.src)[k]) &
                                                 ((const uint8_t *) &e->ip.smsk)[k]) == 0;
                else if (kind == TREE_SSH) {
                        const struct xt_tcp *t = (const void *) m->data;
                        uint16_t port = (uint16_t) (key[0] << 8 | key[1]);
                        match = port >= t->dpts[0] && port <= t->dpts[1];
                } else {
                        const struct xt_physdev_info *p = (const void *) m->data;
                        for (size_t k = 0; k < IFNAMSIZ; k++)
                                match &= ((key[k] ^ (uint8_t) p->physindev[k]) & (uint8_t) p->in_mask[k]) ==
                                        0;
                }
                if (!match)
                        continue;
                if (!chains_find(chains, rule->target))
                        return rule->target;
                c = chains_find(chains, rule->target);
                i = SIZE_MAX;
        }
        return NULL;
}

static void leaf_of(TreeKind kind, unsigned i, Leaf *ret)
{
        unsigned random = i * 2654435761U;

        *ret = (Leaf){.kind = kind};
        if (kind == TREE_SOURCE) {
                uint32_t address = htonl(0x0a090000 + i);
                memcpy(ret->key, &address, 4);
                (void) snprintf(ret->device, sizeof(ret->device), "veth%07x", random >> 4);
                ret->physdev = true;
        } else if (kind == TREE_SSH) {
                ret->key[0] = (uint8_t) ((20000 + i * 3) >> 8);
                ret->key[1] = (uint8_t) (20000 + i * 3);
        } else
                (void) snprintf((char *) ret->key, sizeof(ret->key), "veth%07x", random >> 4);
        (void) snprintf(ret->target, sizeof(ret->target), "T%u", i);
}

static void test_trees(void **state)
{
        static const TreeKind kinds[] = {TREE_SOURCE, TREE_FROM_PORT, TREE_SSH};
        static const unsigned sizes[] = {1, 2, 4, 5, 10, 200, 1000};
        TbError *err = NULL;

        for (size_t k = 0; k < ELEMENTSOF(kinds); k++)
                for (size_t s = 0; s < ELEMENTSOF(sizes); s++) {
                        _cleanup_leaves_ Leaves leaves = {};
                        _cleanup_chains_ Chains chains = {};
                        size_t total = 0, rules = 0, nowhere = 0;
                        Leaf leaf;

                        for (unsigned i = 0; i < sizes[s]; i++) {
                                leaf_of(kinds[k], i, &leaf);
                                assert_ok(leaves_add(&leaves, &leaf, &err), err);
                                assert_ok(leaves_add(&leaves, &leaf, &err), err); /* twice: kept once */
                        }
                        leaves_sort(&leaves);
                        assert_int_equal(leaves.n, sizes[s]);
                        assert_ok(tree_build(&xt_ipv4, leaves.v, leaves.n, NULL, &chains, &err), err);
                        chains_sort(&chains);
                        for (size_t i = 1; i < chains.n; i++)
                                assert_string_not_equal(chains.v[i - 1].name, chains.v[i].name);
                        for (size_t i = 0; i < chains.n; i++)
                                total += chains.v[i].rules.n;
                        for (unsigned i = 0; i < sizes[s]; i++) {
                                leaf_of(kinds[k], i, &leaf);
                                const char *t = walk(&chains, kinds[k], leaf.key, &rules);
                                assert_non_null(t);
                                assert_string_equal(t, leaf.target);
                        }
                        leaf_of(kinds[k], 100000 % 20001, &leaf);
                        leaf.key[1] ^= 0x80;
                        assert_null(walk(&chains, kinds[k], leaf.key, &nowhere));
                        /* Fewer rules than two for each key, and what a packet meets hardly grows. */
                        assert_true(total <= 2 * (size_t) sizes[s]);
                        assert_true(rules / sizes[s] <= (kinds[k] == TREE_FROM_PORT ? 24 : 14));
                        assert_true(nowhere <= (kinds[k] == TREE_FROM_PORT ? 48 : 20));
                }
}

/* One node more changes a chain or two. */
static void test_tree_changes_little(void **state)
{
        static const TreeKind kinds[] = {TREE_SOURCE, TREE_FROM_PORT};
        TbError *err = NULL;

        for (size_t k = 0; k < ELEMENTSOF(kinds); k++) {
                Chains chains[2] = {};
                size_t different = 0;

                for (unsigned with = 0; with < 2; with++) {
                        _cleanup_leaves_ Leaves leaves = {};
                        Leaf leaf;
                        for (unsigned i = 0; i < 500 + with; i++) {
                                leaf_of(kinds[k], i, &leaf);
                                assert_ok(leaves_add(&leaves, &leaf, &err), err);
                        }
                        leaves_sort(&leaves);
                        assert_ok(
                                tree_build(&xt_ipv4, leaves.v, leaves.n, "ELSE", chains + with, &err), err);
                        chains_sort(chains + with);
                }
                for (size_t i = 0; i < chains[1].n; i++) {
                        const Chain *a = chains_find(chains, chains[1].v[i].name), *b = chains[1].v + i;
                        bool same = a && a->rules.n == b->rules.n;
                        for (size_t j = 0; same && j < a->rules.n; j++)
                                same = rule_equal(
                                        &xt_ipv4, a->rules.v + j, b->rules.v[j].data, b->rules.v[j].target);
                        different += !same;
                        assert_string_equal(b->rules.v[b->rules.n - 1].target, "ELSE");
                }
                assert_in_range(different, 1, 3);
                chains_done(chains);
                chains_done(chains + 1);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_networks),
                cmocka_unit_test(test_chain_names),
                cmocka_unit_test(test_styles),
                cmocka_unit_test(test_rules_are_well_formed),
                cmocka_unit_test(test_bytes_do_not_depend_on_the_stack),
                cmocka_unit_test(test_rules_read_back),
                cmocka_unit_test(test_trees),
                cmocka_unit_test(test_tree_changes_little),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

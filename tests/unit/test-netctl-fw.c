/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-rules.h"

#include "tests/unit/test.h"

#include <arpa/inet.h>
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
        char in[XT_FUNCTION_MAXNAMELEN], out[XT_FUNCTION_MAXNAMELEN], id[FW_ID_LENGTH + 1];

        fw_chain_names("0123456789abcdef0123456789abcdef", in, out);
        assert_string_equal(in, "TBNODE-0123456789ab-I");
        assert_string_equal(out, "TBNODE-0123456789ab-O");
        assert_true(strlen(in) <= 28);
        assert_true(fw_chain_id(in, id));
        assert_string_equal(id, "0123456789ab");
        static const char *const others[] = {"TBNODE-FORWARD", "TBNODE-INPUT", "DOCKER", "TBNODE--I",
                "TBNODE-x-Q", "TBNODE-0123456789abc-I", "xTBNODE-1-I", ""};
        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                assert_false(fw_chain_id(others[i], id));
        assert_false(fw_chain_id(NULL, id));
}

static void test_styles(void **state)
{
        FwInterface veth = {.ifname = "veth1",
                .bridge = 7,
                .filtered = true,
                .pinned = true,
                .ipv4 = {.s_addr = htonl(0x0a090001)}};
        FwNode node = {.id = "abc", .interfaces = &veth, .n_interfaces = 1};
        FwSite site = {.n_gateways = 2, .n_servers = 3, .n_dns = 1, .n_ntp = 1};
        TbError *err = NULL;

        for (FwStyle s = 0; s < _FW_STYLE_MAX; s++) {
                NodeRules r;
                node.style = s;
                assert_ok(node_rules_compile(&site, &node, &r, &err), err);
                if (s == FW_NONE)
                        assert_int_equal(r.in.n + r.out.n + r.forward.n + r.input.n, 0);
                else {
                        /* The first thing a node's packet meets is its pinned address. */
                        assert_string_equal(r.out.v[0].target, "DROP");
                        const struct ipt_entry *e = (const void *) r.out.v[0].data;
                        assert_int_equal(e->ip.invflags, IPT_INV_SRCIP);
                        assert_int_equal(e->ip.src.s_addr, veth.ipv4.s_addr);
                        assert_int_equal(r.input.n, 1);
                }
                if (s == FW_BASIC || s == FW_CLOSED) {
                        /* The last rule drops, and none accepts over other people's heads. */
                        assert_string_equal(r.in.v[r.in.n - 1].target, "DROP");
                        assert_string_equal(r.out.v[r.out.n - 1].target, "DROP");
                        for (size_t i = 0; i < r.in.n; i++)
                                assert_string_not_equal(r.in.v[i].target, "ACCEPT");
                        assert_int_equal(r.in.n, s == FW_BASIC ? 1 + 2 + 2 + 1 : 1 + 2 + 3 + 1);
                        assert_int_equal(r.forward.n, 3);
                }
                if (s == FW_OPEN)
                        assert_int_equal(r.forward.n, 1);
                node_rules_done(&r);
        }
}

static void test_rules_are_well_formed(void **state)
{
        FwInterface veth = {.ifname = "fifteen-chars-x",
                .bridge = 7,
                .filtered = true,
                .pinned = true,
                .ipv4 = {.s_addr = 1}};
        FwNode node = {.id = "abc", .style = FW_CLOSED, .interfaces = &veth, .n_interfaces = 1};
        FwSite site = {.n_dns = 1};
        TbError *err = NULL;
        NodeRules r;

        assert_ok(node_rules_compile(&site, &node, &r, &err), err);
        const Rules *all[] = {&r.in, &r.out, &r.forward, &r.input};
        for (size_t k = 0; k < ELEMENTSOF(all); k++)
                for (size_t i = 0; i < all[k]->n; i++) {
                        const Rule *rule = all[k]->v + i;
                        const struct ipt_entry *e = (const void *) rule->data;
                        assert_int_equal(e->next_offset, rule->size);
                        assert_int_equal(rule->size % 8, 0);
                        assert_int_equal(
                                e->target_offset + XT_ALIGN(sizeof(struct xt_standard_target)), rule->size);
                        assert_true(rule_equal(rule, e, rule->target));
                        /* As the kernel gives it back: nothing behind the end of a match's name. */
                        _Alignas(8) uint8_t copy[1024];
                        memcpy(copy, rule->data, rule->size);
                        for (size_t at = sizeof(*e); at < e->target_offset;) {
                                struct xt_entry_match *m = (void *) (copy + at);
                                size_t n = strlen(m->u.user.name) + 1;
                                memset(m->u.user.name + n, 0xbe, sizeof(m->u.user.name) - n);
                                at += m->u.user.match_size;
                        }
                        assert_true(rule_equal(rule, (const void *) copy, rule->target));
                        if (e->target_offset > sizeof(*e)) {
                                copy[e->target_offset - 8] ^= 1;
                                assert_false(rule_equal(rule, (const void *) copy, rule->target));
                        }
                        assert_false(rule_equal(rule, e, "ELSEWHERE"));
                }
        node_rules_done(&r);
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
        FwInterface veth = {
                .ifname = "veth1", .bridge = 7, .filtered = true, .pinned = true, .ipv4 = {.s_addr = 1}};
        FwNode node = {.id = "abc", .style = FW_BASIC, .interfaces = &veth, .n_interfaces = 1};
        FwSite site = {.n_dns = 1, .n_ntp = 1};
        NodeRules r[2];

        for (int k = 0; k < 2; k++) {
                dirty_stack(k ? 0xff : 0x55);
                assert_int_equal(node_rules_compile(&site, &node, r + k, NULL), 0);
        }
        const Rules *a[] = {&r[0].in, &r[0].out, &r[0].forward, &r[0].input};
        const Rules *b[] = {&r[1].in, &r[1].out, &r[1].forward, &r[1].input};
        for (size_t k = 0; k < ELEMENTSOF(a); k++) {
                assert_int_equal(a[k]->n, b[k]->n);
                for (size_t i = 0; i < a[k]->n; i++)
                        assert_memory_equal(a[k]->v[i].data, b[k]->v[i].data, a[k]->v[i].size);
        }
        node_rules_done(r);
        node_rules_done(r + 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_networks),
                cmocka_unit_test(test_chain_names),
                cmocka_unit_test(test_styles),
                cmocka_unit_test(test_rules_are_well_formed),
                cmocka_unit_test(test_bytes_do_not_depend_on_the_stack),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

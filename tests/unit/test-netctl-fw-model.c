/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/fw-model.h"

#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <string.h>

#include "common/cleanup.h"

static FwNetwork net(const char *s)
{
        FwNetwork n = {};
        TbError *err = NULL;

        assert_ok(fw_network_parse(s, &n, &err), err);
        return n;
}

static void test_text(void **state)
{
        static const struct {
                const char *text, *printed;
        } good[] = {
                {"", ""},
                {" ; ;", ""},
                {"allow tcp from 10.1.0.0/16 to port 80", "allow in tcp from 10.1.0.0/16 to port 80"},
                {"deny log out udp to 10.2.3.4 port 53", "deny log out udp to 10.2.3.4 port 53"},
                {"allow tcp to 10.2.3.4", "allow out tcp to 10.2.3.4"},
                {"allow tcp from 10.2.3.4 to 10.9.0.1", "allow in tcp from 10.2.3.4 to 10.9.0.1"},
                {"allow tcp from any to any port 80-81", "allow in tcp to port 80-81"},
                {"allow icmp", "allow in icmp"},
                {"allow out icmp echo from any to any", "allow out icmp echo"},
                {"deny", "deny in"},
                {"allow out any", "allow out"},
                {"allow proto 47 from fd00::/8", "allow in proto 47 from fd00::/8"},
                {"allow proto 1", "allow in icmp"},
                {"allow in tcp from port 20 to port 1024-65535",
                        "allow in tcp from port 20 to port 1024-65535"},
        };
        static const char *const bad[] = {"permit", "allow tcp from", "allow tcp to port",
                "allow tcp to port 0", "allow tcp to port 65536", "allow tcp to port 90-80",
                "allow tcp to port 80,", "allow from to", "allow to port 80", "allow icmp to port 80",
                "allow proto 0", "allow proto 255", "allow tcp from 10.0.0.1 to ::1",
                "allow tcp from 10.0.0.1/8", "allow tcp from nowhere", "allow in out", "allow tcp udp",
                "allow, deny", "allow tcp to port 80 from 10.0.0.1",
                "allow tcp aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};

        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                _cleanup_fw_rules_ FwRules r = {};
                TbError *err = NULL;
                char buf[FW_RULE_TEXT_MAX];
                assert_ok(fw_rules_parse(good[i].text, FW_ORIGIN_SITE, &r, &err), err);
                assert_int_equal(r.n, good[i].printed[0] ? 1 : 0);
                if (r.n > 0) {
                        assert_string_equal(fw_rule_print(r.v, buf), good[i].printed);
                        assert_int_equal(r.v[0].origin, FW_ORIGIN_SITE);
                }
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_fw_rules_ FwRules r = {};
                TbError *err = NULL;
                assert_error(fw_rules_parse(bad[i], FW_ORIGIN_USER, &r, &err), -EINVAL, err);
        }
}

static void test_many(void **state)
{
        _cleanup_fw_rules_ FwRules r = {};
        TbError *err = NULL;
        char text[FW_RULES_TEXT_MAX + 10] = "";
        char buf[FW_RULE_TEXT_MAX];

        assert_ok(fw_rules_parse(
                          "deny ; allow tcp from port 1,2 to port 3 , 4-5, 6", FW_ORIGIN_USER, &r, &err),
                err);
        assert_int_equal(r.n, 7);
        assert_string_equal(fw_rule_print(r.v + 6, buf), "allow in tcp from port 2 to port 6");

        for (int i = 0; i <= FW_RULES_MAX; i++)
                strcat(text, "deny;");
        assert_error(fw_rules_parse(text, FW_ORIGIN_USER, &r, &err), -E2BIG, err);
        memset(text, ' ', sizeof(text) - 1);
        assert_error(fw_rules_parse(text, FW_ORIGIN_USER, &r, &err), -E2BIG, err);
        assert_int_equal(r.n, 7);
}

static void test_firewall_text(void **state)
{
        static const char *const bad[] = {"", "shut", "closed allow tcp", "closed; permit",
                "none; allow icmp", "closed;allow tcp to port 80 ; deny to port 1"};
        _cleanup_fw_rules_ FwRules r = {};
        FwStyle style;
        TbError *err = NULL;

        assert_ok(fw_firewall_parse("closed;allow icmp;deny out udp", &style, &r, &err), err);
        assert_int_equal(style, FW_CLOSED);
        _cleanup_free_ char *text = fw_firewall_print(style, &r);
        assert_string_equal(text, "closed; allow in icmp; deny out udp");
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_error(fw_firewall_parse(bad[i], &style, &r, &err), -EINVAL, err);
}

static void test_networks(void **state)
{
        FwNetwork any = {}, n = net("10.1.128.0/17"), six = net("fd00:1::/33"), a = net("10.1.200.1");
        char buf[FW_NETWORK_TEXT_MAX];

        assert_true(fw_network_contains(&any, &a));
        assert_true(fw_network_contains(&n, &a));
        a = net("10.1.127.255");
        assert_false(fw_network_contains(&n, &a));
        a = net("fd00:1:7fff::1");
        assert_true(fw_network_contains(&six, &a));
        assert_false(fw_network_contains(&n, &a));
        a = net("fd00:1:8000::1");
        assert_false(fw_network_contains(&six, &a));
        assert_string_equal(fw_network_print(&six, buf), "fd00:1::/33");
        assert_string_equal(fw_network_print(&a, buf), "fd00:1:8000::1");
        assert_string_equal(fw_network_print(&any, buf), "any");
        struct in6_addr local = fw_link_local((const uint8_t[6]){2, 0x42, 0xac, 0x11, 0, 2});
        a = fw_network_ipv6(&local);
        assert_string_equal(fw_network_print(&a, buf), "fe80::42:acff:fe11:2");
}

static void test_log_prefix(void **state)
{
        char buf[FW_LOG_PREFIX_MAX];

        assert_string_equal(fw_log_prefix("a", FW_IN, buf), "tbnode a in: ");
        assert_string_equal(
                fw_log_prefix("a-very-long-name-of-a-node", FW_HOST, buf), "tbnode a-very-long-nam host: ");
        assert_int_equal(strlen(buf), FW_LOG_PREFIX_MAX - 1);
}

/* What passes, style by style: the table that the back ends' tests take for true as well. */
static void test_styles(void **state)
{
        FwSite site = {
                .gateways = {net("10.9.0.254")},
                .n_gateways = 1,
                .servers = {net("10.3.0.0/24")},
                .n_servers = 1,
                .dns = {net("10.9.0.53")},
                .n_dns = 1,
                .agent = net("10.9.0.254"),
                .agent_port = 7777,
        };
        FwInterface veth = {.ifname = "veth1", .filtered = true, .pinned = true, .mac = {2, 0, 0, 0, 0, 1}};
        static const char styles[] = {'-', 'o', 'b', 'c', 'e'}; /* in the order of FwStyle */
        static const struct {
                FwDirection direction;
                uint8_t protocol;
                const char *peer;
                uint16_t port;
                const char *passes; /* with which styles */
        } packets[] = {
                {FW_IN, IPPROTO_TCP, "10.9.0.2", 22, "-obe"},
                {FW_IN, IPPROTO_TCP, "10.9.0.2", 80, "-oe"},
                {FW_IN, IPPROTO_TCP, "10.3.0.9", 80, "-oce"},
                {FW_IN, IPPROTO_TCP, "10.9.0.254", 8080, "-obce"},
                {FW_IN, IPPROTO_ICMP, "10.9.0.2", 0, "-obe"},
                {FW_IN, IPPROTO_UDP, "10.9.0.2", 53, "-o"},
                {FW_OUT, IPPROTO_UDP, "10.9.0.53", 53, "-obce"},
                {FW_OUT, IPPROTO_TCP, "10.9.0.53", 80, "-o"},
                {FW_OUT, IPPROTO_ICMP, "10.9.0.2", 0, "-obe"},
                {FW_OUT, IPPROTO_TCP, "10.3.0.9", 80, "-o"},
                {FW_HOST, IPPROTO_TCP, "10.9.0.254", 7777, "-obce"},
                {FW_HOST, IPPROTO_TCP, "10.9.0.254", 5000, "-be"},
                {FW_HOST, IPPROTO_TCP, "10.9.0.1", 5000, "-"},
                {FW_HOST, IPPROTO_ICMP, "10.9.0.254", 0, "-obe"},
        };
        TbError *err = NULL;

        assert_int_equal(inet_pton(AF_INET, "10.9.0.1", &veth.ipv4), 1);
        for (FwStyle s = 0; s < _FW_STYLE_MAX; s++) {
                FwNode node = {.id = "a", .style = s, .interfaces = &veth, .n_interfaces = 1, .agent = true};
                _cleanup_fw_policy_ FwPolicy policy = {};
                assert_ok(fw_policy_compile(&site, &node, &policy, &err), err);
                for (size_t i = 0; i < ELEMENTSOF(packets); i++) {
                        FwPacket p = {
                                .direction = packets[i].direction,
                                .protocol = packets[i].protocol,
                                .echo = packets[i].protocol == IPPROTO_ICMP,
                                .source = net(packets[i].direction == FW_IN ? packets[i].peer : "10.9.0.1"),
                                .destination =
                                        net(packets[i].direction == FW_IN ? "10.9.0.1" : packets[i].peer),
                                .destination_port = packets[i].port,
                        };
                        FwDecision d = fw_explain(&node, &policy, &p);
                        bool passes = strchr(packets[i].passes, styles[s]) != NULL;
                        if ((d.verdict == FW_ALLOW) != passes)
                                fail_msg("style %s, packet %zu", fw_style_to_string(s), i);
                        p.reply = true;
                        assert_int_equal(fw_explain(&node, &policy, &p).verdict, FW_ALLOW);
                }
        }
}

static void test_explain(void **state)
{
        FwInterface veths[2] = {
                {.ifname = "veth1", .filtered = true, .pinned = true}, {.ifname = "veth2", .pinned = true}};
        _cleanup_fw_rules_ FwRules rules = {};
        _cleanup_fw_policy_ FwPolicy policy = {};
        FwNode node = {.id = "a",
                .style = FW_CLOSED,
                .interfaces = veths,
                .n_interfaces = 2,
                .group = 1,
                .rules = &rules};
        FwPacket p = {.protocol = IPPROTO_TCP, .destination_port = 80};
        TbError *err = NULL;
        FwDecision d;

        assert_ok(fw_rules_parse("allow tcp to port 80; deny out; deny in", FW_ORIGIN_USER, &rules, &err),
                err);
        (void) inet_pton(AF_INET, "10.9.0.1", &veths[0].ipv4);
        (void) inet_pton(AF_INET, "10.8.0.1", &veths[1].ipv4);
        assert_ok(fw_policy_compile(NULL, &node, &policy, &err), err);
        p.source = net("10.9.0.2");
        p.destination = net("10.9.0.1");
        d = fw_explain(&node, &policy, &p);
        assert_int_equal(d.verdict, FW_ALLOW);
        assert_int_equal(d.rule->origin, FW_ORIGIN_USER);
        p.peer_group = 2;
        assert_int_equal(fw_explain(&node, &policy, &p).reason, FW_REASON_ISOLATION);
        p.peer_group = 1;
        p.direction = FW_OUT;
        p.source = net("10.9.0.7");
        assert_int_equal(fw_explain(&node, &policy, &p).reason, FW_REASON_IDENTITY);
        p.source = net("10.8.0.1"); /* an experiment interface: the style does not hold there */
        d = fw_explain(&node, &policy, &p);
        assert_int_equal(d.reason, FW_REASON_NO_FIREWALL);
        assert_int_equal(d.verdict, FW_ALLOW);
        p.direction = FW_HOST; /* but the host is closed from there, too */
        assert_int_equal(fw_explain(&node, &policy, &p).verdict, FW_DENY);
        p.direction = FW_OUT;
        p.source = net("10.9.0.1");
        d = fw_explain(&node, &policy, &p);
        assert_int_equal(d.verdict, FW_DENY);
        assert_int_equal(d.rule->origin, FW_ORIGIN_USER);
        assert_int_equal(d.position, 4);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text),
                cmocka_unit_test(test_many),
                cmocka_unit_test(test_firewall_text),
                cmocka_unit_test(test_networks),
                cmocka_unit_test(test_log_prefix),
                cmocka_unit_test(test_styles),
                cmocka_unit_test(test_explain),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

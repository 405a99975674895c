/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/classify.h"

/* The programs are run here as the kernel runs them, on packets that are made up, and compared with what the header of
 * shape-rule.h promises: the first matching rule in order. */

#define MAJOR 0x7462U

typedef struct Packet {
        uint16_t protocol; /* of Ethernet */
        uint8_t data[60];  /* from the network header on */
        size_t size;
} Packet;

/* net/core/filter.c for the instructions that we use; 0 for a load outside of the packet. */
static uint32_t run_program(const Program *program, const Packet *p, unsigned *steps)
{
        uint32_t a = 0, x = 0, mem[16] = {};

        for (size_t pc = 0; pc < program->n; pc++) {
                const struct sock_filter *op = program->ops + pc;
                size_t size = BPF_SIZE(op->code) == BPF_W ? 4 : BPF_SIZE(op->code) == BPF_H ? 2 : 1;
                uint32_t offset = op->k - (uint32_t) SKF_NET_OFF, v = 0;
                (*steps)++;
                switch (op->code) {
                case BPF_LD | BPF_W | BPF_ABS:
                        if (op->k == (uint32_t) (SKF_AD_OFF + SKF_AD_PROTOCOL)) {
                                a = p->protocol;
                                break;
                        }
                        __attribute__((fallthrough));
                case BPF_LD | BPF_H | BPF_ABS:
                case BPF_LD | BPF_B | BPF_ABS:
                case BPF_LD | BPF_H | BPF_IND:
                        if (BPF_MODE(op->code) == BPF_IND)
                                offset += x;
                        if (offset + size > p->size)
                                return 0;
                        for (size_t i = 0; i < size; i++)
                                v = v << 8 | p->data[offset + i];
                        a = v;
                        break;
                case BPF_LDX | BPF_B | BPF_MSH:
                        if (offset >= p->size)
                                return 0;
                        x = 4 * (uint32_t) (p->data[offset] & 0xf);
                        break;
                case BPF_LD | BPF_MEM:
                        a = mem[op->k];
                        break;
                case BPF_LDX | BPF_W | BPF_IMM:
                        x = op->k;
                        break;
                case BPF_ST:
                        mem[op->k] = a;
                        break;
                case BPF_STX:
                        mem[op->k] = x;
                        break;
                case BPF_JMP | BPF_JA:
                        pc += op->k;
                        break;
                case BPF_JMP | BPF_JEQ | BPF_K:
                        pc += a == op->k ? op->jt : op->jf;
                        break;
                case BPF_JMP | BPF_JGE | BPF_K:
                        pc += a >= op->k ? op->jt : op->jf;
                        break;
                case BPF_JMP | BPF_JGT | BPF_K:
                        pc += a > op->k ? op->jt : op->jf;
                        break;
                case BPF_JMP | BPF_JSET | BPF_K:
                        pc += a & op->k ? op->jt : op->jf;
                        break;
                case BPF_RET | BPF_K:
                        return op->k;
                default:
                        fail_msg("instruction %#x at %zu is executed", op->code, pc);
                }
        }
        fail_msg("the program ends without a return");
        return 0;
}

static uint32_t run_programs(const Programs *p, const Packet *packet, unsigned *steps)
{
        for (size_t i = 0; i < p->n; i++) {
                uint32_t answer = run_program(p->v + i, packet, steps);
                if (answer != 0)
                        return answer & 0xffff;
        }
        return 0;
}

static bool in_network(const ShapeAddress *a, const uint8_t *bytes, int family)
{
        if (a->family == AF_UNSPEC)
                return true;
        if (a->family != family)
                return false;
        for (unsigned i = 0; i < a->prefix; i++)
                if ((a->bytes[i / 8] ^ bytes[i / 8]) & (0x80U >> (i % 8)))
                        return false;
        return true;
}

/* What the packet is, and whether a match holds for it: the plain reading of the documentation. */
static bool matches(const ShapeMatch *m, const Packet *p, bool to_node)
{
        bool six = p->protocol == ETH_P_IPV6;
        int family = six ? AF_INET6 : AF_INET;
        const uint8_t *d = p->data, *destination = d + (six ? 24 : 16), *source = d + (six ? 8 : 12);
        uint8_t protocol = d[six ? 6 : 9];
        size_t header = six ? 40 : 4U * (d[0] & 0xf);
        bool ports = protocol == 6 || protocol == 17 || protocol == 33 || protocol == 132 || protocol == 136;
        uint16_t sport, dport;

        if (p->protocol != ETH_P_IP && !six)
                return false;
        if (!six && ((d[6] & 0x1f) || d[7]))
                ports = false;
        sport = (uint16_t) (d[header] << 8 | d[header + 1]);
        dport = (uint16_t) (d[header + 2] << 8 | d[header + 3]);
        if (!in_network(&m->to, to_node ? source : destination, family) ||
                !in_network(&m->from, to_node ? destination : source, family))
                return false;
        if (m->has_protocol && protocol != (six && m->protocol == 1 ? 58 : m->protocol))
                return false;
        uint16_t port = to_node ? sport : dport, own = to_node ? dport : sport;
        if (m->has_port && !(ports && port >= m->port && port <= m->port_last))
                return false;
        return !m->has_sport || (ports && own >= m->sport && own <= m->sport_last);
}

static uint64_t seed = 7;

static uint32_t draw(uint32_t below)
{
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (uint32_t) (seed >> 33) % below;
}

/* Addresses and ports from a small world, so that rules and packets meet. */
static void draw_bytes(uint8_t *bytes, bool six)
{
        static const uint8_t edge[] = {0, 1, 2, 127, 128, 255};

        memset(bytes, 0, 16);
        for (unsigned i = 0; i < (six ? 16U : 4U); i++)
                bytes[i] = edge[draw(draw(3) ? 3 : 6)];
        bytes[0] = six ? 0xfd : 10;
}

static void draw_address(ShapeAddress *a, bool six)
{
        *a = (ShapeAddress){};
        if (draw(4) == 0)
                return;
        a->family = six ? AF_INET6 : AF_INET;
        a->prefix = (uint8_t) (draw(2) ? (six ? 128 : 32) : draw(six ? 129 : 33));
        draw_bytes(a->bytes, six);
        for (unsigned bit = a->prefix; bit < 128; bit++)
                a->bytes[bit / 8] &= (uint8_t) ~(0x80U >> (bit % 8));
}

static uint16_t draw_port(void)
{
        static const uint16_t ports[] = {0, 1, 22, 53, 80, 443, 5000, 5999, 65534, 65535};

        return ports[draw(ELEMENTSOF(ports))];
}

static void draw_ports(bool *has, uint16_t *first, uint16_t *last)
{
        uint16_t a = draw_port(), b = draw_port();

        *has = draw(3) == 0;
        *first = *has ? (a < b ? a : b) : 0;
        *last = *has ? (a < b ? b : a) : 0;
}

static ShapeMatch draw_match(void)
{
        static const uint8_t with_ports[] = {6, 17, 132, 33, 136}, others[] = {1, 47, 58, 0, 255};
        ShapeMatch m = {};
        bool six = draw(2);

        draw_address(&m.to, six);
        draw_address(&m.from, six);
        draw_ports(&m.has_port, &m.port, &m.port_last);
        draw_ports(&m.has_sport, &m.sport, &m.sport_last);
        m.has_protocol = draw(2);
        if (m.has_protocol)
                m.protocol = m.has_port || m.has_sport || draw(2) ? with_ports[draw(5)] : others[draw(5)];
        return m;
}

static Packet draw_packet(void)
{
        static const uint8_t protocols[] = {6, 17, 132, 33, 136, 1, 47, 58, 44};
        uint8_t bytes[16];
        Packet p = {.protocol = draw(20) == 0 ? ETH_P_ARP : draw(2) ? ETH_P_IPV6 : ETH_P_IP, .size = 60};
        bool six = p.protocol == ETH_P_IPV6;
        size_t header = six ? 40 : 20 + 4 * (size_t) draw(3), n = six ? 16 : 4;

        p.data[0] = six ? 0x60 : (uint8_t) (0x40 | header / 4);
        p.data[six ? 6 : 9] = protocols[draw(ELEMENTSOF(protocols))];
        if (!six && draw(4) == 0)
                p.data[7] = 100; /* not the first fragment */
        draw_bytes(bytes, six);
        memcpy(p.data + (six ? 24 : 16), bytes, n);
        draw_bytes(bytes, six);
        memcpy(p.data + (six ? 8 : 12), bytes, n);
        uint16_t sport = draw_port(), dport = draw_port();
        p.data[header] = (uint8_t) (sport >> 8);
        p.data[header + 1] = (uint8_t) sport;
        p.data[header + 2] = (uint8_t) (dport >> 8);
        p.data[header + 3] = (uint8_t) dport;
        return p;
}

static int compare(const void *a, const void *b)
{
        return shape_match_compare(&((const ClassifyRule *) a)->match, &((const ClassifyRule *) b)->match);
}

static void check_carried(const Programs *p, const ClassifyRule *rules, size_t n)
{
        Arena arena = {};
        ClassifyRule *carried;
        size_t count;

        assert_int_equal(classify_decode(p, &arena, &carried, &count), 0);
        assert_int_equal(count, n);
        for (size_t i = 0; i < n; i++) {
                assert_int_equal(shape_match_compare(&carried[i].match, &rules[i].match), 0);
                assert_int_equal(carried[i].minor, rules[i].minor);
        }
        arena_done(&arena);
}

static void test_random(void **state)
{
        for (int round = 0; round < 400; round++) {
                ClassifyRule rules[64];
                Arena arena = {};
                Programs p = {};
                TbError *err = NULL;
                bool to_node = draw(2);
                size_t n = 0, wanted = 1 + draw(round % 10 == 0 ? ELEMENTSOF(rules) : 12);

                for (size_t i = 0; i < wanted; i++)
                        rules[i].match = draw_match();
                qsort(rules, wanted, sizeof(*rules), compare);
                for (size_t i = 0; i < wanted; i++)
                        if (n == 0 || compare(rules + n - 1, rules + i) != 0)
                                rules[n++] = rules[i];
                for (size_t i = 0; i < n; i++)
                        rules[i].minor = (uint16_t) (2 + i);
                assert_ok(classify_compile(rules, n, to_node, MAJOR, &arena, &p, &err), err);
                check_carried(&p, rules, n);
                for (int k = 0; k < 400; k++) {
                        Packet packet = draw_packet();
                        unsigned steps = 0;
                        uint32_t want = 0;
                        for (size_t i = 0; i < n && want == 0; i++)
                                if (matches(&rules[i].match, &packet, to_node))
                                        want = rules[i].minor;
                        assert_int_equal(run_programs(&p, &packet, &steps), want);
                }
                arena_done(&arena);
        }
}

/* The longest way of a packet through the programs for n rules, each for another value of what `kind` says. */
static unsigned longest_way(size_t n, int kind)
{
        _cleanup_free_ ClassifyRule *rules = calloc(n, sizeof(*rules));
        Arena arena = {};
        Programs p = {};
        TbError *err = NULL;
        unsigned longest = 0;

        for (size_t i = 0; i < n; i++) {
                ShapeMatch *m = &rules[i].match;
                if (kind == 2) {
                        m->has_port = true;
                        m->port = m->port_last = (uint16_t) i;
                } else {
                        m->to.family = kind == 1 ? AF_INET6 : AF_INET;
                        m->to.prefix = kind == 1 ? 128 : 32;
                        m->to.bytes[0] = 10;
                        m->to.bytes[kind == 1 ? 6 : 1] = (uint8_t) (i >> 8);
                        m->to.bytes[kind == 1 ? 7 : 2] = (uint8_t) i;
                        m->to.bytes[kind == 1 ? 15 : 3] = 1; /* as hosts of many networks have it */
                }
                rules[i].minor = (uint16_t) (2 + i);
        }
        qsort(rules, n, sizeof(*rules), compare);
        assert_ok(classify_compile(rules, n, false, MAJOR, &arena, &p, &err), err);
        for (size_t i = 0; i < n; i++) {
                Packet packet = {.protocol = kind == 1 ? ETH_P_IPV6 : ETH_P_IP, .size = 60};
                const ShapeMatch *m = &rules[i].match;
                unsigned steps = 0;
                packet.data[0] = kind == 1 ? 0x60 : 0x45;
                packet.data[9] = 17;
                memcpy(packet.data + (kind == 1 ? 24 : 16), m->to.bytes, kind == 1 ? 16 : 4);
                if (kind == 2) {
                        packet.data[22] = (uint8_t) (m->port >> 8);
                        packet.data[23] = (uint8_t) m->port;
                }
                assert_int_equal(run_programs(&p, &packet, &steps), rules[i].minor);
                longest = steps > longest ? steps : longest;
        }
        for (size_t i = 0; i < p.n; i++)
                assert_true(p.v[i].n <= CLASSIFY_OPS_MAX);
        arena_done(&arena);
        return longest;
}

/* P21: the cost of a packet hardly grows with the number of rules, wherever they differ. */
static void test_cost(void **state)
{
        for (int kind = 0; kind < 3; kind++) {
                unsigned ten = longest_way(10, kind), thousand = longest_way(1000, kind),
                         all = longest_way(SHAPE_RULES_MAX, kind);
                print_message("kind %d: %u instructions for 10 rules, %u for 1000, %u for %u\n", kind, ten,
                        thousand, all, SHAPE_RULES_MAX);
                assert_true(thousand <= ten + 60);
                assert_true(all <= ten + 250);
        }
}

static void test_damaged_is_not_read(void **state)
{
        ClassifyRule rule = {.minor = 2}, *rules;
        Arena arena = {};
        Programs p = {};
        TbError *err = NULL;
        size_t n;

        rule.match.to = (ShapeAddress){.family = AF_INET, .prefix = 32, .bytes = {10, 0, 0, 1}};
        assert_ok(classify_compile(&rule, 1, false, MAJOR, &arena, &p, &err), err);
        assert_int_equal(p.n, 1);
        Program *last = p.v;
        last->ops[last->n - 2].code = BPF_RET | BPF_K; /* the address is cut off */
        assert_int_equal(classify_decode(&p, &arena, &rules, &n), -EBADMSG);
        arena_done(&arena);
}

static void test_too_complex(void **state)
{
        _cleanup_free_ ClassifyRule *rules = calloc(SHAPE_RULES_MAX, sizeof(*rules));
        Arena arena = {};
        Programs p = {};
        TbError *err = NULL;

        /* Every pair of ranges crosses: each is 1..k of one port and k.. of the other. */
        for (unsigned i = 0; i < SHAPE_RULES_MAX; i++) {
                ShapeMatch *m = &rules[i].match;
                m->has_port = m->has_sport = true;
                m->port = (uint16_t) i;
                m->port_last = (uint16_t) (40000 + i);
                m->sport = (uint16_t) (5000 - i);
                m->sport_last = (uint16_t) (60000 - i);
                rules[i].minor = (uint16_t) (2 + i);
        }
        qsort(rules, SHAPE_RULES_MAX, sizeof(*rules), compare);
        assert_error(classify_compile(rules, SHAPE_RULES_MAX, false, MAJOR, &arena, &p, &err), -E2BIG, err);
        arena_done(&arena);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random),
                cmocka_unit_test(test_cost),
                cmocka_unit_test(test_damaged_is_not_read),
                cmocka_unit_test(test_too_complex),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

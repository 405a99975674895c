/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netctl/plan.h"
#include "netctl/state.h"

/* Properties of the planner: plan(x, x) is empty; carrying out plan(d, a) on a gives d; and then plan(d, a) is empty. */

static uint64_t seed = 42;
static Arena arena;

static uint32_t draw(uint32_t below)
{
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (uint32_t) (seed >> 33) % below;
}

/* One of each row (NULL: none), so that every field of a shape takes part; what does not go together is left out. */
static Shape random_shape(void)
{
        static const char *const rows[][6] = {
                {"rate 1mbit", "rate 1mbit overhead 24 mpu 64 linklayer atm",
                        "rate 5mbit burst 32kb quantum 3000b", "rate 77kbit", NULL, NULL},
                {"delay 5ms", "delay 5ms 1ms distribution normal", "delay 6ms 1ms",
                        "delay 7ms reorder 5% gap 3", NULL, NULL},
                {"loss 1% 5%", "loss state 1% 50%", "loss gemodel 1% 10% ecn", "loss 2% ecn", NULL, NULL},
                {"duplicate 1%", "corrupt 1% 2%", "seed 0", "seed 1", NULL, NULL},
                {"slot 1ms 2ms packets 3", "slot distribution pareto 3ms 1ms bytes 5", NULL, NULL, NULL,
                        NULL},
                {"limit 55", "limit 64kb", "limit 66", NULL, NULL, NULL},
                {"queue red", "queue red min 20kb harddrop ecn", NULL, NULL, NULL, NULL},
                {"link down", NULL, NULL, NULL, NULL, NULL},
        };
        Shape s = {};

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                const char *spec = rows[i][draw(ELEMENTSOF(rows[i]))];
                TbError *err = NULL;
                ShapePair p;
                Shape out;
                if (!spec || draw(2))
                        continue;
                assert_ok(shape_spec_parse(spec, &p, &err), err);
                shape_merge(&s, &p.up, &out);
                if (shape_validate(&out, "up", NULL) >= 0)
                        s = out;
        }
        return s;
}

/* A few rules out of a small world, in order. */
static size_t random_rules(ShapeRule rules[static 8])
{
        size_t n = 0;

        for (unsigned i = 0; i < 8; i++) {
                if (draw(2))
                        continue;
                ShapeRule *r = rules + n++;
                *r = (ShapeRule){
                        .match = {
                                .to = {.family = AF_INET, .prefix = 32, .bytes = {10, 0, 0, (uint8_t) i}}}};
                r->up_action = draw(3) ? SHAPE_RULE_SHAPE : SHAPE_RULE_NONE;
                r->down_action = !r->up_action || draw(3) ? SHAPE_RULE_SHAPE : SHAPE_RULE_NONE;
                r->up = r->up_action ? random_shape() : (Shape){};
                r->down = r->down_action ? random_shape() : (Shape){};
        }
        return n;
}

static void add_rules(const ShapeRule *rules, size_t n, const IfaceState *actual, IfaceState *desired)
{
        TbError *err = NULL;
        bool netem = draw(2);

        if (desired->down.owner == TC_OURS)
                assert_ok(tree_add_rules(
                                  rules, n, false, 1500, &actual->down, netem, &arena, &desired->down, &err),
                        err);
        if (desired->up.owner == TC_OURS)
                assert_ok(tree_add_rules(rules, n, true, 1500, actual->ifb.present ? &actual->up : NULL,
                                  netem, &arena, &desired->up, &err),
                        err);
}

static void add_class_of_somebody(TcTree *t, uint16_t minor)
{
        TcRule *rules = arena_alloc(&arena, t->n_rules + 1, sizeof(*rules));

        assert_non_null(rules);
        if (t->n_rules > 0)
                memcpy(rules, t->rules, t->n_rules * sizeof(*rules));
        rules[t->n_rules] = (TcRule){.minor = minor, .has_class = true};
        htb_class_for_rate(1000000, 1500, &rules[t->n_rules].htb_class);
        t->rules = rules;
        t->n_rules++;
}

/* A state that the kernel can be in: whole, half-made or damaged, but not foreign. */
static IfaceState random_state(void)
{
        IfaceState empty = {.veth = 7}, s;
        Shape up = random_shape(), down = random_shape();

        assert_int_equal(iface_from_shapes(draw(3) ? &up : NULL, draw(3) ? &down : NULL, 1500, "abc", &empty,
                                 draw(2), &s),
                0);
        if (draw(3) == 0) {
                ShapeRule rules[8];
                add_rules(rules, random_rules(rules), &empty, &s);
        }
        switch (draw(11)) {
        case 0:
                s.down = (TcTree){};
                break;
        case 1:
                if (s.down.owner == TC_OURS)
                        s.down.leaf = (Leaf){};
                break;
        case 2:
                if (s.down.owner == TC_OURS) {
                        s.down.has_class = false;
                        s.down.leaf = (Leaf){};
                }
                break;
        case 3:
                s.ingress = (IngressState){};
                break;
        case 4:
                s.ingress.filtered = false;
                s.ingress.redirect = 0;
                break;
        case 5:
                s.ingress.redirect = 99;
                break;
        case 6:
                if (s.ifb.present)
                        s.ifb.up = false;
                break;
        case 7: /* a rule's class is gone, with its leaf */
                if (s.down.n_rules > 0)
                        s.down.n_rules--;
                break;
        case 8: /* interrupted while programs were exchanged */
                s.down.programs[1] = s.down.programs[0];
                break;
        case 9: /* somebody has made classes by hand, one with a number that no rule can have */
                if (s.down.owner == TC_OURS)
                        add_class_of_somebody(&s.down, draw(2) ? 0xfff0 : TC_CLASS_RULES + 20);
                break;
        default:
                break;
        }
        return s;
}

static NetctlChange plan_and_run(const IfaceState *desired, IfaceState *actual, size_t *ret_ops)
{
        _cleanup_plan_ Plan plan = {};
        TbError *err = NULL;
        NetctlChange change = _NETCTL_CHANGE_INVALID;

        assert_ok(plan_iface(desired, actual, false, 0, &plan, &change, &err), err);
        for (size_t i = 0; i < plan.n; i++)
                plan_simulate(plan.ops + i, actual, &arena);
        *ret_ops = plan.n;
        return change;
}

static void test_same_is_empty(void **state)
{
        for (int i = 0; i < 20000; i++) {
                IfaceState s = random_state(), t = s;
                size_t ops;
                /* A whole state, not a damaged one. */
                if (s.ifb.present &&
                        (s.ingress.redirect != s.ifb.ifindex || !s.ingress.filtered || !s.ifb.up))
                        continue;
                assert_int_equal(plan_and_run(&s, &t, &ops), NETCTL_UNCHANGED);
                assert_int_equal(ops, 0);
        }
}

/* Other rules come and go: whoever stays as he is keeps his class, and no operation is for it. */
static void check_rules_untouched(const TcTree *desired, const IfaceState *actual, bool up, const Plan *plan)
{
        const TcTree *before = up ? &actual->up : &actual->down;
        uint32_t device = up ? actual->ifb.ifindex : actual->veth;

        for (size_t i = 0; i < desired->n_rules; i++) {
                const TcRule *r = desired->rules + i, *old = NULL;
                for (size_t k = 0; k < before->n_rules; k++)
                        if (before->rules[k].match &&
                                shape_match_compare(before->rules[k].match, r->match) == 0)
                                old = before->rules + k;
                if (!old)
                        continue;
                assert_int_equal(old->minor, r->minor);
                bool same = htb_class_equal(&old->htb_class, &r->htb_class) &&
                        old->leaf.major == r->leaf.major &&
                        leaf_vtable(r->leaf.kind)->equal(&old->leaf, &r->leaf);
                for (size_t k = 0; k < plan->n && same; k++)
                        if (plan->ops[k].device == device && plan->ops[k].minor == r->minor)
                                assert_int_equal(plan->ops[k].kind, -1);
        }
}

static void test_rules(void **state)
{
        for (int i = 0; i < 4000; i++) {
                IfaceState actual = {.veth = 7}, desired;
                ShapeRule rules[8];
                Shape up = random_shape(), down = random_shape();
                size_t ops;

                for (int step = 0; step < 4; step++) {
                        size_t n = random_rules(rules);
                        _cleanup_plan_ Plan plan = {};
                        NetctlChange change;
                        TbError *err = NULL;
                        assert_int_equal(
                                iface_from_shapes(&up, &down, 1500, "abc", &actual, true, &desired), 0);
                        add_rules(rules, n, &actual, &desired);
                        assert_ok(plan_iface(&desired, &actual, false, 0, &plan, &change, &err), err);
                        if (step > 0) {
                                check_rules_untouched(&desired.down, &actual, false, &plan);
                                check_rules_untouched(&desired.up, &actual, true, &plan);
                                assert_true(change <= NETCTL_LEAF_REPLACED);
                        }
                        (void) plan_and_run(&desired, &actual, &ops);
                        assert_int_equal(plan_and_run(&desired, &actual, &ops), NETCTL_UNCHANGED);
                        assert_int_equal(ops, 0);
                        assert_int_equal(tree_name_rules(&actual.down, &arena), 0);
                        assert_int_equal(tree_name_rules(&actual.up, &arena), 0);
                        for (size_t k = 0; k < actual.down.n_rules; k++)
                                assert_non_null(actual.down.rules[k].match);
                }
                arena_done(&arena);
        }
}

/* More new rules than there are free classes: those that go are taken over. */
static void test_all_rules_change(void **state)
{
        ShapeRule *rules = calloc(SHAPE_RULES_MAX, sizeof(*rules));
        IfaceState actual = {.veth = 7}, desired;
        Shape s = {.set = 1 << SHAPE_RATE, .rate_bps = 1000000};
        size_t ops;

        assert_non_null(rules);
        for (int step = 0; step < 2; step++) {
                for (unsigned i = 0; i < SHAPE_RULES_MAX; i++)
                        rules[i] = (ShapeRule){
                                .match = {.to = {.family = AF_INET,
                                                  .prefix = 32,
                                                  .bytes = {10, (uint8_t) step, (uint8_t) (i >> 8),
                                                          (uint8_t) i}}},
                                .down_action = SHAPE_RULE_SHAPE,
                                .down = s,
                        };
                assert_int_equal(iface_from_shapes(NULL, &s, 1500, "abc", &actual, true, &desired), 0);
                add_rules(rules, SHAPE_RULES_MAX, &actual, &desired);
                assert_int_equal(desired.down.n_rules, SHAPE_RULES_MAX);
                (void) plan_and_run(&desired, &actual, &ops);
                assert_int_equal(plan_and_run(&desired, &actual, &ops), NETCTL_UNCHANGED);
                assert_int_equal(tree_name_rules(&actual.down, &arena), 0);
        }
        arena_done(&arena);
        free(rules);
}

#define BIT(f) (UINT64_C(1) << (f))

/* What is not told back is not expected, what was chosen for the user is. */
static void expected_back(const Shape *back, Shape *want)
{
        const uint64_t of_class = BIT(SHAPE_RATE) | BIT(SHAPE_OVERHEAD) | BIT(SHAPE_MPU) |
                BIT(SHAPE_LINKLAYER) | BIT(SHAPE_LINK);

        if (shape_has(want, SHAPE_RATE))
                want->rate_bps = (want->rate_bps + 4) / 8 * 8;
        want->set &= ~(BIT(SHAPE_BURST) | BIT(SHAPE_QUANTUM));
        if (shape_has(want, SHAPE_LINK)) {
                want->set &= of_class;
                return;
        }
        if (shape_has(want, SHAPE_QUEUE)) {
                if (!shape_has(want, SHAPE_RED_MIN))
                        want->red_min = back->red_min;
                want->red_max = back->red_max;
                want->red_probability = back->red_probability;
                want->set |= BIT(SHAPE_RED_MIN) | BIT(SHAPE_RED_MAX) | BIT(SHAPE_RED_PROBABILITY);
                want->limit_bytes = MAX2(shape_effective_limit_bytes(want, 1500), back->red_max);
                want->set |= BIT(SHAPE_LIMIT_BYTES);
        } else if (!shape_has(want, SHAPE_LIMIT_BYTES)) {
                want->limit = shape_effective_limit(want, 1500);
                want->set |= BIT(SHAPE_LIMIT);
        }
}

static void test_reaches_desired(void **state)
{
        for (int i = 0; i < 50000; i++) {
                IfaceState actual = random_state(), desired;
                Shape up = random_shape(), down = random_shape();
                bool want_up = draw(3), want_down = draw(3);
                size_t ops;

                assert_int_equal(iface_from_shapes(want_up ? &up : NULL, want_down ? &down : NULL, 1500,
                                         "abc", &actual, draw(2), &desired),
                        0);
                ShapeRule rules[8];
                if (draw(2))
                        add_rules(rules, random_rules(rules), &actual, &desired);
                (void) plan_and_run(&desired, &actual, &ops);
                assert_int_equal(plan_and_run(&desired, &actual, &ops), NETCTL_UNCHANGED);
                assert_int_equal(ops, 0);
                if (i % 100 == 99)
                        arena_done(&arena);
                assert_int_equal(actual.down.owner, want_down ? TC_OURS : TC_NONE);
                assert_int_equal(actual.ifb.present, want_up);
                assert_int_equal(actual.ingress.owner, want_up ? TC_OURS : TC_NONE);

                /* What is read back is what was declared. */
                Shape back, want = down;
                if (!want_down)
                        continue;
                tree_to_shape(&actual.down, &back);
                expected_back(&back, &want);
                assert_true(shape_equal(&back, &want));
        }
}

/* Parameters of the same kind of leaf change in place: no packet is lost (P13). */
static void test_live_changes_are_in_place(void **state)
{
        IfaceState actual = {.veth = 7}, desired;
        Shape slow = {.set = UINT64_C(1) << SHAPE_RATE, .rate_bps = 2000000},
              fast = {.set = UINT64_C(1) << SHAPE_RATE, .rate_bps = 10000000};
        Shape delayed = {.set = UINT64_C(1) << SHAPE_DELAY, .delay_ns = 20000000}, nothing = {};
        size_t ops;

        for (int netem = 0; netem < 2; netem++) {
                actual = (IfaceState){.veth = 7};
                assert_int_equal(iface_from_shapes(&fast, &fast, 1500, "abc", &actual, netem, &desired), 0);
                assert_int_equal(plan_and_run(&desired, &actual, &ops), NETCTL_REBUILT);
                assert_int_equal(
                        iface_from_shapes(&slow, &nothing, 1500, "abc", &actual, netem, &desired), 0);
                assert_int_equal(plan_and_run(&desired, &actual, &ops), NETCTL_IN_PLACE);
                assert_int_equal(
                        iface_from_shapes(&delayed, &nothing, 1500, "abc", &actual, netem, &desired), 0);
                assert_int_equal(plan_and_run(&desired, &actual, &ops),
                        netem ? NETCTL_IN_PLACE : NETCTL_LEAF_REPLACED);
        }
}

static void test_foreign_is_refused(void **state)
{
        IfaceState desired, actual = {.veth = 7, .down = {.owner = TC_FOREIGN, .kind = "fq_codel"}};
        Shape s = {.set = UINT64_C(1) << SHAPE_RATE, .rate_bps = 1000000};
        _cleanup_plan_ Plan plan = {};
        TbError *err = NULL;
        NetctlChange change;

        assert_int_equal(iface_from_shapes(&s, &s, 1500, "abc", &actual, false, &desired), 0);
        assert_error(plan_iface(&desired, &actual, false, 0, &plan, &change, &err), -EEXIST, err);
        assert_int_equal(plan.n, 0);

        /* Nothing wanted there: it is none of our business. */
        IfaceState none = {.veth = 7};
        assert_ok(plan_iface(&none, &actual, false, 0, &plan, &change, &err), err);
        assert_int_equal(plan.n, 0);

        actual = (IfaceState){.veth = 7, .ingress = {.owner = TC_FOREIGN, .kind = "clsact"}};
        assert_error(plan_iface(&desired, &actual, false, 0, &plan, &change, &err), -EEXIST, err);
        actual = (IfaceState){.veth = 7, .ifb = {.foreign = true, .name = "tbi7"}};
        assert_error(plan_iface(&desired, &actual, false, 0, &plan, &change, &err), -EEXIST, err);
        assert_int_equal(plan.n, 0);
}

/* When the user says so they go first; a device in our ifb's place stays. */
static void test_foreign_is_replaced_when_allowed(void **state)
{
        IfaceState desired,
                actual = {.veth = 7,
                        .down = {.owner = TC_FOREIGN, .kind = "fq_codel"},
                        .ingress = {.owner = TC_FOREIGN, .kind = "clsact"}};
        Shape s = {.set = 1 << SHAPE_RATE, .rate_bps = 1000000};
        _cleanup_plan_ Plan plan = {};
        TbError *err = NULL;
        NetctlChange change;

        assert_int_equal(iface_from_shapes(&s, &s, 1500, "abc", &actual, false, &desired), 0);
        assert_ok(plan_iface(&desired, &actual, true, 0, &plan, &change, &err), err);
        assert_int_equal(plan.ops[0].kind, OP_FOREIGN_ROOT_DELETE);
        assert_int_equal(change, NETCTL_REBUILT);
        IfaceState before = actual;
        for (size_t i = 0; i < plan.n; i++)
                plan_simulate(plan.ops + i, &actual, &arena);
        plan.n = 0;
        assert_ok(plan_iface(&desired, &actual, false, 0, &plan, &change, &err), err);
        assert_int_equal(plan.n, 0);
        /* The way back takes ours away; theirs can't be made again. */
        assert_ok(plan_iface(&before, &actual, false, 0, &plan, &change, &err), err);
        for (size_t i = 0; i < plan.n; i++)
                plan_simulate(plan.ops + i, &actual, &arena);
        assert_int_equal(actual.down.owner, TC_NONE);
        assert_int_equal(actual.ingress.owner, TC_NONE);
        assert_false(actual.ifb.present);

        actual = (IfaceState){.veth = 7, .ifb = {.foreign = true, .name = "tbi7"}};
        assert_error(plan_iface(&desired, &actual, true, 0, &plan, &change, &err), -EEXIST, err);
}

/* An ifb carries its whole tree before it is up and packets are sent to it, and gets none any more before it goes. */
static void test_order(void **state)
{
        IfaceState desired, actual = {.veth = 7}, none = {.veth = 7};
        Shape s = {.set = UINT64_C(1) << SHAPE_RATE, .rate_bps = 1000000};
        _cleanup_plan_ Plan plan = {};
        TbError *err = NULL;
        NetctlChange change;

        assert_int_equal(iface_from_shapes(&s, NULL, 1500, "abc", &actual, false, &desired), 0);
        assert_ok(plan_iface(&desired, &actual, false, 0, &plan, &change, &err), err);
        static const OpKind up[] = {OP_IFB_CREATE, OP_ROOT_ADD, OP_CLASS_ADD, OP_LEAF_ADD, OP_IFB_SETUP,
                OP_INGRESS_ADD, OP_FILTER_ADD};
        assert_int_equal(plan.n, ELEMENTSOF(up));
        for (size_t i = 0; i < ELEMENTSOF(up); i++)
                assert_int_equal(plan.ops[i].kind, up[i]);
        plan.n = 0;
        assert_ok(plan_iface(&none, &desired, false, 0, &plan, &change, &err), err);
        assert_int_equal(plan.n, 2);
        assert_int_equal(plan.ops[0].kind, OP_INGRESS_DELETE);
        assert_int_equal(plan.ops[1].kind, OP_IFB_DELETE);
}

static void test_htb_rules(void **state)
{
        static const uint64_t rates[] = {
                1000, 9600, 100000, 10000000, UINT64_C(1000000000), UINT64_C(40000000000), 0};

        for (size_t i = 0; i < ELEMENTSOF(rates); i++) {
                HtbClass c;
                htb_class_for_rate(rates[i], 1500, &c);
                /* P3: HTB warns outside of 1000..200000. */
                assert_in_range(c.quantum, 1514, 60000);
                /* P4, P5: at least a frame and 4 ms, rounded up, never 0. */
                uint64_t rate = rates[i] ? rates[i] : TC_UNLIMITED;
                assert_true(htb_burst_bytes(&c) >= 1513);
                assert_true(c.buffer * UINT64_C(64) >= 4000000);
                assert_int_equal(c.rate, rate / 8);
        }
}

static void test_ifb_alias(void **state)
{
        char id[TC_ALIAS_MAX];
        uint32_t veth;
        IfbState ifb;

        assert_int_equal(ifb_identity(1234567, "4f5d0aa", &ifb), 0);
        assert_string_equal(ifb.name, "tbi1234567");
        assert_true(ifb_parse_alias(ifb.alias, id, &veth));
        assert_string_equal(id, "4f5d0aa");
        assert_int_equal(veth, 1234567);
        static const char *const bad[] = {"", "tbnode:", "tbnode::5:up", "tbnode:x:0:up", "tbnode:x:5",
                "tbnode:x:5:down", "tbnode:x:5:up ", "other:x:5:up", "tbnode:x:99999999999:up",
                "tbnode:x:-1:up"};
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_false(ifb_parse_alias(bad[i], id, &veth));
        assert_int_equal(ifb_identity(0, "a", &ifb), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_same_is_empty),
                cmocka_unit_test(test_reaches_desired),
                cmocka_unit_test(test_rules),
                cmocka_unit_test(test_all_rules_change),
                cmocka_unit_test(test_live_changes_are_in_place),
                cmocka_unit_test(test_foreign_is_refused),
                cmocka_unit_test(test_foreign_is_replaced_when_allowed),
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_htb_rules),
                cmocka_unit_test(test_ifb_alias),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

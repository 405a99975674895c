/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <string.h>

#include "agent/node-shape.h"
#include "agent/node.h"
#include "agent/shape-schedule.h"
#include "common/cleanup.h"

#define S UINT64_C(1000000)

static void test_for(void **state)
{
        static const char *const bad[] = {"", "x", "0", "99ms", "31d", "40000000s", "-1s", "30 s"};
        TbError *err = NULL;
        uint64_t us = 0;

        assert_ok(shape_for_parse("30s", &us, &err), err);
        assert_int_equal(us, 30 * S);
        assert_ok(shape_for_parse("100ms", &us, &err), err);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                int r = shape_for_parse(bad[i], &us, &err);
                if (r >= 0)
                        fail_msg("'%s' was accepted", bad[i]);
                err = tb_error_free(err);
        }
}

static void test_flap_phases(void **state)
{
        TbError *err = NULL;
        ShapeFlap f;

        assert_ok(shape_flap_parse("2s 5s 3", 100 * S, &f, &err), err);
        assert_int_equal(shape_flap_next(&f, 50 * S), 100 * S);
        assert_false(shape_flap_is_down(&f, 99 * S));
        /* Down 100..102, 107..109, 114..116; up in between and for good. */
        for (uint64_t t = 100; t < 130; t++) {
                bool down = (t >= 100 && t < 102) || (t >= 107 && t < 109) || (t >= 114 && t < 116);
                assert_int_equal(shape_flap_is_down(&f, t * S), down);
        }
        assert_int_equal(shape_flap_next(&f, 100 * S), 102 * S);
        assert_int_equal(shape_flap_next(&f, 102 * S), 107 * S);
        assert_int_equal(shape_flap_next(&f, 106 * S), 107 * S);
        assert_int_equal(shape_flap_next(&f, 115 * S), 116 * S);
        assert_true(shape_flap_next(&f, 116 * S) == UINT64_MAX);
        assert_true(shape_flap_next(&f, 500 * S) == UINT64_MAX);

        /* For ever; edges follow one another. */
        assert_ok(shape_flap_parse("100ms 300ms", 7, &f, &err), err);
        uint64_t t = 7;
        for (int i = 0; i < 1000; i++) {
                assert_int_equal(shape_flap_is_down(&f, t), i % 2 == 0);
                uint64_t next = shape_flap_next(&f, t);
                assert_int_equal(next - t, i % 2 == 0 ? 100000 : 300000);
                t = next;
        }
        assert_false(shape_flap_is_down(&(ShapeFlap){}, t));
        assert_true(shape_flap_next(&(ShapeFlap){}, t) == UINT64_MAX);
}

static void test_bad_flaps(void **state)
{
        static const char *const bad[] = {"", "1s", "1s 2s 3 4", "1s 2s 0", "1s 2s x", "1ms 1s", "1s 1ms",
                "2000000s 1s", "1s 2s 1000001", "a b"};

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                TbError *err = NULL;
                ShapeFlap f = {.count = 42};
                if (shape_flap_parse(bad[i], 0, &f, &err) >= 0)
                        fail_msg("'%s' was accepted", bad[i]);
                assert_int_equal(err->kind, TB_ERROR_CONFIG);
                assert_int_equal(f.count, 42);
                tb_error_free(err);
        }
}

/* An instant survives the agent, and in substance the host's next boot. */
static void test_instants(void **state)
{
        ShapeClock now = {.boot_us = 1000 * S, .real_us = 1700000000 * S, .boot = "a"},
                   later = {.boot_us = 10 * S, .real_us = 1700000060 * S, .boot = "b"};
        TbError *err = NULL;
        uint64_t t = 0;

        json_t *j = shape_instant_to_json(1090 * S, &now);
        assert_non_null(j);
        assert_ok(shape_instant_from_json(j, &now, &t, &err), err);
        assert_int_equal(t, 1090 * S);
        /* 60 s later by the wall clock, in another boot: 30 s are left. */
        assert_ok(shape_instant_from_json(j, &later, &t, &err), err);
        assert_int_equal(t, 40 * S);
        /* Long over, before this boot began: over. */
        later.real_us = 1800000000 * S;
        assert_ok(shape_instant_from_json(j, &later, &t, &err), err);
        assert_true(t > 0 && t <= later.boot_us);
        json_decref(j);

        j = json_pack("{s:s}", "boot", "a");
        int r = shape_instant_from_json(j, &now, &t, &err);
        assert_true(r >= 0 || err);
        tb_error_free(err);
        json_decref(j);
}

static uint64_t rate_of(const Node *n, const char *network)
{
        _cleanup_link_shape_ LinkShape shape = {};
        TbError *err = NULL;

        assert_ok(node_shape(n, network, &shape, &err), err);
        return shape.base.up.rate_bps;
}

/* Every batch asks for the shapes of all nodes: the text is read when it is new, and never again. */
static void test_labels_are_parsed_once(void **state)
{
        char text[64] = "rate 10mbit; to 10.0.0.1 rate 1mbit";
        NetworkShape shapes[] = {{.spec = text}};
        Node n = {.labels = {.shapes = shapes, .n_shapes = 1}};
        _cleanup_link_shape_ LinkShape shape = {};
        TbError *err = NULL;

        assert_int_equal(rate_of(&n, "lan0"), 10000000);
        assert_int_equal(rate_of(&n, "lan1"), 10000000);
        assert_int_equal(n.n_parsed, 1);
        n.parsed[0].shape.base.up.rate_bps = 77; /* whoever reads the text again doesn't see that */
        assert_int_equal(rate_of(&n, "lan0"), 77);

        /* Other labels (a container that was made anew under the same name). */
        (void) snprintf(text, sizeof(text), "rate 20mbit");
        assert_int_equal(rate_of(&n, "lan0"), 20000000);
        /* What is wrong is wrong each time. */
        (void) snprintf(text, sizeof(text), "rate 20 miles");
        for (int i = 0; i < 2; i++) {
                assert_true(node_shape(&n, "lan0", &shape, &err) < 0);
                err = tb_error_free(err);
        }
        assert_int_equal(n.n_parsed, 2);
        for (unsigned i = 1; i <= 3 * NODE_OVERRIDES_MAX; i++) {
                (void) snprintf(text, sizeof(text), "rate %ukbit", i);
                assert_int_equal(rate_of(&n, "lan0"), i * 1000);
                assert_in_range(n.n_parsed, 1, NODE_OVERRIDES_MAX);
        }
        parsed_shapes_done(n.parsed, n.n_parsed);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_for),
                cmocka_unit_test(test_flap_phases),
                cmocka_unit_test(test_bad_flaps),
                cmocka_unit_test(test_instants),
                cmocka_unit_test(test_labels_are_parsed_once),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

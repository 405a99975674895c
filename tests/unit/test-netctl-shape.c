/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

#include <stdlib.h>
#include <string.h>

#include "netctl/shape.h"

static ShapePair parse(const char *spec)
{
        TbError *err = NULL;
        ShapePair p = {};

        assert_ok(shape_spec_parse_complete(spec, &p, &err), err);
        return p;
}

static bool up_has(const char *spec, ShapeField f)
{
        ShapePair p = parse(spec);
        return shape_has(&p.up, f);
}

static bool up_counts_packets(const char *spec)
{
        ShapePair p = parse(spec);
        return shape_counts_packets(&p.up);
}

static void expect_error(const char *spec, const char *fragment)
{
        TbError *err = NULL;
        ShapePair p = {.up = {.set = 42}};

        int r = shape_spec_parse_complete(spec, &p, &err);
        if (r >= 0)
                fail_msg("'%s' was accepted", spec);
        assert_non_null(err);
        assert_int_equal(err->kind, TB_ERROR_CONFIG);
        if (!strstr(err->message, fragment))
                fail_msg("'%s': message '%s' has no '%s'", spec, err->message, fragment);
        assert_null(strchr(err->message, '\n'));
        assert_int_equal(p.up.set, 42);
        tb_error_free(err);
}

static void test_parse(void **state)
{
        ShapePair p = parse("rate 10mbit delay 20ms 2ms 25% distribution normal loss 1% limit 200 reorder "
                            "5% duplicate 1% "
                            "corrupt 0.1% seed 7");

        assert_true(shape_equal(&p.up, &p.down));
        assert_int_equal(p.up.rate_bps, 10000000);
        assert_int_equal(p.up.delay_ns, 20000000);
        assert_int_equal(p.up.jitter_ns, 2000000);
        assert_int_equal(p.up.delay_correlation, 1073741824);
        assert_string_equal(p.up.distribution.text, "normal");
        assert_int_equal(p.up.loss, 42949673);
        assert_int_equal(p.up.limit, 200);
        assert_int_equal(p.up.reorder, 214748365);
        assert_int_equal(p.up.corrupt, 4294967);
        assert_int_equal(p.up.seed, 7);
}

static void test_directions(void **state)
{
        ShapePair p = parse("delay 5ms down rate 10mbit up rate 1mbit loss 2%");

        assert_int_equal(p.down.rate_bps, 10000000);
        assert_int_equal(p.up.rate_bps, 1000000);
        assert_int_equal(p.up.delay_ns, 5000000);
        assert_int_equal(p.down.delay_ns, 5000000);
        assert_false(shape_has(&p.down, SHAPE_LOSS));
        assert_true(shape_has(&p.up, SHAPE_LOSS));

        p = parse("up rate 1mbit");
        assert_true(shape_is_empty(&p.down));

        /* One direction's own value over that of both. */
        p = parse("rate 10mbit up rate 1mbit");
        assert_int_equal(p.up.rate_bps, 1000000);
        assert_int_equal(p.down.rate_bps, 10000000);
}

static void test_sub_millisecond_and_wide(void **state)
{
        ShapePair p = parse("delay 400us rate 1kbit");
        assert_int_equal(p.up.delay_ns, 400000);
        p = parse("delay 60s rate 40gbit");
        assert_int_equal(p.up.delay_ns, UINT64_C(60000000000));
        assert_int_equal(p.up.rate_bps, UINT64_C(40000000000));
        p = parse("delay 1us");
        assert_int_equal(p.up.delay_ns, 1000);
}

static void test_errors(void **state)
{
        expect_error("", "nothing in it");
        expect_error("   \t ", "nothing in it");
        expect_error("rate", "'rate' needs");
        expect_error("rate bogus", "bogus");
        expect_error("rate 10mbit speed 3", "'speed'");
        expect_error("rate 1", "1kbit and 40gbit");
        expect_error("rate 50gbit", "1kbit and 40gbit");
        expect_error("rate 10mbit rate 20mbit", "twice");
        expect_error("up rate 10mbit rate 20mbit", "twice");
        expect_error("rate 10mbit up rate 1mbit up rate 2mbit", "twice");
        expect_error("delay 2h", "2h");
        expect_error("delay 4000s", "hour");
        expect_error("delay 10s 3s", "2.147483647s");
        expect_error("loss 101%", "101%");
        expect_error("loss", "'loss' needs");
        expect_error("reorder 5%", "needs a delay");
        expect_error("delay 1ms reorder 5% up delay 0ms", "needs a delay");
        expect_error("distribution normal", "needs a jitter");
        expect_error("delay 20ms 1ms distribution ../gauss", "'../gauss'");
        expect_error("gap 3", "needs 'reorder");
        expect_error("limit -1", "-1");
        expect_error("limit 99999999", "99999999");
        expect_error("rate 10mbit \x1b[31m", "\\033");
        expect_error(
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "too long");

        char big[SHAPE_SPEC_MAX + 2];
        memset(big, ' ', sizeof(big));
        big[sizeof(big) - 1] = '\0';
        expect_error(big, "longer than");
}

static Shape merged(const char *base, const char *change)
{
        TbError *err = NULL;
        ShapePair b = parse(base), c;
        Shape out;

        assert_ok(shape_spec_parse(change, &c, &err), err);
        shape_merge(&b.up, &c.up, &out);
        assert_ok(shape_validate(&out, "up", &err), err);
        return out;
}

static void expect_merged(const char *base, const char *change, const char *expected)
{
        Shape out = merged(base, change), want = parse(expected).up;

        if (!shape_equal(&out, &want)) {
                char text[SHAPE_TEXT_MAX];
                fail_msg("'%s' and '%s' give '%s'", base, change, shape_print(&out, text));
        }
}

/* All words of netem, HTB and RED: what they mean, with tc's defaults. */
static void test_all_words(void **state)
{
        Shape s = parse("loss state 1%").up;
        assert_int_equal(s.loss_state[SHAPE_P13], 42949673);
        assert_int_equal(s.loss_state[SHAPE_P31], UINT32_MAX - 42949673);
        assert_int_equal(s.loss_state[SHAPE_P32], 0);
        assert_int_equal(s.loss_state[SHAPE_P23], UINT32_MAX);
        assert_int_equal(s.loss_state[SHAPE_P14], 0);
        s = parse("loss gemodel 1%").up;
        assert_int_equal(s.loss_gemodel[SHAPE_GE_R], UINT32_MAX - 42949673);
        assert_int_equal(s.loss_gemodel[SHAPE_GE_1H], UINT32_MAX);
        assert_int_equal(s.loss_gemodel[SHAPE_GE_1K], 0);
        s = parse("slot 800us").up;
        assert_int_equal(s.slot[0], 800000);
        assert_int_equal(s.slot[1], 800000);
        s = parse("slot distribution normal 5ms 1ms packets 7").up;
        assert_int_equal(s.slot_distribution.delay_ns, 5000000);
        assert_int_equal(s.slot_packets, 7);
        assert_false(shape_has(&s, SHAPE_SLOT_BYTES));
        /* netem's way to say it */
        s = parse("rate 1mbit 20 48 5").up;
        assert_int_equal(s.overhead, 20);
        assert_int_equal(s.linklayer, SHAPE_ATM);
        s = parse("rate 1mbit limit 64kb").up;
        assert_int_equal(s.limit_bytes, 65536);
        assert_false(shape_has(&s, SHAPE_LIMIT));
        assert_false(shape_needs_netem(&s));
        s = parse("link down").up;
        assert_true(shape_has(&s, SHAPE_LINK));
        assert_false(up_has("up link up rate 1mbit", SHAPE_LINK));
        assert_false(up_has("delay 1ms 1ms distribution uniform", SHAPE_DISTRIBUTION));
        assert_false(up_has("rate 1mbit offload auto", SHAPE_OFFLOAD));
        assert_false(up_has("loss 1% ecn off", SHAPE_ECN));
}

static void test_missing(void **state)
{
        expect_error("ecn", "'loss PERCENT' or 'queue red'");
        expect_error("overhead 20", "needs a rate");
        expect_error("burst 32kb", "needs a rate");
        expect_error("queue red", "needs a rate");
        expect_error("rate 1mbit queue red delay 5ms", "at the receiver's");
        expect_error("rate 1mbit queue red limit 50", "'limit 64kb'");
        expect_error("rate 1mbit queue red min 50kb max 20kb", "below its 'max'");
        expect_error("rate 1mbit queue red max 50kb limit 20kb", "not be above 'limit'");
        expect_error("rate 1mbit min 20kb", "unexpected 'min'");
        expect_error("rate 1mbit queue codel", "fifo and red");
        expect_error("delay 5ms limit 64kb", "at the receiver's");
        expect_error("limit 100b", "full frame");
        expect_error("rate 1mbit 20 64 8", "ATM");
        expect_error("slot 2ms 1ms", "above the second");
        expect_error("slot distribution normal 5ms", "needs JITTER");
        expect_error("slot distribution normal 5ms 0ms", "must not be 0");
        expect_error("packets 5", "unexpected 'packets'");
        expect_error("loss state", "needs a probability");
        expect_error("loss state 1% 2% 3% 4% 5% 6%", "unexpected '6%'");
        expect_error("loss 1% loss gemodel 2%", "twice");
        expect_error("limit 5 limit 64kb", "twice");
        expect_error("link sideways", "down or up");
        expect_error("offload maybe", "on, off or auto");
        expect_error("delay 1ms 1ms distribution a/b", "at most");
}

/* One kind of loss, slot or limit takes the place of another; zero takes away whichever there is. */
static void test_alternatives(void **state)
{
        expect_merged("loss 1% 25% delay 5ms", "loss gemodel 1% 10%", "loss gemodel 1% 10% delay 5ms");
        expect_merged("loss gemodel 1%", "loss 2%", "loss 2%");
        expect_merged("loss state 1% delay 5ms", "loss 0%", "delay 5ms");
        expect_merged("loss 1% delay 5ms", "loss state 0", "delay 5ms");
        expect_merged("rate 1mbit limit 64kb", "limit 20", "rate 1mbit limit 20");
        expect_merged("rate 1mbit limit 20", "limit 64kb", "rate 1mbit limit 64kb");
        expect_merged("slot 5ms packets 3 delay 1ms", "slot distribution normal 5ms 1ms",
                "delay 1ms slot distribution normal 5ms 1ms");
        expect_merged("slot 5ms packets 3 delay 1ms", "slot 0", "delay 1ms");
        expect_merged("rate 1mbit overhead 20 burst 32kb delay 1ms", "rate 0", "delay 1ms");
        expect_merged("rate 1mbit queue red min 5kb max 20kb ecn", "queue fifo ecn off", "rate 1mbit");
        expect_merged("rate 1mbit queue red min 5kb max 20kb", "queue red max 30kb",
                "rate 1mbit queue red min 5kb max 30kb");
        expect_merged("link down delay 5ms", "link up", "delay 5ms");
}

/* P6: what a frame of many segments would distort. */
static void test_counts_packets(void **state)
{
        assert_true(up_counts_packets("loss 1%"));
        assert_true(up_counts_packets("limit 20"));
        assert_true(up_counts_packets("rate 10mbit"));
        assert_true(up_counts_packets("rate 1gbit overhead 20"));
        assert_false(up_counts_packets("rate 1gbit"));
        assert_false(up_counts_packets("delay 20ms 1ms"));
}

static void test_merge(void **state)
{
        TbError *err = NULL;
        ShapePair base = parse("rate 10mbit delay 20ms 2ms loss 1%"), change;
        Shape out;

        /* "set changes only what it names" */
        assert_ok(shape_spec_parse("delay 30ms", &change, &err), err);
        shape_merge(&base.up, &change.up, &out);
        assert_int_equal(out.delay_ns, 30000000);
        assert_int_equal(out.jitter_ns, 2000000);
        assert_int_equal(out.rate_bps, 10000000);
        assert_int_equal(out.loss, base.up.loss);

        /* zero takes away */
        assert_ok(shape_spec_parse("loss 0% rate 0", &change, &err), err);
        shape_merge(&base.up, &change.up, &out);
        assert_false(shape_has(&out, SHAPE_LOSS));
        assert_false(shape_has(&out, SHAPE_RATE));

        /* what hung on it is complained about */
        assert_ok(shape_spec_parse("delay 0ms", &change, &err), err);
        shape_merge(&base.up, &change.up, &out);
        assert_error(shape_validate(&out, "up", &err), -EINVAL, err);
}

/* Every printed shape parses back to itself. */
static void test_round_trip(void **state)
{
        static const char *const specs[] = {
                "rate 10mbit",
                "rate 1kbit delay 1us limit 1",
                "delay 20400us 1ns 33.3% distribution paretonormal",
                "loss 0.0001% 12.5% duplicate 3% 1% corrupt 99.999% 0.5% delay 1s reorder 25% 50% gap 5",
                "seed 18446744073709551615 limit 10000000",
                "seed 0",
                "rate 1mbit overhead 24 mpu 64 linklayer atm burst 32kb quantum 3000b limit 64kb",
                "delay 1ms 1ms distribution file:normal slot 800us 1ms packets 5 bytes 6000",
                "slot distribution pareto 5ms 1ms bytes 1",
                "loss state 1% 99% 0.5% 100% 0.25% ecn seed 1",
                "loss gemodel 1% 10% 70% 0.1%",
                "rate 10mbit queue red min 15kb max 45kb probability 2% harddrop adaptive ecn limit 200000b",
                "rate 2mbit offload off",
                "link down delay 5ms offload on up link up",
        };
        char text[SHAPE_TEXT_MAX], again[SHAPE_TEXT_MAX];

        for (size_t i = 0; i < ELEMENTSOF(specs); i++) {
                ShapePair p = parse(specs[i]);
                (void) shape_pair_print(&p, text);
                ShapePair q = parse(text);
                assert_true(shape_equal(&p.up, &q.up));
                assert_true(shape_equal(&p.down, &q.down));
                assert_string_equal(text, shape_pair_print(&q, again));
        }
        ShapePair p = parse("up rate 1500kbit down rate 9600bit delay 3600s");
        assert_string_equal(shape_pair_print(&p, text), "up rate 1500kbit down rate 9600bit delay 3600s");
}

static uint64_t next_random(uint64_t *s)
{
        *s = *s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return *s >> 20;
}

#define BIT(f) (UINT64_C(1) << (f))

static void test_round_trip_random(void **state)
{
        uint64_t seed = 1;

        for (int i = 0; i < 20000; i++) {
                TbError *err = NULL;
                char text[SHAPE_TEXT_MAX];
                ShapePair p = {}, q;
                Shape *s = &p.up;
                s->rate_bps = SHAPE_RATE_MIN + next_random(&seed) % (SHAPE_RATE_MAX - SHAPE_RATE_MIN);
                s->delay_ns = 1 + next_random(&seed) % SHAPE_DELAY_MAX;
                s->jitter_ns = 1 + next_random(&seed) % SHAPE_JITTER_MAX;
                s->loss = 1 + (uint32_t) (next_random(&seed) % UINT32_MAX);
                s->limit = 1 + (uint32_t) (next_random(&seed) % SHAPE_LIMIT_MAX);
                s->seed = next_random(&seed);
                s->set = BIT(SHAPE_RATE) | BIT(SHAPE_DELAY) | BIT(SHAPE_JITTER) | BIT(SHAPE_LOSS) |
                        BIT(SHAPE_LIMIT) | BIT(SHAPE_SEED);
                (void) shape_pair_print(&p, text);
                assert_ok(shape_spec_parse_complete(text, &q, &err), err);
                if (!shape_equal(&p.up, &q.up))
                        fail_msg("%s", text);
        }
}

static void test_limit(void **state)
{
        ShapePair p = parse("rate 1gbit delay 100ms");
        /* P1: some 8300 full frames are on their way. */
        assert_true(shape_effective_limit(&p.up, 1500) >= 2 * 8256 + 50);
        p = parse("rate 40gbit delay 3600s");
        assert_int_equal(shape_effective_limit(&p.up, 1500), SHAPE_LIMIT_MAX);
        p = parse("rate 1kbit");
        assert_int_equal(shape_effective_limit(&p.up, 1500), 50);
        p = parse("rate 1kbit limit 7");
        assert_int_equal(shape_effective_limit(&p.up, 1500), 7);
        Shape nothing = {};
        assert_int_equal(shape_effective_limit(&nothing, 0), 1000);
}

static void test_needs_netem(void **state)
{
        ShapePair p = parse("rate 1mbit limit 20");
        assert_false(shape_needs_netem(&p.up));
        p = parse("delay 1us");
        assert_true(shape_needs_netem(&p.up));
        p = parse("loss 1%");
        assert_true(shape_needs_netem(&p.up));
        p = parse("seed 0");
        assert_true(shape_needs_netem(&p.up));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_directions),
                cmocka_unit_test(test_sub_millisecond_and_wide),
                cmocka_unit_test(test_errors),
                cmocka_unit_test(test_all_words),
                cmocka_unit_test(test_missing),
                cmocka_unit_test(test_alternatives),
                cmocka_unit_test(test_counts_packets),
                cmocka_unit_test(test_merge),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_round_trip_random),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_needs_netem),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

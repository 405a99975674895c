/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

#include "netctl/link-expect.h"

static Shape parse(const char *spec, bool up)
{
        TbError *err = NULL;
        ShapePair p = {};

        assert_ok(shape_spec_parse_complete(spec, &p, &err), err);
        return up ? p.up : p.down;
}

static Shape expect(const char *up, const char *down)
{
        Shape a = *up ? parse(up, true) : (Shape){}, b = *down ? parse(down, false) : (Shape){}, s;

        link_expect(&a, &b, &s);
        return s;
}

static void test_expect(void **state)
{
        char text[SHAPE_TEXT_MAX];
        Shape s = expect("rate 10mbit delay 20ms 1ms", "rate 2mbit delay 5ms");

        assert_string_equal(shape_print(&s, text), "rate 2mbit delay 25ms 1ms");
        s = expect("rate 10mbit", "delay 1ms");
        assert_string_equal(shape_print(&s, text), "rate 10mbit delay 1ms");
        s = expect("loss 10%", "loss 10%");
        assert_in_range(s.loss, (uint32_t) (0.19 * UINT32_MAX) - 4, (uint32_t) (0.19 * UINT32_MAX) + 4);
        s = expect("loss 100%", "loss 1%");
        assert_int_equal(s.loss, UINT32_MAX);
        s = expect("", "");
        assert_true(shape_is_empty(&s));
}

static void test_trains(void **state)
{
        LinkProbeTrain latency, rate;
        Shape s = expect("rate 10mbit delay 20ms", "");

        link_trains(&s, 1500, &latency, &rate);
        assert_int_equal(latency.interval_ns, 10000000);
        assert_int_equal(latency.quiet_ns, 320000000);
        assert_int_equal(rate.frame_bytes, 1514);
        assert_int_equal(rate.interval_ns, 1514 * 8 * UINT64_C(1000000000) / 13000000);
        assert_in_range(rate.packets * rate.interval_ns, 990000000, 1000000000);

        /* The slowest and the fastest that can be declared still make trains that link_probe() takes. */
        static const char *const extremes[] = {
                "rate 1kbit delay 3600s", "rate 40gbit", "delay 1us", "loss 100%"};
        for (size_t i = 0; i < ELEMENTSOF(extremes); i++) {
                s = expect(extremes[i], extremes[i]);
                link_trains(&s, 9000, &latency, &rate);
                assert_in_range(latency.packets, 1, LINK_PROBE_PACKETS_MAX);
                assert_in_range(rate.packets, 1, LINK_PROBE_PACKETS_MAX);
                assert_in_range(latency.packets * latency.interval_ns, 1, LINK_PROBE_DURATION_MAX);
                assert_in_range(rate.packets * rate.interval_ns, 1, LINK_PROBE_DURATION_MAX);
                assert_in_range(rate.frame_bytes, LINK_PROBE_FRAME_MIN, LINK_PROBE_FRAME_MAX);
                assert_in_range(latency.quiet_ns, 1, LINK_PROBE_QUIET_MAX);
        }
}

static void test_judge(void **state)
{
        static const struct {
                const char *spec;
                LinkProbeResult latency, rate;
                LinkVerdict verdict;
        } cases[] = {
                {"rate 10mbit delay 20ms", {.sent = 50, .received = 50, .delay_median_ns = 20100000},
                        {.sent = 1000, .offered_bps = 13000000, .rate_bps = 10010000}, LINK_AS_DECLARED},
                {"rate 10mbit delay 20ms", {.sent = 50, .received = 50, .delay_median_ns = 22100000},
                        {.sent = 1000, .offered_bps = 13000000, .rate_bps = 10010000}, LINK_TOO_LATE},
                {"rate 10mbit delay 20ms", {.sent = 50, .received = 50, .delay_median_ns = 19999000},
                        {.sent = 1000, .offered_bps = 13000000, .rate_bps = 10010000}, LINK_TOO_EARLY},
                {"rate 10mbit", {.sent = 50, .received = 50, .delay_median_ns = 100000},
                        {.sent = 1000, .offered_bps = 13000000, .rate_bps = 9000000}, LINK_TOO_SLOW},
                {"rate 10mbit", {.sent = 50, .received = 50, .delay_median_ns = 100000},
                        {.sent = 1000, .offered_bps = 13000000, .rate_bps = 12900000}, LINK_TOO_FAST},
                {"rate 10mbit", {.sent = 50, .received = 50, .delay_median_ns = 100000},
                        {.sent = 1000,
                                .offered_bps = 13000000,
                                .rate_bps = 9000000,
                                .late_max_ns = 90000000},
                        LINK_NOT_MEASURED},
                {"rate 10mbit", {.sent = 50, .received = 50, .delay_median_ns = 100000},
                        {.sent = 1000, .offered_bps = 9000000, .rate_bps = 9000000}, LINK_NOT_MEASURED},
                {"rate 10mbit",
                        {.sent = 50, .received = 50, .delay_median_ns = 100000, .clock_stepped = true},
                        {.sent = 1000, .offered_bps = 13000000, .rate_bps = 10000000}, LINK_NOT_MEASURED},
                {"delay 1ms", {.sent = 50}, {.sent = 1000}, LINK_NOTHING_ARRIVED},
                {"loss 100%", {.sent = 50}, {.sent = 1000}, LINK_AS_DECLARED},
                {"delay 1ms", {.sent = 50, .received = 49, .delay_median_ns = 1100000}, {.sent = 1},
                        LINK_LOSES},
                {"loss 10%", {.sent = 50, .received = 44}, {.sent = 1}, LINK_AS_DECLARED},
                {"loss 10%", {.sent = 50, .received = 30}, {.sent = 1}, LINK_LOSES},
                {"loss 50%", {.sent = 50, .received = 50}, {.sent = 1}, LINK_LOSES_TOO_LITTLE},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Shape s = expect(cases[i].spec, "");
                LinkVerdict v = link_judge(&s, &cases[i].latency, &cases[i].rate);
                if (v != cases[i].verdict)
                        fail_msg("case %zu: %s", i, link_verdict_to_string(v));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_expect),
                cmocka_unit_test(test_trains),
                cmocka_unit_test(test_judge),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

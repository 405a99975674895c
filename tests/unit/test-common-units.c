/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/units.h"

typedef int (*Parse)(const char *s, uint64_t *ret, TbError **err);

typedef struct Case {
        const char *text;
        uint64_t value;
} Case;

static void accept_all(Parse parse, const Case *cases, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                TbError *err = NULL;
                uint64_t v = 77;

                assert_ok(parse(cases[i].text, &v, &err), err);
                if (v != cases[i].value)
                        fail_msg("%s: %llu", cases[i].text, (unsigned long long) v);
        }
}

static void refuse(Parse parse, const char *text, int code)
{
        TbError *err = NULL;
        uint64_t v = 77;
        int r = parse(text, &v, &err);

        if (r != code)
                fail_msg("%s: %d", text, r);
        assert_int_equal(err->kind, TB_ERROR_CONFIG);
        assert_error(r, code, err);
        assert_int_equal(v, 77);
}

static void refuse_malformed(Parse parse)
{
        static const char *const bad[] = {"", " ", "-1", "+1", "1e3", "0x10", "inf", "nan", ".", "1.",
                "1..2", "1.2.3", "1 kbit", " 1", "1 ", "1,5", "kbit", "1furlong", "1\xc2\xa0",
                "0.1234567890123456789012345"};

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                refuse(parse, bad[i], -EINVAL);
        refuse(parse, "18446744073709551616", -ERANGE);
        refuse(parse, "99999999999999999999999999999999999999999999999", -ERANGE);
}

static void test_rate(void **state)
{
        static const Case cases[] = {
                {"0", 0},
                {"1000", 1000},
                {"10mbit", 10000000},
                {"10MBit", 10000000},
                {"1.5gbit", 1500000000},
                {".5kbit", 500},
                {"1kibit", 1024},
                {"1tibit", UINT64_C(1) << 40},
                {"1bps", 8},
                {"1kbps", 8000},
                {"1kibps", 8192},
                {"1tbps", UINT64_C(8000000000000)},
                {"0.5bit", 1}, /* halves up */
                {"1.4999999999bit", 1},
                {"1.5bit", 2},
                {"0.1tbit", UINT64_C(100000000000)},
                {"0.000000000001tbit", 1},
                {"1.000000000000000000000000000000000000000", 1},
                {"00000000000000000000000000000000000000001", 1},
                {"18446744073709551615", UINT64_MAX},
                {"18446744.073709551615tbit", UINT64_MAX},
        };

        accept_all(tb_parse_rate, cases, ELEMENTSOF(cases));
        refuse_malformed(tb_parse_rate);
        refuse(tb_parse_rate, "0.4bit", -ERANGE);
        refuse(tb_parse_rate, "18446745tbit", -ERANGE);
        refuse(tb_parse_rate, "18446744.0737095516155tbit", -ERANGE);
        refuse(tb_parse_rate, "18446744073709551615tibps", -ERANGE);
}

static void test_time(void **state)
{
        static const Case cases[] = {
                {"0", 0},
                {"100", 100000}, /* microseconds, as tc */
                {"20ms", 20000000},
                {"0.5s", 500000000},
                {"1.5msecs", 1500000},
                {"400usec", 400000},
                {"7ns", 7},
                {"0.0000000005s", 1},
                {"1sec", 1000000000},
        };

        accept_all(tb_parse_time, cases, ELEMENTSOF(cases));
        refuse_malformed(tb_parse_time);
        refuse(tb_parse_time, "0.1ns", -ERANGE);
        refuse(tb_parse_time, "18446744074s", -ERANGE);
        refuse(tb_parse_time, "1m", -EINVAL);
}

static void test_size(void **state)
{
        static const Case cases[] = {{"1500", 1500}, {"1b", 1}, {"1k", 1024}, {"1.5kb", 1536},
                {"2mb", 2097152}, {"1G", 1073741824}, {"1kbit", 128}, {"1mbit", 131072},
                {"0.5gbit", 67108864}};

        accept_all(tb_parse_size, cases, ELEMENTSOF(cases));
        refuse_malformed(tb_parse_size);
        refuse(tb_parse_size, "17179869184gb", -ERANGE);
}

static void test_percent(void **state)
{
        static const struct {
                const char *text;
                uint32_t p32;
                const char *formatted;
        } cases[] = {
                {"0", 0, "0%"},
                {"0%", 0, "0%"},
                {"1%", 42949673, "1%"},
                {"0.01", 42949673, "1%"},
                {"0.1%", 4294967, "0.1%"},
                {"50%", 2147483648, "50%"},
                {"100%", UINT32_MAX, "100%"},
                {"1", UINT32_MAX, "100%"},
                {"99.9999999%", 4294967291, "99.9999999%"},
        };
        char buf[TB_UNIT_TEXT_MAX];
        TbError *err = NULL;
        uint32_t v;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                assert_ok(tb_parse_percent(cases[i].text, &v, &err), err);
                assert_int_equal(v, cases[i].p32);
                assert_string_equal(tb_format_percent(buf, v), cases[i].formatted);
        }
        assert_error(tb_parse_percent("100.1%", &v, &err), -ERANGE, err);
        assert_error(tb_parse_percent("5", &v, &err), -ERANGE, err);
        assert_error(tb_parse_percent("0.000000001%", &v, &err), -ERANGE, err);
        assert_error(tb_parse_percent("5 %", &v, &err), -EINVAL, err);
        assert_error(tb_parse_percent("%", &v, &err), -EINVAL, err);
}

static void test_round_trip(void **state)
{
        static const uint64_t edges[] = {0, 1, 999, 1000, 1001, 1024, 1500000, 999999999, 1000000000,
                UINT32_MAX, UINT64_C(1000000000000), UINT64_MAX, UINT64_MAX - 1,
                UINT64_C(18446744073000000000)};
        uint64_t seed = 88172645463325252u;
        char buf[TB_UNIT_TEXT_MAX];
        TbError *err = NULL;

        for (size_t i = 0; i < 20000 + ELEMENTSOF(edges); i++) {
                uint64_t v, back;
                uint32_t p;

                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                v = i < ELEMENTSOF(edges) ? edges[i] : seed >> (i % 64);
                assert_ok(tb_parse_rate(tb_format_rate(buf, v), &back, &err), err);
                assert_true(back == v);
                assert_ok(tb_parse_time(tb_format_time(buf, v), &back, &err), err);
                assert_true(back == v);
                assert_ok(tb_parse_percent(tb_format_percent(buf, (uint32_t) v), &p, &err), err);
                assert_true(p == (uint32_t) v);
        }
        assert_string_equal(tb_format_rate(buf, 10000000), "10mbit");
        assert_string_equal(tb_format_rate(buf, 1500000), "1500kbit");
        assert_string_equal(tb_format_rate(buf, 0), "0bit");
        assert_string_equal(tb_format_time(buf, 20000000), "20ms");
        assert_string_equal(tb_format_time(buf, 400000), "400us");
}

static void test_bytes(void **state)
{
        static const Case cases[] = {{"0 B", 0}, {"999 B", 999}, {"1.00 kB", 1000}, {"12.34 MB", 12340000},
                {"999.99 kB", 999994}, {"1.00 MB", 999995}, {"18.45 EB", UINT64_MAX}};
        char buf[TB_UNIT_TEXT_MAX];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                assert_string_equal(tb_format_bytes(buf, cases[i].value), cases[i].text);
}

static void test_integers(void **state)
{
        TbError *err = NULL;
        uint64_t v = 0;
        uint32_t u = 0;
        bool b = false;

        assert_ok(tb_parse_u64("18446744073709551615", 0, UINT64_MAX, &v, &err), err);
        assert_true(v == UINT64_MAX);
        assert_ok(tb_parse_u32("4294967295", 0, UINT32_MAX, &u, &err), err);
        assert_error(tb_parse_u64("18446744073709551616", 0, UINT64_MAX, &v, &err), -ERANGE, err);
        assert_error(tb_parse_u64("4", 5, 10, &v, &err), -ERANGE, err);
        assert_error(tb_parse_u32("11", 5, 10, &u, &err), -ERANGE, err);
        assert_error(tb_parse_u64("", 0, 10, &v, &err), -EINVAL, err);
        assert_error(tb_parse_u64("-1", 0, 10, &v, &err), -EINVAL, err);
        assert_error(tb_parse_u64("1x", 0, 10, &v, &err), -EINVAL, err);
        assert_error(tb_parse_u64("99999999999999999999x", 0, 10, &v, &err), -EINVAL, err);

        assert_ok(tb_parse_bool("YES", &b, &err), err);
        assert_true(b);
        assert_ok(tb_parse_bool("off", &b, &err), err);
        assert_false(b);
        assert_error(tb_parse_bool("maybe", &b, &err), -EINVAL, err);
        assert_true(tb_now_us() <= tb_now_ns() / 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rate),
                cmocka_unit_test(test_time),
                cmocka_unit_test(test_size),
                cmocka_unit_test(test_percent),
                cmocka_unit_test(test_round_trip),
                cmocka_unit_test(test_bytes),
                cmocka_unit_test(test_integers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

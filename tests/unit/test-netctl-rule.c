/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/shape-rule.h"

static void expect_text(const char *text, const char *canonical)
{
        _cleanup_link_shape_ LinkShape l = {}, again = {};
        _cleanup_free_ char *printed = NULL;
        TbError *err = NULL;

        assert_ok(link_shape_parse_complete(text, &l, &err), err);
        printed = link_shape_print(&l);
        assert_string_equal(printed, canonical);
        assert_ok(link_shape_parse_complete(printed, &again, &err), err);
        assert_true(link_shape_equal(&l, &again));
}

static void test_text(void **state)
{
        static const struct {
                const char *text, *canonical;
        } rows[] = {
                {"rate 10mbit", "rate 10mbit"},
                {"delay 5ms ; to 10.1.0.7 delay 20ms ; to 10.2.0.0/16 udp port 53 loss 1%",
                        "delay 5ms; to 10.1.0.7 delay 20ms; to 10.2.0.0/16 udp port 53 loss 1%"},
                /* Most specific first, whatever the order of writing. */
                {"to any rate 1mbit; to 10.0.0.0/8 rate 2mbit; to 10.1.0.0/16 rate 3mbit; to 10.1.0.1 rate "
                 "4mbit",
                        "to 10.1.0.1 rate 4mbit; to 10.1.0.0/16 rate 3mbit; to 10.0.0.0/8 rate 2mbit; to "
                        "any "
                        "rate 1mbit"},
                {"to 10.0.0.1 port 1-100 rate 1mbit; to 10.0.0.1 rate 2mbit; to 10.0.0.1 port 7 rate 3mbit; "
                 "to "
                 "10.0.0.1 tcp rate 4mbit",
                        "to 10.0.0.1 tcp rate 4mbit; to 10.0.0.1 port 7 rate 3mbit; to 10.0.0.1 port 1-100 "
                        "rate 1mbit; to 10.0.0.1 rate 2mbit"},
                {"tcp sport 22 from fd00:1::/32 to fd00::1 delay 1ms",
                        "to fd00::1 from fd00:1::/32 tcp sport 22 delay 1ms"},
                {"to 10.0.0.1 up delay 1ms; to 10.0.0.1 down delay 2ms",
                        "to 10.0.0.1 up delay 1ms down delay 2ms"},
                {"to 10.0.0.1 pass", "to 10.0.0.1 pass"},
                {"to 10.0.0.1 delay 0", "to 10.0.0.1 pass"},
                {"to 10.0.0.1 up pass; to 10.0.0.1 down rate 1mbit",
                        "to 10.0.0.1 up pass; to 10.0.0.1 down rate 1mbit"},
                {"; to 10.0.0.1 proto 47 rate 1mbit;", "to 10.0.0.1 proto 47 rate 1mbit"},
                {"proto 6 rate 1mbit", "to any tcp rate 1mbit"},
                {"to 0.0.0.0/0 rate 1mbit; to any rate 2mbit", "to 0.0.0.0/0 rate 1mbit; to any rate 2mbit"},
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++)
                expect_text(rows[i].text, rows[i].canonical);
}

static void test_mistakes(void **state)
{
        static const struct {
                const char *text, *says;
                int code;
        } rows[] = {
                {"", "nothing is given", -EINVAL},
                {"rate 1mbit; rate 2mbit", "only the first part", -EINVAL},
                {"to 10.0.0.1", "says nothing", -EINVAL},
                {"to", "needs a value", -EINVAL},
                {"to 10.0.0.256 delay 1ms", "address or network", -EINVAL},
                {"to example.com delay 1ms", "address or network", -EINVAL},
                {"to 10.1.0.7/16 delay 1ms", "bits set behind its prefix", -EINVAL},
                {"to 10.1.0.0/33 delay 1ms", "out of range", -ERANGE},
                {"to fd00::/129 delay 1ms", "out of range", -ERANGE},
                {"to 10.0.0.1 from fd00::1 delay 1ms", "different address families", -EINVAL},
                {"to 10.0.0.1 to 10.0.0.2 delay 1ms", "given twice", -EINVAL},
                {"to 10.0.0.1 tcp udp delay 1ms", "given twice", -EINVAL},
                {"to 10.0.0.1 icmp port 1 delay 1ms", "has no ports", -EINVAL},
                {"to 10.0.0.1 port 65536 delay 1ms", "range of ports", -EINVAL},
                {"to 10.0.0.1 port 9-8 delay 1ms", "range of ports", -EINVAL},
                {"to 10.0.0.1 proto 256 delay 1ms", "up to 255", -EINVAL},
                {"to 10.0.0.1 pass delay 1ms", "nothing may follow", -EINVAL},
                {"to 10.0.0.1 default", "takes a rule away", -EINVAL},
                {"to 10.0.0.1 jitter", "jitter", -EINVAL},
                {"to 10.0.0.1 reorder 5%", "needs a delay", -EINVAL},
                {"to 10.0.0.1 delay 1ms; to 10.0.0.1/32 delay 2ms", "two rules", -EINVAL},
        };

        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                LinkShape l = {};
                TbError *err = NULL;
                assert_true(link_shape_parse_complete(rows[i].text, &l, &err) < 0);
                if (!strstr(tb_error_message(err), rows[i].says) || strchr(tb_error_message(err), '\n'))
                        fail_msg("'%s': %s", rows[i].text, tb_error_message(err));
                assert_error(err->code, rows[i].code, err);
        }
}

static void test_changes(void **state)
{
        static const struct {
                const char *change, *result;
                bool replace;
        } rows[] = {
                {"to 10.0.0.1 loss 1%", "rate 1mbit; to 10.0.0.1 delay 5ms loss 1%; to 10.0.0.2 delay 6ms",
                        false},
                {"to 10.0.0.1 delay 0", "rate 1mbit; to 10.0.0.1 pass; to 10.0.0.2 delay 6ms", false},
                {"to 10.0.0.1 default", "rate 1mbit; to 10.0.0.2 delay 6ms", false},
                {"to 10.0.0.1 down default", "rate 1mbit; to 10.0.0.1 up delay 5ms; to 10.0.0.2 delay 6ms",
                        false},
                {"rate 0; to 10.0.0.3 rate 7mbit",
                        "to 10.0.0.1 delay 5ms; to 10.0.0.2 delay 6ms; to 10.0.0.3 rate 7mbit", false},
                {"to 10.0.0.3 rate 7mbit", "rate 1mbit; to 10.0.0.3 rate 7mbit", true},
        };
        _cleanup_link_shape_ LinkShape base = {};
        TbError *err = NULL;

        assert_ok(link_shape_parse_complete(
                          "rate 1mbit; to 10.0.0.1 delay 5ms; to 10.0.0.2 delay 6ms", &base, &err),
                err);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                _cleanup_link_shape_ LinkShape change = {}, out = {};
                _cleanup_free_ char *printed = NULL;
                assert_ok(link_shape_parse(rows[i].change, &change, &err), err);
                assert_ok(link_shape_merge(&base, &change, rows[i].replace, &out, &err), err);
                printed = link_shape_print(&out);
                assert_string_equal(printed, rows[i].result);
        }
        /* The result is checked as a whole. */
        _cleanup_link_shape_ LinkShape change = {}, out = {};
        assert_ok(link_shape_parse("to 10.0.0.9 reorder 1%", &change, &err), err);
        assert_error(link_shape_merge(&base, &change, false, &out, &err), -EINVAL, err);
}

static void test_bounds(void **state)
{
        _cleanup_link_shape_ LinkShape l = {}, copy = {}, merged = {};
        _cleanup_free_ char *text = NULL, *long_part = calloc(SHAPE_SPEC_MAX + 64, 1);
        TbError *err = NULL;
        size_t size = 0;

        FILE *f = open_memstream(&text, &size);
        assert_non_null(f);
        for (unsigned i = 0; i < SHAPE_RULES_MAX; i++)
                fprintf(f, "to 10.%u.%u.1 rate %ukbit;", i / 256, i % 256, i + 1);
        fclose(f);
        assert_ok(link_shape_parse_complete(text, &l, &err), err);
        assert_int_equal(l.n_rules, SHAPE_RULES_MAX);
        assert_ok(link_shape_copy(&l, &copy, &err), err);
        assert_true(link_shape_equal(&l, &copy));

        _cleanup_link_shape_ LinkShape one = {};
        assert_ok(link_shape_parse("to 10.200.0.1 rate 1mbit", &one, &err), err);
        assert_error(link_shape_merge(&l, &one, false, &merged, &err), -E2BIG, err);
        memset(long_part, ' ', SHAPE_SPEC_MAX + 1);
        memcpy(long_part, "rate 1mbit", 10);
        assert_error(link_shape_parse_complete(long_part, &merged, &err), -EINVAL, err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text),
                cmocka_unit_test(test_mistakes),
                cmocka_unit_test(test_changes),
                cmocka_unit_test(test_bounds),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}

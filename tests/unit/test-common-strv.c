/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"

static void test_affixes(void **state)
{
        assert_string_equal(tb_startswith("foobar", "foo"), "bar");
        assert_string_equal(tb_startswith("foo", "foo"), "");
        assert_string_equal(tb_startswith("foo", ""), "foo");
        assert_null(tb_startswith("fo", "foo"));
        assert_string_equal(tb_endswith("foobar", "bar"), "bar");
        assert_string_equal(tb_endswith("x", ""), "");
        assert_null(tb_endswith("ar", "bar"));
        assert_true(tb_streq(NULL, NULL));
        assert_false(tb_streq("a", NULL));
        assert_true(tb_streq("a", "a"));
}

static void test_strv(void **state)
{
        _cleanup_strv_ char **v = NULL, **copy = NULL, **none = NULL;
        _cleanup_free_ char *joined = NULL, *nothing = NULL;
        TbError *err = NULL;

        assert_int_equal(tb_strv_length(NULL), 0);
        assert_ok(tb_strv_append(&v, "a", &err), err);
        assert_ok(tb_strv_append(&v, "", &err), err);
        assert_ok(tb_strv_consume(&v, tb_asprintf("%d", 3), &err), err);
        assert_error(tb_strv_consume(&v, NULL, &err), -ENOMEM, err);
        assert_int_equal(tb_strv_length(v), 3);
        assert_true(tb_strv_contains(v, "3"));
        assert_true(tb_strv_contains(v, ""));
        assert_false(tb_strv_contains(v, "b"));
        assert_false(tb_strv_contains(NULL, "b"));

        copy = tb_strv_copy(v);
        assert_true(tb_strv_equal(v, copy));
        assert_false(tb_strv_equal(v, NULL));
        none = tb_strv_copy(NULL);
        assert_non_null(none);
        assert_true(tb_strv_equal(none, NULL));

        joined = tb_strv_join(v, ", ");
        assert_string_equal(joined, "a, , 3");
        nothing = tb_strv_join(NULL, ",");
        assert_string_equal(nothing, "");
        assert_null(tb_strv_free(NULL));
}

static void check_escape(const char *in, size_t max, const char *expected)
{
        _cleanup_free_ char *s = tb_escape(in, max);

        assert_non_null(s);
        assert_string_equal(s, expected);
}

static void test_escape(void **state)
{
        check_escape("", 10, "");
        check_escape("plain text", 100, "plain text");
        check_escape("a\"b'c\\d\n\x1b[31m\x7f", 100, "a\\\"b\\'c\\\\d\\n\\033[31m\\177");
        check_escape("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", 100,
                "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
        check_escape("\xc2\x9b"
                     "31m",
                100, "\\302\\23331m"); /* C1 CSI */
        check_escape("\xc0\xaf \xed\xa0\x80 \xf5", 100, "\\300\\257 \\355\\240\\200 \\365");
        check_escape("\xe2\x82", 100, "\\342\\202");
        check_escape("\xf4\x90\x80\x80", 100, "\\364\\220\\200\\200");
        check_escape("abcdef", 3, "abc...");
        check_escape("abc", 3, "abc");
        check_escape("ab\xe2\x82\xac", 4, "ab...");
        check_escape("abc", 0, "...");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_affixes),
                cmocka_unit_test(test_strv),
                cmocka_unit_test(test_escape),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"

static int parse(const char *s, json_t **ret, TbError **err)
{
        return tb_json_parse(s, strlen(s), 4096, "doc", ret, err);
}

static void refuse_bytes(const char *s, size_t size, const char *message)
{
        json_t *j = NULL;
        TbError *err = NULL;
        int r = tb_json_parse(s, size, 4096, "doc", &j, &err);

        assert_non_null(err);
        if (!strstr(err->message, message))
                fail_msg("%s lacks %s", err->message, message);
        assert_error(r, -EINVAL, err);
        assert_null(j);
}

static void test_strict(void **state)
{
        static const char nul[] = "{\"a\":\"x\0y\"}";
        TbError *err = NULL;
        json_t *j = NULL;

        refuse_bytes("{\"a\":1,\n \"a\":2}", 15, "doc: line 2, column ");
        refuse_bytes("{} x", 4, "end of file");
        refuse_bytes("{}{}", 4, "end of file");
        refuse_bytes("", 0, "doc: line 1");
        refuse_bytes(NULL, 0, "doc: line 1");
        refuse_bytes("\"x\"", 3, "doc");
        refuse_bytes("{\"a\":\"\xff\"}", 9, "unable to decode byte 0xff");
        refuse_bytes("{\"a\":\"\\u0000\"}", 14, "doc");
        refuse_bytes(nul, sizeof(nul) - 1, "doc");
        refuse_bytes("{\"a\":99999999999999999999}", 26, "integer");
        refuse_bytes("{\"a\":", 5, "doc");
        assert_error(tb_json_parse("{}  ", 4, 3, "doc", &j, &err), -EMSGSIZE, err);
}

static void test_depth(void **state)
{
        char deep[200] = "";
        json_t *j = NULL;
        TbError *err = NULL;

        memset(deep, '[', 64);
        memset(deep + 64, ']', 64);
        assert_ok(parse(deep, &j, &err), err);
        json_decref(j);
        memset(deep, '[', 65);
        memset(deep + 65, ']', 65);
        refuse_bytes(deep, 130, "column 65: JSON is nested deeper than 64");

        /* Brackets in strings do not count, escaped quotes do not end them. */
        memset(deep, '[', 120);
        memcpy(deep, "[\"\\\"", 4);
        memcpy(deep + 120, "\"]", 3);
        assert_ok(parse(deep, &j, &err), err);
        json_decref(j);
}

static void test_getters(void **state)
{
        _cleanup_json_ json_t *j = NULL;
        _cleanup_strv_ char **v = NULL;
        TbError *err = NULL;
        const char *s = "untouched";
        uint64_t u = 7;
        bool b = false;
        json_t *sub = NULL;

        assert_ok(parse("{\"s\":\"x\",\"u\":9223372036854775807,\"b\":true,\"n\":null,\"o\":{},\"a\":[\"p\","
                        "\"q\"],"
                        "\"neg\":-1,\"real\":1.0,\"mixed\":[\"p\",null]}",
                          &j, &err),
                err);
        assert_int_equal(tb_json_get_string(j, "s", &s, &err), 1);
        assert_string_equal(s, "x");
        assert_int_equal(tb_json_get_string(j, "n", &s, &err), 0);
        assert_int_equal(tb_json_get_string(j, "absent", &s, &err), 0);
        assert_string_equal(s, "x");
        assert_int_equal(tb_json_get_u64(j, "u", &u, &err), 1);
        assert_true(u == INT64_MAX);
        assert_int_equal(tb_json_get_bool(j, "b", &b, &err), 1);
        assert_true(b);
        assert_int_equal(tb_json_get_object(j, "o", &sub, &err), 1);
        assert_int_equal(tb_json_get_array(j, "a", &sub, &err), 1);
        assert_int_equal(tb_json_get_strv(j, "a", &v, &err), 1);
        assert_int_equal(tb_strv_length(v), 2);

        assert_int_equal(tb_json_get_u64(j, "s", &u, &err), -EINVAL);
        assert_string_equal(err->message, "s: expected an integer, found a string");
        err = tb_error_free(err);
        assert_error(tb_json_get_u64(j, "neg", &u, &err), -EINVAL, err);
        assert_error(tb_json_get_u64(j, "real", &u, &err), -EINVAL, err);
        assert_error(tb_json_get_string(j, "u", &s, &err), -EINVAL, err);
        assert_error(tb_json_get_bool(j, "u", &b, &err), -EINVAL, err);
        assert_error(tb_json_get_object(j, "a", &sub, &err), -EINVAL, err);
        assert_error(tb_json_get_array(j, "o", &sub, &err), -EINVAL, err);
        assert_int_equal(tb_json_get_strv(j, "mixed", &v, &err), -EINVAL);
        assert_string_equal(err->message, "mixed[1]: expected a string, found null");
        err = tb_error_free(err);
        assert_error(tb_json_get_string(sub, "s", &s, &err), -EINVAL, err);
        assert_error(tb_json_get_string(NULL, "s", &s, &err), -EINVAL, err);
}

static void test_build_and_dump(void **state)
{
        _cleanup_json_ json_t *j = json_object();
        _cleanup_free_ char *text = NULL, *sorted = NULL, *pretty = NULL;
        char *words[] = {(char *) "p", (char *) "q", NULL};
        TbError *err = NULL;
        size_t size;

        assert_ok(tb_json_set_string(j, "z", "\xc3\xa9\n", &err), err);
        assert_ok(tb_json_set_string(j, "none", NULL, &err), err);
        assert_ok(tb_json_set_u64(j, "u", 5, &err), err);
        assert_ok(tb_json_set_bool(j, "b", false, &err), err);
        assert_ok(tb_json_set_new(j, "a", tb_json_from_strv(words), &err), err);
        assert_error(tb_json_set_u64(j, "u", UINT64_MAX, &err), -ERANGE, err);
        assert_error(tb_json_set_string(j, "z", "\xff", &err), -EILSEQ, err);
        assert_error(tb_json_set_new(j, "x", NULL, &err), -ENOMEM, err);

        assert_ok(tb_json_dump(j, false, &text, &size, &err), err);
        assert_string_equal(
                text, "{\"z\":\"\xc3\xa9\\n\",\"none\":null,\"u\":5,\"b\":false,\"a\":[\"p\",\"q\"]}");
        assert_int_equal(size, strlen(text));
        assert_ok(tb_json_dump(j, true, &sorted, NULL, &err), err);
        assert_string_equal(
                sorted, "{\"a\":[\"p\",\"q\"],\"b\":false,\"none\":null,\"u\":5,\"z\":\"\xc3\xa9\\n\"}");
        assert_ok(tb_json_dump_pretty(j, &pretty, &err), err);
        assert_non_null(strstr(pretty, "\n  \"u\": 5,\n"));
}

static void test_file(void **state)
{
        _cleanup_free_ char *dir = NULL, *path = NULL;
        _cleanup_json_ json_t *j = NULL;
        TbError *err = NULL;

        assert_ok(tb_mkdtemp("/tmp/tbnode-test-XXXXXX", &dir, &err), err);
        path = tb_asprintf("%s/x.json", dir);
        assert_error(tb_json_load_file(path, 100, &j, &err), -ENOENT, err);
        assert_ok(tb_file_write_atomic(path, "{\"a\":1}\n", 8, 0600, &err), err);
        assert_error(tb_json_load_file(path, 7, &j, &err), -EFBIG, err);
        assert_ok(tb_json_load_file(path, 8, &j, &err), err);
        assert_ok(tb_rm_rf(dir, &err), err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_strict),
                cmocka_unit_test(test_depth),
                cmocka_unit_test(test_getters),
                cmocka_unit_test(test_build_and_dump),
                cmocka_unit_test(test_file),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/ini.h"
#include "common/strv.h"
#include "common/units.h"

static char *name;
static char **list;
static uint32_t number;

static int parse_name(const char *value, void *userdata, TbError **err)
{
        char **p = userdata;

        free(*p);
        *p = strdup(value);
        return 0;
}

static int parse_list(const char *value, void *userdata, TbError **err)
{
        return tb_strv_append(userdata, value, err);
}

static int parse_number(const char *value, void *userdata, TbError **err)
{
        return tb_parse_u32(value, 1, 10, userdata, err);
}

static const TbIniItem items[] = {
        {NULL, "name", parse_name, &name},
        {NULL, "list", parse_list, &list, .list = true},
        {"limits", "number", parse_number, &number},
        {"limits", "name", parse_name, &name},
};

static int teardown(void **state)
{
        name = (free(name), NULL);
        list = tb_strv_free(list);
        number = 0;
        return 0;
}

static int parse_size(const char *text, size_t size, TbError **err)
{
        return tb_ini_parse("test.conf", text, size, items, ELEMENTSOF(items), err);
}

static void test_accepts(void **state)
{
        static const char text[] =
                "# comment\n; another\n\n  name = some value \r\nlist=a\nlist = b=c \n[ limits ]\n"
                "number=7\n[limits]\nname=";
        TbError *err = NULL;

        assert_ok(parse_size(text, strlen(text), &err), err);
        assert_string_equal(name, "");
        assert_int_equal(tb_strv_length(list), 2);
        assert_string_equal(list[1], "b=c");
        assert_int_equal(number, 7);
        assert_ok(parse_size("", 0, &err), err);
        assert_ok(parse_size(NULL, 0, &err), err);
}

static void refuse(const char *text, size_t size, const char *message)
{
        TbError *err = NULL;
        int r = parse_size(text, size, &err);

        assert_non_null(err);
        assert_int_equal(err->kind, TB_ERROR_CONFIG);
        if (!strstr(err->message, message))
                fail_msg("%s lacks %s", err->message, message);
        assert_error(r, err->code, err);
}

static void test_refuses(void **state)
{
        refuse("\ncolor=x\n", 8, "test.conf:2: unknown key \"color\"; known here: name, list");
        refuse("number=3", 8, "test.conf:1: unknown key \"number\"");
        refuse("[limits]\nlist=x", 15, "known here: number, name");
        refuse("[nope]", 6, "test.conf:1: unknown section \"nope\"; known here: limits");
        refuse("name=a\nname=b\n", 14, "test.conf:2: second value for \"name\"");
        refuse("[limits]\n"
               "number=11\n",
                19, "test.conf:2: number: \"11\" is not a whole number from 1 to 10");
        refuse("[limits", 7, "bad section header");
        refuse("[]", 2, "bad section header");
        refuse("name", 4, "write key=value");
        refuse("=x", 2, "write key=value");
        refuse("name=a\0b", 8, "NUL byte");
        refuse("name=\xff", 6, "not valid UTF-8");
        refuse("name=a\n  continued", 18, "test.conf:2: cannot understand");
}

static void test_missing_file(void **state)
{
        TbError *err = NULL;

        assert_error(tb_ini_load("/nonexistent/tbnode.conf", items, ELEMENTSOF(items), &err), -ENOENT, err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_accepts, teardown),
                cmocka_unit_test_teardown(test_refuses, teardown),
                cmocka_unit_test(test_missing_file),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

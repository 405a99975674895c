/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"
#include "common/cleanup.h"

static void test_append(void **state)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(0);
        _cleanup_error_ TbError *err = NULL;

        for (unsigned i = 0; i < 1000; i++)
                assert_ok(tb_buffer_printf(&b, &err, "%04u,", i), err);
        assert_int_equal(b.size, 5000);
        assert_int_equal(strlen(b.data), 5000);
        assert_memory_equal(b.data + 4995, "0999,", 6);
        assert_ok(tb_buffer_append(&b, "\0x", 2, &err), err);
        assert_memory_equal(b.data + 5000, "\0x", 3);
}

static void test_limit(void **state)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(4);
        TbError *err = NULL;

        assert_ok(tb_buffer_append_str(&b, "abc", &err), err);
        assert_error(tb_buffer_append_str(&b, "de", &err), -EMSGSIZE, err);
        assert_error(tb_buffer_printf(&b, &err, "%s", "de"), -EMSGSIZE, err);
        assert_error(tb_buffer_append(&b, NULL, SIZE_MAX, &err), -EMSGSIZE, err);
        assert_string_equal(b.data, "abc");
        assert_int_equal(b.size, 3);
        assert_ok(tb_buffer_append_str(&b, "d", &err), err);
        assert_string_equal(b.data, "abcd");
        assert_true(b.allocated <= 5);
}

static void test_steal(void **state)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(0);
        _cleanup_free_ char *empty = NULL, *full = NULL;
        _cleanup_error_ TbError *err = NULL;
        size_t size = 77;

        empty = tb_buffer_steal(&b, &size);
        assert_string_equal(empty, "");
        assert_int_equal(size, 0);

        assert_ok(tb_buffer_append(&b, "", 0, &err), err);
        assert_string_equal(b.data, "");
        assert_ok(tb_buffer_append_str(&b, "xyz", &err), err);
        full = tb_buffer_steal(&b, &size);
        assert_string_equal(full, "xyz");
        assert_int_equal(size, 3);
        assert_null(b.data);
        assert_int_equal(b.size, 0);
}

static void test_consume(void **state)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(0);
        _cleanup_error_ TbError *err = NULL;

        tb_buffer_consume(&b, 5);
        assert_ok(tb_buffer_append_str(&b, "line1\nline2\n", &err), err);
        tb_buffer_consume(&b, 6);
        assert_string_equal(b.data, "line2\n");
        tb_buffer_consume(&b, 0);
        assert_int_equal(b.size, 6);
        tb_buffer_consume(&b, 100);
        assert_string_equal(b.data, "");
        assert_int_equal(b.size, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_append),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_steal),
                cmocka_unit_test(test_consume),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdbool.h>

static void test_set(void **state)
{
        _cleanup_error_ TbError *err = NULL;

        assert_int_equal(tb_error_set(&err, TB_ERROR_CONFIG, -EINVAL, "bad value \"%s\"", "x"), -EINVAL);
        assert_int_equal(err->kind, TB_ERROR_CONFIG);
        assert_int_equal(err->code, -EINVAL);
        assert_false(err->retryable);
        assert_string_equal(tb_error_message(err), "bad value \"x\"");

        /* The first error counts. */
        assert_int_equal(tb_error_set(&err, TB_ERROR_BUG, -EIO, "second"), -EIO);
        assert_string_equal(err->message, "bad value \"x\"");
}

static void test_codes(void **state)
{
        assert_int_equal(tb_error_set(NULL, TB_ERROR_BUG, EIO, "x"), -EIO);
        assert_int_equal(tb_error_set(NULL, TB_ERROR_BUG, 0, "x"), -EIO);
        assert_int_equal(tb_error_set_errno(NULL, TB_ERROR_BUG, 0, "x"), -EIO);
        assert_int_equal(tb_error_prefix(NULL, "x"), -EIO);
        assert_int_equal(tb_error_oom(NULL), -ENOMEM);
        assert_int_equal(tb_error_move(NULL, NULL), -EIO);
        assert_null(tb_error_copy(NULL));
        assert_null(tb_error_free(NULL));
        tb_error_set_retryable(NULL);
        assert_string_equal(tb_error_message(NULL), "unknown error");
}

static void test_chain(void **state)
{
        _cleanup_error_ TbError *err = NULL;

        assert_int_equal(tb_error_set_errno(&err, TB_ERROR_SYSTEM, ENOENT, "cannot open %s", "/x"), -ENOENT);
        assert_string_equal(err->message, "cannot open /x: No such file or directory");
        assert_int_equal(tb_error_prefix(&err, "cannot load %s", "manifest"), -ENOENT);
        assert_string_equal(err->message, "cannot load manifest: cannot open /x: No such file or directory");
        tb_error_set_retryable(&err);
        assert_true(err->retryable);
}

static void test_oom_is_shared(void **state)
{
        TbError *err = NULL, *copy;

        assert_int_equal(tb_error_oom(&err), -ENOMEM);
        assert_int_equal(tb_error_prefix(&err, "context"), -ENOMEM);
        assert_string_equal(err->message, "out of memory");
        assert_int_equal(err->kind, TB_ERROR_RESOURCE);
        copy = tb_error_copy(err);
        assert_ptr_equal(copy, err);
        assert_null(tb_error_free(err));
        assert_string_equal(copy->message, "out of memory");
}

static void test_move_and_copy(void **state)
{
        _cleanup_error_ TbError *a = NULL, *b = NULL, *c = NULL;

        tb_error_set(&a, TB_ERROR_REMOTE, -ETIMEDOUT, "slow");
        tb_error_set_retryable(&a);
        b = tb_error_copy(a);
        assert_ptr_not_equal(a, b);
        assert_true(b->retryable);
        assert_int_equal(b->kind, TB_ERROR_REMOTE);
        assert_string_equal(b->message, "slow");

        assert_int_equal(tb_error_move(&c, &a), -ETIMEDOUT);
        assert_null(a);
        assert_non_null(c);
        /* Taken destination: the source is dropped. */
        assert_int_equal(tb_error_move(&c, &b), -ETIMEDOUT);
        assert_null(b);
        assert_string_equal(c->message, "slow");
        assert_int_equal(tb_error_move(NULL, &c), -ETIMEDOUT);
        assert_null(c);
}

static void test_kinds(void **state)
{
        for (int k = 0; k < _TB_ERROR_KIND_MAX; k++)
                assert_int_equal(tb_error_kind_from_string(tb_error_kind_to_string(k)), k);
        assert_string_equal(tb_error_kind_to_string(TB_ERROR_CANCELLED), "cancelled");
        assert_string_equal(tb_error_kind_to_string(_TB_ERROR_KIND_MAX), "unknown");
        assert_int_equal(tb_error_kind_from_string("nonsense"), -EINVAL);
        assert_int_equal(tb_error_kind_from_string(NULL), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_set),
                cmocka_unit_test(test_codes),
                cmocka_unit_test(test_chain),
                cmocka_unit_test(test_oom_is_shared),
                cmocka_unit_test(test_move_and_copy),
                cmocka_unit_test(test_kinds),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

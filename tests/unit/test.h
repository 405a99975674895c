/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What every unit test includes first: cmocka.h wants these headers in front of it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/error.h"

/* Fails with the error's own message instead of just a number. */
#define assert_ok(r, err)                                                      \
        do {                                                                   \
                int _r = (r);                                                  \
                if (_r < 0)                                                    \
                        fail_msg("%s: %d: %s", #r, _r, tb_error_message(err)); \
        } while (0)

/* The code is as expected and an error object that agrees with it was set; consumes the object. */
#define assert_error(r, expected, err)                     \
        do {                                               \
                int _r = (r);                              \
                assert_int_equal(_r, (expected));          \
                assert_non_null(err);                      \
                assert_int_equal((err)->code, (expected)); \
                assert_non_null((err)->message);           \
                (err) = tb_error_free(err);                \
        } while (0)

/* An expression that passes "err" on fails with this code and a message that says so. (Wants common/cleanup.h.) */
#define assert_fails(_expr, _code, _text)                                          \
        do {                                                                       \
                _cleanup_error_ TbError *e_ = NULL;                                \
                TbError **err = &e_;                                               \
                assert_int_equal((_expr), (_code));                                \
                assert_non_null(e_);                                               \
                if (!strstr(e_->message, (_text)))                                 \
                        fail_msg("\"%s\" is not in \"%s\"", (_text), e_->message); \
        } while (0)

#define assert_works(_expr)                                   \
        do {                                                  \
                _cleanup_error_ TbError *e_ = NULL;           \
                TbError **err = &e_;                          \
                if ((_expr) < 0)                              \
                        fail_msg("%s", tb_error_message(e_)); \
        } while (0)

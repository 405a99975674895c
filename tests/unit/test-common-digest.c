/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "common/digest.h"

#define ABC "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void test_known_values(void **state)
{
        _cleanup_error_ TbError *err = NULL;
        TbDigest a = {}, b = {};

        /* FIPS 180-2 appendix B.1 */
        assert_ok(tb_digest_of("abc", 3, &a, &err), err);
        assert_string_equal(a.text, ABC);
        assert_string_equal(tb_digest_hex(&a), &ABC[7]);
        assert_ok(tb_digest_of(NULL, 0, &b, &err), err);
        assert_string_equal(b.text, EMPTY);
        assert_false(tb_digest_equal(&a, &b));
        assert_true(tb_digest_is_set(&a));
}

static void test_running(void **state)
{
        _cleanup_(tb_hasher_freep) TbHasher *h = NULL;
        TbError *err = NULL;
        TbDigest d = {};

        assert_ok(tb_hasher_new(&h, &err), err);
        assert_ok(tb_hasher_update(h, "a", 1, &err), err);
        assert_ok(tb_hasher_update(h, NULL, 0, &err), err);
        assert_ok(tb_hasher_update(h, "bc", 2, &err), err);
        assert_ok(tb_hasher_final(h, &d, &err), err);
        assert_string_equal(d.text, ABC);
        assert_error(tb_hasher_update(h, "x", 1, &err), -EINVAL, err);
        assert_error(tb_hasher_final(h, &d, &err), -EINVAL, err);
        assert_null(tb_hasher_free(NULL));
}

static void refuse(const char *s, int code)
{
        TbError *err = NULL;
        TbDigest d = {};

        assert_error(tb_digest_parse(s, &d, &err), code, err);
        assert_false(tb_digest_is_set(&d));
}

static void test_parse(void **state)
{
        _cleanup_error_ TbError *err = NULL;
        TbDigest d = {};
        char text[sizeof(ABC) + 1];

        assert_ok(tb_digest_parse(ABC, &d, &err), err);
        assert_string_equal(d.text, ABC);

        refuse(NULL, -EINVAL);
        refuse("", -EINVAL);
        refuse("sha256:", -EINVAL);
        refuse("sha256", -EINVAL);
        refuse(ABC "0", -EINVAL);
        refuse(" " ABC, -EINVAL);
        memcpy(text, ABC, sizeof(ABC));
        text[sizeof(ABC) - 2] = 0;
        refuse(text, -EINVAL);
        memcpy(text, ABC, sizeof(ABC));
        text[7] = 'B';
        refuse(text, -EINVAL);
        text[7] = '/';
        refuse(text, -EINVAL);
        refuse("SHA256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", -EINVAL);
        refuse("sha512:cf83e1357eefb8bd", -EOPNOTSUPP);
        refuse("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", -EOPNOTSUPP);
        refuse("sha512:../../etc/passwd", -EINVAL);
        refuse("+:abc", -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_known_values),
                cmocka_unit_test(test_running),
                cmocka_unit_test(test_parse),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host keys of nodes that are served from outside. Whether they are keys a client says: tests/engine/test_ssh_outside.py. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/outside-keys.h"
#include "common/cleanup.h"
#include "common/file.h"

#define ID_A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define ID_B "10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

typedef int (*MakeKey)(const unsigned char *secret, const char *id, TbBuffer *ret, TbError **err);

static bool equal(const TbBuffer *a, const TbBuffer *b)
{
        return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

static void test_keys(void **state)
{
        static const unsigned char secret[OUTSIDE_SECRET_SIZE] = {1}, other[OUTSIDE_SECRET_SIZE] = {2};
        static const struct {
                MakeKey make;
                const char *name;
        } kinds[] = {{outside_key_ed25519, "ssh-ed25519"}, {outside_key_ecdsa, "ecdsa-sha2-nistp256"}};
        TbError *err = NULL;

        for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
                _cleanup_buffer_ TbBuffer a = TB_BUFFER_INIT(OUTSIDE_KEY_MAX),
                                          same = TB_BUFFER_INIT(OUTSIDE_KEY_MAX),
                                          b = TB_BUFFER_INIT(OUTSIDE_KEY_MAX),
                                          c = TB_BUFFER_INIT(OUTSIDE_KEY_MAX);

                assert_ok(kinds[i].make(secret, ID_A, &a, &err), err);
                assert_ok(kinds[i].make(secret, ID_A, &same, &err), err);
                assert_ok(kinds[i].make(secret, ID_B, &b, &err), err);
                assert_ok(kinds[i].make(other, ID_A, &c, &err), err);
                assert_true(equal(&a, &same));
                assert_false(equal(&a, &b) || equal(&a, &c) || equal(&b, &c));
                assert_int_equal((unsigned char) a.data[3], strlen(kinds[i].name));
                assert_memory_equal(a.data + 4, kinds[i].name, strlen(kinds[i].name));
        }
}

static void test_secret(void **state)
{
        unsigned char first[OUTSIDE_SECRET_SIZE], second[OUTSIDE_SECRET_SIZE];
        char top[] = "/tmp/test-outside-XXXXXX", dir[64], path[96];
        TbError *err = NULL;
        struct stat st;

        assert_non_null(mkdtemp(top));
        (void) snprintf(dir, sizeof(dir), "%s/state", top);
        (void) snprintf(path, sizeof(path), "%s/ssh-host-secret", dir);
        assert_ok(outside_secret_read(dir, first, &err), err);
        assert_ok(outside_secret_read(dir, second, &err), err);
        assert_memory_equal(first, second, sizeof(first));
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);

        /* Another one is not made in silence: clients would take the nodes for others. */
        assert_int_equal(truncate(path, 5), 0);
        assert_error(outside_secret_read(dir, second, &err), -EBADMSG, err);
        assert_int_equal(unlink(path), 0);
        assert_ok(outside_secret_read(dir, second, &err), err);
        assert_true(memcmp(first, second, sizeof(first)) != 0);
        assert_ok(tb_rm_rf(top, &err), err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_keys),
                cmocka_unit_test(test_secret),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

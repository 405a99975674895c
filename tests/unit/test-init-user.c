/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Moby's GetExecUser rules; the expected values are those of moby/sys/user's own tests and of docker run. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "augment/client/user.h"

static const char passwd[] = "root:x:0:0:root user:/root:/bin/bash\n"
                             "\n"
                             "   adm:x:42:43:adm:/var/adm:/bin/false   \n"
                             "111:x:222:333::/var/garbage\n"
                             "odd:x:111:112::/home/odd:::::\n"
                             "user7456:x:7456:100:Vasya:/home/user7456\n"
                             "twice:x:500:1::/first:/bin/sh\n"
                             "twice:x:501:2::/second:/bin/sh\n"
                             "broken:x:abc:def::/broken:/bin/sh\n"
                             "short\n"
                             "last:x:900:901::/last";

static const char group[] = "root:x:0:root\n"
                            "adm:x:43:\n"
                            "grp:x:1234:root,adm,user7456\n"
                            "adm:x:4343:root,adm-duplicate\n"
                            "\n"
                            "odd:x:444:\n"
                            "own:x:100:user7456\n"
                            "many:x:5:a,b,,last\n"
                            "tail:x:6:last";

static UserIds resolve(const char *spec)
{
        UserIds ids = {};
        char why[256] = "";
        int r = user_resolve(spec, passwd, group, &ids, why, sizeof(why));

        if (r < 0)
                fail_msg("%s: %d: %s", spec, r, why);
        return ids;
}

static void assert_ids(const char *spec, uid_t uid, gid_t gid, size_t n_groups)
{
        UserIds ids = resolve(spec);

        assert_int_equal(ids.uid, uid);
        assert_int_equal(ids.gid, gid);
        assert_int_equal(ids.n_groups, n_groups);
}

static void test_names_and_numbers(void **state)
{
        assert_ids("root", 0, 0, 2);
        assert_ids("adm", 42, 43, 1);
        assert_ids("adm:grp", 42, 1234, 0);
        assert_ids("adm:43", 42, 43, 0);
        assert_ids("adm:5555", 42, 5555, 0);
        assert_ids("10000", 10000, 0, 0);
        assert_ids("10000:grp", 10000, 1234, 0);
        assert_ids("10000:11", 10000, 11, 0);
        assert_ids("root:adm", 0, 43, 0);
        assert_ids("42", 42, 43, 1);
        assert_ids("", 0, 0, 2);
        assert_ids(":grp", 0, 1234, 0);
        assert_ids("adm:", 42, 43, 1);
        assert_ids("adm:grp:more", 42, 1234, 0);
        assert_ids("007456", 7456, 100, 1);
        assert_ids("2147483647", 2147483647, 0, 0);
}

static void test_a_number_is_never_a_name(void **state)
{
        /* The user named 111 has uid 222; uid 111 belongs to odd. */
        assert_ids("111", 111, 112, 0);
        assert_ids("222", 222, 333, 0);
}

static void test_first_line_wins(void **state)
{
        assert_ids("twice", 500, 1, 0);
        assert_ids("501", 501, 2, 0);
}

static void test_supplementary_groups(void **state)
{
        UserIds ids = resolve("user7456");

        /* The primary group isn't listed twice. */
        assert_int_equal(ids.n_groups, 1);
        assert_int_equal(ids.groups[0], 1234);

        ids = resolve("last");
        assert_int_equal(ids.gid, 901);
        assert_int_equal(ids.n_groups, 2);
        assert_int_equal(ids.groups[0], 5);
        assert_int_equal(ids.groups[1], 6);
}

static void test_broken_numbers_count_as_zero(void **state)
{
        assert_ids("broken", 0, 0, 0);
        assert_ids("short", 0, 0, 0);
}

static void assert_refused(const char *spec, const char *p, const char *g, int expected, const char *message)
{
        UserIds ids = {.uid = 77};
        char why[256] = "";

        assert_int_equal(user_resolve(spec, p, g, &ids, why, sizeof(why)), expected);
        assert_int_equal(ids.uid, 77);
        assert_non_null(strstr(why, message));
}

static void test_unknown(void **state)
{
        assert_refused("nosuch", passwd, group, -ENOENT,
                "unable to find user nosuch: no matching entries in passwd file");
        assert_refused("adm:nosuch", passwd, group, -ENOENT,
                "unable to find group nosuch: no matching entries in group file");
        assert_refused("nosuch", NULL, NULL, -ENOENT, "unable to find user nosuch");
        assert_refused("1:nosuch", NULL, NULL, -ENOENT, "unable to find group nosuch");
        assert_refused("2147483648", passwd, group, -ERANGE, "0-2147483647");
        assert_refused("-1", passwd, group, -ERANGE, "0-2147483647");
        assert_refused("99999999999999999999999999", passwd, group, -ERANGE, "0-2147483647");
        assert_refused("1:-1", passwd, group, -ERANGE, "0-2147483647");
        assert_refused("0x10", passwd, group, -ENOENT, "0x10");
        assert_refused(" adm", passwd, group, -ENOENT, "unable to find user  adm:");
        assert_refused("adm: grp", passwd, group, -ENOENT, "unable to find group  grp:");
}

static void test_no_files(void **state)
{
        UserIds ids;
        char why[256];

        assert_int_equal(user_resolve("1000:1001", NULL, NULL, &ids, why, sizeof(why)), 0);
        assert_int_equal(ids.uid, 1000);
        assert_int_equal(ids.gid, 1001);
        assert_int_equal(user_resolve("", NULL, NULL, &ids, why, sizeof(why)), 0);
        assert_int_equal(ids.uid, 0);
}

static void assert_home(const char *p, uid_t uid, const char *expected)
{
        char *home = user_home(p, uid);

        assert_string_equal(home, expected);
        free(home);
}

static void test_home(void **state)
{
        assert_home(passwd, 0, "/root");
        assert_home(passwd, 42, "/var/adm");
        assert_home(passwd, 900, "/last");
        assert_home(passwd, 500, "/first");
        assert_home(passwd, 4711, "/");
        assert_home(NULL, 0, "/");
        assert_home("x:x:7:7\n", 7, "");
}

static void assert_list(const char *spec, const char *text, const gid_t *expected, size_t n_expected)
{
        static gid_t list[USER_LIST_MAX];
        UserIds ids;
        char why[256];
        size_t n;

        assert_int_equal(user_resolve(spec, passwd, text, &ids, why, sizeof(why)), 0);
        assert_int_equal(user_groups(&ids, text, list, &n, why, sizeof(why)), 0);
        assert_int_equal(n, n_expected);
        assert_memory_equal(list, expected, n * sizeof(*list));
}

/* What docker 20.10 with runc 1.1 gives these users. */
static void test_numbers_are_looked_up_again_as_names(void **state)
{
        static const char odd[] = "root:x:0:\n77:x:78:\nmem:x:90:root,adm\n90:x:95:\n91:x:96:\n96:x:97\n";

        assert_list("root:77", odd, (gid_t[]){78}, 1);
        assert_list("adm:77", odd, (gid_t[]){78}, 1);
        assert_list("root:78", odd, (gid_t[]){78}, 1);
        assert_list("root", odd, (gid_t[]){0, 90}, 2);
        assert_list("adm", odd, (gid_t[]){43, 90}, 2);
        /* The first line wins, be it by name or by number. */
        assert_list("adm:90", odd, (gid_t[]){90}, 1);
        assert_list("adm:96", odd, (gid_t[]){96}, 1);
        assert_list("adm:95", odd, (gid_t[]){95}, 1);
        assert_list("5000:6000", odd, (gid_t[]){6000}, 1);
        assert_list("5000:6000", NULL, (gid_t[]){6000}, 1);
        /* A line whose group is in the list already isn't taken twice. */
        assert_list("user7456", "7456:x:100:\n100:x:5:user7456\nmore:x:7456:user7456\n",
                (gid_t[]){100, 5, 7456}, 3);
}

static void test_a_group_out_of_range(void **state)
{
        static gid_t list[USER_LIST_MAX];
        char why[256];
        UserIds ids;
        size_t n;

        assert_int_equal(user_resolve("adm", passwd, "neg:x:-5:adm\n", &ids, why, sizeof(why)), 0);
        assert_int_equal(user_groups(&ids, NULL, list, &n, why, sizeof(why)), -ERANGE);
        assert_non_null(strstr(why, "0-2147483647"));
        assert_int_equal(
                user_resolve("adm", passwd, "big:x:99999999999999999999:adm\n", &ids, why, sizeof(why)), 0);
        assert_int_equal(user_groups(&ids, NULL, list, &n, why, sizeof(why)), -ERANGE);
}

static void test_more_groups_than_fit(void **state)
{
        size_t size = 0, room = 64 * 2000;
        char *text = malloc(room), why[256];
        UserIds ids;

        assert_non_null(text);
        for (int i = 0; i < 2000; i++)
                size += (size_t) snprintf(text + size, room - size, "g%d:x:%d:adm\n", i, 10000 + i);
        assert_int_equal(user_resolve("adm", passwd, text, &ids, why, sizeof(why)), 0);
        assert_int_equal(ids.n_groups, USER_GROUPS_MAX);
        free(text);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names_and_numbers),
                cmocka_unit_test(test_a_number_is_never_a_name),
                cmocka_unit_test(test_first_line_wins),
                cmocka_unit_test(test_supplementary_groups),
                cmocka_unit_test(test_broken_numbers_count_as_zero),
                cmocka_unit_test(test_unknown),
                cmocka_unit_test(test_no_files),
                cmocka_unit_test(test_home),
                cmocka_unit_test(test_numbers_are_looked_up_again_as_names),
                cmocka_unit_test(test_a_group_out_of_range),
                cmocka_unit_test(test_more_groups_than_fit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

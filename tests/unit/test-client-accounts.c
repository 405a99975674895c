/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Accounts and hosts of a declaration in the files of images: what comes out, byte for byte. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "augment/client/client-accounts.h"
#include "augment/client/client-hosts.h"

#define HEAD "# What tbnode-client added to the account files here. It removes what is no longer declared.\n"

static const char declared[] = "{\"groups\":[{\"name\":\"proj\",\"gid\":6001}],\"users\":["
                               "{\"name\":\"joe\",\"uid\":20001,\"gid\":6001,\"groups\":[\"proj\",\"audio\"]"
                               ",\"root\":true,\"full_name\":\"Joe\","
                               "\"home\":\"/users/joe\",\"shell\":\"bash\",\"password_hash\":\"$6$a$b\"},"
                               "{\"name\":\"amy\",\"uid\":20002,\"gid\":6001}]}";

typedef struct Files {
        char *text[_ACCOUNT_FILE_MAX];
        Problems problems;
        bool changed[_ACCOUNT_FILE_MAX];
} Files;

static const char *shell(const char *word, void *userdata)
{
        return strcmp(word, "bash") == 0 ? "/bin/bash" : "/bin/sh";
}

static void files_done(Files *f)
{
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++)
                free(f->text[i]);
}

static json_t *parse(const char *text)
{
        json_t *j = json_loads(text, 0, NULL);

        assert_non_null(j);
        return j;
}

/* One turn: the files become what accounts_apply() makes of them. */
static void apply(Files *f, const char *declaration)
{
        _cleanup_json_ json_t *j = parse(declaration);
        _cleanup_accounts_ Accounts a = {};

        f->problems = (Problems){};
        accounts_load(&a, f->text);
        assert_true(accounts_apply(&a, j, shell, NULL, &f->problems));
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++) {
                f->changed[i] = a.table[i].changed;
                if (!a.table[i].changed)
                        continue;
                free(f->text[i]);
                f->text[i] = table_render(&a.table[i]);
                assert_non_null(f->text[i]);
        }
}

static bool anything_changed(const Files *f)
{
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++)
                if (f->changed[i])
                        return true;
        return false;
}

static char *copy(const char *s)
{
        char *c = strdup(s);

        assert_non_null(c);
        return c;
}

/* Debian: everything there, a last line without an end, lines that nobody understands. */
static void test_debian(void **state)
{
        _cleanup_(files_done)
                Files f = {.text = {
                                   [ACCOUNT_PASSWD] = copy("root:x:0:0:root:/root:/bin/bash\n# "
                                                           "odd\nbroken\nwww:x:33:33::/var/www:/bin/false"),
                                   [ACCOUNT_GROUP] = copy("root:x:0:\nsudo:x:27:\naudio:x:29:pulse\n"),
                                   [ACCOUNT_SHADOW] = copy("root:*:19000:0:99999:7:::\n"),
                                   [ACCOUNT_GSHADOW] = copy("root:*::\nsudo:*::\naudio:*::pulse\n"),
                           }};

        apply(&f, declared);
        assert_int_equal(f.problems.count, 0);
        assert_string_equal(f.text[ACCOUNT_PASSWD],
                "root:x:0:0:root:/root:/bin/bash\n# odd\nbroken\nwww:x:33:33::/var/www:/bin/false\n"
                "joe:x:20001:6001:Joe:/users/joe:/bin/bash\namy:x:20002:6001::/home/amy:/bin/sh\n");
        assert_string_equal(
                f.text[ACCOUNT_GROUP], "root:x:0:\nsudo:x:27:joe\naudio:x:29:pulse,joe\nproj:x:6001:joe\n");
        assert_string_equal(
                f.text[ACCOUNT_SHADOW], "root:*:19000:0:99999:7:::\njoe:$6$a$b:::::::\namy:*:::::::\n");
        assert_string_equal(
                f.text[ACCOUNT_GSHADOW], "root:*::\nsudo:*::joe\naudio:*::pulse,joe\nproj:!::joe\n");
        assert_string_equal(f.text[ACCOUNT_RECORD],
                HEAD "group:proj:6001\nuser:joe:20001\nuser:amy:20002\nmember:proj:joe\nmember:audio:"
                     "joe\nmember:sudo:joe\n");

        apply(&f, declared);
        assert_false(anything_changed(&f));

        /* Nothing is declared any more: all is as it was, but for the line that had no end. */
        apply(&f, "{}");
        assert_string_equal(f.text[ACCOUNT_PASSWD],
                "root:x:0:0:root:/root:/bin/bash\n# odd\nbroken\nwww:x:33:33::/var/www:/bin/false\n");
        assert_string_equal(f.text[ACCOUNT_GROUP], "root:x:0:\nsudo:x:27:\naudio:x:29:pulse\n");
        assert_string_equal(f.text[ACCOUNT_SHADOW], "root:*:19000:0:99999:7:::\n");
        assert_string_equal(f.text[ACCOUNT_GSHADOW], "root:*::\nsudo:*::\naudio:*::pulse\n");
        assert_string_equal(f.text[ACCOUNT_RECORD], HEAD);
}

/* An image with nothing. The hash goes into a shadow file, never into passwd. */
static void test_nothing(void **state)
{
        _cleanup_(files_done) Files f = {};

        apply(&f, "{\"users\":[]}");
        assert_false(anything_changed(&f));
        apply(&f, declared);
        assert_int_equal(f.problems.count, 1);
        assert_non_null(strstr(f.problems.reason[0], "audio"));
        assert_string_equal(f.text[ACCOUNT_PASSWD],
                "root:*:0:0:root:/:/tbnode/bin/sh\njoe:x:20001:6001:Joe:/users/joe:/bin/bash\n"
                "amy:x:20002:6001::/home/amy:/bin/sh\n");
        assert_string_equal(f.text[ACCOUNT_GROUP], "root:*:0:\nproj:x:6001:joe\n");
        assert_string_equal(f.text[ACCOUNT_SHADOW], "joe:$6$a$b:::::::\namy:*:::::::\n");
        assert_null(f.text[ACCOUNT_GSHADOW]);
}

/* Without a hash anywhere there is no reason for a shadow file. */
static void test_no_shadow(void **state)
{
        _cleanup_(files_done) Files f = {.text = {[ACCOUNT_PASSWD] = copy("root:x:0:0::/root:/bin/sh\n")}};

        apply(&f, "{\"users\":[{\"name\":\"amy\",\"uid\":7,\"gid\":8}]}");
        assert_string_equal(
                f.text[ACCOUNT_PASSWD], "root:x:0:0::/root:/bin/sh\namy:*:7:8::/home/amy:/bin/sh\n");
        assert_null(f.text[ACCOUNT_SHADOW]);
        apply(&f, "{\"users\":[{\"name\":\"amy\",\"uid\":7,\"gid\":8,\"password_hash\":\"h\"}]}");
        assert_string_equal(
                f.text[ACCOUNT_PASSWD], "root:x:0:0::/root:/bin/sh\namy:x:7:8::/home/amy:/bin/sh\n");
        assert_string_equal(f.text[ACCOUNT_SHADOW], "amy:h:::::::\n");
}

static void test_collisions(void **state)
{
        static const char passwd[] =
                "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nsame:x:5:5:mine:/s:/s\n";
        static const char group[] = "root:x:0:\nusers:x:100:\n";
        _cleanup_(files_done)
                Files f = {.text = {[ACCOUNT_PASSWD] = copy(passwd), [ACCOUNT_GROUP] = copy(group)}};

        /* The image's names keep the image's ids; the same id may have two names; what is the same is taken as it is. */
        apply(&f,
                "{\"groups\":[{\"name\":\"users\",\"gid\":7}],\"users\":[{\"name\":\"node\",\"uid\":20000,"
                "\"gid\":1,\"groups\":[\"users\"]},"
                "{\"name\":\"joe\",\"uid\":1000,\"gid\":1000},"
                "{\"name\":\"same\",\"uid\":5,\"gid\":9,\"home\":\"/other\",\"groups\":[\"users\"]},"
                "{\"name\":\"root\",\"uid\":0,\"gid\":0,\"shell\":\"bash\"}]}");
        assert_int_equal(f.problems.count, 2);
        assert_non_null(strstr(f.problems.reason[0], "group users has gid 100"));
        assert_non_null(strstr(f.problems.reason[1], "user node has uid 1000"));
        assert_string_equal(f.text[ACCOUNT_PASSWD],
                "root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nsame:x:5:5:mine:/s:/s\n"
                "joe:*:1000:1000::/home/joe:/bin/sh\n");
        assert_string_equal(f.text[ACCOUNT_GROUP], "root:x:0:\nusers:x:100:same\n");

        apply(&f, "{}");
        assert_string_equal(f.text[ACCOUNT_PASSWD], passwd);
        assert_string_equal(f.text[ACCOUNT_GROUP], group);
}

/* An account that got another id since we made it is somebody else's now. */
static void test_removed_only_if_ours(void **state)
{
        _cleanup_(files_done) Files f = {
                .text = {
                        [ACCOUNT_PASSWD] = copy("joe:x:5:5::/:/bin/sh\namy:x:6:6::/:/bin/sh\n"),
                        [ACCOUNT_RECORD] = copy(HEAD "user:joe:20001\nuser:amy:6\ngarbage\nuser::\n"),
                }};

        apply(&f, "{}");
        assert_string_equal(f.text[ACCOUNT_PASSWD], "joe:x:5:5::/:/bin/sh\n");
}

/* What a user changed himself and the declaration doesn't mention stays; what it mentions is put right. */
static void test_changes(void **state)
{
        _cleanup_(files_done) Files f = {};

        apply(&f, "{\"users\":[{\"name\":\"amy\",\"uid\":7,\"gid\":8,\"full_name\":\"A\"}]}");
        free(f.text[ACCOUNT_PASSWD]);
        f.text[ACCOUNT_PASSWD] =
                copy("root:*:0:0:root:/:/x\namy:*:7:8:Other:/elsewhere:/bin/zsh\n+::::::\n");
        apply(&f,
                "{\"users\":[{\"name\":\"amy\",\"uid\":9,\"gid\":8,\"full_name\":\"A\"},{\"name\":\"bob\","
                "\"uid\":10,\"gid\":8}]}");
        assert_string_equal(f.text[ACCOUNT_PASSWD],
                "root:*:0:0:root:/:/x\namy:*:9:8:A:/elsewhere:/bin/zsh\nbob:*:10:8::/home/bob:/bin/"
                "sh\n+::::::\n");
}

/* Whatever an agent sends, no line is made that has other fields than ours. */
static void test_hostile_declarations(void **state)
{
        static const char *const bad[] = {
                "{\"users\":[{\"name\":\"a:b\",\"uid\":1,\"gid\":1}]}",
                "{\"users\":[{\"name\":\"a\\nroot2::0:0::/:/bin/sh\",\"uid\":1,\"gid\":1}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":0,\"gid\":1}]}",
                "{\"users\":[{\"name\":\"root\",\"uid\":1,\"gid\":1}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":-1,\"gid\":1}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":4294967295,\"gid\":1}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":1,\"gid\":1,\"home\":\"/a:/b\"}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":1,\"gid\":1,\"home\":\"/a/../etc\"}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":1,\"gid\":1,\"full_name\":\"x\\ny\"}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":1,\"gid\":1,\"shell\":\"/bin/sh\\nx\"}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":1,\"gid\":1,\"password_hash\":\"x:0\"}]}",
                "{\"users\":[{\"name\":\"ok\",\"uid\":\"1\",\"gid\":1}]}",
                "{\"users\":[1,null,[]]}",
                "{\"groups\":[{\"name\":\"g,h\",\"gid\":1}]}",
                "{\"groups\":[{\"name\":\"g\"}]}",
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_(files_done) Files f = {.text = {[ACCOUNT_PASSWD] = copy("x:x:1:1::/:/\n")}};

                apply(&f, bad[i]);
                if (f.problems.count == 0 || anything_changed(&f))
                        fail_msg("accepted: %s", bad[i]);
        }
}

static char *edit_hosts(const char *text, const char *hosts, unsigned problems)
{
        _cleanup_json_ json_t *j = parse(hosts);
        Problems p = {};
        char *result = hosts_edit(text, j, &p);

        assert_non_null(result);
        assert_int_equal(p.count, problems);
        return result;
}

static void test_hosts(void **state)
{
        static const char own[] = "127.0.0.1\tlocalhost\n172.17.0.2\tn0";
        static const char hosts[] =
                "[{\"name\":\"b-lan\",\"address\":\"10.0.0.2\",\"aliases\":[\"b\",\"bad name\"]},"
                "{\"name\":\"v6\",\"address\":\"fd00::1\"}]";
        _cleanup_free_ char *one = edit_hosts(own, hosts, 0), *two = edit_hosts(one, hosts, 0),
                            *none = edit_hosts(one, "[]", 0), *bad = NULL, *torn = NULL;

        assert_string_equal(one,
                "127.0.0.1\tlocalhost\n172.17.0.2\tn0\n" HOSTS_BEGIN
                "\n10.0.0.2\tb-lan b\nfd00::1\tv6\n" HOSTS_END "\n");
        assert_string_equal(two, one);
        assert_string_equal(none, "127.0.0.1\tlocalhost\n172.17.0.2\tn0\n");
        bad = edit_hosts("",
                "[{\"name\":\"x\\n6.6.6.6 "
                "bank\",\"address\":\"10.0.0.1\"},{\"name\":\"x\",\"address\":\"1\"}]",
                2);
        assert_string_equal(bad, "");
        /* The end was lost: what others wrote behind stays. */
        torn = edit_hosts(HOSTS_BEGIN "\n10.0.0.9 old\n1.2.3.4 theirs\n", "[]", 0);
        assert_non_null(strstr(torn, "1.2.3.4 theirs\n"));
        assert_null(strstr(torn, HOSTS_BEGIN));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_debian),
                cmocka_unit_test(test_nothing),
                cmocka_unit_test(test_no_shadow),
                cmocka_unit_test(test_collisions),
                cmocka_unit_test(test_removed_only_if_ours),
                cmocka_unit_test(test_changes),
                cmocka_unit_test(test_hostile_declarations),
                cmocka_unit_test(test_hosts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signals, command lines, the description of main and node.conf. */
#include "tests/unit/test.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "augment/client/node-conf.h"
#include "augment/client/options.h"
#include "augment/client/signals.h"
#include "augment/client/spec.h"
#include "augment/client/ssh-outside.h"
#include "augment/client/util.h"

static void test_signal_names(void **state)
{
        static const struct {
                const char *text;
                int expected;
        } cases[] = {
                {"SIGTERM", 15},
                {"TERM", 15},
                {"sigquit", 3},
                {"9", 9},
                {"SIGWINCH", 28},
                {"USR1", 10},
                {"SIGRTMIN", 34},
                {"SIGRTMIN+3", 37},
                {"RTMIN+30", 64},
                {"SIGRTMAX", 64},
                {"RTMAX-14", 50},
                {"64", 64},
                {"0", -EINVAL},
                {"65", -EINVAL},
                {"", -EINVAL},
                {"SIG", -EINVAL},
                {"RTMIN+31", -EINVAL},
                {"RTMIN-1", -EINVAL},
                {"RTMAX+1", -EINVAL},
                {"RTMIN+", -EINVAL},
                {"-9", -EINVAL},
                {"9 ", -EINVAL},
                {"99999999999999999999", -EINVAL},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (signal_from_string(cases[i].text) != cases[i].expected)
                        fail_msg("%s: %d", cases[i].text, signal_from_string(cases[i].text));
        assert_int_equal(stop_signal_from_string(NULL), SIGTERM);
        assert_int_equal(stop_signal_from_string("nonsense"), SIGTERM);
        assert_int_equal(stop_signal_from_string("SIGINT"), SIGINT);
}

/* All 64 signals can be blocked and waited for, also those that a libc keeps for itself. */
static void test_real_time_signals_arrive(void **state)
{
        static const int numbers[] = {SIGTERM, 32, 33, 34, 37, 64};
        uint64_t old;
        int fd;

        assert_int_equal(signal_mask_set(UINT64_MAX, &old), 0);
        fd = signal_fd_new(UINT64_MAX);
        assert_true(fd >= 0);
        for (size_t i = 0; i < ELEMENTSOF(numbers); i++) {
                uint32_t info[32] = {};

                assert_int_equal(kill(getpid(), numbers[i]), 0);
                assert_int_equal(read(fd, info, 128), 128);
                assert_int_equal(info[0], numbers[i]);
        }
        close(fd);
        assert_int_equal(signal_mask_set(old, NULL), 0);
}

/* An argv of literals; nothing here writes to it. */
#define WORDS(...) ((char **) (const char *[]){__VA_ARGS__, NULL})

static void test_ssh_outside_header(void **state)
{
        static const char *const bad[] = {"", "tbnode-ssh 1", "tbnode-ssh 1 1 2 3", "tbnode-ssh 1 1 2 3 4 ",
                "tbnode-ssh 1 1 2 3 4 5", "tbnode-ssh 1 1  2 3 4", "tbnode-ssh 2 1 2 3 4",
                "tbnode-ssh 1 1 2 -3 4", "tbnode-ssh 1 1025 0 0 0", "tbnode-ssh 1 0 0 65537 0",
                "tbnode-ssh 1 0 0 0 00000000000000000000001", "tbnode-ssh 11 2 3 4",
                "tbnode-ssh 1\t1 2 3 4"};
        size_t sizes[SSH_OUTSIDE_PARTS] = {9, 9, 9, 9};

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(ssh_outside_parse(bad[i], sizes), -EINVAL);
        assert_int_equal(sizes[0], 9);
        assert_int_equal(ssh_outside_parse("tbnode-ssh 1 83 0 65536 160", sizes), 0);
        assert_int_equal(sizes[0], 83);
        assert_int_equal(sizes[1], 0);
        assert_int_equal(sizes[2], 65536);
        assert_int_equal(sizes[3], 160);
}

static void test_init_options(void **state)
{
        InitOptions o;
        char why[256];

        assert_int_equal(init_options_parse(WORDS("/tbnode/init", "--user", "app:grp", "--keep-home",
                                                    "--stop-signal=SIGQUIT", "--level", "basic", "--",
                                                    "prog", "--", "--user", "x"),
                                 &o, why, sizeof(why)),
                0);
        assert_string_equal(o.user, "app:grp");
        assert_true(o.keep_home);
        assert_int_equal(o.stop_signal, SIGQUIT);
        assert_string_equal(o.level, "basic");
        assert_string_equal(o.command[0], "prog");
        assert_string_equal(o.command[1], "--");
        assert_null(o.command[4]);

        assert_int_equal(init_options_parse(WORDS("init", "--"), &o, why, sizeof(why)), 0);
        assert_null(o.user);
        assert_null(o.command[0]);
        assert_int_equal(o.stop_signal, SIGTERM);

        /* A value may look like an option; an empty user is none. */
        assert_int_equal(
                init_options_parse(WORDS("init", "--user", "--", "--", "p"), &o, why, sizeof(why)), 0);
        assert_string_equal(o.user, "--");
        assert_int_equal(init_options_parse(WORDS("init", "--user=", "--", "p"), &o, why, sizeof(why)), 0);
        assert_null(o.user);
}

static void test_bad_options(void **state)
{
        InitOptions o = {.level = "untouched"};
        char why[256];

        assert_int_equal(init_options_parse(WORDS("init"), &o, why, sizeof(why)), -EINVAL);
        assert_int_equal(init_options_parse(WORDS("init", "sh"), &o, why, sizeof(why)), -EINVAL);
        assert_non_null(strstr(why, "sh"));
        assert_int_equal(init_options_parse(WORDS("init", "--user"), &o, why, sizeof(why)), -EINVAL);
        assert_non_null(strstr(why, "--user"));
        assert_int_equal(
                init_options_parse(WORDS("init", "--usery", "x", "--"), &o, why, sizeof(why)), -EINVAL);
        assert_int_equal(init_options_parse((char *[]){NULL}, &o, why, sizeof(why)), -EINVAL);
        assert_int_equal(as_user_options_parse(WORDS("init", "as-user"), &o, why, sizeof(why)), -EINVAL);
        assert_int_equal(
                as_user_options_parse(WORDS("init", "as-user", "--", "x"), &o, why, sizeof(why)), -EINVAL);
        assert_int_equal(
                as_user_options_parse(WORDS("init", "as-user", "app", "--"), &o, why, sizeof(why)), -EINVAL);
        assert_int_equal(as_user_options_parse(WORDS("init", "as-user", "app", "--level", "x", "--", "p"),
                                 &o, why, sizeof(why)),
                -EINVAL);
        assert_string_equal(o.level, "untouched");
}

static void test_as_user_options(void **state)
{
        InitOptions o;
        char why[256];

        assert_int_equal(
                as_user_options_parse(WORDS("init", "as-user", "1000:1", "--keep-home", "--", "p", "q"), &o,
                        why, sizeof(why)),
                0);
        assert_string_equal(o.user, "1000:1");
        assert_true(o.keep_home);
        assert_string_equal(o.command[1], "q");
}

static const MainSpec example = {
        .argv = (char *[]){(char *) "prog", (char *) "", (char *) "a b\n", NULL},
        .env = (char *[]){(char *) "PATH=/bin", (char *) "EMPTY=", (char *) "ODD", NULL},
        .user = "app",
        .keep_home = true,
        .cwd = "/data",
        .umask = 027,
};

static void test_spec_through_a_descriptor(void **state)
{
        MainSpec s;
        int fd;

        fd = main_spec_to_fd(&example);
        assert_true(fd >= 0);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(main_spec_from_fd(fd, &s), 0);
                assert_string_equal(s.argv[0], "prog");
                assert_string_equal(s.argv[1], "");
                assert_string_equal(s.argv[2], "a b\n");
                assert_null(s.argv[3]);
                assert_string_equal(s.env[2], "ODD");
                assert_null(s.env[3]);
                assert_string_equal(s.user, "app");
                assert_string_equal(s.cwd, "/data");
                assert_int_equal(s.umask, 027);
                assert_true(s.keep_home);
                main_spec_done(&s);
        }
        /* Sealed: whoever inherits it can't change what main is. */
        assert_int_equal(pwrite(fd, "x", 1, 0), -1);
        assert_int_equal(ftruncate(fd, 0), -1);
        close(fd);
}

/* Every truncation and every changed byte is either refused or gives something whole; ASan watches. */
static void test_spec_damaged(void **state)
{
        char *text, *copy;
        size_t size;
        MainSpec s;

        assert_int_equal(main_spec_encode(&example, &text, &size), 0);
        for (size_t n = 0; n < size; n++) {
                copy = malloc(n + 1);
                assert_non_null(copy);
                memcpy(copy, text, n);
                assert_int_equal(main_spec_decode(copy, n, &s), -EBADMSG);
        }
        for (size_t n = 0; n < size; n++) {
                copy = malloc(size);
                assert_non_null(copy);
                memcpy(copy, text, size);
                copy[n] ^= 1;
                if (main_spec_decode(copy, size, &s) == 0) {
                        assert_non_null(s.argv[0]);
                        main_spec_done(&s);
                }
        }
        free(text);
}

static void test_node_conf(void **state)
{
        NodeConf c;

        node_conf_parse("", &c);
        assert_int_equal(c.on_exit, ON_EXIT_STAY);
        assert_int_equal(c.ssh_port, 22);

        node_conf_parse(
                "# comment\n\non-exit=restart\nnode=n1\nexperiment=e=1\nssh-port=2222\nlater=x\n", &c);
        assert_int_equal(c.on_exit, ON_EXIT_RESTART);
        assert_int_equal(c.ssh_port, 2222);
        assert_string_equal(c.node, "n1");
        assert_string_equal(c.experiment, "e=1");

        node_conf_parse("on-exit=stop", &c);
        assert_int_equal(c.on_exit, ON_EXIT_STOP);
        assert_string_equal(c.user, "");
        assert_int_equal(c.keep_home, KEEP_HOME_UNSET);

        node_conf_parse("user=app:a=b\nkeep-home=yes\n", &c);
        assert_string_equal(c.user, "app:a=b");
        assert_int_equal(c.keep_home, KEEP_HOME_YES);
        node_conf_parse("user=1\nkeep-home=no\n", &c);
        assert_int_equal(c.keep_home, KEEP_HOME_NO);
}

static void test_bad_lines_are_left_out(void **state)
{
        char line[3000], text[4000];
        NodeConf c;

        memset(line, 'x', sizeof(line));
        line[sizeof(line) - 1] = '\0';
        snprintf(text, sizeof(text),
                "node=%s\non-exit=never\nssh-port=0\nssh-port=65536\nnonsense\n=\nkeep-home=\non-exit="
                "stop\n",
                line);
        node_conf_parse(text, &c);
        assert_int_equal(c.on_exit, ON_EXIT_STOP);
        assert_int_equal(c.ssh_port, 22);
        assert_string_equal(c.node, "");
        assert_int_equal(c.keep_home, KEEP_HOME_UNSET);

        /* A user that can't be written down is nobody, not somebody else. */
        snprintf(text, sizeof(text), "user=%s\n", line);
        node_conf_parse(text, &c);
        assert_int_equal(strlen(c.user), NODE_NAME_MAX);
}

static void test_numbers(void **state)
{
        uint32_t n = 7;

        assert_int_equal(parse_u32("0", 10, &n), 0);
        assert_int_equal(n, 0);
        assert_int_equal(parse_u32("4294967295", UINT32_MAX, &n), 0);
        assert_int_equal(n, UINT32_MAX);
        assert_int_equal(parse_u32("4294967296", UINT32_MAX, &n), -ERANGE);
        assert_int_equal(parse_u32("11", 10, &n), -ERANGE);
        assert_int_equal(parse_u32("", 10, &n), -EINVAL);
        assert_int_equal(parse_u32("+1", 10, &n), -EINVAL);
        assert_int_equal(parse_u32("1x", 10, &n), -EINVAL);
        assert_int_equal(n, UINT32_MAX);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_signal_names),
                cmocka_unit_test(test_real_time_signals_arrive),
                cmocka_unit_test(test_ssh_outside_header),
                cmocka_unit_test(test_init_options),
                cmocka_unit_test(test_bad_options),
                cmocka_unit_test(test_as_user_options),
                cmocka_unit_test(test_spec_through_a_descriptor),
                cmocka_unit_test(test_spec_damaged),
                cmocka_unit_test(test_node_conf),
                cmocka_unit_test(test_bad_lines_are_left_out),
                cmocka_unit_test(test_numbers),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

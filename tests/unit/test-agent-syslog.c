/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/test.h"

#include "agent/node-syslog.h"
#include "common/cleanup.h"
#include "common/strv.h"

/* A directory that plays a container's root. */
static char root[64];

static int set_up(void **state)
{
        (void) snprintf(root, sizeof(root), "/tmp/tbnode-syslog-XXXXXX");
        return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
        static const char *const paths[] = {"run/tbnode/log/messages", "run/tbnode/log/messages.0",
                "run/tbnode/log", "run/tbnode", "run", "secret", ""};

        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                _cleanup_free_ char *path = tb_asprintf("%s/%s", root, paths[i]);

                (void) remove(path);
        }
        return 0;
}

static void make_dirs(void)
{
        static const char *const paths[] = {"run", "run/tbnode", "run/tbnode/log"};

        for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
                _cleanup_free_ char *path = tb_asprintf("%s/%s", root, paths[i]);

                assert_int_equal(mkdir(path, 0755), 0);
        }
}

static void append(const char *name, const char *text)
{
        _cleanup_free_ char *path = tb_asprintf("%s/run/tbnode/log/%s", root, name);
        FILE *f = fopen(path, "ae");

        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static int open_log(NodeSyslog **ret)
{
        _cleanup_error_ TbError *err = NULL;
        int r = node_syslog_new(open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), ret, &err);

        assert_int_equal(r < 0, err != NULL);
        return r;
}

static void expect_more(NodeSyslog *s, const char *want)
{
        char buffer[64];
        size_t n = node_syslog_more(s, buffer, sizeof(buffer));

        assert_int_equal(n, strlen(want));
        assert_memory_equal(buffer, want, n);
}

static void test_all(void **state)
{
        _cleanup_node_syslog_ NodeSyslog *s = NULL;

        assert_int_equal(open_log(&s), -ENOENT);
        make_dirs();
        append("messages.0", "one\ntwo\n");
        append("messages", "three\nfo\033[2Jur\tx\n");
        assert_int_equal(open_log(&s), 0);
        for (unsigned i = 0; i < 2; i++) {
                node_syslog_rewind(s);
                expect_more(s, "one\ntwo\n");
                expect_more(s, "three\nfo?[2Jur\tx\n");
                expect_more(s, "");
        }
}

static void test_follow(void **state)
{
        _cleanup_free_ char *now = tb_asprintf("%s/run/tbnode/log/messages", root),
                            *before = tb_asprintf("%s/run/tbnode/log/messages.0", root);
        _cleanup_node_syslog_ NodeSyslog *s = NULL;
        int fd;

        make_dirs();
        append("messages", "old\n");
        assert_int_equal(open_log(&s), 0);
        assert_int_equal(node_syslog_watch(s, &fd, NULL), 0);
        node_syslog_rewind(s);
        expect_more(s, "old\n");
        expect_more(s, "");
        append("messages", "new\n");
        expect_more(s, "new\n");
        /* What was written just before the files changed places is told first. */
        append("messages", "last\n");
        assert_int_equal(rename(now, before), 0);
        append("messages", "first\n");
        expect_more(s, "last\n");
        expect_more(s, "first\n");
        expect_more(s, "");
        assert_int_equal(truncate(now, 0), 0);
        append("messages", "x\n");
        expect_more(s, "x\n");
}

static void test_hostile(void **state)
{
        _cleanup_free_ char *now = tb_asprintf("%s/run/tbnode/log/messages", root),
                            *secret = tb_asprintf("%s/secret", root);
        _cleanup_node_syslog_ NodeSyslog *s = NULL;
        char buffer[64];
        size_t size;

        make_dirs();
        assert_int_equal(symlink("/etc/passwd", now), 0);
        assert_int_equal(open_log(&s), -ENOENT);
        assert_int_equal(unlink(now), 0);
        assert_int_equal(mkfifo(now, 0644), 0);
        assert_int_equal(open_log(&s), -ENOENT);
        assert_int_equal(unlink(now), 0);
        assert_int_equal(mkdir(now, 0755), 0);
        assert_int_equal(open_log(&s), -ENOENT);
        assert_int_equal(rmdir(now), 0);

        /* A terabyte of nothing. */
        append("messages", "begin\n");
        assert_int_equal(truncate(now, (off_t) 1 << 40), 0);
        append("messages", "\nend\n");
        assert_int_equal(open_log(&s), 0);
        node_syslog_rewind(s);
        expect_more(s, "end\n");
        assert_int_equal(truncate(now, (off_t) 1 << 41), 0);
        for (size = 0; node_syslog_more(s, buffer, sizeof(buffer)) > 0;)
                assert_true(++size <= NODE_SYSLOG_FILE_MAX / sizeof(buffer));

        /* A symlink in the place of the file that is followed. */
        assert_int_equal(unlink(now), 0);
        assert_int_equal(symlink(secret, now), 0);
        assert_int_equal(node_syslog_more(s, buffer, sizeof(buffer)), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_all, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_follow, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_hostile, set_up, tear_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

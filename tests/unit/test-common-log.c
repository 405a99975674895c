/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log-internal.h"
#include "common/log.h"
#include "common/strv.h"

static int real_stderr = -EBADF;
static int ends[2];
static char text[64 * 1024];

/* stderr becomes a pipe of which the test holds both ends. */
static int setup(void **state)
{
        real_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        assert_true(fcntl(ends[1], F_SETFL, 0) == 0); /* a blocking write end: what a program usually gets */
        assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
        (void) unsetenv("JOURNAL_STREAM");
        (void) unsetenv("TBNODE_LOG_LEVEL");
        tb_log_open("unit");
        tb_log_set_level(LOG_INFO);
        return 0;
}

static int teardown(void **state)
{
        assert_int_equal(dup2(real_stderr, STDERR_FILENO), STDERR_FILENO);
        close(real_stderr);
        close(ends[0]);
        close(ends[1]);
        (void) log_set_journal_socket(NULL);
        return 0;
}

static const char *logged(void)
{
        ssize_t n = read(ends[0], text, sizeof(text) - 1);

        text[n > 0 ? n : 0] = 0;
        return text;
}

static void test_line(void **state)
{
        static const char *const fields[] = {
                "NODE=n1", "REASON=two words", "EMPTY=", "bad=x", "_TRUSTED=x", NULL};
        _cleanup_free_ char *expected = NULL;

        errno = E2BIG;
        tb_log_fields(LOG_WARNING, fields, "something \"odd\": %d%%", 5);
        assert_int_equal(errno, E2BIG);
        expected = tb_asprintf(
                "unit[%d]: warning: something \"odd\": 5%% node=n1 reason=\"two words\" empty=\"\"\n",
                (int) getpid());
        assert_string_equal(logged(), expected);
}

static void test_levels(void **state)
{
        log_debug("invisible");
        assert_string_equal(logged(), "");
        tb_log_set_level(LOG_DEBUG);
        log_debug("visible");
        assert_non_null(strstr(logged(), "debug: visible\n"));
        tb_log_set_level(99);
        assert_int_equal(tb_log_get_level(), LOG_DEBUG);

        (void) setenv("TBNODE_LOG_LEVEL", "Error", 1);
        tb_log_open("unit");
        assert_int_equal(tb_log_get_level(), LOG_ERR);
        (void) setenv("TBNODE_LOG_LEVEL", "7", 1);
        tb_log_open("unit");
        assert_int_equal(tb_log_get_level(), LOG_DEBUG);
        (void) setenv("TBNODE_LOG_LEVEL", "loud", 1);
        tb_log_open("unit");
        assert_int_equal(tb_log_get_level(), LOG_DEBUG);
}

static void test_hostile_text(void **state)
{
        static const char *const fields[] = {"NODE=x\ninjected", NULL};
        const char *line;

        tb_log_fields(LOG_ERR, fields, "a\nunit[1]: error: fake\x1b[31m\xff");
        line = logged();
        assert_non_null(
                strstr(line, "error: a\\nunit[1]: error: fake\\033[31m\\377 node=\"x\\ninjected\"\n"));
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void test_long_message(void **state)
{
        char *big = malloc(100000);
        size_t n;

        memset(big, '\n', 99999);
        big[99999] = 0;
        log_error("%s", big);
        n = strlen(logged());
        assert_true(n > 1000 && n <= 4096);
        assert_int_equal(text[n - 1], '\n');
        assert_non_null(strstr(text, "...\n"));
        free(big);
}

static void test_never_blocks(void **state)
{
        unsigned long before = tb_log_dropped();

        /* A pipe holds 64 KiB; nobody reads. */
        for (unsigned i = 0; i < 5000; i++)
                log_info("line %u that nobody reads", i);
        assert_true(tb_log_dropped() > before);
        assert_true(tb_log_dropped() < before + 5000);
        while (*logged())
                ;
        before = tb_log_dropped();
        log_info("again");
        assert_int_equal(tb_log_dropped(), before);
        assert_non_null(strstr(logged(), "info: again\n"));
}

static void test_journal(void **state)
{
        static const char *const fields[] = {"NODE=n1", "LINES=a\nb", NULL};
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        unsigned long before;
        ssize_t n;

        (void) snprintf(sa.sun_path, sizeof(sa.sun_path), "/tmp/tbnode-test-journal-%d", (int) getpid());
        assert_int_equal(bind(fd, (struct sockaddr *) &sa, sizeof(sa)), 0);
        assert_int_equal(log_set_journal_socket(sa.sun_path), 0);

        tb_log_fields(LOG_NOTICE, fields, "hello");
        n = recv(fd, text, sizeof(text) - 1, 0);
        assert_true(n > 0);
        text[n] = 0;
        assert_non_null(strstr(text, "MESSAGE=hello\nPRIORITY=5\nCODE_FILE="));
        assert_non_null(strstr(text, "\nCODE_FUNC=test_journal\nSYSLOG_IDENTIFIER=unit\nNODE=n1\nLINES\n"));
        assert_memory_equal(text + n - 12, "\3\0\0\0\0\0\0\0a\nb\n", 12);
        assert_string_equal(logged(), "");

        before = tb_log_dropped();
        for (unsigned i = 0; i < 5000; i++)
                log_info("nobody reads");
        assert_true(tb_log_dropped() > before);

        (void) unlink(sa.sun_path);
        assert_int_equal(log_set_journal_socket(sa.sun_path), -ENOENT);
        assert_int_equal(log_set_journal_socket(NULL), 0);
}

static void test_foreign_journal_stream(void **state)
{
        struct stat st;
        char value[64];

        /* Another stream's, and nonsense: stderr is used. */
        assert_int_equal(fstat(STDERR_FILENO, &st), 0);
        (void) snprintf(value, sizeof(value), "%llu:%llu", (unsigned long long) st.st_dev,
                (unsigned long long) st.st_ino + 1);
        (void) setenv("JOURNAL_STREAM", value, 1);
        tb_log_open("unit");
        log_info("first");
        (void) setenv("JOURNAL_STREAM", "12:", 1);
        tb_log_open("unit");
        log_info("second");
        (void) unsetenv("JOURNAL_STREAM");
        assert_non_null(strstr(logged(), "first"));
        assert_non_null(strstr(text, "second"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_line, setup, teardown),
                cmocka_unit_test_setup_teardown(test_levels, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hostile_text, setup, teardown),
                cmocka_unit_test_setup_teardown(test_long_message, setup, teardown),
                cmocka_unit_test_setup_teardown(test_never_blocks, setup, teardown),
                cmocka_unit_test_setup_teardown(test_journal, setup, teardown),
                cmocka_unit_test_setup_teardown(test_foreign_journal_stream, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

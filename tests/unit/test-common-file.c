/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"

static char *scratch;

static char *in_scratch(const char *name)
{
        char *p = tb_asprintf("%s/%s", scratch, name);

        assert_non_null(p);
        return p;
}

static int setup(void **state)
{
        TbError *err = NULL;

        assert_ok(tb_mkdtemp("/tmp/tbnode-test-XXXXXX", &scratch, &err), err);
        return 0;
}

static int teardown(void **state)
{
        TbError *err = NULL;

        assert_ok(tb_rm_rf(scratch, &err), err);
        assert_int_equal(access(scratch, F_OK), -1);
        scratch = (free(scratch), NULL);
        return 0;
}

static unsigned count_entries(const char *path)
{
        _cleanup_closedir_ DIR *d = opendir(path);
        unsigned n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        return n - 2;
}

static void test_write_and_read(void **state)
{
        _cleanup_free_ char *path = in_scratch("file"), *data = NULL, *again = NULL;
        _cleanup_error_ TbError *err = NULL;
        struct stat st;
        size_t size = 0;

        assert_ok(tb_file_write_atomic(path, "hello\0x", 7, 0640, &err), err);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0640);
        assert_ok(tb_file_read(path, 7, &data, &size, &err), err);
        assert_int_equal(size, 7);
        assert_memory_equal(data, "hello\0x", 8);

        assert_ok(tb_file_write_atomic(path, NULL, 0, 0600, &err), err);
        assert_ok(tb_file_read(path, 0, &again, &size, &err), err);
        assert_int_equal(size, 0);
        assert_string_equal(again, "");
        assert_int_equal(count_entries(scratch), 1);
}

static void test_big_and_proc(void **state)
{
        _cleanup_free_ char *path = in_scratch("big"), *data = NULL, *big = NULL, *proc = NULL;
        TbError *err = NULL;
        size_t size = 0, n = 300000;

        big = malloc(n);
        memset(big, 'x', n);
        assert_ok(tb_file_write_atomic(path, big, n, 0600, &err), err);
        assert_ok(tb_file_read(path, n, &data, &size, &err), err);
        assert_int_equal(size, n);
        assert_memory_equal(data, big, n);
        assert_error(tb_file_read(path, n - 1, &data, &size, &err), -EFBIG, err);

        /* st_size is 0 there */
        assert_ok(tb_file_read("/proc/self/status", SIZE_MAX, &proc, NULL, &err), err);
        assert_non_null(strstr(proc, "Pid:"));
}

static void test_read_refuses(void **state)
{
        _cleanup_free_ char *missing = in_scratch("missing"), *fifo = in_scratch("fifo");
        char *data = NULL;
        TbError *err = NULL;

        assert_error(tb_file_read(missing, 10, &data, NULL, &err), -ENOENT, err);
        assert_error(tb_file_read(scratch, 10, &data, NULL, &err), -EISDIR, err);
        assert_int_equal(mkfifo(fifo, 0600), 0);
        assert_error(tb_file_read(fifo, 10, &data, NULL, &err), -EINVAL, err); /* and does not hang */
        assert_null(data);
}

static void test_failed_write_keeps_old(void **state)
{
        _cleanup_free_ char *dir = in_scratch("dir"), *inner = in_scratch("dir/inner"),
                            *nowhere = in_scratch("no/file");
        TbError *err = NULL;

        assert_error(tb_file_write_atomic(nowhere, "x", 1, 0600, &err), -ENOENT, err);

        /* A directory cannot be replaced by a file; nothing is left behind. */
        assert_ok(tb_mkdir_p(inner, 0700, &err), err);
        assert_error(tb_file_write_atomic(dir, "x", 1, 0600, &err), -EISDIR, err);
        assert_int_equal(count_entries(scratch), 1);
        assert_int_equal(count_entries(dir), 1);
}

static void test_relative_path(void **state)
{
        _cleanup_close_ int cwd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_error_ TbError *err = NULL;

        assert_int_equal(chdir(scratch), 0);
        assert_ok(tb_file_write_atomic("plain", "x", 1, 0600, &err), err);
        assert_ok(tb_mkdir_p("a//b/c/", 0700, &err), err);
        assert_int_equal(fchdir(cwd), 0);
        assert_int_equal(count_entries(scratch), 2);
}

static void test_mkdir_p(void **state)
{
        _cleanup_free_ char *deep = in_scratch("a/b/c"), *file = in_scratch("f"), *below = in_scratch("f/x");
        TbError *err = NULL;
        struct stat st;

        assert_ok(tb_mkdir_p(deep, 0755, &err), err);
        assert_ok(tb_mkdir_p(deep, 0700, &err), err);
        assert_int_equal(stat(deep, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0755);
        assert_ok(tb_mkdir_p("/", 0755, &err), err);
        assert_ok(tb_file_write_atomic(file, "", 0, 0600, &err), err);
        assert_error(tb_mkdir_p(file, 0755, &err), -ENOTDIR, err);
        assert_error(tb_mkdir_p(below, 0755, &err), -ENOTDIR, err);
        assert_error(tb_mkdir_p("", 0755, &err), -ENOENT, err);
}

static void test_rm_rf(void **state)
{
        _cleanup_free_ char *tree = in_scratch("tree"), *deep = in_scratch("tree/a/b/c"),
                            *keep = in_scratch("keep"), *precious = in_scratch("keep/precious"),
                            *link = in_scratch("tree/a/link"), *link2 = in_scratch("link2"),
                            *missing = in_scratch("missing/x");
        _cleanup_error_ TbError *err = NULL;

        assert_ok(tb_mkdir_p(deep, 0700, &err), err);
        assert_ok(tb_mkdir_p(keep, 0700, &err), err);
        assert_ok(tb_file_write_atomic(precious, "x", 1, 0600, &err), err);
        assert_int_equal(symlink(keep, link), 0);
        assert_int_equal(symlink(keep, link2), 0);
        for (unsigned i = 0; i < 100; i++) {
                _cleanup_free_ char *f = tb_asprintf("%s/%u", i % 2 ? deep : tree, i);

                assert_ok(tb_file_write_atomic(f, "x", 1, 0400, &err), err);
        }

        assert_ok(tb_rm_rf(tree, &err), err);
        assert_int_equal(access(tree, F_OK), -1);
        assert_ok(tb_rm_rf(link2, &err), err);
        assert_int_equal(access(precious, F_OK), 0);
        assert_ok(tb_rm_rf(missing, &err), err);
        assert_ok(tb_rm_rf(precious, &err), err);
        assert_int_equal(count_entries(keep), 0);
}

static void test_rm_rf_deep(void **state)
{
        _cleanup_close_ int fd = open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_free_ char *top = in_scratch("d");
        _cleanup_error_ TbError *err = NULL;

        /* Deeper than PATH_MAX and than any sane descriptor limit. */
        for (unsigned i = 0; i < 3000; i++) {
                int child;

                assert_int_equal(mkdirat(fd, "d", 0700), 0);
                child = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                assert_true(child >= 0);
                tb_close(fd);
                fd = child;
        }
        assert_ok(tb_rm_rf(top, &err), err);
        assert_int_equal(access(top, F_OK), -1);
}

/* In a child with its own mount namespace; 77 = the machine does not let us. */
static int try_mount_point(const char *tree, const char *point, const char *keep)
{
        TbError *err = NULL;
        int r;

        if (unshare(CLONE_NEWNS | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) < 0 ||
                mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
                mount(keep, point, NULL, MS_BIND, NULL) < 0)
                return 77;
        r = tb_rm_rf(tree, &err);
        tb_error_free(err);
        return r == -EXDEV ? 0 : 1;
}

static void test_rm_rf_mount_point(void **state)
{
        _cleanup_free_ char *tree = in_scratch("tree"), *point = in_scratch("tree/a/point"),
                            *keep = in_scratch("keep"), *precious = in_scratch("keep/precious");
        _cleanup_error_ TbError *err = NULL;
        int status;
        pid_t pid;

        assert_ok(tb_mkdir_p(point, 0700, &err), err);
        assert_ok(tb_mkdir_p(keep, 0700, &err), err);
        assert_ok(tb_file_write_atomic(precious, "x", 1, 0600, &err), err);
        pid = fork();
        if (pid == 0)
                _exit(try_mount_point(tree, point, keep));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77) {
                print_message("mount namespaces are not available here\n");
                skip();
        }
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_int_equal(access(precious, F_OK), 0);
}

static void test_write_all_nonblocking(void **state)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *data = calloc(1, 300000);
        int fds[2], status;
        pid_t pid;

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_ok(tb_set_nonblock(fds[1], &err), err);
        assert_true(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
        pid = fork();
        if (pid == 0) {
                char buf[4096];
                size_t total = 0;
                ssize_t n;

                close(fds[1]);
                while ((n = read(fds[0], buf, sizeof(buf))) > 0)
                        total += (size_t) n;
                _exit(total == 300000 ? 0 : 1);
        }
        assert_ok(tb_write_all(fds[1], data, 300000, &err), err);
        close(fds[0]);
        close(fds[1]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_error(tb_write_all(-1, "x", 1, &err), -EBADF, err);
        assert_error(tb_set_nonblock(-1, &err), -EBADF, err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_write_and_read, setup, teardown),
                cmocka_unit_test_setup_teardown(test_big_and_proc, setup, teardown),
                cmocka_unit_test_setup_teardown(test_read_refuses, setup, teardown),
                cmocka_unit_test_setup_teardown(test_failed_write_keeps_old, setup, teardown),
                cmocka_unit_test_setup_teardown(test_relative_path, setup, teardown),
                cmocka_unit_test_setup_teardown(test_mkdir_p, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rm_rf, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rm_rf_deep, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rm_rf_mount_point, setup, teardown),
                cmocka_unit_test(test_write_all_nonblocking),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

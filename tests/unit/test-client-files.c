/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the client does to files of images that are odd: links, FIFOs, missing directories, locks of others. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "augment/client/client-file.h"
#include "augment/client/client-home.h"
#include "augment/client/client-hosts.h"
#include "augment/client/client-lock.h"
#include "augment/client/client-log.h"
#include "augment/client/client-system.h"
#include "augment/client/client-users.h"
#include "augment/client/util.h"

static char root[PATH_MAX];

static int set_up(void **state)
{
        snprintf(root, sizeof(root), "/tmp/tbnode-client-XXXXXX");
        assert_non_null(mkdtemp(root));
        return 0;
}

static int tear_down(void **state)
{
        return remove_tree(root);
}

static const char *at(const char *path)
{
        static char full[4][PATH_MAX + 64];
        static unsigned n;
        char *p = full[n++ % ELEMENTSOF(full)];

        snprintf(p, sizeof(full[0]), "%s%s", root, path);
        return p;
}

static void put(const char *path, const char *text)
{
        char directory[PATH_MAX + 64];

        snprintf(directory, sizeof(directory), "%s", at(path));
        *strrchr(directory, '/') = '\0';
        assert_int_equal(make_dirs(directory), 0);
        assert_int_equal(write_text_file(at(path), 0644, text), 0);
}

static void assert_text(const char *path, const char *expected)
{
        _cleanup_free_ char *text = NULL;

        assert_int_equal(image_file_read(at(path), &text), 0);
        assert_non_null(text);
        assert_string_equal(text, expected);
}

static void assert_mode(const char *path, mode_t mode)
{
        struct stat st;

        assert_int_equal(lstat(at(path), &st), 0);
        assert_int_equal(st.st_mode & 07777, mode);
}

static json_t *parse(const char *text)
{
        json_t *j = json_loads(text, 0, NULL);

        assert_non_null(j);
        return j;
}

static unsigned apply_users(const char *accounts, Problems *p)
{
        _cleanup_json_ json_t *j = parse(accounts);

        *p = (Problems){};
        assert_int_equal(make_dirs(at("/run")), 0);
        users_apply(root, at("/run"), "/bin:/usr/bin", j, p);
        return p->count;
}

#define JOE                                                                                               \
        "{\"users\":[{\"name\":\"joe\",\"uid\":%u,\"gid\":%u,\"root\":true,\"home\":\"/users/deep/joe\"," \
        "\"keys\":[\"ssh-ed25519 AAAA joe\"]},"                                                           \
        "{\"name\":\"root\",\"uid\":0,\"gid\":0,\"keys\":[\"ssh-ed25519 BBBB admin\",\"two\\nlines\"]}]}"

static const char *joe(void)
{
        static char text[512];

        /* Who runs the test may give files to himself only. */
        snprintf(text, sizeof(text), JOE, geteuid() ? geteuid() : 20001U, geteuid() ? getegid() : 6001U);
        return text;
}

static void test_replace_follows_links(void **state)
{
        put("/real/passwd", "old\n");
        assert_int_equal(chmod(at("/real/passwd"), 0640), 0);
        assert_int_equal(make_dirs(at("/etc")), 0);
        assert_int_equal(symlink("../real/passwd", at("/etc/passwd")), 0);
        assert_int_equal(image_file_replace(at("/etc/passwd"), "new\n", 0644, 0), 0);
        assert_text("/real/passwd", "new\n");
        assert_mode("/real/passwd", 0640);
        assert_int_equal(access(at("/etc/.tbnode-client.new"), F_OK), -1);

        /* A link that leads nowhere: what it names comes to be. */
        assert_int_equal(symlink("../real/group", at("/etc/group")), 0);
        assert_int_equal(image_file_replace(at("/etc/group"), "g\n", 0644, 0), 0);
        assert_text("/real/group", "g\n");
}

static void test_odd_files(void **state)
{
        char *text = NULL;
        Problems p;

        assert_int_equal(make_dirs(at("/etc")), 0);
        assert_int_equal(mkfifo(at("/etc/passwd"), 0644), 0);
        assert_int_equal(image_file_read(at("/etc/passwd"), &text), -EINVAL);
        assert_int_equal(image_file_replace(at("/etc/passwd"), "x", 0644, 0), -EINVAL);
        assert_int_equal(apply_users(joe(), &p), 1);
        assert_non_null(strstr(p.reason[0], "no regular file"));
        /* Root's keys are there all the same. */
        assert_text("/run/keys/root", "ssh-ed25519 BBBB admin\n");
        assert_int_equal(access(at("/run/keys/joe"), F_OK), -1);

        assert_int_equal(unlink(at("/etc/passwd")), 0);
        assert_int_equal(mkdir(at("/etc/passwd"), 0755), 0);
        assert_int_equal(apply_users(joe(), &p), 1);
        assert_int_equal(rmdir(at("/etc/passwd")), 0);

        {
                int fd = open(at("/etc/passwd"), O_WRONLY | O_CREAT, 0644);

                assert_int_equal(write(fd, "a\0b", 3), 3);
                close(fd);
        }
        assert_int_equal(image_file_read(at("/etc/passwd"), &text), -EILSEQ);
}

/* An image with no /etc at all: account, home with the skeleton, keys, sudo; then nothing twice; then all of it gone. */
static void test_users(void **state)
{
        struct stat before, after;
        Problems p;

        put("/etc/skel/.profile", "umask 022\n");
        put("/etc/skel/dir/file", "x");
        assert_int_equal(symlink("dir/file", at("/etc/skel/link")), 0);
        assert_int_equal(mkfifo(at("/etc/skel/fifo"), 0600), 0);
        put("/etc/sudoers.d/README", "#\n");
        if (apply_users(joe(), &p) != 0)
                fail_msg("%s", p.reason[0]);
        assert_text("/users/deep/joe/.profile", "umask 022\n");
        assert_text("/users/deep/joe/link", "x");
        assert_int_equal(access(at("/users/deep/joe/fifo"), F_OK), -1);
        assert_mode("/users/deep/joe", 0700);
        assert_mode("/users/deep", 0755);
        assert_mode("/etc/passwd", 0644);
        assert_mode("/etc/sudoers.d/tbnode", 0440);
        assert_mode("/run/keys/joe", 0600);
        assert_text("/run/keys/joe", "ssh-ed25519 AAAA joe\n");
        assert_text("/run/keys/root", "ssh-ed25519 AAAA joe\nssh-ed25519 BBBB admin\n");
        assert_int_equal(access(at("/etc/passwd.lock"), F_OK), -1);

        assert_int_equal(stat(at("/etc/passwd"), &before), 0);
        assert_int_equal(apply_users(joe(), &p), 0);
        assert_int_equal(stat(at("/etc/passwd"), &after), 0);
        assert_int_equal(before.st_ino, after.st_ino);

        assert_int_equal(apply_users("{}", &p), 0);
        assert_text("/etc/passwd", "root:*:0:0:root:/:/tbnode/bin/sh\n");
        assert_int_equal(access(at("/etc/sudoers.d/tbnode"), F_OK), -1);
        assert_int_equal(access(at("/run/keys/joe"), F_OK), -1);
        assert_int_equal(access(at("/run/keys/root"), F_OK), -1);
        assert_text("/users/deep/joe/.profile", "umask 022\n");
}

/* useradd(8) of this moment keeps us waiting; one that was killed doesn't. */
static void test_locks(void **state)
{
        AccountLock lock;
        char text[32];
        pid_t pid;

        assert_int_equal(make_dirs(at("/etc")), 0);
        put("/etc/passwd.lock", "2147483646"); /* more than any pid */
        assert_int_equal(account_lock(&lock, at("/etc")), 0);
        assert_int_equal(access(at("/etc/passwd.lock"), F_OK), 0);
        account_unlock(&lock);
        assert_int_equal(access(at("/etc/passwd.lock"), F_OK), -1);

        snprintf(text, sizeof(text), "%d", (int) getpid());
        put("/etc/group.lock", text);
        pid = fork();
        if (pid == 0) {
                (void) poll(NULL, 0, 100);
                _exit(unlink(at("/etc/group.lock")) < 0);
        }
        assert_int_equal(account_lock(&lock, at("/etc")), 0);
        account_unlock(&lock);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_hosts_in_place(void **state)
{
        _cleanup_json_ json_t *hosts = parse("[{\"name\":\"b\",\"address\":\"10.0.0.2\"}]"),
                              *none = parse("[]");
        struct stat before, after;
        Problems p = {};

        put("/etc/hosts", "127.0.0.1 localhost\n");
        assert_int_equal(stat(at("/etc/hosts"), &before), 0);
        hosts_apply(at("/etc/hosts"), hosts, &p);
        assert_text("/etc/hosts", "127.0.0.1 localhost\n" HOSTS_BEGIN "\n10.0.0.2\tb\n" HOSTS_END "\n");
        hosts_apply(at("/etc/hosts"), none, &p);
        assert_text("/etc/hosts", "127.0.0.1 localhost\n");
        assert_int_equal(stat(at("/etc/hosts"), &after), 0);
        assert_int_equal(before.st_ino, after.st_ino);
        assert_int_equal(p.count, 0);
        hosts_apply(at("/nowhere/hosts"), none, &p);
        assert_int_equal(p.count, 0);
        hosts_apply(at("/nowhere/hosts"), hosts, &p);
        assert_int_equal(p.count, 1);
}

static void test_tmcc_link(void **state)
{
        char target[64] = "";

        tmcc_link(root);
        assert_true(readlink(at("/usr/local/etc/emulab/tmcc"), target, sizeof(target) - 1) > 0);
        assert_string_equal(target, "/tbnode/bin/tmcc");
        /* The image's own stays. */
        assert_int_equal(unlink(at("/usr/local/etc/emulab/tmcc")), 0);
        put("/usr/local/etc/emulab/tmcc", "mine");
        tmcc_link(root);
        assert_text("/usr/local/etc/emulab/tmcc", "mine");
}

static void test_shells(void **state)
{
        char found[PATH_MAX];

        users_find_shell(root, "/bin", "zsh", found);
        assert_string_equal(found, "/tbnode/bin/sh");
        put("/bin/sh", "");
        assert_int_equal(chmod(at("/bin/sh"), 0755), 0);
        put("/opt/bin/zsh", "");
        assert_int_equal(chmod(at("/opt/bin/zsh"), 0755), 0);
        users_find_shell(root, "/bin", "zsh", found);
        assert_string_equal(found, "/bin/sh");
        users_find_shell(root, "relative:/bin:/opt/bin", "zsh", found);
        assert_string_equal(found, "/opt/bin/zsh");
        users_find_shell(root, "/bin", "/opt/bin/zsh", found);
        assert_string_equal(found, "/opt/bin/zsh");
        users_find_shell(root, "/bin", "/bin/fish", found);
        assert_string_equal(found, "/bin/sh");
        users_find_shell(root, "/opt/bin", "../bin/zsh", found);
        assert_string_equal(found, "/bin/sh");
}

/* Never more than its bound, always the newest lines, whole ones. */
static void test_log(void **state)
{
        BoundedLog log;
        char line[32];
        struct stat st;
        _cleanup_free_ char *text = NULL;

        put("/log", "earlier\n");
        assert_int_equal(log_open(&log, at("/log"), 1000, getuid(), getgid()), 0);
        for (unsigned i = 0; i < 500; i++) {
                snprintf(line, sizeof(line), "line %u\n", i);
                assert_int_equal(log_write(&log, line, strlen(line)), 0);
                assert_int_equal(stat(at("/log"), &st), 0);
                assert_true(st.st_size <= 1000);
        }
        log_close(&log);
        assert_int_equal(image_file_read(at("/log"), &text), 0);
        assert_true(strlen(text) >= 450);
        assert_memory_equal(text, "line ", 5);
        assert_string_equal(text + strlen(text) - 9, "line 499\n");
        assert_text("/log.0", "earlier\n");

        /* One write of more than everything, without a line's end. */
        {
                _cleanup_free_ char *big = malloc(5000);

                memset(big, 'x', 5000);
                assert_int_equal(log_open(&log, at("/log"), 1000, getuid(), getgid()), 0);
                assert_int_equal(log_write(&log, big, 5000), 0);
                log_close(&log);
                assert_int_equal(stat(at("/log"), &st), 0);
                assert_true(st.st_size <= 1000 && st.st_size >= 500);
        }
}

static void test_home_is_whole_or_not_there(void **state)
{
        char path[64];
        struct stat st;

        /* Deeper than is copied. */
        snprintf(path, sizeof(path), "/etc/skel");
        for (unsigned i = 0; i < 10; i++)
                strcat(path, "/d");
        assert_int_equal(make_dirs(at(path)), 0);
        assert_int_equal(home_make(root, "/home/x", getuid(), getgid()), -ELOOP);
        assert_int_equal(lstat(at("/home/x"), &st), -1);
        assert_int_equal(remove_tree(at("/etc/skel")), 0);
        assert_int_equal(home_make(root, "/home/x", getuid(), getgid()), 0);
        /* A link by that name isn't followed, nor replaced. */
        assert_int_equal(symlink("/nowhere", at("/home/y")), 0);
        assert_int_equal(home_make(root, "/home/y", getuid(), getgid()), 0);
        assert_int_equal(lstat(at("/home/y"), &st), 0);
        assert_true(S_ISLNK(st.st_mode));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_replace_follows_links, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_odd_files, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_users, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_locks, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_hosts_in_place, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_tmcc_link, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_shells, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_log, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_home_is_whole_or_not_there, set_up, tear_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/node-syslog.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"

#define CURRENT "messages"
#define BEFORE "messages.0"

struct NodeSyslog {
        int root;
        const char *directory;
        int file;   /* the current one, -EBADF while there is none */
        off_t at;   /* read up to here */
        int notify; /* inotify */
};

static int open_inside(int root, const char *directory, const char *name, uint64_t flags)
{
        const struct open_how how = {
                .flags = flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        };
        char path[64];
        long fd;

        (void) snprintf(path, sizeof(path), "%s/%s", directory, name);
        fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
        return fd < 0 ? -errno : (int) fd;
}

/* A regular file of the log, or a negative errno. */
static int open_file(const NodeSyslog *s, const char *name, struct stat *ret)
{
        _cleanup_close_ int fd = open_inside(s->root, s->directory, name, O_RDONLY);

        if (fd < 0)
                return fd;
        if (fstat(fd, ret) < 0)
                return -errno;
        return S_ISREG(ret->st_mode) ? TAKE_FD(fd) : -EINVAL;
}

NodeSyslog *node_syslog_free(NodeSyslog *s)
{
        if (!s)
                return NULL;
        if (s->root >= 0)
                (void) close(s->root);
        if (s->file >= 0)
                (void) close(s->file);
        if (s->notify >= 0)
                (void) close(s->notify);
        free(s);
        return NULL;
}

int node_syslog_new(int root, NodeSyslog **ret, TbError **err)
{
        static const char *const directories[] = {"run/tbnode/log", "dev/.tbnode/log"};
        _cleanup_node_syslog_ NodeSyslog *s = malloc(sizeof(*s));
        struct stat st;

        if (!s) {
                (void) close(root);
                return tb_error_oom(err);
        }
        *s = (NodeSyslog){.root = root, .file = -EBADF, .notify = -EBADF};
        for (size_t i = 0; i < ELEMENTSOF(directories); i++) {
                s->directory = directories[i];
                s->file = open_file(s, CURRENT, &st);
                if (s->file >= 0) {
                        *ret = TAKE_PTR(s);
                        return 0;
                }
        }
        return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOENT,
                "it has no system log; only a node made by `tbnode run`, with the service syslog, has one");
}

/* Line feeds and tabs stay; nothing else of what a terminal obeys. Bytes of UTF-8 do. */
static void make_harmless(char *text, size_t size)
{
        for (size_t i = 0; i < size; i++) {
                unsigned char c = (unsigned char) text[i];

                if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
                        text[i] = '?';
        }
}

/* The end of a file, from the beginning of a line on; appends to `buffer`, which has room. Returns bytes. */
static size_t read_end(int fd, off_t size, char *buffer)
{
        off_t from = size > (off_t) NODE_SYSLOG_FILE_MAX ? size - (off_t) NODE_SYSLOG_FILE_MAX : 0;
        size_t got = 0;

        while (got < (size_t) (size - from)) {
                ssize_t n = pread(fd, buffer + got, (size_t) (size - from) - got, from + (off_t) got);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        break;
                got += (size_t) n;
        }
        if (from > 0) {
                const char *newline = memchr(buffer, '\n', got);
                size_t cut = newline ? (size_t) (newline - buffer) + 1 : 0;

                memmove(buffer, buffer + cut, got - cut);
                got -= cut;
        }
        return got;
}

static size_t start_of_last_lines(const char *text, size_t size, size_t lines)
{
        size_t at = size;

        if (lines == 0)
                return size;
        while (at > 0) {
                /* The newline that ends the last line starts none. */
                if (text[at - 1] == '\n' && at < size && --lines == 0)
                        break;
                at--;
        }
        return at;
}

int node_syslog_tail(NodeSyslog *s, size_t lines, char **ret, size_t *ret_size, TbError **err)
{
        _cleanup_free_ char *buffer = malloc(2 * NODE_SYSLOG_FILE_MAX);
        _cleanup_close_ int before = -EBADF;
        struct stat st;
        size_t size = 0, from;

        if (!buffer)
                return tb_error_oom(err);
        before = open_file(s, BEFORE, &st);
        if (before >= 0)
                size = read_end(before, st.st_size, buffer);
        if (s->file >= 0 && fstat(s->file, &st) == 0) {
                size += read_end(s->file, st.st_size, buffer + size);
                s->at = st.st_size;
        }
        from = start_of_last_lines(buffer, size, lines);
        memmove(buffer, buffer + from, size - from);
        make_harmless(buffer, size - from);
        *ret_size = size - from;
        *ret = TAKE_PTR(buffer);
        return 0;
}

int node_syslog_watch(NodeSyslog *s, int *ret_fd, TbError **err)
{
        _cleanup_close_ int directory = open_inside(s->root, s->directory, ".", O_RDONLY | O_DIRECTORY);
        char path[48];

        if (directory < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, directory, "cannot open the directory of its system log");
        if (s->notify < 0)
                s->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        (void) snprintf(path, sizeof(path), "/proc/self/fd/%d", directory);
        if (s->notify < 0 ||
                inotify_add_watch(s->notify, path, IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_ONLYDIR) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno,
                        "cannot watch its system log (see fs.inotify.max_user_watches)");
        *ret_fd = s->notify;
        return 0;
}

static size_t read_on(NodeSyslog *s, char *buffer, size_t size)
{
        struct stat st;
        ssize_t n;

        if (s->file < 0 || fstat(s->file, &st) < 0)
                return 0;
        /* Cut short: what is in it now is new. Grown by more than anybody logs: the end of it. */
        if (st.st_size < s->at)
                s->at = 0;
        if (st.st_size - s->at > (off_t) NODE_SYSLOG_FILE_MAX)
                s->at = st.st_size - (off_t) NODE_SYSLOG_FILE_MAX;
        n = pread(s->file, buffer, size, s->at);
        if (n <= 0)
                return 0;
        s->at += n;
        make_harmless(buffer, (size_t) n);
        return (size_t) n;
}

size_t node_syslog_more(NodeSyslog *s, char *buffer, size_t size)
{
        _cleanup_close_ int fd = -EBADF;
        struct stat st, old;
        char events[4096];
        size_t n;

        while (s->notify >= 0 && read(s->notify, events, sizeof(events)) > 0)
                ;
        n = read_on(s, buffer, size);
        if (n > 0)
                return n;
        /* Everything of this file is told. Has another taken its place? */
        fd = open_file(s, CURRENT, &st);
        if (fd < 0 ||
                (s->file >= 0 && fstat(s->file, &old) == 0 && old.st_dev == st.st_dev &&
                        old.st_ino == st.st_ino))
                return 0;
        if (s->file >= 0)
                (void) close(s->file);
        s->file = TAKE_FD(fd);
        s->at = 0;
        return read_on(s, buffer, size);
}

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
        int before; /* the one before, until it is read */
        off_t before_at;
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
        tb_close(s->file);
        tb_close(s->before);
        tb_close(s->notify);
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
        *s = (NodeSyslog){.root = root, .file = -EBADF, .before = -EBADF, .notify = -EBADF};
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

/* Where the last NODE_SYSLOG_FILE_MAX bytes of a file begin, at the beginning of a line. */
static off_t last_part(int fd, off_t size)
{
        off_t from = size - (off_t) NODE_SYSLOG_FILE_MAX;
        char buffer[8192];
        ssize_t n;

        if (from <= 0)
                return 0;
        for (off_t at = from; at < size && (n = pread(fd, buffer, sizeof(buffer), at)) > 0; at += n) {
                const char *newline = memchr(buffer, '\n', (size_t) n);

                if (newline)
                        return at + (newline - buffer) + 1;
        }
        return from;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
        return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

void node_syslog_rewind(NodeSyslog *s)
{
        struct stat now, before;

        tb_close(s->file);
        tb_close(s->before);
        s->file = open_file(s, CURRENT, &now);
        s->before = open_file(s, BEFORE, &before);
        if (s->file >= 0 && s->before >= 0 && same_file(&now, &before)) { /* it was renamed meanwhile */
                tb_close(s->file);
                s->file = open_file(s, CURRENT, &now);
        }
        s->at = s->file >= 0 ? last_part(s->file, now.st_size) : 0;
        s->before_at = s->before >= 0 ? last_part(s->before, before.st_size) : 0;
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

static size_t read_before(NodeSyslog *s, char *buffer, size_t size)
{
        ssize_t n = pread(s->before, buffer, size, s->before_at);

        if (n <= 0) {
                tb_close(s->before);
                s->before = -EBADF;
                return 0;
        }
        s->before_at += n;
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
        if (s->before >= 0) {
                n = read_before(s, buffer, size);
                if (n > 0)
                        return n;
        }
        n = read_on(s, buffer, size);
        if (n > 0)
                return n;
        /* Everything of this file is told. Has another taken its place? */
        fd = open_file(s, CURRENT, &st);
        if (fd < 0 || (s->file >= 0 && fstat(s->file, &old) == 0 && same_file(&old, &st)))
                return 0;
        if (s->file >= 0)
                (void) close(s->file);
        s->file = TAKE_FD(fd);
        s->at = 0;
        return read_on(s, buffer, size);
}

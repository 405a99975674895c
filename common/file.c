/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"

/* Which of our kinds a failed file operation belongs to: who can act on it? */
static TbErrorKind file_error_kind(int code)
{
        switch (abs(code)) {
        case ENOENT:
        case EACCES:
        case EPERM:
        case EROFS:
        case ENOTDIR:
        case EISDIR:
        case ELOOP:
        case EEXIST:
                return TB_ERROR_ENVIRONMENT;
        case ENOSPC:
        case EDQUOT:
        case EMFILE:
        case ENFILE:
        case ENOMEM:
        case EFBIG:
                return TB_ERROR_RESOURCE;
        default:
                return TB_ERROR_SYSTEM;
        }
}

static int file_error(TbError **err, int code, const char *action, const char *path)
{
        return tb_error_set_errno(err, file_error_kind(code), code, "cannot %s %s", action, path);
}

int tb_file_read(const char *path, size_t max, char **ret_data, size_t *ret_size, TbError **err)
{
        _cleanup_close_ int fd = -EBADF;
        _cleanup_free_ char *data = NULL;
        size_t size = 0, allocated;
        struct stat st;

        /* O_NONBLOCK: opening a FIFO that somebody put there must not hang. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return file_error(err, errno, "open", path);
        if (fstat(fd, &st) < 0)
                return file_error(err, errno, "stat", path);
        if (S_ISDIR(st.st_mode))
                return file_error(err, EISDIR, "read", path);
        if (!S_ISREG(st.st_mode))
                return tb_error_set(
                        err, TB_ERROR_ENVIRONMENT, -EINVAL, "cannot read %s: not a regular file", path);
        if (max > SSIZE_MAX - 2)
                max = SSIZE_MAX - 2;

        /* st_size is only a hint: it is 0 in /proc and the file may grow. One byte more than the limit tells
         * "exactly max" from "too long". */
        allocated = (uint64_t) st.st_size > max ? max : (size_t) st.st_size;
        allocated = MAX2(allocated + 2, (size_t) 4096);
        data = malloc(allocated);
        if (!data)
                return tb_error_oom(err);

        for (;;) {
                ssize_t n;

                if (size > max)
                        return tb_error_set(err, TB_ERROR_RESOURCE, -EFBIG,
                                "cannot read %s: it is longer than the limit of %zu bytes", path, max);
                if (size + 1 >= allocated) {
                        size_t grown = allocated > max ? max + 2 : allocated * 2;
                        char *p = realloc(data, grown);

                        if (!p)
                                return tb_error_oom(err);
                        data = p;
                        allocated = grown;
                }
                n = read(fd, data + size, allocated - size - 1);
                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return file_error(err, errno, "read", path);
                }
                if (n == 0)
                        break;
                size += (size_t) n;
        }

        data[size] = 0;
        *ret_data = TAKE_PTR(data);
        if (ret_size)
                *ret_size = size;
        return 0;
}

int tb_write_all(int fd, const void *data, size_t size, TbError **err)
{
        const char *p = data;

        while (size > 0) {
                ssize_t n = write(fd, p, size);

                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        if (errno == EAGAIN) {
                                struct pollfd pfd = {.fd = fd, .events = POLLOUT};

                                if (poll(&pfd, 1, -1) >= 0 || errno == EINTR)
                                        continue;
                        }
                        return tb_error_set_errno(err, file_error_kind(errno), errno, "cannot write");
                }
                p += n;
                size -= (size_t) n;
        }
        return 0;
}

/* Creates "<directory>/.#<name>.<random>" exclusively. */
static int open_temporary(const char *path, mode_t mode, char **ret_path, int *ret_fd, TbError **err)
{
        const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
        int dir_length = slash ? (int) (slash + 1 - path) : 0;

        for (unsigned attempt = 0; attempt < 16; attempt++) {
                _cleanup_free_ char *temporary = NULL;
                uint64_t random = 0;
                int fd;

                if (getrandom(&random, sizeof(random), 0) < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot get random bytes");
                /* 200 leaves room for our 19 characters below NAME_MAX. */
                temporary = tb_asprintf(
                        "%.*s.#%.200s.%016llx", dir_length, path, name, (unsigned long long) random);
                if (!temporary)
                        return tb_error_oom(err);
                fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
                if (fd < 0) {
                        if (errno == EEXIST)
                                continue;
                        return file_error(err, errno, "create a temporary file for", path);
                }
                if (fchmod(fd, mode) < 0) {
                        int e = errno;

                        tb_close(fd);
                        (void) unlink(temporary);
                        return file_error(err, e, "set the mode of a temporary file for", path);
                }
                *ret_path = TAKE_PTR(temporary);
                *ret_fd = fd;
                return 0;
        }
        return file_error(err, EEXIST, "create a temporary file for", path);
}

/* A rename is durable once the directory is on disk. */
static int sync_parent(const char *path, TbError **err)
{
        _cleanup_free_ char *copy = strdup(path);
        _cleanup_close_ int fd = -EBADF;
        const char *parent;

        if (!copy)
                return tb_error_oom(err);
        parent = dirname(copy);
        fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return file_error(err, errno, "open", parent);
        if (fsync(fd) < 0 && errno != EINVAL) /* EINVAL: a file system without directory sync */
                return file_error(err, errno, "sync", parent);
        return 0;
}

int tb_file_write_atomic(const char *path, const void *data, size_t size, mode_t mode, TbError **err)
{
        _cleanup_free_ char *temporary = NULL;
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = open_temporary(path, mode, &temporary, &fd, err);
        if (r < 0)
                return r;

        r = tb_write_all(fd, data, size, err);
        if (r < 0) {
                tb_error_prefix(err, "cannot write %s", path);
                goto fail;
        }
        if (fsync(fd) < 0) {
                r = file_error(err, errno, "sync", path);
                goto fail;
        }
        /* Network and quota file systems may report a failed write only here. */
        if (close(TAKE_FD(fd)) < 0 && errno != EINTR) {
                r = file_error(err, errno, "write", path);
                goto fail;
        }
        if (rename(temporary, path) < 0) {
                r = file_error(err, errno, "replace", path);
                goto fail;
        }
        return sync_parent(path, err);

fail:
        (void) unlink(temporary);
        return r;
}

static int make_directory(const char *path, mode_t mode, TbError **err)
{
        struct stat st;
        int e;

        if (mkdir(path, mode) >= 0)
                return 0;

        /* Not only for EEXIST: on a read-only or guarded parent, mkdir() of a directory that exists fails
         * otherwise. */
        e = errno;
        if (stat(path, &st) >= 0) {
                if (S_ISDIR(st.st_mode))
                        return 0;
                e = ENOTDIR;
        }
        return file_error(err, e, "create directory", path);
}

int tb_mkdir_p(const char *path, mode_t mode, TbError **err)
{
        _cleanup_free_ char *copy = strdup(path);
        int r;

        if (!copy)
                return tb_error_oom(err);
        if (!*copy)
                return file_error(err, ENOENT, "create directory", "\"\"");

        for (char *p = copy + 1; *p; p++) {
                if (*p != '/' || p[-1] == '/')
                        continue;
                *p = 0;
                r = make_directory(copy, mode, err);
                *p = '/';
                if (r < 0)
                        return r;
        }
        return make_directory(copy, mode, err);
}

int tb_mkdtemp(const char *pattern, char **ret_path, TbError **err)
{
        _cleanup_free_ char *path = strdup(pattern);

        if (!path)
                return tb_error_oom(err);
        if (!mkdtemp(path))
                return file_error(err, errno, "create a temporary directory like", pattern);
        *ret_path = TAKE_PTR(path);
        return 0;
}

int tb_set_nonblock(int fd, TbError **err)
{
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || ((flags & O_NONBLOCK) == 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, errno, "cannot make descriptor %d non-blocking", fd);
        return 0;
}

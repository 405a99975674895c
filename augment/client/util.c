/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/util.h"

#define REMOVE_DEPTH_MAX 16

void say(const char *fmt, ...)
{
        char line[1024];
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
        va_end(ap);
        if (n < 0)
                return;
        n = MIN2(n, (int) sizeof(line) - 2);
        line[n++] = '\n';
        if (write_all(STDERR_FILENO, line, (size_t) n) < 0)
                return; /* nobody to tell */
}

int parse_u32(const char *s, uint32_t max, uint32_t *ret)
{
        uint64_t v = 0;

        if (!*s)
                return -EINVAL;
        for (; *s; s++) {
                if (*s < '0' || *s > '9')
                        return -EINVAL;
                v = v * 10 + (uint64_t) (*s - '0');
                if (v > max)
                        return -ERANGE;
        }
        *ret = (uint32_t) v;
        return 0;
}

void format_path(char *ret, size_t size, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(ret, size, fmt, ap);
        va_end(ap);
}

static int read_fd(int fd, size_t max, char **ret, size_t *ret_size)
{
        size_t size = 0, room = 4096;
        char *buffer;

        buffer = malloc(room + 1);
        if (!buffer)
                return -ENOMEM;

        for (;;) {
                ssize_t n;

                if (size == room) {
                        char *bigger;

                        room *= 2;
                        bigger = realloc(buffer, room + 1);
                        if (!bigger) {
                                free(buffer);
                                return -ENOMEM;
                        }
                        buffer = bigger;
                }
                n = read(fd, buffer + size, room - size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        n = -errno;
                        free(buffer);
                        return (int) n;
                }
                if (n == 0)
                        break;
                size += (size_t) n;
                if (size > max) {
                        free(buffer);
                        return -EFBIG;
                }
        }

        buffer[size] = '\0';
        *ret = buffer;
        if (ret_size)
                *ret_size = size;
        return 0;
}

int read_text_file(const char *path, size_t max, char **ret, size_t *ret_size)
{
        int fd, r;

        /* Nonblocking: a FIFO by that name must not stop the boot. */
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return -errno;
        r = read_fd(fd, max, ret, ret_size);
        close(fd);
        return r;
}

int write_all(int fd, const void *data, size_t size)
{
        const char *p = data;

        while (size > 0) {
                ssize_t n = write(fd, p, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                p += n;
                size -= (size_t) n;
        }
        return 0;
}

int write_text_file(const char *path, mode_t mode, const char *text)
{
        char temp[4096];
        int fd, r;

        if (snprintf(temp, sizeof(temp), "%s.new", path) >= (int) sizeof(temp))
                return -ENAMETOOLONG;
        (void) unlink(temp);
        fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd < 0)
                return -errno;

        r = write_all(fd, text, strlen(text));
        if (r >= 0 && fsync(fd) < 0)
                r = -errno;
        close(fd);
        if (r >= 0 && rename(temp, path) < 0)
                r = -errno;
        if (r < 0)
                (void) unlink(temp);
        return r;
}

int make_dir(const char *path, mode_t mode)
{
        struct stat st;

        if (mkdir(path, mode) == 0)
                return 0;
        if (errno != EEXIST)
                return -errno;
        if (lstat(path, &st) < 0)
                return -errno;
        return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

static int remove_at(int parent, const char *name, unsigned depth)
{
        struct dirent *de;
        int fd, r = 0;
        DIR *dir;

        if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM)
                return -errno;
        if (depth == 0)
                return -ELOOP;

        fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        dir = fdopendir(fd);
        if (!dir) {
                r = -errno;
                close(fd);
                return r;
        }
        while (r == 0 && (de = readdir(dir)))
                if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
                        r = remove_at(fd, de->d_name, depth - 1);
        closedir(dir);

        if (r == 0 && unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
                r = -errno;
        return r;
}

int remove_tree(const char *path)
{
        return remove_at(AT_FDCWD, path, REMOVE_DEPTH_MAX);
}

int set_cloexec(int fd)
{
        int flags = fcntl(fd, F_GETFD);

        if (flags < 0 || fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0)
                return -errno;
        return 0;
}

int null_stdio(void)
{
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC), r = 0;

        if (fd < 0)
                return -errno;
        for (int i = 0; i <= 2; i++)
                if (fd != i && dup2(fd, i) < 0)
                        r = -errno;
        if (fd > 2)
                close(fd);
        else if (fcntl(fd, F_SETFD, 0) < 0)
                r = -errno;
        return r;
}

const char *env_get(char *const *env, const char *name)
{
        size_t n = strlen(name);

        for (; *env; env++)
                if (strncmp(*env, name, n) == 0 && (*env)[n] == '=')
                        return *env + n + 1;
        return NULL;
}

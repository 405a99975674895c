/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 65536U

int log_open(BoundedLog *l, const char *path, size_t max, uid_t uid, gid_t gid)
{
        char old[PATH_MAX];
        int fd;

        snprintf(old, sizeof(old), "%.4000s.0", path);
        if (rename(path, old) < 0 && errno != ENOENT)
                return -errno;
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
        if (fd < 0)
                return -errno;
        /* Without CAP_CHOWN root keeps it. */
        if (fchmod(fd, 0640) < 0 || (fchown(fd, uid, gid) < 0 && errno != EPERM)) {
                int r = -errno;

                close(fd);
                return r;
        }
        *l = (BoundedLog){.fd = fd, .max = max};
        return 0;
}

static int move_bytes(int fd, size_t from, size_t to, size_t size)
{
        static char buffer[BLOCK];

        while (size > 0) {
                ssize_t n = pread(fd, buffer, size < BLOCK ? size : BLOCK, (off_t) from), done = 0;

                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                while (done < n) {
                        ssize_t w = pwrite(fd, buffer + done, (size_t) (n - done), (off_t) to + done);

                        if (w <= 0)
                                return w < 0 ? -errno : -EIO;
                        done += w;
                }
                from += (size_t) n;
                to += (size_t) n;
                size -= (size_t) n;
        }
        return 0;
}

/* Where the first whole line of the younger half begins. */
static size_t find_cut(const BoundedLog *l)
{
        static char buffer[4096];
        size_t half = l->size / 2;
        ssize_t n = pread(l->fd, buffer, sizeof(buffer), (off_t) half);
        const char *newline = n > 0 ? memchr(buffer, '\n', (size_t) n) : NULL;

        return newline ? half + (size_t) (newline - buffer) + 1 : half;
}

static int drop_older_half(BoundedLog *l)
{
        size_t cut = find_cut(l), keep = l->size - cut;
        int r;

        r = move_bytes(l->fd, cut, 0, keep);
        if (r >= 0 && ftruncate(l->fd, (off_t) keep) < 0)
                r = -errno;
        if (r >= 0)
                l->size = keep;
        return r;
}

int log_write(BoundedLog *l, const char *data, size_t size)
{
        while (size > 0) {
                size_t part = MIN2(size, l->max / 2);
                ssize_t n;

                if (l->size + part > l->max) {
                        int r = drop_older_half(l);

                        if (r < 0)
                                return r;
                        continue;
                }
                n = pwrite(l->fd, data, part, (off_t) l->size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                l->size += (size_t) n;
                data += n;
                size -= (size_t) n;
        }
        return 0;
}

void log_copy(BoundedLog *l, int from)
{
        static char buffer[BLOCK];
        ssize_t n;

        while ((n = read(from, buffer, sizeof(buffer))) != 0) {
                if (n < 0 && errno != EINTR)
                        return;
                if (n > 0)
                        (void) !log_write(l, buffer, (size_t) n);
        }
}

void log_close(BoundedLog *l)
{
        if (l->fd >= 0)
                close(l->fd);
        l->fd = -1;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/client-text.h"
#include "augment/client/util.h"

int image_file_read(const char *path, char **ret)
{
        struct stat st;
        char *text = NULL;
        size_t size = 0;
        int r;

        if (stat(path, &st) < 0) {
                /* A dangling symlink is an absent file. */
                if (errno != ENOENT)
                        return -errno;
                *ret = NULL;
                return 0;
        }
        if (!S_ISREG(st.st_mode))
                return -EINVAL;
        r = read_text_file(path, IMAGE_FILE_MAX, &text, &size);
        if (r < 0)
                return r;
        if (strlen(text) != size) {
                free(text);
                return -EILSEQ;
        }
        *ret = text;
        return 0;
}

static int write_fd_whole(int fd, const char *text)
{
        size_t size = strlen(text), done = 0;

        /* First the bytes, then the length: a reader sees a whole text, or one with the old end. */
        while (done < size) {
                ssize_t n = pwrite(fd, text + done, size - done, (off_t) done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                done += (size_t) n;
        }
        if (ftruncate(fd, (off_t) size) < 0)
                return -errno;
        return fsync(fd) < 0 && errno != EINVAL && errno != EROFS ? -errno : 0;
}

int image_file_rewrite(const char *path, const char *text, mode_t mode)
{
        _cleanup_close_ int fd = -1;
        struct stat st;

        fd = open(path, O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, mode);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EINVAL;
        return write_fd_whole(fd, text);
}

static void sync_directory(const char *directory)
{
        _cleanup_close_ int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd >= 0)
                (void) fsync(fd);
}

/* `path` has no symlink at its end and lies in `directory`. */
static int replace_by_rename(
        const char *directory, const char *path, const char *text, mode_t mode, uid_t uid, gid_t gid)
{
        char temp[PATH_MAX];
        int fd, r;

        if (snprintf(temp, sizeof(temp), "%s/.tbnode-client.new", directory) >= (int) sizeof(temp))
                return -ENAMETOOLONG;
        (void) unlink(temp);
        fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        r = write_all(fd, text, strlen(text));
        /* Without CAP_CHOWN a file of root's own can still be given to nobody else. */
        if (r >= 0 && fchown(fd, uid, gid) < 0 && (errno != EPERM || uid != geteuid()))
                r = -errno;
        if (r >= 0 && fchmod(fd, mode) < 0)
                r = -errno;
        if (r >= 0 && fsync(fd) < 0)
                r = -errno;
        close(fd);
        if (r >= 0 && rename(temp, path) < 0)
                r = -errno;
        if (r < 0)
                (void) unlink(temp);
        else
                sync_directory(directory);
        return r;
}

int image_file_replace(const char *path, const char *text, mode_t mode, gid_t gid)
{
        char real[PATH_MAX], directory[PATH_MAX], *slash;
        struct stat st;
        bool exists = stat(path, &st) == 0;
        int r;

        if (exists && !S_ISREG(st.st_mode))
                return -EINVAL;
        if (!exists) {
                /* Through the link, if it is one that leads nowhere. */
                int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, mode);

                if (fd < 0)
                        return -errno;
                close(fd);
        }
        if (!realpath(path, real))
                return -errno;
        slash = strrchr(real, '/');
        snprintf(directory, sizeof(directory), "%.*s", slash == real ? 1 : (int) (slash - real), real);
        r = replace_by_rename(directory, real, text, exists ? st.st_mode & 07777 : mode,
                exists ? st.st_uid : 0, exists ? st.st_gid : gid);
        if (r == -EBUSY || r == -EROFS || r == -EACCES || r == -EXDEV)
                r = image_file_rewrite(real, text, mode);
        return r;
}

int make_dirs(const char *path)
{
        char part[PATH_MAX];
        struct stat st;

        if (strlen(path) >= sizeof(part))
                return -ENAMETOOLONG;
        for (const char *p = path; p;) {
                p = strchr(p + 1, '/');
                snprintf(part, sizeof(part), "%.*s", p ? (int) (p - path) : (int) strlen(path), path);
                if (mkdir(part, 0755) < 0 && errno != EEXIST) {
                        /* On a read-only file system that is the error for what exists, too. */
                        if (stat(part, &st) < 0)
                                return -errno;
                }
        }
        if (stat(path, &st) < 0)
                return -errno;
        return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

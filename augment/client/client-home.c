/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-home.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/client-file.h"
#include "augment/client/client-text.h"
#include "augment/client/util.h"

#define COPY_FILES_MAX 1000
#define COPY_BYTES_MAX (16U * 1024 * 1024)
#define COPY_DEPTH_MAX 8

typedef struct Copy {
        uid_t uid;
        gid_t gid;
        unsigned files;
        size_t bytes;
} Copy;

static int copy_directory(Copy *c, int from, int to, unsigned depth);

static int copy_bytes(Copy *c, int in, int out)
{
        char buffer[16384];
        ssize_t n;
        int r;

        while ((n = read(in, buffer, sizeof(buffer))) > 0) {
                c->bytes += (size_t) n;
                if (c->bytes > COPY_BYTES_MAX)
                        return -EFBIG;
                r = write_all(out, buffer, (size_t) n);
                if (r < 0)
                        return r;
        }
        return n < 0 ? -errno : 0;
}

static int copy_file(Copy *c, int from, int to, const char *name, mode_t mode)
{
        _cleanup_close_ int in = -1, out = -1;
        int r;

        in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        out = in < 0 ? -1 : openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (out < 0)
                return -errno;
        r = copy_bytes(c, in, out);
        if (r < 0)
                return r;
        return fchown(out, c->uid, c->gid) < 0 || fchmod(out, mode & 0777) < 0 ? -errno : 0;
}

static int copy_link(Copy *c, int from, int to, const char *name)
{
        char target[PATH_MAX];
        ssize_t n = readlinkat(from, name, target, sizeof(target) - 1);

        if (n < 0)
                return -errno;
        target[n] = '\0';
        if (symlinkat(target, to, name) < 0 || fchownat(to, name, c->uid, c->gid, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return 0;
}

static int copy_subdirectory(Copy *c, int from, int to, const char *name, mode_t mode, unsigned depth)
{
        _cleanup_close_ int in = -1, out = -1;
        int r;

        if (depth == 0)
                return -ELOOP;
        if (mkdirat(to, name, 0700) < 0)
                return -errno;
        in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        out = in < 0 ? -1 : openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (out < 0)
                return -errno;
        r = copy_directory(c, in, out, depth - 1);
        if (r < 0)
                return r;
        return fchown(out, c->uid, c->gid) < 0 || fchmod(out, mode & 0777) < 0 ? -errno : 0;
}

static int copy_entry(Copy *c, int from, int to, const char *name, unsigned depth)
{
        struct stat st;

        if (++c->files > COPY_FILES_MAX)
                return -EFBIG;
        if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        if (S_ISREG(st.st_mode))
                return copy_file(c, from, to, name, st.st_mode);
        if (S_ISLNK(st.st_mode))
                return copy_link(c, from, to, name);
        if (S_ISDIR(st.st_mode))
                return copy_subdirectory(c, from, to, name, st.st_mode, depth);
        return 0; /* a device or a socket is nothing to start a home with */
}

static int copy_directory(Copy *c, int from, int to, unsigned depth)
{
        int fd = fcntl(from, F_DUPFD_CLOEXEC, 3), r = 0;
        struct dirent *de;
        DIR *dir;

        if (fd < 0)
                return -errno;
        dir = fdopendir(fd);
        if (!dir) {
                r = -errno;
                close(fd);
                return r;
        }
        while (r >= 0 && (de = readdir(dir)))
                if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
                        r = copy_entry(c, from, to, de->d_name, depth);
        closedir(dir);
        return r;
}

static int fill_home(const char *root, const char *directory, uid_t uid, gid_t gid)
{
        Copy copy = {.uid = uid, .gid = gid};
        _cleanup_close_ int from = -1, to = -1;
        char skel[PATH_MAX];
        int r = 0;

        to = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (to < 0)
                return -errno;
        snprintf(skel, sizeof(skel), "%s/etc/skel", root);
        from = open(skel, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (from >= 0)
                r = copy_directory(&copy, from, to, COPY_DEPTH_MAX);
        if (r >= 0 && (fchown(to, uid, gid) < 0 || fchmod(to, 0700) < 0))
                r = -errno;
        return r;
}

int home_make(const char *root, const char *home, uid_t uid, gid_t gid)
{
        char full[PATH_MAX], parent[PATH_MAX], temp[PATH_MAX + 32];
        struct stat st;
        char *slash;
        int r;

        if (snprintf(full, sizeof(full), "%s%s", root, home) >= (int) sizeof(full))
                return -ENAMETOOLONG;
        if (lstat(full, &st) == 0)
                return 0;
        snprintf(parent, sizeof(parent), "%s", full);
        slash = strrchr(parent, '/');
        *slash = '\0';
        if (parent[0]) {
                r = make_dirs(parent);
                if (r < 0)
                        return r;
        }
        snprintf(temp, sizeof(temp), "%s/.tbnode-home-%u", parent, uid);
        r = remove_tree(temp);
        if (r >= 0 && mkdir(temp, 0700) < 0)
                r = -errno;
        if (r < 0)
                return r;
        r = fill_home(root, temp, uid, gid);
        if (r >= 0 && rename(temp, full) < 0)
                r = -errno;
        if (r < 0)
                (void) !remove_tree(temp);
        return r;
}

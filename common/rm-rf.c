/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"

/*
 * Removal of a tree
 *
 * It works on directory descriptors, so that nobody can swap a directory for a symlink under our feet. The
 * depth is bounded only by the tree's, hence an explicit chain instead of recursion: going down opens the
 * child, going up re-opens "..", which is verified by inode against what we came from. Two descriptors are
 * open at a time. Mount points stop it (RESOLVE_NO_XDEV knows bind mounts too, which a comparison of device
 * numbers does not).
 */

typedef struct RmLevel {
        dev_t dev;
        ino_t ino;
        char *name; /* its entry in the parent */
} RmLevel;

typedef struct RmWalk {
        RmLevel *levels;
        size_t depth;
        const char *path; /* for messages */
} RmWalk;

static int rm_error(TbError **err, int code, const char *action, const char *path)
{
        TbErrorKind kind = code == EACCES || code == EPERM || code == EROFS || code == EBUSY
                ? TB_ERROR_ENVIRONMENT
                : TB_ERROR_SYSTEM;

        return tb_error_set_errno(err, kind, code, "cannot %s %s", action, path);
}

/* openat2(2), Linux 5.6; glibc has no wrapper. */
static int open_same_mount(int dir_fd, const char *name)
{
        struct open_how how = {
                .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
                .resolve = RESOLVE_NO_XDEV | RESOLVE_BENEATH,
        };

        return (int) syscall(SYS_openat2, dir_fd, name, &how, sizeof(how));
}

static void rm_walk_done(RmWalk *w)
{
        for (size_t i = 0; i < w->depth; i++)
                free(w->levels[i].name);
        free(w->levels);
}

static int rm_walk_push(RmWalk *w, const struct stat *st, const char *name, TbError **err)
{
        RmLevel *grown = reallocarray(w->levels, w->depth + 1, sizeof(RmLevel));
        char *copy;

        if (!grown)
                return tb_error_oom(err);
        w->levels = grown;
        copy = strdup(name);
        if (!copy)
                return tb_error_oom(err);
        w->levels[w->depth++] = (RmLevel){.dev = st->st_dev, .ino = st->st_ino, .name = copy};
        return 0;
}

/* Unlinks what is no directory. 1: a directory was found, *ret_child is open; 0: the directory is empty now.
 */
static int rm_entries(RmWalk *w, int fd, int *ret_child, char **ret_name, TbError **err)
{
        _cleanup_closedir_ DIR *dir = NULL;
        int copy;

        copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (copy < 0)
                return rm_error(err, errno, "remove", w->path);
        dir = fdopendir(copy);
        if (!dir) {
                int e = errno;

                tb_close(copy);
                return rm_error(err, e, "remove", w->path);
        }
        rewinddir(dir); /* the copy shares its position with fd */

        for (;;) {
                const struct dirent *de;
                struct stat st;

                errno = 0;
                de = readdir(dir);
                if (!de) {
                        if (errno != 0)
                                return rm_error(err, errno, "list directory below", w->path);
                        return 0;
                }
                if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
                        continue;
                if (fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                        if (errno == ENOENT)
                                continue;
                        return rm_error(err, errno, "stat below", w->path);
                }
                if (!S_ISDIR(st.st_mode)) {
                        if (unlinkat(fd, de->d_name, 0) < 0 && errno != ENOENT)
                                return rm_error(err, errno, "remove a file below", w->path);
                        continue;
                }

                *ret_child = open_same_mount(fd, de->d_name);
                if (*ret_child < 0) {
                        if (errno == EXDEV)
                                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EXDEV,
                                        "cannot remove %s: \"%s\" below it is a mount point; unmount it "
                                        "first",
                                        w->path, de->d_name);
                        return rm_error(err, errno, "open a directory below", w->path);
                }
                *ret_name = strdup(de->d_name);
                if (!*ret_name) {
                        *ret_child = tb_close(*ret_child);
                        return tb_error_oom(err);
                }
                return 1;
        }
}

static int rm_down(RmWalk *w, int *fd, int child_fd, const char *name, TbError **err)
{
        _cleanup_close_ int child = child_fd;
        struct stat st;

        if (fstat(child, &st) < 0)
                return rm_error(err, errno, "stat below", w->path);
        *fd = tb_close(*fd);
        *fd = TAKE_FD(child);
        return rm_walk_push(w, &st, name, err);
}

static int rm_up(RmWalk *w, int *fd, TbError **err)
{
        _cleanup_close_ int parent = -EBADF;
        RmLevel *from = &w->levels[w->depth - 1], *to = &w->levels[w->depth - 2];
        struct stat st;

        parent = openat(*fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (parent < 0 || fstat(parent, &st) < 0)
                return rm_error(err, errno, "go up below", w->path);
        if (st.st_dev != to->dev || st.st_ino != to->ino)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EBUSY,
                        "cannot remove %s: a directory below it was moved meanwhile", w->path);
        if (unlinkat(parent, from->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
                return rm_error(err, errno, "remove a directory below", w->path);

        *fd = tb_close(*fd);
        *fd = TAKE_FD(parent);
        free(from->name);
        w->depth--;
        return 0;
}

int tb_rm_rf(const char *path, TbError **err)
{
        _cleanup_(rm_walk_done) RmWalk walk = {.path = path};
        _cleanup_close_ int fd = -EBADF;
        struct stat st;
        int r;

        if (unlink(path) >= 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM)
                return rm_error(err, errno, "remove", path);

        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return rm_error(err, errno, "open", path);
        if (fstat(fd, &st) < 0)
                return rm_error(err, errno, "stat", path);
        r = rm_walk_push(&walk, &st, "", err);
        if (r < 0)
                return r;

        for (;;) {
                _cleanup_free_ char *name = NULL;
                int child = -EBADF;

                r = rm_entries(&walk, fd, &child, &name, err);
                if (r < 0)
                        return r;
                if (r > 0)
                        r = rm_down(&walk, &fd, child, name, err);
                else if (walk.depth > 1)
                        r = rm_up(&walk, &fd, err);
                else
                        break;
                if (r < 0)
                        return r;
        }

        if (rmdir(path) < 0 && errno != ENOENT)
                return rm_error(err, errno, "remove directory", path);
        return 0;
}

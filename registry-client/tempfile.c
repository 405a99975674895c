/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Files that get their name when they are complete, and small helpers for files. */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/store.h"

#define TRIES 16

static int random_name(char *ret, size_t size, TbError **err)
{
        uint64_t n;

        if (getrandom(&n, sizeof(n), 0) != (ssize_t) sizeof(n))
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make up a file name");
        (void) snprintf(ret, size, ".tbnode-%016llx", (unsigned long long) n);
        return 0;
}

int registry_temp_file_open(int dir_fd, RegistryTempFile *ret, TbError **err)
{
        RegistryTempFile f = {.dir_fd = dir_fd, .fd = -EBADF};

        f.fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
        /* Not every file system has it; old kernels take the flag for O_DIRECTORY. */
        for (int i = 0; f.fd < 0 && i < TRIES; i++) {
                int r;

                if (errno != EOPNOTSUPP && errno != EISDIR && errno != EEXIST && errno != ENOENT)
                        break;
                r = random_name(f.name, sizeof(f.name), err);
                if (r < 0)
                        return r;
                f.fd = openat(dir_fd, f.name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0644);
        }
        if (f.fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot create a file");
        *ret = f;
        return 0;
}

static int give_name(RegistryTempFile *f, TbError **err)
{
        char path[64];
        int r;

        (void) snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
        for (int i = 0; i < TRIES; i++) {
                char name[sizeof(f->name)];

                r = random_name(name, sizeof(name), err);
                if (r < 0)
                        return r;
                if (linkat(AT_FDCWD, path, f->dir_fd, name, AT_SYMLINK_FOLLOW) >= 0) {
                        memcpy(f->name, name, sizeof(name));
                        return 0;
                }
                if (errno != EEXIST)
                        break;
        }
        return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot give a file its name");
}

int registry_temp_file_commit(RegistryTempFile *f, const char *name, bool replace, TbError **err)
{
        int r;

        if (fsync(f->fd) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write %s", name);
        if (!f->name[0] && (r = give_name(f, err)) < 0)
                return r;
        if (replace)
                r = renameat(f->dir_fd, f->name, f->dir_fd, name);
        else {
                r = linkat(f->dir_fd, f->name, f->dir_fd, name, 0);
                if (r >= 0)
                        (void) unlinkat(f->dir_fd, f->name, 0);
        }
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot create %s", name);
        f->name[0] = 0;
        registry_temp_file_done(f);
        return 0;
}

void registry_temp_file_done(RegistryTempFile *f)
{
        if (f->name[0])
                (void) unlinkat(f->dir_fd, f->name, 0);
        (void) tb_close(f->fd);
        *f = REGISTRY_TEMP_FILE_NONE;
}

int registry_pwrite_all(int fd, const void *data, size_t size, uint64_t offset, TbError **err)
{
        const char *p = data;

        while (size > 0) {
                ssize_t n = pwrite(fd, p, size, (off_t) offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return tb_error_set_errno(
                                err, TB_ERROR_RESOURCE, n < 0 ? -errno : -EIO, "cannot write a file");
                p += n;
                offset += (uint64_t) n;
                size -= (size_t) n;
        }
        return 0;
}

int registry_read_at(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_size, TbError **err)
{
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        _cleanup_free_ char *data = NULL;
        struct stat st;
        size_t size = 0;

        if (fd < 0 || fstat(fd, &st) < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno, "cannot read %s", name);
        if (!S_ISREG(st.st_mode))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s is not a regular file", name);
        if ((uint64_t) st.st_size > max)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EMSGSIZE, "%s is larger than %zu bytes", name, max);
        data = malloc((size_t) st.st_size + 1);
        if (!data)
                return tb_error_oom(err);
        while (size < (size_t) st.st_size) {
                ssize_t n = pread(fd, data + size, (size_t) st.st_size - size, (off_t) size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, n < 0 ? -errno : -EIO, "cannot read %s", name);
                size += (size_t) n;
        }
        data[size] = 0;
        *ret = TAKE_PTR(data);
        *ret_size = size;
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/transfer-dir.h"
#include "common/cleanup.h"
#include "common/digest.h"
#include "common/file.h"
#include "common/log.h"
#include "common/strv.h"

#define TRANSFERS_DIR "transfers"
#define NAME_LENGTH 32
#define AGE_MAX (7 * 24 * 3600)
/* Beside that, one directory keeps at most 10 GiB (registry-client/spool.c). */
#define TOTAL_MAX (UINT64_C(20) << 30)
#define DIRS_MAX 4096U

static char *dir_path(const char *state_dir, const char *name)
{
        return tb_asprintf("%s/" TRANSFERS_DIR "%s%s", state_dir, name ? "/" : "", name ?: "");
}

static int give(const char *path, uid_t uid, gid_t gid, TbError **err)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (fd < 0 || fchown(fd, uid, gid) < 0 || fchmod(fd, 0700) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot give %s to the worker user", path);
        return 0;
}

int transfer_dir_make(const char *state_dir, const char *project, const char *repository, uid_t uid,
        gid_t gid, char **ret, TbError **err)
{
        _cleanup_free_ char *key = tb_asprintf("%s\n%s\n", project ?: "", repository),
                            *parent = dir_path(state_dir, NULL), *path = NULL;
        char name[NAME_LENGTH + 1];
        TbDigest digest;
        int r;

        if (!key || !parent)
                return tb_error_oom(err);
        r = tb_digest_of(key, strlen(key), &digest, err);
        if (r < 0)
                return r;
        (void) snprintf(name, sizeof(name), "%.*s", NAME_LENGTH, tb_digest_hex(&digest));
        path = dir_path(state_dir, name);
        if (!path)
                return tb_error_oom(err);
        if ((r = tb_mkdir_p(state_dir, 0755, err)) < 0 || (r = tb_mkdir_p(parent, 0711, err)) < 0 ||
                (r = tb_mkdir_p(path, 0700, err)) < 0 || (r = give(path, uid, gid, err)) < 0)
                return r;
        *ret = TAKE_PTR(path);
        return 0;
}

void transfer_dir_release(const char *dir)
{
        if (dir)
                (void) rmdir(dir); /* not empty: somebody comes back for it, or the sweep does */
}

/* ---- What nobody came back for ----------------------------------------------------------------------------------- */

typedef struct OldDir {
        char name[NAME_LENGTH + 1];
        time_t used;
        uint64_t size;
} OldDir;

static bool name_is_ours(const char *name)
{
        return strlen(name) == NAME_LENGTH && strspn(name, "0123456789abcdef") == NAME_LENGTH;
}

/* What the worker user put there is only looked at, never followed. */
static void measure(int parent, OldDir *d)
{
        int fd = openat(parent, d->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        _cleanup_closedir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct stat st;

        if (!dir) {
                (void) tb_close(fd);
                return;
        }
        if (fstat(fd, &st) >= 0)
                d->used = st.st_mtime;
        for (const struct dirent *e; (e = readdir(dir));) {
                if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
                        continue;
                d->size += (uint64_t) st.st_blocks * 512;
                if (st.st_mtime > d->used)
                        d->used = st.st_mtime;
        }
}

static int by_use(const void *a, const void *b)
{
        const OldDir *x = a, *y = b;

        return x->used < y->used ? -1 : x->used > y->used;
}

void transfer_dirs_sweep(const char *state_dir)
{
        _cleanup_free_ char *parent = dir_path(state_dir, NULL);
        _cleanup_closedir_ DIR *dir = parent ? opendir(parent) : NULL;
        _cleanup_free_ OldDir *dirs = calloc(DIRS_MAX, sizeof(*dirs));
        uint64_t total = 0;
        size_t n = 0;

        if (!dir || !dirs)
                return; /* nothing was ever kept here */
        for (const struct dirent *e; n < DIRS_MAX && (e = readdir(dir));)
                if (name_is_ours(e->d_name)) {
                        memcpy(dirs[n].name, e->d_name, NAME_LENGTH + 1);
                        measure(dirfd(dir), &dirs[n]);
                        total += dirs[n++].size;
                }
        qsort(dirs, n, sizeof(*dirs), by_use);
        for (size_t i = 0; i < n && (total > TOTAL_MAX || dirs[i].used + AGE_MAX < time(NULL)); i++) {
                _cleanup_free_ char *path = dir_path(state_dir, dirs[i].name);
                _cleanup_error_ TbError *err = NULL;

                if (path && tb_rm_rf(path, &err) < 0)
                        log_warning("cannot remove %s: %s", path, tb_error_message(err));
                total -= dirs[i].size;
        }
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/cli-collect-store.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <fts.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/log.h"
#include "common/strv.h"

typedef enum Kind {
        KIND_DIRECTORY,
        KIND_TAR,
        KIND_TAR_GZIP,
        KIND_TAR_ZSTD,
} Kind;

struct Store {
        char *target;
        char *base; /* its last component, without a suffix of tar's */
        Kind kind;
        char *work; /* the temporary directory, NULL when it has its name */
        char *tar;  /* the temporary file */
        int fd;     /* of work */
};

static Kind kind_of(const char *target, size_t *ret_suffix)
{
        static const struct {
                const char *suffix;
                Kind kind;
        } suffixes[] = {{".tar", KIND_TAR}, {".tar.gz", KIND_TAR_GZIP}, {".tgz", KIND_TAR_GZIP},
                {".tar.zst", KIND_TAR_ZSTD}};

        for (size_t i = 0; i < ELEMENTSOF(suffixes); i++)
                if (tb_endswith(target, suffixes[i].suffix)) {
                        *ret_suffix = strlen(suffixes[i].suffix);
                        return suffixes[i].kind;
                }
        *ret_suffix = 0;
        return KIND_DIRECTORY;
}

static bool is_empty(const char *directory)
{
        _cleanup_closedir_ DIR *d = opendir(directory);
        size_t n = 0;

        while (d && readdir(d))
                n++;
        return d && n <= 2;
}

static int check_target(const Store *s, TbError **err)
{
        struct stat st;

        if (lstat(s->target, &st) < 0) {
                if (errno == ENOENT)
                        return 0;
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno, "cannot write %s", s->target);
        }
        if (s->kind == KIND_DIRECTORY && S_ISDIR(st.st_mode) && is_empty(s->target))
                return 0; /* rename(2) takes its place */
        return tb_error_set(err, TB_ERROR_CONFIG, -EEXIST,
                "%s exists already%s; choose another name, nothing is written over", s->target,
                S_ISDIR(st.st_mode) ? " and is not empty" : "");
}

int store_new(const char *target, Store **ret, TbError **err)
{
        _cleanup_(store_freep) Store *s = calloc(1, sizeof(*s));
        _cleanup_free_ char *pattern = NULL;
        const char *base;
        size_t n = strlen(target), suffix;
        int r;

        while (n > 1 && target[n - 1] == '/')
                n--;
        if (!s || !(s->target = strndup(target, n)))
                return tb_error_oom(err);
        s->fd = -EBADF;
        s->kind = kind_of(s->target, &suffix);
        base = strrchr(s->target, '/');
        base = base ? base + 1 : s->target;
        s->base = strndup(base, strlen(base) - MIN2(suffix, strlen(base)));
        pattern = tb_asprintf("%.*s.%s.XXXXXX", (int) (base - s->target), s->target, base);
        if (!s->base || !pattern)
                return tb_error_oom(err);
        if (!s->base[0] || tb_streq(base, ".") || tb_streq(base, ".."))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "'%s' is no name for a directory or file", target);
        r = check_target(s, err);
        if (r >= 0)
                r = tb_mkdtemp(pattern, &s->work, err);
        if (r < 0)
                return r;
        s->fd = open(s->work, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (s->fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot open %s", s->work);
        *ret = TAKE_PTR(s);
        return 0;
}

Store *store_free(Store *s)
{
        _cleanup_error_ TbError *err = NULL;

        if (!s)
                return NULL;
        if (s->work && tb_rm_rf(s->work, &err) < 0)
                log_warning("cannot remove %s: %s", s->work, tb_error_message(err));
        if (s->tar)
                (void) unlink(s->tar);
        tb_close(s->fd);
        free(s->work);
        free(s->tar);
        free(s->base);
        free(s->target);
        free(s);
        return NULL;
}

bool store_path_is_valid(const char *path)
{
        const char *component = path;

        if (strlen(path) >= 4000)
                return false;
        for (const unsigned char *p = (const unsigned char *) path;; p++) {
                if (*p != '/' && *p != 0) {
                        if (*p < 0x20 || *p >= 0x7f)
                                return false;
                        continue;
                }
                size_t n = (size_t) ((const char *) p - component);
                if (n == 0 || n > 255 || (n <= 2 && memcmp(component, "..", n) == 0))
                        return false;
                if (*p == 0)
                        return true;
                component = (const char *) p + 1;
        }
}

static int open_below(int directory, const char *name, uint64_t flags, mode_t mode)
{
        const struct open_how how = {
                .flags = flags | O_CLOEXEC | O_NOFOLLOW,
                .mode = flags & O_CREAT ? mode : 0,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
        };
        long fd = syscall(SYS_openat2, directory, name, &how, sizeof(how));

        return fd < 0 ? -errno : (int) fd;
}

int store_create(Store *s, const char *directory, const char *path, int *ret_fd, TbError **err)
{
        _cleanup_free_ char *whole = directory ? tb_asprintf("%s/%s", directory, path) : strdup(path),
                            *rest = NULL;
        _cleanup_close_ int at = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
        char *slash;
        int fd;

        if (!whole || !(rest = strdup(whole)))
                return tb_error_oom(err);
        if (!store_path_is_valid(whole))
                return tb_error_set(err, TB_ERROR_REMOTE, -EINVAL, "a file has a name that is none");
        for (char *p = rest; (slash = strchr(p, '/')); p = slash + 1) {
                *slash = 0;
                if (mkdirat(at, p, 0755) < 0 && errno != EEXIST)
                        return tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, -errno, "cannot make a directory for %s", whole);
                fd = open_below(at, p, O_PATH | O_DIRECTORY, 0);
                if (fd < 0)
                        return tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, fd, "cannot open the directory of %s", whole);
                (void) close(at);
                at = fd;
        }
        slash = strrchr(whole, '/');
        fd = open_below(at, slash ? slash + 1 : whole, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, fd, "cannot write %s", whole);
        *ret_fd = fd;
        return 0;
}

int store_write_json(Store *s, const char *directory, const char *path, const json_t *j, TbError **err)
{
        _cleanup_free_ char *text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
        _cleanup_close_ int fd = -EBADF;
        int r;

        if (!text)
                return tb_error_oom(err);
        r = store_create(s, directory, path, &fd, err);
        if (r >= 0)
                r = tb_write_all(fd, text, strlen(text), err);
        return r < 0 ? r : tb_write_all(fd, "\n", 1, err);
}

int store_scratch(Store *s, int *ret_fd, TbError **err)
{
        char name[] = ".scratch";
        int fd = open_below(s->fd, name, O_RDWR | O_CREAT | O_EXCL, 0600);

        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, fd, "cannot make a temporary file");
        (void) unlinkat(s->fd, name, 0);
        *ret_fd = fd;
        return 0;
}

/* ---- The tar file -------------------------------------------------------------------------------------------------- */

static int tar_failed(struct archive *a, TbError **err)
{
        return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot write the archive: %s",
                archive_error_string(a) ?: "no reason given");
}

static int add_content(struct archive *a, const char *path, int64_t size, TbError **err)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        char buffer[64 * 1024];
        ssize_t n = 1;

        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot read %s", path);
        while (size > 0 && (n = read(fd, buffer, sizeof(buffer))) > 0) {
                if (archive_write_data(a, buffer, (size_t) n) != n)
                        return tar_failed(a, err);
                size -= n;
        }
        return n < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot read %s", path) : 0;
}

static int add_tree(Store *s, struct archive *a, FTS *tree, bool (*stop)(void), TbError **err)
{
        size_t skip = strlen(s->work);
        FTSENT *f;
        int r = 0;

        while (r >= 0 && (f = fts_read(tree))) {
                _cleanup_free_ char *name = tb_asprintf("%s%s", s->base, f->fts_path + skip);
                struct archive_entry *e;

                if (stop())
                        return tb_error_set(err, TB_ERROR_CANCELLED, -ECANCELED, "interrupted");
                if (f->fts_info != FTS_D && f->fts_info != FTS_F)
                        continue;
                e = name ? archive_entry_new() : NULL;
                if (!e)
                        return tb_error_oom(err);
                archive_entry_set_pathname(e, name);
                archive_entry_set_filetype(e, f->fts_info == FTS_D ? S_IFDIR : S_IFREG);
                archive_entry_set_perm(e, f->fts_info == FTS_D ? 0755 : 0644);
                archive_entry_set_mtime(e, f->fts_statp->st_mtime, 0);
                archive_entry_set_size(e, f->fts_info == FTS_F ? f->fts_statp->st_size : 0);
                if (archive_write_header(a, e) != ARCHIVE_OK)
                        r = tar_failed(a, err);
                else if (f->fts_info == FTS_F)
                        r = add_content(a, f->fts_accpath, f->fts_statp->st_size, err);
                archive_entry_free(e);
        }
        return r;
}

static int fts_by_name(const FTSENT **a, const FTSENT **b)
{
        return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int write_tar(Store *s, int fd, bool (*stop)(void), TbError **err)
{
        char *roots[] = {s->work, NULL};
        struct archive *a = archive_write_new();
        FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, fts_by_name);
        int r = 0;

        if (!a || !tree)
                r = tb_error_oom(err);
        else if ((s->kind == KIND_TAR_GZIP && archive_write_add_filter_gzip(a) != ARCHIVE_OK) ||
                (s->kind == KIND_TAR_ZSTD && archive_write_add_filter_zstd(a) != ARCHIVE_OK) ||
                archive_write_set_format_pax_restricted(a) != ARCHIVE_OK ||
                archive_write_open_fd(a, fd) != ARCHIVE_OK)
                r = tar_failed(a, err);
        if (r >= 0)
                r = add_tree(s, a, tree, stop, err);
        if (r >= 0 && archive_write_close(a) != ARCHIVE_OK)
                r = tar_failed(a, err);
        if (tree)
                (void) fts_close(tree);
        if (a)
                archive_write_free(a);
        return r;
}

int store_finish(Store *s, bool (*stop)(void), TbError **err)
{
        _cleanup_close_ int fd = -EBADF;
        const char *from = s->work;

        if (s->kind != KIND_DIRECTORY) {
                int r;

                from = s->tar = tb_asprintf("%s.tar", s->work);
                if (!from)
                        return tb_error_oom(err);
                fd = open(from, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
                if (fd < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write %s", from);
                r = write_tar(s, fd, stop, err);
                if (r < 0)
                        return r;
                if (fsync(fd) < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write %s", from);
        }
        if (s->kind == KIND_DIRECTORY ? rename(from, s->target) < 0
                                      : renameat2(AT_FDCWD, from, AT_FDCWD, s->target, RENAME_NOREPLACE) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot name it %s", s->target);
        if (s->kind == KIND_DIRECTORY)
                free(TAKE_PTR(s->work));
        else
                free(TAKE_PTR(s->tar));
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Partial blobs on disk: what makes a copy go on after its process died
 *
 *         DIR/<hex>.part       the first bytes of blob sha256:<hex>, as they came
 *         DIR/<hex>.session    the upload session they went to: "HOST/REPOSITORY\nURL\n"
 *
 * The files are locked (flock) by whoever appends to them; who finds them locked copies without. What they hold counts for
 * nothing until it was hashed again: it is read back through the same check as bytes from the network, and dropped when
 * that fails, so a torn write after a power cut costs time and nothing else. Bytes are gathered (PIECE) and written behind the
 * network (page cache), and forced to disk once in SYNC_USEC: kill -9 loses a piece at most, a power cut a few seconds.
 *
 * Writing costs both the processor and the disk, which the other side's registry may be waiting for. So the owner may say that what
 * comes quickly need not be kept: the first bytes are held in memory then, and when the blob will be complete soon at the rate at which
 * they came, there is nothing on disk. What breaks off nevertheless is fetched again, in that time.
 *
 * All partial blobs together stay below a bound; the one that nobody has touched for longest goes first. A full disk ends
 * the keeping, not the copy.
 */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/copy.h"

#define SYNC_USEC (5 * USEC_PER_SEC)
#define PIECE \
        (128U * 1024) /* the system call and the file system's work for each take longer than the copying of less */
#define JUDGED_BY (1024U * 1024) /* the first bytes, whose rate decides */
#define FILES_MAX 4096U
#define SESSION_MAX 8192U
#define NAME_SIZE 80U
#define MAX_DEFAULT (10ULL << 30)

struct RegistrySpool {
        int dir_fd, fd;
        char part[NAME_SIZE], session[NAME_SIZE];
        uint64_t size; /* bytes it holds, with those that are gathered */
        char *piece;   /* gathered; NULL = nothing was yet */
        size_t n_piece, piece_size;
        uint64_t synced_usec;
        uint64_t patience_usec, blob_size; /* until the rate has been judged; 0 = it was */
        uint64_t begun_usec;
        bool has_session, broken;
};

typedef struct PartFile {
        char name[NAME_SIZE];
        int64_t sec, nsec;
        uint64_t size;
} PartFile;

/* A full disk, or it isn't worth it: what is missing cannot be read back, so nothing of it may be used. */
static void give_up(RegistrySpool *s)
{
        s->broken = true;
        s->size = s->n_piece = 0;
        free(s->piece);
        s->piece = NULL;
        if (ftruncate(s->fd, 0) < 0)
                (void) unlinkat(s->dir_fd, s->part, 0);
}

static void flush(RegistrySpool *s)
{
        size_t n = s->n_piece;

        s->n_piece = 0;
        if (n > 0 && registry_pwrite_all(s->fd, s->piece, n, s->size - n, NULL) < 0)
                give_up(s);
}

RegistrySpool *registry_spool_free(RegistrySpool *s)
{
        if (!s)
                return NULL;
        if (!s->broken && s->fd >= 0) {
                flush(s);
                (void) fdatasync(s->fd);
        }
        (void) tb_close(s->fd); /* and with it the lock */
        (void) tb_close(s->dir_fd);
        free(s->piece);
        free(s);
        return NULL;
}

RegistrySpool *registry_spool_discard(RegistrySpool *s)
{
        if (!s)
                return NULL;
        (void) unlinkat(s->dir_fd, s->session, 0);
        (void) unlinkat(s->dir_fd, s->part, 0);
        s->broken = true;
        return registry_spool_free(s);
}

/* ---- the bound ---- */

static bool is_part(const char *name)
{
        const char *end = strchr(name, '.');

        return end && end - name == 64 && tb_streq(end, ".part") && strspn(name, "0123456789abcdef") == 64;
}

static int by_age(const void *a, const void *b)
{
        const PartFile *x = a, *y = b;

        if (x->sec != y->sec)
                return x->sec < y->sec ? -1 : 1;
        return x->nsec < y->nsec ? -1 : x->nsec > y->nsec;
}

static void remove_part(int dir_fd, const char *name)
{
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        char session[NAME_SIZE];

        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
                return; /* in use */
        (void) snprintf(session, sizeof(session), "%.64s.session", name);
        (void) unlinkat(dir_fd, session, 0);
        (void) unlinkat(dir_fd, name, 0);
}

/* Makes room for `size` more bytes; the file `keep` stays. */
static void trim(int dir_fd, const char *keep, uint64_t size, uint64_t max)
{
        int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);
        _cleanup_free_ PartFile *files = calloc(FILES_MAX, sizeof(*files));
        const struct dirent *e;
        uint64_t total = size;
        size_t n = 0;

        if (!d)
                (void) tb_close(fd);
        while (d && files && n < FILES_MAX && (e = readdir(d))) {
                struct stat st;

                if (!is_part(e->d_name) || tb_streq(e->d_name, keep) ||
                        fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
                        continue;
                (void) snprintf(files[n].name, sizeof(files[n].name), "%.70s", e->d_name);
                files[n].sec = st.st_mtim.tv_sec;
                files[n].nsec = st.st_mtim.tv_nsec;
                files[n].size = (uint64_t) st.st_size;
                total += files[n++].size;
        }
        if (total <= max)
                return;
        qsort(files, n, sizeof(*files), by_age);
        for (size_t i = 0; i < n && total > max; i++) {
                remove_part(dir_fd, files[i].name);
                total -= files[i].size;
        }
}

/* ---- opening ---- */

/* A locked file that still has its name: whoever finished the blob may have removed it before we got the lock. */
static int open_locked(int dir_fd, const char *name, struct stat *ret)
{
        for (int i = 0; i < 3; i++) {
                _cleanup_close_ int fd =
                        openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

                if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, ret) < 0 ||
                        !S_ISREG(ret->st_mode))
                        return -EBUSY;
                if (ret->st_nlink > 0)
                        return TAKE_FD(fd);
        }
        return -EBUSY;
}

int registry_spool_prepare(const char *dir, TbError **err)
{
        struct stat st;
        int r = tb_mkdir_p(dir, 0700, err);

        if (r < 0)
                return r;
        /* Session URLs are secrets of a kind, and partial blobs are what private images are made of. */
        if (stat(dir, &st) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "%s", dir);
        if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
                return tb_error_set(err, TB_ERROR_CONFIG, -EPERM,
                        "%s: a state directory must belong to its user and be writable for nobody else",
                        dir);
        return 0;
}

int registry_spool_open(const char *dir, const TbDigest *digest, uint64_t blob_size, uint64_t max,
        uint64_t patience_usec, RegistrySpool **ret)
{
        RegistrySpool *s;
        struct stat st;

        max = max > 0 ? max : MAX_DEFAULT;
        if (blob_size > max)
                return 0;
        s = calloc(1, sizeof(*s));
        if (!s)
                return 0;
        (void) snprintf(s->part, sizeof(s->part), "%s.part", tb_digest_hex(digest));
        (void) snprintf(s->session, sizeof(s->session), "%s.session", tb_digest_hex(digest));
        s->fd = -EBADF;
        s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (s->dir_fd >= 0)
                s->fd = open_locked(s->dir_fd, s->part, &st);
        if (s->fd < 0) {
                s->broken = true;
                registry_spool_free(s);
                return 0;
        }
        s->size = (uint64_t) st.st_size;
        s->synced_usec = tb_now_us();
        s->blob_size = blob_size;
        s->patience_usec = s->size > 0 ? 0 : patience_usec; /* it broke off before */
        if (s->size > blob_size && ftruncate(s->fd, 0) >= 0)
                s->size = 0;
        if (s->size > blob_size) {
                (void) registry_spool_discard(s);
                return 0;
        }
        trim(s->dir_fd, s->part, blob_size, max);
        *ret = s;
        return 1;
}

/* ---- bytes ---- */

uint64_t registry_spool_size(const RegistrySpool *s)
{
        return s->size;
}

/* The first bytes are there. */
static void judge(RegistrySpool *s)
{
        uint64_t took = tb_now_us() - s->begun_usec;

        if (took < s->patience_usec / (s->blob_size / JUDGED_BY + 1)) {
                give_up(s);
                (void) unlinkat(s->dir_fd, s->session, 0);
        }
        s->patience_usec = 0;
}

int registry_spool_append(RegistrySpool *s, const void *data, size_t size, TbError **err)
{
        uint64_t now;

        if (!s->broken && !s->piece) {
                s->piece_size = s->patience_usec > 0 ? JUDGED_BY : PIECE;
                s->begun_usec = tb_now_us();
                s->piece = malloc(s->piece_size);
                if (!s->piece)
                        give_up(s);
        }
        while (!s->broken && size > 0) {
                size_t n = MIN2(size, s->piece_size - s->n_piece);

                memcpy(s->piece + s->n_piece, data, n);
                s->n_piece += n;
                s->size += n;
                data = (const char *) data + n;
                size -= n;
                if (s->n_piece < s->piece_size)
                        continue;
                if (s->patience_usec > 0)
                        judge(s);
                flush(s);
                s->piece_size = PIECE;
        }
        if (s->broken || s->patience_usec > 0)
                return 0;
        now = tb_now_us();
        if (now - s->synced_usec >= SYNC_USEC) {
                flush(s);
                (void) fdatasync(s->fd);
                s->synced_usec = now;
        }
        return 0;
}

int registry_spool_region(RegistrySpool *s, uint64_t position, RegistryRegion *ret)
{
        int fd;

        flush(s);
        if (s->broken || s->size <= position)
                return 0;
        s->patience_usec = 0; /* it broke off: the rest is kept as well */
        fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return 0;
        *ret = (RegistryRegion){.fd = fd, .offset = position, .size = s->size - position};
        return 1;
}

/* ---- the upload session ---- */

bool registry_spool_has_session(const RegistrySpool *s)
{
        return s->has_session && !s->broken;
}

void registry_spool_set_session(RegistrySpool *s, const RegistryRef *target, const char *location)
{
        _cleanup_free_ char *text = NULL;
        _cleanup_close_ int fd = -EBADF;

        s->has_session = false;
        (void) unlinkat(s->dir_fd, s->session, 0);
        if (!location || s->broken)
                return;
        text = tb_asprintf("%s/%s\n%s\n", target->host, target->repository, location);
        fd = openat(s->dir_fd, s->session, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (text && strlen(text) < SESSION_MAX && fd >= 0 && tb_write_all(fd, text, strlen(text), NULL) >= 0)
                s->has_session = true;
        else
                (void) unlinkat(s->dir_fd, s->session, 0);
}

char *registry_spool_get_session(const RegistrySpool *s, const RegistryRef *target)
{
        _cleanup_free_ char *data = NULL, *name = tb_asprintf("%s/%s\n", target->host, target->repository);
        const char *url;
        size_t size;

        if (!name || registry_read_at(s->dir_fd, s->session, SESSION_MAX, &data, &size, NULL) < 0)
                return NULL;
        url = tb_startswith(data, name);
        /* one line, complete */
        if (!url || strlen(data) != size || !strchr(url, '\n') || strchr(url, '\n')[1] || url[0] == '\n')
                return NULL;
        return strndup(url, strcspn(url, "\n"));
}

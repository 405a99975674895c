/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Build contexts as docker build makes them
 *
 * A directory is packed with its owner, group and times left out, without what its .dockerignore names. A Dockerfile that
 * lies elsewhere goes along under a name of its own, which the context's .dockerignore then has the engine forget, so that
 * no COPY finds it. What comes from a URL is fetched by us, not by the engine: with the caller's view of the network.
 */

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <fts.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli-source.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"

#define CONTEXT_MAX (UINT64_C(8) << 30)
#define DOCKERFILE_MAX (1024U * 1024)
#define IGNORE_MAX (256U * 1024)
#define PATTERNS_MAX 1024U
#define ENTRIES_MAX 200000U
#define OWN_DOCKERFILE ".tbnode.Dockerfile"
#define IGNORE_FILE ".dockerignore"

/* ---- .dockerignore ----------------------------------------------------------------------------------------------- */

typedef struct Pattern {
        regex_t regex;
        bool keep; /* "!" */
} Pattern;

typedef struct Patterns {
        Pattern *list;
        size_t n;
        bool any_keep;
} Patterns;

static void patterns_done(Patterns *p)
{
        for (size_t i = 0; i < p->n; i++)
                regfree(&p->list[i].regex);
        free(p->list);
}

/* Go's filepath.Match and "**", as a regular expression (moby/patternmatcher). */
static int translate(const char *s, TbBuffer *out, TbError **err)
{
        int r = tb_buffer_append(out, "^", 1, err);

        for (; r >= 0 && *s; s++) {
                if (s[0] == '*' && s[1] == '*') {
                        s++;
                        if (s[1] == '/') {
                                s++;
                                r = tb_buffer_append(out, "(.*/)?", 6, err);
                        } else
                                r = tb_buffer_append(out, ".*", 2, err);
                } else if (*s == '*')
                        r = tb_buffer_append(out, "[^/]*", 5, err);
                else if (*s == '?')
                        r = tb_buffer_append(out, "[^/]", 4, err);
                else if (*s == '[' && strchr(s + 1, ']')) {
                        size_t n = (size_t) (strchr(s + 1, ']') - s) + 1;

                        r = tb_buffer_append(out, s, n, err);
                        s += n - 1;
                } else {
                        if (*s == '\\' && s[1])
                                s++;
                        if (strchr(".^$*+?()[]{}|\\", *s))
                                r = tb_buffer_append(out, "\\", 1, err);
                        if (r >= 0)
                                r = tb_buffer_append(out, s, 1, err);
                }
        }
        return r < 0 ? r : tb_buffer_append(out, "$", 2, err);
}

static int add_pattern(Patterns *p, char *line, TbError **err)
{
        _cleanup_buffer_ TbBuffer text = TB_BUFFER_INIT(16384);
        Pattern *list = reallocarray(p->list, p->n + 1, sizeof(*list));
        bool keep = line[0] == '!';
        size_t n;
        int r;

        if (!list)
                return tb_error_oom(err);
        p->list = list;
        line += keep;
        line += strspn(line, " \t");
        while (line[0] == '/' || (line[0] == '.' && line[1] == '/'))
                line += line[0] == '/' ? 1 : 2;
        n = strlen(line);
        while (n > 0 && line[n - 1] == '/')
                line[--n] = 0;
        if (n == 0 || tb_streq(line, "."))
                return 0;
        if (p->n >= PATTERNS_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG, IGNORE_FILE " has more than %u patterns",
                        PATTERNS_MAX);
        r = translate(line, &text, err);
        if (r < 0)
                return r;
        if (regcomp(&list[p->n].regex, text.data, REG_EXTENDED | REG_NOSUB) != 0) {
                _cleanup_free_ char *shown = tb_escape(line, 80);

                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, IGNORE_FILE ": \"%s\" is not a pattern",
                        shown ?: "?");
        }
        list[p->n++].keep = keep;
        p->any_keep = p->any_keep || keep;
        return 0;
}

static int parse_patterns(const char *text, Patterns *ret, TbError **err)
{
        _cleanup_free_ char *copy = strdup(text);
        char *save = NULL;

        if (!copy)
                return tb_error_oom(err);
        for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                size_t n;
                int r;

                line += strspn(line, " \t\r");
                n = strlen(line);
                while (n > 0 && strchr(" \t\r", line[n - 1]))
                        line[--n] = 0;
                if (n == 0 || line[0] == '#')
                        continue;
                r = add_pattern(ret, line, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* The last pattern that fits the path or a directory above it decides. */
static bool is_ignored(const Patterns *p, const char *path)
{
        bool ignored = false;

        for (size_t i = 0; i < p->n; i++) {
                _cleanup_free_ char *part = NULL;
                char *slash;

                if (p->list[i].keep != ignored)
                        continue; /* it would change nothing */
                part = strdup(path);
                if (!part)
                        return ignored;
                for (;;) {
                        if (regexec(&p->list[i].regex, part, 0, NULL, 0) == 0) {
                                ignored = !p->list[i].keep;
                                break;
                        }
                        slash = strrchr(part, '/');
                        if (!slash)
                                break;
                        *slash = 0;
                }
        }
        return ignored;
}

int cli_context_is_ignored(const char *dockerignore, const char *path, bool *ret, TbError **err)
{
        _cleanup_(patterns_done) Patterns p = {};
        int r = parse_patterns(dockerignore, &p, err);

        if (r >= 0)
                *ret = is_ignored(&p, path);
        return r;
}

/* ---- Packing ----------------------------------------------------------------------------------------------------- */

typedef struct Pack {
        struct archive *archive;
        uint64_t bytes;
        unsigned entries;
} Pack;

static int archive_failed(const Pack *p, const char *path, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(path, 200);

        return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot pack %s into the build context: %s",
                shown ?: "?", archive_error_string(p->archive) ?: "no reason given");
}

static int put_header(Pack *p, const char *name, const struct stat *st, const char *link, TbError **err)
{
        struct archive_entry *e = archive_entry_new();
        int r;

        if (!e)
                return tb_error_oom(err);
        archive_entry_set_pathname(e, name);
        archive_entry_set_filetype(e, st->st_mode & S_IFMT);
        archive_entry_set_perm(e, st->st_mode & 07777);
        archive_entry_set_mtime(e, st->st_mtime, 0);
        archive_entry_set_size(e, S_ISREG(st->st_mode) ? st->st_size : 0);
        if (link)
                archive_entry_set_symlink(e, link);
        r = archive_write_header(p->archive, e);
        archive_entry_free(e);
        return r < ARCHIVE_WARN ? archive_failed(p, name, err) : 0;
}

static int put_text(Pack *p, const char *name, const char *data, size_t size, TbError **err)
{
        const struct stat st = {.st_mode = S_IFREG | 0644, .st_size = (off_t) size};
        int r = put_header(p, name, &st, NULL, err);

        if (r >= 0 && archive_write_data(p->archive, data, size) != (ssize_t) size)
                return archive_failed(p, name, err);
        return r;
}

static int put_file(Pack *p, const char *path, const char *name, TbError **err)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        char buffer[65536];
        struct stat st;
        uint64_t left;
        int r;

        if (fd < 0 || fstat(fd, &st) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_CONFIG, -errno, "cannot read %s for the build", path);
        if (!S_ISREG(st.st_mode))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s changed while it was read", path);
        p->bytes += (uint64_t) st.st_size;
        if (p->bytes > CONTEXT_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EFBIG,
                        "the build context is larger than %llu GiB; leave things out with " IGNORE_FILE,
                        (unsigned long long) (CONTEXT_MAX >> 30));
        r = put_header(p, name, &st, NULL, err);
        for (left = (uint64_t) st.st_size; r >= 0 && left > 0;) {
                ssize_t n = read(fd, buffer, (size_t) MIN2(left, (uint64_t) sizeof(buffer)));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return tb_error_set(
                                err, TB_ERROR_CONFIG, -EIO, "%s changed while it was read", path);
                if (archive_write_data(p->archive, buffer, (size_t) n) != n)
                        return archive_failed(p, name, err);
                left -= (uint64_t) n;
        }
        return r;
}

static int put_entry(Pack *p, const FTSENT *e, const char *name, TbError **err)
{
        char target[4096];
        ssize_t n;

        if (++p->entries > ENTRIES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG,
                        "the build context has more than %u files; leave things out with " IGNORE_FILE,
                        ENTRIES_MAX);
        if (S_ISREG(e->fts_statp->st_mode))
                return put_file(p, e->fts_accpath, name, err);
        if (S_ISDIR(e->fts_statp->st_mode))
                return put_header(p, name, e->fts_statp, NULL, err);
        if (!S_ISLNK(e->fts_statp->st_mode))
                return 0; /* sockets and devices: docker build leaves them out, too */
        n = readlink(e->fts_accpath, target, sizeof(target) - 1);
        if (n < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_CONFIG, -errno, "cannot read %s for the build", e->fts_path);
        target[n] = 0;
        return put_header(p, name, e->fts_statp, target, err);
}

static int pack_directory(Pack *p, const char *dir, const Patterns *ignore, bool own, TbError **err)
{
        char *const paths[] = {(char *) dir, NULL};
        FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
        size_t skip = strlen(dir);
        FTSENT *e;
        int r = 0;

        if (!fts)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot read %s", dir);
        while (r >= 0 && (errno = 0, e = fts_read(fts))) {
                const char *name = e->fts_path + skip;

                name += strspn(name, "/");
                if (e->fts_info == FTS_DP || (e->fts_level == 0 && e->fts_info == FTS_D))
                        continue;
                if (name[0] && is_ignored(ignore, name) && !tb_streq(name, IGNORE_FILE)) {
                        if (!ignore->any_keep)
                                (void) fts_set(fts, e, FTS_SKIP);
                        continue;
                }
                if (own && (tb_streq(name, IGNORE_FILE) || tb_streq(name, OWN_DOCKERFILE)))
                        continue; /* ours takes its place */
                if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
                        r = tb_error_set_errno(err, TB_ERROR_CONFIG, -e->fts_errno,
                                "cannot read %s for the build", e->fts_path);
                else
                        r = put_entry(p, e, name, err);
        }
        if (r >= 0 && errno != 0)
                r = tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot read %s", dir);
        (void) fts_close(fts);
        return r;
}

/* `dockerfile` NULL: it is in the directory already. dir NULL: there is nothing but the Dockerfile. */
static int pack(const char *dir, const char *dockerfile, int *ret_fd, TbError **err)
{
        _cleanup_(patterns_done) Patterns ignore = {};
        _cleanup_free_ char *path = dir ? tb_asprintf("%s/" IGNORE_FILE, dir) : NULL, *text = NULL,
                            *own = NULL;
        _cleanup_error_ TbError *e = NULL;
        _cleanup_close_ int fd = -EBADF;
        Pack p = {};
        int r;

        if (dir && !path)
                return tb_error_oom(err);
        if (path && (r = tb_file_read(path, IGNORE_MAX, &text, NULL, &e)) < 0 && r != -ENOENT)
                return tb_error_move(err, &e);
        if ((r = parse_patterns(text ?: "", &ignore, err)) < 0 || (r = cli_temp_file(&fd, err)) < 0)
                return r;
        p.archive = archive_write_new();
        if (!p.archive)
                return tb_error_oom(err);
        if (archive_write_set_format_pax_restricted(p.archive) != ARCHIVE_OK ||
                archive_write_open_fd(p.archive, fd) != ARCHIVE_OK)
                r = archive_failed(&p, dir ?: "the Dockerfile", err);
        if (r >= 0 && dir)
                r = pack_directory(&p, dir, &ignore, dockerfile != NULL, err);
        if (r >= 0 && dockerfile) {
                own = tb_asprintf("%s\n" OWN_DOCKERFILE "\n%s", text ?: "", text ? "" : IGNORE_FILE "\n");
                r = own ? put_text(&p, IGNORE_FILE, own, strlen(own), err) : tb_error_oom(err);
                if (r >= 0)
                        r = put_text(&p, OWN_DOCKERFILE, dockerfile, strlen(dockerfile), err);
        }
        if (r >= 0 && archive_write_close(p.archive) != ARCHIVE_OK)
                r = archive_failed(&p, dir ?: "the Dockerfile", err);
        (void) archive_write_free(p.archive);
        if (r >= 0)
                *ret_fd = TAKE_FD(fd);
        return r;
}

/* ---- URLs ------------------------------------------------------------------------------------------------------- */

/* A tar file, or one that is compressed as the engine understands it (moby pkg/archive). */
static bool is_archive(const char *head, size_t n)
{
        static const struct {
                const char *magic;
                size_t size, at;
        } known[] = {{"\x1f\x8b\x08", 3, 0}, {"BZh", 3, 0},
                {"\xfd"
                 "7zXZ",
                        5, 0},
                {"\x28\xb5\x2f\xfd", 4, 0}, {"ustar", 5, 257}};

        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (n >= known[i].at + known[i].size &&
                        memcmp(head + known[i].at, known[i].magic, known[i].size) == 0)
                        return true;
        return false;
}

static int read_text(int fd, uint64_t size, char **ret, TbError **err)
{
        _cleanup_free_ char *text = NULL;

        if (size > DOCKERFILE_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EFBIG,
                        "it is no tar file, and too large for a Dockerfile (%u KiB)", DOCKERFILE_MAX / 1024);
        text = malloc(size + 1);
        if (!text)
                return tb_error_oom(err);
        if (pread(fd, text, size, 0) != (ssize_t) size)
                return tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "cannot read the temporary file");
        text[size] = 0;
        if (strlen(text) != size || !tb_utf8_is_valid(text))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EBADMSG, "it is neither a tar file nor a Dockerfile");
        *ret = TAKE_PTR(text);
        return 0;
}

static int from_url(
        Cli *c, const char *url, const CliSource *options, int *ret_fd, char **ret_dockerfile, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        _cleanup_close_ int fd = -EBADF;
        char head[512];
        uint64_t size = 0;
        ssize_t n;
        int r;

        r = cli_download(c, url, &fd, &size, err);
        if (r < 0) {
                tb_error_prefix(err, "cannot fetch it");
                return r;
        }
        n = pread(fd, head, sizeof(head), 0);
        if (n > 0 && is_archive(head, (size_t) n)) {
                if (options->build_context)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "the URL is a build context itself, so --build-context can't be another "
                                "one");
                *ret_dockerfile = strdup(options->file ?: "Dockerfile");
                *ret_fd = TAKE_FD(fd);
        } else {
                if (options->file)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "the URL is the Dockerfile, so --file can't be another one");
                if ((r = read_text(fd, size, &text, err)) < 0 ||
                        (r = pack(options->build_context, text, ret_fd, err)) < 0)
                        return r;
                *ret_dockerfile = strdup(OWN_DOCKERFILE);
        }
        return *ret_dockerfile ? 0 : tb_error_oom(err);
}

/* ---- Paths ------------------------------------------------------------------------------------------------------- */

static int real_path(const char *path, char **ret, TbError **err)
{
        *ret = realpath(path, NULL);
        return *ret ? 0 : tb_error_set_errno(err, TB_ERROR_CONFIG, -errno, "cannot find %s", path);
}

/* The Dockerfile may lie in the context, or outside of it. */
static int from_path(
        const char *where, const CliSource *options, int *ret_fd, char **ret_dockerfile, TbError **err)
{
        _cleanup_free_ char *path = NULL, *file = NULL, *context = NULL, *named = NULL, *text = NULL;
        const char *inside;
        struct stat st;
        int r;

        r = real_path(where, &path, err);
        if (r < 0)
                return r;
        if (stat(path, &st) < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno, "cannot look at %s", path);
        if (S_ISDIR(st.st_mode)) {
                if (options->build_context)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "%s is a build context itself, so --build-context can't be another one",
                                path);
                context = TAKE_PTR(path);
                /* As docker build -f: by itself, not below the context. */
                named = options->file ? strdup(options->file) : tb_asprintf("%s/Dockerfile", context);
                if (!named)
                        return tb_error_oom(err);
                r = real_path(named, &file, err);
        } else {
                if (options->file)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "%s is the Dockerfile, so --file can't be another one", path);
                file = TAKE_PTR(path);
                if (options->build_context)
                        r = real_path(options->build_context, &context, err);
                else if (!(context = strndup(file, (size_t) MAX2(strrchr(file, '/') - file, (ptrdiff_t) 1))))
                        r = tb_error_oom(err);
        }
        if (r < 0 || (r = tb_file_read(file, DOCKERFILE_MAX, &text, NULL, err)) < 0)
                return r;
        inside = tb_startswith(file, context);
        if (inside && (inside[0] == '/' || tb_streq(context, "/"))) {
                inside += strspn(inside, "/");
                *ret_dockerfile = strdup(inside);
                return *ret_dockerfile ? pack(context, NULL, ret_fd, err) : tb_error_oom(err);
        }
        *ret_dockerfile = strdup(OWN_DOCKERFILE);
        return *ret_dockerfile ? pack(context, text, ret_fd, err) : tb_error_oom(err);
}

int cli_context_make(Cli *c, const char *where, const CliSource *options, int *ret_fd, char **ret_dockerfile,
        TbError **err)
{
        if (tb_startswith(where, "http://") || tb_startswith(where, "https://"))
                return from_url(c, where, options, ret_fd, ret_dockerfile, err);
        if (strstr(where, "://"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EOPNOTSUPP,
                        "only http:// and https:// URLs can be built from; fetch it and give its path");
        return from_path(where, options, ret_fd, ret_dockerfile, err);
}

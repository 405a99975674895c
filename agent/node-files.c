/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/node-files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "agent/pax.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

#define SKIPPED_MAX 200U
/* Of one component as it is written: whoever unpacks it has NAME_MAX of 255. */
#define COMPONENT_MAX 240U
#define PATH_BYTES_MAX 3072U

typedef struct Pack {
        int root;
        PaxWriter archive;
        json_t *skipped;
        size_t n_skipped;
        char **taken; /* paths, as they may match several patterns */
        size_t n_taken;
        uint64_t bytes;
        unsigned entries;
        bool matched; /* this pattern, anything */
} Pack;

int node_files_check(const json_t *patterns, TbError **err)
{
        const json_t *j;
        size_t i;

        if (!json_is_array(patterns) || json_array_size(patterns) > NODE_FILES_PATTERNS_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "\"paths\" is to be a list of at most %u patterns", NODE_FILES_PATTERNS_MAX);
        json_array_foreach (patterns, i, j) {
                const char *s = json_string_value(j);
                _cleanup_free_ char *shown = tb_escape(s ?: "", 80);

                if (!s || s[0] != '/' || strlen(s) > NODE_FILES_PATTERN_MAX)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "'%s' is no absolute path of at most %u bytes; write it from / on",
                                shown ?: "", NODE_FILES_PATTERN_MAX);
                for (const char *p = s; *p; p += strcspn(p, "/"))
                        if (*++p == '.' && p[1] == '.' && (p[2] == '/' || p[2] == 0))
                                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                        "'%s' has '..' in it; write the path without", shown ?: "");
        }
        return 0;
}

char *node_files_name(const char *path)
{
        _cleanup_free_ char *name = malloc(sizeof(NODE_FILES_PREFIX) + 3 * strlen(path));
        static const char hex[] = "0123456789ABCDEF";
        char *out = name;
        size_t component = 0;

        if (!name)
                return NULL;
        out = stpcpy(out, NODE_FILES_PREFIX);
        for (const unsigned char *p = (const unsigned char *) path; *p; p++) {
                const char *before = out;

                if (*p == '/') {
                        component = 0;
                        *out++ = '/';
                        continue;
                }
                if (*p > 0x20 && *p < 0x7f && *p != '%' && *p != '\\')
                        *out++ = (char) *p;
                else {
                        *out++ = '%';
                        *out++ = hex[*p >> 4];
                        *out++ = hex[*p & 15];
                }
                component += (size_t) (out - before);
                if (component > COMPONENT_MAX)
                        return NULL;
        }
        *out = 0;
        return out - name > PATH_BYTES_MAX ? NULL : TAKE_PTR(name);
}

static void skip(Pack *p, const char *path, const char *reason)
{
        _cleanup_free_ char *shown = tb_asprintf("/%s", path),
                            *escaped = shown ? tb_escape(shown, 1024) : NULL;

        p->n_skipped++;
        if (escaped && json_array_size(p->skipped) < SKIPPED_MAX)
                (void) json_array_append_new(
                        p->skipped, json_pack("{s:s, s:s}", "path", escaped, "reason", reason));
}

/* Exactly `size` bytes: what it has grown by is left out, and where it was cut short there are zeros. */
static int write_content(Pack *p, int fd, uint64_t size, TbError **err)
{
        static char buffer[64 * 1024];
        int r;

        while (size > 0) {
                ssize_t n = read(fd, buffer, (size_t) MIN2(size, (uint64_t) sizeof(buffer)));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        n = (ssize_t) MIN2(size, (uint64_t) sizeof(buffer));
                        memset(buffer, 0, (size_t) n);
                }
                r = pax_data(&p->archive, buffer, (size_t) n, err);
                if (r < 0)
                        return r;
                size -= (uint64_t) n;
        }
        return 0;
}

/* A file system whose files the kernel makes up. */
static bool is_made_up(int fd)
{
        static const unsigned long kinds[] = {PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC,
                CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, TRACEFS_MAGIC, SECURITYFS_MAGIC, SELINUX_MAGIC,
                SMACK_MAGIC, BPF_FS_MAGIC, PSTOREFS_MAGIC, EFIVARFS_MAGIC, NSFS_MAGIC, DEVPTS_SUPER_MAGIC,
                BINFMTFS_MAGIC, 0x62656570 /* configfs */, 0x19800202 /* mqueue */,
                0x65735543 /* fusectl */};
        struct statfs st;

        if (fstatfs(fd, &st) < 0)
                return true;
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++)
                if ((unsigned long) st.f_type == kinds[i])
                        return true;
        return false;
}

static bool is_taken(const Pack *p, const char *path)
{
        for (size_t i = 0; i < p->n_taken; i++)
                if (tb_streq(p->taken[i], path))
                        return true;
        return false;
}

/* `fd`: O_PATH, of a regular file. */
static int take_file(Pack *p, int fd, const struct stat *st, const char *path, TbError **err)
{
        _cleanup_free_ char *name = node_files_name(path);
        _cleanup_close_ int file = -EBADF;
        uint64_t size = (uint64_t) st->st_size;
        char self[40];
        int r;

        if (is_taken(p, path))
                return 0;
        if (!name)
                skip(p, path, "its name is too long");
        else if (size > NODE_FILES_FILE_MAX)
                skip(p, path, "it is larger than 64 MiB");
        else if (p->n_taken >= NODE_FILES_MAX)
                skip(p, path, "there are more than 2000 files");
        else if (size > NODE_FILES_BYTES_MAX - p->bytes)
                skip(p, path, "all together are more than 256 MiB");
        else if (is_made_up(fd))
                skip(p, path, "it is no file of the node's, the kernel makes it up");
        else {
                (void) snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
                file = open(self, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
                if (file < 0) {
                        skip(p, path, "it cannot be opened");
                        return 0;
                }
                r = pax_file(&p->archive, name, size, st->st_mtime, err);
                if (r >= 0)
                        r = write_content(p, file, size, err);
                if (r < 0)
                        return r;
                p->bytes += size;
                r = tb_strv_append(&p->taken, path, err);
                p->n_taken++;
                return r;
        }
        return 0;
}

static int by_name(const void *a, const void *b)
{
        return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Names in a directory that match (NULL: all), sorted. `fd` is consumed. */
static int list(Pack *p, int fd, const char *pattern, char ***ret, TbError **err)
{
        _cleanup_closedir_ DIR *d = fdopendir(fd);
        _cleanup_strv_ char **names = NULL;
        const struct dirent *e;
        size_t n = 0, room = 0;

        if (!d) {
                (void) close(fd);
                return tb_error_oom(err);
        }
        while ((e = readdir(d)) && p->entries < NODE_FILES_ENTRIES_MAX) {
                p->entries++;
                if (tb_streq(e->d_name, ".") || tb_streq(e->d_name, "..") ||
                        (pattern && fnmatch(pattern, e->d_name, FNM_PERIOD) != 0))
                        continue;
                if (n + 1 >= room) {
                        char **grown = reallocarray(names, room = 2 * room + 16, sizeof(*names));

                        if (!grown)
                                return tb_error_oom(err);
                        names = grown;
                }
                names[n] = strdup(e->d_name);
                names[n + 1] = NULL;
                if (!names[n++])
                        return tb_error_oom(err);
        }
        if (n > 0)
                qsort(names, n, sizeof(*names), by_name);
        *ret = TAKE_PTR(names);
        return 0;
}

static int open_in_root(const Pack *p, const char *path, uint64_t flags)
{
        const struct open_how how = {
                .flags = flags | O_CLOEXEC,
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        };
        long fd = syscall(SYS_openat2, p->root, *path ? path : ".", &how, sizeof(how));

        return fd < 0 ? -errno : (int) fd;
}

static int take_below(Pack *p, int directory, const char *path, unsigned depth, TbError **err);

/* Something that a pattern names, or that lies below it. `fd`: O_PATH, borrowed. */
static int take(Pack *p, int fd, const char *path, unsigned depth, TbError **err)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return 0;
        if (S_ISREG(st.st_mode))
                return take_file(p, fd, &st, path, err);
        if (S_ISDIR(st.st_mode))
                return take_below(p, fd, path, depth, err);
        if (depth == 0)
                skip(p, path, "it is neither a file nor a directory");
        return 0;
}

static int take_below(Pack *p, int directory, const char *path, unsigned depth, TbError **err)
{
        _cleanup_strv_ char **names = NULL;
        int fd, r;

        if (depth >= NODE_FILES_DEPTH_MAX || is_made_up(directory)) {
                skip(p, path,
                        depth >= NODE_FILES_DEPTH_MAX
                                ? "it lies too deep"
                                : "it is no directory of the node's, the kernel makes it up");
                return 0;
        }
        fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
                skip(p, path, "it cannot be opened");
                return 0;
        }
        r = list(p, fd, NULL, &names, err);
        for (char **n = names; r >= 0 && n && *n; n++) {
                _cleanup_free_ char *below = tb_asprintf("%s%s%s", path, *path ? "/" : "", *n);
                /* Neither up nor through a link; what is mounted there is the node's, too. */
                const struct open_how how = {
                        .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
                };
                _cleanup_close_ int child = (int) syscall(SYS_openat2, directory, *n, &how, sizeof(how));

                if (!below)
                        r = tb_error_oom(err);
                else if (child >= 0)
                        r = take(p, child, below, depth + 1, err);
        }
        return r;
}

/* `rest`: the components behind `path`, without leading '/'. */
static int expand(Pack *p, const char *path, const char *rest, TbError **err)
{
        size_t n = strcspn(rest, "/");
        _cleanup_free_ char *component = strndup(rest, n);
        const char *next = rest + n + strspn(rest + n, "/");
        _cleanup_strv_ char **names = NULL;
        _cleanup_close_ int fd = -EBADF;
        int r = 0;

        if (!component)
                return tb_error_oom(err);
        if (n == 0) { /* all of it is said */
                fd = open_in_root(p, path, O_PATH);
                if (fd < 0)
                        return 0;
                p->matched = true;
                return take(p, fd, path, 0, err);
        }
        if (strpbrk(component, "*?[\\")) {
                fd = open_in_root(p, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
                if (fd < 0)
                        return 0;
                r = list(p, TAKE_FD(fd), component, &names, err);
        } else
                r = tb_strv_append(&names, component, err);
        for (char **name = names; r >= 0 && name && *name; name++) {
                _cleanup_free_ char *below = tb_asprintf("%s%s%s", path, *path ? "/" : "", *name);

                r = below ? expand(p, below, next, err) : tb_error_oom(err);
        }
        return r;
}

static int write_report(Pack *p, TbError **err)
{
        _cleanup_json_ json_t *j =
                json_pack("{s:I, s:I, s:I, s:O}", "files", (json_int_t) p->n_taken, "bytes",
                        (json_int_t) p->bytes, "left_out", (json_int_t) p->n_skipped, "skipped", p->skipped);
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        r = j ? tb_json_dump(j, false, &text, &size, err) : tb_error_oom(err);
        if (r >= 0)
                r = pax_file(&p->archive, NODE_FILES_REPORT, size, 0, err);
        return r < 0 ? r : pax_data(&p->archive, text, size, err);
}

static int pack(Pack *p, const json_t *patterns, TbError **err)
{
        const json_t *j;
        size_t i;
        int r = 0;

        json_array_foreach (patterns, i, j) {
                const char *pattern = json_string_value(j);

                p->matched = false;
                r = expand(p, "", pattern + strspn(pattern, "/"), err);
                if (r < 0)
                        return r;
                if (!p->matched)
                        skip(p, pattern + strspn(pattern, "/"), NODE_FILES_NOTHING);
        }
        if (p->entries >= NODE_FILES_ENTRIES_MAX)
                skip(p, "", "more than 100000 names were looked at");
        r = write_report(p, err);
        return r < 0 ? r : pax_end(&p->archive, err);
}

int node_files_pack(int root, const json_t *patterns, int out, TbError **err)
{
        Pack p = {.root = root, .archive = {.fd = out}, .skipped = json_array()};
        int r;

        r = p.skipped ? pack(&p, patterns, err) : tb_error_oom(err);
        json_decref(p.skipped);
        tb_strv_free(p.taken);
        return r;
}

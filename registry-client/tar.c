/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The tar format, as far as image archives need it
 *
 * Archives are untrusted, and what is wanted of them is the place of a few files, so all headers are read once into a
 * table, without reading (or trusting) any content. POSIX ustar, pax (path, linkpath, size) and GNU's long names are
 * understood; archives with extensions that change where data lies (sparse files) are refused.
 *
 * Names are compared in a normal form: no "./", no doubled or trailing slashes. Absolute names and names with ".." have no
 * such form; nobody can ask for them. Two files of one name are refused when that name is wanted: tools differ in which one
 * counts, and an archive that means different images to different readers means no good.
 *
 * Sources: POSIX.1-2017 pax(1) "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
 */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/store.h"

#define BLOCK REGISTRY_TAR_BLOCK
#define NAME_BYTES_MAX 4096U /* PATH_MAX */
#define PAX_BYTES_MAX (64U * 1024)
#define TABLE_BYTES_MAX (16U * 1024 * 1024)
#define LINKS_MAX 8U

typedef struct TarEntry {
        char *name; /* normal form */
        char *link; /* as it stands; NULL = no link */
        char type;  /* '0', '1' hard link, '2' symbolic link, '5' directory, else something else */
        uint64_t offset, size;
} TarEntry;

struct RegistryTar {
        int fd;
        uint64_t size;
        TarEntry *entries;
        size_t n_entries, allocated, table_bytes;
};

/* What the extension headers said about the next entry. */
typedef struct TarNext {
        char *name, *link;
        bool have_size;
        uint64_t size;
} TarNext;

static void next_done(TarNext *n)
{
        free(n->name);
        free(n->link);
        *n = (TarNext){0};
}

RegistryTar *registry_tar_free(RegistryTar *t)
{
        if (!t)
                return NULL;
        for (size_t i = 0; i < t->n_entries; i++) {
                free(t->entries[i].name);
                free(t->entries[i].link);
        }
        free(t->entries);
        free(t);
        return NULL;
}

/* ---- fields ---- */

static int bad(TbError **err, const char *why)
{
        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG, "not a proper tar file: %s", why);
}

/* Octal with spaces and NULs around, or GNU's base-256 (first bit set). */
static bool parse_number(const unsigned char *p, size_t n, uint64_t *ret)
{
        uint64_t v = 0;
        size_t i = 0;

        if (p[0] & 0x80) {
                v = p[0] & 0x3f;
                if (p[0] & 0x40)
                        return false; /* negative */
                for (i = 1; i < n; i++) {
                        if (v >> 55)
                                return false;
                        v = v << 8 | p[i];
                }
                *ret = v;
                return true;
        }
        while (i < n && p[i] == ' ')
                i++;
        for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
                if (v >> 60)
                        return false;
                v = v << 3 | (uint64_t) (p[i] - '0');
        }
        for (; i < n; i++)
                if (p[i] != ' ' && p[i] != 0)
                        return false;
        *ret = v;
        return true;
}

static bool checksum_is_right(const unsigned char *b)
{
        uint64_t wanted, sum = 0;

        if (!parse_number(b + 148, 8, &wanted))
                return false;
        for (size_t i = 0; i < BLOCK; i++)
                sum += i >= 148 && i < 156 ? ' ' : b[i];
        return sum == wanted;
}

/* The normal form of dir + "/" + name (dir may be NULL); NULL = it has none. *oom tells why not. */
static char *normalize(const char *dir, const char *name, bool allow_up, bool *oom)
{
        size_t room = (dir ? strlen(dir) + 1 : 0) + strlen(name) + 1, n = 0;
        char *out = malloc(room);

        *oom = !out;
        if (!out)
                return NULL;
        for (int part = 0; part < 2; part++) {
                const char *p = part == 0 ? dir : name;

                while (p && *p) {
                        size_t k = strcspn(p, "/");

                        if (k == 2 && p[0] == '.' && p[1] == '.') {
                                if (!allow_up || n == 0) {
                                        free(out);
                                        return NULL;
                                }
                                while (n > 0 && out[--n] != '/')
                                        ;
                        } else if (k > 0 && !(k == 1 && p[0] == '.')) {
                                if (n > 0)
                                        out[n++] = '/';
                                memcpy(out + n, p, k);
                                n += k;
                        }
                        p += k + (p[k] == '/');
                }
        }
        out[n] = 0;
        return out;
}

static int read_at(const RegistryTar *t, void *buf, size_t size, uint64_t offset, TbError **err)
{
        char *p = buf;

        if (offset > t->size || size > t->size - offset)
                return bad(err, "it is truncated");
        while (size > 0) {
                ssize_t n = pread(t->fd, p, size, (off_t) offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, n < 0 ? -errno : -EIO, "cannot read the archive");
                p += n;
                offset += (uint64_t) n;
                size -= (size_t) n;
        }
        return 0;
}

/* ---- extension headers ---- */

static int read_text(const RegistryTar *t, uint64_t offset, uint64_t size, size_t max, char **ret,
        size_t *ret_size, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        int r;

        if (size > max)
                return bad(err, "a name is too long");
        text = malloc((size_t) size + 1);
        if (!text)
                return tb_error_oom(err);
        r = read_at(t, text, (size_t) size, offset, err);
        if (r < 0)
                return r;
        text[size] = 0;
        *ret = TAKE_PTR(text);
        *ret_size = (size_t) size;
        return 0;
}

static int replace(char **field, const char *value, size_t n, TbError **err)
{
        char *copy;

        if (n > NAME_BYTES_MAX || memchr(value, 0, n))
                return bad(err, "a name is too long or has a NUL in it");
        copy = strndup(value, n);
        if (!copy)
                return tb_error_oom(err);
        free(*field);
        *field = copy;
        return 0;
}

static int take_pax_record(
        const char *key, size_t key_n, const char *value, size_t n, TarNext *next, TbError **err)
{
        char digits[24];

        if (key_n == 4 && memcmp(key, "path", 4) == 0)
                return replace(&next->name, value, n, err);
        if (key_n == 8 && memcmp(key, "linkpath", 8) == 0)
                return replace(&next->link, value, n, err);
        if (key_n >= 10 && memcmp(key, "GNU.sparse", 10) == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP, "the archive has sparse files");
        if (key_n != 4 || memcmp(key, "size", 4) != 0)
                return 0;
        if (n == 0 || n >= sizeof(digits))
                return bad(err, "bad pax size");
        memcpy(digits, value, n);
        digits[n] = 0;
        if (tb_parse_u64(digits, 0, INT64_MAX, &next->size, NULL) < 0)
                return bad(err, "bad pax size");
        next->have_size = true;
        return 0;
}

/* "LENGTH KEY=VALUE\n", LENGTH counts all of it. */
static int parse_pax(const char *p, size_t size, TarNext *next, TbError **err)
{
        while (size > 0) {
                size_t length = 0, i = 0;
                const char *equals;
                int r;

                for (; i < size && i < 6 && p[i] >= '0' && p[i] <= '9'; i++)
                        length = length * 10 + (size_t) (p[i] - '0');
                if (i == 0 || i >= size || p[i] != ' ' || length > size || length < i + 3 ||
                        p[length - 1] != '\n')
                        return bad(err, "broken pax header");
                equals = memchr(p + i + 1, '=', length - i - 2);
                if (!equals)
                        return bad(err, "broken pax header");
                r = take_pax_record(p + i + 1, (size_t) (equals - p) - i - 1, equals + 1,
                        length - 1 - (size_t) (equals + 1 - p), next, err);
                if (r < 0)
                        return r;
                p += length;
                size -= length;
        }
        return 0;
}

/* 1 = it was an extension header, 0 = it is an entry of its own. */
static int take_extension(
        const RegistryTar *t, char type, uint64_t offset, uint64_t size, TarNext *next, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        size_t n = 0;
        int r;

        switch (type) {
        case 'x':
                r = read_text(t, offset, size, PAX_BYTES_MAX, &text, &n, err);
                if (r >= 0)
                        r = parse_pax(text, n, next, err);
                return r < 0 ? r : 1;
        case 'L':
        case 'K':
                r = read_text(t, offset, size, NAME_BYTES_MAX, &text, &n, err);
                if (r >= 0)
                        r = replace(type == 'L' ? &next->name : &next->link, text, strnlen(text, n), err);
                return r < 0 ? r : 1;
        case 'S':
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP, "the archive has sparse files");
        case 'g': /* for all entries: comments of git archive; what counts here is never global */
                return 1;
        default:
                return 0;
        }
}

/* ---- the table ---- */

static int header_name(const unsigned char *b, const TarNext *next, char **ret, TbError **err)
{
        size_t n = strnlen((const char *) b, 100);
        bool ustar = memcmp(b + 257, "ustar\0", 6) == 0;
        size_t prefix = ustar ? strnlen((const char *) b + 345, 155) : 0;

        if (next->name)
                *ret = strdup(next->name);
        else if (prefix > 0)
                *ret = tb_asprintf("%.*s/%.*s", (int) prefix, b + 345, (int) n, b);
        else
                *ret = strndup((const char *) b, n);
        return *ret ? 0 : tb_error_oom(err);
}

static int add_entry(
        RegistryTar *t, const unsigned char *b, uint64_t offset, uint64_t size, TarNext *next, TbError **err)
{
        _cleanup_free_ char *raw = NULL, *name = NULL, *link = NULL;
        char type = b[156] == 0 || b[156] == '7' ? '0' : (char) b[156];
        bool oom;
        int r;

        r = header_name(b, next, &raw, err);
        if (r < 0)
                return r;
        name = raw[0] == '/' ? NULL : normalize(NULL, raw, false, &oom);
        if (!name) {
                if (raw[0] != '/' && oom)
                        return tb_error_oom(err);
                return 0; /* nobody can ask for it */
        }
        if (type == '1' || type == '2') {
                link = next->link ? TAKE_PTR(next->link) : strndup((const char *) b + 157, 100);
                if (!link)
                        return tb_error_oom(err);
        }
        t->table_bytes += strlen(name) + (link ? strlen(link) : 0) + sizeof(TarEntry);
        if (t->n_entries >= REGISTRY_TAR_ENTRIES_MAX || t->table_bytes > TABLE_BYTES_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "the archive has more than %u entries, or their names are too long",
                        REGISTRY_TAR_ENTRIES_MAX);
        if (t->n_entries == t->allocated) {
                size_t more = t->allocated ? t->allocated * 2 : 64;
                TarEntry *v = reallocarray(t->entries, more, sizeof(*v));

                if (!v)
                        return tb_error_oom(err);
                t->entries = v;
                t->allocated = more;
        }
        t->entries[t->n_entries++] = (TarEntry){.name = TAKE_PTR(name),
                .link = TAKE_PTR(link),
                .type = type,
                .offset = offset,
                .size = size};
        return 0;
}

static bool is_zero(const unsigned char *b)
{
        for (size_t i = 0; i < BLOCK; i++)
                if (b[i])
                        return false;
        return true;
}

static int read_headers(RegistryTar *t, TarNext *next, TbError **err)
{
        unsigned extensions = 0;
        uint64_t at = 0;

        for (;;) {
                unsigned char b[BLOCK];
                uint64_t size;
                int r;

                if (at == t->size && at > 0)
                        return 0; /* without the two zero blocks at the end: cut off there or sloppy; nothing is missing */
                r = read_at(t, b, BLOCK, at, err);
                if (r < 0)
                        return r;
                if (is_zero(b))
                        return 0;
                if (!checksum_is_right(b) || !parse_number(b + 124, 12, &size))
                        return bad(err, "broken header");
                at += BLOCK;
                if (b[156] >= '1' && b[156] <= '6')
                        size = 0; /* links, devices and directories have no data, whatever their size says */
                else if (next->have_size && b[156] != 'x' && b[156] != 'g' && b[156] != 'L' && b[156] != 'K')
                        size = next->size;
                if (size > t->size - at)
                        return bad(err, "it is truncated");
                r = take_extension(t, (char) b[156], at, size, next, err);
                if (r > 0 && ++extensions > REGISTRY_TAR_ENTRIES_MAX)
                        return bad(err, "too many extension headers");
                if (r == 0) {
                        r = add_entry(t, b, at, size, next, err);
                        next_done(next);
                }
                if (r < 0)
                        return r;
                size = (size + BLOCK - 1) / BLOCK * BLOCK;
                if (size > t->size - at)
                        return 0; /* the last file's padding is missing: its data is there */
                at += size;
        }
}

int registry_tar_open(int fd, uint64_t size, RegistryTar **ret, TbError **err)
{
        _cleanup_(registry_tar_freep) RegistryTar *t = calloc(1, sizeof(*t));
        _cleanup_(next_done) TarNext next = {0};
        int r;

        if (!t)
                return tb_error_oom(err);
        t->fd = fd;
        t->size = size;
        r = read_headers(t, &next, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(t);
        return 0;
}

/* ---- finding ---- */

static int lookup(const RegistryTar *t, const char *name, const TarEntry **ret, TbError **err)
{
        const TarEntry *found = NULL;

        for (size_t i = 0; i < t->n_entries; i++) {
                const TarEntry *e = t->entries + i;

                if (e->type == '5' || !tb_streq(e->name, name))
                        continue;
                if (found) {
                        _cleanup_free_ char *shown = tb_escape(name, 100);

                        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                                "the archive has two files \"%s\"", shown ? shown : "?");
                }
                found = e;
        }
        *ret = found;
        return found ? 1 : 0;
}

/* Where a link leads: a hard link's target counts from the top, a symbolic link's from its own directory. */
static int follow(const TarEntry *e, char **name, TbError **err)
{
        const char *slash = strrchr(e->name, '/');
        _cleanup_free_ char *dir =
                e->type == '2' && slash ? strndup(e->name, (size_t) (slash - e->name)) : NULL;
        char *next = NULL;
        bool oom = e->type == '2' && slash && !dir;

        if (!oom && e->link[0] != '/' && e->link[0])
                next = normalize(dir, e->link, true, &oom);
        if (oom)
                return tb_error_oom(err);
        if (!next) {
                _cleanup_free_ char *shown = tb_escape(e->name, 100);

                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "the archive's link \"%s\" leads out of it", shown ? shown : "?");
        }
        free(*name);
        *name = next;
        return 0;
}

int registry_tar_find(
        const RegistryTar *t, const char *name, uint64_t *ret_offset, uint64_t *ret_size, TbError **err)
{
        _cleanup_free_ char *at = NULL, *shown = tb_escape(name, 100);
        const TarEntry *e = NULL;
        bool oom = false;
        int r;

        at = name[0] == '/' ? NULL : normalize(NULL, name, false, &oom);
        if (oom)
                return tb_error_oom(err);
        for (unsigned i = 0; at && i < LINKS_MAX; i++) {
                r = lookup(t, at, &e, err);
                if (r < 0)
                        return r;
                if (r == 0)
                        break;
                if (e->type == '0') {
                        *ret_offset = e->offset;
                        *ret_size = e->size;
                        return 0;
                }
                if (!e->link)
                        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                                "\"%s\" in the archive is not a plain file", shown ? shown : "?");
                r = follow(e, &at, err);
                if (r < 0)
                        return r;
                if (i + 1 == LINKS_MAX)
                        return tb_error_set(err, TB_ERROR_REMOTE, -ELOOP,
                                "\"%s\" in the archive: too many links", shown ? shown : "?");
        }
        return tb_error_set(
                err, TB_ERROR_REMOTE, -ENOENT, "the archive has no file \"%s\"", shown ? shown : "?");
}

/* ---- writing ---- */

static void put_octal(unsigned char *p, size_t n, uint64_t v)
{
        p[n - 1] = 0;
        for (size_t i = n - 1; i > 0; i--, v >>= 3)
                p[i - 1] = (unsigned char) ('0' + (v & 7));
}

void registry_tar_header(unsigned char block[static REGISTRY_TAR_BLOCK], const char *name, uint64_t size)
{
        uint64_t sum = 0;

        memset(block, 0, BLOCK);
        memcpy(block, name, MIN2(strlen(name), (size_t) 99));
        put_octal(block + 100, 8, 0644);
        put_octal(block + 108, 8, 0);
        put_octal(block + 116, 8, 0);
        put_octal(block + 136, 12, 0);
        if (size < 1ULL << 33)
                put_octal(block + 124, 12, size);
        else { /* base-256: what GNU tar, libarchive and Go write and read */
                block[124] = 0x80;
                for (size_t i = 0; i < 8; i++)
                        block[124 + 11 - i] = (unsigned char) (size >> (8 * i));
        }
        block[156] = '0';
        memcpy(block + 257, "ustar\00000", 8);
        memset(block + 148, ' ', 8);
        for (size_t i = 0; i < BLOCK; i++)
                sum += block[i];
        put_octal(block + 148, 7, sum);
        block[155] = ' ';
}

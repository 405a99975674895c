/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "augment/tar-stream.h"
#include "common/cleanup.h"
#include "common/strv.h"

#define BLOCK 512U
#define SPECIAL_MAX (1U << 20) /* Go archive/tar/common.go: maxSpecialFileSize */

/* Fields of a header block: pax(1), "ustar Interchange Format". GNU's has another magic and no prefix. */
typedef struct Field {
        size_t offset, size;
} Field;
static const Field field_name = {0, 100}, field_mode = {100, 8}, field_size = {124, 12},
                   field_checksum = {148, 8}, field_link = {157, 100}, field_magic = {257, 8},
                   field_prefix = {345, 155};
#define OFFSET_TYPE 156

typedef enum TarState {
        TAR_HEADER,  /* collecting a block that is a header or a zero block */
        TAR_DATA,    /* data of an entry goes to the hook */
        TAR_SPECIAL, /* data of an extended header is collected */
        TAR_SKIP,    /* data that nobody wants, or padding */
        TAR_ENDED,   /* zero blocks came; the rest is ignored */
        TAR_FAILED,
} TarState;

struct TarStream {
        TarStreamHooks hooks;
        TarState state;
        unsigned char block[BLOCK];
        size_t n_block;
        uint64_t left;    /* bytes of TAR_DATA, TAR_SPECIAL or TAR_SKIP */
        uint64_t padding; /* to the next block, after `left` */
        bool zero_block;  /* the block before was all zeros */
        uint64_t offset;  /* of the stream, for messages */

        char special_type; /* 'x', 'L', 'K' */
        char *special;     /* collected so far */
        size_t n_special;

        /* For the next entry; NULL = not given. */
        char *pax_path, *pax_link, *gnu_path, *gnu_link;
        bool has_pax_size;
        uint64_t pax_size;
};

int tar_stream_new(const TarStreamHooks *hooks, TarStream **ret, TbError **err)
{
        TarStream *t = calloc(1, sizeof(*t));

        if (!t)
                return tb_error_oom(err);
        t->hooks = *hooks;
        *ret = t;
        return 0;
}

static void forget_extensions(TarStream *t)
{
        char **all[] = {&t->pax_path, &t->pax_link, &t->gnu_path, &t->gnu_link, &t->special};

        for (size_t i = 0; i < ELEMENTSOF(all); i++) {
                free(*all[i]);
                *all[i] = NULL;
        }
        t->n_special = 0;
        t->has_pax_size = false;
}

TarStream *tar_stream_free(TarStream *t)
{
        if (!t)
                return NULL;
        forget_extensions(t);
        free(t);
        return NULL;
}

static int broken(const TarStream *t, TbError **err, const char *why)
{
        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG, "the tar archive is broken at byte %llu: %s",
                (unsigned long long) t->offset, why);
}

/* Go archive/tar/strconv.go parseNumeric(): base-256 with the high bit set (negative values make no sense here), else
 * octal digits among spaces and NULs. */
static int parse_number(const unsigned char *p, size_t size, uint64_t *ret)
{
        uint64_t v = 0;
        size_t i = 0;

        if (size > 0 && (p[0] & 0x80)) {
                if (p[0] & 0x40)
                        return -ERANGE;
                for (i = 0; i < size; i++) {
                        unsigned char c = i == 0 ? p[0] & 0x3f : p[i];

                        if (v >> 55)
                                return -ERANGE;
                        v = v << 8 | c;
                }
                *ret = v;
                return 0;
        }
        while (i < size && (p[i] == ' ' || p[i] == 0))
                i++;
        for (; i < size && p[i] != 0 && p[i] != ' '; i++) {
                if (p[i] < '0' || p[i] > '7' || v >> 60)
                        return -EINVAL;
                v = v << 3 | (uint64_t) (p[i] - '0');
        }
        /* Behind a space only fill characters may follow; a NUL ends the field. */
        for (; i < size && p[i] != 0; i++)
                if (p[i] != ' ')
                        return -EINVAL;
        *ret = v;
        return 0;
}

static int field_number(const TarStream *t, Field f, uint64_t *ret)
{
        return parse_number(t->block + f.offset, f.size, ret);
}

/* Up to the first NUL; at most `max` - 1 characters. */
static size_t field_text(const TarStream *t, Field f, char *out)
{
        size_t n = strnlen((const char *) t->block + f.offset, f.size);

        memcpy(out, t->block + f.offset, n);
        out[n] = 0;
        return n;
}

static bool is_zero_block(const unsigned char *b)
{
        for (size_t i = 0; i < BLOCK; i++)
                if (b[i] != 0)
                        return false;
        return true;
}

static bool checksum_matches(const TarStream *t)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
        return true; /* a fuzzer can't compute it */
#endif
        uint64_t expected, unsigned_sum = 0;
        int64_t signed_sum = 0;

        if (field_number(t, field_checksum, &expected) < 0)
                return false;
        for (size_t i = 0; i < BLOCK; i++) {
                unsigned char c = t->block[i];

                if (i >= field_checksum.offset && i < field_checksum.offset + field_checksum.size)
                        c = ' ';
                unsigned_sum += c;
                signed_sum += (signed char) c;
        }
        return expected == unsigned_sum || (signed_sum >= 0 && expected == (uint64_t) signed_sum);
}

/* ---- Extended headers ---- */

static int take_path(TarStream *t, char **target, const char *value, size_t size, TbError **err)
{
        char *copy;

        if (memchr(value, 0, size))
                return broken(t, err, "a path in an extended header has a NUL");
        /* pax(1): an empty value takes an earlier record back. */
        if (size == 0) {
                free(*target);
                *target = NULL;
                return 0;
        }
        copy = strndup(value, size);
        if (!copy)
                return tb_error_oom(err);
        free(*target);
        *target = copy;
        return 0;
}

static int take_pax_record(
        TarStream *t, const char *key, size_t key_size, const char *value, size_t value_size, TbError **err)
{
#define IS(k) (key_size == strlen(k) && memcmp(key, k, key_size) == 0)
        if (IS("path"))
                return take_path(t, &t->pax_path, value, value_size, err);
        if (IS("linkpath"))
                return take_path(t, &t->pax_link, value, value_size, err);
        if (IS("size")) {
                uint64_t v = 0;

                for (size_t i = 0; i < value_size; i++) {
                        if (value[i] < '0' || value[i] > '9' || v > (uint64_t) INT64_MAX / 10 - 1)
                                return broken(t, err, "the size in an extended header is no number");
                        v = v * 10 + (uint64_t) (value[i] - '0');
                }
                t->has_pax_size = value_size > 0;
                t->pax_size = v;
                return 0;
        }
        if (key_size > strlen("GNU.sparse.") && memcmp(key, "GNU.sparse.", strlen("GNU.sparse.")) == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "the tar archive has a sparse file, which image layers must not have");
        return 0;
#undef IS
}

/* "%d %s=%s\n": length of the whole record, key, value. pax(1), "pax Extended Header". */
static int parse_pax(TarStream *t, TbError **err)
{
        const char *p = t->special, *end = t->special + t->n_special;

        while (p < end) {
                const char *space, *equals, *next;
                size_t size = 0;
                int r;

                for (space = p; space < end && *space >= '0' && *space <= '9' && size < SPECIAL_MAX; space++)
                        size = size * 10 + (size_t) (*space - '0');
                if (space == p || space >= end || *space != ' ' || size > (size_t) (end - p) ||
                        size < (size_t) (space - p) + 3)
                        return broken(t, err, "an extended header has a record of the wrong length");
                next = p + size;
                equals = memchr(space + 1, '=', (size_t) (next - space - 1));
                if (!equals || equals == space + 1 || next[-1] != '\n' || equals >= next - 1)
                        return broken(t, err, "an extended header has a record without key or end");
                r = take_pax_record(t, space + 1, (size_t) (equals - space - 1), equals + 1,
                        (size_t) (next - 1 - equals - 1), err);
                if (r < 0)
                        return r;
                p = next;
        }
        return 0;
}

static int end_special(TarStream *t, TbError **err)
{
        int r = 0;

        switch (t->special_type) {
        case 'x':
                r = parse_pax(t, err);
                break;
        case 'L':
        case 'K':
                /* GNU writes the terminating NUL, too. */
                r = take_path(t, t->special_type == 'L' ? &t->gnu_path : &t->gnu_link, t->special,
                        strnlen(t->special, t->n_special), err);
                break;
        default: /* 'g' */
                break;
        }
        free(t->special);
        t->special = NULL;
        t->n_special = 0;
        return r;
}

static int begin_special(TarStream *t, char type, uint64_t size, TbError **err)
{
        if (size > SPECIAL_MAX)
                return broken(t, err, "an extended header is larger than 1 MiB");
        free(t->special);
        t->special = malloc((size_t) size + 1);
        if (!t->special)
                return tb_error_oom(err);
        t->special[0] = 0;
        t->n_special = 0;
        t->special_type = type;
        t->state = TAR_SPECIAL;
        t->left = size;
        return size == 0 ? end_special(t, err) : 0;
}

/* ---- Entries ---- */

static int entry_type(const TarStream *t, char flag, const char *path, TarType *ret, TbError **err)
{
        switch (flag) {
        case 0:
                *ret = path[0] && path[strlen(path) - 1] == '/' ? TAR_DIRECTORY : TAR_FILE;
                return 0;
        case '0':
        case '7': /* contiguous: a regular file, says POSIX */
                *ret = TAR_FILE;
                return 0;
        case '1':
                *ret = TAR_HARDLINK;
                return 0;
        case '2':
                *ret = TAR_SYMLINK;
                return 0;
        case '3':
                *ret = TAR_CHARACTER_DEVICE;
                return 0;
        case '4':
                *ret = TAR_BLOCK_DEVICE;
                return 0;
        case '5':
                *ret = TAR_DIRECTORY;
                return 0;
        case '6':
                *ret = TAR_FIFO;
                return 0;
        case 'S':
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "the tar archive has a sparse file, which image layers must not have");
        default:
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "the tar archive has an entry of unknown type 0x%02x at byte %llu",
                        (unsigned) (unsigned char) flag, (unsigned long long) t->offset);
        }
}

/* prefix "/" name, where the header is POSIX's or star's, whose prefix is shorter. Go archive/tar/format.go getFormat(). */
static int header_path(const TarStream *t, char out[static 100 + 155 + 2], TbError **err)
{
        static const char posix[8] = {'u', 's', 't', 'a', 'r', 0, '0', '0'};
        static const char gnu[8] = {'u', 's', 't', 'a', 'r', ' ', ' ', 0};
        Field prefix = field_prefix;
        size_t n = 0;

        if (memcmp(t->block + field_magic.offset, posix, sizeof(posix)) == 0) {
                if (memcmp(t->block + BLOCK - 4, "tar", 4) == 0)
                        prefix.size = 131;
                n = field_text(t, prefix, out);
                if (n > 0)
                        out[n++] = '/';
        } else if (memcmp(t->block + field_magic.offset, gnu, sizeof(gnu)) == 0) {
                uint64_t time;

                /* Go takes what is no time there for a prefix, others don't. */
                if (parse_number(t->block + field_prefix.offset, 12, &time) == -EINVAL)
                        return broken(t, err, "a GNU header has no time where it should");
        }
        field_text(t, field_name, out + n);
        return 0;
}

static int begin_entry(TarStream *t, char flag, uint64_t size, TbError **err)
{
        char name[100 + 155 + 2], link[100 + 1];
        TarEntry e = {};
        uint64_t mode;
        int r;

        r = header_path(t, name, err);
        if (r < 0)
                return r;
        field_text(t, field_link, link);
        if ((t->pax_path && t->gnu_path) || (t->pax_link && t->gnu_link))
                return broken(t, err, "an entry has two long names");
        e.path = t->pax_path ?: t->gnu_path ?: name;
        e.link = t->pax_link ?: t->gnu_link ?: link;
        if (!e.path[0])
                return broken(t, err, "an entry has no name");
        r = entry_type(t, flag, e.path, &e.type, err);
        if (r < 0)
                return r;
        if (field_number(t, field_mode, &mode) < 0)
                return broken(t, err, "the mode of an entry is no number");
        e.mode = (uint32_t) mode & 07777;
        if (e.type != TAR_SYMLINK && e.type != TAR_HARDLINK)
                e.link = "";
        else if (!e.link[0])
                return broken(t, err, "a link has no target");
        if (e.type == TAR_FILE)
                e.size = t->has_pax_size ? t->pax_size : size;
        else
                e.size = 0;
        if (e.size > INT64_MAX - BLOCK)
                return broken(t, err, "an entry has an impossible size");

        r = t->hooks.entry(&e, t->hooks.userdata, err);
        if (r < 0)
                return r;
        t->left = e.size;
        t->padding = (BLOCK - e.size % BLOCK) % BLOCK;
        t->state = t->left > 0 ? TAR_DATA : TAR_HEADER;
        forget_extensions(t);
        return 0;
}

static int take_header(TarStream *t, TbError **err)
{
        uint64_t size;
        char flag = (char) t->block[OFFSET_TYPE];

        if (is_zero_block(t->block)) {
                if (t->zero_block)
                        t->state = TAR_ENDED;
                t->zero_block = true;
                return 0;
        }
        if (t->zero_block)
                return broken(t, err, "something follows a block of zeros");
        if (!checksum_matches(t))
                return broken(t, err, "a header has a wrong checksum");
        if (field_number(t, field_size, &size) < 0)
                return broken(t, err, "the size of an entry is no number");

        switch (flag) {
        case 'x':
        case 'g':
        case 'L':
        case 'K':
                if (size > SPECIAL_MAX)
                        return broken(t, err, "an extended header is larger than 1 MiB");
                t->padding = (BLOCK - size % BLOCK) % BLOCK;
                return begin_special(t, flag, size, err);
        default:
                return begin_entry(t, flag, size, err);
        }
}

/* The data of something is over: its padding, then the next header. */
static void enter_padding(TarStream *t)
{
        t->left = t->padding;
        t->padding = 0;
        t->state = t->left > 0 ? TAR_SKIP : TAR_HEADER;
}

static int take_piece(TarStream *t, const unsigned char *data, size_t size, TbError **err)
{
        int r = 0;

        if (t->state == TAR_DATA) {
                r = t->hooks.data(data, size, t->hooks.userdata, err);
        } else if (t->state == TAR_SPECIAL) {
                memcpy(t->special + t->n_special, data, size);
                t->n_special += size;
                t->special[t->n_special] = 0;
                if (size == t->left)
                        r = end_special(t, err);
        }
        t->left -= size;
        if (r >= 0 && t->left == 0)
                enter_padding(t);
        return r;
}

static int feed(TarStream *t, const unsigned char *p, size_t size, TbError **err)
{
        while (size > 0 && t->state != TAR_ENDED) {
                size_t n;
                int r;

                if (t->state == TAR_HEADER) {
                        n = BLOCK - t->n_block < size ? BLOCK - t->n_block : size;
                        memcpy(t->block + t->n_block, p, n);
                        t->n_block += n;
                        r = 0;
                        if (t->n_block == BLOCK) {
                                t->n_block = 0;
                                r = take_header(t, err);
                                if (r >= 0 && t->state == TAR_SPECIAL && t->left == 0)
                                        enter_padding(t);
                        }
                } else {
                        n = t->left < size ? (size_t) t->left : size;
                        r = take_piece(t, p, n, err);
                }
                if (r < 0)
                        return r;
                t->offset += n;
                p += n;
                size -= n;
        }
        t->offset += size;
        return 0;
}

int tar_stream_feed(TarStream *t, const void *data, size_t size, TbError **err)
{
        int r;

        if (t->state == TAR_FAILED)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "a tar stream that failed is fed");
        r = feed(t, data, size, err);
        if (r < 0)
                t->state = TAR_FAILED;
        return r;
}

int tar_stream_finish(TarStream *t, TbError **err)
{
        if (t->state == TAR_ENDED)
                return 0;
        /* An archive may end without zero blocks, but only between two entries. */
        if (t->state != TAR_HEADER || t->n_block > 0)
                return broken(t, err, "it ends too early");
        if (t->pax_path || t->pax_link || t->gnu_path || t->gnu_link || t->has_pax_size)
                return broken(t, err, "it ends after an extended header");
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/pax.h"

#include <stdio.h>
#include <string.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/file.h"

#define BLOCK 512U
#define NAME_MAX_USTAR 100U
#define OCTAL_MAX UINT64_C(077777777777) /* eleven digits */

/* "ustar interchange format"; numbers are octal digits and a NUL. */
typedef struct Header {
        char name[100];
        char mode[8], uid[8], gid[8];
        char size[12], mtime[12];
        char checksum[8];
        char type;
        char linkname[100];
        char magic[6], version[2];
        char user[32], group[32];
        char major[8], minor[8];
        char prefix[155];
        char unused[12];
} Header;

_Static_assert(sizeof(Header) == BLOCK, "a tar header is one block");

static const char zeros[2 * BLOCK];

static unsigned padding(uint64_t size)
{
        return (unsigned) ((BLOCK - size % BLOCK) % BLOCK);
}

static void octal(char *field, size_t size, uint64_t value)
{
        field[--size] = 0;
        while (size > 0) {
                field[--size] = (char) ('0' + (value & 7));
                value >>= 3;
        }
}

static int write_header(
        PaxWriter *w, char type, const char *name, uint64_t size, uint64_t mtime, TbError **err)
{
        Header h = {.type = type, .magic = "ustar", .version = {'0', '0'}};
        const unsigned char *bytes = (const unsigned char *) &h;
        unsigned sum = 0;

        memcpy(h.name, name, strnlen(name, sizeof(h.name)));
        octal(h.mode, sizeof(h.mode), 0644);
        octal(h.uid, sizeof(h.uid), 0);
        octal(h.gid, sizeof(h.gid), 0);
        octal(h.size, sizeof(h.size), size);
        octal(h.mtime, sizeof(h.mtime), mtime);
        octal(h.major, sizeof(h.major), 0);
        octal(h.minor, sizeof(h.minor), 0);
        memset(h.checksum, ' ', sizeof(h.checksum)); /* as which it counts in itself */
        for (size_t i = 0; i < sizeof(h); i++)
                sum += bytes[i];
        octal(h.checksum, sizeof(h.checksum) - 1, sum);
        return tb_write_all(w->fd, &h, sizeof(h), err);
}

/* "LENGTH KEY=VALUE\n", where LENGTH counts its own digits. */
static int record(TbBuffer *b, const char *key, const char *value, TbError **err)
{
        size_t rest = strlen(key) + strlen(value) + 3, length = rest;

        for (size_t before = 0; before != length;) {
                before = length;
                length = rest + (size_t) snprintf(NULL, 0, "%zu", before);
        }
        return tb_buffer_printf(b, err, "%zu %s=%s\n", length, key, value);
}

static int write_extended(PaxWriter *w, const char *name, const char *mtime, TbError **err)
{
        _cleanup_buffer_ TbBuffer b = {};
        int r = 0;

        if (name)
                r = record(&b, "path", name, err);
        if (r >= 0 && mtime)
                r = record(&b, "mtime", mtime, err);
        if (r >= 0)
                r = write_header(w, 'x', "PaxHeader", b.size, 0, err);
        if (r >= 0)
                r = tb_write_all(w->fd, b.data, b.size, err);
        return r < 0 ? r : tb_write_all(w->fd, zeros, padding(b.size), err);
}

int pax_file(PaxWriter *w, const char *name, uint64_t size, int64_t mtime, TbError **err)
{
        bool fits = mtime >= 0 && (uint64_t) mtime <= OCTAL_MAX, is_long = strlen(name) > NAME_MAX_USTAR;
        char when[24];
        int r = 0;

        if (w->left > 0)
                return tb_error_set(err, TB_ERROR_BUG, -EBUSY,
                        "the file before lacks %llu bytes of its content", (unsigned long long) w->left);
        if (size > OCTAL_MAX)
                return tb_error_set(err, TB_ERROR_BUG, -EFBIG, "a file is too large for the archive");
        if (w->pad > 0)
                r = tb_write_all(w->fd, zeros, w->pad, err);
        w->pad = 0;
        (void) snprintf(when, sizeof(when), "%lld", (long long) mtime);
        if (r >= 0 && (is_long || !fits))
                r = write_extended(w, is_long ? name : NULL, fits ? NULL : when, err);
        if (r >= 0)
                r = write_header(w, '0', name, size, fits ? (uint64_t) mtime : 0, err);
        if (r < 0)
                return r;
        w->left = size;
        w->pad = padding(size);
        return 0;
}

int pax_data(PaxWriter *w, const void *data, size_t size, TbError **err)
{
        if (size > w->left)
                return tb_error_set(
                        err, TB_ERROR_BUG, -EOVERFLOW, "a file of the archive is larger than announced");
        w->left -= size;
        return tb_write_all(w->fd, data, size, err);
}

int pax_end(PaxWriter *w, TbError **err)
{
        int r;

        if (w->left > 0)
                return tb_error_set(err, TB_ERROR_BUG, -EBUSY, "the archive's last file is not complete");
        r = tb_write_all(w->fd, zeros, w->pad, err);
        w->pad = 0;
        return r < 0 ? r : tb_write_all(w->fd, zeros, sizeof(zeros), err);
}

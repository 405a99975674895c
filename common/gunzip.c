/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/gunzip.h"

/* RFC 1952 section 2.3: ID1 ID2 CM FLG MTIME(4) XFL OS. */
#define HEADER_SIZE 10U
#define TRAILER_SIZE 8U /* CRC32, ISIZE */
#define FLAG_HCRC 0x02U
#define FLAG_EXTRA 0x04U
#define FLAG_NAME 0x08U
#define FLAG_COMMENT 0x10U
#define FLAGS_RESERVED 0xe0U

typedef enum GunzipState {
        GUNZIP_HEADER, /* with n_field = 0: between members */
        GUNZIP_EXTRA_SIZE,
        GUNZIP_EXTRA,
        GUNZIP_NAME,
        GUNZIP_COMMENT,
        GUNZIP_HEADER_CRC,
        GUNZIP_BODY,
        GUNZIP_TRAILER,
} GunzipState;

struct TbGunzip {
        GunzipState state;
        unsigned char field[HEADER_SIZE]; /* of fixed size, being gathered */
        size_t n_field;
        unsigned flags;
        size_t extra; /* bytes still to come */
        uint32_t header_crc, crc, size;
        struct inflate_state inflate;
};

static int broken(const char *why, TbError **err)
{
        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG, "the gzip data is broken: %s", why);
}

int tb_gunzip_new(TbGunzip **ret, TbError **err)
{
        TbGunzip *g = calloc(1, sizeof(*g));

        if (!g)
                return tb_error_oom(err);
        *ret = g;
        return 0;
}

/* ---- Header and trailer ---- */

static uint32_t little_endian(const unsigned char *p, size_t n)
{
        uint32_t v = 0;

        while (n-- > 0)
                v = v << 8 | p[n];
        return v;
}

/* Gathers a field of fixed size; false: the input ends before it. */
static bool take_field(TbGunzip *g, size_t want, const unsigned char **data, size_t *size)
{
        size_t n = want - g->n_field < *size ? want - g->n_field : *size;

        memcpy(g->field + g->n_field, *data, n);
        g->n_field += n;
        *data += n;
        *size -= n;
        if (g->n_field < want)
                return false;
        g->n_field = 0;
        return true;
}

static void skip(TbGunzip *g, size_t n, const unsigned char **data, size_t *size)
{
        g->header_crc = crc32_gzip_refl(g->header_crc, *data, n);
        *data += n;
        *size -= n;
}

/* Moves behind the terminating NUL; false: it has not come yet. */
static bool skip_string(TbGunzip *g, const unsigned char **data, size_t *size)
{
        const unsigned char *end = memchr(*data, 0, *size);

        skip(g, end ? (size_t) (end - *data) + 1 : *size, data, size);
        return end;
}

static int check_header(TbGunzip *g, TbError **err)
{
        if (g->field[0] != 0x1f || g->field[1] != 0x8b)
                return broken("something follows that is no member", err);
        if (g->field[2] != 8)
                return broken("its method of compression is unknown", err);
        if (g->field[3] & FLAGS_RESERVED)
                return broken("its header has unknown flags", err);
        g->flags = g->field[3];
        g->header_crc = crc32_gzip_refl(0, g->field, HEADER_SIZE);
        return 0;
}

static void begin_body(TbGunzip *g)
{
        g->state = GUNZIP_BODY;
        g->crc = g->size = 0;
        isal_inflate_init(&g->inflate); /* raw deflate */
}

static int check_trailer(TbGunzip *g, TbError **err)
{
        if (little_endian(g->field, 4) != g->crc)
                return broken("its checksum is wrong", err);
        if (little_endian(g->field + 4, 4) != g->size)
                return broken("its length is wrong", err);
        g->state = GUNZIP_HEADER;
        return 0;
}

/* The next part of the wrapper: 1 = it is complete, 0 = the input has ended. */
static int wrapper_step(TbGunzip *g, const unsigned char **data, size_t *size, TbError **err)
{
        int r = 0;

        switch (g->state) {
        case GUNZIP_HEADER:
                if (!take_field(g, HEADER_SIZE, data, size))
                        return 0;
                r = check_header(g, err);
                g->state = GUNZIP_EXTRA_SIZE;
                break;
        case GUNZIP_EXTRA_SIZE:
                if (g->flags & FLAG_EXTRA) {
                        if (!take_field(g, 2, data, size))
                                return 0;
                        g->extra = little_endian(g->field, 2);
                        g->header_crc = crc32_gzip_refl(g->header_crc, g->field, 2);
                }
                g->state = GUNZIP_EXTRA;
                break;
        case GUNZIP_EXTRA: {
                size_t n = g->extra < *size ? g->extra : *size;

                g->extra -= n;
                skip(g, n, data, size);
                if (g->extra > 0)
                        return 0;
                g->state = GUNZIP_NAME;
                break;
        }
        case GUNZIP_NAME:
                if ((g->flags & FLAG_NAME) && !skip_string(g, data, size))
                        return 0;
                g->state = GUNZIP_COMMENT;
                break;
        case GUNZIP_COMMENT:
                if ((g->flags & FLAG_COMMENT) && !skip_string(g, data, size))
                        return 0;
                g->state = GUNZIP_HEADER_CRC;
                break;
        case GUNZIP_HEADER_CRC:
                if (g->flags & FLAG_HCRC) {
                        if (!take_field(g, 2, data, size))
                                return 0;
                        if (little_endian(g->field, 2) != (g->header_crc & 0xffff))
                                return broken("its header has a wrong checksum", err);
                }
                begin_body(g);
                break;
        case GUNZIP_TRAILER:
                if (!take_field(g, TRAILER_SIZE, data, size))
                        return 0;
                r = check_trailer(g, err);
                break;
        case GUNZIP_BODY:
                break;
        }
        return r < 0 ? r : 1;
}

/* ---- Body ---- */

static const char *why_broken(int code)
{
        switch (code) {
        case ISAL_INVALID_BLOCK:
                return "it has an invalid block";
        case ISAL_INVALID_SYMBOL:
                return "it has an invalid code";
        case ISAL_INVALID_LOOKBACK:
                return "it refers to what is before its beginning";
        default:
                return "it can't be unpacked";
        }
}

/* The bytes behind the deflate data that ISA-L has read ahead, at most 8 and so never more than the trailer. */
static void take_back(TbGunzip *g)
{
        unsigned bits = g->inflate.read_in_length > 0 ? (unsigned) g->inflate.read_in_length : 0;
        uint64_t ahead = g->inflate.read_in >> bits % 8;

        for (g->n_field = 0; g->n_field < bits / 8 && g->n_field < TRAILER_SIZE; g->n_field++, ahead >>= 8)
                g->field[g->n_field] = (unsigned char) ahead;
}

/* 1 = more can be done, 0 = it waits for input or for room. */
static int body_step(TbGunzip *g, const unsigned char **data, size_t *size, unsigned char *out,
        size_t out_size, size_t *ret_size, TbError **err)
{
        uint32_t in = *size < UINT32_MAX / 2 ? (uint32_t) *size : UINT32_MAX / 2;
        uint32_t room = out_size < UINT32_MAX / 2 ? (uint32_t) out_size : UINT32_MAX / 2;
        size_t used, written;
        int r;

        g->inflate.next_in = (uint8_t *) *data;
        g->inflate.avail_in = in;
        g->inflate.next_out = out;
        g->inflate.avail_out = room;
        r = isal_inflate(&g->inflate);
        if (r < 0 || r == ISAL_NEED_DICT)
                return broken(why_broken(r), err);
        used = in - g->inflate.avail_in;
        written = room - g->inflate.avail_out;
        *data += used;
        *size -= used;
        g->crc = crc32_gzip_refl(g->crc, out, written);
        g->size += (uint32_t) written;
        *ret_size = written;
        if (g->inflate.block_state == ISAL_BLOCK_FINISH) {
                take_back(g);
                g->state = GUNZIP_TRAILER;
                return 1;
        }
        if (used == 0 && written == 0 && in > 0)
                return broken(why_broken(0), err); /* else it would be asked for ever */
        return used > 0 || written > 0;
}

int tb_gunzip_step(TbGunzip *g, const unsigned char **data, size_t *size, unsigned char *out,
        size_t out_size, size_t *ret_size, TbError **err)
{
        size_t total = 0;

        for (;;) {
                size_t n = 0;
                int r;

                if (g->state == GUNZIP_BODY) {
                        if (total == out_size)
                                break;
                        r = body_step(g, data, size, out + total, out_size - total, &n, err);
                } else {
                        r = wrapper_step(g, data, size, err);
                }
                if (r < 0)
                        return r;
                total += n;
                if (r == 0)
                        break;
        }
        *ret_size = total;
        return 0;
}

bool tb_gunzip_is_inside(const TbGunzip *g)
{
        return g->state != GUNZIP_HEADER || g->n_field > 0;
}

TbGunzip *tb_gunzip_free(TbGunzip *g)
{
        free(g);
        return NULL;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/cleanup.h"
#include "common/decompress.h"
#include "common/gunzip.h"

#define OUTPUT_SIZE (128U * 1024)
#define MAGIC_SIZE 4U /* enough to tell all of them apart */
/* RFC 8878 section 3.1.1.1.2: decoders should support windows of 8 MB; what asks for more is refused. */
#define ZSTD_WINDOW_LOG 23

struct TbDecompressor {
        TbDecompressFn fn;
        void *userdata;
        uint64_t output, output_max;

        unsigned char magic[MAGIC_SIZE];
        size_t n_magic;
        bool known; /* `compression` has been read from the magic */
        TbCompression compression;

        TbGunzip *gzip;
        ZSTD_DCtx *zstd;
        bool in_frame; /* of zstd: it has begun and is not over */
        unsigned char *buffer;
};

static const char *const compression_table[] = {
        [TB_COMPRESSION_NONE] = "none",
        [TB_COMPRESSION_GZIP] = "gzip",
        [TB_COMPRESSION_ZSTD] = "zstd",
};
static_assert(ELEMENTSOF(compression_table) == _TB_COMPRESSION_MAX, "one name for each TbCompression");

const char *tb_compression_to_string(TbCompression c)
{
        return c >= 0 && c < _TB_COMPRESSION_MAX ? compression_table[c] : NULL;
}

int tb_decompressor_new(
        uint64_t output_max, TbDecompressFn fn, void *userdata, TbDecompressor **ret, TbError **err)
{
        _cleanup_(tb_decompressor_freep) TbDecompressor *d = calloc(1, sizeof(*d));

        if (!d)
                return tb_error_oom(err);
        d->fn = fn;
        d->userdata = userdata;
        d->output_max = output_max;
        *ret = TAKE_PTR(d);
        return 0;
}

static int emit(TbDecompressor *d, const void *data, size_t size, TbError **err)
{
        if (size == 0)
                return 0;
        if (size > d->output_max - d->output)
                return tb_error_set(err, TB_ERROR_REMOTE, -EFBIG,
                        "the data unpacks to more than the limit of %llu bytes",
                        (unsigned long long) d->output_max);
        d->output += size;
        return d->fn(data, size, d->userdata, err);
}

static int refuse_other(const unsigned char *magic, TbError **err)
{
        if (memcmp(magic, "BZh", 3) == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "the data is compressed with bzip2; only gzip and zstd are supported");
        if (memcmp(magic,
                    "\xfd"
                    "7zX",
                    4) == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "the data is compressed with xz; only gzip and zstd are supported");
        return 0;
}

/* RFC 8878 sections 3.1.1 and 3.1.2: a frame, or a skippable one. */
static bool is_zstd(const unsigned char *magic)
{
        static const unsigned char frame[] = {0x28, 0xb5, 0x2f, 0xfd}, skippable[] = {0x2a, 0x4d, 0x18};

        return memcmp(magic, frame, sizeof(frame)) == 0 ||
                ((magic[0] & 0xf0) == 0x50 && memcmp(magic + 1, skippable, sizeof(skippable)) == 0);
}

static int prepare(TbDecompressor *d, TbError **err)
{
        int r;

        r = refuse_other(d->magic, err);
        if (r < 0)
                return r;
        if (d->magic[0] == 0x1f && d->magic[1] == 0x8b)
                d->compression = TB_COMPRESSION_GZIP;
        else if (is_zstd(d->magic))
                d->compression = TB_COMPRESSION_ZSTD;
        d->known = true;
        if (d->compression == TB_COMPRESSION_NONE)
                return 0;

        d->buffer = malloc(OUTPUT_SIZE);
        if (!d->buffer)
                return tb_error_oom(err);
        if (d->compression == TB_COMPRESSION_GZIP)
                return tb_gunzip_new(&d->gzip, err);
        d->zstd = ZSTD_createDCtx();
        if (!d->zstd)
                return tb_error_oom(err);
        if (ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG)))
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "cannot bound the window of zstd");
        return 0;
}

static int broken(const char *what, const char *why, TbError **err)
{
        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG, "the %s data is broken: %s", what,
                why ? why : "unknown reason");
}

static int feed_gzip(TbDecompressor *d, const void *data, size_t size, TbError **err)
{
        const unsigned char *p = data;
        size_t n;
        int r;

        do {
                r = tb_gunzip_step(d->gzip, &p, &size, d->buffer, OUTPUT_SIZE, &n, err);
                if (r >= 0)
                        r = emit(d, d->buffer, n, err);
        } while (r >= 0 && n == OUTPUT_SIZE);
        return r;
}

static int feed_zstd(TbDecompressor *d, const void *data, size_t size, TbError **err)
{
        ZSTD_inBuffer in = {.src = data, .size = size};

        for (;;) {
                ZSTD_outBuffer out = {.dst = d->buffer, .size = OUTPUT_SIZE};
                size_t left;
                int r;

                if (in.pos == in.size && !d->in_frame)
                        return 0;
                left = ZSTD_decompressStream(d->zstd, &out, &in);
                if (ZSTD_isError(left))
                        return broken("zstd", ZSTD_getErrorName(left), err);
                d->in_frame = left > 0;
                r = emit(d, d->buffer, out.pos, err);
                if (r < 0)
                        return r;
                if (in.pos == in.size && out.pos < out.size)
                        return 0;
        }
}

static int feed_known(TbDecompressor *d, const void *data, size_t size, TbError **err)
{
        if (d->compression == TB_COMPRESSION_GZIP)
                return feed_gzip(d, data, size, err);
        if (d->compression == TB_COMPRESSION_ZSTD)
                return feed_zstd(d, data, size, err);
        return emit(d, data, size, err);
}

int tb_decompressor_feed(TbDecompressor *d, const void *data, size_t size, TbError **err)
{
        int r;

        if (!d->known) {
                size_t n = MAGIC_SIZE - d->n_magic < size ? MAGIC_SIZE - d->n_magic : size;

                if (n > 0)
                        memcpy(d->magic + d->n_magic, data, n);
                d->n_magic += n;
                if (d->n_magic < MAGIC_SIZE)
                        return 0;
                data = (const unsigned char *) data + n;
                size -= n;
                r = prepare(d, err);
                if (r >= 0)
                        r = feed_known(d, d->magic, MAGIC_SIZE, err);
                if (r < 0)
                        return r;
        }
        return feed_known(d, data, size, err);
}

int tb_decompressor_finish(TbDecompressor *d, TbError **err)
{
        /* Too short to be compressed. */
        if (!d->known)
                return emit(d, d->magic, d->n_magic, err);
        if (d->in_frame || (d->gzip && tb_gunzip_is_inside(d->gzip)))
                return broken(tb_compression_to_string(d->compression), "it ends too early", err);
        return 0;
}

TbCompression tb_decompressor_compression(const TbDecompressor *d)
{
        return d->compression;
}

uint64_t tb_decompressor_output(const TbDecompressor *d)
{
        return d->output;
}

TbDecompressor *tb_decompressor_free(TbDecompressor *d)
{
        if (!d)
                return NULL;
        tb_gunzip_free(d->gzip);
        ZSTD_freeDCtx(d->zstd);
        free(d->buffer);
        free(d);
        return NULL;
}

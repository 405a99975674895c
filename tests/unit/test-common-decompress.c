/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "common/buffer.h"
#include "common/decompress.h"

#define PLAIN_SIZE (700U * 1024)

typedef struct Out {
        unsigned char *data;
        size_t size, max;
        int fail_at; /* -ECANCELED with the n-th piece */
} Out;

static unsigned char *plain;

static int setup(void **state)
{
        uint32_t x = 1;

        plain = malloc(PLAIN_SIZE);
        assert_non_null(plain);
        for (size_t i = 0; i < PLAIN_SIZE; i++) {
                x = x * 1664525U + 1013904223U;
                /* partly random, so that there is something to compress and something left of it */
                plain[i] = i % 3 == 0 ? (unsigned char) (x >> 24) : (unsigned char) (i >> 8);
        }
        return 0;
}

static int teardown(void **state)
{
        free(plain);
        return 0;
}

static int take(const void *data, size_t size, void *userdata, TbError **err)
{
        Out *o = userdata;

        assert_true(size > 0);
        if (o->fail_at > 0 && --o->fail_at == 0)
                return tb_error_set(err, TB_ERROR_CANCELLED, -ECANCELED, "enough");
        assert_true(o->size + size <= o->max);
        memcpy(o->data + o->size, data, size);
        o->size += size;
        return 0;
}

static size_t gzip(const void *data, size_t size, unsigned char *out, size_t max)
{
        z_stream z = {};

        assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        z.next_in = (unsigned char *) data;
        z.avail_in = (unsigned) size;
        z.next_out = out;
        z.avail_out = (unsigned) max;
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        max -= z.avail_out;
        deflateEnd(&z);
        return max;
}

static size_t zstd(const void *data, size_t size, unsigned char *out, size_t max)
{
        size_t n = ZSTD_compress(out, max, data, size, 3);

        assert_false(ZSTD_isError(n));
        return n;
}

/* Pushes in pieces; returns what feed or finish said. */
static int push(const unsigned char *data, size_t size, size_t piece, uint64_t max, Out *o,
        TbCompression *ret, TbError **err)
{
        _cleanup_(tb_decompressor_freep) TbDecompressor *d = NULL;
        int r;

        assert_ok(tb_decompressor_new(max, take, o, &d, err), *err);
        for (size_t i = 0; i < size; i += piece) {
                r = tb_decompressor_feed(d, data + i, size - i < piece ? size - i : piece, err);
                if (r < 0)
                        return r;
        }
        r = tb_decompressor_finish(d, err);
        *ret = tb_decompressor_compression(d);
        if (r >= 0)
                assert_int_equal(tb_decompressor_output(d), o->size);
        return r;
}

static void expect(
        const unsigned char *data, size_t size, const void *want, size_t want_size, TbCompression kind)
{
        static const size_t pieces[] = {1, 3, 4096, SIZE_MAX / 2};
        _cleanup_error_ TbError *err = NULL;
        TbCompression seen = _TB_COMPRESSION_INVALID;

        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                Out o = {.data = malloc(want_size + 1), .max = want_size + 1};

                assert_non_null(o.data);
                assert_ok(push(data, size, pieces[i], UINT64_MAX, &o, &seen, &err), err);
                assert_int_equal(seen, kind);
                assert_int_equal(o.size, want_size);
                assert_memory_equal(o.data, want, want_size);
                free(o.data);
        }
}

static void refuse(const unsigned char *data, size_t size, uint64_t max, int code)
{
        static const size_t pieces[] = {1, SIZE_MAX / 2};
        TbCompression seen;

        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                Out o = {.data = malloc(4 * PLAIN_SIZE), .max = 4 * PLAIN_SIZE};
                TbError *err = NULL;

                assert_non_null(o.data);
                assert_error(push(data, size, pieces[i], max, &o, &seen, &err), code, err);
                free(o.data);
        }
}

static void test_plain(void **state)
{
        expect((const unsigned char *) "", 0, "", 0, TB_COMPRESSION_NONE);
        expect((const unsigned char *) "\x1f\x8b", 2, "\x1f\x8b", 2, TB_COMPRESSION_NONE);
        expect((const unsigned char *) "plain text", 10, "plain text", 10, TB_COMPRESSION_NONE);
}

static void test_gzip(void **state)
{
        unsigned char *out = malloc(2 * PLAIN_SIZE);
        size_t n, half = PLAIN_SIZE / 2;

        assert_non_null(out);
        n = gzip(plain, PLAIN_SIZE, out, 2 * PLAIN_SIZE);
        expect(out, n, plain, PLAIN_SIZE, TB_COMPRESSION_GZIP);

        /* Members, one of them empty: RFC 1952 section 2.2. */
        n = gzip(plain, half, out, 2 * PLAIN_SIZE);
        n += gzip("", 0, out + n, 2 * PLAIN_SIZE - n);
        n += gzip(plain + half, PLAIN_SIZE - half, out + n, 2 * PLAIN_SIZE - n);
        expect(out, n, plain, PLAIN_SIZE, TB_COMPRESSION_GZIP);

        refuse(out, n - 1, UINT64_MAX, -EBADMSG); /* the length of the last member is cut */
        refuse(out, n - 5, UINT64_MAX, -EBADMSG); /* and its checksum */
        memcpy(out + n, "\0\0\0\0", 4);
        refuse(out, n + 4, UINT64_MAX, -EBADMSG); /* something follows */
        out[n / 4] ^= 0x55;
        refuse(out, n, UINT64_MAX, -EBADMSG); /* damage */
        free(out);
}

/* What zlib makes of a file of any number of members: 0, or -1; the output in any case. */
static int zlib_gunzip(unsigned char *data, size_t size, Out *o)
{
        z_stream z = {.next_in = data, .avail_in = (unsigned) size};
        bool whole = false;
        int r = Z_OK;

        assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
        while (z.avail_in > 0 && r == Z_OK) {
                z.next_out = o->data + o->size;
                z.avail_out = (unsigned) (o->max - o->size);
                r = inflate(&z, Z_NO_FLUSH);
                o->size = o->max - z.avail_out;
                whole = r == Z_STREAM_END;
                if (whole)
                        r = inflateReset(&z);
        }
        inflateEnd(&z);
        return whole ? 0 : -1;
}

static uint32_t next_random(uint32_t *x)
{
        *x = *x * 1664525U + 1013904223U;
        return *x >> 8;
}

/* One to three members with headers of all kinds, of every level and strategy. */
static size_t make_members(unsigned char *out, size_t max, uint32_t *x)
{
        size_t n = 0, size = next_random(x) % (next_random(x) % 8 ? 3000 : PLAIN_SIZE / 4);

        for (unsigned i = next_random(x) % 3 + 1; i > 0; i--) {
                gz_header header = {.name = (unsigned char *) "a name",
                        .comment = (unsigned char *) "a comment",
                        .extra = (unsigned char *) "extra",
                        .extra_len = 5,
                        .hcrc = (int) next_random(x) % 2};
                z_stream z = {.next_in = plain, .avail_in = (unsigned) size};

                assert_int_equal(deflateInit2(&z, (int) (next_random(x) % 10), Z_DEFLATED, 15 + 16,
                                         (int) (next_random(x) % 9) + 1, (int) (next_random(x) % 5)),
                        Z_OK);
                if (next_random(x) % 3 == 0)
                        assert_int_equal(deflateSetHeader(&z, &header), Z_OK);
                z.next_out = out + n;
                z.avail_out = (unsigned) (max - n);
                assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
                n = max - z.avail_out;
                deflateEnd(&z);
        }
        return n;
}

/* The same bytes are taken, and refused, as by zlib: whole files and damaged ones, in pieces of any size. */
static void test_like_zlib(void **state)
{
        const size_t max = 2 * PLAIN_SIZE;
        unsigned char *data = malloc(max);
        Out theirs = {.data = malloc(max), .max = max}, ours = {.data = malloc(max), .max = max};
        uint32_t x = 7;

        assert_true(data && theirs.data && ours.data);
        for (unsigned run = 0; run < 200; run++) {
                _cleanup_error_ TbError *err = NULL;
                size_t n = make_members(data, max, &x);
                TbCompression seen;
                int r;

                for (unsigned damage = next_random(&x) % 3; damage > 0; damage--)
                        switch (next_random(&x) % 3) {
                        case 0: /* not the magic: it would be no gzip file */
                                data[4 + next_random(&x) % (n - 4)] ^= (unsigned char) (1 << x % 8);
                                break;
                        case 1:
                                n -= next_random(&x) % 12;
                                break;
                        default:
                                data[n++] = (unsigned char) x;
                                break;
                        }
                theirs.size = ours.size = 0;
                r = push(
                        data, n, next_random(&x) % (run % 2 ? 9 : 5000) + 1, UINT64_MAX, &ours, &seen, &err);
                assert_int_equal(r < 0 ? -1 : 0, zlib_gunzip(data, n, &theirs));
                if (r < 0)
                        assert_int_equal(r, -EBADMSG);
                else
                        assert_int_equal(ours.size, theirs.size);
                if (r >= 0)
                        assert_memory_equal(ours.data, theirs.data, ours.size);
        }
        free(data);
        free(theirs.data);
        free(ours.data);
}

static void test_zstd(void **state)
{
        static const unsigned char skippable[] = {0x51, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'};
        unsigned char *out = malloc(2 * PLAIN_SIZE);
        size_t n = sizeof(skippable), half = PLAIN_SIZE / 2;

        assert_non_null(out);
        memcpy(out, skippable, sizeof(skippable));
        n += zstd(plain, half, out + n, 2 * PLAIN_SIZE - n);
        n += zstd(plain + half, PLAIN_SIZE - half, out + n, 2 * PLAIN_SIZE - n);
        expect(out, n, plain, PLAIN_SIZE, TB_COMPRESSION_ZSTD);
        refuse(out, n - 1, UINT64_MAX, -EBADMSG);
        memcpy(out + n, "tail", 4);
        refuse(out, n + 4, UINT64_MAX, -EBADMSG);
        free(out);
}

static void test_refused(void **state)
{
        static unsigned char zeros[PLAIN_SIZE];
        unsigned char out[8192];
        size_t n = gzip(zeros, sizeof(zeros), out, sizeof(out));

        refuse(out, n, sizeof(zeros) - 1, -EFBIG);
        n = zstd(zeros, sizeof(zeros), out, sizeof(out));
        refuse(out, n, 1000, -EFBIG);
        refuse((const unsigned char *) "0123456789", 10, 9, -EFBIG);
        refuse((const unsigned char *) "BZh91AY&SY", 10, UINT64_MAX, -EOPNOTSUPP);
        refuse((const unsigned char *) "\xfd"
                                       "7zXZ\0\0\0",
                8, UINT64_MAX, -EOPNOTSUPP);
        refuse((const unsigned char *) "\x1f\x8b\x08\xff\xff\xff\xff\xff\xff\xff", 10, UINT64_MAX, -EBADMSG);
}

static void test_stopped(void **state)
{
        unsigned char *out = malloc(2 * PLAIN_SIZE);
        Out o = {.data = malloc(PLAIN_SIZE), .max = PLAIN_SIZE, .fail_at = 2};
        TbError *err = NULL;
        TbCompression seen;
        size_t n;

        assert_non_null(out);
        assert_non_null(o.data);
        n = gzip(plain, PLAIN_SIZE, out, 2 * PLAIN_SIZE);
        assert_error(push(out, n, 1000, UINT64_MAX, &o, &seen, &err), -ECANCELED, err);
        free(out);
        free(o.data);
        assert_null(tb_decompressor_free(NULL));
        assert_string_equal(tb_compression_to_string(TB_COMPRESSION_ZSTD), "zstd");
        assert_null(tb_compression_to_string(_TB_COMPRESSION_MAX));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_plain),
                cmocka_unit_test(test_gzip),
                cmocka_unit_test(test_like_zlib),
                cmocka_unit_test(test_zstd),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_stopped),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "augment/tar-stream.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "tests/unit/tar-writer.h"

/* What a reader saw, as text: "f path mode size\n", "> data\n" */
typedef struct Seen {
        char text[16384];
        size_t n;
        size_t data; /* bytes */
} Seen;

static int on_entry(const TarEntry *e, void *userdata, TbError **err)
{
        static const char types[] = "fdlhcbp";
        Seen *s = userdata;

        assert_true(s->n < sizeof(s->text) - 600);
        s->n += (size_t) snprintf(s->text + s->n, sizeof(s->text) - s->n, "%c %.300s %s%o %llu\n",
                types[e->type], e->path, e->link[0] ? e->link : "", e->mode, (unsigned long long) e->size);
        return 0;
}

static int on_data(const void *data, size_t size, void *userdata, TbError **err)
{
        Seen *s = userdata;

        s->data += size;
        return 0;
}

static int read_tar(const Tar *tar, size_t size, size_t piece, Seen *ret, TbError **err)
{
        _cleanup_(tar_stream_freep) TarStream *t = NULL;
        TarStreamHooks hooks = {.entry = on_entry, .data = on_data, .userdata = ret};
        int r;

        *ret = (Seen){};
        assert_ok(tar_stream_new(&hooks, &t, err), *err);
        for (size_t i = 0; i < size; i += piece) {
                r = tar_stream_feed(t, tar->data + i, size - i < piece ? size - i : piece, err);
                if (r < 0)
                        return r;
        }
        return tar_stream_finish(t, err);
}

static void expect(const Tar *tar, const char *want)
{
        static const size_t pieces[] = {1, 511, 513, 1U << 20};
        _cleanup_error_ TbError *err = NULL;
        Seen seen;

        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                assert_ok(read_tar(tar, tar->size, pieces[i], &seen, &err), err);
                assert_string_equal(seen.text, want);
        }
}

static void refuse(const Tar *tar, int code)
{
        TbError *err = NULL;
        Seen seen;

        assert_error(read_tar(tar, tar->size, 1U << 20, &seen, &err), code, err);
}

static void test_types(void **state)
{
        _cleanup_tar_ Tar t = {};

        tar_dir(&t, "etc/");
        tar_file(&t, "etc/a", "hello", 0640);
        tar_symlink(&t, "b", "etc/a");
        tar_hardlink(&t, "c", "etc/a");
        (void) tar_header(&t, "d", '3', "", 0, 0600);
        (void) tar_header(&t, "e", '4', "", 0, 0600);
        (void) tar_header(&t, "f", '6', "", 0, 0600);
        (void) tar_header(&t, "old/", 0, "", 0, 0700);
        (void) tar_header(&t, "oldfile", 0, "", 0, 0700);
        /* Not files: what they claim to hold isn't there. */
        (void) tar_header(&t, "g", '5', "", 12345, 0755);
        (void) tar_header(&t, "h", '2', "x", 12345, 0777);
        tar_file(&t, "last", "", 04755);
        tar_end(&t);
        (void) tar_append(&t, "garbage behind the end", 22);
        expect(&t,
                "d etc/ 755 0\nf etc/a 640 5\nl b etc/a777 0\nh c etc/a644 0\nc d 600 0\nb e 600 0\np f 600 "
                "0\n"
                "d old/ 700 0\nf oldfile 700 0\nd g 755 0\nl h x777 0\nf last 4755 0\n");
}

static void test_long_names(void **state)
{
        _cleanup_tar_ Tar t = {};
        static const char pax[] = "19 path=a/long/one\n14 linkpath=t\n", clears[] = "8 path=\n";
        unsigned char *h;

        tar_special(&t, 'x', pax, sizeof(pax) - 1);
        tar_file(&t, "short", "1", 0644);
        tar_special(&t, 'L', "gnu/name", 9);
        tar_special(&t, 'K', "gnu/target", 11);
        tar_symlink(&t, "short", "short");
        tar_special(&t, 'g', "nonsense", 8);
        tar_special(&t, 'x', clears, sizeof(clears) - 1);
        h = tar_header(&t, "name", '0', "", 0, 0644);
        memcpy(h + 345, "pre/fix", 7);
        tar_set_checksum(h);
        h = tar_header(&t, "name", '0', "", 0, 0644);
        memset(h + 345, 'p', 131);
        memcpy(h + 345 + 131, "00000000000", 12);
        memcpy(h + 508, "tar", 4);
        tar_set_checksum(h);
        h = tar_header(&t, "v7", '0', "", 0, 0644);
        memset(h + 257, 0, 8);
        memcpy(h + 345, "nobody", 6);
        tar_set_checksum(h);
        expect(&t,
                "f a/long/one 644 1\nl gnu/name gnu/target777 0\nf pre/fix/name 644 0\n"
                "f "
                "ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp"
                "pp"
                "pppppppppppppppppppppppppppppppppppppp/name 644 0\nf v7 644 0\n");
}

static void test_sizes(void **state)
{
        static const char pax[] = "10 size=3\n";
        _cleanup_tar_ Tar t = {};
        _cleanup_error_ TbError *err = NULL;
        unsigned char *h;
        Seen seen;

        /* Base 256: GNU tar's manual, "Extensions to the standard". */
        h = tar_header(&t, "base256", '0', "", 0, 0644);
        memset(h + 124, 0, 12);
        h[124] = 0x80;
        h[134] = 2;
        h[135] = 1;
        tar_set_checksum(h);
        (void) tar_append(&t, (unsigned char[513]){}, 513);
        tar_pad(&t);
        tar_special(&t, 'x', pax, sizeof(pax) - 1);
        (void) tar_header(&t, "pax", '0', "", 0, 0644);
        (void) tar_append(&t, "abc", 3);
        tar_pad(&t);
        /* A checksum of signed bytes, as old SunOS made it. */
        h = tar_header(&t, "\xfc\xfc", '0', "", 0, 0644);
        h[148] = 0;
        {
                int sum = 0;

                memset(h + 148, ' ', 8);
                for (size_t i = 0; i < 512; i++)
                        sum += (signed char) h[i];
                (void) snprintf((char *) h + 148, 8, "%06o", (unsigned) sum);
        }
        tar_end(&t);
        assert_ok(read_tar(&t, t.size, 7, &seen, &err), err);
        assert_string_equal(seen.text, "f base256 644 513\nf pax 644 3\nf \xfc\xfc 644 0\n");
        assert_int_equal(seen.data, 516);
}

static void test_cut(void **state)
{
        _cleanup_tar_ Tar t = {};
        size_t boundary[8], n = 0;

        boundary[n++] = 0;
        tar_dir(&t, "etc");
        boundary[n++] = t.size;
        tar_file(&t, "etc/a", "hello", 0644);
        boundary[n++] = t.size;
        tar_special(&t, 'L', "long", 5);
        tar_file(&t, "x", "", 0644);
        boundary[n++] = t.size;
        for (size_t size = 0; size <= t.size; size++) {
                TbError *err = NULL;
                bool whole = false;
                Seen seen;

                for (size_t i = 0; i < n; i++)
                        whole = whole || boundary[i] == size;
                assert_int_equal(read_tar(&t, size, 100, &seen, &err), whole ? 0 : -EBADMSG);
                tb_error_free(err);
        }
}

static void refuse_special(char type, const char *data, size_t size, int code)
{
        _cleanup_tar_ Tar t = {};

        tar_special(&t, type, data, size);
        tar_file(&t, "x", "", 0644);
        tar_end(&t);
        refuse(&t, code);
}

static void test_refused(void **state)
{
        static const char *const bad_pax[] = {"5 a=b\n", "7 a=b\n", "6 a=b", "a=b\n", "6 =ab\n", "5 ab\n",
                "0 a=b\n", "99999999999999999999 a=b\n", " 6 a=b\n", "10 size=x\n",
                "27 size=99999999999999999999\n", "11 path=a\0b\n"};
        unsigned char *h;

        for (size_t i = 0; i < ELEMENTSOF(bad_pax); i++)
                refuse_special(
                        'x', bad_pax[i], i == ELEMENTSOF(bad_pax) - 1 ? 11 : strlen(bad_pax[i]), -EBADMSG);
        refuse_special('x', "22 GNU.sparse.major=1\n", 22, -EOPNOTSUPP);

        for (size_t i = 0; i < 7; i++) {
                _cleanup_tar_ Tar t = {};
                int code = -EBADMSG;

                h = tar_header(&t, i == 0 ? "" : "x", '0', "", 0, 0644);
                if (i == 1)
                        h[156] = 'S';
                if (i == 2)
                        h[156] = 'Q';
                if (i == 1 || i == 2)
                        code = -EOPNOTSUPP;
                if (i == 3)
                        h[156] = '2'; /* without target */
                if (i == 4)
                        memset(h + 124, 0xff, 12);
                if (i == 5)
                        memcpy(h + 124, "0000000009x", 12);
                tar_set_checksum(h);
                if (i == 6)
                        h[0] = 'y';
                tar_end(&t);
                refuse(&t, code);
        }

        {
                _cleanup_tar_ Tar t = {};

                (void) tar_append(&t, (unsigned char[512]){}, 512);
                tar_file(&t, "behind", "", 0644);
                refuse(&t, -EBADMSG);
        }
        {
                _cleanup_tar_ Tar t = {};

                (void) tar_header(&t, "x", 'x', "", (1U << 20) + 1, 0644);
                refuse(&t, -EBADMSG);
        }
        {
                _cleanup_tar_ Tar t = {};

                tar_special(&t, 'x', "10 path=a\n", 10);
                tar_special(&t, 'L', "b", 2);
                tar_file(&t, "x", "", 0644);
                refuse(&t, -EBADMSG);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_types),
                cmocka_unit_test(test_long_names),
                cmocka_unit_test(test_sizes),
                cmocka_unit_test(test_cut),
                cmocka_unit_test(test_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

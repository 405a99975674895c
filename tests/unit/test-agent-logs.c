/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/log-merge.h"
#include "agent/log-time.h"
#include "agent/node-files.h"
#include "agent/pax.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/strv.h"

#define NS UINT64_C(1000000000)
/* 2026-11-21T20:38:50Z */
#define NOW (UINT64_C(1795293530) * NS)

static void test_times(void **state)
{
        static const struct {
                const char *text;
                size_t size;
                uint64_t ns;
        } rfc3339[] = {
                {"2026-11-21T20:38:50Z", 20, NOW},
                {"2026-11-21T20:38:50.000000001Z more", 30, NOW + 1},
                {"2026-11-21T21:38:50.5+01:00", 27, NOW + NS / 2},
                {"2026-11-21T15:08:50-05:30", 25, NOW},
                {"2026-11-21t20:38:50.1234567891234z", 34, NOW + 123456789},
                {"1970-01-01T00:00:00Z", 20, 0},
                {"2026-02-29T00:00:00Z", 0, 0},
                {"2026-11-21T20:38:50", 0, 0},
                {"2026-11-21T24:38:50Z", 0, 0},
                {"2026-13-21T20:38:50Z", 0, 0},
                {"2026-11-21T20:38:50.Z", 0, 0},
                {"1970-01-01T00:00:00+01:00", 0, 0},
                {"x", 0, 0},
        };
        static const struct {
                const char *text;
                bool is;
                uint64_t ns;
        } syslog[] = {
                {"Nov 21 20:38:50 host a: b", true, NOW},
                {"Nov 21 20:38:50.250 host a: b", true, NOW + NS / 4},
                {"Nov  1 20:38:50 host a: b", true, NOW - 20 * 86400 * NS},
                {"Dec 31 20:38:50 host a: b", true, NOW - 325 * 86400 * NS}, /* of last year */
                {"Feb 29 00:00:00 host a: b", true, UINT64_C(1709164800) * NS},
                {"Nov 32 20:38:50 host a: b", false, 0},
                {"Foo 21 20:38:50 host a: b", false, 0},
                {"Nov 21 20:38", false, 0},
        };
        _cleanup_error_ TbError *err = NULL;
        uint64_t ns;

        for (size_t i = 0; i < ELEMENTSOF(rfc3339); i++) {
                ns = 0;
                assert_int_equal(
                        log_time_rfc3339(rfc3339[i].text, strlen(rfc3339[i].text), &ns), rfc3339[i].size);
                assert_int_equal(ns, rfc3339[i].ns);
        }
        for (size_t i = 0; i < ELEMENTSOF(syslog); i++) {
                ns = 0;
                assert_int_equal(
                        log_time_syslog(syslog[i].text, strlen(syslog[i].text), NOW, &ns), syslog[i].is);
                assert_int_equal(ns, syslog[i].ns);
        }
        assert_ok(log_time_since("1h30m", NOW, &ns, &err), err);
        assert_int_equal(ns, NOW - 5400 * NS);
        assert_ok(log_time_since("2d500ms", NOW, &ns, &err), err);
        assert_int_equal(ns, NOW - 2 * 86400 * NS - NS / 2);
        assert_ok(log_time_since("90000d", NOW, &ns, &err), err);
        assert_int_equal(ns, 0);
        assert_ok(log_time_since("2026-11-21T20:38:50Z", 0, &ns, &err), err);
        assert_int_equal(ns, NOW);
        static const char *const bad[] = {"", "10", "m", "10x", "-5m", "1m1h", "1m1m", "1.5h", "10 m",
                "999999999999999999999d", "100000000d", "2026-11-21", "2026-11-21T20:38:50Z ", "yesterday",
                "2026-11-21T20:38:50"};
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_error(log_time_since(bad[i], NOW, &ns, &err), -EINVAL, err);
}

/* A frame of the engine's. */
static void frame(TbBuffer *b, const char *text)
{
        size_t n = strlen(text);
        unsigned char header[8] = {1, 0, 0, 0, 0, 0, (unsigned char) (n >> 8), (unsigned char) n};

        assert_ok(tb_buffer_append(b, header, sizeof(header), NULL), NULL);
        assert_ok(tb_buffer_append(b, text, n, NULL), NULL);
}

/* All of it, with marks, and '/' where a piece begins that does not begin a line. */
static void drain(LogMerge *m, bool live, TbBuffer *out)
{
        LogPiece p;

        while (log_merge_next(m, live, &p)) {
                assert_true(p.size > 0 && p.size <= LOG_PIECE_MAX);
                assert_ok(tb_buffer_append_str(out,
                                  !p.starts                        ? "/"
                                          : p.source == LOG_OUTPUT ? "o:"
                                                                   : "s:",
                                  NULL),
                        NULL);
                assert_ok(tb_buffer_append(out, p.text, p.size, NULL), NULL);
        }
}

/* Fed `step` bytes at a time. */
static char *merge(bool tty, uint64_t since, const TbBuffer *output, const char *syslog, size_t step)
{
        _cleanup_(log_merge_freep) LogMerge *m = NULL;
        _cleanup_buffer_ TbBuffer out = TB_BUFFER_INIT(1 << 20);
        size_t at[2] = {}, size[2] = {output->size, strlen(syslog)};
        const char *data[2] = {output->data, syslog};

        assert_ok(log_merge_new(tty, since, NOW, &m, NULL), NULL);
        while (!log_merge_is_done(m)) {
                for (LogSource s = 0; s < _LOG_SOURCE_MAX; s++) {
                        size_t n = MIN2(step, size[s] - at[s]);

                        if (n == 0)
                                log_merge_end(m, s);
                        else if (log_merge_has_room(m, s)) {
                                assert_ok(log_merge_feed(m, s, data[s] + at[s], n, NULL), NULL);
                                at[s] += n;
                        }
                }
                drain(m, false, &out);
        }
        return tb_buffer_steal(&out, NULL);
}

static void test_order(void **state)
{
        _cleanup_buffer_ TbBuffer frames = TB_BUFFER_INIT(1 << 20), plain = TB_BUFFER_INIT(1 << 20);
        static const char *const lines[] = {"2026-11-21T20:00:01.5Z one\n", "2026-11-21T20:00:02Z \n",
                "2026-11-21T20:00:03.000000000Z half a ", "2026-11-21T20:00:04Z line\n", "no time\n",
                "2026-11-21T20:00:09Z without end"};
        static const char syslog[] =
                "Nov 21 19:00:00 h before\nNov 21 20:00:01.250 h a\nodd\nNov 21 20:00:03.500 h b\n"
                "Nov 21 20:00:10 h c";
        static const char want[] =
                "s:Nov 21 19:00:00 h before\ns:Nov 21 20:00:01.250 h a\ns:odd\no:one\no:\n"
                "o:half a /line\ns:Nov 21 20:00:03.500 h b\no:no time\no:without end"
                "s:Nov 21 20:00:10 h c";

        for (size_t i = 0; i < ELEMENTSOF(lines); i++)
                frame(&frames, lines[i]);
        for (size_t step = 1; step < 300; step++) {
                _cleanup_free_ char *all = merge(false, 0, &frames, syslog, step);

                assert_string_equal(all, want);
        }
        /* The engine leaves out what is older; here it has everything. */
        _cleanup_free_ char *since = merge(false, NOW - 2330 * NS, &frames, syslog, 7);
        assert_string_equal(since, strstr(want, "s:Nov 21 20:00:01.250"));
        _cleanup_free_ char *none = merge(false, 0, &plain, syslog, 1000);
        assert_true(tb_startswith(none, "s:Nov 21 19:00:00 h before\ns:"));
        _cleanup_free_ char *alone = merge(false, 0, &frames, "", 1000);
        assert_true(tb_startswith(alone, "o:one\no:\n"));
        assert_ok(
                tb_buffer_append_str(&plain, "2026-11-21T20:00:01.5Z one\r\n2026-11-21T20:00:03Z two", NULL),
                NULL);
        for (size_t step = 1; step < 100; step++) {
                _cleanup_free_ char *tty = merge(true, 0, &plain, "Nov 21 20:00:02 h a\n", step);

                assert_string_equal(tty, "o:one\r\ns:Nov 21 20:00:02 h a\no:two");
        }
}

/* A message of 40,000 bytes, as the engine cuts it: every part has a time, which is not the program's. */
static void test_long_lines(void **state)
{
        _cleanup_free_ char *message = malloc(40001);

        memset(message, 'x', 39999);
        memcpy(message + 39999, "\n", 2);
        for (unsigned tty = 0; tty < 2; tty++) {
                _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(1 << 20);

                for (size_t at = 0; at < 40000; at += 16384) {
                        _cleanup_free_ char *part =
                                tb_asprintf("2026-11-21T20:00:01Z %.16384s", message + at);

                        if (tty)
                                assert_ok(tb_buffer_append_str(&b, part, NULL), NULL);
                        else
                                frame(&b, part);
                }
                for (size_t step = 1000; step < 70000; step += 3333) {
                        _cleanup_free_ char *all = merge(tty, 0, &b, "Nov 21 20:00:02 h a\n", step);
                        size_t n = 0;

                        for (const char *p = all; *p; p++)
                                n += *p == 'x';
                        assert_int_equal(n, 39999);
                        assert_null(strstr(all, "2026"));
                        assert_string_equal(strchr(all, '\n'), "\ns:Nov 21 20:00:02 h a\n");
                }
        }
}

static void test_live(void **state)
{
        _cleanup_(log_merge_freep) LogMerge *m = NULL;
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(4096), out = TB_BUFFER_INIT(4096);

        assert_ok(log_merge_new(false, 0, NOW, &m, NULL), NULL);
        assert_ok(log_merge_feed(m, LOG_SYSLOG, "Nov 21 20:00:05 h a\nNov", 23, NULL), NULL);
        drain(m, false, &out);
        assert_int_equal(out.size, 0); /* the engine may have something older */
        drain(m, true, &out);
        assert_string_equal(out.data, "s:Nov 21 20:00:05 h a\n");
        frame(&b, "2026-11-21T20:00:04Z late\n");
        assert_ok(log_merge_feed(m, LOG_OUTPUT, b.data, b.size, NULL), NULL);
        drain(m, true, &out);
        assert_string_equal(out.data, "s:Nov 21 20:00:05 h a\no:late\n");
        assert_false(log_merge_is_done(m));
        log_merge_end(m, LOG_OUTPUT);
        log_merge_end(m, LOG_SYSLOG);
        drain(m, true, &out);
        assert_true(log_merge_is_done(m));
}

static void test_json(void **state)
{
        static const struct {
                LogPiece piece;
                const char *json;
        } pieces[] = {
                {{.source = LOG_OUTPUT, .text = "a \"b\"\n", .size = 6, .time_ns = 1795293530123456789},
                        "{\"time\":\"2026-11-21T20:38:50.123456789Z\",\"node\":\"n\",\"source\":\"output\","
                        "\"text\":\"a \\\"b\\\"\"}"},
                {{.source = LOG_SYSLOG, .text = "\n", .size = 1},
                        "{\"time\":null,\"node\":\"n\",\"source\":\"syslog\",\"text\":\"\"}"},
                {{.source = LOG_OUTPUT, .text = "no end\0", .size = 7},
                        "{\"time\":null,\"node\":\"n\",\"source\":\"output\",\"text\":\"no "
                        "end\\u0000\",\"partial\":true}"},
                {{.source = LOG_OUTPUT, .text = "\xff\xc3\xa4\xe2\x82\n", .size = 6},
                        "{\"time\":null,\"node\":\"n\",\"source\":\"output\",\"text\":"
                        "\"\xef\xbf\xbd\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd\"}"},
        };

        for (size_t i = 0; i < ELEMENTSOF(pieces); i++) {
                json_t *j = log_piece_to_json(&pieces[i].piece, "n");
                _cleanup_free_ char *text = json_dumps(j, JSON_COMPACT);

                assert_string_equal(text, pieces[i].json);
                json_decref(j);
        }
}

/* No name of a node's leads anywhere, or does anything to a terminal. */
static void test_file_names(void **state)
{
        static const struct {
                const char *path, *name;
        } names[] = {
                {"etc/hosts", "files/etc/hosts"},
                {"a b\n\033[2J%/\\\xc3\xa4", "files/a%20b%0A%1B[2J%25/%5C%C3%A4"},
                {".../-x", "files/.../-x"},
        };
        static const char *const bad[] = {"{}", "\"/a\"", "[\"a\"]", "[\"\"]", "[7]", "[\"/a/..\"]",
                "[\"/../a\"]", "[\"/a/../b\"]", "[\"~/a\"]"};
        char component[300] = "";

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *name = node_files_name(names[i].path);

                assert_string_equal(name, names[i].name);
        }
        memset(component, 'x', 240);
        free(node_files_name(component));
        component[239] = ' '; /* is three */
        assert_null(node_files_name(component));
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                json_t *j = json_loads(bad[i], 0, NULL);

                assert_fails(node_files_check(j, err), -EINVAL, "");
                json_decref(j);
        }
        json_t *good = json_loads("[\"/a/..b/*\", \"/\"]", 0, NULL);
        assert_works(node_files_check(good, err));
        json_decref(good);
}

/* What pax.h writes, as libarchive reads it. */
static void test_pax(void **state)
{
        static const struct {
                size_t name, size;
                int64_t mtime, read;
        } files[] = {
                {1, 0, 0, 0},
                {99, 1, 1795293530, 1795293530},
                {100, 511, INT64_C(077777777777), INT64_C(077777777777)},
                {101, 512, INT64_C(0100000000000), INT64_C(0100000000000)},
                {240, 513, -1, -1},
                {991, 1025, -1234567890123, -1234567890123}, /* the record's length gets a digit more */
                {3072, 100000, 5, 5},
        };
        _cleanup_free_ char *content = calloc(1, 100000), *read = malloc(100000);
        FILE *f = tmpfile();
        PaxWriter w = {.fd = fileno(f)};
        struct archive *a = archive_read_new();
        struct archive_entry *e;

        memset(content, 'c', 100000);
        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                char name[4096] = {};

                memset(name, 'n', files[i].name);
                assert_works(pax_file(&w, name, files[i].size, files[i].mtime, err));
                if (files[i].size > 0) {
                        assert_fails(pax_end(&w, err), -EBUSY, "not complete");
                        assert_fails(pax_file(&w, name, 1, 0, err), -EBUSY, "lacks");
                }
                assert_works(pax_data(&w, content, files[i].size / 2, err));
                assert_works(pax_data(&w, content, files[i].size - files[i].size / 2, err));
                assert_fails(pax_data(&w, content, 1, err), -EOVERFLOW, "larger");
        }
        assert_works(pax_end(&w, err));

        assert_int_equal(lseek(w.fd, 0, SEEK_SET), 0);
        assert_int_equal(archive_read_support_format_tar(a), ARCHIVE_OK);
        assert_int_equal(archive_read_open_fd(a, w.fd, 10240), ARCHIVE_OK);
        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_OK);
                assert_int_equal(strlen(archive_entry_pathname(e)), files[i].name);
                assert_int_equal(strspn(archive_entry_pathname(e), "n"), files[i].name);
                assert_int_equal(archive_entry_size(e), files[i].size);
                assert_int_equal(archive_entry_mtime(e), files[i].read);
                assert_int_equal(archive_entry_mode(e), S_IFREG | 0644);
                assert_int_equal(archive_read_data(a, read, 100000), files[i].size);
                assert_memory_equal(read, content, files[i].size);
        }
        assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_EOF);
        archive_read_free(a);
        (void) fclose(f);
}

/* What a directory gives, as libarchive reads it. */
static void test_pack(void **state)
{
        char dir[] = "/tmp/tbnode-test-XXXXXX", text[4096] = "", read[4096];
        static const char name[] = "files/a%20b/x";
        json_t *patterns = json_loads("[\"/*\", \"/nothing\"]", 0, NULL), *report;
        struct archive *a = archive_read_new();
        struct archive_entry *e;
        FILE *f = tmpfile();
        int root, fd;

        memset(text, 't', 700);
        assert_non_null(mkdtemp(dir));
        root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(mkdirat(root, "a b", 0755), 0);
        fd = openat(root, "a b/x", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(write(fd, text, 700), 700);
        (void) close(fd);
        assert_works(node_files_pack(root, patterns, fileno(f), err));

        assert_int_equal(lseek(fileno(f), 0, SEEK_SET), 0);
        assert_int_equal(archive_read_support_format_tar(a), ARCHIVE_OK);
        assert_int_equal(archive_read_open_fd(a, fileno(f), 10240), ARCHIVE_OK);
        assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_OK);
        assert_string_equal(archive_entry_pathname(e), name);
        assert_int_equal(archive_read_data(a, read, sizeof(read)), 700);
        assert_memory_equal(read, text, 700);
        assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_OK);
        assert_string_equal(archive_entry_pathname(e), NODE_FILES_REPORT);
        report = json_loadb(read, (size_t) archive_read_data(a, read, sizeof(read)), 0, NULL);
        assert_int_equal(json_integer_value(json_object_get(report, "files")), 1);
        assert_int_equal(json_integer_value(json_object_get(report, "left_out")), 1);
        assert_int_equal(archive_read_next_header(a, &e), ARCHIVE_EOF);

        archive_read_free(a);
        json_decref(report);
        json_decref(patterns);
        (void) fclose(f);
        (void) unlinkat(root, "a b/x", 0);
        (void) unlinkat(root, "a b", AT_REMOVEDIR);
        (void) close(root);
        (void) rmdir(dir);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_times),
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_long_lines),
                cmocka_unit_test(test_live),
                cmocka_unit_test(test_json),
                cmocka_unit_test(test_file_names),
                cmocka_unit_test(test_pax),
                cmocka_unit_test(test_pack),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Copies that go on: upload sessions that tell what they have (truly or not), partial blobs on disk, several copies that want
 * one blob. The two servers keep every byte, so that what arrived can be compared. */

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "tests/unit/test.h"

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "registry-client/copy.h"
#include "tests/unit/registry-server.h"

#undef assert_error

#define BLOB_SIZE 12000000U
#define KEPT 10000000U /* what a broken session says it has */
#define MIB (1024U * 1024)

typedef struct Fixture {
        RegistryClient *client;
        Server *source, *target;
        char *blob, *dir;
        TbDigest digest;
        char manifest[1024];

        /* what the servers do; each happens once, then they behave */
        const char *range; /* of a broken session: "0-999" */
        unsigned status;   /* of the question about it; 0 = 204 */
        unsigned refuse;   /* status for the PATCH that goes on */
        size_t break_at;   /* the source breaks off there */
        bool ignores_range, lies_about_range, lies;
        bool breaks_patch;

        /* what they saw */
        pthread_mutex_t lock;
        size_t given; /* bytes of the layer that left the source */
        unsigned sessions, questions, patches, deletes, mounts, commits;
        char content_range[64];
        size_t patched; /* bytes of the last PATCH */
        char *stored;   /* of the session */
        size_t n_stored;
        bool has_layer, tagged;
} Fixture;

static Fixture *f;

static void serve_layer(Exchange *e)
{
        const char *range = exchange_header(e, "Range");
        size_t from = range && strncmp(range, "bytes=", 6) == 0 ? strtoul(range + 6, NULL, 10) : 0, n;
        char head[256];

        if (f->ignores_range)
                from = 0;
        n = BLOB_SIZE - from;
        snprintf(head, sizeof(head),
                "HTTP/1.1 %s\r\nContent-Length: %zu\r\nContent-Range: bytes %zu-%u/%u\r\n\r\n",
                from > 0 ? "206 Partial" : "200 OK", n, from + f->lies_about_range, BLOB_SIZE - 1,
                BLOB_SIZE);
        exchange_puts(e, head);
        if (f->break_at > from) {
                exchange_write(e, f->blob + from, f->break_at - from);
                f->given += f->break_at - from;
                f->break_at = 0;
                e->close = true;
                return;
        }
        f->given += n;
        if (f->lies && from == 0) {
                f->lies = false;
                exchange_write(e, "liar", 4);
                exchange_write(e, f->blob + 4, n - 4);
        } else
                exchange_write(e, f->blob + from, n);
}

static void on_source(Exchange *e)
{
        if (strstr(e->path, "/manifests/"))
                exchange_text(e, 200, "Content-Type: " REGISTRY_TYPE_OCI_MANIFEST "\r\n", f->manifest);
        else if (strstr(e->path, f->digest.text))
                serve_layer(e);
        else
                exchange_text(e, 200, "", "{}");
}

static void take_patch(Exchange *e)
{
        const char *range = exchange_header(e, "Content-Range");
        size_t at = range ? strtoul(range, NULL, 10) : 0;

        if (f->has_layer) { /* of a session that was given up, and whose last bytes were still on their way */
                exchange_text(e, 404, "", "");
                return;
        }
        f->patches++;
        snprintf(f->content_range, sizeof(f->content_range), "%s", range ? range : "");
        f->patched = e->body_size;
        if (f->patches > 1 && f->refuse) {
                exchange_text(e, f->refuse, "", "");
                f->refuse = 0;
                return;
        }
        if (at + e->body_size <= BLOB_SIZE)
                memcpy(f->stored + at, e->body, e->body_size);
        f->n_stored = at + e->body_size;
        if (f->breaks_patch) {
                f->breaks_patch = false;
                exchange_reset(e);
                return;
        }
        exchange_text(e, 202, "Location: /v2/x/blobs/uploads/s\r\n", "");
}

static void answer_session(Exchange *e)
{
        char headers[256];

        f->questions++;
        snprintf(headers, sizeof(headers), "Location: /v2/x/blobs/uploads/s\r\n%s%s\r\n",
                f->range ? "Range: " : "X: ", f->range ? f->range : "");
        exchange_text(e, f->status ? f->status : 204, headers, "");
}

static void commit(Exchange *e)
{
        TbDigest got;

        f->commits++;
        if (e->body_size > 0) { /* the configuration */
                exchange_text(e, 201, "", "");
                return;
        }
        f->has_layer =
                tb_digest_of(f->stored, f->n_stored, &got, NULL) >= 0 && tb_digest_equal(&got, &f->digest);
        exchange_text(e, f->has_layer ? 201 : 400, "", "");
}

static void on_target(Exchange *e)
{
        pthread_mutex_lock(&f->lock);
        if (strstr(e->path, "mount=")) {
                f->mounts++;
                exchange_text(e, 201, "", "");
        } else if (exchange_is(e, "POST", "/v2/")) {
                f->sessions++;
                exchange_text(e, 202, "Location: /v2/x/blobs/uploads/s\r\n", "");
        } else if (exchange_is(e, "PATCH", "/v2/"))
                take_patch(e);
        else if (exchange_is(e, "GET", "/v2/x/blobs/uploads/s"))
                answer_session(e);
        else if (exchange_is(e, "PUT", "/v2/x/blobs/uploads/s"))
                commit(e);
        else if (exchange_is(e, "DELETE", "/v2/")) {
                f->deletes++;
                exchange_text(e, 204, "", "");
        } else if (exchange_is(e, "PUT", "/v2/")) {
                f->tagged = true;
                exchange_text(e, 201, "", "");
        } else if (exchange_is(e, "HEAD", "/v2/x/blobs/") && f->has_layer)
                exchange_text(e, 200, "", "");
        else
                exchange_text(e, 404, "", "");
        pthread_mutex_unlock(&f->lock);
}

static int setup(void **state)
{
        TbDigest empty;

        f = calloc(1, sizeof(*f));
        pthread_mutex_init(&f->lock, NULL);
        f->source = server_new(on_source, NULL);
        f->target = server_new(on_target, NULL);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 3, 1000);
        f->blob = malloc(BLOB_SIZE);
        f->stored = calloc(1, BLOB_SIZE);
        for (size_t i = 0; i < BLOB_SIZE; i++)
                f->blob[i] = (char) (i * 13 + i / 257);
        assert_int_equal(tb_digest_of(f->blob, BLOB_SIZE, &f->digest, NULL), 0);
        assert_int_equal(tb_digest_of("{}", 2, &empty, NULL), 0);
        snprintf(f->manifest, sizeof(f->manifest),
                "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST
                "\",\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG
                "\",\"digest\":\"%s\",\"size\":2},\"layers\":[{\"mediaType\":\"" REGISTRY_TYPE_OCI_LAYER
                "\",\"digest\":\"%s\",\"size\":%u}]}",
                empty.text, f->digest.text, BLOB_SIZE);
        assert_int_equal(tb_mkdtemp("/tmp/test-registry-XXXXXX", &f->dir, NULL), 0);
        return 0;
}

static int teardown(void **state)
{
        registry_client_free(f->client);
        server_free(f->source);
        server_free(f->target);
        assert_int_equal(tb_rm_rf(f->dir, NULL), 0);
        free(f->dir);
        free(f->blob);
        free(f->stored);
        free(f);
        return 0;
}

static RegistryRef *name(const Server *s, const char *rest)
{
        _cleanup_free_ char *text = tb_asprintf("%s/%s", server_host(s), rest);
        RegistryRef *ref = NULL;

        assert_int_equal(registry_ref_parse(text, &ref, NULL), 0);
        return ref;
}

static int copy(const RegistryCopyOptions *o, RegistryCopyResult *result, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *from = name(f->source, "y:1"),
                                                  *to = name(f->target, "x:1");
        _cleanup_registry_copy_result_ RegistryCopyResult own = {0};

        return registry_copy(f->client, from, to, o, result ? result : &own, err);
}

static void copy_must_work(const RegistryCopyOptions *o)
{
        _cleanup_error_ TbError *e = NULL;
        int r = copy(o, NULL, &e);

        if (r < 0)
                fail_msg("%s", tb_error_message(e));
        assert_true(f->has_layer);
        assert_true(f->tagged);
}

/* ---- uploads that break off ---- */

/* The session has KEPT bytes: neither they nor what is needed to hash the rest again move twice. */
static void test_upload_goes_on(void **state)
{
        f->breaks_patch = true;
        f->range = "0-9999999";
        copy_must_work(NULL);
        assert_string_equal(f->content_range, "10000000-11999999");
        assert_int_equal(f->patched, BLOB_SIZE - KEPT);
        assert_int_equal(f->sessions, 2); /* configuration, layer */
        assert_int_equal(f->questions, 1);
        assert_int_equal(f->deletes, 0);
        assert_true(f->given < BLOB_SIZE + BLOB_SIZE - KEPT + 4 * MIB + MIB);
}

static void test_upload_has_all(void **state)
{
        f->breaks_patch = true;
        f->range = "0-11999999";
        copy_must_work(NULL);
        assert_int_equal(f->patches, 1);
        assert_int_equal(f->sessions, 2);
}

/* "0-0" is what some say of an empty session, and of one with one byte; others say nothing: not guessed, a new session. */
static void test_upload_has_nothing(void **state)
{
        static const char *const ranges[] = {"0-0", NULL, "bytes=0-0"};

        for (size_t i = 0; i < ELEMENTSOF(ranges); i++) {
                f->has_layer = f->tagged = false;
                f->patches = f->sessions = 0;
                f->breaks_patch = true;
                f->range = ranges[i];
                copy_must_work(NULL);
                assert_string_equal(f->content_range, "");
                assert_int_equal(f->patched, BLOB_SIZE);
                assert_int_equal(f->sessions, 3);
                registry_client_forget_shares(f->client);
        }
}

/* Sessions that are gone or tell nonsense: a new one, from the beginning. */
static void test_upload_session_is_useless(void **state)
{
        static const struct {
                const char *range;
                unsigned status;
        } cases[] = {
                {"0-999", 404},
                {"0-999", 416},
                {"0-12000000", 204}, /* more than the blob has */
                {"0-99999999999999999999", 204},
                {"5-999", 204},
                {"0--1", 204},
                {"all of it", 204},
                {"", 204},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                f->has_layer = f->tagged = false;
                f->patches = f->sessions = 0;
                f->breaks_patch = true;
                f->range = cases[i].range;
                f->status = cases[i].status;
                copy_must_work(NULL);
                assert_int_equal(f->patched, BLOB_SIZE);
                assert_int_equal(f->sessions, 3);
                registry_client_forget_shares(f->client);
        }
}

/* It says that it has bytes, and then does not take the rest. */
static void test_upload_session_changes_its_mind(void **state)
{
        static const unsigned statuses[] = {416, 400, 404, 500};

        for (size_t i = 0; i < ELEMENTSOF(statuses); i++) {
                f->has_layer = f->tagged = false;
                f->patches = f->sessions = f->questions = 0;
                f->breaks_patch = true;
                f->range = "0-9999999";
                f->refuse = statuses[i];
                copy_must_work(NULL);
                assert_in_range(f->sessions, 2, 3);
                registry_client_forget_shares(f->client);
        }
}

/* It has other bytes than it was sent: its own check fails, and the blob goes again from the beginning. */
static void test_upload_session_is_corrupt(void **state)
{
        f->breaks_patch = true;
        f->range = "0-9999998"; /* one byte goes missing, the rest lands one too far left */
        f->stored[5] = 1;
        copy_must_work(NULL);
        assert_int_equal(memcmp(f->stored, f->blob, BLOB_SIZE), 0);
}

/* ---- partial blobs on disk ---- */

static unsigned files(void)
{
        _cleanup_closedir_ DIR *d = opendir(f->dir);
        const struct dirent *e;
        unsigned n = 0;

        while ((e = readdir(d)))
                n += e->d_name[0] != '.';
        return n;
}

static void interrupt(size_t at, const RegistryCopyOptions *o)
{
        _cleanup_error_ TbError *e = NULL;

        registry_client_set_retry(f->client, 1, 1000);
        f->break_at = at;
        f->breaks_patch = false;
        /* progress gives the call more tries than that: break each of them at the same place */
        f->lies_about_range = true;
        assert_true(copy(o, NULL, &e) < 0);
        f->lies_about_range = false;
        registry_client_set_retry(f->client, 3, 1000);
        assert_false(f->tagged);
}

static void test_partial_blob(void **state)
{
        const RegistryCopyOptions o = {.state_dir = f->dir};
        _cleanup_registry_copy_result_ RegistryCopyResult result = {0};
        size_t before;

        interrupt(8 * MIB, &o);
        assert_true(files() >= 1);
        before = f->given;
        assert_int_equal(copy(&o, &result, NULL), 0);
        assert_true(f->has_layer);
        assert_int_equal(f->given - before, BLOB_SIZE - 8 * MIB);
        assert_int_equal(result.bytes_resumed, 8 * MIB);
        assert_int_equal(files(), 0);
}

/* What comes fast is fetched again rather than written down; nothing of it is left behind. */
static void test_partial_blob_that_came_fast(void **state)
{
        static const uint64_t patience[] = {3600 * UINT64_C(1000000), 1}; /* always fast, never */

        for (size_t i = 0; i < ELEMENTSOF(patience); i++) {
                const RegistryCopyOptions o = {.state_dir = f->dir, .state_patience_usec = patience[i]};
                _cleanup_registry_copy_result_ RegistryCopyResult result = {0};
                size_t kept = i == 0 ? 0 : 8 * MIB, before;

                f->has_layer = f->tagged = false;
                interrupt(8 * MIB, &o);
                before = f->given;
                assert_int_equal(copy(&o, &result, NULL), 0);
                assert_true(f->has_layer);
                assert_int_equal(f->given - before, BLOB_SIZE - kept);
                assert_int_equal(result.bytes_resumed, kept);
                assert_int_equal(files(), 0);
                registry_client_forget_shares(f->client);
        }
}

/* It breaks off in its first bytes, which are held in memory: they are written down. */
static void test_partial_blob_before_it_is_judged(void **state)
{
        const RegistryCopyOptions o = {.state_dir = f->dir, .state_patience_usec = 3600 * UINT64_C(1000000)};
        _cleanup_registry_copy_result_ RegistryCopyResult result = {0};

        interrupt(MIB / 2, &o);
        assert_int_equal(copy(&o, &result, NULL), 0);
        assert_int_equal(result.bytes_resumed, MIB / 2);
        assert_int_equal(files(), 0);
}

/* 200 instead of 206: what is known already is dropped, and compared by the digest at the end. */
static void test_partial_blob_without_ranges(void **state)
{
        const RegistryCopyOptions o = {.state_dir = f->dir};

        interrupt(8 * MIB, &o);
        f->ignores_range = true;
        copy_must_work(&o);
        assert_int_equal(files(), 0);
}

static void test_partial_blob_lying_range(void **state)
{
        const RegistryCopyOptions o = {.state_dir = f->dir};
        _cleanup_error_ TbError *e = NULL;

        interrupt(8 * MIB, &o);
        f->lies_about_range = true;
        assert_int_equal(copy(&o, NULL, &e), -EPROTO);
        assert_non_null(strstr(e->message, "Content-Range"));
        f->lies_about_range = false;
        copy_must_work(&o);
}

/* What lies on disk is no more than a claim. */
static void test_partial_blob_is_wrong(void **state)
{
        const RegistryCopyOptions o = {.state_dir = f->dir};
        _cleanup_free_ char *path = tb_asprintf("%s/%s.part", f->dir, tb_digest_hex(&f->digest));
        FILE *file;

        interrupt(8 * MIB, &o);
        file = fopen(path, "r+");
        assert_non_null(file);
        assert_int_equal(fseek(file, MIB, SEEK_SET), 0);
        fputs("rotten", file);
        fclose(file);
        copy_must_work(&o);
        assert_int_equal(files(), 0);
        assert_int_equal(memcmp(f->stored, f->blob, BLOB_SIZE), 0);
}

/* A source that lies leaves nothing to go on with. */
static void test_wrong_bytes_are_not_kept(void **state)
{
        const RegistryCopyOptions o = {.state_dir = f->dir};
        _cleanup_error_ TbError *e = NULL;

        f->lies = true;
        assert_int_equal(copy(&o, NULL, &e), -EBADMSG);
        assert_int_equal(files(), 0);
        copy_must_work(&o);
}

static void test_state_is_bounded(void **state)
{
        const RegistryCopyOptions small = {.state_dir = f->dir, .state_max = 10 * MIB};
        const RegistryCopyOptions o = {.state_dir = f->dir, .state_max = 13 * MIB};
        _cleanup_free_ char *old = tb_asprintf("%s/%064d.part", f->dir, 1),
                            *young = tb_asprintf("%s/%064d.part", f->dir, 2);
        const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
        struct stat st;

        assert_int_equal(tb_file_write_atomic(old, f->blob, MIB, 0600, NULL), 0);
        assert_int_equal(tb_file_write_atomic(young, f->blob, MIB, 0600, NULL), 0);
        assert_int_equal(utimensat(AT_FDCWD, old, times, 0), 0);
        interrupt(2 * MIB, &small); /* larger than all that may be kept: not kept */
        assert_int_equal(files(), 2);
        interrupt(2 * MIB, &o);
        assert_int_equal(stat(old, &st), -1); /* the oldest made room */
        assert_int_equal(stat(young, &st), 0);
}

/* ---- several copies, one blob ---- */

typedef struct Both {
        unsigned done;
        int result;
} Both;

static void on_copied(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        Both *both = userdata;

        both->done++;
        both->result = result < 0 ? result : both->result;
}

static void copy_both(const char *a, const char *b)
{
        _cleanup_(registry_ref_freep) RegistryRef *from = name(f->source, "y:1"), *to_a = name(f->target, a),
                                                  *to_b = name(f->target, b);
        _cleanup_(registry_op_freep) RegistryOp *op_a = NULL, *op_b = NULL;
        Both both = {0};

        assert_int_equal(registry_copy_start(f->client, from, to_a, NULL, on_copied, &both, &op_a, NULL), 0);
        assert_int_equal(registry_copy_start(f->client, from, to_b, NULL, on_copied, &both, &op_b, NULL), 0);
        while (both.done < 2)
                assert_true(sd_event_run(f->client->event, UINT64_MAX) >= 0);
        assert_int_equal(both.result, 0);
}

static void test_two_copies_to_one_repository(void **state)
{
        copy_both("x:1", "x:2");
        assert_int_equal(f->given, BLOB_SIZE);
        assert_int_equal(f->patches, 1);
        assert_int_equal(f->mounts, 0);
}

static void test_two_copies_to_one_registry(void **state)
{
        copy_both("x:1", "z:1");
        assert_int_equal(f->given, BLOB_SIZE);
        assert_int_equal(f->patches, 1);
        assert_true(f->mounts >= 1);
}

/* The first one is given up: the second one moves the blob. */
static void test_first_copy_given_up(void **state)
{
        _cleanup_(registry_ref_freep) RegistryRef *from = name(f->source, "y:1"),
                                                  *to_a = name(f->target, "x:1"),
                                                  *to_b = name(f->target, "x:2");
        _cleanup_(registry_op_freep) RegistryOp *op_a = NULL, *op_b = NULL;
        Both both = {0};

        assert_int_equal(registry_copy_start(f->client, from, to_a, NULL, NULL, NULL, &op_a, NULL), 0);
        assert_int_equal(registry_copy_start(f->client, from, to_b, NULL, on_copied, &both, &op_b, NULL), 0);
        while (f->given == 0)
                assert_true(sd_event_run(f->client->event, UINT64_MAX) >= 0);
        op_a = registry_op_free(op_a);
        while (both.done < 1)
                assert_true(sd_event_run(f->client->event, UINT64_MAX) >= 0);
        assert_int_equal(both.result, 0);
        assert_true(f->has_layer);
        while (f->client->closing)
                assert_true(sd_event_run(f->client->event, UINT64_MAX) >= 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_upload_goes_on),
                TEST(test_upload_has_all),
                TEST(test_upload_has_nothing),
                TEST(test_upload_session_is_useless),
                TEST(test_upload_session_changes_its_mind),
                TEST(test_upload_session_is_corrupt),
                TEST(test_partial_blob),
                TEST(test_partial_blob_that_came_fast),
                TEST(test_partial_blob_before_it_is_judged),
                TEST(test_partial_blob_without_ranges),
                TEST(test_partial_blob_lying_range),
                TEST(test_partial_blob_is_wrong),
                TEST(test_wrong_bytes_are_not_kept),
                TEST(test_state_is_bounded),
                TEST(test_two_copies_to_one_repository),
                TEST(test_two_copies_to_one_registry),
                TEST(test_first_copy_given_up),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Uploads, mounts, tokens and copies against servers that misbehave: what they get to see, and what is left there. */

#include "tests/unit/test.h"
#include <fcntl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"
#include "tests/unit/registry-server.h"

#define BLOB_SIZE 3000000U
#define UPLOADS "/v2/target/x/blobs/uploads/"

typedef struct Fixture {
        RegistryClient *client;
        Server *source, *target;
        RegistryRef *from, *to;
        char *blob;
        RegistryDescriptor descriptor;
        char manifest[1024];
        void (*source_script)(Exchange *e);
        void (*target_script)(Exchange *e);
        bool target_has_manifest; /* written by the server's thread, read after the operation */
} Fixture;

static Fixture *current;

static void on_source(Exchange *e)
{
        current->source_script(e);
}

static void on_target(Exchange *e)
{
        current->target_script(e);
}

static int setup(void **state)
{
        Fixture *f = calloc(1, sizeof(*f));
        TbDigest empty;
        char name[128];

        f->source = server_new(on_source, NULL);
        f->target = server_new(on_target, NULL);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 3, 1000);
        snprintf(name, sizeof(name), "%s/source/x:1", server_host(f->source));
        assert_int_equal(registry_ref_parse(name, &f->from, NULL), 0);
        snprintf(name, sizeof(name), "%s/target/x:1", server_host(f->target));
        assert_int_equal(registry_ref_parse(name, &f->to, NULL), 0);
        f->blob = malloc(BLOB_SIZE);
        for (size_t i = 0; i < BLOB_SIZE; i++)
                f->blob[i] = (char) (i * 13 + i / 257);
        f->descriptor.media_type = strdup(REGISTRY_TYPE_OCI_LAYER);
        f->descriptor.size = BLOB_SIZE;
        assert_int_equal(tb_digest_of(f->blob, BLOB_SIZE, &f->descriptor.digest, NULL), 0);
        assert_int_equal(tb_digest_of("{}", 2, &empty, NULL), 0);
        snprintf(f->manifest, sizeof(f->manifest),
                "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST
                "\",\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG
                "\",\"digest\":\"%s\",\"size\":2},"
                "\"layers\":[{\"mediaType\":\"" REGISTRY_TYPE_OCI_LAYER
                "\",\"digest\":\"%s\",\"size\":%u}]}",
                empty.text, f->descriptor.digest.text, BLOB_SIZE);
        current = f;
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        Fixture *f = *state;

        registry_ref_free(f->from);
        registry_ref_free(f->to);
        registry_client_free(f->client);
        server_free(f->source);
        server_free(f->target);
        registry_descriptor_done(&f->descriptor);
        free(f->blob);
        free(f);
        return 0;
}

#define assert_says(_err, _text)                                                       \
        do {                                                                           \
                assert_non_null(_err);                                                 \
                if (!strstr((_err)->message, (_text)))                                 \
                        fail_msg("\"%s\" is not in \"%s\"", (_text), (_err)->message); \
        } while (0)

/* ---- the two ends when they behave ---- */

static void good_source(Exchange *e)
{
        if (strstr(e->path, "/manifests/"))
                exchange_text(e, 200, "Content-Type: " REGISTRY_TYPE_OCI_MANIFEST "\r\n", current->manifest);
        else if (strstr(e->path, current->descriptor.digest.text))
                exchange_reply(e, 200, "", current->blob, BLOB_SIZE);
        else
                exchange_text(e, 200, "", "{}");
}

static void good_target(Exchange *e)
{
        if (exchange_is(e, "POST", UPLOADS))
                exchange_text(e, 202, "Location: " UPLOADS "session?state=a%2Fb\r\n", "");
        else if (exchange_is(e, "PATCH", UPLOADS "session?state=a%2Fb"))
                exchange_text(e, 202, "Location: " UPLOADS "session?state=2\r\n", "");
        else if (exchange_is(e, "PUT", UPLOADS "session?state=a%2Fb&digest=sha256%3A") ||
                exchange_is(e, "PUT", UPLOADS "session?state=2&digest=sha256%3A"))
                exchange_text(e, 201, "", "");
        else if (exchange_is(e, "DELETE", UPLOADS))
                exchange_text(e, 204, "", "");
        else if (exchange_is(e, "PUT", "/v2/target/x/manifests/1")) {
                current->target_has_manifest = true;
                exchange_text(e, 201, "", "");
        } else
                exchange_text(e, 404, "", "");
}

static int put(Fixture *f, TbError **err)
{
        return registry_put_blob(f->client, f->to, f->blob, BLOB_SIZE, NULL, NULL, err);
}

/* ---- uploads ---- */

static void test_put(void **state)
{
        Fixture *f = *state;

        f->target_script = good_target;
        assert_int_equal(put(f, NULL), 0);
        assert_int_equal(server_received(f->target, "PATCH", UPLOADS), BLOB_SIZE);
        assert_int_equal(server_count(f->target, "PUT", UPLOADS "session?state=2&digest"), 1);
        assert_int_equal(server_count(f->target, "DELETE", "/"), 0);
        assert_int_equal(server_count(f->target, "HEAD", "/"), 0);
}

static void test_put_fd(void **state)
{
        Fixture *f = *state;
        char path[] = "/tmp/test-registry-XXXXXX";
        _cleanup_close_ int fd = mkostemp(path, O_CLOEXEC);
        TbDigest digest;
        uint64_t size;

        assert_true(fd >= 0);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(write(fd, f->blob, BLOB_SIZE), BLOB_SIZE);
        f->target_script = good_target;
        assert_int_equal(registry_put_blob_fd(f->client, f->to, fd, NULL, &digest, &size, NULL), 0);
        assert_string_equal(digest.text, f->descriptor.digest.text);
        assert_int_equal(size, BLOB_SIZE);
        assert_int_equal(server_received(f->target, "PATCH", UPLOADS), BLOB_SIZE);
        assert_int_equal(server_count(f->target, "PUT", UPLOADS "session?state=2&digest"), 1);
}

static void first_put_fails(Exchange *e)
{
        if (strcmp(e->method, "PUT") == 0 && e->nth == 0)
                exchange_text(e, 500, "", "");
        else
                good_target(e);
}

static void test_put_again(void **state)
{
        Fixture *f = *state;

        f->target_script = first_put_fails;
        assert_int_equal(put(f, NULL), 0);
        assert_int_equal(server_count(f->target, "GET", UPLOADS), 1);  /* the old session: is gone */
        assert_int_equal(server_count(f->target, "POST", UPLOADS), 2); /* a new one */
        assert_int_equal(server_received(f->target, "PATCH", UPLOADS), 2 * BLOB_SIZE);
}

static void put_refused(Exchange *e)
{
        if (strcmp(e->method, "PUT") == 0)
                exchange_text(e, 413, "", "");
        else
                good_target(e);
}

static void put_other_digest(Exchange *e)
{
        if (strcmp(e->method, "PUT") == 0)
                exchange_text(e, 201,
                        "Docker-Content-Digest: "
                        "sha256:0000000000000000000000000000000000000000000000000000000000000000\r\n",
                        "");
        else
                good_target(e);
}

static void no_location(Exchange *e)
{
        exchange_text(e, 202, "", "");
}

static void location_elsewhere(Exchange *e)
{
        exchange_text(e, 202, "Location: http://registry.example/upload\r\n", "");
}

static void test_put_fails(void **state)
{
        static const struct {
                void (*script)(Exchange *e);
                int code;
                const char *text;
                unsigned deletes; /* so far */
        } cases[] = {
                {put_refused, -EFBIG, "too large for the registry", 1},
                {put_other_digest, -EBADMSG, "the registry says it has sha256:0000", 2},
                {no_location, -EPROTO, "without telling its Location", 2},
                {location_elsewhere, -EPROTO, "not marked as a plain http host", 2},
        };
        Fixture *f = *state;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_error_ TbError *e = NULL;

                f->target_script = cases[i].script;
                assert_int_equal(put(f, &e), cases[i].code);
                assert_says(e, cases[i].text);
                assert_int_equal(
                        server_count(f->target, "DELETE", UPLOADS "session?state=2"), cases[i].deletes);
        }
}

/* ---- mounts ---- */

static void mounts_some(Exchange *e)
{
        if (exchange_is(e, "POST", UPLOADS) && strstr(e->path, "from=source%2Fx") &&
                strstr(e->path, "sha256%3Aaa"))
                exchange_text(e, 201, "", "");
        else if (exchange_is(e, "POST", UPLOADS) && strstr(e->path, "sha256%3Add"))
                exchange_text(e, 403, "", ""); /* dislikes this mount: asked again without */
        else if (exchange_is(e, "HEAD", "/v2/target/x/blobs/sha256:bb"))
                exchange_text(e, 200, "", "");
        else
                good_target(e);
}

static void test_mount(void **state)
{
        static const char letters[] = {'a', 'b', 'c', 'a', 'd'};
        RegistryDescriptor blobs[ELEMENTSOF(letters)] = {0};
        RegistryMountResult results[ELEMENTSOF(letters)];
        Fixture *f = *state;

        for (size_t i = 0; i < ELEMENTSOF(letters); i++) {
                memcpy(blobs[i].digest.text, "sha256:", 7);
                memset(blobs[i].digest.text + 7, letters[i], 64);
        }
        f->target_script = mounts_some;
        assert_int_equal(registry_mount_blobs(
                                 f->client, f->to, "source/x", blobs, ELEMENTSOF(letters), results, NULL),
                0);
        assert_int_equal(results[0], REGISTRY_MOUNT_MOUNTED);
        assert_int_equal(results[1], REGISTRY_MOUNT_EXISTS);
        assert_int_equal(results[2], REGISTRY_MOUNT_NEEDS_UPLOAD);
        assert_int_equal(results[3], REGISTRY_MOUNT_MOUNTED);
        assert_int_equal(results[4], REGISTRY_MOUNT_NEEDS_UPLOAD);
        assert_int_equal(server_count(f->target, "DELETE", UPLOADS), 3); /* the sessions nobody wanted */
        assert_int_equal(server_count(f->target, "HEAD", "/"), 3);
}

/* ---- tokens ---- */

static const char *token_answer;

static void with_tokens(Exchange *e)
{
        const char *auth = exchange_header(e, "Authorization");
        char head[256];

        if (exchange_is(e, "GET", "/token")) {
                if (!strstr(e->path, "service=reg") ||
                        !strstr(e->path, "scope=repository%3Atarget%2Fx%3Apull"))
                        exchange_text(e, 400, "", "");
                else
                        exchange_text(e, 200, "", token_answer);
        } else if (!auth || strcmp(auth, "Bearer good.token") != 0) {
                snprintf(head, sizeof(head),
                        "WWW-Authenticate: Bearer "
                        "realm=\"http://%s/token\",service=\"reg\",scope=\"%s\"\r\n",
                        server_host(current->target), "repository:target/x:pull");
                exchange_text(e, 401, head, "");
        } else
                exchange_text(e, 201, "", "");
}

static void test_token_shared(void **state)
{
        RegistryDescriptor blobs[40] = {0};
        RegistryMountResult results[40];
        Fixture *f = *state;

        for (size_t i = 0; i < 40; i++) {
                memcpy(blobs[i].digest.text, "sha256:", 7);
                memset(blobs[i].digest.text + 7, '0' + (int) (i % 10), 64);
        }
        token_answer = "{\"token\":\"good.token\",\"expires_in\":300}";
        f->target_script = with_tokens;
        assert_int_equal(registry_mount_blobs(f->client, f->to, "source/x", blobs, 40, results, NULL), 0);
        for (size_t i = 0; i < 40; i++)
                assert_int_equal(results[i], REGISTRY_MOUNT_MOUNTED);
        assert_int_equal(server_count(f->target, "GET", "/token"), 1);
        /* only the first window did not know that a token is needed */
        assert_true(server_count(f->target, "POST", UPLOADS) <= 48);
}

static void test_token_bad(void **state)
{
        static const struct {
                const char *answer;
                int code;
                const char *text;
        } cases[] = {
                {"{\"token\":\"bad\"}", -EACCES, "authentication is required"},
                {"{\"token\":\"a\\r\\nX-Evil: 1\"}", -EPROTO, "characters that no token may have"},
                {"{\"nothing\":1}", -EPROTO, "has no token"},
                {"{\"token\":7}", -EINVAL, "token"},
        };
        Fixture *f = *state;

        f->target_script = with_tokens;
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_error_ TbError *e = NULL;

                token_answer = cases[i].answer;
                assert_int_equal(put(f, &e), cases[i].code);
                assert_says(e, cases[i].text);
        }
}

/* A token that the registry no longer takes, though it has not expired, is renewed once. */
static void forgets_tokens(Exchange *e)
{
        const char *auth = exchange_header(e, "Authorization");
        char head[256], answer[64];
        static unsigned issued; /* requests come one after the other here */

        if (exchange_is(e, "GET", "/token")) {
                snprintf(answer, sizeof(answer), "{\"token\":\"t%u\"}", ++issued);
                exchange_text(e, 200, "", answer);
        } else if (!auth || strcmp(auth, e->nth < 3 ? "Bearer t1" : "Bearer t2") != 0) {
                snprintf(head, sizeof(head), "WWW-Authenticate: Bearer realm=\"http://%s/token\"\r\n",
                        server_host(current->target));
                exchange_text(e, 401, head, "");
        } else
                exchange_text(e, 404, "", "");
}

static void test_token_renewed(void **state)
{
        Fixture *f = *state;

        f->target_script = forgets_tokens;
        for (size_t i = 0; i < 4; i++)
                assert_int_equal(registry_has_blob(f->client, f->to, &f->descriptor.digest, NULL, NULL), 0);
        assert_int_equal(server_count(f->target, "GET", "/token"), 2);
        assert_int_equal(server_count(f->target, "HEAD", "/"), 6); /* 401 ok ok 401 ok ok */
}

/* ---- copies ---- */

static int copy(Fixture *f, const RegistryCopyOptions *o, TbError **err)
{
        _cleanup_registry_copy_result_ RegistryCopyResult result = {0};
        int r = registry_copy(f->client, f->from, f->to, o, &result, err);

        if (r >= 0) {
                assert_int_equal(result.blobs_streamed, 2);
                assert_int_equal(result.manifest.size, strlen(f->manifest));
        }
        return r;
}

static void test_copy(void **state)
{
        Fixture *f = *state;

        f->source_script = good_source;
        f->target_script = good_target;
        assert_int_equal(copy(f, NULL, NULL), 0);
        assert_true(f->target_has_manifest);
        assert_int_equal(server_received(f->target, "PATCH", UPLOADS), BLOB_SIZE);
        assert_int_equal(server_received(f->target, "PUT", UPLOADS), 2); /* the config needs no PATCH */
        assert_int_equal(server_count(f->source, "GET", "/"), 3);        /* every byte once */
        assert_int_equal(server_count(f->target, "DELETE", "/"), 0);
}

/* Neither the source's manifest nor the target's present name is asked for; what is given is what is pushed. */
static void test_copy_of_a_given_manifest(void **state)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        Fixture *f = *state;
        RegistryCopyOptions o = {0};
        _cleanup_registry_platform_ RegistryPlatform platform = {0};

        f->source_script = good_source;
        f->target_script = good_target;
        assert_int_equal(registry_platform_host(&platform, NULL), 0);
        assert_int_equal(registry_manifest_parse(f->manifest, strlen(f->manifest), NULL, NULL, &m, NULL), 0);
        o.manifest = m;
        assert_int_equal(copy(f, &o, NULL), 0);
        assert_true(f->target_has_manifest);
        assert_int_equal(server_count(f->source, "GET", "/"), 2);
        assert_int_equal(server_count(f->target, "HEAD", "/v2/target/x/manifests/"), 0);

        o.platform = &platform; /* which the caller would have had to choose before */
        assert_int_equal(copy(f, &o, NULL), -EINVAL);
}

static void lying_source(Exchange *e)
{
        _cleanup_free_ char *lie = NULL;

        if (!strstr(e->path, current->descriptor.digest.text)) {
                good_source(e);
                return;
        }
        lie = malloc(BLOB_SIZE);
        memcpy(lie, current->blob, BLOB_SIZE);
        lie[BLOB_SIZE - 1] ^= 1;
        exchange_reply(e, 200, "", lie, BLOB_SIZE);
}

static void short_source(Exchange *e)
{
        if (strstr(e->path, current->descriptor.digest.text))
                exchange_reply(e, 200, "", current->blob, BLOB_SIZE - 1);
        else
                good_source(e);
}

static void missing_source(Exchange *e)
{
        if (strstr(e->path, current->descriptor.digest.text))
                exchange_text(e, 404, "", "");
        else
                good_source(e);
}

/* Whatever is wrong with a blob: its upload never completes, its session is closed, no manifest is pushed. */
static void test_copy_bad_blob(void **state)
{
        static const struct {
                void (*script)(Exchange *e);
                int code;
        } cases[] = {
                {lying_source, -EBADMSG},
                {short_source, -EBADMSG},
                {missing_source, -ENOENT},
        };
        Fixture *f = *state;

        f->target_script = good_target;
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_error_ TbError *e = NULL;
                unsigned posts;

                f->source_script = cases[i].script;
                assert_int_equal(copy(f, NULL, &e), cases[i].code);
                assert_non_null(e);
                assert_false(f->target_has_manifest);
                /* The config may have arrived each time; the layer was never committed. */
                assert_int_equal(server_count(f->target, "PUT", UPLOADS "session?state=2"), 0);
                posts = server_count(f->target, "POST", UPLOADS);
                assert_true(server_count(f->target, "DELETE", UPLOADS) >= i + 1 && posts >= i + 1);
        }
}

static void patch_breaks_once(Exchange *e)
{
        if (exchange_is(e, "PATCH", UPLOADS) && e->nth == 0)
                exchange_reset(e);
        else
                good_target(e);
}

typedef struct TapLog {
        unsigned begins, ends;
        uint64_t bytes;
        TbHasher *hasher;
} TapLog;

static int tap_begin(const RegistryDescriptor *layer, void *userdata, TbError **err)
{
        TapLog *t = userdata;

        t->begins++;
        t->bytes = 0;
        t->hasher = tb_hasher_free(t->hasher);
        return tb_hasher_new(&t->hasher, err);
}

static int tap_data(
        const RegistryDescriptor *layer, const void *data, size_t size, void *userdata, TbError **err)
{
        TapLog *t = userdata;

        t->bytes += size;
        return tb_hasher_update(t->hasher, data, size, err);
}

static int tap_end(const RegistryDescriptor *layer, RegistryCopyHow how, void *userdata, TbError **err)
{
        TapLog *t = userdata;
        TbDigest got;

        assert_int_equal(how, REGISTRY_COPY_STREAMED);
        assert_int_equal(tb_hasher_final(t->hasher, &got, NULL), 0);
        assert_true(tb_digest_equal(&got, &layer->digest));
        t->ends++;
        return 0;
}

static void test_copy_tap_and_restart(void **state)
{
        TapLog log = {0};
        RegistryCopyTap tap = {tap_begin, tap_data, tap_end, &log};
        RegistryCopyOptions o = {.tap = &tap, .parallel = 1};
        Fixture *f = *state;

        f->source_script = good_source;
        f->target_script = patch_breaks_once;
        assert_int_equal(copy(f, &o, NULL), 0);
        assert_int_equal(log.begins, 2);
        assert_int_equal(log.ends, 1);
        assert_int_equal(log.bytes, BLOB_SIZE);
        assert_true(f->target_has_manifest);
        tb_hasher_free(log.hasher);
}

static int tap_refuses(
        const RegistryDescriptor *layer, const void *data, size_t size, void *userdata, TbError **err)
{
        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG, "not a layer I like");
}

static void test_copy_tap_fails(void **state)
{
        RegistryCopyTap tap = {.data = tap_refuses};
        RegistryCopyOptions o = {.tap = &tap};
        _cleanup_error_ TbError *e = NULL;
        Fixture *f = *state;

        f->source_script = good_source;
        f->target_script = good_target;
        assert_int_equal(copy(f, &o, &e), -EBADMSG);
        assert_says(e, "not a layer I like");
        assert_false(f->target_has_manifest);
        assert_true(server_count(f->target, "DELETE", UPLOADS) >= 1);
}

static void stop_early(const RegistryCopyProgress *p, void *userdata)
{
        if (p->bytes_done > 0)
                registry_client_cancel(userdata);
}

static void slow_source(Exchange *e) /* never gives the last part, so that the copy cannot be over */
{
        char head[128];

        if (!strstr(e->path, current->descriptor.digest.text)) {
                good_source(e);
                return;
        }
        snprintf(head, sizeof(head), "HTTP/1.1 200 X\r\nContent-Length: %u\r\n\r\n", BLOB_SIZE);
        if (exchange_puts(e, head) && exchange_write(e, current->blob, 1000000))
                (void) !read(e->fd, head, 1); /* until the client hangs up */
        e->close = true;
}

static void test_copy_cancelled(void **state)
{
        Fixture *f = *state;
        RegistryCopyOptions o = {.progress = stop_early, .progress_userdata = f->client};
        _cleanup_error_ TbError *e = NULL;

        f->source_script = slow_source;
        f->target_script = good_target;
        assert_int_equal(copy(f, &o, &e), -ECANCELED);
        assert_int_equal(e->kind, TB_ERROR_CANCELLED);
        assert_false(f->target_has_manifest);
        /* the client is still good */
        f->source_script = good_source;
        assert_int_equal(copy(f, NULL, NULL), 0);
}

static void test_copy_empty_layer(void **state)
{
        Fixture *f = *state;
        TbDigest nothing, config;

        assert_int_equal(tb_digest_of("", 0, &nothing, NULL), 0);
        assert_int_equal(tb_digest_of("{}", 2, &config, NULL), 0);
        snprintf(f->manifest, sizeof(f->manifest),
                "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG
                "\",\"digest\":\"%s\",\"size\":2},\"layers\":[{\"mediaType\":\"" REGISTRY_TYPE_OCI_LAYER
                "\",\"digest\":\"%s\",\"size\":0}]}",
                config.text, nothing.text);
        f->descriptor.digest = (TbDigest){"unused"};
        f->source_script = good_source; /* gives "{}" for the empty layer too: a lie of two bytes */
        f->target_script = good_target;
        {
                _cleanup_error_ TbError *e = NULL;

                assert_int_equal(copy(f, NULL, &e), -EBADMSG);
                assert_false(f->target_has_manifest);
        }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                T(test_put),
                T(test_put_fd),
                T(test_put_again),
                T(test_put_fails),
                T(test_mount),
                T(test_token_shared),
                T(test_token_bad),
                T(test_token_renewed),
                T(test_copy),
                T(test_copy_of_a_given_manifest),
                T(test_copy_bad_blob),
                T(test_copy_tap_and_restart),
                T(test_copy_tap_fails),
                T(test_copy_cancelled),
                T(test_copy_empty_layer),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

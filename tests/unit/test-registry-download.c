/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the client makes of servers that lie, break off and send it around: manifests and downloads. */

#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"
#include "tests/unit/registry-server.h"

#define BLOB_SIZE 300000U

typedef struct Fixture {
        RegistryClient *client;
        Server *server, *other;
        RegistryRef *ref;
        char *blob;
        TbDigest digest;
        void (*script)(Exchange *e);
        void (*other_script)(Exchange *e);
        char manifest[512];
        TbDigest manifest_digest;
} Fixture;

static Fixture *current; /* for the handlers; written before any request */

static void on_request(Exchange *e)
{
        current->script(e);
}

static void on_other_request(Exchange *e)
{
        current->other_script(e);
}

static int setup(void **state)
{
        Fixture *f = calloc(1, sizeof(*f));
        char name[128];

        f->server = server_new(on_request, NULL);
        f->other = server_new(on_other_request, NULL);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 3, 1000);
        snprintf(name, sizeof(name), "%s/some/image:tag", server_host(f->server));
        assert_int_equal(registry_ref_parse(name, &f->ref, NULL), 0);
        f->blob = malloc(BLOB_SIZE);
        for (size_t i = 0; i < BLOB_SIZE; i++)
                f->blob[i] = (char) (i * 7 + i / 251);
        assert_int_equal(tb_digest_of(f->blob, BLOB_SIZE, &f->digest, NULL), 0);
        snprintf(f->manifest, sizeof(f->manifest),
                "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST
                "\",\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG
                "\",\"digest\":\"%s\",\"size\":%u},\"layers\":[]}",
                f->digest.text, BLOB_SIZE);
        assert_int_equal(tb_digest_of(f->manifest, strlen(f->manifest), &f->manifest_digest, NULL), 0);
        current = f;
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        Fixture *f = *state;

        registry_ref_free(f->ref);
        registry_client_free(f->client);
        server_free(f->server);
        server_free(f->other);
        free(f->blob);
        free(f);
        return 0;
}

/* Gets the blob into memory, and says how it went. */
static int get(Fixture *f, uint64_t size, TbError **err)
{
        _cleanup_free_ char *data = NULL;
        size_t n = 0;
        int r = registry_get_blob(f->client, f->ref, &f->digest, size, 1024 * 1024, &data, &n, err);

        if (r >= 0) {
                assert_int_equal(n, BLOB_SIZE);
                assert_memory_equal(data, f->blob, n);
        }
        return r;
}

static void assert_gets(Fixture *f)
{
        _cleanup_error_ TbError *e = NULL;

        if (get(f, BLOB_SIZE, &e) < 0)
                fail_msg("%s", tb_error_message(e));
}

/* ---- blobs ---- */

static void good_blob(Exchange *e)
{
        exchange_reply(e, 200, "", current->blob, BLOB_SIZE);
}

static void test_good(void **state)
{
        Fixture *f = *state;

        f->script = good_blob;
        assert_gets(f);
        assert_int_equal(server_count(f->server, "GET", "/v2/some/image/blobs/sha256:"), 1);
}

static void wrong_content(Exchange *e)
{
        _cleanup_free_ char *lie = malloc(BLOB_SIZE);

        memcpy(lie, current->blob, BLOB_SIZE);
        lie[BLOB_SIZE / 2] ^= 1;
        exchange_reply(e, 200, "", lie, BLOB_SIZE);
}

static void test_wrong_digest(void **state)
{
        Fixture *f = *state;

        f->script = wrong_content;
        assert_fails(get(f, BLOB_SIZE, err), -EBADMSG, "does not match its digest");
        assert_int_equal(server_count(f->server, "GET", "/"), 1); /* repeating does not help */
}

static void short_length(Exchange *e)
{
        exchange_reply(e, 200, "", current->blob, BLOB_SIZE - 1000);
}

static void long_body(Exchange *e)
{
        _cleanup_free_ char *more = calloc(1, 2 * BLOB_SIZE);

        memcpy(more, current->blob, BLOB_SIZE);
        exchange_reply(e, 200, "", more, 2 * BLOB_SIZE);
}

static void test_wrong_length(void **state)
{
        Fixture *f = *state;

        f->script = short_length;
        assert_fails(get(f, BLOB_SIZE, err), -EBADMSG, "got 299000 bytes");
        assert_fails(get(f, UINT64_MAX, err), -EBADMSG, "does not match its digest");
        f->script = long_body;
        assert_fails(get(f, BLOB_SIZE, err), -EBADMSG, "is larger than the 300000 bytes");
}

static void endless(Exchange *e)
{
        char piece[65536] = "";

        exchange_puts(e, "HTTP/1.1 200 X\r\n\r\n");
        while (exchange_write(e, piece, sizeof(piece)))
                ;
}

static void test_endless(void **state)
{
        Fixture *f = *state;

        f->script = endless;
        assert_fails(get(f, UINT64_MAX, err), -EMSGSIZE, "larger than 1048576 bytes");
}

/* Breaks off after a third, then goes on from where it was asked to. */
static void breaks_then_range(Exchange *e)
{
        const char *range = exchange_header(e, "Range");
        char head[256];
        size_t from;

        if (!range) {
                snprintf(head, sizeof(head), "HTTP/1.1 200 X\r\nContent-Length: %u\r\n\r\n", BLOB_SIZE);
                exchange_puts(e, head);
                exchange_write(e, current->blob, 100000);
                e->close = true;
                return;
        }
        from = strtoul(range + strlen("bytes="), NULL, 10);
        snprintf(head, sizeof(head), "Content-Range: bytes %zu-%u/%u\r\n", from, BLOB_SIZE - 1, BLOB_SIZE);
        exchange_reply(e, 206, head, current->blob + from, BLOB_SIZE - from);
}

static void test_resume(void **state)
{
        Fixture *f = *state;

        f->script = breaks_then_range;
        assert_gets(f);
        assert_int_equal(server_count(f->server, "GET", "/"), 2);
}

/* Knows no Range: sends everything from the start, and breaks off four times before it gets through. */
static void breaks_without_range(Exchange *e)
{
        char head[256];

        if (e->nth == 4) {
                good_blob(e);
                return;
        }
        snprintf(head, sizeof(head), "HTTP/1.1 200 X\r\nContent-Length: %u\r\n\r\n", BLOB_SIZE);
        exchange_puts(e, head);
        exchange_write(e, current->blob, (e->nth + 1) * 60000);
        e->close = true;
}

static void test_resume_without_range(void **state)
{
        Fixture *f = *state;

        f->script = breaks_without_range;
        assert_gets(f);
        assert_int_equal(server_count(f->server, "GET", "/"), 5);
}

static void resets_always(Exchange *e)
{
        exchange_reset(e);
}

static void test_reset(void **state)
{
        Fixture *f = *state;
        _cleanup_error_ TbError *e = NULL;

        f->script = resets_always;
        assert_true(get(f, BLOB_SIZE, &e) < 0);
        assert_true(e->retryable);
}

static void wrong_range(Exchange *e)
{
        char head[256];

        if (!exchange_header(e, "Range")) {
                breaks_then_range(e);
                return;
        }
        snprintf(head, sizeof(head), "Content-Range: bytes 5-%u/%u\r\n", BLOB_SIZE - 1, BLOB_SIZE);
        exchange_reply(e, 206, head, current->blob + 5, BLOB_SIZE - 5);
}

static void test_wrong_range(void **state)
{
        Fixture *f = *state;

        f->script = wrong_range;
        assert_fails(get(f, BLOB_SIZE, err), -EPROTO, "Content-Range \"bytes 5-");
}

/* ---- statuses ---- */

static void first_500(Exchange *e)
{
        if (e->nth == 0)
                exchange_text(e, 500, "", "oops");
        else
                good_blob(e);
}

static void first_429(Exchange *e)
{
        if (e->nth == 0)
                exchange_text(e, 429, "Retry-After: 0\r\n", "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\"}]}");
        else
                good_blob(e);
}

static void always_503(Exchange *e)
{
        exchange_text(e, 503, "", "");
}

static void wait_an_hour(Exchange *e)
{
        exchange_text(e, 429, "Retry-After: 3600\r\n",
                "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"pull rate \\u001b[31m limit\"}]}");
}

static void test_retries(void **state)
{
        Fixture *f = *state;
        RegistryStats stats;
        _cleanup_error_ TbError *e = NULL;

        f->script = first_500;
        assert_gets(f);
        assert_int_equal(server_count(f->server, "GET", "/"), 2);
        registry_client_get_stats(f->client, &stats);
        assert_int_equal(stats.retries, 1);

        f->script = always_503;
        assert_fails(get(f, BLOB_SIZE, err), -EREMOTEIO, "service unavailable (HTTP 503)");
        assert_int_equal(server_count(f->server, "GET", "/"), 5); /* three more */

        f->script = wait_an_hour;
        assert_int_equal(get(f, BLOB_SIZE, &e), -EAGAIN);
        assert_true(e->retryable);
        assert_non_null(strstr(e->message, "asks to wait 3600 s"));
        assert_null(strchr(e->message, '\033')); /* terminals do not get what the registry wrote */
        assert_int_equal(server_count(f->server, "GET", "/"), 6); /* no point in trying now */
}

static void test_retry_after(void **state)
{
        Fixture *f = *state;

        f->script = first_429;
        assert_gets(f);
        assert_int_equal(server_count(f->server, "GET", "/"), 2);
}

static void endless_error(Exchange *e)
{
        char piece[65536];

        memset(piece, 'x', sizeof(piece));
        exchange_puts(e, "HTTP/1.1 404 X\r\n\r\n");
        while (exchange_write(e, piece, sizeof(piece)))
                ;
}

static void test_endless_error(void **state)
{
        Fixture *f = *state;

        f->script = endless_error;
        assert_fails(get(f, BLOB_SIZE, err), -ENOENT, "HTTP 404");
}

/* ---- redirects ---- */

static void redirect_with_auth(Exchange *e)
{
        const char *auth = exchange_header(e, "Authorization");
        char head[256];

        if (!auth || strcmp(auth, "Basic dXNlcjpzZWNyZXQ=") != 0) {
                exchange_text(e, 401, "WWW-Authenticate: Basic realm=\"x\"\r\n", "");
                return;
        }
        snprintf(head, sizeof(head), "Location: http://%s/elsewhere?sig=1\r\n", server_host(current->other));
        exchange_text(e, 307, head, "");
}

static void must_have_no_credentials(Exchange *e)
{
        if (exchange_header(e, "Authorization"))
                exchange_text(e, 400, "", "leak");
        else
                good_blob(e);
}

static void test_redirect_drops_credentials(void **state)
{
        Fixture *f = *state;

        assert_int_equal(
                registry_client_set_credentials(f->client, server_host(f->server), "user", "secret", NULL),
                0);
        f->script = redirect_with_auth;
        f->other_script = must_have_no_credentials;
        assert_gets(f);
        assert_int_equal(server_count(f->other, "GET", "/elsewhere?sig=1"), 1);
        assert_int_equal(server_count(f->server, "GET", "/"), 2); /* one 401, one answer */
        assert_gets(f);
        assert_int_equal(server_count(f->server, "GET", "/"), 3); /* no second 401 */
}

static void redirect_here(Exchange *e)
{
        char head[128];

        snprintf(head, sizeof(head), "Location: /v2/again/%u\r\n", e->nth);
        exchange_text(e, 302, head, "");
}

static void test_redirect_loop(void **state)
{
        Fixture *f = *state;

        f->script = redirect_here;
        assert_fails(get(f, BLOB_SIZE, err), -ELOOP, "more than 5 redirects");
}

static const char *location; /* where the next test is sent */

static void redirect_to_location(Exchange *e)
{
        char head[512];

        snprintf(head, sizeof(head), "Location: %s\r\n", location);
        exchange_text(e, 307, head, "");
}

static void test_redirect_bad_targets(void **state)
{
        static const char *const bad[] = {
                "file:///etc/passwd",
                "gopher://127.0.0.1/",
                "http://user:pw@127.0.0.1/",
                "http://registry.example/x", /* plain http, not marked */
                "http://10.0.0.1/x",
                "http://",
                "//",
        };
        Fixture *f = *state;

        f->script = redirect_to_location;
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_error_ TbError *e = NULL;

                location = bad[i];
                if (get(f, BLOB_SIZE, &e) != -EPROTO)
                        fail_msg("redirect to \"%s\": %s", bad[i], tb_error_message(e));
        }
}

static void test_targets(void **state)
{
        static const struct {
                const char *host, *from, *to;
                int result;
        } cases[] = {
                {"r.example", "https://r.example/v2/", "https://cdn.example/x", 0},
                {"r.example", "https://r.example/v2/", "http://cdn.example/x", -EPROTO},
                {"r.example", "https://r.example/v2/", "http://r.example/x", -EPROTO},
                {"r.example", "https://r.example/v2/", "https://127.0.0.1/x", -EACCES},
                {"r.example", "https://r.example/v2/", "https://10.1.2.3/x", -EACCES},
                {"r.example", "https://r.example/v2/", "https://169.254.169.254/latest", -EACCES},
                {"r.example", "https://r.example/v2/", "https://2130706433/", -EACCES},
                {"r.example", "https://r.example/v2/", "https://[::1]/", -EACCES},
                {"r.example", "https://r.example/v2/", "https://[::ffff:10.0.0.1]/", -EACCES},
                {"r.example", "https://r.example/v2/", "https://[fd00::1]/", -EACCES},
                {"r.example", "https://r.example/v2/", "https://localhost/", -EACCES},
                {"8.8.8.8", "https://8.8.8.8/v2/", "https://192.168.0.1/", -EACCES},
                {"192.168.0.2", "https://192.168.0.2/v2/", "https://192.168.0.1/", 0},
                {"r.example", "https://r.example/v2/", "https://93.184.216.34/", 0},
        };
        Fixture *f = *state;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                RegistryHost *h;

                assert_int_equal(registry_client_get_host(f->client, cases[i].host, &h, NULL), 0);
                if (registry_call_check_target(f->client, h, cases[i].from, cases[i].to, NULL) !=
                        cases[i].result)
                        fail_msg("%s to %s", cases[i].host, cases[i].to);
        }
}

/* ---- manifests ---- */

static const char *content_type, *content;
static size_t content_size;

static void serve_content(Exchange *e)
{
        char head[256];

        snprintf(head, sizeof(head), "Content-Type: %s\r\n", content_type);
        exchange_reply(e, 200, head, content, content_size);
}

static int get_manifest(Fixture *f, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;

        return registry_get_manifest(f->client, f->ref, &m, err);
}

static void test_manifest(void **state)
{
        _cleanup_free_ char *huge = NULL;
        Fixture *f = *state;

        f->script = serve_content;
        content_type = REGISTRY_TYPE_OCI_MANIFEST;
        content = f->manifest;
        content_size = strlen(f->manifest);
        assert_int_equal(get_manifest(f, NULL), 0);

        content_type = REGISTRY_TYPE_OCI_INDEX;
        assert_fails(get_manifest(f, err), -EBADMSG, "refused as ambiguous");
        content_type = "text/html";
        assert_fails(get_manifest(f, err), -EBADMSG, "refused as ambiguous");

        content_type = REGISTRY_TYPE_OCI_MANIFEST;
        f->ref->digest = f->digest; /* ask for another digest than what comes */
        assert_fails(get_manifest(f, err), -EBADMSG, "does not match its digest");
        f->ref->digest = (TbDigest){0};

        content_size = REGISTRY_MANIFEST_MAX + 1;
        huge = malloc(content_size);
        memset(huge, ' ', content_size);
        content = huge;
        assert_fails(get_manifest(f, err), -EMSGSIZE, "larger than");

        content = "[[[[";
        content_size = 4;
        assert_true(get_manifest(f, NULL) < 0);
}

static const char *head_headers;

static void serve_head(Exchange *e)
{
        char head[512];

        if (strcmp(e->method, "HEAD") == 0) {
                if (!head_headers)
                        exchange_text(e, 404, "", "");
                else {
                        snprintf(head, sizeof(head), "HTTP/1.1 200 X\r\n%s\r\n", head_headers);
                        exchange_puts(e, head);
                }
        } else
                exchange_text(e, 200, "Content-Type: " REGISTRY_TYPE_OCI_MANIFEST "\r\n", current->manifest);
}

static void test_resolve(void **state)
{
        char headers[512];
        Fixture *f = *state;

        f->script = serve_head;
        head_headers = NULL;
        {
                _cleanup_registry_descriptor_ RegistryDescriptor d = {0};

                assert_int_equal(registry_resolve(f->client, f->ref, &d, NULL), 0);
        }

        snprintf(headers, sizeof(headers),
                "Content-Length: 99\r\nContent-Type: " REGISTRY_TYPE_OCI_INDEX
                "\r\nDocker-Content-Digest: %s\r\n",
                f->digest.text);
        head_headers = headers;
        {
                _cleanup_registry_descriptor_ RegistryDescriptor d = {0};

                assert_int_equal(registry_resolve(f->client, f->ref, &d, NULL), 1);
                assert_string_equal(d.digest.text, f->digest.text);
                assert_string_equal(d.media_type, REGISTRY_TYPE_OCI_INDEX);
                assert_int_equal(d.size, 99);
                assert_int_equal(server_count(f->server, "GET", "/"), 0);
        }

        head_headers = "Content-Length: 5\r\n"; /* an old registry: no digest with HEAD */
        {
                _cleanup_registry_descriptor_ RegistryDescriptor d = {0};

                assert_int_equal(registry_resolve(f->client, f->ref, &d, NULL), 1);
                assert_string_equal(d.digest.text, f->manifest_digest.text);
        }

        head_headers = "Content-Length: 5\r\nContent-Type: " REGISTRY_TYPE_OCI_INDEX
                       "\r\nDocker-Content-Digest: sha256:zz\r\n";
        {
                _cleanup_registry_descriptor_ RegistryDescriptor d = {0};

                assert_fails(registry_resolve(f->client, f->ref, &d, err), -EINVAL, "Docker-Content-Digest");
        }
}

/* ---- the asynchronous form ---- */

static void on_resolved_stop(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        *(int *) userdata = result;
        registry_op_free(op); /* allowed here */
}

static void must_not_come(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        fail_msg("a freed operation called back");
}

static void test_async(void **state)
{
        Fixture *f = *state;
        RegistryOp *op, *cancelled;
        int result = -1;

        f->script = serve_head;
        head_headers = NULL;
        assert_int_equal(
                registry_resolve_start(f->client, f->ref, must_not_come, NULL, &cancelled, NULL), 0);
        assert_int_equal(registry_resolve_start(f->client, f->ref, on_resolved_stop, &result, &op, NULL), 0);
        assert_int_equal(result, -1); /* never from inside start */
        registry_op_free(cancelled);
        while (result == -1)
                assert_true(sd_event_run(registry_client_event(f->client), UINT64_MAX) >= 0);
        assert_int_equal(result, 0);
}

/* ---- tags ---- */

static void serve_tags(Exchange *e)
{
        if (strstr(e->path, "last=b"))
                exchange_text(e, 200, "", "{\"name\":\"some/image\",\"tags\":[\"c\"]}");
        else
                exchange_text(e, 200, "Link: </v2/some/image/tags/list?last=b&n=2>; rel=\"next\"\r\n",
                        "{\"name\":\"some/image\",\"tags\":[\"a\",\"b\"]}");
}

static void serve_tags_circle(Exchange *e)
{
        exchange_text(e, 200, "Link: </v2/some/image/tags/list?n=1>; rel=next\r\n", "{\"tags\":[\"a\"]}");
}

static void serve_bad_tags(Exchange *e)
{
        exchange_text(e, 200, "", "{\"tags\":[\"a\",\"../x\"]}");
}

static void test_tags(void **state)
{
        _cleanup_strv_ char **tags = NULL;
        _cleanup_free_ char *joined = NULL;
        Fixture *f = *state;

        f->script = serve_tags;
        assert_int_equal(registry_list_tags(f->client, f->ref, &tags, NULL), 0);
        joined = tb_strv_join(tags, ",");
        assert_string_equal(joined, "a,b,c");
        f->script = serve_bad_tags;
        assert_fails(
                registry_list_tags(f->client, f->ref, &tags, err), -EPROTO, "tags[1] is not a valid name");
        f->script = serve_tags_circle;
        assert_fails(registry_list_tags(f->client, f->ref, &tags, err), -ELOOP, "names itself");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        static const struct CMUnitTest tests[] = {
                T(test_good),
                T(test_wrong_digest),
                T(test_wrong_length),
                T(test_endless),
                T(test_resume),
                T(test_resume_without_range),
                T(test_reset),
                T(test_wrong_range),
                T(test_retries),
                T(test_retry_after),
                T(test_endless_error),
                T(test_redirect_drops_credentials),
                T(test_redirect_loop),
                T(test_redirect_bad_targets),
                T(test_targets),
                T(test_manifest),
                T(test_resolve),
                T(test_async),
                T(test_tags),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

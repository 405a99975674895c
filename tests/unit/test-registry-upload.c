/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Uploads that break off, are refused, are taken in part: what arrives in the end is the blob, byte by byte. */

#include "tests/unit/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"
#include "tests/unit/registry-server.h"

#define BLOB_SIZE 300000U
#define UPLOADS "/v2/some/image/blobs/uploads/"

typedef struct Fixture {
        RegistryClient *client;
        Server *server;
        RegistryRef *ref;
        char *blob;

        /* the registry: one session at a time; how it misbehaves */
        pthread_mutex_t lock;
        char *stored;
        size_t n_stored;
        unsigned session, pieces, largest;
        size_t keep;      /* of the first PATCH, which is answered with `refusal` */
        unsigned refusal; /* 0 = none */
        size_t limit;     /* 413 for larger bodies; 0 = none */
        size_t take;      /* of the first PATCH, which is answered with 202 and the Range of that; 0 = all */
        const char *range; /* said when asked, instead of the truth */
        const char *open_headers;
        bool token_runs_out, no_sessions;
} Fixture;

static Fixture *current;

static int setup(void **state);
static int teardown(void **state);

static void say_range(Exchange *e, unsigned status)
{
        char head[512];

        /* As docker-registry: the last byte, or 0 for none. */
        snprintf(head, sizeof(head), "Location: " UPLOADS "%u?at=%zu\r\nRange: 0-%zu\r\n", current->session,
                current->n_stored, current->n_stored > 0 ? current->n_stored - 1 : 0);
        if (current->range && status == 204)
                snprintf(head, sizeof(head), "Location: " UPLOADS "%u\r\n%s", current->session,
                        current->range);
        exchange_text(e, status, head, "");
}

static void take_patch(Exchange *e)
{
        Fixture *f = current;
        const char *range = exchange_header(e, "Content-Range");
        size_t n = e->body_size;

        if (f->limit > 0 && n > f->limit) {
                exchange_text(e, 413, "", "<html>413 Request Entity Too Large</html>");
                return;
        }
        if (range && strtoul(range, NULL, 10) != f->n_stored) {
                exchange_text(e, 416, "", "");
                return;
        }
        if (f->refusal || f->take) {
                n = f->take ? f->take : f->keep;
                f->take = 0;
        }
        memcpy(f->stored + f->n_stored, e->body, n);
        f->n_stored += n;
        f->pieces++;
        f->largest = MAX2(f->largest, (unsigned) e->body_size);
        if (f->refusal) {
                exchange_text(e, f->refusal, "", "");
                f->refusal = 0;
        } else
                say_range(e, 202);
}

static void serve(Exchange *e)
{
        Fixture *f = current;
        char open[64], head[512];

        pthread_mutex_lock(&f->lock);
        snprintf(open, sizeof(open), UPLOADS "%u", f->session);
        if (f->token_runs_out && strcmp(e->method, "PATCH") == 0 &&
                strcmp(exchange_header(e, "Authorization") ? exchange_header(e, "Authorization") : "",
                        "Bearer 2") != 0) {
                snprintf(head, sizeof(head), "WWW-Authenticate: Bearer realm=\"http://%s/token\"\r\n",
                        server_host(e->server));
                exchange_text(e, 401, head, "");
        } else if (exchange_is(e, "GET", "/token")) {
                snprintf(head, sizeof(head), "{\"token\":\"%u\"}", e->nth + 2);
                exchange_text(e, 200, "", head);
        } else if (strcmp(e->method, "POST") == 0 && f->no_sessions) {
                exchange_text(e, 403, "", "");
        } else if (strcmp(e->method, "POST") == 0) {
                f->session++;
                f->n_stored = 0;
                snprintf(head, sizeof(head), "Location: " UPLOADS "%u\r\n%s", f->session,
                        f->open_headers ? f->open_headers : "");
                exchange_text(e, 202, head, "");
        } else if (!tb_startswith(e->path, open))
                exchange_text(e, 404, "", "");
        else if (strcmp(e->method, "PATCH") == 0)
                take_patch(e);
        else if (strcmp(e->method, "GET") == 0)
                say_range(e, 204);
        else if (strcmp(e->method, "DELETE") == 0)
                exchange_text(e, 204, "", "");
        else if (f->n_stored == BLOB_SIZE && memcmp(f->stored, f->blob, BLOB_SIZE) == 0)
                exchange_text(e, 201, "", "");
        else
                exchange_text(e, 400, "", "{\"errors\":[{\"code\":\"DIGEST_INVALID\"}]}");
        pthread_mutex_unlock(&f->lock);
}

static int setup(void **state)
{
        Fixture *f = calloc(1, sizeof(*f));
        char name[128];

        pthread_mutex_init(&f->lock, NULL);
        f->blob = malloc(BLOB_SIZE);
        f->stored = malloc(64 * BLOB_SIZE);
        for (size_t i = 0; i < BLOB_SIZE; i++)
                f->blob[i] = (char) (i * 7 + i / 251);
        f->server = server_new(serve, NULL);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 3, 1000);
        snprintf(name, sizeof(name), "%s/some/image:tag", server_host(f->server));
        assert_int_equal(registry_ref_parse(name, &f->ref, NULL), 0);
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
        free(f->blob);
        free(f->stored);
        free(f);
        return 0;
}

static int put(Fixture *f, TbError **err)
{
        return registry_put_blob(f->client, f->ref, f->blob, BLOB_SIZE, NULL, NULL, err);
}

static void assert_puts(Fixture *f)
{
        _cleanup_error_ TbError *e = NULL;

        if (put(f, &e) < 0)
                fail_msg("%s", tb_error_message(e));
        assert_int_equal(f->n_stored, BLOB_SIZE);
        assert_memory_equal(f->stored, f->blob, BLOB_SIZE);
}

/* ---- broken off ---- */

static void test_resumes(void **state)
{
        Fixture *f = *state;

        f->refusal = 500;
        f->keep = 123456;
        assert_puts(f);
        assert_int_equal(f->session, 1); /* the same one */
        assert_int_equal(server_received(f->server, "PATCH", UPLOADS), BLOB_SIZE + BLOB_SIZE - 123456);
        assert_int_equal(server_count(f->server, "DELETE", "/"), 0);
}

/* "0-0" is said of a session with one byte as of one with none: neither may be guessed. */
static void test_zero_zero(void **state)
{
        for (unsigned keep = 0; keep <= 1; keep++) {
                Fixture *f = *state;

                f->refusal = 503;
                f->keep = keep;
                assert_puts(f);
                assert_int_equal(f->session, 2);
                assert_int_equal(server_count(f->server, "DELETE", UPLOADS "1"), 1);
                teardown(state);
                setup(state);
        }
}

static void test_bad_answers_when_asked(void **state)
{
        static const char *const ranges[] = {"", "Range: 5-99\r\n", "Range: 0-300000\r\n", "Range: 0-\r\n",
                "Range: 0-18446744073709551616\r\n", "Range: rubbish\r\n"};

        for (size_t i = 0; i < ELEMENTSOF(ranges); i++) {
                Fixture *f = *state;

                f->refusal = 502;
                f->keep = 1000;
                f->range = ranges[i];
                assert_puts(f);
                assert_int_equal(f->session, 2);
                teardown(state);
                setup(state);
        }
}

static void test_complete_when_asked(void **state)
{
        Fixture *f = *state;

        f->refusal = 504; /* the answer got lost, the bytes did not */
        f->keep = BLOB_SIZE;
        assert_puts(f);
        assert_int_equal(server_received(f->server, "PATCH", UPLOADS), BLOB_SIZE);
}

/* ---- pieces ---- */

static void test_pieces(void **state)
{
        Fixture *f = *state;

        registry_client_set_upload_chunk(f->client, 100001);
        assert_puts(f);
        assert_int_equal(f->pieces, 3);
        assert_int_equal(f->largest, 100001);

        f->pieces = f->largest = 0;
        f->open_headers = "OCI-Chunk-Min-Length: 200000\r\n";
        assert_puts(f);
        assert_int_equal(f->pieces, 2);
        assert_int_equal(f->largest, 200000);

        f->pieces = f->largest = 0;
        f->open_headers =
                "OCI-Chunk-Min-Length: 99999999999999\r\n"; /* no reason to hold that much: one stream */
        assert_puts(f);
        assert_int_equal(f->pieces, 1);

        f->open_headers = "OCI-Chunk-Min-Length: rubbish\r\n";
        assert_puts(f);
        registry_client_set_upload_chunk(f->client, 1); /* not that small */
        f->open_headers = NULL;
        f->largest = 0;
        assert_puts(f);
        assert_int_equal(f->largest, 65536);
}

static void test_piece_taken_in_part(void **state)
{
        Fixture *f = *state;

        registry_client_set_upload_chunk(f->client, 100000);
        f->take = 70000;
        assert_puts(f);
        assert_int_equal(f->session, 1);
        assert_int_equal(server_received(f->server, "PATCH", UPLOADS), BLOB_SIZE + 30000);
}

static void test_too_large(void **state)
{
        Fixture *f = *state;

        f->limit = 100000; /* a stream, pieces of 300000 and 150000 are too large, one of 75000 is not */
        assert_puts(f);
        assert_int_equal(f->largest, 75000);
        assert_int_equal(f->pieces, 4);
        assert_int_equal(server_count(f->server, "DELETE", "/"), f->session - 1);

        f->limit = 1000;
        assert_fails(put(f, err), -EFBIG, "raise the body limit");
        assert_int_equal(server_count(f->server, "DELETE", "/"),
                f->session - 1); /* of the session that went well: none */
}

/* ---- a token that runs out under way ---- */

static void test_token_runs_out(void **state)
{
        Fixture *f = *state;

        f->token_runs_out = true;
        assert_puts(f);
        assert_int_equal(f->session, 1);
        assert_int_equal(server_count(f->server, "GET", "/token"), 1);
}

/* ---- a session that is opened before the bytes are known ---- */

static RegistryOp *open_early(Fixture *f)
{
        RegistryOp *op;

        assert_int_equal(registry_put_blob_open_start(f->client, f->ref, NULL, NULL, &op, NULL), 0);
        return op;
}

static void wait_until_opened(Fixture *f)
{
        TbDigest other;
        unsigned n = 0;

        assert_int_equal(tb_digest_of("", 0, &other, NULL), 0);
        while (n == 0) { /* each question runs the loop */
                assert_int_equal(registry_has_blob(f->client, f->ref, &other, NULL, NULL), 0);
                pthread_mutex_lock(&f->lock);
                n = f->session;
                pthread_mutex_unlock(&f->lock);
        }
}

static void assert_sends(Fixture *f, RegistryOp *op)
{
        _cleanup_error_ TbError *e = NULL;

        assert_int_equal(registry_put_blob_send(op, f->blob, BLOB_SIZE, NULL, NULL), 0);
        if (registry_op_wait(op, &e) < 0)
                fail_msg("%s", tb_error_message(e));
        registry_op_free(op);
        assert_int_equal(f->n_stored, BLOB_SIZE);
        assert_memory_equal(f->stored, f->blob, BLOB_SIZE);
}

static void test_opened_early(void **state)
{
        Fixture *f = *state;
        RegistryOp *op = open_early(f);

        wait_until_opened(f);
        assert_sends(f, op);
        assert_int_equal(f->session, 1);
        assert_sends(f, open_early(f)); /* the registry has not answered yet */
        assert_int_equal(f->session, 2);
        assert_int_equal(server_count(f->server, "DELETE", "/"), 0);
}

static void test_opened_early_and_gone(void **state)
{
        Fixture *f = *state;
        RegistryOp *op = open_early(f);

        wait_until_opened(f);
        pthread_mutex_lock(&f->lock);
        f->session = 100; /* it knows no other */
        pthread_mutex_unlock(&f->lock);
        assert_sends(f, op);
        assert_int_equal(f->session, 101);
}

static void test_opened_early_for_nothing(void **state)
{
        Fixture *f = *state;
        RegistryOp *op = open_early(f);

        wait_until_opened(f);
        registry_op_free(op);
        registry_client_settle(f->client);
        assert_int_equal(server_count(f->server, "DELETE", UPLOADS "1"), 1);

        registry_op_free(open_early(f)); /* before the registry answers */
        registry_client_settle(f->client);
        assert_int_equal(server_count(f->server, "DELETE", UPLOADS), server_count(f->server, "POST", "/"));
}

static void test_opened_early_refused(void **state)
{
        Fixture *f = *state;
        RegistryOp *op;

        f->no_sessions = true;
        op = open_early(f);
        assert_int_equal(registry_put_blob_send(op, f->blob, BLOB_SIZE, NULL, NULL), 0);
        assert_fails(registry_op_wait(op, err), -EACCES, "some/image");
        registry_op_free(op);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_resumes),
                T(test_zero_zero),
                T(test_bad_answers_when_asked),
                T(test_complete_when_asked),
                T(test_pieces),
                T(test_piece_taken_in_part),
                T(test_too_large),
                T(test_token_runs_out),
                T(test_opened_early),
                T(test_opened_early_and_gone),
                T(test_opened_early_for_nothing),
                T(test_opened_early_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

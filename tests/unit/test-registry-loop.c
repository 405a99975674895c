/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A client on somebody else's loop: plain poll(2), an epoll set with other sources in it, two threads. */

#include "tests/unit/test.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "registry-client/registry.h"
#include "tests/unit/registry-server.h"

#define N 12
#define MANIFEST                                                                                     \
        "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST                           \
        "\",\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG                                   \
        "\",\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\"," \
        "\"size\":2},"                                                                               \
        "\"layers\":[]}"

/* tag "once": a 503 first, so that the client has to wait for a timer of its own. */
static void serve(Exchange *e)
{
        if (strstr(e->path, "/manifests/once") && e->nth == 0)
                exchange_text(e, 503, "", "");
        else if (strstr(e->path, "/manifests/"))
                exchange_text(e, 200, "Content-Type: " REGISTRY_TYPE_OCI_MANIFEST "\r\n", MANIFEST);
        else
                exchange_text(e, 200, "", "{}");
}

typedef struct Fixture {
        Server *server;
        RegistryClient *client;
        unsigned done, good;
} Fixture;

static int setup(void **state)
{
        Fixture *f = calloc(1, sizeof(*f));

        f->server = server_new(serve, NULL);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 3, 20000);
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        Fixture *f = *state;

        registry_client_free(f->client);
        server_free(f->server);
        free(f);
        return 0;
}

static void on_done(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        Fixture *f = userdata;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = registry_op_steal_manifest(op);
        _cleanup_error_ TbError *e = NULL;

        f->done++;
        f->good += result == 0 && m && m->kind == REGISTRY_OCI_MANIFEST;
        assert_int_equal(registry_client_dispatch(f->client, &e), -EBUSY); /* not from a callback */
}

static RegistryOp *get(Fixture *f, const char *tag)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_error_ TbError *err = NULL;
        RegistryOp *op = NULL;

        assert_ok(registry_ref_new(server_host(f->server), "a/b", tag, NULL, &ref, &err), err);
        assert_ok(registry_get_manifest_start(f->client, ref, on_done, f, &op, &err), err);
        return op;
}

static void dispatch(Fixture *f)
{
        _cleanup_error_ TbError *err = NULL;
        int r;

        while ((r = registry_client_dispatch(f->client, &err)) > 0)
                ;
        assert_ok(r, err);
}

static void test_poll(void **state)
{
        Fixture *f = *state;
        RegistryOp *ops[N];
        int fd = registry_client_get_fd(f->client);
        const TbError *why = NULL;

        for (size_t i = 0; i < N; i++)
                ops[i] = get(f, i % 2 ? "once" : "latest");
        assert_int_equal(f->done, 0); /* never from inside the call */
        assert_int_equal(registry_op_result(ops[0], &why), -EINPROGRESS);
        dispatch(f);
        while (f->done < N) {
                struct pollfd p = {.fd = fd, .events = POLLIN};

                assert_true(
                        poll(&p, 1, 20000) > 0); /* nothing else wakes us up: timers come through it, too */
                dispatch(f);
                assert_int_equal(registry_client_get_fd(f->client), fd);
        }
        assert_int_equal(f->good, N);
        for (size_t i = 0; i < N; i++) {
                assert_int_equal(registry_op_result(ops[i], &why), 0);
                registry_op_free(ops[i]);
        }
        /* Idle: not readable, or a loop would spin. */
        assert_int_equal(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0), 0);
}

static void test_error_through_poll(void **state)
{
        Fixture *f = *state;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        RegistryOp *op = NULL;
        const TbError *why = NULL;

        assert_int_equal(registry_ref_parse("127.0.0.1:1/x", &ref, NULL), 0);
        registry_client_set_retry(f->client, 2, 1000);
        assert_int_equal(registry_get_manifest_start(f->client, ref, NULL, NULL, &op, NULL), 0);
        for (;;) {
                dispatch(f);
                if (registry_op_is_done(op))
                        break;
                assert_true(poll(&(struct pollfd){.fd = registry_client_get_fd(f->client), .events = POLLIN},
                                    1, 20000) > 0);
        }
        assert_int_equal(registry_op_result(op, &why), -ECONNREFUSED);
        assert_non_null(why);
        assert_true(why->retryable);
        registry_op_free(op);
}

/* The client beside other sources in a program's own epoll set, which must get their turns. */
static void test_epoll(void **state)
{
        Fixture *f = *state;
        _cleanup_close_ int set = epoll_create1(EPOLL_CLOEXEC);
        _cleanup_close_ int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        struct itimerspec tick = {.it_value.tv_nsec = 1000000, .it_interval.tv_nsec = 1000000};
        struct epoll_event e = {.events = EPOLLIN, .data.fd = registry_client_get_fd(f->client)};
        RegistryOp *ops[N];
        unsigned ticks = 0, turns = 0;

        assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, e.data.fd, &e), 0);
        e.data.fd = timer;
        assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, timer, &e), 0);
        assert_int_equal(timerfd_settime(timer, 0, &tick, NULL), 0);
        for (size_t i = 0; i < N; i++)
                ops[i] = get(f, "once");
        dispatch(f);
        while (f->done < N || ticks == 0) {
                uint64_t n;

                assert_int_equal(epoll_wait(set, &e, 1, 20000), 1);
                if (e.data.fd == timer)
                        ticks += read(timer, &n, sizeof(n)) == sizeof(n);
                else {
                        turns++;
                        dispatch(f);
                }
        }
        assert_int_equal(f->good, N);
        assert_true(turns > 0);
        for (size_t i = 0; i < N; i++)
                registry_op_free(ops[i]);
}

/* Freed while it runs: nothing is called any more, and the loop goes on. */
static void test_cancelled(void **state)
{
        Fixture *f = *state;
        RegistryOp *op = get(f, "once");

        dispatch(f);
        registry_op_free(op);
        dispatch(f);
        op = get(f, "latest");
        while (f->done < 1) {
                dispatch(f);
                if (f->done < 1)
                        (void) poll(
                                &(struct pollfd){.fd = registry_client_get_fd(f->client), .events = POLLIN},
                                1, 20000);
        }
        assert_int_equal(f->good, 1);
        registry_op_free(op);
}

/* What a program without blocking calls needs besides manifests: lists, and blobs both ways. */
static void serve_more(Exchange *e)
{
        if (strstr(e->path, "/tags/list"))
                exchange_text(e, 200, "", "{\"tags\":[\"a\",\"b\"]}");
        else if (strcmp(e->method, "POST") == 0)
                exchange_text(e, 202, "Location: /v2/a/b/blobs/uploads/1\r\n", "");
        else if (strcmp(e->method, "PUT") == 0)
                exchange_text(e, e->body_size == 2 ? 201 : 400, "", "");
        else
                exchange_text(e, 200, "", "{}");
}

static void run_to_end(Fixture *f, RegistryOp *op)
{
        for (;;) {
                dispatch(f);
                if (registry_op_is_done(op))
                        break;
                assert_true(poll(&(struct pollfd){.fd = registry_client_get_fd(f->client), .events = POLLIN},
                                    1, 20000) > 0);
        }
        assert_int_equal(registry_op_result(op, NULL), 0);
}

static int take(const void *data, size_t size, void *userdata, TbError **err)
{
        *(size_t *) userdata += size;
        return 0;
}

static void test_lists_and_blobs(void **state)
{
        Fixture *f = *state;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_(registry_names_freep) char **names = NULL;
        _cleanup_free_ char *data = NULL;
        RegistryOp *op = NULL;
        TbDigest digest;
        size_t size = 0;

        server_free(f->server);
        f->server = server_new(serve_more, NULL);
        assert_int_equal(registry_ref_new(server_host(f->server), "a/b", "1", NULL, &ref, NULL), 0);
        assert_int_equal(tb_digest_of("{}", 2, &digest, NULL), 0);

        assert_int_equal(registry_list_tags_start(f->client, ref, NULL, NULL, &op, NULL), 0);
        run_to_end(f, op);
        names = registry_op_steal_names(op);
        assert_string_equal(names[1], "b");
        assert_null(names[2]);
        op = registry_op_free(op);

        assert_int_equal(registry_get_blob_start(f->client, ref, &digest, 2, 100, NULL, NULL, &op, NULL), 0);
        run_to_end(f, op);
        data = registry_op_steal_blob(op, &size);
        assert_string_equal(data, "{}");
        assert_int_equal(size, 2);
        op = registry_op_free(op);

        size = 0;
        assert_int_equal(
                registry_read_blob_start(f->client, ref, &digest, 2, take, NULL, &size, &op, NULL), 0);
        run_to_end(f, op);
        assert_int_equal(size, 2);
        op = registry_op_free(op);

        assert_int_equal(registry_put_blob_start(f->client, ref, "{}", 2, NULL, NULL, NULL, &op, NULL), 0);
        run_to_end(f, op);
        op = registry_op_free(op);
}

/* ---- Operations that their own callback frees, as it may ---- */

/* 0 = as it should be; else this answer to everything. */
static unsigned mood;

static void serve_all(Exchange *e)
{
        if (mood)
                exchange_text(e, mood, "", "");
        else if (strstr(e->path, "/manifests/") && strcmp(e->method, "DELETE") == 0)
                exchange_text(e, 202, "", "");
        else if (strstr(e->path, "/manifests/"))
                exchange_text(e, strcmp(e->method, "PUT") == 0 ? 201 : 200,
                        "Content-Type: " REGISTRY_TYPE_OCI_MANIFEST "\r\n", MANIFEST);
        else if (strstr(e->path, "_catalog"))
                exchange_text(e, 200, "", "{\"repositories\":[\"a/b\"]}");
        else if (strcmp(e->method, "HEAD") == 0)
                exchange_text(e, 404, "", "");
        else
                serve_more(e);
}

typedef struct Freed {
        Fixture *f;
        RegistryOp *op;
        unsigned ended;
        bool failed;
} Freed;

static void on_freed(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        Freed *x = userdata;

        assert_ptr_equal(op, x->op);
        assert_int_equal(err != NULL, result < 0);
        if (err) {
                assert_true(
                        strlen(tb_error_message(err)) > 0); /* it is there for as long as the operation */
                x->failed = true;
        }
        x->op = registry_op_free(op);
        x->ended++;
}

#define START(_name, ...)                                                                       \
        static int start_##_name(RegistryClient *c, const RegistryRef *a, const RegistryRef *b, \
                const TbDigest *d, Freed *x, TbError **err)                                     \
        {                                                                                       \
                return registry_##_name##_start(c, __VA_ARGS__, on_freed, x, &x->op, err);      \
        }

static RegistryMountResult mounted[1];
static RegistryDescriptor blob;

START(ping, a->host)
START(resolve, a)
START(get_manifest, a)
START(put_manifest, a, REGISTRY_TYPE_OCI_MANIFEST, MANIFEST, strlen(MANIFEST))
START(list_tags, a)
START(list_repositories, a->host)
START(get_blob, a, d, 2, 100)
START(put_blob, a, "{}", 2, NULL)
START(mount_blobs, b, "a/b", &blob, 1, mounted)
START(client_export_credentials, a->host)

/* Shares its user data with the end of the operation. */
static int take_nothing(const void *data, size_t size, void *userdata, TbError **err)
{
        return 0;
}

static int start_read_blob(RegistryClient *c, const RegistryRef *a, const RegistryRef *b, const TbDigest *d,
        Freed *x, TbError **err)
{
        return registry_read_blob_start(c, a, d, 2, take_nothing, on_freed, x, &x->op, err);
}

static int start_delete_manifest(RegistryClient *c, const RegistryRef *a, const RegistryRef *b,
        const TbDigest *d, Freed *x, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;

        assert_int_equal(registry_ref_with(a, NULL, d, &ref, NULL), 0);
        return registry_delete_manifest_start(c, ref, on_freed, x, &x->op, err);
}

static int start_copy(RegistryClient *c, const RegistryRef *a, const RegistryRef *b, const TbDigest *d,
        Freed *x, TbError **err)
{
        return registry_copy_start(c, a, b, NULL, on_freed, x, &x->op, err);
}

static void test_freed_in_callback(void **state)
{
        static int (*const starts[])(RegistryClient *, const RegistryRef *, const RegistryRef *,
                const TbDigest *, Freed *, TbError **) = {
                start_ping,
                start_resolve,
                start_get_manifest,
                start_put_manifest,
                start_list_tags,
                start_list_repositories,
                start_get_blob,
                start_read_blob,
                start_put_blob,
                start_mount_blobs,
                start_delete_manifest,
                start_copy,
                start_client_export_credentials,
        };
        static const unsigned moods[] = {0, 403, 404, 400};
        Fixture *f = *state;
        _cleanup_(registry_ref_freep) RegistryRef *a = NULL, *b = NULL;
        unsigned failed = 0;
        TbDigest digest;

        server_free(f->server);
        f->server = server_new(serve_all, NULL);
        registry_client_set_retry(f->client, 1, 0);
        assert_int_equal(registry_ref_new(server_host(f->server), "a/b", "1", NULL, &a, NULL), 0);
        assert_int_equal(registry_ref_new(server_host(f->server), "c/d", "1", NULL, &b, NULL), 0);
        assert_int_equal(tb_digest_of("{}", 2, &digest, NULL), 0);
        blob = (RegistryDescriptor){.digest = digest, .size = 2};
        for (size_t m = 0; m < ELEMENTSOF(moods); m++) {
                /* Several at once: what one frees, others may stand beside. */
                Freed all[2 * ELEMENTSOF(starts)] = {};
                unsigned ended;

                mood = moods[m];
                for (size_t i = 0; i < ELEMENTSOF(all); i++) {
                        _cleanup_error_ TbError *err = NULL;

                        all[i].f = f;
                        assert_ok(starts[i % ELEMENTSOF(starts)](f->client, a, b, &digest, &all[i], &err),
                                err);
                }
                do {
                        dispatch(f);
                        ended = 0;
                        for (size_t i = 0; i < ELEMENTSOF(all); i++)
                                ended += all[i].ended;
                        if (ended < ELEMENTSOF(all))
                                assert_true(poll(&(struct pollfd){.fd = registry_client_get_fd(f->client),
                                                         .events = POLLIN},
                                                    1, 20000) > 0);
                } while (ended < ELEMENTSOF(all));
                dispatch(f);
                for (size_t i = 0; i < ELEMENTSOF(all); i++) {
                        assert_int_equal(all[i].ended, 1);
                        assert_null(all[i].op);
                        failed += all[i].failed;
                }
        }
        assert_true(failed > ELEMENTSOF(starts));
}

static void *in_a_thread(void *userdata)
{
        Server *server = userdata;
        _cleanup_(registry_client_freep) RegistryClient *c = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        unsigned good = 0;

        if (registry_client_new(NULL, &c, NULL) < 0 ||
                registry_ref_new(server_host(server), "a/b", "latest", NULL, &ref, NULL) < 0)
                return NULL;
        for (unsigned i = 0; i < 50; i++) {
                _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;

                good += registry_get_manifest(c, ref, &m, NULL) == 0;
        }
        return good == 50 ? server : NULL;
}

static void test_threads(void **state)
{
        Fixture *f = *state;
        pthread_t threads[4];
        void *ret;

        for (size_t i = 0; i < ELEMENTSOF(threads); i++)
                assert_int_equal(pthread_create(&threads[i], NULL, in_a_thread, f->server), 0);
        for (size_t i = 0; i < ELEMENTSOF(threads); i++) {
                assert_int_equal(pthread_join(threads[i], &ret), 0);
                assert_ptr_equal(ret, f->server);
        }
}

static void count_lines(const char *line, void *userdata)
{
        assert_null(strchr(line, '\n'));
        ++*(unsigned *) userdata;
}

static void test_debug_and_user_agent(void **state)
{
        Fixture *f = *state;
        _cleanup_error_ TbError *err = NULL;
        unsigned lines = 0;
        RegistryOp *op;

        registry_client_set_debug(f->client, count_lines, &lines);
        assert_error(registry_client_set_user_agent(f->client, "a\r\nX-Evil: 1", &err), -EINVAL, err);
        assert_ok(registry_client_set_user_agent(f->client, "mine/1.0", &err), err);
        op = get(f, "once");
        while (f->done < 1) {
                dispatch(f);
                if (f->done < 1)
                        (void) poll(
                                &(struct pollfd){.fd = registry_client_get_fd(f->client), .events = POLLIN},
                                1, 20000);
        }
        assert_int_equal(lines, 1); /* the 503 that was tried again */
        registry_op_free(op);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_poll, setup, teardown),
                cmocka_unit_test_setup_teardown(test_error_through_poll, setup, teardown),
                cmocka_unit_test_setup_teardown(test_epoll, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cancelled, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lists_and_blobs, setup, teardown),
                cmocka_unit_test_setup_teardown(test_freed_in_callback, setup, teardown),
                cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
                cmocka_unit_test_setup_teardown(test_debug_and_user_agent, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

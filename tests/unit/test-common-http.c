/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/http.h"
#include "common/strv.h"
#include "tests/unit/scripted-server.h"

/* What arrives: headers, bodies, limits, failures. Callbacks and uploads are in test-common-http-flow.c. */

static sd_event *event;
static TbHttp *http;
static ScriptedServer server;
static char url[256];

static int setup(void **state)
{
        TbError *err = NULL;

        assert_true(sd_event_new(&event) >= 0);
        assert_ok(tb_http_new(event, &http, &err), err);
        return 0;
}

static int teardown(void **state)
{
        http = tb_http_free(http);
        event = sd_event_unref(event);
        scripted_server_kill(&server);
        return 0;
}

static const char *start(ServeFn serve, const char *path)
{
        scripted_server_start(&server, NULL, serve);
        (void) snprintf(url, sizeof(url), "%s%s", server.url, path);
        return url;
}

static int get(const char *address, TbHttpRequest **ret, TbError **err)
{
        return tb_http_perform(http, &(TbHttpOptions){.method = "GET", .url = address}, ret, err);
}

static int serve_two_on_one_connection(int listen_fd)
{
        int fd = peer_accept(listen_fd);
        const char *q = peer_read_head(fd);

        peer_check(tb_startswith(q, "GET /first?q=1 HTTP/1.1\r\n") != NULL);
        peer_check(strstr(q, "User-Agent: tbnode/") != NULL);
        peer_check(strstr(q, "X-One: 1\r\n") != NULL);
        peer_check(strstr(q, "X-Empty:\r\n") != NULL);
        peer_check(strstr(q, "Expect") == NULL);
        peer_send(fd,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type:  text/plain \r\n"
                "Link: a\r\nlink: b\r\nX-Folded: one\r\n\t two\r\nX-None:\r\n\r\nhello");
        peer_check(tb_startswith(peer_read_head(fd), "GET /first?q=1") != NULL);
        peer_send(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static void test_get(void **state)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL, *second = NULL;
        const char *const headers[] = {"X-One: 1", "X-Empty: ", NULL};
        TbError *err = NULL;
        TbHttpOptions o = {.method = "GET", .headers = headers};
        size_t size;

        o.url = start(serve_two_on_one_connection, "/first?q=1");
        assert_ok(tb_http_perform(http, &o, &r, &err), err);
        assert_true(tb_http_request_is_done(r));
        assert_int_equal(tb_http_request_status(r), 200);
        assert_string_equal(tb_http_request_body(r, &size), "hello");
        assert_int_equal(size, 5);
        assert_int_equal(tb_http_request_received(r), 5);
        assert_string_equal(tb_http_request_header(r, "content-TYPE"), "text/plain");
        assert_string_equal(tb_http_request_header_nth(r, "Link", 0), "a");
        assert_string_equal(tb_http_request_header_nth(r, "Link", 1), "b");
        assert_null(tb_http_request_header_nth(r, "Link", 2));
        assert_string_equal(tb_http_request_header(r, "X-Folded"), "one two");
        assert_string_equal(tb_http_request_header(r, "X-None"), "");
        assert_null(tb_http_request_header(r, "X-Other"));
        assert_string_equal(tb_http_request_url(r), url);

        /* The same connection, and a status is not an error. */
        assert_ok(tb_http_perform(http, &o, &second, &err), err);
        assert_int_equal(tb_http_request_status(second), 404);
        assert_string_equal(tb_http_request_body(second, NULL), "");
        http = (tb_http_free(http), NULL);
        scripted_server_finish(&server);

        /* Requests may be asked and freed after their client is gone. */
        assert_int_equal(tb_http_request_status(r), 200);
}

static int serve_only_once(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_check(tb_startswith(peer_read_head(fd), "GET /first") != NULL);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        peer_wait_close(fd); /* the second request must not come */
        return 0;
}

static bool allowed;

static bool allow(TbHttpRequest *r, const struct sockaddr *address, void *userdata)
{
        return allowed;
}

/* A connection that one request was allowed to open is not there for another that may not go to that address. */
static void test_address_of_open_connection(void **state)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL, *second = NULL;
        TbError *err = NULL;
        TbHttpOptions o = {.method = "GET", .allow_address = allow};

        o.url = start(serve_only_once, "/first");
        allowed = true;
        assert_ok(tb_http_perform(http, &o, &r, &err), err);
        allowed = false;
        assert_error(tb_http_perform(http, &o, &second, &err), -EACCES, err);
        http = (tb_http_free(http), NULL);
        scripted_server_finish(&server);
}

static int serve_interim(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd,
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: early\r\nX-Early: 1\r\n\r\n"
                "HTTP/1.1 201 Created\r\nLink: final\r\nTransfer-Encoding: chunked\r\nTrailer: "
                "X-Late\r\n\r\n"
                "3\r\nabc\r\n2\r\nde\r\n0\r\nX-Late: 1\r\nLink: trailer\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static void test_interim_and_trailers(void **state)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL;
        TbError *err = NULL;

        assert_ok(get(start(serve_interim, "/"), &r, &err), err);
        assert_int_equal(tb_http_request_status(r), 201);
        assert_string_equal(tb_http_request_body(r, NULL), "abcde");
        assert_string_equal(tb_http_request_header(r, "Link"), "final");
        assert_null(tb_http_request_header_nth(r, "Link", 1));
        assert_null(tb_http_request_header(r, "X-Early"));
        assert_null(tb_http_request_header(r, "X-Late"));
}

static int serve_head_and_redirect(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_check(tb_startswith(peer_read_head(fd), "HEAD /x ") != NULL);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        peer_check(tb_startswith(peer_read_head(fd), "GET /x ") != NULL);
        peer_send(fd,
                "HTTP/1.1 307 Temporary\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: "
                "0\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static void test_head_and_redirect(void **state)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL, *second = NULL;
        TbError *err = NULL;

        start(serve_head_and_redirect, "/x");
        assert_ok(tb_http_perform(http, &(TbHttpOptions){.method = "HEAD", .url = url}, &r, &err), err);
        assert_string_equal(tb_http_request_header(r, "Content-Length"), "1000");
        assert_int_equal(tb_http_request_received(r), 0);
        assert_ok(get(url, &second, &err), err);
        assert_int_equal(tb_http_request_status(second), 307);
        assert_string_equal(tb_http_request_header(second, "Location"), "http://127.0.0.1:1/elsewhere");
}

static int serve_many_headers(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\n");
        for (unsigned i = 0; i < 129; i++)
                peer_send(fd, "X: y\r\n");
        peer_send(fd, "Content-Length: 0\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static int serve_long_headers(int listen_fd)
{
        int fd = peer_accept(listen_fd);
        char line[1024];

        memset(line, 'x', sizeof(line));
        memcpy(line, "A: ", 3);
        memcpy(line + sizeof(line) - 2, "\r\n", 2);
        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\n");
        for (unsigned i = 0; i < 64; i++)
                peer_send_bytes(fd, line, sizeof(line));
        peer_send(fd, "Content-Length: 0\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static int serve_interim_flood(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        for (unsigned i = 0; i < 5000; i++)
                peer_send(fd, "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static void test_header_limits(void **state)
{
        const ServeFn cases[] = {serve_many_headers, serve_long_headers, serve_interim_flood};

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                TbHttpRequest *r = NULL;
                TbError *err = NULL;
                int k = get(start(cases[i], "/"), &r, &err);

                assert_null(r);
                assert_non_null(err);
                assert_int_equal(err->kind, TB_ERROR_REMOTE);
                assert_false(err->retryable);
                assert_error(k, -EMSGSIZE, err);
                scripted_server_kill(&server);
        }
}

static int serve_endless_body(int listen_fd)
{
        int fd = peer_accept(listen_fd);
        char block[4096] = "";

        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\n\r\n");
        for (unsigned i = 0; i < 1024; i++)
                peer_send_bytes(fd, block, sizeof(block));
        peer_wait_close(fd);
        return 0;
}

static void test_response_limit(void **state)
{
        TbHttpRequest *r = NULL;
        TbError *err = NULL;

        assert_error(get(start(serve_endless_body, "/"), &r, &err), -EMSGSIZE, err);
}

static int serve_reset_in_body(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc");
        peer_reset(fd);
        return 0;
}

static int serve_end_in_body(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc");
        close(fd);
        return 0;
}

static int serve_end_in_chunk(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc");
        close(fd);
        return 0;
}

static int serve_nothing(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        close(fd);
        return 0;
}

static void test_broken_connections(void **state)
{
        const ServeFn cases[] = {serve_reset_in_body, serve_end_in_body, serve_end_in_chunk, serve_nothing};

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                TbHttpRequest *r = NULL;
                TbError *err = NULL;
                int k = get(start(cases[i], "/"), &r, &err);

                assert_non_null(err);
                assert_int_equal(err->kind, TB_ERROR_REMOTE);
                assert_true(err->retryable);
                assert_non_null(strstr(err->message, url));
                assert_error(k, -ECONNRESET, err);
                scripted_server_finish(&server);
        }
}

static int serve_garbage(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd, "SSH-2.0-OpenSSH_9.2\r\n");
        peer_wait_close(fd);
        return 0;
}

static int serve_bad_header(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 0\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static void test_not_http(void **state)
{
        TbHttpRequest *r = NULL;
        TbError *err = NULL;
        int k;

        k = get(start(serve_garbage, "/"), &r, &err);
        assert_false(err->retryable);
        assert_error(k, -EPROTO, err);
        scripted_server_kill(&server);
        assert_error(get(start(serve_bad_header, "/"), &r, &err), -EPROTO, err);
}

static int serve_drip(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static void test_timeouts(void **state)
{
        TbHttpOptions o = {.method = "GET", .timeout_usec = 100 * 1000};
        TbHttpRequest *r = NULL;
        TbError *err = NULL;
        int k;

        o.url = start(serve_drip, "/");
        k = tb_http_perform(http, &o, &r, &err);
        assert_true(err->retryable);
        assert_error(k, -ETIMEDOUT, err);
        scripted_server_finish(&server);

        o.url = start(serve_drip, "/");
        o.timeout_usec = 0;
        o.low_speed_bps = 100;
        o.low_speed_sec = 1;
        k = tb_http_perform(http, &o, &r, &err);
        assert_true(err->retryable);
        assert_error(k, -ETIMEDOUT, err);
}

static void test_cannot_connect(void **state)
{
        _cleanup_free_ char *missing = tb_asprintf("/tmp/tbnode-test-missing-%d/sock", (int) getpid());
        TbHttpOptions o = {.method = "GET", .url = "http://user:secret@127.0.0.1:1/path?token=secret"};
        TbHttpRequest *r = NULL;
        TbError *err = NULL;
        int k;

        k = tb_http_perform(http, &o, &r, &err);
        assert_true(err->retryable);
        assert_non_null(strstr(err->message, "GET http://127.0.0.1:1/path"));
        assert_null(strstr(err->message, "secret"));
        assert_error(k, -ECONNREFUSED, err);

        o.unix_socket = missing;
        k = tb_http_perform(http, &o, &r, &err);
        assert_non_null(strstr(err->message, missing));
        assert_error(k, -ENOENT, err);
}

static int serve_unix(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_check(strstr(peer_read_head(fd), "GET /v1/ping HTTP/1.1\r\nHost: docker\r\n") != NULL);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
        peer_wait_close(fd);
        return 0;
}

static void test_unix_socket(void **state)
{
        _cleanup_free_ char *path = tb_asprintf("/tmp/tbnode-test-%d.sock", (int) getpid());
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL;
        TbHttpOptions o = {.method = "GET", .url = "http://docker/v1/ping", .unix_socket = path};
        TbError *err = NULL;
        int k;

        (void) unlink(path);
        scripted_server_start(&server, path, serve_unix);
        (void) setenv("http_proxy", "http://127.0.0.1:1/", 1);
        k = tb_http_perform(http, &o, &r, &err);
        (void) unsetenv("http_proxy");
        (void) unlink(path);
        assert_ok(k, err);
        assert_string_equal(tb_http_request_body(r, NULL), "OK");
}

static void refuse(TbHttpOptions o)
{
        TbHttpRequest *r = NULL;
        TbError *err = NULL;

        assert_error(tb_http_start(http, &o, &r, &err), -EINVAL, err);
        assert_null(r);
}

static ssize_t read_nothing(TbHttpRequest *r, void *buf, size_t size, void *userdata)
{
        return 0;
}

static void test_refused_requests(void **state)
{
        const char *const injection[] = {"X: a\r\nY: b", NULL}, *const shapeless[] = {"nonsense", NULL};

        refuse((TbHttpOptions){.method = "GET", .url = "ftp://127.0.0.1/"});
        refuse((TbHttpOptions){.method = "GET", .url = "file:///etc/passwd"});
        refuse((TbHttpOptions){.method = "GET", .url = "/relative"});
        refuse((TbHttpOptions){.method = "GET", .url = "http://127.0.0.1/a b"});
        refuse((TbHttpOptions){.method = "GET", .url = "http://127.0.0.1/a\r\nX: y"});
        refuse((TbHttpOptions){.method = "GET", .url = NULL});
        refuse((TbHttpOptions){.method = "GET /x", .url = "http://127.0.0.1/"});
        refuse((TbHttpOptions){.method = NULL, .url = "http://127.0.0.1/"});
        refuse((TbHttpOptions){.method = "GET", .url = "http://127.0.0.1/", .headers = injection});
        refuse((TbHttpOptions){.method = "GET", .url = "http://127.0.0.1/", .headers = shapeless});
        refuse((TbHttpOptions){.method = "HEAD", .url = "http://127.0.0.1/", .body = "x", .body_size = 1});
        refuse((TbHttpOptions){.method = "PUT",
                .url = "http://127.0.0.1/",
                .body = "x",
                .body_size = 1,
                .read = read_nothing});
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_get, setup, teardown),
                cmocka_unit_test_setup_teardown(test_interim_and_trailers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_head_and_redirect, setup, teardown),
                cmocka_unit_test_setup_teardown(test_header_limits, setup, teardown),
                cmocka_unit_test_setup_teardown(test_response_limit, setup, teardown),
                cmocka_unit_test_setup_teardown(test_broken_connections, setup, teardown),
                cmocka_unit_test_setup_teardown(test_not_http, setup, teardown),
                cmocka_unit_test_setup_teardown(test_timeouts, setup, teardown),
                cmocka_unit_test_setup_teardown(test_address_of_open_connection, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cannot_connect, setup, teardown),
                cmocka_unit_test_setup_teardown(test_unix_socket, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refused_requests, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/http.h"
#include "common/strv.h"
#include "tests/unit/scripted-server.h"

/* Who may call what from where: pausing, uploads, and freeing things at the worst moment. */

#define BIG (1024u * 1024u)

/* One side of an exchange under test; what its callbacks do is told by its members. */
typedef struct Flow {
        TbHttpRequest *request;
        sd_event_source *timer;
        uint64_t received, sent, send_total;
        unsigned calls, pauses, done;
        uint64_t checksum;
        int done_code;
        unsigned pause_every; /* every n-th call asks for a pause */
        bool resume_at_once;  /* from inside the very callback that then pauses */
        bool free_in_write, free_in_read, free_in_done, abort_in_write, close_client_in_done,
                close_client_in_write;
        struct Flow *victim; /* freed in the write callback */
        struct Flow *next;   /* started in the write callback */
        bool check_cloexec;
        uint64_t end_early; /* the source says "end" here; 0 = not */
} Flow;

static sd_event *event;
static TbHttp *http;
static ScriptedServer server;
static char url[256];
static unsigned pending; /* exchanges the test still waits for */

static int setup(void **state)
{
        TbError *err = NULL;

        pending = 0;
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

static void listen_with(ServeFn serve)
{
        scripted_server_start(&server, NULL, serve);
        (void) snprintf(url, sizeof(url), "%s/", server.url);
}

static void run(void)
{
        while (pending > 0)
                assert_true(sd_event_run(event, 30 * 1000 * 1000) > 0);
}

static void flow_done(Flow *f)
{
        f->request = tb_http_request_free(f->request);
        f->timer = sd_event_source_disable_unref(f->timer);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        Flow *f = userdata;

        tb_http_request_resume(f->request);
        tb_http_request_resume(f->request); /* harmless */
        return 0;
}

/* Asks for a pause now and then; who resumes? */
static bool flow_pauses(Flow *f)
{
        f->calls++;
        if (f->pause_every == 0 || f->calls % f->pause_every != 0)
                return false;
        f->pauses++;
        if (f->resume_at_once)
                tb_http_request_resume(f->request);
        else {
                f->timer = sd_event_source_disable_unref(f->timer);
                assert_true(sd_event_add_time_relative(
                                    event, &f->timer, CLOCK_MONOTONIC, 1000, 1, on_timer, f) >= 0);
        }
        return true;
}

static void flow_start(Flow *f, TbHttpOptions o);

/* Connections; curl's internal pair of unix sockets is out of our reach. */
static void check_sockets_are_cloexec(void)
{
        unsigned checked = 0;

        for (int fd = 3; fd < 64; fd++) {
                struct sockaddr_storage sa = {};
                socklen_t length = sizeof(sa);

                if (getsockname(fd, (struct sockaddr *) &sa, &length) < 0 || sa.ss_family != AF_INET)
                        continue;
                assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
                checked++;
        }
        assert_true(checked > 0);
}

static ssize_t on_write(TbHttpRequest *r, const void *data, size_t size, void *userdata)
{
        Flow *f = userdata;
        const uint8_t *p = data;

        assert_ptr_equal(r, f->request);
        assert_int_equal(tb_http_request_status(r), 200);
        if (f->check_cloexec)
                check_sockets_are_cloexec();
        if (f->next) {
                flow_start(f->next, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
                f->next = NULL;
        }
        if (f->victim && f->victim->request) {
                flow_done(f->victim); /* also the timer that would resume it */
                pending--;
        }
        if (f->free_in_write) {
                f->request = tb_http_request_free(f->request);
                pending--;
                if (f->close_client_in_write)
                        http = tb_http_free(http);
                return (ssize_t) 0;
        }
        if (f->abort_in_write) {
                TbError *reason = NULL;

                tb_error_set(&reason, TB_ERROR_REMOTE, -EBADMSG, "digest mismatch");
                tb_http_request_abort_reason(r, reason);
                return -EBADMSG;
        }
        if (flow_pauses(f))
                return TB_HTTP_PAUSE;
        for (size_t i = 0; i < size; i++)
                f->checksum = f->checksum * 31 + p[i];
        f->received += size;
        return 0;
}

static ssize_t on_read(TbHttpRequest *r, void *buf, size_t size, void *userdata)
{
        Flow *f = userdata;
        uint64_t end = f->end_early > 0 ? f->end_early : f->send_total;
        char *p = buf;

        if (f->free_in_read) {
                f->request = tb_http_request_free(f->request);
                pending--;
                return -EIO;
        }
        if (flow_pauses(f))
                return TB_HTTP_PAUSE;
        if (size > 10000)
                size = 10000;
        if (size > end - f->sent)
                size = (size_t) (end - f->sent);
        for (size_t i = 0; i < size; i++)
                p[i] = (char) ('a' + (f->sent + i) % 26);
        f->sent += size;
        return (ssize_t) size;
}

static void on_done(TbHttpRequest *r, const TbError *err, void *userdata)
{
        Flow *f = userdata;

        assert_ptr_equal(r, f->request);
        assert_true(tb_http_request_is_done(r));
        f->done++;
        f->done_code = err ? err->code : 0;
        pending--;
        if (f->free_in_done)
                f->request = tb_http_request_free(f->request);
        if (f->close_client_in_done)
                http = tb_http_free(http);
}

static void flow_start(Flow *f, TbHttpOptions o)
{
        TbError *err = NULL;

        o.done = on_done;
        o.userdata = f;
        assert_ok(tb_http_start(http, &o, &f->request, &err), err);
        assert_int_equal(f->calls, 0); /* no callback from inside of start */
        pending++;
}

static uint64_t big_checksum(void)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < BIG; i++)
                sum = sum * 31 + (uint8_t) (i * 7 + i / 256);
        return sum;
}

/* Serves any number of clients the same 1 MiB, one child for each connection. */
static int serve_big(int listen_fd)
{
        static uint8_t big[BIG];

        for (size_t i = 0; i < BIG; i++)
                big[i] = (uint8_t) (i * 7 + i / 256);
        for (;;) {
                int fd = peer_accept(listen_fd);

                if (fork() == 0) {
                        while (peer_read_head(fd)) {
                                peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
                                peer_send_bytes(fd, big, BIG);
                        }
                        _exit(0);
                }
                close(fd);
        }
}

static void check_big(const Flow *f)
{
        assert_int_equal(f->done, 1);
        assert_int_equal(f->done_code, 0);
        assert_int_equal(f->received, BIG);
        assert_true(f->checksum == big_checksum());
        assert_int_equal(tb_http_request_received(f->request), BIG);
}

static void test_back_pressure(void **state)
{
        _cleanup_(flow_done) Flow f = {.pause_every = 3, .check_cloexec = true};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        check_big(&f);
        assert_true(f.pauses > 10);
}

static void test_resume_inside_callback(void **state)
{
        _cleanup_(flow_done) Flow f = {.pause_every = 2, .resume_at_once = true};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        check_big(&f);
        assert_true(f.pauses > 10);
}

/* A pause is no slowness: longer than the speed check allows. */
static int on_long_pause_over(sd_event_source *s, uint64_t usec, void *userdata)
{
        tb_http_request_resume(userdata);
        return 0;
}

static void test_pause_outlasts_speed_check(void **state)
{
        _cleanup_(flow_done) Flow f = {.pause_every = 1};

        listen_with(serve_big);
        flow_start(&f,
                (TbHttpOptions){.method = "GET",
                        .url = url,
                        .write = on_write,
                        .low_speed_bps = 1000,
                        .low_speed_sec = 1});
        /* The first call pauses; our own timer of 1 ms is replaced by one of 2.2 s. */
        while (f.pauses == 0)
                assert_true(sd_event_run(event, 30 * 1000 * 1000) > 0);
        f.timer = sd_event_source_disable_unref(f.timer);
        f.pause_every = 0;
        assert_true(sd_event_add_time_relative(event, &f.timer, CLOCK_MONOTONIC, 2200 * 1000, 1,
                            on_long_pause_over, f.request) >= 0);
        run();
        check_big(&f);
}

static void test_free_in_write(void **state)
{
        Flow f = {.free_in_write = true};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        assert_int_equal(f.done, 0);
        assert_int_equal(f.received, 0);
}

static void test_free_everything_in_write(void **state)
{
        Flow f = {.free_in_write = true, .close_client_in_write = true};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        assert_int_equal(f.done, 0);
        assert_null(http);
}

static void test_free_after_resume(void **state)
{
        Flow f = {.pause_every = 1};

        /* Freed inside the write callback that resuming itself calls. */
        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        while (f.pauses == 0)
                assert_true(sd_event_run(event, 30 * 1000 * 1000) > 0);
        f.free_in_write = true;
        run();
        assert_int_equal(f.done, 0);
        sd_event_source_disable_unref(f.timer);
}

static void test_abort_after_resume(void **state)
{
        _cleanup_(flow_done) Flow f = {.pause_every = 1};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        while (f.pauses == 0)
                assert_true(sd_event_run(event, 30 * 1000 * 1000) > 0);
        f.abort_in_write = true;
        run();
        assert_int_equal(f.done, 1);
        assert_int_equal(f.done_code, -EBADMSG);
}

static void test_abort(void **state)
{
        _cleanup_(flow_done) Flow f = {.abort_in_write = true};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        assert_int_equal(f.done, 1);
        assert_int_equal(f.done_code, -EBADMSG);
}

static void test_free_in_done(void **state)
{
        Flow f = {.free_in_done = true};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        assert_int_equal(f.done, 1);
        assert_int_equal(f.received, BIG);
}

static void test_close_client_in_done(void **state)
{
        Flow f = {.free_in_done = true, .close_client_in_done = true};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        assert_int_equal(f.done, 1);
        assert_null(http);
}

static void test_free_another(void **state)
{
        _cleanup_(flow_done) Flow victim = {.pause_every = 1}, f = {.victim = &victim};

        listen_with(serve_big);
        flow_start(&victim, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        check_big(&f);
        assert_int_equal(victim.done, 0);
}

static void test_start_in_write(void **state)
{
        _cleanup_(flow_done) Flow next = {}, f = {.next = &next};

        listen_with(serve_big);
        flow_start(&f, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        run();
        check_big(&f);
        check_big(&next);
}

static void test_many_at_once(void **state)
{
        Flow f[24] = {};

        listen_with(serve_big);
        for (size_t i = 0; i < ELEMENTSOF(f); i++) {
                f[i].pause_every = i % 3 == 0 ? 0 : 1 + i % 3;
                flow_start(&f[i], (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        }
        run();
        for (size_t i = 0; i < ELEMENTSOF(f); i++) {
                check_big(&f[i]);
                flow_done(&f[i]);
        }
}

static void test_cancel_and_orphan(void **state)
{
        _cleanup_(flow_done) Flow cancelled = {}, orphan = {.pause_every = 1};

        listen_with(serve_big);
        flow_start(&cancelled, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        flow_start(&orphan, (TbHttpOptions){.method = "GET", .url = url, .write = on_write});
        assert_null(tb_http_request_free(cancelled.request));
        cancelled.request = NULL;
        while (orphan.calls == 0)
                assert_true(sd_event_run(event, 30 * 1000 * 1000) > 0);

        /* The client goes first: the request is over, silently, and may be freed later. */
        orphan.timer = sd_event_source_disable_unref(orphan.timer);
        http = tb_http_free(http);
        assert_true(tb_http_request_is_done(orphan.request));
        tb_http_request_resume(orphan.request);
        assert_int_equal(sd_event_run(event, 0), 0);
        assert_int_equal(orphan.done, 0);
        assert_int_equal(cancelled.calls, 0);
}

static void check_letters(const char *p, size_t size)
{
        for (size_t i = 0; i < size; i++)
                peer_check(p[i] == (char) ('a' + i % 26));
}

static int serve_uploads(int listen_fd)
{
        int fd = peer_accept(listen_fd);
        const char *q;
        size_t size;

        q = peer_read_head(fd);
        peer_check(tb_startswith(q, "PUT / HTTP/1.1\r\n") && strstr(q, "Content-Length: 1048576\r\n"));
        peer_check(!strstr(q, "Transfer-Encoding") && !strstr(q, "Expect"));
        check_letters(peer_read_body(fd, BIG), BIG);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");

        q = peer_read_head(fd);
        peer_check(tb_startswith(q, "PATCH / HTTP/1.1\r\n") && strstr(q, "Transfer-Encoding: chunked\r\n"));
        peer_check(!strstr(q, "Content-Length") && !strstr(q, "Expect"));
        q = peer_read_chunked(fd, &size);
        peer_check(size == BIG);
        check_letters(q, BIG);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
        peer_wait_close(fd);
        return 0;
}

static void test_uploads(void **state)
{
        _cleanup_(flow_done) Flow known = {.send_total = BIG, .pause_every = 5},
                                  chunked = {.send_total = BIG, .pause_every = 2, .resume_at_once = true};

        listen_with(serve_uploads);
        flow_start(&known, (TbHttpOptions){.method = "PUT", .url = url, .read = on_read, .read_size = BIG});
        run();
        assert_int_equal(known.done_code, 0);
        assert_int_equal(tb_http_request_sent(known.request), BIG);
        assert_string_equal(tb_http_request_body(known.request, NULL), "OK");
        assert_true(known.pauses > 10);

        flow_start(&chunked,
                (TbHttpOptions){.method = "PATCH", .url = url, .read = on_read, .read_size = UINT64_MAX});
        run();
        assert_int_equal(chunked.done_code, 0);
        assert_int_equal(tb_http_request_sent(chunked.request), BIG);
        http = (tb_http_free(http), NULL);
        scripted_server_finish(&server);
}

static int serve_small_bodies(int listen_fd)
{
        int fd = peer_accept(listen_fd);
        const char *q;

        q = peer_read_head(fd);
        peer_check(tb_startswith(q, "POST /") && strstr(q, "Content-Length: 0\r\n"));
        peer_send(fd, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
        q = peer_read_head(fd);
        peer_check(tb_startswith(q, "POST /") && strstr(q, "Content-Length: 5\r\n"));
        peer_check(strstr(q, "Content-Type: application/json\r\n") != NULL);
        peer_check(strcmp(peer_read_body(fd, 5), "{\"a\"}") == 0);
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        q = peer_read_head(fd);
        peer_check(tb_startswith(q, "DELETE /") && !strstr(q, "Content-Length"));
        /* Closed while idle, without a warning: the next request must find that out by itself. */
        peer_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        close(fd);

        fd = peer_accept(listen_fd);
        peer_check(tb_startswith(peer_read_head(fd), "PUT /") != NULL);
        peer_check(strcmp(peer_read_body(fd, 3), "xyz") == 0);
        peer_send(fd, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static void expect_status(TbHttpOptions o, unsigned status)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL;
        TbError *err = NULL;

        o.url = url;
        assert_ok(tb_http_perform(http, &o, &r, &err), err);
        assert_int_equal(tb_http_request_status(r), status);
}

static void test_small_bodies(void **state)
{
        const char *const headers[] = {"Content-Type: application/json", NULL};

        listen_with(serve_small_bodies);
        expect_status((TbHttpOptions){.method = "POST"}, 202);
        expect_status(
                (TbHttpOptions){.method = "POST", .body = "{\"a\"}", .body_size = 5, .headers = headers},
                200);
        expect_status((TbHttpOptions){.method = "DELETE"}, 200);
        expect_status((TbHttpOptions){.method = "PUT", .body = "xyz", .body_size = 3}, 201);
        http = (tb_http_free(http), NULL);
        scripted_server_finish(&server);
}

static int serve_silent(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_wait_close(fd);
        return 0;
}

static void test_source_ends_early(void **state)
{
        _cleanup_(flow_done) Flow f = {.send_total = BIG, .end_early = 1000};

        listen_with(serve_silent);
        flow_start(&f, (TbHttpOptions){.method = "PUT", .url = url, .read = on_read, .read_size = BIG});
        run();
        assert_int_equal(f.done, 1);
        assert_int_equal(f.done_code, -EPIPE);
}

static void test_free_in_read(void **state)
{
        Flow f = {.send_total = BIG, .free_in_read = true};

        listen_with(serve_silent);
        flow_start(&f, (TbHttpOptions){.method = "PUT", .url = url, .read = on_read, .read_size = BIG});
        run();
        assert_int_equal(f.done, 0);
}

static int serve_early_refusal(int listen_fd)
{
        int fd = peer_accept(listen_fd);

        peer_read_head(fd);
        peer_send(fd, "HTTP/1.1 401 Unauthorized\r\nWww-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n");
        peer_wait_close(fd);
        return 0;
}

static void test_refused_before_the_end(void **state)
{
        _cleanup_(flow_done) Flow f = {.send_total = UINT64_MAX / 2};

        listen_with(serve_early_refusal);
        flow_start(&f,
                (TbHttpOptions){.method = "PUT", .url = url, .read = on_read, .read_size = f.send_total});
        run();
        assert_int_equal(f.done_code, 0);
        assert_int_equal(tb_http_request_status(f.request), 401);
        assert_string_equal(tb_http_request_header(f.request, "WWW-Authenticate"), "Bearer");
}

static int on_exit_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        return sd_event_exit(event, 0);
}

static void test_perform_is_cancelled_by_exit(void **state)
{
        sd_event_source *s = NULL;
        TbHttpRequest *r = NULL;
        TbError *err = NULL;

        listen_with(serve_silent);
        assert_true(
                sd_event_add_time_relative(event, &s, CLOCK_MONOTONIC, 20000, 1, on_exit_timer, NULL) >= 0);
        assert_error(tb_http_perform(http, &(TbHttpOptions){.method = "GET", .url = url}, &r, &err),
                -ECANCELED, err);
        sd_event_source_disable_unref(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_back_pressure, setup, teardown),
                cmocka_unit_test_setup_teardown(test_resume_inside_callback, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pause_outlasts_speed_check, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_in_write, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_everything_in_write, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_after_resume, setup, teardown),
                cmocka_unit_test_setup_teardown(test_abort_after_resume, setup, teardown),
                cmocka_unit_test_setup_teardown(test_abort, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_in_done, setup, teardown),
                cmocka_unit_test_setup_teardown(test_close_client_in_done, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_another, setup, teardown),
                cmocka_unit_test_setup_teardown(test_start_in_write, setup, teardown),
                cmocka_unit_test_setup_teardown(test_many_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(test_cancel_and_orphan, setup, teardown),
                cmocka_unit_test_setup_teardown(test_uploads, setup, teardown),
                cmocka_unit_test_setup_teardown(test_small_bodies, setup, teardown),
                cmocka_unit_test_setup_teardown(test_source_ends_early, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_in_read, setup, teardown),
                cmocka_unit_test_setup_teardown(test_refused_before_the_end, setup, teardown),
                cmocka_unit_test_setup_teardown(test_perform_is_cancelled_by_exit, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

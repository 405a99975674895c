/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/http.h"
#include "common/strv.h"

/* TLS against openssl(1): verified by default, and every way of getting it wrong says what to do. */

static char *dir;
static pid_t server;
static int server_output = -EBADF;
static sd_event *event;
static TbHttp *http;

static char *in_dir(const char *name)
{
        char *p = tb_asprintf("%s/%s", dir, name);

        assert_non_null(p);
        return p;
}

/* Runs openssl; *ret_output is its stdout when wanted. 127 = there is none. */
static pid_t spawn_openssl(char *const *argv, int *ret_output)
{
        int fds[2] = {-EBADF, -EBADF};
        pid_t pid;

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                int null = open("/dev/null", O_RDWR | O_CLOEXEC);

                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) dup2(null, STDIN_FILENO);
                (void) dup2(ret_output ? fds[1] : null, STDOUT_FILENO);
                (void) dup2(null, STDERR_FILENO);
                execvp("openssl", argv);
                _exit(127);
        }
        close(fds[1]);
        if (ret_output)
                *ret_output = fds[0];
        else
                close(fds[0]);
        return pid;
}

static int make_certificate(const char *key, const char *certificate)
{
        const char *const argv[] = {"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate, NULL};
        int status;

        assert_true(waitpid(spawn_openssl((char *const *) argv, NULL), &status, 0) > 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Returns the port from the line "ACCEPT 127.0.0.1:PORT". */
static unsigned start_server(const char *key, const char *certificate, const char *limit)
{
        const char *const argv[] = {"openssl", "s_server", "-accept", "127.0.0.1:0", "-key", key, "-cert",
                certificate, "-www", limit, NULL};
        char text[4096] = "", *p;
        size_t n = 0;

        server = spawn_openssl((char *const *) argv, &server_output);
        while (n < sizeof(text) - 1 && read(server_output, text + n, 1) == 1) {
                n++;
                p = strstr(text, "ACCEPT ");
                if (p && text[n - 1] == '\n') {
                        const char *colon = strrchr(p, ':');

                        assert_non_null(colon);
                        return (unsigned) strtoul(colon + 1, NULL, 10);
                }
        }
        fail_msg("openssl s_server did not start: %s", text);
        return 0;
}

static int setup(void **state)
{
        TbError *err = NULL;

        assert_ok(tb_mkdtemp("/tmp/tbnode-test-XXXXXX", &dir, &err), err);
        assert_true(sd_event_new(&event) >= 0);
        assert_ok(tb_http_new(event, &http, &err), err);
        return 0;
}

static int teardown(void **state)
{
        TbError *err = NULL;

        http = tb_http_free(http);
        event = sd_event_unref(event);
        if (server > 0) {
                (void) kill(server, SIGKILL);
                (void) waitpid(server, NULL, 0);
                server = 0;
        }
        server_output = tb_close(server_output);
        assert_ok(tb_rm_rf(dir, &err), err);
        dir = (free(dir), NULL);
        return 0;
}

static int get(const char *url, TbHttpTls tls, TbError **err)
{
        _cleanup_(tb_http_request_freep) TbHttpRequest *r = NULL;
        int k = tb_http_perform(http, &(TbHttpOptions){.method = "GET", .url = url, .tls = tls}, &r, err);

        if (k >= 0)
                assert_int_equal(tb_http_request_status(r), 200);
        return k;
}

static void test_verification(void **state)
{
        _cleanup_free_ char *key = in_dir("key.pem"), *certificate = in_dir("cert.pem"),
                            *empty = in_dir("empty.pem"), *missing = in_dir("missing.pem"), *url = NULL;
        TbError *err = NULL;
        unsigned port;
        int r;

        r = make_certificate(key, certificate);
        if (r == 127) {
                print_message("openssl(1) is not installed\n");
                skip();
        }
        assert_int_equal(r, 0);
        port = start_server(key, certificate, "-tls1_2");
        url = tb_asprintf("https://127.0.0.1:%u/", port);

        r = get(url, (TbHttpTls){}, &err);
        assert_non_null(strstr(err->message, "cannot verify the TLS certificate"));
        assert_non_null(strstr(err->message, "; install the CA certificate"));
        assert_int_equal(err->kind, TB_ERROR_REMOTE);
        assert_false(err->retryable);
        assert_error(r, -EKEYREJECTED, err);

        assert_ok(get(url, (TbHttpTls){.ca_file = certificate}, &err), err);
        assert_ok(get(url, (TbHttpTls){.insecure = true}, &err), err);
        /* What one request was told to ignore does not leak into the next one over a kept connection. */
        assert_error(get(url, (TbHttpTls){}, &err), -EKEYREJECTED, err);

        assert_ok(tb_file_write_atomic(empty, "", 0, 0600, &err), err);
        r = get(url, (TbHttpTls){.ca_file = empty}, &err);
        assert_int_equal(err->kind, TB_ERROR_CONFIG);
        assert_error(r, -EINVAL, err);
        r = get(url, (TbHttpTls){.ca_file = missing}, &err);
        assert_int_equal(err->kind, TB_ERROR_CONFIG);
        assert_error(r, -EINVAL, err);
        r = get(url, (TbHttpTls){.ca_file = certificate, .client_cert = missing, .client_key = missing},
                &err);
        assert_int_equal(err->kind, TB_ERROR_CONFIG);
        assert_error(r, -EINVAL, err);
}

static void test_wrong_name(void **state)
{
        _cleanup_free_ char *key = in_dir("key.pem"), *certificate = in_dir("cert.pem"), *url = NULL;
        TbError *err = NULL;

        if (make_certificate(key, certificate) == 127) {
                print_message("openssl(1) is not installed\n");
                skip();
        }
        /* Another spelling of the server's address, which its certificate does not list. */
        url = tb_asprintf("https://[::ffff:127.0.0.1]:%u/", start_server(key, certificate, "-tls1_2"));
        assert_error(get(url, (TbHttpTls){.ca_file = certificate}, &err), -EKEYREJECTED, err);
}

static void test_old_tls(void **state)
{
        _cleanup_free_ char *key = in_dir("key.pem"), *certificate = in_dir("cert.pem"), *url = NULL;
        TbError *err = NULL;

        if (make_certificate(key, certificate) == 127) {
                print_message("openssl(1) is not installed\n");
                skip();
        }
        url = tb_asprintf("https://127.0.0.1:%u/", start_server(key, certificate, "-tls1_1"));
        assert_error(get(url, (TbHttpTls){.ca_file = certificate}, &err), -EPROTO, err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_verification, setup, teardown),
                cmocka_unit_test_setup_teardown(test_wrong_name, setup, teardown),
                cmocka_unit_test_setup_teardown(test_old_tls, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ways to a registry: proxies, unix sockets, IPv6, private CAs; and what it says beside its answers. */

#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"
#include "tests/unit/registry-server.h"

typedef struct Fixture {
        RegistryClient *client;
        Server *server;
        RegistryRef *ref;
        char *dir;
        void (*script)(Exchange *e);
} Fixture;

static Fixture *current;

static void on_request(Exchange *e)
{
        current->script(e);
}

static int setup(void **state)
{
        Fixture *f = calloc(1, sizeof(*f));
        char name[128];

        f->server = server_new(on_request, NULL);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 2, 1000);
        snprintf(name, sizeof(name), "%s/some/image:tag", server_host(f->server));
        assert_int_equal(registry_ref_parse(name, &f->ref, NULL), 0);
        assert_int_equal(tb_mkdtemp("/tmp/tbnode-test-XXXXXX", &f->dir, NULL), 0);
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
        assert_int_equal(tb_rm_rf(f->dir, NULL), 0);
        free(f->dir);
        free(f);
        return 0;
}

static void fine(Exchange *e)
{
        exchange_text(e, 200, "", "{}");
}

/* ---- NO_PROXY: the cases of golang.org/x/net/http/httpproxy's tests, and more ---- */

static void test_no_proxy(void **state)
{
        static const struct {
                const char *list, *host, *port;
                bool matches;
        } cases[] = {
                {"", "example.com", "80", false},
                {NULL, "example.com", "80", false},
                {"*", "example.com", "80", true},
                {"foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, "
                 "10.0.0.0/30, "
                 "2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64",
                        "foobar.com", "80", true},
#define LIST                                                                                    \
        "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, " \
        "10.0.0.0/30, "                                                                         \
        "2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64, "  \
        "port.example:8443"
                {LIST, "www.foobar.com", "80", true},
                {LIST, "FooBar.com", "80", true},
                {LIST, "foofoobar.com", "80", false},
                {LIST, "baz.com", "80", false},
                {LIST, "barbaz.net", "80", false},
                {LIST, "www.barbaz.net", "80", true},
                {LIST, "wildcard.io", "80", false},
                {LIST, "nested.wildcard.io", "80", true},
                {LIST, "awildcard.io", "80", false},
                {LIST, "192.168.1.1", "80", true},
                {LIST, "192.168.1.2", "80", false},
                {LIST, "192.168.1.2", "81", true},
                {LIST, "192.168.1.3", "80", true},
                {LIST, "192.168.1.4", "80", false},
                {LIST, "10.0.0.2", "80", true},
                {LIST, "10.0.0.4", "80", false},
                {LIST, "2001:db8::52:0:1", "443", true},
                {LIST, "2001:db8::52:0:2", "443", true},
                {LIST, "2001:db8::52:0:2", "80", false},
                {LIST, "2001:db8::52:0:3", "80", true},
                {LIST, "2002:db8:a::123", "80", true},
                {LIST, "2002:db8:b::1", "80", false},
                {LIST, "::ffff:192.168.1.1", "80", true},
                {LIST, "port.example", "8443", true},
                {LIST, "sub.port.example", "8443", true},
                {LIST, "port.example", "443", false},
                {"0.0.0.0/0", "198.51.100.1", "1", true},
                {"0.0.0.0/0", "name.example", "1", false},
                {"10.0.0.0/33,10.0.0.0/x,/8,:80,.,[", "10.0.0.1", "80", false},
                {" , ,", "a", "80", false},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (registry_no_proxy_matches(cases[i].list, cases[i].host, cases[i].port) !=
                        cases[i].matches)
                        fail_msg("%s:%s in \"%s\"", cases[i].host, cases[i].port, cases[i].list);
}

static void test_proxy_choice(void **state)
{
        static const struct {
                const char *http, *https, *none, *url, *proxy; /* proxy NULL = error */
        } cases[] = {
                {"p:1", "p:2", NULL, "http://r.example/", "http://p:1"},
                {"p:1", "p:2", NULL, "https://r.example/", "http://p:2"},
                {"p:1", NULL, NULL, "https://r.example/", ""},
                {NULL, "https://u:pw@p:2", NULL, "https://r.example/", "https://u:pw@p:2"},
                {NULL, "socks5://p:2", NULL, "https://r.example/", "socks5h://p:2"},
                {"p:1", "p:2", NULL, "http://127.0.0.1:5000/", ""},
                {"p:1", "p:2", NULL, "http://localhost/", ""},
                {"p:1", "p:2", NULL, "http://[::1]:5000/", ""},
                {"p:1", "p:2", "r.example", "https://r.example/", ""},
                {"p:1", "p:2", "r.example:443", "https://r.example/", ""},
                {"p:1", "p:2", "r.example:443", "http://r.example/", "http://p:1"},
                {"p:1", "p:2", "2001:db8::/32", "https://[2001:db8::1]:5000/", ""},
                {"ftp://p:1", NULL, NULL, "http://r.example/", NULL},
                {"a b", NULL, NULL, "http://r.example/", NULL},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                RegistryProxy p = {0};
                const char *proxy = NULL;
                int r;

                unsetenv("http_proxy");
                unsetenv("https_proxy");
                unsetenv("NO_PROXY");
                if (cases[i].http)
                        setenv("http_proxy", cases[i].http, 1);
                if (cases[i].https)
                        setenv("https_proxy", cases[i].https, 1);
                if (cases[i].none)
                        setenv("NO_PROXY", cases[i].none, 1);
                (void) !registry_proxy_from_environment(&p, &p.error);
                r = registry_proxy_for(&p, cases[i].url, &proxy, NULL);
                if ((r < 0) != !cases[i].proxy || (r >= 0 && strcmp(proxy, cases[i].proxy) != 0))
                        fail_msg("%s: through \"%s\", not \"%s\"", cases[i].url, r < 0 ? "error" : proxy,
                                cases[i].proxy);
                registry_proxy_done(&p);
        }
        unsetenv("http_proxy");
        unsetenv("https_proxy");
        unsetenv("NO_PROXY");
}

/* A proxy gets the whole URL, and its own credentials; the registry's credentials are for the registry. */
static void as_proxy(Exchange *e)
{
        const char *a = exchange_header(e, "Proxy-Authorization");

        if (!a || strcmp(a, "Basic cHU6cHc=") != 0) /* pu:pw */
                exchange_text(e, 407, "", "");
        else if (strncmp(e->path, "http://registry.test/v2/", 24) == 0)
                exchange_text(e, 200, "", "{}");
        else
                exchange_text(e, 502, "", "");
}

static void test_proxy(void **state)
{
        Fixture *f = *state;
        _cleanup_free_ char *with = tb_asprintf("http://pu:pw@%s", server_host(f->server)),
                            *wrong = tb_asprintf("http://pu:hunter2@%s", server_host(f->server));
        _cleanup_error_ TbError *e = NULL;
        RegistryHost *h;

        f->script = as_proxy;
        assert_int_equal(registry_client_set_plain_http(f->client, "registry.test", NULL), 0);
        assert_int_equal(registry_client_set_proxy(f->client, with, "other.test", NULL), 0);
        assert_works(registry_ping(f->client, "registry.test", err));
        /* that the proxy is on a private address makes the registry no private one */
        assert_int_equal(registry_client_get_host(f->client, "registry.test", &h, NULL), 0);
        assert_false(h->seen_private);

        assert_int_equal(registry_client_set_proxy(f->client, wrong, NULL, NULL), 0);
        assert_true(registry_ping(f->client, "registry.test", &e) < 0);
        assert_null(strstr(tb_error_message(e), "hunter2"));
        assert_fails(registry_client_set_proxy(f->client, "gopher://hunter2", NULL, err), -EINVAL,
                "must begin with");
}

/* ---- unix sockets, IPv6 ---- */

static void test_unix_socket(void **state)
{
        Fixture *f = *state;
        _cleanup_free_ char *path = tb_asprintf("%s/registry.sock", f->dir);
        Server *s = server_new_at(path, on_request, NULL);

        assert_non_null(s);
        f->script = fine;
        assert_int_equal(registry_client_set_unix_socket(f->client, "local.registry", path, NULL), 0);
        assert_int_equal(registry_client_set_proxy(f->client, "http://127.0.0.1:1", NULL, NULL), 0);
        assert_works(registry_ping(f->client, "local.registry", err));
        assert_int_equal(server_count(s, "GET", "/v2/"), 1);
        assert_fails(
                registry_client_set_unix_socket(f->client, "a.b", "relative", err), -EINVAL, "absolute");
        server_free(s);
        assert_fails(registry_ping(f->client, "local.registry", err), -ECONNREFUSED, "registry.sock");
}

static void test_ipv6(void **state)
{
        Fixture *f = *state;
        Server *s = server_new_at("::1", on_request, NULL);

        if (!s) {
                print_message("no IPv6 on this machine\n");
                skip();
        }
        f->script = fine;
        assert_works(registry_ping(f->client, server_host(s), err));
        assert_int_equal(server_count(s, "GET", "/v2/"), 1);
        server_free(s);
}

/* ---- certs.d ---- */

static pid_t spawn(const char *const *argv, int *ret_output)
{
        int fds[2], null;
        pid_t pid;

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                null = open("/dev/null", O_RDWR | O_CLOEXEC);
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) dup2(null, STDIN_FILENO);
                (void) dup2(ret_output ? fds[1] : null, STDOUT_FILENO);
                (void) dup2(null, STDERR_FILENO);
                execvp(argv[0], (char *const *) (uintptr_t) argv);
                _exit(127);
        }
        close(fds[1]);
        if (ret_output)
                *ret_output = fds[0];
        else
                close(fds[0]);
        return pid;
}

static void make_certificate(const char *dir, const char *name, const char *cert_ending)
{
        _cleanup_free_ char *key = tb_asprintf("%s/%s.key", dir, name),
                            *cert = tb_asprintf("%s/%s%s", dir, name, cert_ending);
        const char *const argv[] = {"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert, NULL};
        int status;

        assert_true(waitpid(spawn(argv, NULL), &status, 0) > 0);
        assert_int_equal(status, 0);
}

static unsigned start_tls(
        const char *key, const char *cert, const char *client_ca, pid_t *ret_pid, int *ret_output)
{
        const char *const argv[] = {"openssl", "s_server", "-accept", "127.0.0.1:0", "-key", key, "-cert",
                cert, "-www", client_ca ? "-Verify" : NULL, "1", "-verify_return_error", "-CAfile",
                client_ca, NULL};
        char text[4096] = "", *p;
        size_t n = 0;

        *ret_pid = spawn(argv, ret_output);
        while (n < sizeof(text) - 1 && read(*ret_output, text + n, 1) == 1) {
                n++;
                p = strstr(text, "ACCEPT ");
                if (p && text[n - 1] == '\n')
                        return (unsigned) strtoul(strrchr(p, ':') + 1, NULL, 10);
        }
        fail_msg("openssl s_server did not start: %s", text);
        return 0;
}

static void copy_file(const char *from, const char *to)
{
        _cleanup_free_ char *data = NULL;
        size_t size;

        assert_int_equal(tb_file_read(from, 65536, &data, &size, NULL), 0);
        assert_int_equal(tb_file_write_atomic(to, data, size, 0600, NULL), 0);
}

static RegistryClient *client_with_certs(Fixture *f, const char *certs, const char *host)
{
        static const RegistryTls none = {0};

        registry_client_free(f->client);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 1, 1000);
        /* loopback names are plain http unless TLS is asked for */
        if (!certs)
                assert_int_equal(registry_client_set_tls(f->client, host, &none, NULL), 0);
        else {
                RegistryHost *h;

                assert_int_equal(registry_client_set_certs_dir(f->client, certs, NULL), 0);
                assert_int_equal(registry_client_get_host(f->client, host, &h, NULL), 0);
                h->plain_http = false;
        }
        return f->client;
}

static void test_certs(void **state)
{
        Fixture *f = *state;
        _cleanup_free_ char *key = tb_asprintf("%s/server.key", f->dir),
                            *cert = tb_asprintf("%s/server.pem", f->dir),
                            *user_cert = tb_asprintf("%s/user.pem", f->dir),
                            *user_key = tb_asprintf("%s/user.key", f->dir),
                            *certs = tb_asprintf("%s/certs.d", f->dir), *host = NULL, *dir = NULL,
                            *ca = NULL, *to_cert = NULL, *to_key = NULL;
        RegistryTls insecure = {.insecure = true};
        pid_t pid = 0;
        int output = -EBADF;

        make_certificate(f->dir, "server", ".pem");
        make_certificate(f->dir, "user", ".pem");
        host = tb_asprintf("127.0.0.1:%u", start_tls(key, cert, NULL, &pid, &output));
        dir = tb_asprintf("%s/%s", certs, host);
        ca = tb_asprintf("%s/ca.crt", dir);
        assert_int_equal(tb_mkdir_p(dir, 0700, NULL), 0);

        assert_fails(
                registry_ping(client_with_certs(f, NULL, host), host, err), -EKEYREJECTED, "certificate");
        assert_fails(
                registry_ping(client_with_certs(f, certs, host), host, err), -EKEYREJECTED, "certificate");
        copy_file(cert, ca);
        assert_works(registry_ping(client_with_certs(f, certs, host), host, err));
        assert_int_equal(unlink(ca), 0);
        /* insecure only when this host was named so */
        client_with_certs(f, certs, host);
        assert_int_equal(registry_client_set_tls(f->client, "127.0.0.1:1", &insecure, NULL), 0);
        assert_fails(registry_ping(f->client, host, err), -EKEYREJECTED, "certificate");
        assert_int_equal(registry_client_set_tls(f->client, host, &insecure, NULL), 0);
        assert_works(registry_ping(f->client, host, err));
        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, NULL, 0);
        close(output);

        /* a server that wants to know who we are */
        free(host);
        host = tb_asprintf("127.0.0.1:%u", start_tls(key, cert, user_cert, &pid, &output));
        free(dir);
        dir = tb_asprintf("%s/%s", certs, host);
        free(ca);
        ca = tb_asprintf("%s/ca.crt", dir);
        to_cert = tb_asprintf("%s/client.cert", dir);
        to_key = tb_asprintf("%s/client.key", dir);
        assert_int_equal(tb_mkdir_p(dir, 0700, NULL), 0);
        copy_file(cert, ca);
        {
                _cleanup_error_ TbError *e = NULL;

                assert_true(registry_ping(client_with_certs(f, certs, host), host, &e) < 0);
        }
        copy_file(user_cert, to_cert);
        assert_fails(registry_ping(client_with_certs(f, certs, host), host, err), -ENOENT, "no key");
        copy_file(user_key, to_key);
        assert_works(registry_ping(client_with_certs(f, certs, host), host, err));
        assert_int_equal(unlink(to_cert), 0);
        assert_fails(registry_ping(client_with_certs(f, certs, host), host, err), -ENOENT,
                "no client certificate");
        copy_file(user_key, ca);
        copy_file(user_cert, to_cert);
        assert_fails(
                registry_ping(client_with_certs(f, certs, host), host, err), -EINVAL, "no PEM certificate");
        (void) kill(pid, SIGKILL);
        (void) waitpid(pid, NULL, 0);
        close(output);
}

/* ---- where a public registry must not send us ---- */

/* Addresses that carry another one inside lead where that one leads. */
static void test_private_addresses(void **state)
{
        static const char *const urls[] = {"https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/",
                "https://[2002:a00:1::]/", "https://198.18.0.1/", "https://192.0.0.8/", "https://[fe80::1]/",
                "https://[fd00::1]/", "https://169.254.169.254/latest/meta-data", "https://0x7f000001/"};
        Fixture *f = *state;
        RegistryHost *public;

        assert_int_equal(registry_client_get_host(f->client, "registry.example", &public, NULL), 0);
        for (size_t i = 0; i < ELEMENTSOF(urls); i++)
                assert_fails(registry_call_check_target(
                                     f->client, public, "https://registry.example/", urls[i], err),
                        -EACCES, "private address");
        assert_works(registry_call_check_target(
                f->client, public, "https://registry.example/", "https://[64:ff9b::801:101]/", err));
        assert_works(registry_call_check_target(
                f->client, public, "https://registry.example/", "https://198.20.0.1/", err));
}

/* ---- warnings and limits ---- */

static void test_warning_parser(void **state)
{
        static const struct {
                const char *header, *texts[3];
                int end;
        } cases[] = {
                {"299 - \"deprecated\"", {"deprecated"}, 0},
                {"299 - \"with \\\"quotes\\\", comma and \\\\\"", {"with \"quotes\", comma and \\"}, 0},
                {"299 - \"one\", 299 - \"two\"", {"one", "two"}, 0},
                {"299 - \"dated\" \"Wed, 21 Oct 2015 07:28:00 GMT\", 299 - \"x\"", {"dated", "x"}, 0},
                {"110 proxy \"stale\", 299 host:80 \"agent\", 299 - \"for you\"", {"for you"}, 0},
                {"299 - \"\"", {NULL}, 0},
                {"", {NULL}, 0},
                {"299 - \"open", {NULL}, -EPROTO},
                {"299 - \"open\\", {NULL}, -EPROTO},
                {"299 - unquoted", {NULL}, -EPROTO},
                {"299", {NULL}, -EPROTO},
                {"rubbish", {NULL}, -EPROTO},
                {"299 - \"good\" rubbish", {"good"}, -EPROTO},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                const char *p = cases[i].header;
                char *text;
                size_t n = 0;
                int r;

                while ((r = registry_warning_next(&p, &text)) > 0) {
                        assert_true(n < 3);
                        assert_string_equal(text, cases[i].texts[n++]);
                        free(text);
                }
                assert_int_equal(r, cases[i].end);
                assert_true(n == 3 || !cases[i].texts[n]);
        }
}

static void warns(Exchange *e)
{
        char head[512];

        snprintf(head, sizeof(head),
                "Warning: 299 - \"number %u \x1b[31m\"\r\nWarning: 299 - \"always\"\r\nWarning: 299 - "
                "\"open\r\n",
                e->nth);
        exchange_text(e, 200, head, "{}");
}

typedef struct Told {
        size_t n;
        bool control;
        char last[200];
} Told;

static void on_warning(const char *host, const char *text, void *userdata)
{
        Told *t = userdata;

        assert_string_equal(host, current->ref->host);
        t->n++;
        t->control = t->control || strchr(text, '\033');
        snprintf(t->last, sizeof(t->last), "%s", text);
}

static void test_warnings(void **state)
{
        Fixture *f = *state;
        Told told = {0};

        f->script = warns;
        registry_client_set_warning_handler(f->client, on_warning, &told);
        assert_works(registry_ping(f->client, f->ref->host, err));
        assert_int_equal(told.n, 2);
        assert_string_equal(told.last, "always");
        assert_works(registry_ping(f->client, f->ref->host, err));
        assert_int_equal(told.n, 3); /* "always" was told */
        assert_false(told.control);
        for (unsigned i = 0; i < 50; i++)
                assert_works(registry_ping(f->client, f->ref->host, err));
        assert_int_equal(told.n, REGISTRY_WARNINGS_MAX);
}

static void test_ratelimit_parser(void **state)
{
        static const struct {
                const char *in;
                bool good;
                uint64_t count, window;
        } cases[] = {
                {"100;w=21600", true, 100, 21600},
                {" 76 ; W=60", true, 76, 60},
                {"5", true, 5, 0},
                {"0;w=0", true, 0, 0},
                {"100;comment=\"x\";w=60", true, 100, 60},
                {"10, 50;w=60", true, 10, 0},
                {"100;w=99999999999999999999999", true, 100, 0},
                {"100;w=", true, 100, 0},
                {"", false, 0, 0},
                {"-1", false, 0, 0},
                {"many", false, 0, 0},
                {"99999999999999999999", false, 0, 0},
                {"100 200", false, 0, 0},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                uint64_t count = 0, window = 0;

                if (registry_ratelimit_parse(cases[i].in, &count, &window) != cases[i].good ||
                        count != cases[i].count || window != cases[i].window)
                        fail_msg("%s: %llu %llu", cases[i].in, (unsigned long long) count,
                                (unsigned long long) window);
        }
}

/* As Docker Hub does: the headers come with HEAD of a manifest; a 429 says for how long. */
static void like_the_hub(Exchange *e)
{
        if (e->nth == 0)
                exchange_text(
                        e, 404, "ratelimit-limit: 100;w=21600\r\nratelimit-remaining: 76;w=21600\r\n", "");
        else
                exchange_text(e, 429, "Retry-After: 7200\r\n", "");
}

static void test_rate_limit(void **state)
{
        Fixture *f = *state;
        RegistryDescriptor d;
        RegistryRateLimit l;
        uint64_t now = (uint64_t) time(NULL) * USEC_PER_SEC;

        f->script = like_the_hub;
        assert_int_equal(registry_client_get_rate_limit(f->client, f->ref->host, &l), 0);
        assert_null(registry_client_rate_limit_nth(f->client, 0, &l));
        assert_int_equal(registry_resolve(f->client, f->ref, &d, NULL), 0);
        assert_int_equal(registry_client_get_rate_limit(f->client, f->ref->host, &l), 1);
        assert_int_equal(l.limit, 100);
        assert_int_equal(l.remaining, 76);
        assert_int_equal(l.window_sec, 21600);
        assert_true(l.told_at_usec >= now);
        assert_int_equal(l.refused_until_usec, 0);

        assert_fails(registry_resolve(f->client, f->ref, &d, err), -EAGAIN, "asks to wait 7200 s");
        assert_string_equal(registry_client_rate_limit_nth(f->client, 0, &l), f->ref->host);
        assert_int_equal(l.limit, 100);
        assert_true(l.refused_until_usec >= now + 7199 * USEC_PER_SEC &&
                l.refused_until_usec < now + 7300 * USEC_PER_SEC);
        assert_int_equal(server_count(f->server, "HEAD", "/"), 2); /* no use in trying for two hours */
}

/* ---- a server that falls silent ---- */

static void falls_silent(Exchange *e)
{
        char c;

        if (e->nth > 0) {
                fine(e);
                return;
        }
        exchange_puts(e, "HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nsome");
        (void) !read(e->fd, &c, 1); /* until the client goes */
        e->close = true;
}

static void test_stall(void **state)
{
        Fixture *f = *state;
        RegistryStats stats;

        registry_client_set_stall_timeout(f->client, 1);
        f->script = falls_silent;
        assert_works(registry_ping(f->client, f->ref->host, err));
        registry_client_get_stats(f->client, &stats);
        assert_int_equal(stats.retries, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_no_proxy),
                cmocka_unit_test(test_proxy_choice),
                T(test_proxy),
                T(test_unix_socket),
                T(test_ipv6),
                T(test_certs),
                T(test_private_addresses),
                cmocka_unit_test(test_warning_parser),
                T(test_warnings),
                cmocka_unit_test(test_ratelimit_parser),
                T(test_rate_limit),
                T(test_stall),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

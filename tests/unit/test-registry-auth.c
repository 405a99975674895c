/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who gets which credentials: helpers, refresh tokens, scopes, several challenges; and what never leaves. */

#include "tests/unit/test.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
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
        TbBuffer log; /* everything the client says */
        pthread_mutex_t lock;
        char seen[8][2048]; /* what handlers noted */
        size_t n_seen;
} Fixture;

static Fixture *current;

static void on_request(Exchange *e)
{
        current->script(e);
}

static void note(const char *text)
{
        pthread_mutex_lock(&current->lock);
        if (current->n_seen < ELEMENTSOF(current->seen))
                snprintf(current->seen[current->n_seen++], sizeof(current->seen[0]), "%s", text);
        pthread_mutex_unlock(&current->lock);
}

static void on_debug(const char *line, void *userdata)
{
        Fixture *f = userdata;

        assert_true(tb_buffer_append_str(&f->log, line, NULL) >= 0);
}

static int setup(void **state)
{
        Fixture *f = calloc(1, sizeof(*f));
        char name[128];

        pthread_mutex_init(&f->lock, NULL);
        f->server = server_new(on_request, NULL);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 2, 1000);
        registry_client_set_debug(f->client, on_debug, f);
        snprintf(name, sizeof(name), "%s/some/image:tag", server_host(f->server));
        assert_int_equal(registry_ref_parse(name, &f->ref, NULL), 0);
        assert_int_equal(tb_mkdtemp("/tmp/tbnode-test-XXXXXX", &f->dir, NULL), 0);
        assert_int_equal(registry_client_set_helper_path(f->client, f->dir, NULL), 0);
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
        tb_buffer_done(&f->log);
        free(f->dir);
        free(f);
        return 0;
}

static char *in_dir(Fixture *f, const char *name)
{
        return tb_asprintf("%s/%s", f->dir, name);
}

static char *read_in_dir(Fixture *f, const char *name)
{
        _cleanup_free_ char *path = in_dir(f, name);
        char *data = NULL;
        size_t size;

        return tb_file_read(path, 65536, &data, &size, NULL) < 0 ? strdup("") : data;
}

/* Writes docker-credential-NAME; in `body`, $D is the fixture's directory. */
static void add_helper(Fixture *f, const char *name, const char *body)
{
        _cleanup_free_ char *path = tb_asprintf("%s/docker-credential-%s", f->dir, name);
        _cleanup_free_ char *text = tb_asprintf("#!/bin/sh\nPATH=/usr/bin:/bin\nD=%s\n%s", f->dir, body);

        assert_int_equal(tb_file_write_atomic(path, text, strlen(text), 0755, NULL), 0);
        assert_int_equal(chmod(path, 0755), 0);
}

/* In `text`, @ is the server's host. */
static void load_config(Fixture *f, const char *text)
{
        _cleanup_free_ char *path = in_dir(f, "config.json");
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(0);
        _cleanup_error_ TbError *e = NULL;

        for (const char *p = text; *p; p++)
                assert_true((*p == '@' ? tb_buffer_append_str(&b, server_host(f->server), NULL)
                                       : tb_buffer_append(&b, p, 1, NULL)) >= 0);
        assert_int_equal(tb_file_write_atomic(path, b.data, b.size, 0600, NULL), 0);
        if (registry_client_load_docker_config(f->client, path, &e) < 0)
                fail_msg("%s", tb_error_message(e));
}

static int ping(Fixture *f, TbError **err)
{
        int r = registry_ping(f->client, f->ref->host, err);

        if (err && *err)
                on_debug(tb_error_message(*err), f);
        return r;
}

static void assert_pings(Fixture *f)
{
        _cleanup_error_ TbError *e = NULL;

        if (ping(f, &e) < 0)
                fail_msg("%s", tb_error_message(e));
}

/* ---- servers ---- */

/* u:hunter2, and for a second life u:hunter3 */
static void wants_basic(Exchange *e)
{
        const char *a = exchange_header(e, "Authorization");

        if (a && strcmp(a, "Basic dTpodW50ZXIy") == 0)
                exchange_text(e, 200, "", "{}");
        else
                exchange_text(e, 401, "WWW-Authenticate: Basic realm=\"r\"\r\n", "");
}

/* A registry with its token server on the same port. */
static void serve_token(Exchange *e, const char *token_answer)
{
        char head[5000];

        if (exchange_is(e, "GET", "/token") || exchange_is(e, "POST", "/token")) {
                snprintf(head, sizeof(head), "%s %s", e->method, e->body_size > 0 ? e->body : e->path);
                note(head);
                exchange_text(e, 200, "", token_answer);
                return;
        }
        if (exchange_header(e, "Authorization")) {
                note(exchange_header(e, "Authorization"));
                exchange_text(e, 200, "", "{}");
                return;
        }
        snprintf(head, sizeof(head),
                "WWW-Authenticate: Bearer "
                "realm=\"http://%s/token\",service=\"s&1\",scope=\"repository:x:pull\"\r\n",
                server_host(e->server));
        exchange_text(e, 401, head, "");
}

static void wants_bearer(Exchange *e)
{
        serve_token(e, "{\"token\":\"abc\"}");
}

/* ---- helpers ---- */

static void test_helper(void **state)
{
        Fixture *f = *state;
        _cleanup_free_ char *asked = NULL, *env = NULL, *fds = NULL, *expect = NULL;

        setenv("LD_PRELOAD_TEST", "must not be passed on", 1);
        setenv("AWS_PROFILE", "passed on", 1);
        add_helper(f, "test",
                "read server; echo \"$1 $server\" >>$D/asked; env >$D/env; set -- /proc/$$/fd/*; echo $# "
                ">$D/fds\n"
                "echo '{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"hunter2\"}'");
        load_config(f, "{\"credHelpers\":{\"@\":\"test\"},\"auths\":{\"@\":{\"auth\":\"YTpi\"}}}");
        f->script = wants_basic;
        assert_pings(f);
        assert_pings(f);
        asked = read_in_dir(f, "asked");
        env = read_in_dir(f, "env");
        fds = read_in_dir(f, "fds");
        expect = tb_asprintf("get %s\n", f->ref->host);
        assert_string_equal(asked, expect); /* once */
        assert_null(strstr(env, "LD_PRELOAD"));
        assert_non_null(strstr(env, "AWS_PROFILE=passed on"));
        assert_true(atol(fds) <= 5); /* stdin, stdout, stderr, the script, and the directory that is read */
}

static void test_helper_store_and_hub(void **state)
{
        Fixture *f = *state;

        /* the store is asked for any host; what it does not know, auths may */
        add_helper(f, "store", "echo credentials not found in native keychain; exit 1");
        load_config(f, "{\"credsStore\":\"store\",\"auths\":{\"@\":{\"auth\":\"dTpodW50ZXIy\"}}}");
        f->script = wants_basic;
        assert_pings(f);
        assert_string_equal(registry_helper_server("docker.io"), "https://index.docker.io/v1/");
}

static void test_helper_not_found(void **state)
{
        Fixture *f = *state;

        add_helper(f, "store", "echo credentials not found in native keychain; exit 1");
        load_config(f, "{\"credsStore\":\"store\"}");
        f->script = wants_basic;
        assert_fails(ping(f, err), -EACCES, "log in with");
}

static void test_helper_fails(void **state)
{
        Fixture *f = *state;

        add_helper(f, "store", "echo 'key ring is locked'; exit 3");
        load_config(f, "{\"credsStore\":\"store\"}");
        f->script = wants_basic;
        assert_fails(ping(f, err), -EACCES,
                "docker-credential-store get: failed with status 3: key ring is locked");
        f->script = wants_bearer; /* what is public stays so */
        assert_pings(f);
}

static void test_helper_bad(void **state)
{
        static const struct {
                const char *body, *message;
        } cases[] = {
                {"kill -9 $$", "killed by signal 9"},
                {"echo '{\"Username\":\"u\",\"Secret\":\"hunter2\" x}'", "answer of the credential helper"},
                {"echo '{\"Username\":\"u\"}'", "lacks Username or Secret"},
                {"exec yes hunter2", "wrote more than"},
                {"exec >&-; exit 0", "answer of the credential helper"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Fixture *f;

                if (i > 0) {
                        teardown(state);
                        setup(state);
                }
                f = *state;
                add_helper(f, "bad", cases[i].body);
                load_config(f, "{\"credHelpers\":{\"@\":\"bad\"}}");
                f->script = wants_basic;
                assert_fails(ping(f, err), -EACCES, cases[i].message);
                assert_true(!f->log.data || !strstr(f->log.data, "hunter2"));
        }
}

static void test_helper_not_trusted(void **state)
{
        Fixture *f = *state;
        _cleanup_free_ char *path = in_dir(f, "docker-credential-open"), *marker = NULL;

        f->script = wants_basic;
        load_config(f, "{\"credHelpers\":{\"@\":\"none\"}}");
        assert_fails(ping(f, err), -EACCES, "docker-credential-none is not installed in /tmp");

        teardown(state);
        setup(state);
        f = *state;
        free(path);
        path = in_dir(f, "docker-credential-open");
        f->script = wants_basic;
        add_helper(f, "open", "touch $D/ran; echo '{\"Username\":\"u\",\"Secret\":\"hunter2\"}'");
        load_config(f, "{\"credHelpers\":{\"@\":\"open\"}}");
        assert_int_equal(chmod(path, 0777), 0);
        assert_fails(ping(f, err), -EACCES, "others could have written it");
        marker = in_dir(f, "ran");
        assert_int_equal(access(marker, F_OK), -1);

        /* relative directories do not count, and "" switches helpers off */
        assert_int_equal(registry_client_set_helper_path(f->client, "", NULL), 0);
        {
                _cleanup_error_ TbError *e = NULL;
                RegistryHelperRun *run;

                assert_int_equal(registry_helper_start(f->client->event, "::.:tmp", 0, "open", "get", "x",
                                         NULL, NULL, &run, &e),
                        -ENOENT);
        }
}

static void never(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        fail_msg("called back");
}

/* A helper that waits for ever is gone when nobody wants its answer any more. */
static void test_helper_cancelled(void **state)
{
        Fixture *f = *state;
        RegistryOp *op = NULL;
        pid_t pid = 0;

        add_helper(f, "slow", "echo $$ >$D/pid.new; mv $D/pid.new $D/pid; exec sleep 1000");
        load_config(f, "{\"credsStore\":\"slow\"}");
        f->script = wants_basic;
        assert_int_equal(registry_ping_start(f->client, f->ref->host, never, NULL, &op, NULL), 0);
        while (pid == 0) {
                _cleanup_free_ char *text = NULL;

                assert_true(sd_event_run(f->client->event, 10000) >= 0);
                text = read_in_dir(f, "pid");
                pid = (pid_t) atol(text);
        }
        assert_int_equal(kill(pid, 0), 0);
        registry_op_free(op);
        f->client = registry_client_free(f->client);
        assert_int_equal(kill(pid, 0), -1);
        assert_int_equal(errno, ESRCH);
}

/* One that waits for ever is given up, with all that it has started; whoever waited for it is told why, and it is not asked
 * again at once. Without credentials the registry goes on working. */
static void test_helper_hangs(void **state)
{
        Fixture *f = *state;
        _cleanup_error_ TbError *err = NULL, *again = NULL, *exported = NULL;
        _cleanup_free_ char *text = NULL, *asked = NULL;
        char *credentials = NULL;
        int status;
        pid_t pid;

        assert_int_equal(
                prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* what the helper leaves is ours to be waited for */
        add_helper(f, "hangs", "echo x >>$D/asked; sleep 1000 & echo $! >$D/child; wait");
        load_config(f, "{\"credsStore\":\"hangs\"}");
        f->script = wants_basic;
        registry_client_set_helper_timeout(f->client, 3000000);
        assert_int_equal(registry_ping(f->client, f->ref->host, &err), -EACCES);
        assert_non_null(strstr(tb_error_message(err),
                "docker-credential-hangs get: did not answer within 3 s; run it by hand"));
        text = read_in_dir(f, "child");
        pid = (pid_t) atol(text);
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        assert_int_equal(registry_ping(f->client, f->ref->host, &again), -EACCES);
        assert_int_equal(
                registry_client_export_credentials(f->client, f->ref->host, &credentials, &exported),
                -ETIMEDOUT);
        asked = read_in_dir(f, "asked");
        assert_string_equal(asked, "x\n");
}

/* ---- OAuth2 ---- */

static void rotates(Exchange *e)
{
        /* used up at once: 59 of its 60 seconds have passed when it comes */
        if (exchange_is(e, "POST", "/token") && e->nth == 0) {
                note(e->body);
                exchange_text(e, 200, "Date: Tue, 10 Nov 2009 23:00:59 GMT\r\n",
                        "{\"access_token\":\"one\",\"refresh_token\":\"second\","
                        "\"issued_at\":\"2009-11-10T23:00:00Z\",\"expires_in\":0}");
                return;
        }
        serve_token(e, "{\"access_token\":\"two\"}");
}

static void test_identity_token(void **state)
{
        Fixture *f = *state;

        load_config(f, "{\"auths\":{\"@\":{\"auth\":\"MDAwMDAwMDA6\",\"identitytoken\":\"first+/=\"}}}");
        f->script = rotates;
        assert_pings(f);
        assert_string_equal(f->seen[0],
                "grant_type=refresh_token&service=s%261&client_id=tbnode&scope=repository%3Ax%3Apull&"
                "refresh_token=first%2B%2F%3D");
        assert_string_equal(f->seen[1], "Bearer one");
        usleep(700000); /* its half second of use is over */
        assert_pings(f);
        assert_non_null(strstr(f->seen[2], "refresh_token=second"));
        assert_string_equal(f->seen[3], "Bearer two");
        assert_int_equal(server_count(f->server, "POST", "/token"), 2);
        assert_int_equal(server_count(f->server, "GET", "/token"), 0);
}

static void get_not_allowed(Exchange *e)
{
        if (exchange_is(e, "GET", "/token"))
                exchange_text(e, 405, "", "");
        else
                wants_bearer(e);
}

static void test_password_grant(void **state)
{
        Fixture *f = *state;

        assert_int_equal(registry_client_set_credentials(f->client, f->ref->host, "u", "p&w", NULL), 0);
        f->script = get_not_allowed;
        assert_pings(f);
        assert_string_equal(f->seen[0],
                "POST "
                "grant_type=password&service=s%261&client_id=tbnode&scope=repository%3Ax%3Apull&username=u&"
                "password=p%26w");
        assert_string_equal(f->seen[1], "Bearer abc");
}

static void test_registry_token(void **state)
{
        Fixture *f = *state;

        assert_int_equal(registry_client_set_token(f->client, f->ref->host, NULL, "as-it-is", NULL), 0);
        f->script = wants_bearer;
        assert_pings(f);
        assert_string_equal(f->seen[0], "Bearer as-it-is");
        assert_fails(
                registry_client_set_token(f->client, f->ref->host, "a", "b", err), -EINVAL, "exactly one");
        assert_fails(registry_client_set_token(f->client, f->ref->host, "a\r\nb", NULL, err), -EINVAL,
                "characters");
}

/* ---- challenges and scopes ---- */

static void many_challenges(Exchange *e)
{
        char head[512];

        if (exchange_is(e, "GET", "/token") || exchange_header(e, "Authorization")) {
                wants_bearer(e);
                return;
        }
        snprintf(head, sizeof(head),
                "WWW-Authenticate: Negotiate\r\nWWW-Authenticate: Bearer realm=\r\n"
                "WWW-Authenticate: Basic realm=\"b\", Bearer realm=\"http://%s/token\",service=\"s\"\r\n"
                "WWW-Authenticate: NTLM TlRMTVNT\r\n",
                server_host(e->server));
        exchange_text(e, 401, head, "");
}

static void only_rubbish(Exchange *e)
{
        exchange_text(e, 401, "WWW-Authenticate: Bearer realm=\r\n", "");
}

static void test_several_challenges(void **state)
{
        Fixture *f = *state;

        f->script = many_challenges;
        assert_pings(f);
        assert_string_equal(f->seen[1], "Bearer abc");
        f->client->hosts->challenge.scheme = REGISTRY_AUTH_NONE;
        f->script = only_rubbish;
        assert_fails(ping(f, err), -EPROTO, "cannot understand WWW-Authenticate");
}

/* Asks for more than we would think of. */
static void wants_more_scope(Exchange *e)
{
        char head[512];
        const char *a = exchange_header(e, "Authorization");

        if (exchange_is(e, "GET", "/token")) {
                note(e->path);
                exchange_text(e, 200, "",
                        strstr(e->path, "extra") ? "{\"token\":\"big\"}" : "{\"token\":\"small\"}");
                return;
        }
        if (a && strcmp(a, "Bearer big") == 0) {
                exchange_text(e, 404, "", "");
                return;
        }
        snprintf(head, sizeof(head),
                "WWW-Authenticate: Bearer realm=\"http://%s/token\",service=\"s\"%s\r\n",
                server_host(e->server),
                a ? ",scope=\"repository:some/image:pull registry:extra:*\",error=\"insufficient_scope\""
                  : "");
        exchange_text(e, 401, head, "");
}

static void test_scopes(void **state)
{
        Fixture *f = *state;
        TbDigest digest;
        RegistryUploadOptions o = {.repository = f->ref, .mount_from = "other/base"};
        RegistryDescriptor blob = {0};
        RegistryMountResult result;

        f->script = wants_more_scope;
        assert_int_equal(tb_digest_of("x", 1, &digest, NULL), 0);
        assert_int_equal(registry_has_blob(f->client, f->ref, &digest, NULL, NULL), 0);
        assert_string_equal(
                f->seen[0], "/token?service=s&client_id=tbnode&scope=repository%3Asome%2Fimage%3Apull");
        assert_string_equal(f->seen[1],
                "/token?service=s&client_id=tbnode&scope=registry%3Aextra%3A%2A&"
                "scope=repository%3Asome%2Fimage%3Apull");

        /* a mount: what is pushed to comes before what is read from */
        f->n_seen = 0;
        f->script = wants_bearer;
        registry_challenge_done(&f->client->hosts->challenge);
        blob.digest = o.digest = digest;
        assert_true(registry_mount_blobs(f->client, f->ref, "other/base", &blob, 1, &result, NULL) < 0);
        assert_non_null(strstr(f->seen[0],
                "scope=repository%3Ax%3Apull&scope=repository%3Asome%2Fimage%3Apull%2Cpush&scope=repository%"
                "3Aother%2F"
                "base%3Apull"));
}

/* ---- what never leaves ---- */

static void refuses_everything(Exchange *e)
{
        char head[512];

        if (exchange_is(e, "POST", "/token") || exchange_is(e, "GET", "/token")) {
                exchange_text(e, e->nth % 2 ? 500 : 401, "",
                        "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\"}]}");
                return;
        }
        snprintf(head, sizeof(head), "WWW-Authenticate: %s\r\n",
                strstr(e->path, "/image/") ? "Basic realm=\"r\"" : "");
        if (!strstr(e->path, "/image/"))
                snprintf(head, sizeof(head), "WWW-Authenticate: Bearer realm=\"http://%s/token\"\r\n",
                        server_host(e->server));
        exchange_text(e, 401, head, "");
}

static void test_secrets_stay(void **state)
{
        Fixture *f = *state;
        TbDigest digest;

        f->script = refuses_everything;
        assert_int_equal(tb_digest_of("x", 1, &digest, NULL), 0);
        for (unsigned i = 0; i < 3; i++) {
                _cleanup_error_ TbError *a = NULL, *b = NULL;

                if (i == 1)
                        assert_int_equal(registry_client_set_credentials(
                                                 f->client, f->ref->host, "user", "hunter2", NULL),
                                0);
                if (i == 2)
                        assert_int_equal(
                                registry_client_set_token(f->client, f->ref->host, "hunter2", NULL, NULL),
                                0);
                if (f->client->hosts)
                        registry_challenge_done(&f->client->hosts->challenge);
                assert_true(ping(f, &a) < 0);
                assert_true(registry_has_blob(f->client, f->ref, &digest, NULL, &b) < 0);
                on_debug(tb_error_message(b), f);
        }
        assert_non_null(f->log.data);
        assert_null(strstr(f->log.data, "hunter2"));
        assert_null(strstr(f->log.data, "dXNlcjpodW50ZXIy")); /* user:hunter2 */
        for (size_t i = 0; i < f->n_seen; i++)
                assert_null(strstr(f->seen[i], "hunter2"));
}

static void test_secret_pages(void **state)
{
        char *s = registry_secret_keep("hunter2"), line[512];
        unsigned long from, to;
        bool inside = false, left_out = false;
        FILE *smaps = fopen("/proc/self/smaps", "re");

        assert_string_equal(s, "hunter2");
        assert_non_null(smaps);
        while (fgets(line, sizeof(line), smaps)) {
                if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
                        inside = (unsigned long) (uintptr_t) s >= from && (unsigned long) (uintptr_t) s < to;
                else if (inside && tb_startswith(line, "VmFlags:"))
                        left_out = strstr(line, " dd");
        }
        fclose(smaps);
        assert_true(left_out); /* "do not include area into core dump", proc(5) */
        assert_null(registry_secret_drop(s));
        assert_null(registry_secret_drop(NULL));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_helper),
                T(test_helper_store_and_hub),
                T(test_helper_not_found),
                T(test_helper_fails),
                T(test_helper_bad),
                T(test_helper_not_trusted),
                T(test_helper_cancelled),
                T(test_helper_hangs),
                T(test_identity_token),
                T(test_password_grant),
                T(test_registry_token),
                T(test_several_challenges),
                T(test_scopes),
                T(test_secrets_stay),
                T(test_secret_pages),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

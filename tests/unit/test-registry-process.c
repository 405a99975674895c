/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The tool as a process: its password is in no output, no argument, no core dump. Wants $builddir (meson sets it). */

#include "tests/unit/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "registry-client/internal.h"
#include "tests/unit/registry-server.h"

#define PASSWORD "correct-horse-battery"
#define TOKEN "stapleAccessToken"

typedef struct Fixture {
        Server *server;
        char *dir, *program;
        pthread_mutex_t lock;
        pthread_cond_t stalled_changed;
        bool stalled;
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
        const char *build = getenv("builddir");

        pthread_mutex_init(&f->lock, NULL);
        pthread_cond_init(&f->stalled_changed, NULL);
        f->program = tb_asprintf("%s/registry-client/tbnode-registry", build ? build : "build");
        assert_int_equal(tb_mkdtemp("/tmp/tbnode-test-XXXXXX", &f->dir, NULL), 0);
        f->server = server_new(on_request, NULL);
        current = f;
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        Fixture *f = *state;

        server_free(f->server);
        assert_int_equal(tb_rm_rf(f->dir, NULL), 0);
        free(f->dir);
        free(f->program);
        free(f);
        return 0;
}

static char *in_dir(Fixture *f, const char *name)
{
        return tb_asprintf("%s/%s", f->dir, name);
}

static void write_config(Fixture *f, bool identity)
{
        _cleanup_free_ char *path = in_dir(f, "config.json"), *pair = NULL, *text = NULL;

        pair = registry_base64_encode("user:" PASSWORD, strlen("user:" PASSWORD));
        text = identity
                ? tb_asprintf("{\"auths\":{\"%s\":{\"identitytoken\":\"" PASSWORD "\"}}}",
                          server_host(f->server))
                : tb_asprintf("{\"auths\":{\"%s\":{\"auth\":\"%s\"}}}", server_host(f->server), pair);
        assert_int_equal(tb_file_write_atomic(path, text, strlen(text), 0600, NULL), 0);
}

/* tbnode-registry in the fixture's directory, its output in the file "output"; cores allowed. */
static pid_t start(Fixture *f, const char *verb, const char *argument)
{
        _cleanup_free_ char *config = in_dir(f, "config.json"), *output = in_dir(f, "output");
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                int out = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
                struct rlimit unlimited;

                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) getrlimit(RLIMIT_CORE, &unlimited);
                unlimited.rlim_cur = unlimited.rlim_max;
                (void) setrlimit(RLIMIT_CORE, &unlimited);
                if (chdir(f->dir) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
                        _exit(126);
                execl(f->program, "tbnode-registry", verb, "--debug", "--docker-config", config, argument,
                        NULL);
                _exit(127);
        }
        return pid;
}

static int wait_for(pid_t pid)
{
        int status = 0;

        assert_true(waitpid(pid, &status, 0) == pid);
        assert_false(WIFEXITED(status) && WEXITSTATUS(status) >= 126);
        return status;
}

static bool has_secret(const char *data, size_t size)
{
        static const char *const secrets[] = {PASSWORD, TOKEN, "dXNlcjpjb3JyZWN0LWhvcnNl"};

        for (size_t i = 0; i < ELEMENTSOF(secrets); i++)
                if (memmem(data, size, secrets[i], strlen(secrets[i])))
                        return true;
        return false;
}

static char *read_output(Fixture *f, size_t *ret_size)
{
        _cleanup_free_ char *path = in_dir(f, "output");
        char *data = NULL;

        assert_int_equal(tb_file_read(path, 1 << 20, &data, ret_size, NULL), 0);
        return data;
}

/* ---- registries ---- */

/* Repeats what it gets where it can: in its error text. */
static void refuses(Exchange *e)
{
        char head[512], body[512];

        snprintf(head, sizeof(head), "WWW-Authenticate: Bearer realm=\"http://%s/token\"\r\n",
                server_host(e->server));
        if (exchange_is(e, "GET", "/token"))
                exchange_text(e, 200, "", "{\"token\":\"" TOKEN "\"}");
        else if (exchange_is(e, "POST", "/token"))
                exchange_text(e, 200, "", "{\"access_token\":\"" TOKEN "\"");
        else if (exchange_header(e, "Authorization")) {
                snprintf(body, sizeof(body), "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\"}]}");
                exchange_text(e, e->nth < 2 ? 503 : 403, "", body);
        } else
                exchange_text(e, 401, head, "");
}

static void stalls(Exchange *e)
{
        char c;

        if (!exchange_header(e, "Authorization") || exchange_is(e, "GET", "/token")) {
                refuses(e);
                return;
        }
        pthread_mutex_lock(&current->lock);
        current->stalled = true;
        pthread_cond_signal(&current->stalled_changed);
        pthread_mutex_unlock(&current->lock);
        (void) !read(e->fd, &c, 1); /* until it dies */
        e->close = true;
}

static void test_output(void **state)
{
        static const char *const verbs[] = {"ping", "tags", "manifest"};
        Fixture *f = *state;

        f->script = refuses;
        for (unsigned i = 0; i < 2 * ELEMENTSOF(verbs); i++) {
                const char *verb = verbs[i / 2];
                _cleanup_free_ char *name = tb_asprintf(
                                            "%s%s", server_host(f->server), i / 2 > 0 ? "/some/image" : ""),
                                    *output = NULL;
                size_t size;

                write_config(f, i % 2);
                assert_int_not_equal(wait_for(start(f, verb, name)), 0);
                output = read_output(f, &size);
                assert_true(size > 0);
                if (has_secret(output, size))
                        fail_msg("%s says: %s", verb, output);
        }
}

/* Killed by a signal that dumps core, in the middle of a request, with the token in use. */
static void test_core(void **state)
{
        Fixture *f = *state;
        _cleanup_free_ char *cmdline_path = NULL;
        char cmdline[4096];
        struct dirent *d;
        int status, fd;
        ssize_t n;
        pid_t pid;
        DIR *dir;

        f->script = stalls;
        write_config(f, false);
        pid = start(f, "ping", server_host(f->server));
        pthread_mutex_lock(&f->lock);
        while (!f->stalled)
                pthread_cond_wait(&f->stalled_changed, &f->lock);
        pthread_mutex_unlock(&f->lock);

        cmdline_path = tb_asprintf("/proc/%d/cmdline", (int) pid);
        fd = open(cmdline_path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        n = read(fd, cmdline, sizeof(cmdline));
        close(fd);
        assert_true(n > 0 && !has_secret(cmdline, (size_t) n));

        assert_int_equal(kill(pid, SIGSEGV), 0);
        status = wait_for(pid);
        assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0); /* sanitizers catch it and exit */
        assert_false(WIFSIGNALED(status) && WCOREDUMP(status));
        dir = opendir(f->dir);
        assert_non_null(dir);
        while ((d = readdir(dir)))
                if (tb_startswith(d->d_name, "core"))
                        fail_msg("left %s", d->d_name);
        closedir(dir);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_output),
                T(test_core),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

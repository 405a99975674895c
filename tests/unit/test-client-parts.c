/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the client reads: messages of an agent that may be anybody, outcomes of jobs, mountinfo; and what it makes of them. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "augment/client/client-apply.h"
#include "augment/client/client-job.h"
#include "augment/client/client-link.h"
#include "augment/client/client-supervise.h"
#include "augment/client/client-system.h"
#include "augment/client/client-tmcc.h"
#include "augment/client/util.h"

static json_t *parse(const char *text)
{
        json_t *j = json_loads(text, 0, NULL);

        assert_non_null(j);
        return j;
}

/* Lines come out whole, however they come in. */
static void test_lines(void **state)
{
        static const char stream[] = "{}\n\n{\"a\":1}\nrest";
        static const char *const expected[] = {"{}", "", "{\"a\":1}"};

        for (size_t piece = 1; piece <= strlen(stream); piece++) {
                LineReader r = {};
                size_t n = 0, size;
                const char *line;

                for (size_t i = 0; i < strlen(stream); i += piece) {
                        size_t part = MIN2(piece, strlen(stream) - i);

                        assert_int_equal(line_reader_feed(&r, stream + i, part), 0);
                        while ((line = line_reader_next(&r, &size))) {
                                assert_true(n < ELEMENTSOF(expected));
                                assert_int_equal(size, strlen(expected[n]));
                                assert_memory_equal(line, expected[n], size);
                                n++;
                        }
                }
                assert_int_equal(n, ELEMENTSOF(expected));
                line_reader_done(&r);
        }
}

static void test_endless_line(void **state)
{
        static char block[65536];
        LineReader r = {};
        int result = 0;

        memset(block, 'x', sizeof(block));
        for (unsigned i = 0; i < 32 && result == 0; i++)
                result = line_reader_feed(&r, block, sizeof(block));
        assert_int_equal(result, -EMSGSIZE);
        assert_true(r.room <= 2 * LINK_LINE_MAX);
        line_reader_done(&r);
}

static void test_messages(void **state)
{
        static const char *const bad[] = {
                "", "1", "[]", "\"x\"", "{", "{\"a\":1,\"a\":2}", "{} {}", "{\"a\":\"\xff\"}", "null"};
        _cleanup_free_ char *deep = malloc(100001);
        _cleanup_json_ json_t *good = message_parse("{\"ok\":true}", 11);

        assert_non_null(good);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_null(message_parse(bad[i], strlen(bad[i])));
        memset(deep, '[', 100000);
        assert_null(message_parse(deep, 100000));
}

/* An agent in a child process that says `answer` and goes. */
static int ask(const char *answer, json_t **ret, char *why, size_t size)
{
        char path[] = "/tmp/tbnode-link-XXXXXX", socket_path[64];
        struct sockaddr_un {
                sa_family_t family;
                char path[108];
        } address = {.family = AF_UNIX};
        int fd, r;
        pid_t pid;

        assert_non_null(mkdtemp(path));
        snprintf(socket_path, sizeof(socket_path), "%s/s", path);
        snprintf(address.path, sizeof(address.path), "%s", socket_path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *) &address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 1), 0);
        pid = fork();
        if (pid == 0) {
                char request[256];
                int c = accept(fd, NULL, NULL);

                if (read(c, request, sizeof(request)) > 0)
                        (void) !write(c, answer, strlen(answer));
                _exit(0);
        }
        r = link_ask(socket_path, json_pack("{s:s}", "op", "ready"), 5000, ret, why, size);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        close(fd);
        (void) unlink(socket_path);
        (void) rmdir(path);
        return r;
}

static void test_asking(void **state)
{
        json_t *answer = NULL;
        char why[512];

        assert_int_equal(ask("{\"ok\":true,\"count\":3}\n", &answer, why, sizeof(why)), 0);
        assert_int_equal(json_integer_value(json_object_get(answer, "count")), 3);
        json_decref(answer);
        assert_int_equal(ask("{\"ok\":false,\"error\":{\"code\":\"timeout\",\"message\":\"late\"}}\n",
                                 &answer, why, sizeof(why)),
                -ETIMEDOUT);
        assert_string_equal(why, "late");
        assert_int_equal(ask("{\"ok\":false}\n", &answer, why, sizeof(why)), -EPROTO);
        assert_int_equal(ask("{\"ok\":\"true\",\"error\":7}\n", &answer, why, sizeof(why)), -EPROTO);
        assert_int_equal(ask("HTTP/1.1 400\n", &answer, why, sizeof(why)), -EBADMSG);
        assert_int_equal(ask("{\"ok\":true", &answer, why, sizeof(why)), -ECONNRESET);
        assert_int_equal(ask("", &answer, why, sizeof(why)), -ECONNRESET);
        assert_int_equal(link_ask("/nowhere/s", json_object(), 1000, &answer, why, sizeof(why)), -ENOTCONN);
        assert_non_null(strstr(why, "/nowhere/s"));
}

static void test_job_lines(void **state)
{
        static const char *const bad[] = {
                "", "exited", "exited x", "running -1", "sleeping 3", "signaled 99999999999"};
        Job j = {};

        assert_true(job_parse("running 12\n", &j));
        assert_int_equal(j.state, JOB_RUNNING);
        assert_int_equal(j.pid, 12);
        assert_true(job_parse("exited 3\n", &j));
        assert_int_equal(j.state, JOB_EXITED);
        assert_int_equal(j.status, 3);
        assert_true(job_parse("failed no such user: x\n", &j));
        assert_string_equal(j.reason, "no such user: x");
        assert_true(job_parse("timeout \n", &j));
        assert_int_equal(j.state, JOB_TIMEOUT);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                assert_false(job_parse(bad[i], &j));
}

static void test_mounts(void **state)
{
        static const char mountinfo[] =
                "22 1 0:20 / / rw,relatime - overlay overlay rw\n"
                "30 22 8:1 /a /with\\040blank ro,nosuid shared:1 - ext4 /dev/sda rw\n"
                "31 22 8:1 /b /proj/p rw - ext4 /dev/sda rw\n"
                "broken line\n"
                "32 22 8:1 /c /proj/q ro - ext4 /dev/sda rw";
        _cleanup_json_ json_t
                *good = parse("[{\"target\":\"/with blank\",\"read_only\":true},{\"target\":\"/proj/p\"}]"),
                *bad = parse("[{\"target\":\"/proj/q\"},{\"target\":\"/pro\"},{\"target\":7}]");
        Problems p = {};

        mounts_check(mountinfo, good, &p);
        assert_int_equal(p.count, 0);
        mounts_check(mountinfo, bad, &p);
        assert_int_equal(p.count, 3);
        assert_string_equal(p.reason[0], "/proj/q is mounted read-only");
}

static void test_routes(void **state)
{
        _cleanup_json_ json_t *missing =
                parse("[{\"to\":\"203.0.113.0/24\",\"via\":\"203.0.113.77\"},{\"to\":\"x\"},3]");
        Problems p = {};

        assert_int_equal(routes_check(NULL, &p), 0);
        assert_int_equal(routes_check(missing, &p), 3);
        assert_non_null(strstr(p.reason[0], "203.0.113.0/24 via 203.0.113.77"));
}

static void test_environment(void **state)
{
        _cleanup_json_ json_t *d =
                parse("{\"environment\":{\"A\":\"1 "
                      "\\\"2\",\"B\":7,\"C\":\"x\\ny\",\"D=E\":\"f\",\"PATH\":\"/mine\",\"\":\"e\"}}");
        char *image[] = {
                (char *) "PATH=/image", (char *) "HOME=/image", (char *) "X=", (char *) "notvariable", NULL};
        char **declared = declared_environment(d), **env;
        JobSpec spec = {.image_env = image, .declared = declared, .rundir = "/run/tbnode"};

        assert_non_null(declared);
        assert_string_equal(env_get(declared, "A"), "1 \"2");
        assert_null(env_get(declared, "B"));
        assert_null(env_get(declared, "C"));
        env = job_environment(&spec, "joe", "/home/joe", "/bin/sh");
        assert_non_null(env);
        assert_string_equal(env_get(env, "PATH"), "/mine");
        assert_string_equal(env_get(env, "HOME"), "/home/joe");
        assert_string_equal(env_get(env, "USER"), "joe");
        assert_string_equal(env_get(env, "LOGNAME"), "joe");
        assert_string_equal(env_get(env, "SHELL"), "/bin/sh");
        assert_string_equal(env_get(env, "SVDIR"), "/run/tbnode/service");
        assert_string_equal(env_get(env, "X"), "");
        assert_string_equal(env_get(env, "A"), "1 \"2");
        environment_free(env);
        spec.image_env = NULL;
        spec.declared = NULL;
        env = job_environment(&spec, "joe", "/", "/bin/sh");
        assert_string_equal(env_get(env, "PATH"),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/tbnode/bin");
        environment_free(env);
        environment_free(declared);
}

static void test_tmcc(void **state)
{
        char *status[] = {(char *) "startstatus", (char *) "3", NULL}, *none[] = {NULL},
             *big[3] = {(char *) "state", NULL, NULL};
        _cleanup_free_ char *request = tmcc_request(status, "40"), *text = malloc(40001);

        assert_string_equal(request, "VERSION=40 startstatus 3 ");
        assert_null(tmcc_request(none, "40"));
        memset(text, 'x', 40000);
        text[40000] = '\0';
        big[1] = text;
        assert_null(tmcc_request(big, "40"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines),
                cmocka_unit_test(test_endless_line),
                cmocka_unit_test(test_messages),
                cmocka_unit_test(test_asking),
                cmocka_unit_test(test_job_lines),
                cmocka_unit_test(test_mounts),
                cmocka_unit_test(test_routes),
                cmocka_unit_test(test_environment),
                cmocka_unit_test(test_tmcc),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

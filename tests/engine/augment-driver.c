/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Drives libtbaugment as the agent does, for tests and benches: one event loop, one registry client, one engine, which
 * live on between commands. Commands are JSON lines on standard input, answers JSON lines on standard output:
 *
 *         {"cmd": "lookup", "request": {...}}                 -> {"ms", "hit", "result"}
 *         {"cmd": "augment", "request": {...}}                -> {"ms", "hit", "result"}
 *         {"cmd": "docker", "request": {...}}                 -> the same, with the docker builder
 *         {"cmd": "context", "request": {...}, "dir": "..."}  -> {"ms", "hit", "result"}
 *
 * or {"ms", "error": {"kind", "code", "message"}}. The request has the form of augment_request_to_json(). With
 * "fresh": true the cache is not asked.
 */

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "augment/build-docker.h"
#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/file.h"
#include "common/json-lines.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

extern char **environ;

typedef struct Driver {
        sd_event *event;
        RegistryClient *registry;
        TbHttp *http;
        TbEngine *engine;
        bool done, hit;
        TbError *error;
        AugmentResult result;
} Driver;

static int run_until_done(Driver *d)
{
        int r = 0;

        while (!d->done && r >= 0)
                r = sd_event_run(d->event, UINT64_MAX);
        return r;
}

static int copy_result(const AugmentResult *from, AugmentResult *to, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        int r;

        augment_result_done(to);
        r = augment_result_to_json(from, &j, err);
        return r < 0 ? r : augment_result_from_json(j, to, err);
}

static void on_lookup(AugmentLookup *l, const TbError *err, void *userdata)
{
        Driver *d = userdata;

        d->done = true;
        d->error = tb_error_copy(err);
        d->hit = !err && augment_lookup_is_hit(l);
        if (!err)
                (void) copy_result(augment_lookup_result(l), &d->result, &d->error);
}

static int lookup(Driver *d, AugmentRequest *request, TbError **err)
{
        _cleanup_(augment_lookup_freep) AugmentLookup *l = NULL;
        int r;

        d->done = false;
        r = augment_lookup_start(d->registry, NULL, request, NULL, on_lookup, d, &l, err);
        if (r < 0)
                return r;
        (void) run_until_done(d);
        return d->error ? tb_error_move(err, &d->error) : augment_lookup_resolve(l, request, err);
}

static int on_worker_line(const json_t *line, void *userdata, TbError **err)
{
        _cleanup_augment_event_ AugmentEvent e = {};
        Driver *d = userdata;
        int r;

        r = augment_event_parse(line, &e, err);
        if (r < 0)
                return r;
        if (e.type == AUGMENT_EVENT_ERROR)
                return tb_error_move(err, &e.error);
        if (e.type == AUGMENT_EVENT_RESULT) {
                d->done = true;
                return copy_result(&e.result, &d->result, err);
        }
        return 0;
}

static int read_worker(Driver *d, int fd, TbError **err)
{
        _cleanup_(tb_json_lines_freep) TbJsonLines *lines = NULL;
        char buffer[65536];
        ssize_t n;
        int r;

        r = tb_json_lines_new("worker", AUGMENT_EVENT_MAX, on_worker_line, d, &lines, err);
        if (r < 0)
                return r;
        while ((n = read(fd, buffer, sizeof(buffer))) > 0) {
                r = tb_json_lines_feed(lines, buffer, (size_t) n, err);
                if (r < 0)
                        return r;
        }
        return tb_json_lines_finish(lines, err);
}

static int spawn_worker(int in, int out, pid_t *ret, TbError **err)
{
        char *argv[] = {(char *) augment_worker_path(), (char *) "--allow-root", NULL};
        posix_spawn_file_actions_t actions;
        int r;

        (void) posix_spawn_file_actions_init(&actions);
        (void) posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
        (void) posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
        r = posix_spawn(ret, argv[0], &actions, NULL, argv, environ);
        (void) posix_spawn_file_actions_destroy(&actions);
        return r == 0 ? 0 : tb_error_set_errno(err, TB_ERROR_SYSTEM, -r, "cannot start %s", argv[0]);
}

static int worker(Driver *d, const AugmentRequest *request, AugmentOp op, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        int in[2], out[2], status, r;
        pid_t pid;

        r = augment_request_to_json(request, op, &text, err);
        if (r < 0)
                return r;
        if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a pipe");
        r = spawn_worker(in[0], out[1], &pid, err);
        tb_close(in[0]);
        tb_close(out[1]);
        if (r >= 0)
                r = tb_write_all(in[1], text, strlen(text), err);
        tb_close(in[1]);
        d->done = false;
        if (r >= 0)
                r = read_worker(d, out[0], err);
        tb_close(out[0]);
        (void) waitpid(pid, &status, 0);
        if (r >= 0 && !d->done)
                return tb_error_set(err, TB_ERROR_BUG, -EPROTO, "the worker ended without an answer");
        return r;
}

static void on_docker(AugmentDockerBuild *b, const AugmentResult *result, const TbError *err, void *userdata)
{
        Driver *d = userdata;

        d->done = true;
        d->error = tb_error_copy(err);
        if (result)
                (void) copy_result(result, &d->result, &d->error);
}

static void on_connected(TbEngine *e, const TbError *err, void *userdata)
{
        Driver *d = userdata;

        d->done = true;
        d->error = tb_error_copy(err);
}

static int docker_build(Driver *d, const AugmentRequest *request, TbError **err)
{
        _cleanup_(augment_docker_build_freep) AugmentDockerBuild *b = NULL;
        AugmentDockerBuildOptions options = {
                .request = request,
                .mirrored = &d->result,
                .registry = d->registry,
                .done = on_docker,
                .userdata = d,
        };
        int r;

        if (!tb_engine_is_connected(d->engine)) {
                d->done = false;
                r = tb_engine_connect(d->engine, on_connected, d, err);
                if (r < 0)
                        return r;
                (void) run_until_done(d);
                if (d->error)
                        return tb_error_move(err, &d->error);
        }
        d->done = false;
        r = augment_docker_build_start(d->engine, &options, &b, err);
        if (r < 0)
                return r;
        (void) run_until_done(d);
        return d->error ? tb_error_move(err, &d->error) : 0;
}

static int work(Driver *d, const char *cmd, AugmentRequest *request, const json_t *line, TbError **err)
{
        int r;

        d->hit = false;
        r = augment_client_setup(d->registry, request, err);
        if (r < 0)
                return r;
        if (tb_streq(cmd, "context")) {
                r = worker(d, request, AUGMENT_OP_DOCKERFILE, err);
                return r < 0 ? r
                             : augment_context_write(request, d->result.dockerfile,
                                       json_string_value(json_object_get(line, "dir")), err);
        }
        if (!json_is_true(json_object_get(line, "fresh"))) {
                r = lookup(d, request, err);
                if (r < 0 || d->hit || tb_streq(cmd, "lookup"))
                        return r;
        }
        if (tb_streq(cmd, "augment"))
                return worker(d, request, AUGMENT_OP_AUGMENT, err);
        r = worker(d, request, AUGMENT_OP_MIRROR, err);
        return r < 0 ? r : docker_build(d, request, err);
}

static void answer(Driver *d, uint64_t started, const TbError *error)
{
        _cleanup_json_ json_t *out = json_object();
        _cleanup_free_ char *text = NULL;
        json_t *result = NULL;

        (void) json_object_set_new(out, "ms", json_real((double) (tb_now_us() - started) / 1000.0));
        if (error) {
                (void) json_object_set_new(out, "error",
                        json_pack("{s:s, s:i, s:s, s:b}", "kind", tb_error_kind_to_string(error->kind),
                                "code", error->code, "message", error->message, "retryable",
                                error->retryable));
        } else {
                (void) json_object_set_new(out, "hit", json_boolean(d->hit));
                if (augment_result_to_json(&d->result, &result, NULL) >= 0)
                        (void) json_object_set_new(out, "result", result);
        }
        text = json_dumps(out, JSON_COMPACT);
        (void) puts(text ? text : "{}");
        (void) fflush(stdout);
}

static void command(Driver *d, char *text)
{
        _cleanup_json_ json_t *line = json_loads(text, 0, NULL);
        _cleanup_free_ char *request_text = json_dumps(json_object_get(line, "request"), JSON_COMPACT);
        _cleanup_augment_request_ AugmentRequest request = {};
        _cleanup_error_ TbError *error = NULL;
        uint64_t started = tb_now_us();
        AugmentOp op;
        int r = -EINVAL;

        if (request_text)
                r = augment_request_from_json(request_text, strlen(request_text), &request, &op, &error);
        if (r >= 0)
                r = work(d, json_string_value(json_object_get(line, "cmd")), &request, line, &error);
        if (r < 0 && !error)
                (void) tb_error_set(&error, TB_ERROR_BUG, r, "not a command");
        answer(d, started, error);
}

int main(int argc, char *argv[])
{
        _cleanup_error_ TbError *error = NULL;
        _cleanup_free_ char *line = NULL;
        Driver d = {};
        size_t size = 0;

        if (sd_event_new(&d.event) < 0 || registry_client_new(d.event, &d.registry, &error) < 0 ||
                tb_http_new(d.event, &d.http, &error) < 0 ||
                tb_engine_new(d.http, argc > 1 ? argv[1] : TB_ENGINE_DEFAULT, &d.engine, &error) < 0) {
                (void) fprintf(stderr, "%s\n", tb_error_message(error));
                return EXIT_FAILURE;
        }
        while (getline(&line, &size, stdin) > 0)
                command(&d, line);
        augment_result_done(&d.result);
        tb_engine_free(d.engine);
        tb_http_free(d.http);
        registry_client_free(d.registry);
        sd_event_unref(d.event);
        return EXIT_SUCCESS;
}

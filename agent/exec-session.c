/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/api.h"
#include "agent/exec-internal.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

static ExecSession *session_free(ExecSession *s)
{
        if (!s)
                return NULL;
        for (ExecSession **p = &s->manager->execs; *p; p = &(*p)->next)
                if (*p == s) {
                        *p = s->next;
                        break;
                }
        exec_relay_stop_client(s);
        exec_relay_stop_engine(s);
        tb_engine_request_free(s->call);
        tb_engine_request_free(s->resize);
        tb_engine_stream_free(s->stream);
        tb_buffer_done(&s->to_client);
        tb_buffer_done(&s->to_engine);
        exec_spec_done(&s->spec);
        free(s);
        return NULL;
}

void exec_session_free_all(Manager *m)
{
        while (m->execs)
                session_free(m->execs);
}

static void session_ended(ExecSession *s)
{
        ExecCallbacks c = s->callbacks;

        session_free(s);
        if (c.ended)
                c.ended(c.userdata);
}

/* Before a client was attached: there is nobody else to tell. */
static void session_failed(ExecSession *s, const TbError *err)
{
        _cleanup_error_ TbError *copy = tb_error_copy(err); /* it may be about to be freed with `s` */
        ExecCallbacks c = s->callbacks;

        session_free(s);
        if (c.failed)
                c.failed(copy, c.userdata);
}

/* With a client: the error is the last frame. */
static void session_tell_error(ExecSession *s, const TbError *cause)
{
        _cleanup_json_ json_t *line = json_pack("{s:o}", "error", api_error_to_json(cause));
        _cleanup_free_ char *text = NULL;
        size_t size;

        s->phase = EXEC_FLUSH;
        if (!line || tb_json_dump(line, false, &text, &size, NULL) < 0 ||
                exec_relay_send(s, EXEC_END, text, size, NULL) < 0)
                session_ended(s);
        else
                exec_relay_arm(s);
}

static int exec_call(ExecSession *s, const char *method, const char *path, const json_t *body,
        TbEngineDoneFn done, TbError **err)
{
        s->call = tb_engine_request_free(s->call);
        return tb_engine_call(s->manager->engine,
                &(TbEngineCall){.method = method, .path = path, .body = body, .done = done, .userdata = s},
                &s->call, err);
}

static int exec_inspect(ExecSession *s, TbEngineDoneFn done, TbError **err)
{
        char path[32 + EXEC_ID_LEN];

        (void) snprintf(path, sizeof(path), "/exec/%s/json", s->id);
        return exec_call(s, "GET", path, NULL, done, err);
}

/* ---- The client is gone -------------------------------------------------------------------------------------------- */

static bool same_pid_namespace(pid_t a, pid_t b)
{
        struct stat x, y;
        char path[40];

        (void) snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int) a);
        if (stat(path, &x) < 0)
                return false;
        (void) snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int) b);
        return stat(path, &y) >= 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* The engine's word for a pid may be a moment old. So the process is held first, and must be one of this container's. */
static void hang_up(const ExecSession *s, pid_t pid)
{
        _cleanup_close_ int pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        ProcessIdentity now;

        if (pidfd < 0 || process_identity_read(s->container.pid, &now, NULL) < 0 ||
                !process_identity_equal(&s->container, &now) || !same_pid_namespace(pid, s->container.pid))
                return;
        if (syscall(SYS_pidfd_send_signal, pidfd, SIGHUP, NULL, 0) < 0)
                log_debug("cannot hang up program %d: %s", (int) pid, strerror(errno));
}

static void on_hangup_inspected(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        ExecSession *s = userdata;
        bool running = false;
        uint64_t pid = 0;

        if (!err && tb_json_get_bool(body, "Running", &running, NULL) > 0 && running &&
                tb_json_get_u64(body, "Pid", &pid, NULL) > 0 && pid > 1 && pid <= INT32_MAX)
                hang_up(s, (pid_t) pid);
        session_ended(s);
}

static void on_hangup_started(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        ExecSession *s = userdata;

        if (exec_inspect(s, on_hangup_inspected, NULL) < 0)
                session_ended(s);
}

/*
 * The engine answers that a program runs before it has a process. The size of a terminal is what it can tell that process
 * only when there is one: it waits with its answer (moby, ContainerExecResize()), whatever that is without a terminal.
 */
void exec_client_gone(ExecSession *s)
{
        ExecPhase was = s->phase;
        char path[80 + EXEC_ID_LEN];

        exec_relay_stop_client(s);
        s->engine_io = sd_event_source_disable_unref(s->engine_io);
        s->phase = EXEC_HANGUP;
        (void) snprintf(path, sizeof(path), "/exec/%s/resize?h=24&w=80", s->id);
        if (was == EXEC_STATUS || was == EXEC_FLUSH ||
                exec_call(s, "POST", path, NULL, on_hangup_started, NULL) < 0)
                session_ended(s);
}

void exec_session_abandon(ExecSession *s)
{
        s->callbacks = (ExecCallbacks){};
        exec_relay_stop_client(s);
        /* While the engine makes it, what is to be ended is not known yet. */
        if (s->phase >= EXEC_WAIT && s->phase != EXEC_HANGUP)
                exec_client_gone(s);
}

/* ---- Its end ------------------------------------------------------------------------------------------------------- */

void exec_flushed(ExecSession *s)
{
        session_ended(s);
}

static void on_status(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        ExecSession *s = userdata;
        _cleanup_error_ TbError *bad = NULL;
        uint64_t code = 0;
        char text[32];
        int n;

        if (err) {
                session_tell_error(s, err);
                return;
        }
        /* Absent while it runs: it has closed its output, or gave it to others, and goes on. */
        if (tb_json_get_u64(body, "ExitCode", &code, NULL) <= 0) {
                (void) tb_error_set(&bad, TB_ERROR_REMOTE, -ENODATA,
                        "the program closed its output and went on; how it ends is not known");
                session_tell_error(s, bad);
                return;
        }
        n = snprintf(text, sizeof(text), "{\"exit\":%u}", (unsigned) (code & 0xff));
        s->phase = EXEC_FLUSH;
        if (exec_relay_send(s, EXEC_END, text, (size_t) n, NULL) < 0)
                session_ended(s);
        else
                exec_relay_arm(s);
}

void exec_output_ended(ExecSession *s)
{
        _cleanup_error_ TbError *err = NULL;

        exec_relay_stop_engine(s);
        s->phase = EXEC_STATUS;
        if (exec_inspect(s, on_status, &err) < 0)
                session_tell_error(s, err);
        else
                exec_relay_arm(s);
}

/* ---- Its terminal -------------------------------------------------------------------------------------------------- */

static void send_resize(ExecSession *s);

static void on_resize(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        ExecSession *s = userdata;

        if (err)
                log_debug("cannot tell a terminal its size: %s", tb_error_message(err));
        s->resize = tb_engine_request_free(s->resize);
        if (s->want_resize)
                send_resize(s);
}

/* One at a time; the last size counts. */
static void send_resize(ExecSession *s)
{
        char path[80 + EXEC_ID_LEN];

        s->want_resize = s->resize != NULL;
        if (s->resize)
                return;
        (void) snprintf(
                path, sizeof(path), "/exec/%s/resize?h=%u&w=%u", s->id, s->spec.rows, s->spec.columns);
        if (tb_engine_call(s->manager->engine,
                    &(TbEngineCall){.method = "POST", .path = path, .done = on_resize, .userdata = s},
                    &s->resize, NULL) < 0)
                s->resize = NULL;
}

void exec_resized(ExecSession *s, uint16_t rows, uint16_t columns)
{
        if (!s->spec.tty || rows == 0 || columns == 0 || s->phase != EXEC_RELAY)
                return;
        s->spec.rows = rows;
        s->spec.columns = columns;
        send_resize(s);
}

/* ---- Its start ----------------------------------------------------------------------------------------------------- */

static void on_stream(
        TbEngineStream *stream, int fd, const void *early, size_t size, const TbError *err, void *userdata)
{
        ExecSession *s = userdata;
        _cleanup_error_ TbError *failed = NULL;

        s->engine_fd = fd;
        if (err) {
                session_failed(s, err);
                return;
        }
        s->phase = EXEC_WAIT;
        if (exec_relay_take_output(s, early, size, &failed) < 0)
                session_failed(s, failed);
        else if (!s->callbacks.started)
                exec_client_gone(s);
        else {
                s->stream = tb_engine_stream_free(s->stream);
                s->callbacks.started(s, s->callbacks.userdata);
        }
}

void exec_session_attach(ExecSession *s, int fd, const void *early, size_t size)
{
        s->client_fd = fd;
        s->phase = EXEC_RELAY;
        if (s->spec.tty && s->spec.rows > 0 && s->spec.columns > 0)
                send_resize(s);
        if (exec_relay_start(s, early, size, NULL) < 0)
                exec_client_gone(s);
        else
                exec_relay_arm(s);
}

static bool exec_id_is_valid(const char *id)
{
        return strlen(id) == EXEC_ID_LEN && strspn(id, "0123456789abcdef") == EXEC_ID_LEN;
}

static int start_stream(ExecSession *s, TbError **err)
{
        _cleanup_json_ json_t *body = json_pack("{s:b, s:b}", "Detach", 0, "Tty", (int) s->spec.tty);
        char path[32 + EXEC_ID_LEN];

        if (!body)
                return tb_error_oom(err);
        s->phase = EXEC_START;
        (void) snprintf(path, sizeof(path), "/exec/%s/start", s->id);
        return tb_engine_stream_new(s->manager->engine, path, body, on_stream, s, &s->stream, err);
}

static void on_created(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        ExecSession *s = userdata;
        _cleanup_error_ TbError *failed = NULL;
        const char *id = NULL;

        if (err)
                session_failed(s, err);
        else if (!s->callbacks.started)
                session_free(s); /* abandoned: what never ran needs no end */
        else if (tb_json_get_string(body, "Id", &id, NULL) <= 0 || !exec_id_is_valid(id)) {
                (void) tb_error_set(
                        &failed, TB_ERROR_REMOTE, -EPROTO, "the engine gave the program no valid id");
                session_failed(s, failed);
        } else {
                memcpy(s->id, id, EXEC_ID_LEN + 1);
                if (start_stream(s, &failed) < 0)
                        session_failed(s, failed);
        }
}

static int create(ExecSession *s, TbError **err)
{
        const ExecSpec *spec = &s->spec;
        _cleanup_json_ json_t *body = NULL;
        char path[32 + CONTAINER_ID_LEN];

        body = json_pack("{s:b, s:b, s:b, s:b, s:o, s:s*, s:s*, s:o*}", "AttachStdin",
                (int) spec->takes_stdin, "AttachStdout", 1, "AttachStderr", 1, "Tty", (int) spec->tty, "Cmd",
                tb_json_from_strv(spec->cmd), "User", spec->user, "WorkingDir", spec->workdir, "Env",
                spec->env ? tb_json_from_strv(spec->env) : NULL);
        if (!body)
                return tb_error_oom(err);
        (void) snprintf(path, sizeof(path), "/containers/%s/exec", s->node_id);
        return exec_call(s, "POST", path, body, on_created, err);
}

static int check_limits(const Node *n, TbError **err)
{
        unsigned all = 0, here = 0;

        for (const ExecSession *s = n->manager->execs; s; s = s->next) {
                if (s->spec.bare)
                        continue;
                all++;
                if (tb_streq(s->node_id, n->id))
                        here++;
        }
        if (here >= EXEC_NODE_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -EAGAIN,
                        "%u programs are connected in node %s; end some, or try again later", here,
                        node_display_name(n));
        if (all >= EXEC_SESSIONS_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -EAGAIN,
                        "%u programs are connected in the nodes of this host; end some, or try again later",
                        all);
        return 0;
}

int exec_session_start(
        Node *n, ExecSpec *spec, const ExecCallbacks *callbacks, ExecSession **ret, TbError **err)
{
        ExecSession *s;
        int r;

        if (!node_is_running(n) || n->identity.pid == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOTCONN,
                        "node %s is %s; start it first: tbnode start %s", node_display_name(n),
                        node_state_to_string(n->state), node_display_name(n));
        r = spec->bare ? 0 : check_limits(n, err);
        if (r < 0)
                return r;
        s = calloc(1, sizeof(*s));
        if (!s)
                return tb_error_oom(err);
        s->manager = n->manager;
        s->engine_fd = s->client_fd = -EBADF;
        s->to_client = TB_BUFFER_INIT(0);
        s->to_engine = TB_BUFFER_INIT(0);
        memcpy(s->node_id, n->id, sizeof(s->node_id));
        s->container = n->identity;
        s->spec = *spec;
        *spec = (ExecSpec){};
        s->next = s->manager->execs;
        s->manager->execs = s;
        r = create(s, err);
        if (r < 0) {
                session_free(s);
                return r;
        }
        s->callbacks = *callbacks;
        *ret = s;
        return 0;
}

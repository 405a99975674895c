/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/close_range.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/worker.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json-lines.h"
#include "common/log.h"
#include "common/strv.h"

#define STDERR_MAX 4096U
#define REQUEST_MAX 60000U /* fits into an empty pipe, pipe(7): the write never blocks */
#define DOCKER_CONFIG_MAX (1024U * 1024)

struct Worker {
        WorkerOptions options;
        sd_event_source *child;
        sd_event_source *out;
        sd_event_source *errors;
        sd_event_source *timer;
        int out_fd, err_fd;
        TbJsonLines *lines;
        char stderr_text[STDERR_MAX + 1];
        size_t stderr_size;
        bool exited;
        siginfo_t status;
        bool have_result;
        AugmentResult result;
        TbError *error; /* the worker's own, or ours */
};

static const struct passwd *worker_user(const char *name, TbError **err)
{
        const struct passwd *pw = getpwnam(name ?: "tbnode-worker");

        if (!pw && !name)
                pw = getpwnam("nobody");
        if (!pw)
                (void) tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "there is no user '%s' to run workers as; set worker-user in the configuration",
                        name ?: "nobody");
        return pw;
}

int worker_check(const char *path, const char *user, TbError **err)
{
        const struct passwd *pw = worker_user(user, err);

        if (!pw)
                return -ENOENT;
        if (pw->pw_uid == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EPERM,
                        "workers must not run as root; set worker-user to an unprivileged user");
        if (access(path, X_OK) < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, -errno,
                        "cannot run the augmentation worker %s; install tbnode completely", path);
        return 0;
}

Worker *worker_free(Worker *w)
{
        if (!w)
                return NULL;
        /* The child's source kills and reaps what still runs. */
        sd_event_source_disable_unref(w->child);
        sd_event_source_disable_unref(w->out);
        sd_event_source_disable_unref(w->errors);
        sd_event_source_disable_unref(w->timer);
        tb_close(w->out_fd);
        tb_close(w->err_fd);
        tb_json_lines_free(w->lines);
        augment_result_done(&w->result);
        tb_error_free(w->error);
        free(w);
        return NULL;
}

/* ---- In the child: only async-signal-safe calls ---------------------------------------------------------------- */

typedef struct ChildPlan {
        int in, out, err, config;
        uid_t uid;
        gid_t gid;
        pid_t parent;
        uint64_t memory;
        uint64_t cpu_sec;
        char **argv;
        char **env;
} ChildPlan;

static void child_limit(int what, uint64_t value)
{
        struct rlimit l = {.rlim_cur = value, .rlim_max = value};

        if (setrlimit((__rlimit_resource_t) what, &l) < 0)
                _exit(124);
}

static _Noreturn void child_run(const ChildPlan *p)
{
        sigset_t none;

        /* Above 3 first, so that nothing is overwritten before it was moved. */
        int in = fcntl(p->in, F_DUPFD, 10), out = fcntl(p->out, F_DUPFD, 10),
            errors = fcntl(p->err, F_DUPFD, 10);
        int config = p->config >= 0 ? fcntl(p->config, F_DUPFD, 10) : -1;

        if (in < 0 || out < 0 || errors < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(errors, 2) < 0)
                _exit(124);
        if (config >= 0 ? dup2(config, 3) < 0 : close_range(3, 3, 0) < 0)
                _exit(124);
        if (close_range(4, UINT_MAX, 0) < 0)
                _exit(124);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) signal(SIGPIPE, SIG_DFL);

#if !defined(__SANITIZE_ADDRESS__) /* its shadow memory needs terabytes of address space */
        child_limit(RLIMIT_AS, p->memory);
#endif
        child_limit(RLIMIT_NOFILE, 256);
        child_limit(RLIMIT_FSIZE, UINT64_C(64) << 20);
        child_limit(RLIMIT_CPU, p->cpu_sec);
        child_limit(RLIMIT_CORE, 0);

        if (setgroups(0, NULL) < 0 || setresgid(p->gid, p->gid, p->gid) < 0 ||
                setresuid(p->uid, p->uid, p->uid) < 0)
                _exit(124);
        /* After the change of user, which clears it (prctl(2)); the parent may have died before. */
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != p->parent)
                _exit(124);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || chdir("/") < 0)
                _exit(124);
        (void) setsid();
        (void) execve(p->argv[0], p->argv, p->env);
        _exit(123);
}

/* ---- Parent ---------------------------------------------------------------------------------------------------- */

static const char *const passed_env[] = {"TBNODE_PAYLOAD_DIR", "TBNODE_LOG_LEVEL", "SSL_CERT_FILE",
        "SSL_CERT_DIR", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "ASAN_OPTIONS",
        "UBSAN_OPTIONS", "TMPDIR"};

static int make_env(char ***ret, TbError **err)
{
        _cleanup_strv_ char **env = NULL;
        int r;

        r = tb_strv_append(&env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", err);
        if (r >= 0)
                r = tb_strv_append(&env, "HOME=/nonexistent", err);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(passed_env); i++) {
                const char *value = getenv(passed_env[i]);

                if (value)
                        r = tb_strv_consume(&env, tb_asprintf("%s=%s", passed_env[i], value), err);
        }
        if (r < 0)
                return r;
        *ret = TAKE_PTR(env);
        return 0;
}

/* A copy in memory that the worker can open although it may not read the file itself. */
static int open_docker_config(const char *path, int *ret, TbError **err)
{
        _cleanup_close_ int fd = -EBADF;
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        r = tb_file_read(path, DOCKER_CONFIG_MAX, &data, &size, err);
        if (r < 0)
                return r;
        fd = memfd_create("docker-config", MFD_CLOEXEC);
        if (fd < 0 || fchmod(fd, 0444) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a memory file");
        r = tb_write_all(fd, data, size, err);
        if (r < 0)
                return r;
        *ret = TAKE_FD(fd);
        return 0;
}

static void worker_finish(Worker *w)
{
        if (!w->exited || w->out)
                return; /* the other half is still to come */
        w->timer = sd_event_source_disable_unref(w->timer);
        if (w->stderr_size > 0)
                log_debug("augmentation worker: %s", w->stderr_text);
        if (!w->error && !w->have_result) {
                const char *last = w->stderr_text;

                for (char *p = w->stderr_text; (p = strchr(p, '\n')) && p[1]; p++)
                        last = p + 1;
                if (w->status.si_code != CLD_EXITED)
                        (void) tb_error_set(&w->error, TB_ERROR_SYSTEM, -EIO,
                                "the augmentation worker was killed by signal %d (%s)%s%s",
                                w->status.si_status, strsignal(w->status.si_status), last[0] ? ": " : "",
                                last);
                else
                        (void) tb_error_set(&w->error, TB_ERROR_SYSTEM, -EIO,
                                "the augmentation worker ended with status %d and without an answer%s%s",
                                w->status.si_status, last[0] ? ": " : "", last);
        }
        w->options.done(w, w->error ? NULL : &w->result, w->error, w->options.userdata); /* may free w */
}

static void worker_fail(Worker *w, TbError *e)
{
        if (w->error)
                tb_error_free(e);
        else
                w->error = e;
        w->out = sd_event_source_disable_unref(w->out);
        if (!w->exited)
                (void) sd_event_source_send_child_signal(w->child, SIGKILL, NULL, 0);
        worker_finish(w);
}

static int on_line(const json_t *line, void *userdata, TbError **err)
{
        _cleanup_augment_event_ AugmentEvent e = {};
        Worker *w = userdata;
        int r;

        if (w->have_result || w->error)
                return tb_error_set(
                        err, TB_ERROR_BUG, -EBADMSG, "the augmentation worker went on after its answer");
        r = augment_event_parse(line, &e, err);
        if (r < 0)
                return r;
        switch (e.type) {
        case AUGMENT_EVENT_PROGRESS:
                w->options.progress(w, &e.progress, w->options.userdata);
                break;
        case AUGMENT_EVENT_RESULT:
                w->result = e.result;
                e.result = (AugmentResult){};
                w->have_result = true;
                break;
        case AUGMENT_EVENT_ERROR:
                w->error = TAKE_PTR(e.error);
                break;
        case _AUGMENT_EVENT_TYPE_MAX:
        case _AUGMENT_EVENT_TYPE_INVALID:
                return tb_error_set(
                        err, TB_ERROR_BUG, -EBADMSG, "the augmentation worker sent an unknown event");
        }
        return 0;
}

static int on_out(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        Worker *w = userdata;
        TbError *err = NULL;
        char buf[64 * 1024];
        ssize_t n;
        int r;

        n = read(fd, buf, sizeof(buf));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        r = n > 0 ? tb_json_lines_feed(w->lines, buf, (size_t) n, &err)
                  : tb_json_lines_finish(w->lines, &err);
        if (r < 0) {
                worker_fail(w, err);
                return 0;
        }
        if (n <= 0) {
                w->out = sd_event_source_disable_unref(w->out);
                worker_finish(w);
        }
        return 0;
}

/* Keeps the end of what it says. */
static int on_stderr(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        Worker *w = userdata;
        char buf[STDERR_MAX];
        size_t drop;
        ssize_t n;

        n = read(fd, buf, sizeof(buf));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                w->errors = sd_event_source_disable_unref(w->errors);
                return 0;
        }
        drop = w->stderr_size + (size_t) n > STDERR_MAX ? w->stderr_size + (size_t) n - STDERR_MAX : 0;
        drop = MIN2(drop, w->stderr_size);
        memmove(w->stderr_text, w->stderr_text + drop, w->stderr_size - drop);
        w->stderr_size -= drop;
        memcpy(w->stderr_text + w->stderr_size, buf, (size_t) n);
        w->stderr_size += (size_t) n;
        w->stderr_text[w->stderr_size] = 0;
        return 0;
}

static int on_child(sd_event_source *s, const siginfo_t *si, void *userdata)
{
        Worker *w = userdata;

        w->exited = true;
        w->status = *si;
        worker_finish(w);
        return 0;
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        Worker *w = userdata;
        TbError *err = NULL;

        (void) tb_error_set(&err, TB_ERROR_REMOTE, -ETIMEDOUT, "the augmentation took longer than %lu s",
                (unsigned long) (w->options.timeout_usec / 1000000));
        tb_error_set_retryable(&err);
        worker_fail(w, err);
        return 0;
}

static int worker_attach(Worker *w, sd_event *event, pid_t pid, TbError **err)
{
        int r;

        r = sd_event_add_child(event, &w->child, pid, WEXITED, on_child, w);
        if (r >= 0) {
                (void) sd_event_source_set_child_process_own(w->child, true);
                r = sd_event_add_io(event, &w->out, w->out_fd, EPOLLIN, on_out, w);
        } else {
                (void) kill(pid, SIGKILL); /* ours, and not reaped yet */
                (void) waitpid(pid, NULL, 0);
        }
        if (r >= 0)
                r = sd_event_add_io(event, &w->errors, w->err_fd, EPOLLIN, on_stderr, w);
        if (r >= 0)
                r = sd_event_add_time_relative(
                        event, &w->timer, CLOCK_MONOTONIC, w->options.timeout_usec, 0, on_timeout, w);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch the augmentation worker");
        (void) sd_event_source_set_description(w->child, "worker");
        return 0;
}

static int worker_spawn(Worker *w, sd_event *event, const char *request, TbError **err)
{
        _cleanup_close_ int in_r = -EBADF, in_w = -EBADF, out_w = -EBADF, err_w = -EBADF, config = -EBADF;
        _cleanup_strv_ char **env = NULL;
        char *argv[] = {(char *) w->options.path, NULL};
        const struct passwd *pw = worker_user(w->options.user, err);
        ChildPlan plan;
        int in[2], out[2], errors[2], r;
        pid_t pid;

        if (!pw)
                return -ENOENT;
        if (strlen(request) > REQUEST_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EMSGSIZE, "the request is too large");
        r = make_env(&env, err);
        if (r >= 0 && w->options.docker_config)
                r = open_docker_config(w->options.docker_config, &config, err);
        if (r < 0)
                return r;
        if (pipe2(in, O_CLOEXEC) < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, -errno, "cannot make a pipe");
        in_r = in[0];
        in_w = in[1];
        if (pipe2(out, O_CLOEXEC) < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, -errno, "cannot make a pipe");
        w->out_fd = out[0];
        out_w = out[1];
        if (pipe2(errors, O_CLOEXEC) < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, -errno, "cannot make a pipe");
        w->err_fd = errors[0];
        err_w = errors[1];
        r = tb_set_nonblock(w->out_fd, err);
        if (r >= 0)
                r = tb_set_nonblock(w->err_fd, err);
        if (r >= 0)
                r = tb_write_all(in_w, request, strlen(request), err);
        if (r >= 0)
                r = tb_write_all(in_w, "\n", 1, err);
        if (r < 0)
                return r;

        plan = (ChildPlan){
                .in = in_r,
                .out = out_w,
                .err = err_w,
                .config = config,
                .uid = pw->pw_uid,
                .gid = pw->pw_gid,
                .parent = getpid(),
                .memory = w->options.memory,
                .cpu_sec = w->options.timeout_usec / 1000000 + 1,
                .argv = argv,
                .env = env,
        };
        pid = fork();
        if (pid < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_RESOURCE, -errno, "cannot start the augmentation worker");
        if (pid == 0)
                child_run(&plan);
        return worker_attach(w, event, pid, err);
}

int worker_start(
        sd_event *event, const WorkerOptions *options, const char *request, Worker **ret, TbError **err)
{
        Worker *w;
        int r;

        r = worker_check(options->path, options->user, err);
        if (r < 0)
                return r;
        w = calloc(1, sizeof(*w));
        if (!w)
                return tb_error_oom(err);
        w->options = *options;
        w->out_fd = w->err_fd = -EBADF;
        r = tb_json_lines_new("augmentation worker", AUGMENT_EVENT_MAX, on_line, w, &w->lines, err);
        if (r >= 0)
                r = worker_spawn(w, event, request, err);
        if (r < 0) {
                worker_free(w);
                return r;
        }
        *ret = w;
        return 0;
}

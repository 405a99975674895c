/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "agent/worker.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json-lines.h"
#include "common/log.h"
#include "common/strv.h"

#define STDERR_MAX 4096U
#define LEAVE_USEC (UINT64_C(10) * 1000000)
#define REQUEST_MAX 60000U /* fits into an empty pipe, pipe(7): the write never blocks */

struct Worker {
        WorkerJob job; /* zero until it has one */
        uint64_t timeout_usec;
        WorkerProcess process;
        sd_event_source *child;
        sd_event_source *out;
        sd_event_source *errors;
        sd_event_source *timer;
        TbJsonLines *lines;
        char stderr_text[STDERR_MAX + 1];
        size_t stderr_size;
        bool exited;
        siginfo_t status;
        bool have_result;
        bool told; /* the owner knows the end, and may have let go of it */
        void (*gone)(Worker *w, void *userdata);
        void *gone_userdata;
        AugmentResult result;
        TbError *error; /* the worker's own, or ours */
};

Worker *worker_free(Worker *w)
{
        if (!w)
                return NULL;
        /* The child's source kills and reaps what still runs. */
        sd_event_source_disable_unref(w->child);
        sd_event_source_disable_unref(w->out);
        sd_event_source_disable_unref(w->errors);
        sd_event_source_disable_unref(w->timer);
        worker_process_close(&w->process);
        tb_json_lines_free(w->lines);
        augment_result_done(&w->result);
        tb_error_free(w->error);
        free(w);
        return NULL;
}

static void worker_log(const Worker *w)
{
        if (w->stderr_size > 0)
                log_debug("augmentation worker: %s", w->stderr_text);
}

/* Its answer is the end of its job: nobody waits until the process has cleaned up and gone. Without an answer, what became of
 * the process tells why. */
static void worker_finish(Worker *w)
{
        if (w->told || !w->job.done || (!w->have_result && (!w->exited || w->out)))
                return; /* the other half is still to come, or nobody waits */
        w->told = true;
        w->timer = sd_event_source_disable_unref(w->timer);
        if (w->exited)
                worker_log(w);
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
        w->job.done(w, w->error ? NULL : &w->result, w->error, w->job.userdata); /* may free w */
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
                w->job.progress(w, &e.progress, w->job.userdata);
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
        if (n <= 0)
                w->out = sd_event_source_disable_unref(w->out);
        worker_finish(w); /* may free it */
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
        if (w->gone) {
                worker_log(w);
                w->gone(w, w->gone_userdata); /* frees it */
        } else
                worker_finish(w);
        return 0;
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        Worker *w = userdata;
        TbError *err = NULL;

        if (w->gone) {
                (void) sd_event_source_send_child_signal(w->child, SIGKILL, NULL, 0);
                return 0;
        }
        (void) tb_error_set(&err, TB_ERROR_REMOTE, -ETIMEDOUT, "the augmentation took longer than %lu s",
                (unsigned long) (w->timeout_usec / 1000000));
        tb_error_set_retryable(&err);
        worker_fail(w, err);
        return 0;
}

static int worker_attach(Worker *w, sd_event *event, TbError **err)
{
        int r;

        r = sd_event_add_child(event, &w->child, w->process.pid, WEXITED, on_child, w);
        if (r >= 0) {
                (void) sd_event_source_set_child_process_own(w->child, true);
                r = sd_event_add_io(event, &w->out, w->process.out, EPOLLIN, on_out, w);
        } else {
                (void) kill(w->process.pid, SIGKILL); /* ours, and not reaped yet */
                (void) waitpid(w->process.pid, NULL, 0);
        }
        if (r >= 0)
                r = sd_event_add_io(event, &w->errors, w->process.err, EPOLLIN, on_stderr, w);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch the augmentation worker");
        (void) sd_event_source_set_description(w->child, "worker");
        return 0;
}

int worker_new(sd_event *event, const WorkerProcessOptions *options, uint64_t timeout_usec, Worker **ret,
        TbError **err)
{
        Worker *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return tb_error_oom(err);
        w->timeout_usec = timeout_usec;
        w->process = WORKER_PROCESS_INIT;
        r = tb_json_lines_new("augmentation worker", AUGMENT_EVENT_MAX, on_line, w, &w->lines, err);
        if (r >= 0)
                r = worker_process_start(options, &w->process, err);
        if (r >= 0)
                r = worker_attach(w, event, err);
        if (r < 0) {
                worker_free(w);
                return r;
        }
        *ret = w;
        return 0;
}

bool worker_is_waiting(const Worker *w)
{
        return !w->job.done && !w->exited && w->out;
}

bool worker_leave(Worker *w, void (*gone)(Worker *w, void *userdata), void *userdata)
{
        sd_event *event = sd_event_source_get_event(w->child);

        if (!w->have_result || w->exited ||
                sd_event_add_time_relative(
                        event, &w->timer, CLOCK_MONOTONIC, LEAVE_USEC, LEAVE_USEC / 10, on_timeout, w) < 0)
                return false;
        w->gone = gone;
        w->gone_userdata = userdata;
        w->out = sd_event_source_disable_unref(w->out);
        w->process.out = tb_close(w->process.out);
        return true;
}

int worker_start(Worker *w, const WorkerJob *job, const char *request, TbError **err)
{
        int r = 0;

        if (strlen(request) > REQUEST_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EMSGSIZE, "the request is too large");
        if (job->docker_config)
                r = tb_write_all(w->process.config, job->docker_config, strlen(job->docker_config), err);
        if (r >= 0)
                r = tb_write_all(w->process.in, request, strlen(request), err);
        if (r >= 0)
                r = tb_write_all(w->process.in, "\n", 1, err);
        if (r < 0)
                return r;
        r = sd_event_add_time_relative(sd_event_source_get_event(w->child), &w->timer, CLOCK_MONOTONIC,
                w->timeout_usec, 0, on_timeout, w);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch the augmentation worker");
        w->process.in = tb_close(w->process.in);
        w->process.config = tb_close(w->process.config);
        w->job = *job;
        w->job.docker_config = NULL; /* borrowed */
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * POST /v1/nodes/NODE/files: files out of a node, as a tar archive (node-files.h)
 *
 * A process of its own walks and reads: that takes as long as disks take, and what it meets is hostile. FILES_RUNNING_MAX of
 * them run at a time, FILES_USER_MAX of one user; the others wait, in the order in which they came. Without room for its
 * reader the pipe is not read, and the process waits. It is killed when its client goes away, and after FILES_TIME_USEC.
 *
 * The answer begins with the first bytes: a process that ends badly before is an error with its reason. Behind them the transfer
 * is broken off: no client may take a part for the whole. How it ended is known when both are there, the pipe's end and its own.
 */

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/api-ops.h"
#include "agent/main-status.h"
#include "agent/node-files.h"
#include "agent/request-body.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/log.h"

#define FILES_RUNNING_MAX 8U
#define FILES_USER_MAX 4U
#define FILES_TIME_USEC (600 * UINT64_C(1000000))
#define FILES_CPU_SECONDS 60
#define FILES_MEMORY (256UL << 20)
#define READ_BYTES (16U * 1024)
/* What waits for a reader who is slow. */
#define OUT_MAX (256U * 1024)

typedef struct FilesOp FilesOp;
struct FilesOp {
        Manager *manager;
        FilesOp *next;
        ApiRequest *request;
        uid_t uid;
        json_t *patterns;
        ProcessIdentity identity;
        char *name;
        bool running, begun; /* the process; the answer */
        bool at_end, exited; /* the pipe; the process */
        siginfo_t how;       /* it ended */
        sd_event_source *pipe, *child, *timer;
};

static void files_next(Manager *m);

static void files_op_free(FilesOp *o)
{
        Manager *m = o->manager;

        for (FilesOp **p = &m->files; *p; p = &(*p)->next)
                if (*p == o) {
                        *p = o->next;
                        break;
                }
        sd_event_source_disable_unref(o->pipe);
        sd_event_source_disable_unref(o->child); /* kills it */
        sd_event_source_disable_unref(o->timer);
        json_decref(o->patterns);
        free(o->name);
        free(o);
        files_next(m);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        files_op_free(userdata);
}

static void refuse(FilesOp *o, TbError *err)
{
        tb_error_prefix(&err, "node %s", o->name);
        api_reply_error(o->request, err);
        tb_error_free(err);
        files_op_free(o);
}

/* Not all of it comes. Consumes `err`. */
static void fail(FilesOp *o, TbError *err)
{
        if (!o->begun) {
                refuse(o, err);
                return;
        }
        log_warning("node %s: %s; a part of them was sent, and the transfer broken off", o->name,
                tb_error_message(err));
        tb_error_free(err);
        api_stream_break(o->request);
        files_op_free(o);
}

static void begin(FilesOp *o)
{
        if (o->begun)
                return;
        o->begun = true;
        api_stream_start_as(o->request, "application/x-tar");
}

static void finish(FilesOp *o)
{
        TbError *err = NULL;

        if (o->how.si_code != CLD_EXITED)
                (void) tb_error_set(&err, TB_ERROR_RESOURCE, -EIO,
                        "collecting its files broke off: what reads them was killed by signal %d (for want "
                        "of "
                        "memory, or after %d s of processor time); ask for fewer files",
                        o->how.si_status, FILES_CPU_SECONDS);
        else if (o->how.si_status != EXIT_SUCCESS)
                (void) tb_error_set_errno(
                        &err, TB_ERROR_RESOURCE, -o->how.si_status, "collecting its files broke off");
        if (o->how.si_code != CLD_EXITED || o->how.si_status != EXIT_SUCCESS) {
                fail(o, err);
                return;
        }
        begin(o);
        api_stream_end(o->request);
        files_op_free(o);
}

/* ---- The process --------------------------------------------------------------------------------------------------- */

static void limit(int resource, rlim_t value)
{
        const struct rlimit l = {.rlim_cur = value, .rlim_max = value};

        (void) setrlimit(resource, &l);
}

static void close_but(int a, int b)
{
        unsigned low = (unsigned) MIN2(a, b), high = (unsigned) MAX2(a, b);

        if (low > 3)
                (void) syscall(SYS_close_range, 3U, low - 1, 0U);
        if (high > low + 1)
                (void) syscall(SYS_close_range, low + 1, high - 1, 0U);
        (void) syscall(SYS_close_range, high + 1, ~0U, 0U);
}

static _Noreturn void child_run(const FilesOp *o, int root, int out, pid_t parent)
{
        _cleanup_error_ TbError *err = NULL;
        sigset_t none;

        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
                _exit(EXIT_FAILURE);
        (void) prctl(PR_SET_NAME, "tbnoded-files");
        (void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        (void) signal(SIGPIPE, SIG_DFL);
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        close_but(root, out);
        limit(RLIMIT_CPU, FILES_CPU_SECONDS);
#if !defined(__SANITIZE_ADDRESS__) /* its shadow memory is data, too */
        limit(RLIMIT_DATA, FILES_MEMORY);
#endif
        limit(RLIMIT_FSIZE, 0); /* a pipe is no file */
        limit(RLIMIT_CORE, 0);
        /* An errno fits into a status (asm-generic/errno.h: up to 133). */
        _exit(-node_files_pack(root, o->patterns, out, &err));
}

static bool has_room(const FilesOp *o)
{
        return api_stream_has_room(o->request, API_STREAM_MAX - OUT_MAX + READ_BYTES);
}

static int on_readable(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        FilesOp *o = userdata;
        char buffer[READ_BYTES];
        ssize_t n;

        if (!has_room(o)) {
                (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
                return 0;
        }
        n = read(fd, buffer, sizeof(buffer));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n > 0) {
                begin(o);
                if (!api_stream_text(o->request, buffer, (size_t) n)) {
                        TbError *err = NULL;

                        (void) tb_error_oom(&err);
                        fail(o, err);
                }
                return 0;
        }
        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        o->at_end = true;
        if (o->exited)
                finish(o);
        return 0;
}

static void on_drained(ApiRequest *r, void *userdata)
{
        FilesOp *o = userdata;

        if (o->pipe && !o->at_end)
                (void) sd_event_source_set_enabled(o->pipe, SD_EVENT_ON);
}

static int on_child(sd_event_source *s, const siginfo_t *si, void *userdata)
{
        FilesOp *o = userdata;

        o->how = *si;
        o->exited = true;
        if (o->at_end)
                finish(o);
        return 0;
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        TbError *err = NULL;

        (void) tb_error_set(&err, TB_ERROR_RESOURCE, -ETIMEDOUT,
                "collecting its files took longer than %llu s; ask for fewer",
                (unsigned long long) (FILES_TIME_USEC / 1000000));
        fail(userdata, err);
        return 0;
}

static int files_spawn(FilesOp *o, TbError **err)
{
        sd_event *event = o->manager->event;
        _cleanup_close_ int root = container_root_open(&o->identity, err), in = -EBADF;
        int fds[2], r;
        pid_t parent = getpid(), pid;

        if (root < 0)
                return root;
        if (pipe2(fds, O_CLOEXEC) < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, errno, "cannot make a pipe");
        in = fds[0];
        pid = fork();
        if (pid == 0)
                child_run(o, root, fds[1], parent);
        r = pid < 0 ? tb_error_set_errno(err, TB_ERROR_RESOURCE, errno, "cannot start collecting files") : 0;
        tb_close(fds[1]);
        if (r < 0)
                return r;
        r = sd_event_add_child(event, &o->child, pid, WEXITED, on_child, o);
        if (r < 0) {
                (void) kill(pid, SIGKILL);
                (void) waitpid(pid, NULL, 0);
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch a process");
        }
        (void) sd_event_source_set_child_process_own(o->child, true);
        r = tb_set_nonblock(in, err);
        if (r >= 0 && sd_event_add_io(event, &o->pipe, in, EPOLLIN, on_readable, o) < 0)
                r = tb_error_oom(err);
        if (r >= 0) {
                (void) sd_event_source_set_io_fd_own(o->pipe, true);
                (void) TAKE_FD(in);
                if (sd_event_add_time_relative(
                            event, &o->timer, CLOCK_MONOTONIC, FILES_TIME_USEC, 0, on_timeout, o) < 0)
                        r = tb_error_oom(err);
        }
        return r;
}

/* ---- Turns --------------------------------------------------------------------------------------------------------- */

static unsigned running(const Manager *m, uid_t uid)
{
        unsigned n = 0;

        for (const FilesOp *o = m->files; o; o = o->next)
                n += o->running && (uid == (uid_t) -1 || o->uid == uid);
        return n;
}

static void files_next(Manager *m)
{
        for (FilesOp *o = m->files; o; o = o->next) {
                TbError *err = NULL;

                if (o->running || running(m, (uid_t) -1) >= FILES_RUNNING_MAX ||
                        running(m, o->uid) >= FILES_USER_MAX)
                        continue;
                o->running = true;
                if (files_spawn(o, &err) < 0) {
                        refuse(o, err); /* and comes here again */
                        return;
                }
                api_stream_on_drained(o->request, on_drained, o);
        }
}

void op_files(ApiRequest *r)
{
        static const char *const known[] = {"paths", NULL};
        const json_t *body = api_request_body(r), *patterns = json_object_get(body, "paths");
        _cleanup_error_ TbError *err = NULL;
        FilesOp *o, **last;
        Manager *m;
        Node *n;

        if (request_body_check_members(body, known, &err) < 0 || node_files_check(patterns, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        if (api_request_node(r, &n) < 0)
                return;
        m = n->manager;
        if (n->identity.pid == 0) {
                (void) tb_error_set(&err, TB_ERROR_CONFIG, -ENOTCONN,
                        "node %s is not running; start it to get at its files", node_display_name(n));
                api_reply_error(r, err);
                return;
        }
        o = calloc(1, sizeof(*o));
        if (!o || !(o->name = strdup(node_display_name(n)))) {
                free(o);
                api_reply(r, 507, NULL);
                return;
        }
        o->manager = m;
        o->request = r;
        o->uid = api_request_uid(r);
        o->patterns = json_incref((json_t *) patterns);
        o->identity = n->identity;
        for (last = &m->files; *last; last = &(*last)->next)
                ;
        *last = o;
        api_request_on_gone(r, on_gone, o);
        files_next(m);
}

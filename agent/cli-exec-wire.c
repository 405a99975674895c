/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The client's side of POST /v1/nodes/NODE/exec: three files here, frames there.
 *
 * poll(2), not the event loop: standard input may be a file, which epoll refuses. What comes is written with blocking writes:
 * as long as our reader does not read, neither do we, nor the agent, nor is the program's output taken. What goes is kept
 * in one bounded buffer.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "agent/cli.h"
#include "agent/exec-frame.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/http-upgrade.h"
#include "common/json.h"
#include "common/strv.h"

#define OUT_MAX (64U * 1024)

typedef struct Wire {
        int fd;
        int signals;
        bool takes_stdin; /* more is to be read from it */
        bool tty;
        struct termios saved;
        bool is_raw;
        int killed_by; /* a signal that is to end us, when the terminal is as it was */

        TbBuffer out; /* frames that are not sent yet */
        bool deaf;    /* the agent takes no more: what it still has to say counts */

        unsigned char header[EXEC_FRAME_HEADER];
        size_t header_size;
        uint32_t left;
        TbBuffer end; /* of EXEC_END */
        bool ended;
} Wire;

/* ---- The request --------------------------------------------------------------------------------------------------- */

static int connect_agent(const Cli *c, TbError **err)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = -EBADF;
        _cleanup_error_ TbError *cause = NULL;

        if (strlen(c->socket) >= sizeof(sa.sun_path))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -ENAMETOOLONG, "the socket path %s is too long", c->socket);
        memcpy(sa.sun_path, c->socket, strlen(c->socket) + 1);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a socket");
        if (connect(fd, (struct sockaddr *) &sa, sizeof(sa)) < 0) {
                (void) tb_error_set_errno(&cause, TB_ERROR_ENVIRONMENT, -errno, "cannot connect");
                return cli_agent_error(c, cause, err);
        }
        return TAKE_FD(fd);
}

static int send_all(int fd, const char *data, size_t size, TbError **err)
{
        while (size > 0) {
                ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return tb_error_set_errno(err, TB_ERROR_REMOTE, -errno, "cannot ask tbnoded");
                data += n;
                size -= (size_t) n;
        }
        return 0;
}

/* The answer's head; for a refusal its body, too. */
static int read_answer(int fd, TbHttpUpgrade *u, TbError **err)
{
        _cleanup_json_ json_t *answer = NULL;
        char buffer[4096];
        int r;

        while (!u->done) {
                ssize_t n = recv(fd, buffer, sizeof(buffer), 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return tb_error_set_errno(
                                err, TB_ERROR_REMOTE, -errno, "lost the connection to tbnoded");
                r = tb_http_upgrade_feed(u, buffer, (size_t) n, err);
                if (r < 0) {
                        (void) tb_error_prefix(err, "tbnoded");
                        return r;
                }
        }
        if (u->status == 101)
                return 0;
        if (tb_json_parse(u->body.data ?: "", u->body.size, HTTP_UPGRADE_BODY_MAX, "answer of tbnoded",
                    &answer, NULL) < 0)
                answer = NULL;
        return cli_answer_error(u->status, answer, err);
}

/* ---- The terminal -------------------------------------------------------------------------------------------------- */

static bool terminal_size(uint16_t *rows, uint16_t *columns)
{
        struct winsize w;

        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
                if (ioctl(fd, TIOCGWINSZ, &w) >= 0 && w.ws_row > 0 && w.ws_col > 0) {
                        *rows = w.ws_row;
                        *columns = w.ws_col;
                        return true;
                }
        return false;
}

static void make_raw(Wire *w)
{
        struct termios raw;

        if (!w->tty || !w->takes_stdin || tcgetattr(STDIN_FILENO, &w->saved) < 0)
                return;
        raw = w->saved;
        cfmakeraw(&raw);
        w->is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) >= 0;
}

static int watch_signals(Wire *w, TbError **err)
{
        static const int all[] = {SIGWINCH, SIGTERM, SIGHUP, SIGQUIT, SIGINT};
        sigset_t set;

        (void) sigemptyset(&set);
        for (size_t i = 0; i < ELEMENTSOF(all); i++)
                (void) sigaddset(&set, all[i]);
        w->signals = signalfd(-1, &set, SFD_CLOEXEC);
        if (w->signals < 0 || sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot watch for signals");
        return 0;
}

static void wire_done(Wire *w)
{
        if (w->is_raw)
                (void) tcsetattr(STDIN_FILENO, TCSADRAIN, &w->saved);
        tb_close(w->fd);
        tb_close(w->signals);
        tb_buffer_done(&w->out);
        tb_buffer_done(&w->end);
}

/* ---- Frames -------------------------------------------------------------------------------------------------------- */

static int queue(Wire *w, ExecFrameType type, const void *data, size_t size, TbError **err)
{
        unsigned char header[EXEC_FRAME_HEADER];
        int r;

        if (w->deaf)
                return 0;
        exec_frame_header(header, type, size);
        r = tb_buffer_append(&w->out, header, sizeof(header), err);
        return r < 0 || size == 0 ? r : tb_buffer_append(&w->out, data, size, err);
}

static int queue_size(Wire *w, TbError **err)
{
        uint16_t rows, columns;

        if (!terminal_size(&rows, &columns))
                return 0;
        return queue(w, EXEC_RESIZE,
                (unsigned char[]){(unsigned char) (rows >> 8), (unsigned char) rows,
                        (unsigned char) (columns >> 8), (unsigned char) columns},
                4, err);
}

/* Our reader went away: so do we, and the program is hung up. */
static int write_all(int fd, const char *data, size_t size, TbError **err)
{
        while (size > 0) {
                ssize_t n = write(fd, data, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN) {
                        (void) poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
                        continue;
                }
                if (n < 0)
                        return tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, -errno, "cannot write the program's output");
                data += n;
                size -= (size_t) n;
        }
        return 0;
}

static int take_payload(Wire *w, const char *p, size_t n, TbError **err)
{
        switch (w->header[0]) {
        case EXEC_STDOUT:
                return write_all(STDOUT_FILENO, p, n, err);
        case EXEC_STDERR:
                return write_all(STDERR_FILENO, p, n, err);
        case EXEC_END:
                return tb_buffer_append(&w->end, p, n, err);
        default:
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "tbnoded sent a frame of unknown type %u",
                        w->header[0]);
        }
}

static int take_frames(Wire *w, const char *p, size_t size, TbError **err)
{
        while (size > 0 && !w->ended) {
                size_t n;
                int r;

                if (w->left == 0) {
                        w->header[w->header_size++] = (unsigned char) *p++;
                        size--;
                        if (w->header_size == EXEC_FRAME_HEADER) {
                                w->header_size = 0;
                                w->left = exec_frame_size(w->header);
                        }
                        continue;
                }
                n = MIN2(size, (size_t) w->left);
                r = take_payload(w, p, n, err);
                if (r < 0)
                        return r;
                w->left -= (uint32_t) n;
                w->ended = w->left == 0 && w->header[0] == EXEC_END;
                p += n;
                size -= n;
        }
        return 0;
}

/* ---- The loop ------------------------------------------------------------------------------------------------------ */

static int send_some(Wire *w)
{
        while (w->out.size > 0) {
                ssize_t n = send(w->fd, w->out.data, w->out.size, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return 0;
                if (n < 0) {
                        w->deaf = true;
                        w->takes_stdin = false;
                        tb_buffer_done(&w->out);
                        return 0;
                }
                tb_buffer_consume(&w->out, (size_t) n);
        }
        return 0;
}

static int read_stdin(Wire *w, TbError **err)
{
        char buffer[EXEC_FRAME_MAX];
        ssize_t n = read(STDIN_FILENO, buffer, sizeof(buffer));

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) { /* also a terminal that is gone */
                w->takes_stdin = false;
                n = 0;
        }
        return queue(w, EXEC_STDIN, buffer, (size_t) n, err);
}

static int read_agent(Wire *w, TbError **err)
{
        char buffer[EXEC_FRAME_MAX];
        ssize_t n = recv(w->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -ECONNRESET,
                        "lost the connection to tbnoded; the program goes on without us, if the agent "
                        "ended");
        return take_frames(w, buffer, (size_t) n, err);
}

static int read_signal(Wire *w, TbError **err)
{
        struct signalfd_siginfo info;

        if (read(w->signals, &info, sizeof(info)) != sizeof(info))
                return 0;
        if (info.ssi_signo == SIGWINCH)
                return w->tty ? queue_size(w, err) : 0;
        w->killed_by = (int) info.ssi_signo;
        return 0;
}

static int wire_run(Wire *w, TbError **err)
{
        while (!w->ended && !w->killed_by) {
                bool reads = w->takes_stdin && w->out.size < OUT_MAX;
                struct pollfd p[] = {
                        {.fd = w->fd, .events = (short) (POLLIN | (w->out.size > 0 ? POLLOUT : 0))},
                        {.fd = w->signals, .events = POLLIN},
                        {.fd = reads ? STDIN_FILENO : -1, .events = POLLIN},
                };
                int r = poll(p, ELEMENTSOF(p), -1);

                if (r < 0 && errno != EINTR)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot wait");
                if (r < 0)
                        continue;
                r = send_some(w);
                if (r >= 0 && p[1].revents)
                        r = read_signal(w, err);
                if (r >= 0 && p[2].revents)
                        r = read_stdin(w, err);
                if (r >= 0 && (p[0].revents & (POLLIN | POLLHUP | POLLERR)))
                        r = read_agent(w, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Signals end us as they would have: our parent sees it. */
static _Noreturn void die_by(int signal)
{
        sigset_t set;

        (void) sigemptyset(&set);
        (void) sigaddset(&set, signal);
        (void) raise(signal);
        (void) sigprocmask(SIG_UNBLOCK, &set, NULL);
        _exit(128 + signal);
}

static int take_end(const Wire *w, int *ret, TbError **err)
{
        _cleanup_json_ json_t *end = NULL;
        uint64_t status = 0;
        int r;

        r = tb_json_parse(
                w->end.data ?: "", w->end.size, EXEC_END_MAX, "end of tbnoded's answer", &end, err);
        if (r >= 0)
                r = tb_json_get_u64(end, "exit", &status, err);
        if (r == 0)
                return cli_answer_error(502, end, err);
        if (r > 0)
                *ret = (int) (status & 0xff);
        return r < 0 ? r : 0;
}

int cli_exec_connect(Cli *c, const char *node, json_t *body, int *ret, TbError **err)
{
        _cleanup_http_upgrade_ TbHttpUpgrade answer = TB_HTTP_UPGRADE_INIT;
        _cleanup_free_ char *path = cli_node_path(node, "/exec");
        _cleanup_(wire_done) Wire w = {
                .fd = -EBADF,
                .signals = -EBADF,
                .out = TB_BUFFER_INIT(0),
                .end = TB_BUFFER_INIT(EXEC_END_MAX),
                .tty = json_is_true(json_object_get(body, "tty")),
                .takes_stdin = json_is_true(json_object_get(body, "stdin")),
        };
        _cleanup_buffer_ TbBuffer request = TB_BUFFER_INIT(0);
        uint16_t rows, columns;
        int r = path ? 0 : tb_error_oom(err);

        if (r >= 0 && w.tty && terminal_size(&rows, &columns)) {
                r = tb_json_set_u64(body, "rows", rows, err);
                if (r >= 0)
                        r = tb_json_set_u64(body, "columns", columns, err);
        }
        if (r >= 0)
                r = tb_http_upgrade_request("tbnoded", path, EXEC_PROTOCOL, body, &request, err);
        if (r >= 0)
                r = w.fd = connect_agent(c, err);
        if (r >= 0)
                r = send_all(w.fd, request.data, request.size, err);
        if (r >= 0)
                r = read_answer(w.fd, &answer, err);
        if (r >= 0)
                r = watch_signals(&w, err);
        if (r >= 0)
                make_raw(&w);
        if (r >= 0)
                r = take_frames(&w, answer.body.data ?: "", answer.body.size, err);
        if (r >= 0)
                r = wire_run(&w, err);
        if (r >= 0 && w.killed_by) {
                wire_done(&w);
                die_by(w.killed_by);
        }
        return r < 0 ? r : take_end(&w, ret, err);
}

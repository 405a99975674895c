/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/scripted-server.h"

static char head[128 * 1024];
static char body[4 * 1024 * 1024];

void peer_check_full(int ok, const char *expr, int line)
{
        if (ok)
                return;
        fprintf(stderr, "server: line %d: %s does not hold\nlast request head:\n%s\n", line, expr, head);
        _exit(1);
}

void scripted_server_start(ScriptedServer *s, const char *unix_path, ServeFn serve)
{
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        socklen_t length = sizeof(in);
        int fd;

        *s = (ScriptedServer){};
        fd = socket(unix_path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        if (unix_path) {
                assert_true(strlen(unix_path) < sizeof(un.sun_path));
                memcpy(un.sun_path, unix_path, strlen(unix_path));
                assert_int_equal(bind(fd, (struct sockaddr *) &un, sizeof(un)), 0);
        } else {
                assert_int_equal(bind(fd, (struct sockaddr *) &in, sizeof(in)), 0);
                assert_int_equal(getsockname(fd, (struct sockaddr *) &in, &length), 0);
                s->port = ntohs(in.sin_port);
        }
        assert_int_equal(listen(fd, 64), 0);
        (void) snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u", unix_path ? 80u : s->port);

        s->pid = fork();
        assert_true(s->pid >= 0);
        if (s->pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) signal(SIGPIPE, SIG_IGN);
                (void) alarm(50);
                _exit(serve(fd));
        }
        close(fd);
}

void scripted_server_finish(ScriptedServer *s)
{
        int status;

        assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
        s->pid = 0;
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
}

void scripted_server_kill(ScriptedServer *s)
{
        if (s->pid <= 0)
                return;
        (void) kill(s->pid, SIGKILL);
        (void) waitpid(s->pid, NULL, 0);
        s->pid = 0;
}

int peer_accept(int listen_fd)
{
        int fd = accept(listen_fd, NULL, NULL);

        peer_check(fd >= 0);
        return fd;
}

const char *peer_read_head(int fd)
{
        size_t n = 0;

        memset(head, 0, sizeof(head));
        while (n < sizeof(head) - 1) {
                if (read(fd, head + n, 1) != 1)
                        return NULL;
                n++;
                if (n >= 4 && memcmp(head + n - 4, "\r\n\r\n", 4) == 0)
                        return head;
        }
        peer_check(!"request head too long");
        return NULL;
}

static void read_exactly(int fd, char *p, size_t size)
{
        while (size > 0) {
                ssize_t k = read(fd, p, size);

                peer_check(k > 0);
                p += k;
                size -= (size_t) k;
        }
}

const char *peer_read_body(int fd, size_t size)
{
        peer_check(size < sizeof(body));
        read_exactly(fd, body, size);
        body[size] = 0;
        return body;
}

const char *peer_read_chunked(int fd, size_t *ret_size)
{
        size_t total = 0;

        for (;;) {
                char line[64] = "";
                unsigned long size;

                for (size_t n = 0; n < sizeof(line) - 1 && (n == 0 || line[n - 1] != '\n'); n++)
                        read_exactly(fd, line + n, 1);
                size = strtoul(line, NULL, 16);
                peer_check(total + size < sizeof(body));
                read_exactly(fd, body + total, size);
                total += size;
                read_exactly(fd, line, 2);
                if (size == 0)
                        break;
        }
        body[total] = 0;
        *ret_size = total;
        return body;
}

void peer_send_bytes(int fd, const void *data, size_t size)
{
        const char *p = data;

        while (size > 0) {
                ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

                if (n < 0)
                        return; /* the client went away: some tests want that */
                p += n;
                size -= (size_t) n;
        }
}

void peer_send(int fd, const char *text)
{
        peer_send_bytes(fd, text, strlen(text));
}

void peer_reset(int fd)
{
        struct linger linger = {.l_onoff = 1};

        (void) setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        close(fd);
}

void peer_wait_close(int fd)
{
        char c;

        while (read(fd, &c, 1) > 0)
                ;
        close(fd);
}

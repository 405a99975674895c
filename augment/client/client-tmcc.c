/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-tmcc.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "augment/client/client-link.h"
#include "augment/client/client-text.h"
#include "augment/client/util.h"

#define REQUEST_MAX 0x8000U /* of the protocol, tmcd.h MAXTMCDPACKET */
#define ANSWER_MAX (16U * 1024 * 1024)
#define VERSION "40"
/* How long the agent may be away when no -t says it: scripts at boot should outlive its restart. */
#define WAIT_MS 60000
#define PAUSE_MAX_MS 5000

typedef struct Tmcc {
        const char *path, *version, *data_file;
        int64_t deadline; /* ms of CLOCK_MONOTONIC */
} Tmcc;

static int64_t now_ms(void)
{
        struct timespec ts = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int left_ms(const Tmcc *t)
{
        int64_t left = t->deadline - now_ms();

        return left < 0 ? 0 : (int) MIN2(left, (int64_t) INT32_MAX);
}

char *tmcc_request(char *const *argv, const char *version)
{
        Text t = {};

        if (!argv[0])
                return NULL;
        text_addf(&t, "VERSION=%s ", version);
        for (; *argv; argv++)
                text_addf(&t, "%s ", *argv);
        if (t.size > REQUEST_MAX)
                text_done(&t);
        return t.size > 0 ? text_take(&t) : NULL;
}

static int usage(void)
{
        say("usage: tmcc [-l SOCKET] [-t SECONDS] [-v VERSION] [-f FILE] COMMAND [ARGS]; -s -p -n -k -S -o "
            "(with a value), -u -i -d -b -c -D -T are "
            "accepted and mean nothing here");
        return 1;
}

/* Waits between tries, growing; only for the connection: what was asked once is not asked twice. */
static int connect_agent(const Tmcc *t)
{
        int pause = 100, fd;

        for (;;) {
                fd = agent_connect(t->path);
                if (fd >= 0 || (fd != -ECONNREFUSED && fd != -ENOENT && fd != -EAGAIN) || left_ms(t) == 0)
                        return fd;
                (void) poll(NULL, 0, MIN2(pause, left_ms(t)));
                pause = MIN2(pause * 2, PAUSE_MAX_MS);
        }
}

static int send_all(const Tmcc *t, int fd, const char *data, size_t size)
{
        while (size > 0) {
                struct pollfd p = {.fd = fd, .events = POLLOUT};
                ssize_t n;

                if (poll(&p, 1, left_ms(t)) <= 0)
                        return -ETIMEDOUT;
                n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno != EINTR && errno != EAGAIN)
                        return -errno;
                if (n > 0) {
                        data += n;
                        size -= (size_t) n;
                }
        }
        return shutdown(fd, SHUT_WR) < 0 && errno != ENOTCONN ? -errno : 0;
}

static int print_answer(const Tmcc *t, int fd)
{
        char buffer[16384];
        size_t total = 0;

        for (;;) {
                struct pollfd p = {.fd = fd, .events = POLLIN};
                ssize_t n;
                int r;

                if (poll(&p, 1, left_ms(t)) <= 0)
                        return -ETIMEDOUT;
                n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
                if (n < 0 && (errno == EINTR || errno == EAGAIN))
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : 0;
                total += (size_t) n;
                if (total > ANSWER_MAX)
                        return -EMSGSIZE;
                r = write_all(STDOUT_FILENO, buffer, (size_t) n);
                if (r < 0)
                        return r;
        }
}

static int exchange(const Tmcc *t, char *const *argv)
{
        _cleanup_free_ char *request = tmcc_request(argv, t->version), *data = NULL;
        _cleanup_close_ int fd = -1;
        Text all = {};
        int r;

        if (!request) {
                say("tmcc: the request is longer than %u bytes", REQUEST_MAX);
                return 1;
        }
        text_adds(&all, request);
        if (t->data_file) {
                r = read_text_file(t->data_file, REQUEST_MAX, &data, NULL);
                if (r < 0) {
                        say("tmcc: %s: %s", t->data_file, strerror(-r));
                        text_done(&all);
                        return 1;
                }
                text_adds(&all, data);
        }
        fd = connect_agent(t);
        r = fd < 0 ? fd : all.failed ? -ENOMEM : send_all(t, fd, all.data, all.size);
        text_done(&all);
        if (r >= 0)
                r = print_answer(t, fd);
        if (r >= 0)
                return 0;
        say("tmcc: %s: the agent of this node's host %s: %s", argv[0],
                fd < 0 ? "can't be reached" : "gave no whole answer", strerror(-r));
        return 1;
}

int tmcc_main(int argc, char **argv)
{
        Tmcc t = {.path = AGENT_SOCKET, .version = VERSION, .deadline = now_ms() + WAIT_MS};
        uint32_t number;
        int option;

        opterr = 0;
        /* '+': what stands behind the command is its own. */
        while ((option = getopt(argc, argv, "+s:p:v:n:k:l:t:f:o:S:uidbcDT")) >= 0)
                switch (option) {
                case 'l':
                        t.path = optarg;
                        break;
                case 'f':
                        t.data_file = optarg;
                        break;
                case 'v':
                        if (parse_u32(optarg, 10000, &number) < 0)
                                return usage();
                        t.version = optarg;
                        break;
                case 't':
                        if (parse_u32(optarg, 10U * 86400, &number) < 0)
                                return usage();
                        if (number > 0)
                                t.deadline = now_ms() + (int64_t) number * 1000;
                        break;
                case '?':
                        return usage();
                default:
                        break; /* server, port, node, keys, protocol: the socket says it all */
                }
        if (!argv[optind])
                return usage();
        return exchange(&t, argv + optind);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * relay LISTEN_PORT TARGET_PORT DELAY_MS RATE_BIT_PER_S: a slow path on loopback, for benchmarks
 *
 * Each direction is one link that all connections share: it serializes bytes at the rate, delivers them DELAY_MS after
 * that, and has a queue of QUEUE_MS; while that is full nothing more is read, which TCP tells the sender. Bytes of payload
 * count, headers of TCP and IP do not; connections open at once, but nothing comes back before two delays.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/macro.h"

#define CONNECTIONS_MAX 128
#define PIECE 8192 /* read at a time: 0.65 ms at 100 Mbit/s */
#define PIECES 512 /* per direction of a connection */
#define QUEUE_MS 50

typedef struct Piece {
        uint64_t due_ns;
        size_t size, sent;
        char data[PIECE];
} Piece;

typedef struct Direction {
        int from, to;
        Piece *ring;
        size_t first, n;
        bool ended, closed; /* nothing more comes; `to` knows it */
} Direction;

typedef struct Connection {
        bool used;
        Direction d[2];
} Connection;

static Connection connections[CONNECTIONS_MAX];
static uint64_t link_free_ns[2], delay_ns, rate;

static uint64_t now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000ULL + (uint64_t) t.tv_nsec;
}

static bool link_is_full(int direction, uint64_t now)
{
        return link_free_ns[direction] > now + QUEUE_MS * 1000000ULL;
}

static void take_in(Connection *c, int direction, uint64_t now)
{
        Direction *d = c->d + direction;
        Piece *p = d->ring + (d->first + d->n) % PIECES;
        ssize_t n = recv(d->from, p->data, PIECE, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                d->ended = true;
                return;
        }
        link_free_ns[direction] =
                MAX2(link_free_ns[direction], now) + (uint64_t) n * 8 * 1000000000ULL / rate;
        p->due_ns = link_free_ns[direction] + delay_ns;
        p->size = (size_t) n;
        p->sent = 0;
        d->n++;
}

static void give_out(Direction *d, uint64_t now)
{
        while (d->n > 0) {
                Piece *p = d->ring + d->first;
                ssize_t n;

                if (p->due_ns > now)
                        return;
                n = send(d->to, p->data + p->sent, p->size - p->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return;
                if (n < 0) {
                        d->n = 0;
                        d->ended = true;
                        break;
                }
                p->sent += (size_t) n;
                if (p->sent == p->size) {
                        d->first = (d->first + 1) % PIECES;
                        d->n--;
                }
        }
        if (d->ended && !d->closed) {
                d->closed = true;
                shutdown(d->to, SHUT_WR);
        }
}

static void open_connection(int listener, int port)
{
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t) port)};
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC), server;

        if (client < 0)
                return;
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
                Connection *c = connections + i;

                if (c->used || server < 0 || connect(server, (struct sockaddr *) &to, sizeof(to)) < 0)
                        continue;
                *c = (Connection){
                        .used = true, .d = {{.from = client, .to = server}, {.from = server, .to = client}}};
                for (int k = 0; k < 2; k++)
                        if (!(c->d[k].ring = calloc(PIECES, sizeof(Piece))))
                                exit(1);
                return;
        }
        close(client);
        close(server);
}

static void close_connection(Connection *c)
{
        close(c->d[0].from);
        close(c->d[0].to);
        free(c->d[0].ring);
        free(c->d[1].ring);
        c->used = false;
}

/* What to wait for on one direction; *wake is when something is due. */
static void watch(
        const Direction *d, int k, uint64_t now, struct pollfd *from, struct pollfd *to, uint64_t *wake)
{
        if (!d->ended && d->n < PIECES) {
                if (link_is_full(k, now))
                        *wake = MIN2(*wake, link_free_ns[k] - QUEUE_MS * 1000000ULL + 1);
                else
                        from->events |= POLLIN;
        }
        if (d->n == 0)
                return;
        if (d->ring[d->first].due_ns <= now)
                to->events |= POLLOUT;
        else
                *wake = MIN2(*wake, d->ring[d->first].due_ns);
}

static void run(int listener, int port)
{
        static struct pollfd fds[1 + 2 * CONNECTIONS_MAX];

        for (;;) {
                uint64_t now = now_ns(), wake = now + 1000000000ULL;
                struct timespec wait;

                fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
                for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
                        Connection *c = connections + i;
                        struct pollfd *f = fds + 1 + 2 * i;

                        f[0] = (struct pollfd){.fd = -1};
                        f[1] = (struct pollfd){.fd = -1};
                        if (!c->used)
                                continue;
                        f[0].events = f[1].events = 0;
                        watch(&c->d[0], 0, now, &f[0], &f[1], &wake);
                        watch(&c->d[1], 1, now, &f[1], &f[0], &wake);
                        if (f[0].events)
                                f[0].fd = c->d[0].from;
                        if (f[1].events)
                                f[1].fd = c->d[1].from;
                }
                wait.tv_sec = (time_t) ((wake - now) / 1000000000ULL);
                wait.tv_nsec = (long) ((wake - now) % 1000000000ULL);
                if (ppoll(fds, ELEMENTSOF(fds), &wait, NULL) < 0 && errno != EINTR)
                        exit(1);
                now = now_ns();
                if (fds[0].revents & POLLIN)
                        open_connection(listener, port);
                for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
                        Connection *c = connections + i;

                        for (int k = 0; c->used && k < 2; k++) {
                                Direction *d = c->d + k;

                                if (fds[1 + 2 * i + (size_t) k].revents & (POLLIN | POLLHUP | POLLERR) &&
                                        !d->ended && d->n < PIECES && !link_is_full(k, now))
                                        take_in(c, k, now);
                                give_out(d, now);
                        }
                        if (c->used && c->d[0].closed && c->d[1].closed)
                                close_connection(c);
                }
        }
}

int main(int argc, char **argv)
{
        struct sockaddr_in at = {.sin_family = AF_INET};
        int listener, one = 1;

        if (argc != 5) {
                fprintf(stderr, "usage: relay LISTEN_PORT TARGET_PORT DELAY_MS RATE_BIT_PER_S\n");
                return 2;
        }
        delay_ns = strtoull(argv[3], NULL, 10) * 1000000ULL;
        rate = strtoull(argv[4], NULL, 10);
        at.sin_port = htons((uint16_t) strtoul(argv[1], NULL, 10));
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void) setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (rate == 0 || bind(listener, (struct sockaddr *) &at, sizeof(at)) < 0 ||
                listen(listener, 64) < 0) {
                perror("relay");
                return 1;
        }
        run(listener, (int) strtol(argv[2], NULL, 10));
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/registry-server.h"

#define RECORDS_MAX 8192
#define CONNECTIONS_MAX 512

typedef struct Record {
        char method[16];
        char *path;
        size_t received;
} Record;

struct Server {
        int fd;
        unsigned port;
        char host[32];
        Handler handler;
        void *userdata;
        pthread_t thread;
        pthread_mutex_t lock;
        Record records[RECORDS_MAX];
        size_t n_records;
        pthread_t threads[CONNECTIONS_MAX];
        int fds[CONNECTIONS_MAX];
        size_t n_threads;
};

typedef struct Connection {
        Server *server;
        size_t index;
        int fd;
        char *data;
        size_t size, allocated;
} Connection;

/* ---- reading requests ---- */

static bool more(Connection *c)
{
        ssize_t n;

        if (c->allocated - c->size < 65536) {
                c->allocated = c->allocated * 2 + 131072;
                c->data = realloc(c->data, c->allocated + 1);
        }
        n = recv(c->fd, c->data + c->size, 65536, 0);
        if (n <= 0)
                return false;
        c->size += (size_t) n;
        c->data[c->size] = 0;
        return true;
}

/* Takes a chunked body (RFC 9112 7.1) that begins at `head`; false = it broke off. */
static bool read_chunks(Connection *c, Exchange *e, size_t head)
{
        size_t at = head;

        e->body = malloc(1);
        for (;;) {
                char *line;
                size_t n;

                while (!(line = memmem(c->data + at, c->size - at, "\r\n", 2)))
                        if (!more(c))
                                return false;
                n = strtoul(c->data + at, NULL, 16);
                at = (size_t) (line - c->data) + 2;
                while (c->size - at < n + 2)
                        if (!more(c))
                                return false;
                e->body = realloc(e->body, e->body_size + n + 1);
                memcpy(e->body + e->body_size, c->data + at, n);
                e->body_size += n;
                at += n + 2;
                if (n == 0) {
                        memmove(c->data, c->data + at, c->size - at);
                        c->size -= at;
                        return true;
                }
        }
}

static bool read_request(Connection *c, Exchange *e)
{
        char *end;
        const char *length;
        size_t head;
        size_t want;

        while (!c->data || !(end = memmem(c->data, c->size, "\r\n\r\n", 4)))
                if (!more(c))
                        return false;
        head = (size_t) (end - c->data) + 4;
        e->headers = strndup(c->data, head);
        if (sscanf(e->headers, "%15s %4095s", e->method, e->path) != 2)
                return false;
        length = exchange_header(e, "Transfer-Encoding");
        if (length && strcmp(length, "chunked") == 0) {
                e->body_complete = read_chunks(c, e, head);
                return true;
        }
        length = exchange_header(e, "Content-Length");
        want = length ? strtoul(length, NULL, 10) : 0;
        e->body_complete = true;
        while (c->size - head < want)
                if (!more(c)) {
                        e->body_complete = false;
                        want = c->size - head;
                        break;
                }
        e->body = malloc(want + 1);
        memcpy(e->body, c->data + head, want);
        e->body[want] = 0;
        e->body_size = want;
        memmove(c->data, c->data + head + want, c->size - head - want);
        c->size -= head + want;
        return true;
}

static void record(Server *s, Exchange *e)
{
        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < s->n_records; i++)
                if (strcmp(s->records[i].method, e->method) == 0 && strcmp(s->records[i].path, e->path) == 0)
                        e->nth++;
        if (s->n_records < RECORDS_MAX) {
                Record *r = s->records + s->n_records++;

                memcpy(r->method, e->method, sizeof(r->method));
                r->path = strdup(e->path);
                r->received = e->body_size;
        }
        pthread_mutex_unlock(&s->lock);
}

static void *serve_connection(void *userdata)
{
        Connection *c = userdata;
        bool go_on = true;

        while (go_on) {
                Exchange e = {.server = c->server, .fd = c->fd, .userdata = c->server->userdata};

                go_on = read_request(c, &e);
                if (go_on) {
                        record(c->server, &e);
                        if (e.body_complete)
                                c->server->handler(&e);
                        go_on = e.body_complete && !e.close && e.fd >= 0;
                }
                free(e.headers);
                free(e.body);
        }
        pthread_mutex_lock(&c->server->lock);
        close(c->fd);
        c->server->fds[c->index] = -1;
        pthread_mutex_unlock(&c->server->lock);
        free(c->data);
        free(c);
        return NULL;
}

static void *accept_connections(void *userdata)
{
        Server *s = userdata;

        for (;;) {
                int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
                Connection *c;

                if (fd < 0)
                        return NULL;
                (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
                pthread_mutex_lock(&s->lock);
                if (s->n_threads >= CONNECTIONS_MAX) {
                        pthread_mutex_unlock(&s->lock);
                        close(fd);
                        continue;
                }
                c = calloc(1, sizeof(*c));
                c->server = s;
                c->fd = fd;
                c->index = s->n_threads++;
                s->fds[c->index] = fd;
                pthread_create(&s->threads[c->index], NULL, serve_connection, c);
                pthread_mutex_unlock(&s->lock);
        }
}

static int listen_at(Server *s, const struct sockaddr *a, socklen_t n)
{
        s->fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        return s->fd < 0 || bind(s->fd, a, n) < 0 || listen(s->fd, 64) < 0 ? -1 : 0;
}

Server *server_new_at(const char *where, Handler handler, void *userdata)
{
        Server *s = calloc(1, sizeof(*s));
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        socklen_t n;
        int r;

        s->handler = handler;
        s->userdata = userdata;
        pthread_mutex_init(&s->lock, NULL);
        if (where && where[0] == '/') {
                snprintf(un.sun_path, sizeof(un.sun_path), "%s", where);
                snprintf(s->host, sizeof(s->host), "localhost");
                r = listen_at(s, (struct sockaddr *) &un, sizeof(un));
        } else if (where) {
                n = sizeof(v6);
                r = listen_at(s, (struct sockaddr *) &v6, n);
                if (r == 0)
                        r = getsockname(s->fd, (struct sockaddr *) &v6, &n);
                s->port = ntohs(v6.sin6_port);
                snprintf(s->host, sizeof(s->host), "[::1]:%u", s->port);
        } else {
                n = sizeof(v4);
                r = listen_at(s, (struct sockaddr *) &v4, n);
                if (r == 0)
                        r = getsockname(s->fd, (struct sockaddr *) &v4, &n);
                s->port = ntohs(v4.sin_port);
                snprintf(s->host, sizeof(s->host), "127.0.0.1:%u", s->port);
        }
        if (r < 0 && !where)
                abort();
        if (r < 0) {
                if (s->fd >= 0)
                        close(s->fd);
                free(s);
                return NULL;
        }
        pthread_create(&s->thread, NULL, accept_connections, s);
        return s;
}

Server *server_new(Handler handler, void *userdata)
{
        return server_new_at(NULL, handler, userdata);
}

Server *server_free(Server *s)
{
        if (!s)
                return NULL;
        shutdown(s->fd, SHUT_RDWR);
        pthread_join(s->thread, NULL);
        close(s->fd);
        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < s->n_threads; i++)
                if (s->fds[i] >= 0)
                        shutdown(s->fds[i], SHUT_RDWR);
        pthread_mutex_unlock(&s->lock);
        for (size_t i = 0; i < s->n_threads; i++)
                pthread_join(s->threads[i], NULL);
        for (size_t i = 0; i < s->n_records; i++)
                free(s->records[i].path);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return NULL;
}

unsigned server_port(const Server *s)
{
        return s->port;
}

const char *server_host(const Server *s)
{
        return s->host;
}

static size_t sum(Server *s, const char *method, const char *path, bool bytes)
{
        size_t n = 0;

        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < s->n_records; i++)
                if (strcmp(s->records[i].method, method) == 0 &&
                        strncmp(s->records[i].path, path, strlen(path)) == 0)
                        n += bytes ? s->records[i].received : 1;
        pthread_mutex_unlock(&s->lock);
        return n;
}

unsigned server_count(Server *s, const char *method, const char *path)
{
        return (unsigned) sum(s, method, path, false);
}

size_t server_received(Server *s, const char *method, const char *path)
{
        return sum(s, method, path, true);
}

/* ---- what handlers use ---- */

bool exchange_is(const Exchange *e, const char *method, const char *path_start)
{
        return strcmp(e->method, method) == 0 && strncmp(e->path, path_start, strlen(path_start)) == 0;
}

const char *exchange_header(const Exchange *e, const char *name)
{
        static _Thread_local char value[8192];
        size_t n = strlen(name);

        for (const char *p = strstr(e->headers, "\r\n"); p; p = strstr(p + 2, "\r\n"))
                if (strncasecmp(p + 2, name, n) == 0 && p[2 + n] == ':') {
                        const char *v = p + 3 + n;

                        v += strspn(v, " ");
                        snprintf(value, sizeof(value), "%.*s", (int) strcspn(v, "\r"), v);
                        return value;
                }
        return NULL;
}

bool exchange_write(Exchange *e, const void *data, size_t size)
{
        const char *p = data;

        while (size > 0) {
                ssize_t n = send(e->fd, p, size, MSG_NOSIGNAL);

                if (n <= 0) {
                        e->close = true;
                        return false;
                }
                p += n;
                size -= (size_t) n;
        }
        return true;
}

bool exchange_puts(Exchange *e, const char *text)
{
        return exchange_write(e, text, strlen(text));
}

void exchange_reply(Exchange *e, unsigned status, const char *headers, const void *body, size_t size)
{
        char head[8192];

        snprintf(
                head, sizeof(head), "HTTP/1.1 %u X\r\n%sContent-Length: %zu\r\n\r\n", status, headers, size);
        if (exchange_puts(e, head) && strcmp(e->method, "HEAD") != 0 && size > 0)
                exchange_write(e, body, size);
}

void exchange_text(Exchange *e, unsigned status, const char *headers, const char *text)
{
        exchange_reply(e, status, headers, text, strlen(text));
}

void exchange_reset(Exchange *e)
{
        struct linger l = {.l_onoff = 1, .l_linger = 0};

        setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
        e->close = true;
}

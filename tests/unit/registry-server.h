/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A scriptable HTTP server for tests of the registry client: it does whatever the test's handler writes, byte by byte
 *
 * It listens on 127.0.0.1, or on [::1] or a unix socket, and serves each connection in a thread of its own. The handler runs in that thread, for one
 * request at a time per connection. Everything that was asked is kept and can be counted.
 */

#include <stdbool.h>
#include <stddef.h>

typedef struct Server Server;

typedef struct Exchange {
        Server *server;
        int fd;
        char method[16];
        char path[4096]; /* with the query */
        char *headers;   /* raw text */
        char *body;
        size_t body_size;
        bool body_complete;
        unsigned nth; /* how many requests with this method and path came before */
        bool close;   /* set by the handler: do not keep the connection */
        void *userdata;
} Exchange;

typedef void (*Handler)(Exchange *e);

Server *server_new(Handler handler, void *userdata);
/* where: "::1", or the path of a unix socket (server_host() is then "localhost"). NULL = cannot (no IPv6 here). */
Server *server_new_at(const char *where, Handler handler, void *userdata);
Server *server_free(Server *s);
unsigned server_port(const Server *s);
/* "127.0.0.1:PORT" */
const char *server_host(const Server *s);
/* How many requests had this method and a path that begins so. */
unsigned server_count(Server *s, const char *method, const char *path);
/* Bytes of request bodies that came with such requests, also of those that broke off. */
size_t server_received(Server *s, const char *method, const char *path);

bool exchange_is(const Exchange *e, const char *method, const char *path_start);
/* Value of a request header in a static thread-local buffer, or NULL. */
const char *exchange_header(const Exchange *e, const char *name);
/* `headers` are full lines with \r\n, or "". Content-Length is added. */
void exchange_reply(Exchange *e, unsigned status, const char *headers, const void *body, size_t size);
void exchange_text(Exchange *e, unsigned status, const char *headers, const char *text);
/* Raw bytes; false = the client has gone. */
bool exchange_write(Exchange *e, const void *data, size_t size);
bool exchange_puts(Exchange *e, const char *text);
/* TCP reset instead of an orderly end. */
void exchange_reset(Exchange *e);

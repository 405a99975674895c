/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A server that says exactly the bytes a test wants, in a forked child: blocking C in the order of the dialogue.
 * Everything here ends the process on failure (assert in the parent, exit status 1 in the child).
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct ScriptedServer {
        pid_t pid;
        uint16_t port; /* 0 for unix sockets */
        char url[64];  /* "http://127.0.0.1:PORT" */
} ScriptedServer;

/* Plays the dialogue; returns the child's exit status, 0 = the client behaved as expected. */
typedef int (*ServeFn)(int listen_fd);

/* On 127.0.0.1, or on a unix socket when path is not NULL. */
void scripted_server_start(ScriptedServer *s, const char *unix_path, ServeFn serve);
/* Waits for the end of the dialogue and checks its exit status. */
void scripted_server_finish(ScriptedServer *s);
/* For servers that serve for ever. */
void scripted_server_kill(ScriptedServer *s);

/* For use inside of ServeFn. */
int peer_accept(int listen_fd);
/* Reads up to and including the blank line; what follows is left unread. The text is static, valid until the next call. */
const char *peer_read_head(int fd);
/* Reads exactly size bytes into a static buffer of 4 MiB. */
const char *peer_read_body(int fd, size_t size);
/* Reads a chunked body, returns its content (static) and size. */
const char *peer_read_chunked(int fd, size_t *ret_size);
void peer_send(int fd, const char *text);
void peer_send_bytes(int fd, const void *data, size_t size);
/* Closes with RST instead of FIN. */
void peer_reset(int fd);
/* Waits until the client has closed. */
void peer_wait_close(int fd);
#define peer_check(expr) peer_check_full((expr), #expr, __LINE__)
void peer_check_full(int ok, const char *expr, int line);

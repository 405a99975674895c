/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "agent/manager.h"
#include "common/error.h"

/*
 * A program in a node, connected to somebody outside: `tbnode exec`
 *
 * The engine runs it (its exec API), so that it has the container's namespaces, control groups, capabilities and filters
 * exactly as a program of the container has. The session sits between the engine's connection and the client's, which
 * speaks frames (exec-frame.h):
 *
 *         create -> start -> `started` -> exec_session_attach() -> bytes both ways -> exit status -> `ended`
 *
 * A session holds at most EXEC_BUFFER bytes in each direction: who does not read is not read from. A client that goes away
 * ends its own session only; the program gets SIGHUP then, as from a terminal that hangs up. When the agent ends, programs
 * go on without their clients.
 *
 * A `bare` session has a client that knows nothing of frames: it gets standard output and nothing else, what it sends is standard
 * input, and its end is the connection's. Who starts these has limits of his own.
 *
 * Sessions belong to the manager: they can outlive who asked for them, until the program has been told.
 */

#define EXEC_SESSIONS_MAX 192U /* on the host: other users of the API find connections left */
#define EXEC_NODE_MAX 64U      /* in one node */
#define EXEC_BUFFER (64U * 1024)
#define EXEC_WORDS_MAX 4096U /* of a command, of an environment */

typedef struct ExecSpec {
        char **cmd;
        char **env;
        char *user;    /* NULL: the container's */
        char *workdir; /* NULL: the container's */
        bool tty;
        bool takes_stdin;
        bool bare;              /* the client speaks no frames: outside-ssh.h */
        uint16_t rows, columns; /* 0 = not said */
} ExecSpec;

void exec_spec_done(ExecSpec *s);
#define _cleanup_exec_spec_ _cleanup_(exec_spec_done)
/* {"cmd": [...], "tty", "stdin", "user", "workdir", "env": [...], "rows", "columns"}; others are refused. */
int exec_spec_parse(const json_t *body, ExecSpec *ret, TbError **err) _warn_unused_;

typedef struct ExecCallbacks {
        /* The program runs: a client may be attached. */
        void (*started)(ExecSession *s, void *userdata);
        /* It could not be started (borrowed). The session is gone. */
        void (*failed)(const TbError *err, void *userdata);
        /* Everything was told, or the client went away. The session is gone, and does not use the client's socket. */
        void (*ended)(void *userdata);
        void *userdata;
} ExecCallbacks;

/* Takes the content of *spec. Callbacks come from the loop only. */
int exec_session_start(Node *n, ExecSpec *spec, const ExecCallbacks *callbacks, ExecSession **ret,
        TbError **err) _warn_unused_;
/* `fd` is borrowed until `ended`, `failed` or exec_session_abandon(); `early` was read from it already. */
void exec_session_attach(ExecSession *s, int fd, const void *early, size_t size);
/* Who asked is gone: no more callbacks, the socket is not touched again. */
void exec_session_abandon(ExecSession *s);
/* For the agent's end: all of them, without callbacks. */
void exec_session_free_all(Manager *m);

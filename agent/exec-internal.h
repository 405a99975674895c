/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between exec-session.c (the life of a session) and exec-relay.c (bytes both ways). */

#include "agent/exec-frame.h"
#include "agent/exec-session.h"
#include "common/buffer.h"

#define EXEC_ID_LEN 64U

typedef enum ExecPhase {
        EXEC_CREATE, /* the engine is asked to make it */
        EXEC_START,  /* ... and to run it */
        EXEC_WAIT,   /* it runs; no client yet */
        EXEC_RELAY,  /* bytes both ways */
        EXEC_STATUS, /* its output has ended; the engine is asked for its status */
        EXEC_FLUSH,  /* the client takes what is left, and the end */
        EXEC_HANGUP, /* the client is gone; the engine is asked which process it is, to be told so */
} ExecPhase;

struct ExecSession {
        Manager *manager;
        ExecSession *next;
        ExecPhase phase;
        ExecCallbacks callbacks; /* all NULL: abandoned */
        char node_id[CONTAINER_ID_LEN + 1];
        ProcessIdentity container;
        ExecSpec spec;
        char id[EXEC_ID_LEN + 1]; /* the engine's; "" = not made */

        TbEngineRequest *call;
        TbEngineRequest *resize;
        bool want_resize;
        TbEngineStream *stream;

        int engine_fd;
        int client_fd; /* borrowed */
        sd_event_source *engine_io;
        sd_event_source *client_io;

        /* engine -> client. Without a terminal it comes in frames, too. */
        unsigned char out_header[EXEC_FRAME_HEADER];
        size_t out_header_size;
        uint32_t out_left;
        TbBuffer to_client;

        /* client -> engine */
        unsigned char in_header[EXEC_FRAME_HEADER];
        size_t in_header_size;
        uint32_t in_left;
        unsigned char in_resize[4];
        bool stdin_ended;   /* the client said so */
        bool stdin_is_shut; /* and the engine was told */
        TbBuffer to_engine;
};

/* exec-relay.c: both sockets are there. */
int exec_relay_start(ExecSession *s, const void *early, size_t size, TbError **err) _warn_unused_;
void exec_relay_stop_engine(ExecSession *s);
void exec_relay_stop_client(ExecSession *s);
/* The first output, which came with the engine's answer. */
int exec_relay_take_output(ExecSession *s, const void *data, size_t size, TbError **err) _warn_unused_;
/* Adds a frame for the client; exec_relay_arm() sends it. */
int exec_relay_send(ExecSession *s, ExecFrameType type, const void *data, size_t size, TbError **err)
        _warn_unused_;
/* Does what the sockets allow, and waits for the rest. May free `s`. */
void exec_relay_arm(ExecSession *s);

/* exec-session.c: what the relay saw. */
void exec_output_ended(ExecSession *s);
void exec_client_gone(ExecSession *s);
void exec_flushed(ExecSession *s);
void exec_resized(ExecSession *s, uint16_t rows, uint16_t columns);

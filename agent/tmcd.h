/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/buffer.h"
#include "common/error.h"

/*
 * TMCD, what Emulab's nodes ask their testbed with (docs/node-protocol.md, "Emulab clients"): a request is words separated
 * by blanks, `[VNODEID=..] [PROXYFOR=..] [PRIVKEY=..] [IDKEY=..] [USEUDP=..] [VERSION=N] COMMAND [ARGUMENTS]`; the answer is
 * lines of text, then the end of the connection. Words of that kind are read until the first one that is none: that is the
 * command. The first command of the table whose name the word begins with is meant ("startstatus" stands before
 * "startstat").
 *
 * Who asks is never taken from the request: words that claim it are passed over.
 *
 * This file is pure: parsing, and printing of what it is given.
 */

#define TMCD_PACKET_MAX 0x8000U /* bytes of a request */
#define TMCD_VERSION_DEFAULT 2U
#define TMCD_VERSION_TO_EOF 22U /* clients from here on half-close a TCP connection behind the request */

typedef enum TmcdCommand {
        TMCD_NOTHING, /* known, and there is never anything to say */
        TMCD_NODEID,
        TMCD_STATUS,
        TMCD_IFCONFIG,
        TMCD_ACCOUNTS,
        TMCD_HOSTNAMES,
        TMCD_STARTUPCMD,
        TMCD_STARTSTATUS,
        TMCD_READYCOUNT,
        TMCD_READY,
        TMCD_MOUNTS,
        TMCD_ROUTING,
        TMCD_CREATOR,
        TMCD_STATE,
        TMCD_UPDATE, /* isalive, rusage */
        TMCD_PROGRAMS,
        TMCD_SYNCSERVER,
        TMCD_FULLCONFIG,
        TMCD_FIREWALLINFO,
        TMCD_USERENV,
        _TMCD_COMMAND_MAX,
        _TMCD_COMMAND_INVALID = -EINVAL,
} TmcdCommand;

typedef struct TmcdRequest {
        unsigned version;
        TmcdCommand command;
        const char *name;      /* of the table, static */
        const char *arguments; /* behind the command, borrowed from the request; not terminated */
        size_t arguments_size;
} TmcdRequest;

/* -EINVAL: no version, no such command, a packet beyond TMCD_PACKET_MAX. */
int tmcd_request_parse(const char *data, size_t size, TmcdRequest *ret, TbError **err) _warn_unused_;
/* Is all there that belongs to the request? On a unix socket one read is one request; on TCP clients of version 22 and up
 * mark the end by half-closing, older ones send one packet. */
bool tmcd_request_is_whole(const char *data, size_t size, bool tcp, bool eof);
/* It begins with the tag of a client that goes on in TLS. */
bool tmcd_request_wants_ssl(const char *data, size_t size);
/* The first word of the arguments; false when there is none or it is longer than the buffer. */
bool tmcd_request_argument(const TmcdRequest *r, char *ret, size_t size);

/* What is known about the node that asks. */
typedef struct TmcdFacts {
        const json_t *view;      /* as op `declaration` answers it */
        unsigned ready, total;   /* nodes of the experiment */
        const char *sync_server; /* the node that is told to run it */
        const char *host;        /* this machine's name: where mounts come from */
} TmcdFacts;

/* Appends the answer to a command that only asks; nothing for one that has nothing to say. -EMSGSIZE: the buffer's bound,
 * -ENOMEM. */
int tmcd_print(TmcdCommand command, unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
        _warn_unused_;
/* All commands that a virtual node's full configuration has, each between two lines "*** NAME". */
int tmcd_print_full(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err) _warn_unused_;

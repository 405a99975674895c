/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/buffer.h"
#include "common/error.h"

/*
 * HTTP/1.1 until the protocol is changed (RFC 9110, 7.8)
 *
 * After `101 Switching Protocols` a connection carries bytes both ways: the engine's exec, and the agent's. libcurl is no
 * help there, so this is the little HTTP that comes before: the text of one request, and a reader of one answer's head.
 * Nothing here does input or output; who has the socket feeds what it read.
 *
 * Bounds: HTTP_UPGRADE_HEAD_MAX bytes of head, HTTP_UPGRADE_BODY_MAX of the body of a refusal.
 */

#define HTTP_UPGRADE_HEAD_MAX (16U * 1024)
#define HTTP_UPGRADE_BODY_MAX (64U * 1024)

/* The text of a request that asks for `protocol`. `path` is escaped already, `body` may be NULL. */
int tb_http_upgrade_request(const char *host, const char *path, const char *protocol, const json_t *body,
        TbBuffer *ret, TbError **err) _warn_unused_;

typedef struct TbHttpUpgrade {
        unsigned status; /* 0: the head is not complete */
        bool done;       /* upgraded, or the refusal's body is complete */
        size_t expected; /* of `body`; SIZE_MAX: to the end of the connection */
        TbBuffer head;
        TbBuffer body; /* after 101: the first bytes of the other protocol */
} TbHttpUpgrade;

#define TB_HTTP_UPGRADE_INIT \
        ((TbHttpUpgrade){.head = TB_BUFFER_INIT(HTTP_UPGRADE_HEAD_MAX), .body = TB_BUFFER_INIT(0)})

/* Takes what was read; size 0 is the end of the connection. -EPROTO (kind REMOTE): that is no answer; -ECONNRESET: it ended
 * before its end. */
int tb_http_upgrade_feed(TbHttpUpgrade *u, const void *data, size_t size, TbError **err) _warn_unused_;
void tb_http_upgrade_done(TbHttpUpgrade *u);
#define _cleanup_http_upgrade_ _cleanup_(tb_http_upgrade_done)

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * What POST /v1/nodes/NODE/exec speaks after 101: frames both ways
 *
 * A frame is {type, 0, 0, 0, length as 32 bits big-endian} and that many bytes: the engine's own stream format (Engine API,
 * "Attach to a container", "Stream format") with more types. docs/reference.md describes it for clients.
 */

#define EXEC_PROTOCOL "tbnode-exec"
#define EXEC_FRAME_HEADER 8U
#define EXEC_FRAME_MAX (16U * 1024) /* bytes in a frame of ours; the other side's may be longer */
#define EXEC_END_MAX (64U * 1024)   /* of EXEC_END, which is read as a whole */

typedef enum ExecFrameType {
        EXEC_STDIN = 0,  /* to the program; no bytes: that was all */
        EXEC_STDOUT = 1, /* from it; all output when it has a terminal */
        EXEC_STDERR = 2,
        EXEC_END = 3,    /* the last frame: {"exit": STATUS} or {"error": {...}} as the API has errors */
        EXEC_RESIZE = 4, /* of its terminal: rows and columns, 16 bits big-endian each */
} ExecFrameType;

static inline void exec_frame_header(unsigned char *p, ExecFrameType type, size_t size)
{
        p[0] = (unsigned char) type;
        p[1] = p[2] = p[3] = 0;
        p[4] = (unsigned char) (size >> 24);
        p[5] = (unsigned char) (size >> 16);
        p[6] = (unsigned char) (size >> 8);
        p[7] = (unsigned char) size;
}

static inline uint32_t exec_frame_size(const unsigned char *p)
{
        return (uint32_t) p[4] << 24 | (uint32_t) p[5] << 16 | (uint32_t) p[6] << 8 | p[7];
}

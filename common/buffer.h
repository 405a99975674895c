/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* A growing byte string with an upper bound; `data` is always NUL-terminated once something was appended. */
typedef struct TbBuffer {
        char *data;
        size_t size;      /* bytes used, without the terminator */
        size_t allocated; /* bytes allocated */
        size_t max;       /* refuse to grow beyond this; 0 = SIZE_MAX */
} TbBuffer;

#define TB_BUFFER_INIT(_max) ((TbBuffer){.max = (_max)})

/* Errors: -ENOMEM, -EMSGSIZE when `max` would be exceeded (nothing is appended then). */
int tb_buffer_append(TbBuffer *b, const void *data, size_t size, TbError **err) _warn_unused_;
int tb_buffer_append_str(TbBuffer *b, const char *s, TbError **err) _warn_unused_;
int tb_buffer_printf(TbBuffer *b, TbError **err, const char *fmt, ...) _printf_(3, 4) _warn_unused_;

/* Hands out the bytes (never NULL on success: an empty buffer gives ""); the buffer is empty afterwards.
 * Returns NULL when out of memory. */
char *tb_buffer_steal(TbBuffer *b, size_t *ret_size);

/* Drops the first n bytes (line readers). */
void tb_buffer_consume(TbBuffer *b, size_t n);

void tb_buffer_done(TbBuffer *b);
#define _cleanup_buffer_ _cleanup_(tb_buffer_done)

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"

/* Makes room for n more bytes and the terminator. */
static int buffer_reserve(TbBuffer *b, size_t n, TbError **err)
{
        size_t max = b->max > 0 && b->max < SIZE_MAX ? b->max : SIZE_MAX - 1;
        size_t want, grown;
        char *p;

        if (n > max || b->size > max - n)
                return tb_error_set(err, TB_ERROR_RESOURCE, -EMSGSIZE,
                        "data is longer than the limit of %zu bytes", max);

        want = b->size + n + 1;
        if (want <= b->allocated)
                return 0;

        /* Doubling keeps appending linear; the limit bounds what is allocated as well. */
        grown = b->allocated > SIZE_MAX / 2 ? SIZE_MAX : b->allocated * 2;
        if (grown < 64)
                grown = 64;
        if (grown > max)
                grown = max + 1;
        if (grown < want)
                grown = want;

        p = realloc(b->data, grown);
        if (!p)
                return tb_error_oom(err);
        b->data = p;
        b->allocated = grown;
        return 0;
}

int tb_buffer_append(TbBuffer *b, const void *data, size_t size, TbError **err)
{
        int r;

        r = buffer_reserve(b, size, err);
        if (r < 0)
                return r;

        if (size > 0)
                memcpy(b->data + b->size, data, size);
        b->size += size;
        b->data[b->size] = 0;
        return 0;
}

int tb_buffer_append_str(TbBuffer *b, const char *s, TbError **err)
{
        return tb_buffer_append(b, s, strlen(s), err);
}

int tb_buffer_printf(TbBuffer *b, TbError **err, const char *fmt, ...)
{
        va_list ap;
        int n, r;

        va_start(ap, fmt);
        n = vsnprintf(NULL, 0, fmt, ap);
        va_end(ap);
        if (n < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot format text");

        r = buffer_reserve(b, (size_t) n, err);
        if (r < 0)
                return r;

        va_start(ap, fmt);
        n = vsnprintf(b->data + b->size, (size_t) n + 1, fmt, ap);
        va_end(ap);
        if (n < 0) {
                b->data[b->size] = 0;
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot format text");
        }
        b->size += (size_t) n;
        return 0;
}

char *tb_buffer_steal(TbBuffer *b, size_t *ret_size)
{
        char *data = TAKE_PTR(b->data);
        size_t size = b->size;

        b->size = b->allocated = 0;
        if (!data) {
                data = calloc(1, 1);
                if (!data)
                        return NULL;
        }
        if (ret_size)
                *ret_size = size;
        return data;
}

void tb_buffer_consume(TbBuffer *b, size_t n)
{
        if (n >= b->size)
                n = b->size;
        if (n == 0)
                return;

        b->size -= n;
        memmove(b->data, b->data + n, b->size + 1);
}

void tb_buffer_done(TbBuffer *b)
{
        free(b->data);
        *b = (TbBuffer){.max = b->max};
}

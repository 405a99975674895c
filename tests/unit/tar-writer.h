/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Writes tar archives as tests want them, wrong ones included. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/macro.h"

typedef struct Tar {
        unsigned char *data;
        size_t size;
} Tar;

static inline void tar_donep(Tar *t)
{
        free(t->data);
}
#define _cleanup_tar_ _cleanup_(tar_donep)

static inline unsigned char *tar_append(Tar *t, const void *data, size_t size)
{
        t->data = realloc(t->data, t->size + size + 1);
        if (!t->data)
                abort();
        if (size > 0)
                memcpy(t->data + t->size, data, size);
        t->size += size;
        return t->data + t->size - size;
}

static inline void tar_pad(Tar *t)
{
        static const unsigned char zeros[512];

        (void) tar_append(t, zeros, (512 - t->size % 512) % 512);
}

static inline void tar_set_checksum(unsigned char *block)
{
        unsigned sum = 0;
        char text[8];

        memset(block + 148, ' ', 8);
        for (size_t i = 0; i < 512; i++)
                sum += block[i];
        (void) snprintf(text, sizeof(text), "%06o", sum);
        memcpy(block + 148, text, 7);
}

/* A header block; returns it, for changes before tar_set_checksum(). */
static inline unsigned char *tar_header(
        Tar *t, const char *name, char type, const char *link, size_t size, unsigned mode)
{
        unsigned char block[512] = {};
        char text[32];

        memcpy(block, name, strnlen(name, 100));
        (void) snprintf(text, sizeof(text), "%07o", mode);
        memcpy(block + 100, text, 8);
        memcpy(block + 108, "0000000", 8);
        memcpy(block + 116, "0000000", 8);
        (void) snprintf(text, sizeof(text), "%011zo", size);
        memcpy(block + 124, text, 12);
        memcpy(block + 136, "00000000000", 12);
        block[156] = (unsigned char) type;
        memcpy(block + 157, link, strnlen(link, 100));
        memcpy(block + 257, "ustar\00000", 8);
        tar_set_checksum(block);
        return tar_append(t, block, sizeof(block));
}

static inline void tar_file(Tar *t, const char *name, const char *content, unsigned mode)
{
        (void) tar_header(t, name, '0', "", strlen(content), mode);
        (void) tar_append(t, content, strlen(content));
        tar_pad(t);
}

static inline void tar_dir(Tar *t, const char *name)
{
        (void) tar_header(t, name, '5', "", 0, 0755);
}

static inline void tar_symlink(Tar *t, const char *name, const char *target)
{
        (void) tar_header(t, name, '2', target, 0, 0777);
}

static inline void tar_hardlink(Tar *t, const char *name, const char *target)
{
        (void) tar_header(t, name, '1', target, 0, 0644);
}

/* An extended header of the given type ('x', 'g', 'L', 'K') with these bytes. */
static inline void tar_special(Tar *t, char type, const void *data, size_t size)
{
        (void) tar_header(t, "././@LongLink", type, "", size, 0644);
        (void) tar_append(t, data, size);
        tar_pad(t);
}

static inline void tar_end(Tar *t)
{
        static const unsigned char zeros[1024];

        (void) tar_append(t, zeros, sizeof(zeros));
}

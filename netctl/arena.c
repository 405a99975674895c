/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/arena.h"

#include <stdint.h>
#include <stdlib.h>

#define BLOCK_SIZE (16 * 1024)

struct ArenaBlock {
        ArenaBlock *next;
        size_t used, size;
        max_align_t data[];
};

void arena_done(Arena *a)
{
        while (a->blocks) {
                ArenaBlock *b = a->blocks;
                a->blocks = b->next;
                free(b);
        }
}

void *arena_alloc(Arena *a, size_t n, size_t size)
{
        const size_t align = sizeof(max_align_t);
        ArenaBlock *b = a->blocks;

        if (size > 0 && n > (SIZE_MAX / 2 - BLOCK_SIZE) / size)
                return NULL;
        size_t want = (n * size + align - 1) / align * align;
        if (!b || b->size - b->used < want) {
                size_t room = want > BLOCK_SIZE ? want : BLOCK_SIZE;
                b = calloc(1, sizeof(*b) + room);
                if (!b)
                        return NULL;
                b->size = room;
                b->next = a->blocks;
                a->blocks = b;
        }
        void *p = (char *) b->data + b->used;
        b->used += want;
        return p;
}

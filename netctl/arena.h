/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

/* Memory that is given back all at once. States of interfaces are copied and compared by value; what is too long to lie
 * inside them (rules, programs) lies in the arena of the call that they belong to. */
typedef struct ArenaBlock ArenaBlock;
typedef struct Arena {
        ArenaBlock *blocks;
} Arena;
void arena_done(Arena *a);

/* Zeroed memory for n objects; NULL when out of memory. */
void *arena_alloc(Arena *a, size_t n, size_t size);

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Two parts of copy-blob.c: the ring between a source and an upload, and the trail of hash states behind a source. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/copy.h"

#define RING_SIZE (512U * 1024)
#define STATE_EVERY (4U * 1024 * 1024)

/* ---- the ring ---- */

int copy_ring_put(CopyRing *ring, const char *data, size_t n, TbError **err)
{
        size_t at, first;

        if (n > ring->size -
                        ring->used) { /* only when it is empty: a first piece, or one larger than the ring */
                size_t size = MAX2(n, (size_t) RING_SIZE);
                char *bytes = malloc(size);

                if (!bytes)
                        return tb_error_oom(err);
                free(ring->data);
                ring->data = bytes;
                ring->size = size;
                ring->head_at = 0;
        }
        at = (ring->head_at + ring->used) % ring->size;
        first = MIN2(n, ring->size - at);
        memcpy(ring->data + at, data, first);
        memcpy(ring->data, data + first, n - first);
        ring->used += n;
        return 0;
}

size_t copy_ring_take(CopyRing *ring, char *buf, size_t n)
{
        size_t first = MIN2(n, ring->size - ring->head_at);

        memcpy(buf, ring->data + ring->head_at, first);
        memcpy(buf + first, ring->data, n - first);
        ring->head_at = (ring->head_at + n) % ring->size;
        ring->used -= n;
        return n;
}

void copy_ring_empty(CopyRing *ring)
{
        ring->used = ring->head_at = 0;
}

void copy_ring_done(CopyRing *ring)
{
        free(ring->data);
        *ring = (CopyRing){0};
}

/* ---- the trail ---- */

int copy_trail_add(CopyTrail *t, const void *data, size_t size, TbError **err)
{
        uint64_t before = t->position;
        CopyHashState *s;
        int r = 0;

        if (!t->hasher)
                r = tb_hasher_new(&t->hasher, err);
        if (r >= 0)
                r = tb_hasher_update(t->hasher, data, size, err);
        if (r < 0)
                return r;
        t->position += size;
        if (before / STATE_EVERY == t->position / STATE_EVERY)
                return 0;
        s = t->states + t->n_states++ % COPY_HASH_STATES;
        s->hasher = tb_hasher_free(s->hasher);
        s->position = t->position;
        return tb_hasher_copy(t->hasher, &s->hasher, err);
}

int copy_trail_final(CopyTrail *t, TbDigest *ret, TbError **err)
{
        int r = t->hasher ? 0 : tb_hasher_new(&t->hasher, err);

        return r < 0 ? r : tb_hasher_final(t->hasher, ret, err);
}

int copy_trail_rewind(CopyTrail *t, uint64_t position, uint64_t end, TbError **err)
{
        CopyHashState *best = NULL;
        TbHasher *hasher;
        int r;

        for (size_t i = 0; i < COPY_HASH_STATES; i++)
                if (t->states[i].hasher && t->states[i].position <= position &&
                        t->states[i].position < end && (!best || t->states[i].position > best->position))
                        best = t->states + i;
        if (!best) {
                copy_trail_restart(t);
                copy_trail_forget(t);
                return 0;
        }
        r = tb_hasher_copy(best->hasher, &hasher, err);
        if (r < 0)
                return r;
        tb_hasher_free(t->hasher);
        t->hasher = hasher;
        t->position = best->position;
        return 0;
}

void copy_trail_restart(CopyTrail *t)
{
        t->hasher = tb_hasher_free(t->hasher);
        t->position = 0;
}

void copy_trail_forget(CopyTrail *t)
{
        for (size_t i = 0; i < COPY_HASH_STATES; i++)
                t->states[i].hasher = tb_hasher_free(t->states[i].hasher);
        t->n_states = 0;
}

void copy_trail_done(CopyTrail *t)
{
        copy_trail_restart(t);
        copy_trail_forget(t);
}

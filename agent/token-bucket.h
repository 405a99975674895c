/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/units.h"

/* So many at once, so many a second: what a node may ask of its agent. A bucket of zeros is full. */
typedef struct TokenBucket {
        uint64_t
                used_us; /* until when (CLOCK_MONOTONIC) the tokens that were taken count; the past: all are there */
} TokenBucket;

/* Takes one if there is one. `rate`: per second. */
static inline bool token_bucket_take(TokenBucket *b, unsigned rate, unsigned burst, uint64_t now_us)
{
        uint64_t each = 1000000 / rate, start = b->used_us > now_us ? b->used_us : now_us;

        if (start - now_us > (burst - 1) * each)
                return false;
        b->used_us = start + each;
        return true;
}

/* us until the next one is there; 0 = now. */
static inline uint64_t token_bucket_wait(
        const TokenBucket *b, unsigned rate, unsigned burst, uint64_t now_us)
{
        uint64_t full = (burst - 1) * (uint64_t) (1000000 / rate),
                 ahead = b->used_us > now_us ? b->used_us - now_us : 0;

        return ahead > full ? ahead - full : 0;
}

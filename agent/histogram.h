/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/cleanup.h"

/* Durations in fixed classes, as Prometheus wants them; bounds in ns. */
static const uint64_t histogram_bounds_ns[] = {100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
        25000000, 50000000, 100000000, 250000000, 1000000000, 5000000000};

typedef struct Histogram {
        uint64_t counts[ELEMENTSOF(histogram_bounds_ns) + 1]; /* the last one: above all bounds */
        uint64_t sum_ns;
} Histogram;

static inline void histogram_add(Histogram *h, uint64_t ns)
{
        size_t i = 0;

        while (i < ELEMENTSOF(histogram_bounds_ns) && ns > histogram_bounds_ns[i])
                i++;
        h->counts[i]++;
        h->sum_ns += ns;
}

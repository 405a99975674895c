/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Time in shapes: how long a live change holds, and links that go down and up by themselves. Pure: `now` comes from the
 * caller.
 *
 * All instants are us of CLOCK_BOOTTIME, which goes on while the host sleeps and does not follow when the clock is set. They
 * are saved with their boot and with CLOCK_REALTIME beside them; after another boot what is left is counted by the latter.
 *
 * Nothing here counts edges or ticks: the state at any instant follows from the start, so that an agent that was killed in
 * between comes back to what it should be.
 */

#define SHAPE_FOR_MIN_US UINT64_C(100000)
#define SHAPE_FOR_MAX_US (UINT64_C(30) * 24 * 3600 * 1000000)
/* An edge is a write to the kernel by the agent's one thread. */
#define SHAPE_FLAP_MIN_US UINT64_C(100000)
#define SHAPE_FLAP_MAX_US (UINT64_C(24) * 3600 * 1000000)
#define SHAPE_FLAP_COUNT_MAX 1000000U

/* Down for down_us, up for up_us, and again, `count` times (0: for ever); down_us 0: no flaps. */
typedef struct ShapeFlap {
        uint64_t start_us;
        uint64_t down_us, up_us;
        uint32_t count;
} ShapeFlap;

typedef struct ShapeClock {
        uint64_t boot_us, real_us;
        char boot[33]; /* id */
} ShapeClock;
void shape_clock_now(ShapeClock *ret);
/* CLOCK_BOOTTIME */
uint64_t shape_now_us(void);

/* "30s" and so on, as in tc(8). -EINVAL, -ERANGE, kind CONFIG. */
int shape_for_parse(const char *text, uint64_t *ret_us, TbError **err) _warn_unused_;
/* "DOWN UP [COUNT]"; starts at `now`. */
int shape_flap_parse(const char *text, uint64_t now, ShapeFlap *ret, TbError **err) _warn_unused_;

bool shape_flap_is_down(const ShapeFlap *f, uint64_t now);
/* When it changes next; UINT64_MAX: never again. */
uint64_t shape_flap_next(const ShapeFlap *f, uint64_t now);

/* An instant as {"boot", "boottime_us", "realtime_us"}. */
json_t *shape_instant_to_json(uint64_t boot_us, const ShapeClock *now);
int shape_instant_from_json(const json_t *j, const ShapeClock *now, uint64_t *ret_us, TbError **err)
        _warn_unused_;

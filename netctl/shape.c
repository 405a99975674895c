/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/shape.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/strv.h"

static const char *const distribution_table[] = {
        [SHAPE_UNIFORM] = "uniform",
        [SHAPE_NORMAL] = "normal",
        [SHAPE_PARETO] = "pareto",
        [SHAPE_PARETONORMAL] = "paretonormal",
};
static_assert(ELEMENTSOF(distribution_table) == _SHAPE_DISTRIBUTION_MAX, "one name per distribution");

const char *shape_distribution_to_string(ShapeDistribution d)
{
        return d >= 0 && d < _SHAPE_DISTRIBUTION_MAX ? distribution_table[d] : NULL;
}

ShapeDistribution shape_distribution_from_string(const char *s)
{
        for (int i = 0; i < _SHAPE_DISTRIBUTION_MAX; i++)
                if (tb_streq(s, distribution_table[i]))
                        return (ShapeDistribution) i;
        return _SHAPE_DISTRIBUTION_INVALID;
}

static inline void shape_clear(Shape *s, ShapeField f)
{
        s->set &= ~(UINT32_C(1) << f);
}

static inline void shape_mark(Shape *s, ShapeField f)
{
        s->set |= UINT32_C(1) << f;
}

/* The value of a field as one integer, so that merging, comparing and dropping zeros need no list of their own. */
static uint64_t shape_get(const Shape *s, ShapeField f)
{
        switch (f) {
        case SHAPE_RATE:
                return s->rate_bps;
        case SHAPE_DELAY:
                return s->delay_ns;
        case SHAPE_JITTER:
                return s->jitter_ns;
        case SHAPE_DELAY_CORRELATION:
                return s->delay_correlation;
        case SHAPE_DISTRIBUTION:
                return (uint64_t) s->distribution;
        case SHAPE_LOSS:
                return s->loss;
        case SHAPE_LOSS_CORRELATION:
                return s->loss_correlation;
        case SHAPE_DUPLICATE:
                return s->duplicate;
        case SHAPE_DUPLICATE_CORRELATION:
                return s->duplicate_correlation;
        case SHAPE_CORRUPT:
                return s->corrupt;
        case SHAPE_CORRUPT_CORRELATION:
                return s->corrupt_correlation;
        case SHAPE_REORDER:
                return s->reorder;
        case SHAPE_REORDER_CORRELATION:
                return s->reorder_correlation;
        case SHAPE_GAP:
                return s->gap;
        case SHAPE_LIMIT:
                return s->limit;
        case SHAPE_SEED:
                return s->seed;
        case _SHAPE_FIELD_MAX:
        default:
                return 0;
        }
}

static void shape_put(Shape *s, ShapeField f, uint64_t v)
{
        switch (f) {
        case SHAPE_RATE:
                s->rate_bps = v;
                break;
        case SHAPE_DELAY:
                s->delay_ns = v;
                break;
        case SHAPE_JITTER:
                s->jitter_ns = v;
                break;
        case SHAPE_DELAY_CORRELATION:
                s->delay_correlation = (uint32_t) v;
                break;
        case SHAPE_DISTRIBUTION:
                s->distribution = (ShapeDistribution) v;
                break;
        case SHAPE_LOSS:
                s->loss = (uint32_t) v;
                break;
        case SHAPE_LOSS_CORRELATION:
                s->loss_correlation = (uint32_t) v;
                break;
        case SHAPE_DUPLICATE:
                s->duplicate = (uint32_t) v;
                break;
        case SHAPE_DUPLICATE_CORRELATION:
                s->duplicate_correlation = (uint32_t) v;
                break;
        case SHAPE_CORRUPT:
                s->corrupt = (uint32_t) v;
                break;
        case SHAPE_CORRUPT_CORRELATION:
                s->corrupt_correlation = (uint32_t) v;
                break;
        case SHAPE_REORDER:
                s->reorder = (uint32_t) v;
                break;
        case SHAPE_REORDER_CORRELATION:
                s->reorder_correlation = (uint32_t) v;
                break;
        case SHAPE_GAP:
                s->gap = (uint32_t) v;
                break;
        case SHAPE_LIMIT:
                s->limit = (uint32_t) v;
                break;
        case SHAPE_SEED:
                s->seed = v;
                break;
        case _SHAPE_FIELD_MAX:
        default:
                break;
        }
        shape_mark(s, f);
}

/* Seed 0 is a seed like any other; everything else means "none of it" when zero. */
static bool shape_zero_is_none(ShapeField f)
{
        return f != SHAPE_SEED;
}

static void shape_drop_zeros(Shape *s)
{
        for (ShapeField f = 0; f < _SHAPE_FIELD_MAX; f++) {
                if (!shape_has(s, f)) {
                        shape_put(s, f, 0);
                        shape_clear(s, f);
                } else if (shape_zero_is_none(f) && shape_get(s, f) == 0)
                        shape_clear(s, f);
        }
}

void shape_merge(const Shape *base, const Shape *change, Shape *ret)
{
        Shape out = *base;

        for (ShapeField f = 0; f < _SHAPE_FIELD_MAX; f++)
                if (shape_has(change, f))
                        shape_put(&out, f, shape_get(change, f));
        shape_drop_zeros(&out);
        *ret = out;
}

bool shape_equal(const Shape *a, const Shape *b)
{
        if (a->set != b->set)
                return false;
        for (ShapeField f = 0; f < _SHAPE_FIELD_MAX; f++)
                if (shape_has(a, f) && shape_get(a, f) != shape_get(b, f))
                        return false;
        return true;
}

bool shape_needs_netem(const Shape *s)
{
        static const ShapeField netem_fields[] = {SHAPE_DELAY, SHAPE_JITTER, SHAPE_LOSS, SHAPE_DUPLICATE,
                SHAPE_CORRUPT, SHAPE_REORDER, SHAPE_SEED};

        for (size_t i = 0; i < ELEMENTSOF(netem_fields); i++)
                if (shape_has(s, netem_fields[i]) &&
                        (netem_fields[i] == SHAPE_SEED || shape_get(s, netem_fields[i]) > 0))
                        return true;
        return false;
}

uint32_t shape_effective_limit(const Shape *s, uint32_t mtu)
{
        enum {
                QUEUE_MIN = 50,
                QUEUE_MAX = 10000,
                QUEUE_UNLIMITED = 1000,
                QUEUE_MS = 50,
        };
        const uint64_t assumed_rate = UINT64_C(1000000000);

        if (shape_has(s, SHAPE_LIMIT) && s->limit > 0)
                return s->limit;

        bool limited = shape_has(s, SHAPE_RATE) && s->rate_bps > 0;
        uint64_t rate = limited ? s->rate_bps : assumed_rate;
        uint64_t frame_bits = ((uint64_t) (mtu >= 68 ? mtu : 1500) + 14) * 8;
        uint64_t delay = (shape_has(s, SHAPE_DELAY) ? s->delay_ns : 0) +
                (shape_has(s, SHAPE_JITTER) ? s->jitter_ns : 0);

        /* 128 bits: 40 Gbit/s times an hour in ns does not fit into 64. */
        unsigned __int128 flight = (unsigned __int128) rate * delay / UINT64_C(1000000000) / frame_bits;
        unsigned __int128 limit = 2 * (flight + (delay > 0 ? 1 : 0));

        uint64_t queue = QUEUE_UNLIMITED;
        if (limited) {
                queue = rate * QUEUE_MS / 1000 / frame_bits;
                queue = queue < QUEUE_MIN ? QUEUE_MIN : queue > QUEUE_MAX ? QUEUE_MAX : queue;
        }
        limit += queue;
        return limit > SHAPE_LIMIT_MAX ? SHAPE_LIMIT_MAX : (uint32_t) limit;
}

int shape_validate(const Shape *s, const char *direction, TbError **err)
{
        static const struct {
                ShapeField what, needs;
                const char *message;
        } rules[] = {
                {SHAPE_JITTER, SHAPE_DELAY, "jitter needs a delay to vary: add 'delay TIME JITTER'"},
                {SHAPE_DISTRIBUTION, SHAPE_JITTER, "'distribution' needs a jitter: add 'delay TIME JITTER'"},
                {SHAPE_DELAY_CORRELATION, SHAPE_JITTER,
                        "a delay correlation needs a jitter: add 'delay TIME JITTER CORRELATION'"},
                {SHAPE_LOSS_CORRELATION, SHAPE_LOSS, "a loss correlation needs a loss"},
                {SHAPE_DUPLICATE_CORRELATION, SHAPE_DUPLICATE, "a duplicate correlation needs 'duplicate'"},
                {SHAPE_CORRUPT_CORRELATION, SHAPE_CORRUPT, "a corrupt correlation needs 'corrupt'"},
                {SHAPE_REORDER_CORRELATION, SHAPE_REORDER, "a reorder correlation needs 'reorder'"},
                {SHAPE_REORDER, SHAPE_DELAY,
                        "'reorder' needs a delay (reordered packets are those that skip it): add 'delay "
                        "TIME'"},
                {SHAPE_GAP, SHAPE_REORDER, "'gap' needs 'reorder PERCENT'"},
        };

        for (size_t i = 0; i < ELEMENTSOF(rules); i++)
                if (shape_has(s, rules[i].what) && shape_get(s, rules[i].what) > 0 &&
                        !(shape_has(s, rules[i].needs) && shape_get(s, rules[i].needs) > 0))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "bad shape (direction %s): %s",
                                direction, rules[i].message);
        return 0;
}

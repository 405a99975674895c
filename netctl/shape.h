/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * A shape: what ONE direction of ONE interface does to packets. Times are ns, rates bit/s, probabilities and
 * correlations units of 1/2^32 (100% is UINT32_MAX, as netem takes them), all exact end to end.
 *
 * A shape knows which of its fields are set, so that the same struct serves as a complete description and as
 * a change ("set changes only what it names"). In a change a value of zero takes the property away; a
 * complete (merged) shape never holds a zero. "up" is from the node, "down" is to the node. Delays are
 * one-way.
 *
 * SPEC, the text form (words and units of tc(8), tc-netem(8)), words separated by white space:
 *
 *   spec       := { item | "up" | "down" }          "up"/"down" hold for the items behind them; before the
 * first of them an item is for both directions item       := "rate" RATE | "delay" TIME [JITTER
 * [CORRELATION]] | "distribution" uniform | normal | pareto | paretonormal | "loss" ["random"] PERCENT
 * [CORRELATION] | "duplicate" PERCENT [CORRELATION] | "corrupt" PERCENT [CORRELATION] | "reorder" PERCENT
 * [CORRELATION] ["gap" N] | "gap" N | "limit" PACKETS                   the longest queue, delay line
 * included | "seed" NUMBER                     of netem's random numbers (Linux 6.6 or later)
 *
 * Example: "delay 20ms 2ms distribution normal down rate 10mbit up rate 1mbit loss 1%".
 */

typedef enum ShapeField {
        SHAPE_RATE,
        SHAPE_DELAY,
        SHAPE_JITTER,
        SHAPE_DELAY_CORRELATION,
        SHAPE_DISTRIBUTION,
        SHAPE_LOSS,
        SHAPE_LOSS_CORRELATION,
        SHAPE_DUPLICATE,
        SHAPE_DUPLICATE_CORRELATION,
        SHAPE_CORRUPT,
        SHAPE_CORRUPT_CORRELATION,
        SHAPE_REORDER,
        SHAPE_REORDER_CORRELATION,
        SHAPE_GAP,
        SHAPE_LIMIT,
        SHAPE_SEED,
        _SHAPE_FIELD_MAX,
} ShapeField;

typedef enum ShapeDistribution {
        SHAPE_UNIFORM, /* what netem does without a table; the default */
        SHAPE_NORMAL,
        SHAPE_PARETO,
        SHAPE_PARETONORMAL,
        _SHAPE_DISTRIBUTION_MAX,
        _SHAPE_DISTRIBUTION_INVALID = -EINVAL,
} ShapeDistribution;

const char *shape_distribution_to_string(ShapeDistribution d);
ShapeDistribution shape_distribution_from_string(const char *s);

typedef struct Shape {
        uint32_t set; /* bits 1 << SHAPE_* */

        uint64_t rate_bps; /* bit/s of layer 2 frames (Ethernet header included, as HTB counts them) */
        uint64_t delay_ns;
        uint64_t jitter_ns;
        uint64_t seed;
        uint32_t delay_correlation;
        uint32_t loss, loss_correlation;
        uint32_t duplicate, duplicate_correlation;
        uint32_t corrupt, corrupt_correlation;
        uint32_t reorder, reorder_correlation;
        uint32_t gap;
        uint32_t limit; /* packets */
        ShapeDistribution distribution;
} Shape;

/* Limits of SPEC. HTB works from 8 bit/s, but below 1 kbit/s one frame takes longer than a TCP time-out;
 * netem keeps jitter in 32 signed bits of ns (net/sched/sch_netem.c, tabledist()). */
#define SHAPE_RATE_MIN UINT64_C(1000)
#define SHAPE_RATE_MAX UINT64_C(40000000000)
#define SHAPE_DELAY_MAX UINT64_C(3600000000000)
#define SHAPE_JITTER_MAX UINT64_C(2147483647)
#define SHAPE_LIMIT_MAX UINT32_C(10000000)
#define SHAPE_GAP_MAX UINT32_C(1000000)
/* The longest SPEC that is read (a label comes from anybody who can start containers). */
#define SHAPE_SPEC_MAX 1024
/* Room for any printed pair of shapes. */
#define SHAPE_TEXT_MAX 1536

typedef struct ShapePair {
        Shape up;
        Shape down;
} ShapePair;

static inline bool shape_has(const Shape *s, ShapeField f)
{
        return (s->set & (UINT32_C(1) << f)) != 0;
}

/* Nothing set: every packet passes at once. */
static inline bool shape_is_empty(const Shape *s)
{
        return s->set == 0;
}

/*
 * Reads a SPEC. Checks words, units and ranges; what the properties demand of each other is
 * shape_validate()'s business, because a change may lean on what is there already. An empty SPEC is an
 * error, and so is a property named twice for the same direction. Errors: TB_ERROR_CONFIG -EINVAL or
 * -ERANGE; the message names the offending word.
 */
int shape_spec_parse(const char *spec, ShapePair *ret, TbError **err) _warn_unused_;

/* Puts what `change` sets over `base`; zeros take away, and what hung on it (jitter without delay, ...) goes
 * with it only if the change said so: otherwise shape_validate() of the result complains. The result holds
 * no zeros. */
void shape_merge(const Shape *base, const Shape *change, Shape *ret);

/* Is this complete shape one that a kernel can do? `direction` ("up", "down") is for the message.
 * TB_ERROR_CONFIG -EINVAL: jitter without delay, reorder without delay, distribution or correlation without
 * what it is of, gap without reorder. */
int shape_validate(const Shape *s, const char *direction, TbError **err) _warn_unused_;

/* Parse + drop zeros + validate both directions: what a label or a configuration file holds. */
int shape_spec_parse_complete(const char *spec, ShapePair *ret, TbError **err) _warn_unused_;

/* The canonical text: fields in a fixed order, shortest units; parses back to the same shape. "" when
 * nothing is set. Returns buf. */
const char *shape_print(const Shape *s, char buf[static SHAPE_TEXT_MAX]);
/* Both: what is common to the directions is not repeated when they are equal, else "up ... down ...". */
const char *shape_pair_print(const ShapePair *p, char buf[static SHAPE_TEXT_MAX]);

bool shape_equal(const Shape *a, const Shape *b);

/* Must this be done by netem (rather than by HTB and a plain queue)? */
bool shape_needs_netem(const Shape *s);

/*
 * The queue limit in packets that this shape gets: the user's, or twice what is on its way during delay +
 * jitter at the shape's rate (1 Gbit/s assumed when it has none) in full frames, plus a queue of 50 ms at
 * the rate (at least 50, at most 10000 frames; 1000 without a rate). `mtu` is that of the interface. netem
 * holds the delay line and the backlog of the shaper in one queue, hence one number (reference: tc-netem(8);
 * pitfalls P1, P2).
 */
uint32_t shape_effective_limit(const Shape *s, uint32_t mtu);

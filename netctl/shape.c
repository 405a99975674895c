/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/shape.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/strv.h"

/* Where a field lives. So that merging, comparing and dropping zeros need no list of their own. */
static const struct {
        size_t offset, size;
} field_table[] = {
#define FIELD(member)                                                     \
        {                                                                 \
                offsetof(Shape, member), sizeof(((Shape *) NULL)->member) \
        }
        [SHAPE_LINK] = FIELD(link_down),
        [SHAPE_RATE] = FIELD(rate_bps),
        [SHAPE_OVERHEAD] = FIELD(overhead),
        [SHAPE_MPU] = FIELD(mpu),
        [SHAPE_LINKLAYER] = FIELD(linklayer),
        [SHAPE_BURST] = FIELD(burst),
        [SHAPE_QUANTUM] = FIELD(quantum),
        [SHAPE_DELAY] = FIELD(delay_ns),
        [SHAPE_JITTER] = FIELD(jitter_ns),
        [SHAPE_DELAY_CORRELATION] = FIELD(delay_correlation),
        [SHAPE_DISTRIBUTION] = FIELD(distribution),
        [SHAPE_LOSS] = FIELD(loss),
        [SHAPE_LOSS_CORRELATION] = FIELD(loss_correlation),
        [SHAPE_LOSS_STATE] = FIELD(loss_state),
        [SHAPE_LOSS_GEMODEL] = FIELD(loss_gemodel),
        [SHAPE_ECN] = FIELD(ecn),
        [SHAPE_DUPLICATE] = FIELD(duplicate),
        [SHAPE_DUPLICATE_CORRELATION] = FIELD(duplicate_correlation),
        [SHAPE_CORRUPT] = FIELD(corrupt),
        [SHAPE_CORRUPT_CORRELATION] = FIELD(corrupt_correlation),
        [SHAPE_REORDER] = FIELD(reorder),
        [SHAPE_REORDER_CORRELATION] = FIELD(reorder_correlation),
        [SHAPE_GAP] = FIELD(gap),
        [SHAPE_SLOT] = FIELD(slot),
        [SHAPE_SLOT_DISTRIBUTION] = FIELD(slot_distribution),
        [SHAPE_SLOT_PACKETS] = FIELD(slot_packets),
        [SHAPE_SLOT_BYTES] = FIELD(slot_bytes),
        [SHAPE_LIMIT] = FIELD(limit),
        [SHAPE_LIMIT_BYTES] = FIELD(limit_bytes),
        [SHAPE_QUEUE] = FIELD(queue),
        [SHAPE_RED_MIN] = FIELD(red_min),
        [SHAPE_RED_MAX] = FIELD(red_max),
        [SHAPE_RED_PROBABILITY] = FIELD(red_probability),
        [SHAPE_RED_HARDDROP] = FIELD(red_harddrop),
        [SHAPE_RED_ADAPTIVE] = FIELD(red_adaptive),
        [SHAPE_SEED] = FIELD(seed),
        [SHAPE_OFFLOAD] = FIELD(offload),
#undef FIELD
};
static_assert(ELEMENTSOF(field_table) == _SHAPE_FIELD_MAX, "one place per field");
static_assert(_SHAPE_FIELD_MAX <= 64, "Shape.set has a bit per field");

#define BIT(f) (UINT64_C(1) << (f))

/* Naming one of `members` takes the others and what hangs on them away. */
static const struct {
        uint64_t members, dependents;
} alternatives[] = {
        {BIT(SHAPE_LOSS) | BIT(SHAPE_LOSS_STATE) | BIT(SHAPE_LOSS_GEMODEL), BIT(SHAPE_LOSS_CORRELATION)},
        {BIT(SHAPE_SLOT) | BIT(SHAPE_SLOT_DISTRIBUTION), 0},
        {BIT(SHAPE_LIMIT) | BIT(SHAPE_LIMIT_BYTES), 0},
};

uint64_t shape_alternatives(ShapeField f)
{
        for (size_t i = 0; i < ELEMENTSOF(alternatives); i++)
                if (alternatives[i].members & BIT(f))
                        return alternatives[i].members;
        return BIT(f);
}

bool shape_name_set(ShapeName *n, const char *text)
{
        const char *name = tb_startswith(text, "file:");
        size_t length;

        if (!name)
                name = text;
        length = strlen(name);
        if (length == 0 || strlen(text) >= sizeof(n->text) || name[0] == '.')
                return false;
        for (size_t i = 0; i < length; i++)
                if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') ||
                            (name[i] >= '0' && name[i] <= '9') || strchr("_-.", name[i])))
                        return false;
        *n = (ShapeName){};
        if (!tb_streq(text, "uniform"))
                memcpy(n->text, text, strlen(text));
        return true;
}

static bool field_is_zero(const Shape *s, ShapeField f)
{
        const uint8_t *p = (const uint8_t *) s + field_table[f].offset;

        for (size_t i = 0; i < field_table[f].size; i++)
                if (p[i] != 0)
                        return false;
        return true;
}

/* Set, and to something. */
static bool shape_holds(const Shape *s, ShapeField f)
{
        return shape_has(s, f) && (f == SHAPE_SEED || !field_is_zero(s, f));
}

/* Seed 0 is a seed like any other; everything else means "none of it" when zero. */
static void shape_drop_zeros(Shape *s)
{
        for (ShapeField f = 0; f < _SHAPE_FIELD_MAX; f++)
                if (!shape_holds(s, f)) {
                        memset((uint8_t *) s + field_table[f].offset, 0, field_table[f].size);
                        s->set &= ~BIT(f);
                }
}

void shape_merge(const Shape *base, const Shape *change, Shape *ret)
{
        Shape out = *base;

        for (size_t i = 0; i < ELEMENTSOF(alternatives); i++)
                if ((change->set & alternatives[i].members) != 0 &&
                        (change->set & out.set & alternatives[i].members) == 0)
                        out.set &= ~(alternatives[i].members | alternatives[i].dependents);
        for (ShapeField f = 0; f < _SHAPE_FIELD_MAX; f++)
                if (shape_has(change, f)) {
                        memcpy((uint8_t *) &out + field_table[f].offset,
                                (const uint8_t *) change + field_table[f].offset, field_table[f].size);
                        out.set |= BIT(f);
                }
        shape_drop_zeros(&out);
        *ret = out;
}

bool shape_equal(const Shape *a, const Shape *b)
{
        if (a->set != b->set)
                return false;
        for (ShapeField f = 0; f < _SHAPE_FIELD_MAX; f++)
                if (shape_has(a, f) &&
                        memcmp((const uint8_t *) a + field_table[f].offset,
                                (const uint8_t *) b + field_table[f].offset, field_table[f].size) != 0)
                        return false;
        return true;
}

static bool holds_any(const Shape *s, const ShapeField *fields, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (shape_holds(s, fields[i]))
                        return true;
        return false;
}

bool shape_needs_netem(const Shape *s)
{
        static const ShapeField fields[] = {SHAPE_DELAY, SHAPE_JITTER, SHAPE_LOSS, SHAPE_LOSS_STATE,
                SHAPE_LOSS_GEMODEL, SHAPE_DUPLICATE, SHAPE_CORRUPT, SHAPE_REORDER, SHAPE_SLOT,
                SHAPE_SLOT_DISTRIBUTION, SHAPE_SEED};

        return holds_any(s, fields, ELEMENTSOF(fields));
}

bool shape_counts_packets(const Shape *s)
{
        static const ShapeField fields[] = {SHAPE_LOSS, SHAPE_LOSS_STATE, SHAPE_LOSS_GEMODEL,
                SHAPE_DUPLICATE, SHAPE_CORRUPT, SHAPE_REORDER, SHAPE_SLOT, SHAPE_SLOT_DISTRIBUTION,
                SHAPE_LIMIT, SHAPE_LIMIT_BYTES, SHAPE_QUEUE, SHAPE_OVERHEAD, SHAPE_MPU, SHAPE_LINKLAYER};
        const uint64_t superframe_bits = 65536 * 8;

        return holds_any(s, fields, ELEMENTSOF(fields)) ||
                (shape_holds(s, SHAPE_RATE) && s->rate_bps < superframe_bits * 1000 / SHAPE_SUPERFRAME_MS);
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

uint32_t shape_effective_limit_bytes(const Shape *s, uint32_t mtu)
{
        enum {
                QUEUE_FRAMES_MIN = 50,
                QUEUE_MS = 50,
        };
        uint64_t frame = (uint64_t) (mtu >= 68 ? mtu : 1500) + 14;
        uint64_t queue = shape_has(s, SHAPE_RATE) ? s->rate_bps / 8 * QUEUE_MS / 1000 : 0;

        if (shape_holds(s, SHAPE_LIMIT_BYTES))
                return s->limit_bytes;
        if (queue < frame * QUEUE_FRAMES_MIN)
                queue = frame * QUEUE_FRAMES_MIN;
        return queue > SHAPE_BYTES_MAX ? SHAPE_BYTES_MAX : (uint32_t) queue;
}

#define LOSSES (BIT(SHAPE_LOSS) | BIT(SHAPE_LOSS_STATE) | BIT(SHAPE_LOSS_GEMODEL))
#define SLOTS (BIT(SHAPE_SLOT) | BIT(SHAPE_SLOT_DISTRIBUTION))
/* What to do about two stages in one direction: netem has one queue, for what is on its way and what waits. */
#define SPLIT                                                                                           \
        "the kernel has one queue for both, and would count packets that are on their way as waiting; " \
        "give rate and "                                                                                \
        "queue at the sender's interface (up) and delay and loss at the receiver's (down)"

static int check_red(const Shape *s, const char *direction, TbError **err)
{
        const char *why = NULL;

        if (!shape_holds(s, SHAPE_QUEUE))
                return 0;
        if (!shape_holds(s, SHAPE_RATE))
                why = "'queue red' needs a rate: without one nothing ever waits; add 'rate RATE'";
        else if (shape_holds(s, SHAPE_LIMIT))
                why = "'queue red' counts bytes; give its limit with a unit, such as 'limit 64kb'";
        else if (shape_needs_netem(s))
                why = "'queue red' cannot stand with delay, loss or other properties of netem: " SPLIT;
        else if (shape_holds(s, SHAPE_RED_MIN) && shape_holds(s, SHAPE_RED_MAX) && s->red_min >= s->red_max)
                why = "'min' of 'queue red' must be below its 'max'";
        else if (shape_holds(s, SHAPE_RED_MAX) && shape_holds(s, SHAPE_LIMIT_BYTES) &&
                s->red_max > s->limit_bytes)
                why = "'max' of 'queue red' must not be above 'limit'";
        return why
                ? tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "bad shape (direction %s): %s", direction, why)
                : 0;
}

int shape_validate(const Shape *s, const char *direction, TbError **err)
{
        static const struct {
                ShapeField what;
                uint64_t needs; /* one of these */
                const char *message;
        } rules[] = {
                {SHAPE_JITTER, BIT(SHAPE_DELAY), "jitter needs a delay to vary: add 'delay TIME JITTER'"},
                {SHAPE_DISTRIBUTION, BIT(SHAPE_JITTER),
                        "'distribution' needs a jitter: add 'delay TIME JITTER'"},
                {SHAPE_DELAY_CORRELATION, BIT(SHAPE_JITTER),
                        "a delay correlation needs a jitter: add 'delay TIME JITTER CORRELATION'"},
                {SHAPE_LOSS_CORRELATION, BIT(SHAPE_LOSS), "a loss correlation needs a loss"},
                {SHAPE_ECN, LOSSES | BIT(SHAPE_QUEUE),
                        "'ecn' marks what would be lost: add 'loss PERCENT' or 'queue red'"},
                {SHAPE_DUPLICATE_CORRELATION, BIT(SHAPE_DUPLICATE),
                        "a duplicate correlation needs 'duplicate'"},
                {SHAPE_CORRUPT_CORRELATION, BIT(SHAPE_CORRUPT), "a corrupt correlation needs 'corrupt'"},
                {SHAPE_REORDER_CORRELATION, BIT(SHAPE_REORDER), "a reorder correlation needs 'reorder'"},
                {SHAPE_REORDER, BIT(SHAPE_DELAY),
                        "'reorder' needs a delay (reordered packets are those that skip it): add 'delay "
                        "TIME'"},
                {SHAPE_GAP, BIT(SHAPE_REORDER), "'gap' needs 'reorder PERCENT'"},
                {SHAPE_SLOT_PACKETS, SLOTS, "'packets' of a slot needs 'slot MIN MAX'"},
                {SHAPE_SLOT_BYTES, SLOTS, "'bytes' of a slot needs 'slot MIN MAX'"},
                {SHAPE_OVERHEAD, BIT(SHAPE_RATE), "'overhead' needs a rate: add 'rate RATE'"},
                {SHAPE_MPU, BIT(SHAPE_RATE), "'mpu' needs a rate: add 'rate RATE'"},
                {SHAPE_LINKLAYER, BIT(SHAPE_RATE), "'linklayer' needs a rate: add 'rate RATE'"},
                {SHAPE_BURST, BIT(SHAPE_RATE), "'burst' needs a rate: add 'rate RATE'"},
                {SHAPE_QUANTUM, BIT(SHAPE_RATE), "'quantum' needs a rate: add 'rate RATE'"},
                {SHAPE_RED_MIN, BIT(SHAPE_QUEUE), "'min' needs 'queue red'"},
                {SHAPE_RED_MAX, BIT(SHAPE_QUEUE), "'max' needs 'queue red'"},
                {SHAPE_RED_PROBABILITY, BIT(SHAPE_QUEUE), "'probability' needs 'queue red'"},
                {SHAPE_RED_HARDDROP, BIT(SHAPE_QUEUE), "'harddrop' needs 'queue red'"},
                {SHAPE_RED_ADAPTIVE, BIT(SHAPE_QUEUE), "'adaptive' needs 'queue red'"},
        };

        for (size_t i = 0; i < ELEMENTSOF(rules); i++) {
                bool met = !shape_holds(s, rules[i].what);
                for (ShapeField f = 0; !met && f < _SHAPE_FIELD_MAX; f++)
                        met = (rules[i].needs & BIT(f)) != 0 && shape_holds(s, f);
                if (!met)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "bad shape (direction %s): %s",
                                direction, rules[i].message);
        }
        if (shape_holds(s, SHAPE_SLOT) && s->slot[0] > s->slot[1])
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "bad shape (direction %s): the first time of 'slot' must not be above the second",
                        direction);
        if (shape_holds(s, SHAPE_LIMIT_BYTES) && shape_needs_netem(s))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "bad shape (direction %s): a limit in bytes cannot stand with delay, loss or other "
                        "properties of netem, whose limit is in packets: " SPLIT,
                        direction);
        return check_red(s, direction, err);
}

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
 * SPEC, the text form (words and units of tc(8), tc-netem(8), tc-htb(8), tc-red(8)), words separated by white space:
 *
 *   spec := { item | "up" | "down" }    "up"/"down" hold for the items behind them; before the first of them
 *                                       an item is for both directions
 *   item :=
 *     "rate" RATE [OVERHEAD [48 5]]     of layer 2 frames; the numbers are netem's way to say "overhead OVERHEAD"
 *                                       and "linklayer atm"
 *     "overhead" BYTES  "mpu" BYTES  "linklayer" ethernet | atm | adsl      how the rate counts a frame
 *     "burst" BYTES  "quantum" BYTES    of the shaper, instead of what follows from rate and MTU
 *     "delay" TIME [JITTER [CORRELATION]]
 *     "distribution" uniform | normal | pareto | paretonormal | TABLE | file:TABLE       of the jitter
 *     "loss" ["random"] PERCENT [CORRELATION]
 *     "loss" "state" P13 [P31 [P32 [P23 [P14]]]]
 *     "loss" "gemodel" P [R [1-H [1-K]]]
 *     "ecn"                             mark instead of drop, where packets can be marked
 *     "duplicate" PERCENT [CORRELATION]  "corrupt" PERCENT [CORRELATION]
 *     "reorder" PERCENT [CORRELATION] ["gap" N]  "gap" N
 *     "slot" MIN [MAX] ["packets" N] ["bytes" N]
 *     "slot" "distribution" NAME DELAY JITTER ["packets" N] ["bytes" N]
 *     "limit" PACKETS | BYTES           the longest queue, delay line included; bytes have a unit: 64kb, 9000b
 *     "queue" "fifo" | "red" ["min" BYTES] ["max" BYTES] ["probability" PERCENT] ["harddrop"] ["adaptive"]
 *     "seed" NUMBER                     of netem's random numbers (Linux 6.6 or later)
 *     "link" "down" | "up"              down: nothing passes, all else is kept for when it is up again
 *     "offload" on | off | auto         may the node's interface send frames above its MTU (TSO, GSO)?
 *
 * "ecn", "harddrop" and "adaptive" take "off" behind them to be taken away. Example:
 * "delay 20ms 2ms distribution normal down rate 10mbit up rate 1mbit loss 1%".
 *
 * Rates are HTB's, never netem's own: HTB keeps the average of any mix of frame sizes exactly, changes in place, and its
 * overhead, mpu and ATM cells count per frame before the bucket is asked. netem's rate sends each frame late by its own
 * length instead, on top of the delay, forgets what is queued when delays differ (jitter), and packs frames where timers are
 * late.
 */

typedef enum ShapeField {
        SHAPE_LINK,
        SHAPE_RATE,
        SHAPE_OVERHEAD,
        SHAPE_MPU,
        SHAPE_LINKLAYER,
        SHAPE_BURST,
        SHAPE_QUANTUM,
        SHAPE_DELAY,
        SHAPE_JITTER,
        SHAPE_DELAY_CORRELATION,
        SHAPE_DISTRIBUTION,
        SHAPE_LOSS,
        SHAPE_LOSS_CORRELATION,
        SHAPE_LOSS_STATE,
        SHAPE_LOSS_GEMODEL,
        SHAPE_ECN,
        SHAPE_DUPLICATE,
        SHAPE_DUPLICATE_CORRELATION,
        SHAPE_CORRUPT,
        SHAPE_CORRUPT_CORRELATION,
        SHAPE_REORDER,
        SHAPE_REORDER_CORRELATION,
        SHAPE_GAP,
        SHAPE_SLOT,              /* slot_min, slot_max */
        SHAPE_SLOT_DISTRIBUTION, /* slot_distribution, slot_delay, slot_jitter */
        SHAPE_SLOT_PACKETS,
        SHAPE_SLOT_BYTES,
        SHAPE_LIMIT,
        SHAPE_LIMIT_BYTES,
        SHAPE_QUEUE,
        SHAPE_RED_MIN,
        SHAPE_RED_MAX,
        SHAPE_RED_PROBABILITY,
        SHAPE_RED_HARDDROP,
        SHAPE_RED_ADAPTIVE,
        SHAPE_SEED,
        SHAPE_OFFLOAD,
        _SHAPE_FIELD_MAX,
} ShapeField;

/* A distribution by name: one of ours (normal, pareto, paretonormal) or a table's file (netem-dist.h), "" is uniform. Filled
 * up with zeros, so that names compare as bytes. */
#define SHAPE_NAME_MAX 32
typedef struct ShapeName {
        char text[SHAPE_NAME_MAX];
} ShapeName;
/* Letters, digits, "_", "-", "." (not first), with or without "file:" in front; "uniform" gives "". */
bool shape_name_set(ShapeName *n, const char *text);

typedef enum ShapeLinklayer {
        SHAPE_ETHERNET,
        SHAPE_ATM, /* 48 bytes in cells of 53 */
        _SHAPE_LINKLAYER_MAX,
} ShapeLinklayer;

typedef enum ShapeQueue {
        SHAPE_FIFO,
        SHAPE_RED,
        _SHAPE_QUEUE_MAX,
} ShapeQueue;

typedef enum ShapeOffload {
        SHAPE_OFFLOAD_AUTO,
        SHAPE_OFFLOAD_ON,
        SHAPE_OFFLOAD_OFF,
        _SHAPE_OFFLOAD_MAX,
} ShapeOffload;

/* The four-state model's P13 P31 P32 P23 P14, in the order of tc's words. */
enum {
        SHAPE_P13,
        SHAPE_P31,
        SHAPE_P32,
        SHAPE_P23,
        SHAPE_P14,
        _SHAPE_STATE_MAX,
};
/* Gilbert-Elliott: P R 1-H 1-K. */
enum {
        SHAPE_GE_P,
        SHAPE_GE_R,
        SHAPE_GE_1H,
        SHAPE_GE_1K,
        _SHAPE_GE_MAX,
};

/* Every field is plain data without padding between what belongs to one ShapeField: they are merged and compared as bytes
 * (the table is in shape.c). */
typedef struct Shape {
        uint64_t set; /* bits 1 << SHAPE_* */

        uint64_t rate_bps; /* bit/s of layer 2 frames (Ethernet header included, as HTB counts them) */
        uint64_t delay_ns;
        uint64_t jitter_ns;
        uint64_t seed;
        uint64_t slot[2]; /* min, max: ns */
        struct {
                uint64_t delay_ns, jitter_ns;
                ShapeName name;
        } slot_distribution;
        ShapeName distribution;
        uint32_t link_down;      /* 1 */
        uint32_t overhead, mpu;  /* bytes per frame */
        uint32_t linklayer;      /* ShapeLinklayer */
        uint32_t burst, quantum; /* bytes */
        uint32_t delay_correlation;
        uint32_t loss, loss_correlation;
        uint32_t loss_state[_SHAPE_STATE_MAX];
        uint32_t loss_gemodel[_SHAPE_GE_MAX];
        uint32_t ecn; /* 1 */
        uint32_t duplicate, duplicate_correlation;
        uint32_t corrupt, corrupt_correlation;
        uint32_t reorder, reorder_correlation;
        uint32_t gap;
        uint32_t slot_packets, slot_bytes;
        uint32_t limit; /* packets */
        uint32_t limit_bytes;
        uint32_t queue;            /* ShapeQueue */
        uint32_t red_min, red_max; /* bytes */
        uint32_t red_probability;
        uint32_t red_harddrop, red_adaptive; /* 1 */
        uint32_t offload;                    /* ShapeOffload */
} Shape;

/* Limits of SPEC. HTB works from 8 bit/s, but below 1 kbit/s one frame takes longer than a TCP time-out;
 * netem keeps jitter in 32 signed bits of ns (net/sched/sch_netem.c, tabledist()). */
#define SHAPE_RATE_MIN UINT64_C(1000)
#define SHAPE_RATE_MAX UINT64_C(40000000000)
#define SHAPE_DELAY_MAX UINT64_C(3600000000000)
#define SHAPE_JITTER_MAX UINT64_C(2147483647)
#define SHAPE_LIMIT_MAX UINT32_C(10000000)
/* Less than a full frame would let nothing pass. */
#define SHAPE_BYTES_MIN UINT32_C(1514)
#define SHAPE_BYTES_MAX UINT32_C(1073741824)
/* The kernel keeps RED's average in 32 bits, times 2^Wlog. */
#define SHAPE_RED_BYTES_MAX UINT32_C(268435456)
#define SHAPE_GAP_MAX UINT32_C(1000000)
/* HTB keeps both in 16 bits; ATM and DSL need less than 100. */
#define SHAPE_OVERHEAD_MAX UINT32_C(1024)
#define SHAPE_MPU_MAX UINT32_C(9000)
/* The longest SPEC that is read (a label comes from anybody who can start containers), and room for any printed pair of
 * shapes: what is printed can be read again. */
#define SHAPE_SPEC_MAX 4096
#define SHAPE_TEXT_MAX 4096

typedef struct ShapePair {
        Shape up;
        Shape down;
} ShapePair;

static inline bool shape_has(const Shape *s, ShapeField f)
{
        return (s->set & (UINT64_C(1) << f)) != 0;
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
 * with it only if the change said so: otherwise shape_validate() of the result complains. One kind of loss, slot or limit
 * takes the place of another. The result holds no zeros. */
void shape_merge(const Shape *base, const Shape *change, Shape *ret);

/* Is this complete shape one that a kernel can do? `direction` ("up", "down") is for the message, which says what is missing
 * or in the way. TB_ERROR_CONFIG -EINVAL. */
int shape_validate(const Shape *s, const char *direction, TbError **err) _warn_unused_;

/* Parse + drop zeros + validate both directions: what a label or a configuration file holds. */
int shape_spec_parse_complete(const char *spec, ShapePair *ret, TbError **err) _warn_unused_;

/* The canonical text: fields in a fixed order, shortest units; parses back to the same shape. "" when
 * nothing is set. Returns buf. */
const char *shape_print(const Shape *s, char buf[static SHAPE_TEXT_MAX]);
/* Both: what is common to the directions is not repeated when they are equal, else "up ... down ...". */
const char *shape_pair_print(const ShapePair *p, char buf[static SHAPE_TEXT_MAX]);

/* Bits of `f` and of what cannot stand beside it (loss, loss state, loss gemodel; ...). */
uint64_t shape_alternatives(ShapeField f);

bool shape_equal(const Shape *a, const Shape *b);

/* Must this be done by netem (rather than by HTB and a plain queue)? */
bool shape_needs_netem(const Shape *s);

/* Does it count single packets, so that a frame of many segments (TSO, GSO: up to 64 kB in one) would be counted as one? Of
 * "auto" offload: loss, duplicate, corrupt, reorder, slot, limit, queue, overhead or mpu or cells, or a rate at which such a
 * frame takes longer than SHAPE_SUPERFRAME_MS. */
#define SHAPE_SUPERFRAME_MS 1
bool shape_counts_packets(const Shape *s);

/*
 * The queue limit in packets that this shape gets: the user's, or twice what is on its way during delay +
 * jitter at the shape's rate (1 Gbit/s assumed when it has none) in full frames, plus a queue of 50 ms at
 * the rate (at least 50, at most 10000 frames; 1000 without a rate). `mtu` is that of the interface. netem
 * holds the delay line and the backlog of the shaper in one queue, hence one number (reference: tc-netem(8);
 * pitfalls P1, P2).
 */
uint32_t shape_effective_limit(const Shape *s, uint32_t mtu);

/* The same in bytes, for queues that count them (red): the user's, or 50 ms at the rate, at least 50 full frames. */
uint32_t shape_effective_limit_bytes(const Shape *s, uint32_t mtu);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/link-expect.h"

#include <assert.h>
#include <math.h>

#define MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define P32 4294967295.0

#define LATENCY_FRAME 98U /* what ping sends */
#define LATENCY_PACKETS 50U
#define LATENCY_MAX_NS (20 * NS_PER_S)
/* Offered to a link that has no rate: enough to tell that nothing limits it, little enough for any host. */
#define RATE_UNLIMITED UINT64_C(200000000)
#define RATE_OFFERED_MAX UINT64_C(2000000000)
#define RATE_TOLERANCE 0.02
/* A sender that stops for longer leaves the queue of 50 ms (shape_effective_limit()) empty, and then overruns it. */
#define LATE_MAX (20 * MS)
#define DELAY_TOLERANCE MS
#define LOSS_SIGMAS 3.3 /* 99.9 % of a normal distribution, which the binomial one is close to */

static const char *const verdict_table[] = {
        [LINK_AS_DECLARED] = "as declared",
        [LINK_NOTHING_ARRIVED] = "nothing arrived",
        [LINK_TOO_SLOW] = "slower than declared",
        [LINK_TOO_FAST] = "faster than declared",
        [LINK_TOO_EARLY] = "less delay than declared",
        [LINK_TOO_LATE] = "more delay than declared",
        [LINK_LOSES] = "more loss than declared",
        [LINK_LOSES_TOO_LITTLE] = "less loss than declared",
        [LINK_NOT_MEASURED] = "not measured: the host was too busy",
};
static_assert(sizeof(verdict_table) / sizeof(*verdict_table) == _LINK_VERDICT_MAX, "one text per verdict");

const char *link_verdict_to_string(LinkVerdict v)
{
        return v >= 0 && v < _LINK_VERDICT_MAX ? verdict_table[v] : NULL;
}

/* At least one of two independent chances. */
static uint32_t either(uint32_t a, uint32_t b)
{
        double p = a / P32, q = b / P32;

        return (uint32_t) lround((1 - (1 - p) * (1 - q)) * P32);
}

static uint64_t clamp(uint64_t v, uint64_t low, uint64_t high)
{
        return v < low ? low : v > high ? high : v;
}

static void set_field(Shape *s, ShapeField f, bool present)
{
        if (present)
                s->set |= UINT32_C(1) << f;
}

void link_expect(const Shape *up, const Shape *down, Shape *ret)
{
        Shape s = {};

        s.rate_bps = up->rate_bps && down->rate_bps ? MIN2(up->rate_bps, down->rate_bps)
                                                    : MAX2(up->rate_bps, down->rate_bps);
        s.delay_ns = up->delay_ns + down->delay_ns;
        s.jitter_ns = up->jitter_ns + down->jitter_ns;
        s.loss = either(up->loss, down->loss);
        s.duplicate = either(up->duplicate, down->duplicate);
        s.corrupt = either(up->corrupt, down->corrupt);
        set_field(&s, SHAPE_RATE, s.rate_bps > 0);
        set_field(&s, SHAPE_DELAY, s.delay_ns > 0);
        set_field(&s, SHAPE_JITTER, s.jitter_ns > 0);
        set_field(&s, SHAPE_LOSS, s.loss > 0);
        set_field(&s, SHAPE_DUPLICATE, s.duplicate > 0);
        set_field(&s, SHAPE_CORRUPT, s.corrupt > 0);
        *ret = s;
}

void link_trains(const Shape *expected, uint32_t mtu, LinkProbeTrain *ret_latency, LinkProbeTrain *ret_rate)
{
        const uint64_t rate = expected->rate_bps;
        const uint32_t frame = MIN2(mtu + 14, LINK_PROBE_FRAME_MAX);
        const uint64_t frame_ns = rate ? (uint64_t) frame * 8 * NS_PER_S / rate : 0;
        const uint64_t delay =
                MIN2(expected->delay_ns + 4 * expected->jitter_ns, LINK_PROBE_QUIET_MAX - 300 * MS);
        /* 100 full frames, within one and ten seconds; a link below 120 kbit/s shows some ten frames. */
        const uint64_t duration = clamp(100 * frame_ns, NS_PER_S, 10 * NS_PER_S);
        uint64_t offered = rate ? MIN2(rate + rate / 10 * 3, RATE_OFFERED_MAX) : RATE_UNLIMITED;
        uint64_t interval = (uint64_t) frame * 8 * NS_PER_S / offered;

        /* A quarter of the rate at most: they shall not wait for each other. */
        const uint64_t pace = MAX2(10 * MS, rate ? (uint64_t) LATENCY_FRAME * 8 * 4 * NS_PER_S / rate : 0);

        *ret_latency = (LinkProbeTrain){
                .frame_bytes = LATENCY_FRAME,
                .packets = (uint32_t) clamp(LATENCY_MAX_NS / pace, 5, LATENCY_PACKETS),
                .interval_ns = pace,
                .quiet_ns = delay + 300 * MS,
        };
        *ret_rate = (LinkProbeTrain){
                .frame_bytes = frame,
                .packets = (uint32_t) clamp(duration / interval, 2, LINK_PROBE_PACKETS_MAX),
                .interval_ns = interval,
                .warmup_ns = duration / 4, /* the bucket's burst is behind us then */
                .quiet_ns = delay + 300 * MS,
        };
}

static bool was_measured(const LinkProbeResult *r)
{
        return r->sent > 0 && r->overrun == 0 && !r->clock_stepped;
}

static LinkVerdict judge_rate(const Shape *e, const LinkProbeResult *r)
{
        double rate = (double) e->rate_bps, passed = 1 - e->loss / P32;

        /* Loss comes behind the shaper of the same direction, duplicates too: such a rate has no sharp bound. */
        if (e->rate_bps == 0 || e->loss > 0 || e->duplicate > 0)
                return LINK_AS_DECLARED;
        if (!was_measured(r) || (double) r->offered_bps * passed < rate * (1 + RATE_TOLERANCE) ||
                r->rate_bps == 0)
                return LINK_NOT_MEASURED;
        if ((double) r->rate_bps < rate * (1 - RATE_TOLERANCE))
                return r->late_max_ns > LATE_MAX ? LINK_NOT_MEASURED : LINK_TOO_SLOW;
        return (double) r->rate_bps > rate * (1 + RATE_TOLERANCE) ? LINK_TOO_FAST : LINK_AS_DECLARED;
}

static LinkVerdict judge_delay(const Shape *e, const LinkProbeResult *r)
{
        /* What one frame of the train takes to be sent at the rate belongs to the path. */
        uint64_t sending = e->rate_bps ? (uint64_t) LATENCY_FRAME * 8 * NS_PER_S / e->rate_bps : 0;

        if (r->delay_median_ns + e->jitter_ns < e->delay_ns)
                return LINK_TOO_EARLY;
        return r->delay_median_ns > e->delay_ns + e->jitter_ns + sending + DELAY_TOLERANCE
                ? LINK_TOO_LATE
                : LINK_AS_DECLARED;
}

static LinkVerdict judge_loss(const Shape *e, const LinkProbeResult *r)
{
        double p = e->loss / P32, n = r->sent, lost = n - r->received;
        double slack = LOSS_SIGMAS * sqrt(n * p * (1 - p)) + (p > 0 ? 1 : 0);

        if (lost > n * p + slack)
                return LINK_LOSES;
        return lost < n * p - slack ? LINK_LOSES_TOO_LITTLE : LINK_AS_DECLARED;
}

LinkVerdict link_judge(const Shape *expected, const LinkProbeResult *latency, const LinkProbeResult *rate)
{
        LinkVerdict v = LINK_AS_DECLARED;

        if (!was_measured(latency))
                return LINK_NOT_MEASURED;
        if (latency->received == 0)
                return expected->loss == UINT32_MAX ? LINK_AS_DECLARED : LINK_NOTHING_ARRIVED;
        if (rate)
                v = judge_rate(expected, rate);
        if (v == LINK_AS_DECLARED || v == LINK_NOT_MEASURED) {
                LinkVerdict other = judge_delay(expected, latency);
                if (other == LINK_AS_DECLARED)
                        other = judge_loss(expected, latency);
                if (other != LINK_AS_DECLARED)
                        v = other;
        }
        return v;
}

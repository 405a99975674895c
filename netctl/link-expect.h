/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/link-probe.h"
#include "netctl/shape.h"

/* What the measurement of a link is to be compared with. Pure. */

/*
 * One direction end to end: what a packet meets that passes `up` of its sender, then `down` of its receiver. Delays and jitters
 * add up, the smaller rate counts, and what gets through is what gets through both (loss, duplicate and corrupt alike).
 * Other fields (limits, distributions, seeds, ...) have no sum and are not set.
 */
void link_expect(const Shape *up, const Shape *down, Shape *ret);

/* The trains for such a link: `latency` to tell delay and loss, `rate` to fill it for one to ten seconds (full frames of `mtu`). */
void link_trains(const Shape *expected, uint32_t mtu, LinkProbeTrain *ret_latency, LinkProbeTrain *ret_rate);

typedef enum LinkVerdict {
        LINK_AS_DECLARED,
        LINK_NOTHING_ARRIVED,
        LINK_TOO_SLOW, /* rate: outside 2 % */
        LINK_TOO_FAST,
        LINK_TOO_EARLY, /* delay: median below the declared one less the jitter */
        LINK_TOO_LATE,  /* ... or more than 1 ms (and the jitter) above it */
        LINK_LOSES,     /* loss: outside what chance explains (99.9 %) */
        LINK_LOSES_TOO_LITTLE,
        LINK_NOT_MEASURED, /* the host was too busy to offer enough, lost packets itself, or its clock was set */
        _LINK_VERDICT_MAX,
        _LINK_VERDICT_INVALID = -EINVAL,
} LinkVerdict;
/* In words, for people: "as declared", "slower than declared", ... */
const char *link_verdict_to_string(LinkVerdict v);

/* `rate` may be NULL: it was not measured. The first thing that is not as declared, in the order of the enum. */
LinkVerdict link_judge(const Shape *expected, const LinkProbeResult *latency, const LinkProbeResult *rate);

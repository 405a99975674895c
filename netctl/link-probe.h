/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/error.h"

/*
 * What a link really does: a train of numbered UDP packets from one network namespace of this host to another.
 *
 * The sockets are made in the two namespaces (setns(2) of the calling thread, which comes back), so nothing has to run in
 * the containers and nothing there can fake the answer but by dropping or inventing packets. Each packet carries a secret of
 * its train, its number and the time of its sending; the time of arrival is the kernel's (SO_TIMESTAMPNS, socket(7)), taken
 * when the frame enters the receiver's namespace. All namespaces of a host share one clock: delays are true one-way delays.
 *
 * What is counted is layer 2: a frame is Ethernet header, IP, UDP and payload without FCS, as HTB counts it.
 */

typedef struct LinkProbeEnd {
        int netns_fd; /* borrowed */
        char ifname[IFNAMSIZ];
        struct sockaddr_storage
                address; /* AF_INET or AF_INET6 of that interface; the port is not looked at */
} LinkProbeEnd;

/* The smallest frame that holds what a packet carries, for IPv6. */
#define LINK_PROBE_FRAME_MIN 86U
#define LINK_PROBE_FRAME_MAX 9014U
#define LINK_PROBE_PACKETS_MAX 4000000U
#define LINK_PROBE_DURATION_MAX UINT64_C(120000000000)
#define LINK_PROBE_QUIET_MAX UINT64_C(120000000000)

typedef struct LinkProbeTrain {
        uint32_t frame_bytes;
        uint32_t packets;
        uint64_t interval_ns; /* between two packets; a late sender catches up in a burst of at most 64 */
        uint64_t warmup_ns;   /* `rate` leaves this much behind the first arrival out */
        uint64_t
                quiet_ns; /* how long after the last sending arrivals are waited for: more than the delay of the path */
} LinkProbeTrain;

typedef struct LinkProbeResult {
        uint32_t sent;
        uint32_t received;   /* different numbers */
        uint32_t duplicates; /* arrivals of a number that was there already */
        uint32_t reordered;  /* arrivals behind one with a higher number */
        uint32_t overrun;    /* dropped by our own receiving socket: neither lost by the link nor received */
        bool clock_stepped;  /* CLOCK_REALTIME was set meanwhile: the delays are worthless */
        uint64_t delay_min_ns, delay_median_ns, delay_p90_ns, delay_p99_ns,
                delay_max_ns;      /* 0: nothing received */
        uint64_t late_max_ns;      /* the longest that a packet was sent after its time: the host was busy */
        uint64_t offered_bps;      /* as it was really sent */
        uint64_t first_second_bps; /* of arrivals, between the first and the last within 1 s of it */
        uint64_t rate_bps; /* of arrivals, from `warmup_ns` behind the first to the last; 0: too few */
        uint64_t span_ns;  /* that rate_bps was measured over */
} LinkProbeResult;

/*
 * Sends one train and waits for it: blocks the caller for about packets x interval + quiet, plus up to 5 s before it, in which
 * the two ends find each other (neighbour resolution is no part of the measurement). Starts one thread and joins it.
 *
 * That nothing arrives is a result, not an error. Errors: TB_ERROR_CONFIG -EINVAL (bad train, families differ, frame larger
 * than the MTU allows), TB_ERROR_ENVIRONMENT (no such interface or address in the namespace, no permission),
 * TB_ERROR_RESOURCE -ENOMEM.
 */
int link_probe(const LinkProbeEnd *from, const LinkProbeEnd *to, const LinkProbeTrain *train,
        LinkProbeResult *ret, TbError **err) _warn_unused_;

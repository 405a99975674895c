/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode-netctl probe: its words and its answer. */

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/tool.h"

#define NS_PER_S UINT64_C(1000000000)

typedef struct Words {
        uint64_t size, rate, interval, packets, duration, warmup, quiet; /* 0: not said */
        bool have_quiet;
} Words;

static int parse_word(const char *key, const char *value, Words *w, TbError **err)
{
        if (tb_streq(key, "size"))
                return tb_parse_size(value, &w->size, err);
        if (tb_streq(key, "rate"))
                return tb_parse_rate(value, &w->rate, err);
        if (tb_streq(key, "interval"))
                return tb_parse_time(value, &w->interval, err);
        if (tb_streq(key, "packets"))
                return tb_parse_u64(value, 1, LINK_PROBE_PACKETS_MAX, &w->packets, err);
        if (tb_streq(key, "duration"))
                return tb_parse_time(value, &w->duration, err);
        if (tb_streq(key, "warmup"))
                return tb_parse_time(value, &w->warmup, err);
        if (tb_streq(key, "quiet")) {
                w->have_quiet = true;
                return tb_parse_time(value, &w->quiet, err);
        }
        _cleanup_free_ char *shown = tb_escape(key, 40);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "unknown word '%s'; probe takes " TOOL_PROBE_WORDS, shown ? shown : "?");
}

int tool_probe_parse(char *const *words, LinkProbeTrain *ret, TbError **err)
{
        Words w = {};

        for (; *words; words += 2) {
                if (!words[1]) {
                        _cleanup_free_ char *shown = tb_escape(*words, 40);
                        return tb_error_set(
                                err, TB_ERROR_CONFIG, -EINVAL, "'%s' needs a value", shown ? shown : "?");
                }
                int r = parse_word(words[0], words[1], &w, err);
                if (r < 0)
                        return r;
        }
        if ((w.rate && w.interval) || (w.packets && w.duration))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "give either rate or interval, and either packets or duration");
        if (!w.size)
                w.size = 98; /* what ping sends */
        if (w.size > LINK_PROBE_FRAME_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -ERANGE, "size is at most %u bytes", LINK_PROBE_FRAME_MAX);
        if (w.rate)
                w.interval = w.size * 8 * NS_PER_S / w.rate;
        if (!w.interval)
                w.interval = 10 * NS_PER_S / 1000;
        if (w.duration)
                w.packets = MAX2(w.duration / w.interval, UINT64_C(1));
        if (!w.packets)
                w.packets = 100;
        *ret = (LinkProbeTrain){
                .frame_bytes = (uint32_t) w.size,
                .packets = (uint32_t) MIN2(w.packets, (uint64_t) UINT32_MAX),
                .interval_ns = w.interval,
                .warmup_ns = w.warmup,
                .quiet_ns = w.have_quiet ? w.quiet : NS_PER_S,
        };
        return 0;
}

int tool_probe_end(int netns_fd, const char *ifname, LinkProbeEnd *ret, TbError **err)
{
        _cleanup_container_ Container c = {};
        struct sockaddr_in a = {.sin_family = AF_INET};

        int r = tool_container(netns_fd, &c, NULL, err);
        if (r < 0)
                return r;
        const ContainerInterface *i = container_find_name(&c, ifname);
        if (!i || i->ipv4.s_addr == INADDR_ANY) {
                _cleanup_free_ char *shown = tb_escape(ifname, 40);
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENXIO,
                        "the container has no interface '%s' with an IPv4 address", shown ? shown : "?");
        }
        a.sin_addr = i->ipv4;
        *ret = (LinkProbeEnd){.netns_fd = netns_fd};
        memcpy(ret->ifname, i->link.name, sizeof(ret->ifname));
        memcpy(&ret->address, &a, sizeof(a));
        return 0;
}

json_t *tool_probe_json(const LinkProbeTrain *t, const LinkProbeResult *r)
{
        return json_pack(
                "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
                "frame_bytes", (json_int_t) t->frame_bytes, "sent", (json_int_t) r->sent, "received",
                (json_int_t) r->received, "duplicates", (json_int_t) r->duplicates, "reordered",
                (json_int_t) r->reordered, "overrun", (json_int_t) r->overrun, "interval_ns",
                (json_int_t) t->interval_ns, "late_max_ns", (json_int_t) r->late_max_ns, "clock_stepped",
                r->clock_stepped, "delay_min_ns", (json_int_t) r->delay_min_ns, "delay_median_ns",
                (json_int_t) r->delay_median_ns, "delay_p90_ns", (json_int_t) r->delay_p90_ns,
                "delay_p99_ns", (json_int_t) r->delay_p99_ns, "delay_max_ns", (json_int_t) r->delay_max_ns,
                "offered_bps", (json_int_t) r->offered_bps, "first_second_bps",
                (json_int_t) r->first_second_bps, "rate_bps", (json_int_t) r->rate_bps, "span_ns",
                (json_int_t) r->span_ns);
}

void tool_probe_print(const LinkProbeResult *r)
{
        printf("%u sent, %u received, %u lost, %u duplicates, %u reordered\n", r->sent, r->received,
                r->sent - MIN2(r->sent, r->received), r->duplicates, r->reordered);
        if (r->overrun > 0)
                printf("%u of these were lost by the measurement itself: send slower\n", r->overrun);
        if (r->clock_stepped)
                printf("the clock was set meanwhile: the delays are worthless\n");
        if (r->received > 0)
                printf("one-way delay: min %.3f median %.3f p90 %.3f p99 %.3f max %.3f ms\n",
                        (double) r->delay_min_ns / 1e6, (double) r->delay_median_ns / 1e6,
                        (double) r->delay_p90_ns / 1e6, (double) r->delay_p99_ns / 1e6,
                        (double) r->delay_max_ns / 1e6);
        if (r->rate_bps > 0)
                printf("rate: %.6f Mbit/s of layer 2 over %.3f s (%.6f in the first second, %.6f offered)\n",
                        (double) r->rate_bps / 1e6, (double) r->span_ns / 1e9,
                        (double) r->first_second_bps / 1e6, (double) r->offered_bps / 1e6);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * RED (net/sched/sch_red.c, include/net/red.h): a queue that drops or marks early. It stands under a class with a rate and
 * without netem: RED has to see what waits, and only that.
 *
 * The kernel computes with logarithms that user space gives it:
 *   Wlog      the average forgets 1/2^Wlog with each packet
 *   Plog      max_P / (max - min) = 2^-Plog
 *   cell_log, damping[i]   how much (as a power of two) the average falls while idle for i cells of 2^cell_log ticks
 * What they are to be is Floyd's: the average crosses `min` when `burst` packets of AVERAGE bytes arrive at an empty queue,
 * with burst = (2 min + max) / (3 AVERAGE) (tc-red(8)).
 */

#include <linux/rtnetlink.h>
#include <math.h>

#include "netctl/tc.h"

#define AVERAGE 1000.0 /* bytes of a packet */
#define TICK_NS 64.0
#define DAMPING_MAX 31

static unsigned bits(uint32_t v)
{
        return v > 0 ? 32U - (unsigned) __builtin_clz(v) : 0;
}

static uint8_t weight_log(const Red *red)
{
        double burst = (2.0 * red->min + red->max) / (3 * AVERAGE);
        double missing = burst + 1 - red->min / AVERAGE, weight = 0.5;
        unsigned log = 1;

        if (burst < 1)
                burst = 1;
        while (log < 31 && missing > (1 - pow(1 - weight, burst)) / weight) {
                weight /= 2;
                log++;
        }
        /* The kernel keeps the average times 2^Wlog in 32 bits (red_check_params()). */
        unsigned room = 31 - bits(red->max);
        return (uint8_t) (log < room ? log : room);
}

static uint8_t probability_log(const Red *red)
{
        double p = red->probability / 4294967296.0 / (red->max - red->min);
        unsigned log = 0;

        while (log < 31 && p <= 1) {
                p *= 2;
                log++;
        }
        return (uint8_t) log;
}

/* Powers of two that the average loses in one tick of idle time. */
static double damping_per_tick(const Red *red, uint64_t rate_bps)
{
        double packet_ticks =
                AVERAGE * 8 * 1e9 / (double) (rate_bps > 0 ? rate_bps : TC_UNLIMITED) / TICK_NS;

        return -log(1 - 1.0 / (UINT32_C(1) << red->wlog)) / packet_ticks;
}

void red_compute(Red *red, uint64_t rate_bps)
{
        red->wlog = weight_log(red);
        red->plog = probability_log(red);
        double per_tick = damping_per_tick(red, rate_bps), longest = DAMPING_MAX / per_tick;
        unsigned cell = 0;

        while (cell < 31 && longest / (double) (UINT64_C(1) << cell) >= 512)
                cell++;
        red->cell_log = (uint8_t) cell;
        red->damping = per_tick;
}

static void damping_table(const Red *red, uint8_t table[256])
{
        /* Read back from the kernel: within a factor of two, as the cells tell. */
        double per_tick = red->damping > 0
                ? red->damping
                : DAMPING_MAX / (384.0 * (double) (UINT64_C(1) << (red->cell_log & 31)));

        for (unsigned i = 0; i < 255; i++) {
                double v = i * (double) (UINT64_C(1) << (red->cell_log & 31)) * per_tick;
                table[i] = v > DAMPING_MAX ? DAMPING_MAX : (uint8_t) v;
        }
        table[255] = DAMPING_MAX;
}

static void red_encode(NlWriter *w, const Leaf *leaf)
{
        const Red *red = &leaf->red;
        struct tc_red_qopt opt = {
                .limit = red->limit,
                .qth_min = red->min,
                .qth_max = red->max,
                .Wlog = red->wlog,
                .Plog = red->plog,
                .Scell_log = red->cell_log,
                .flags = (uint8_t) ((red->ecn ? TC_RED_ECN : 0) | (red->harddrop ? TC_RED_HARDDROP : 0) |
                        (red->adaptive ? TC_RED_ADAPTATIVE : 0)),
        };
        uint8_t table[256];

        damping_table(red, table);
        size_t nest = nlw_nest(w, TCA_OPTIONS);
        nlw_put(w, TCA_RED_PARMS, &opt, sizeof(opt));
        nlw_put(w, TCA_RED_STAB, table, sizeof(table));
        nlw_put_u32(w, TCA_RED_MAX_P, red->probability);
        nlw_nest_end(w, nest);
}

static bool red_decode(const NlAttr *options, Leaf *leaf)
{
        struct tc_red_qopt opt = {};
        bool found = false;
        Red red = {};
        NlIter i = nl_iter_nested(options);

        for (NlAttr a; nl_iter_next(&i, &a);) {
                if (a.type == TCA_RED_PARMS)
                        found = nl_attr_struct(&a, &opt, sizeof(opt));
                else if (a.type == TCA_RED_MAX_P)
                        (void) nl_attr_u32(&a, &red.probability);
        }
        if (!found)
                return false;
        red.limit = opt.limit;
        red.min = opt.qth_min;
        red.max = opt.qth_max;
        red.wlog = opt.Wlog;
        red.plog = opt.Plog;
        red.cell_log = opt.Scell_log;
        red.ecn = (opt.flags & TC_RED_ECN) != 0;
        red.harddrop = (opt.flags & TC_RED_HARDDROP) != 0;
        red.adaptive = (opt.flags & TC_RED_ADAPTATIVE) != 0;
        leaf->red = red;
        return true;
}

static bool red_equal(const Leaf *x, const Leaf *y)
{
        const Red *a = &x->red, *b = &y->red;

        return a->limit == b->limit && a->min == b->min && a->max == b->max &&
                (a->probability == b->probability || a->adaptive) && a->wlog == b->wlog &&
                a->plog == b->plog && a->cell_log == b->cell_log && a->ecn == b->ecn &&
                a->harddrop == b->harddrop && a->adaptive == b->adaptive;
}

const LeafVtable leaf_red_vtable = {
        .kind = "red",
        .module = "sch_red",
        .encode = red_encode,
        .decode = red_decode,
        .equal = red_equal,
        .change_drops = true,
};

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * HTB: one root, one class.
 *
 * Rates are 64 bits wide (TCA_HTB_RATE64/CEIL64); the old rate tables are not sent: since Linux 3.8 the kernel computes
 * (psched_ratecfg_precompute()), and it asks for tables only when the link layer is "unaware" (htb_change_class()).
 *
 * Burst: one full frame + 4 ms at the rate. HTB lets a packet of any size go while the bucket is not negative and then
 * waits off the debt, so the average is right for GSO frames of 64 kB as well, whatever the burst; what the burst must
 * cover is the lateness of the kernel's timer, because tokens beyond it are lost (pitfall P4). 4 ms is one tick of HZ=250;
 * the excess in the first second is 0.4% + one frame.
 *
 * The bucket is given in psched ticks (64 ns) of time at the rate. Computed in 128 bits and rounded UP (pitfall P5:
 * three roundings in tc made small bursts zero).
 *
 * Quantum only matters between classes of one root; it is set because the default (rate / 10) makes the kernel warn for
 * most rates (pitfall P3): between one frame and 60000 bytes.
 */

#include <linux/rtnetlink.h>

#include "netctl/tc.h"

#define PSCHED_TICK_NS 64U
#define NS_PER_S UINT64_C(1000000000)
#define BURST_MS 4
#define R2Q 10
#define QUANTUM_MAX 60000U
#define DIRECT_QLEN 1000U
#define HTB_VERSION 3

/* `bytes` at `rate` (bytes/s) as time. */
static uint32_t buffer_ticks(uint64_t bytes, uint64_t rate)
{
        unsigned __int128 ns = ((unsigned __int128) bytes * NS_PER_S + rate - 1) / rate;
        unsigned __int128 ticks = (ns + PSCHED_TICK_NS - 1) / PSCHED_TICK_NS;

        return ticks > UINT32_MAX ? UINT32_MAX : (uint32_t) ticks;
}

void htb_class_for_rate(uint64_t rate_bps, uint32_t mtu, HtbClass *ret)
{
        uint64_t bps = rate_bps > 0 ? rate_bps : TC_UNLIMITED;
        uint32_t frame = (mtu >= 68 ? mtu : 1500) + 14;
        uint64_t rate = (bps + 4) / 8;
        if (rate == 0)
                rate = 1;

        uint64_t burst = frame + rate * BURST_MS / 1000;
        uint64_t quantum = rate / R2Q;

        *ret = (HtbClass){
                .rate = rate,
                .buffer = buffer_ticks(burst, rate),
                .quantum = quantum < frame      ? frame
                        : quantum > QUANTUM_MAX ? QUANTUM_MAX
                                                : (uint32_t) quantum,
        };
        if (ret->quantum < frame)
                ret->quantum = frame;
}

void htb_class_for_shape(const Shape *s, uint32_t mtu, HtbClass *ret)
{
        HtbClass c;

        htb_class_for_rate(shape_has(s, SHAPE_RATE) ? s->rate_bps : 0, mtu, &c);
        if (shape_has(s, SHAPE_OVERHEAD))
                c.overhead = (uint16_t) s->overhead;
        if (shape_has(s, SHAPE_MPU))
                c.mpu = (uint16_t) s->mpu;
        c.atm = shape_has(s, SHAPE_LINKLAYER) && s->linklayer == SHAPE_ATM;
        if (shape_has(s, SHAPE_BURST))
                c.buffer = buffer_ticks(s->burst, c.rate);
        if (shape_has(s, SHAPE_QUANTUM))
                c.quantum = s->quantum;
        *ret = c;
}

void htb_class_to_shape(const HtbClass *c, Shape *s)
{
        if (c->rate == 0 || c->rate * 8 >= TC_UNLIMITED)
                return;
        s->rate_bps = c->rate * 8;
        s->set |= UINT64_C(1) << SHAPE_RATE;
        s->overhead = c->overhead;
        s->mpu = c->mpu;
        s->linklayer = c->atm ? SHAPE_ATM : SHAPE_ETHERNET;
        s->set |= (uint64_t) (c->overhead > 0) << SHAPE_OVERHEAD | (uint64_t) (c->mpu > 0) << SHAPE_MPU |
                (uint64_t) c->atm << SHAPE_LINKLAYER;
}

bool htb_class_equal(const HtbClass *a, const HtbClass *b)
{
        return a->rate == b->rate && a->buffer == b->buffer && a->quantum == b->quantum &&
                a->overhead == b->overhead && a->mpu == b->mpu && a->atm == b->atm;
}

uint32_t htb_burst_bytes(const HtbClass *c)
{
        unsigned __int128 bytes = (unsigned __int128) c->buffer * PSCHED_TICK_NS * c->rate / NS_PER_S;

        return bytes > UINT32_MAX ? UINT32_MAX : (uint32_t) bytes;
}

void htb_encode_root(NlWriter *w)
{
        struct tc_htb_glob glob = {
                .version = HTB_VERSION, .rate2quantum = R2Q, .defcls = TC_H_MIN(TC_HANDLE_CLASS)};

        nlw_put_string(w, TCA_KIND, "htb");
        size_t nest = nlw_nest(w, TCA_OPTIONS);
        nlw_put(w, TCA_HTB_INIT, &glob, sizeof(glob));
        nlw_put_u32(w, TCA_HTB_DIRECT_QLEN, DIRECT_QLEN);
        nlw_nest_end(w, nest);
}

void htb_encode_class(NlWriter *w, const HtbClass *c)
{
        uint32_t rate32 = c->rate > UINT32_MAX ? UINT32_MAX : (uint32_t) c->rate;
        struct tc_ratespec spec = {
                .linklayer = c->atm ? TC_LINKLAYER_ATM : TC_LINKLAYER_ETHERNET,
                .overhead = c->overhead,
                .mpu = c->mpu,
                .rate = rate32,
        };
        struct tc_htb_opt opt = {
                .rate = spec,
                .ceil = spec,
                .buffer = c->buffer,
                .cbuffer = c->buffer,
                .quantum = c->quantum,
        };

        nlw_put_string(w, TCA_KIND, "htb");
        size_t nest = nlw_nest(w, TCA_OPTIONS);
        nlw_put(w, TCA_HTB_PARMS, &opt, sizeof(opt));
        nlw_put_u64(w, TCA_HTB_RATE64, c->rate);
        nlw_put_u64(w, TCA_HTB_CEIL64, c->rate);
        nlw_nest_end(w, nest);
}

bool htb_decode_class(const NlAttr *options, HtbClass *ret)
{
        struct tc_htb_opt opt = {};
        uint64_t rate64 = 0, ceil64 = 0;
        bool found = false;
        NlIter i = nl_iter_nested(options);

        for (NlAttr a; nl_iter_next(&i, &a);) {
                if (a.type == TCA_HTB_PARMS)
                        found = nl_attr_struct(&a, &opt, sizeof(opt));
                else if (a.type == TCA_HTB_RATE64)
                        (void) nl_attr_u64(&a, &rate64);
                else if (a.type == TCA_HTB_CEIL64)
                        (void) nl_attr_u64(&a, &ceil64);
        }
        if (!found)
                return false;
        uint64_t rate = rate64 > 0 ? rate64 : opt.rate.rate;
        uint64_t ceil = ceil64 > 0 ? ceil64 : opt.ceil.rate;
        *ret = (HtbClass){
                /* Another ceil or cbuffer is not ours: make it differ from anything we would want. */
                .rate = ceil == rate ? rate : 0,
                .buffer = opt.buffer == opt.cbuffer ? opt.buffer : 0,
                .quantum = opt.quantum,
                .overhead = opt.rate.overhead,
                .mpu = opt.rate.mpu,
                .atm = (opt.rate.linklayer & TC_LINKLAYER_MASK) == TC_LINKLAYER_ATM,
        };
        return true;
}

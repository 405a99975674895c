/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * netem (net/sched/sch_netem.c). TCA_OPTIONS is a struct tc_netem_qopt followed by attributes inside the same attribute.
 *
 * Every attribute that we may ever set is sent with every change: what is left out keeps its old value in the kernel, and
 * a change must not leave a correlation behind. The exception is TCA_NETEM_LOSS, whose absence means random loss. Times go as
 * TCA_NETEM_LATENCY64/JITTER64 (ns, Linux 4.15); the 32-bit ticks of the struct are filled too, saturated. Reordering
 * happens only when `gap` is not 0, and a gap without TCA_NETEM_REORDER would mean 100%.
 *
 * What TCA_NETEM_RATE holds is ours, see tc.h: the delay's table in the packet overhead, with SEEDED when the seed is the
 * user's, and the slots' table in the cell overhead.
 */

#include <linux/rtnetlink.h>

#include "netctl/netem-dist.h"
#include "netctl/tc.h"

/* Linux 6.6; not in Debian 12's headers. Older kernels ignore it, which reading back shows. */
#define NETEM_ATTR_PRNG_SEED 15
#define SEEDED UINT32_C(0x80000000)
/* What the kernel makes of "no limit" in a slot. */
#define SLOT_UNLIMITED INT32_MAX

static uint32_t ticks_saturated(uint64_t ns)
{
        uint64_t t = ns >> 6; /* psched tick: 64 ns */

        return t > UINT32_MAX ? UINT32_MAX : (uint32_t) t;
}

static void put_table(NlWriter *w, uint16_t type, uint32_t id)
{
        size_t n = 0;
        const int16_t *table = netem_table_entries(id, &n);

        if (table)
                nlw_put(w, type, table, n * sizeof(*table));
}

static void put_loss(NlWriter *w, const Netem *n)
{
        const struct tc_netem_gimodel gi = {
                .p13 = n->loss_state[SHAPE_P13],
                .p31 = n->loss_state[SHAPE_P31],
                .p32 = n->loss_state[SHAPE_P32],
                .p14 = n->loss_state[SHAPE_P14],
                .p23 = n->loss_state[SHAPE_P23],
        };
        const struct tc_netem_gemodel ge = {
                .p = n->loss_gemodel[SHAPE_GE_P],
                .r = n->loss_gemodel[SHAPE_GE_R],
                .h = UINT32_MAX - n->loss_gemodel[SHAPE_GE_1H],
                .k1 = n->loss_gemodel[SHAPE_GE_1K],
        };

        if (n->loss_model == NETEM_RANDOM)
                return;
        size_t nest = nlw_nest(w, TCA_NETEM_LOSS);
        if (n->loss_model == NETEM_STATE)
                nlw_put(w, NETEM_LOSS_GI, &gi, sizeof(gi));
        else
                nlw_put(w, NETEM_LOSS_GE, &ge, sizeof(ge));
        nlw_nest_end(w, nest);
}

static void put_slot(NlWriter *w, const Netem *n)
{
        const struct tc_netem_slot slot = {
                .min_delay = (int64_t) n->slot_min,
                .max_delay = (int64_t) n->slot_max,
                .max_packets = (int32_t) n->slot_packets,
                .max_bytes = (int32_t) n->slot_bytes,
                .dist_delay = (int64_t) n->slot_delay,
                .dist_jitter = (int64_t) n->slot_jitter,
        };

        nlw_put(w, TCA_NETEM_SLOT, &slot, sizeof(slot));
        if (n->slot_jitter > 0)
                put_table(w, TCA_NETEM_SLOT_DIST, n->slot_table);
}

static void netem_encode(NlWriter *w, const Leaf *leaf)
{
        const Netem *n = &leaf->netem;
        struct tc_netem_qopt opt = {
                .latency = ticks_saturated(n->latency),
                .jitter = ticks_saturated(n->jitter),
                .limit = n->limit,
                .loss = n->loss,
                .duplicate = n->duplicate,
                .gap = n->gap,
        };
        struct tc_netem_corr corr = {
                .delay_corr = n->delay_correlation,
                .loss_corr = n->loss_correlation,
                .dup_corr = n->duplicate_correlation,
        };
        struct tc_netem_reorder reorder = {.probability = n->reorder, .correlation = n->reorder_correlation};
        struct tc_netem_corrupt corrupt = {.probability = n->corrupt, .correlation = n->corrupt_correlation};
        struct tc_netem_rate notes = {
                .packet_overhead = (int32_t) (n->table | (n->seeded ? SEEDED : 0)),
                .cell_overhead = (int32_t) n->slot_table,
        };

        size_t nest = nlw_nest(w, TCA_OPTIONS);
        nlw_raw(w, &opt, sizeof(opt));
        nlw_put(w, TCA_NETEM_CORR, &corr, sizeof(corr));
        nlw_put(w, TCA_NETEM_REORDER, &reorder, sizeof(reorder));
        nlw_put(w, TCA_NETEM_CORRUPT, &corrupt, sizeof(corrupt));
        nlw_put_u64(w, TCA_NETEM_LATENCY64, n->latency);
        nlw_put_u64(w, TCA_NETEM_JITTER64, n->jitter);
        nlw_put(w, TCA_NETEM_RATE, &notes, sizeof(notes));
        nlw_put_u32(w, TCA_NETEM_ECN, n->ecn);
        put_loss(w, n);
        put_slot(w, n);
        if (n->jitter > 0 && (n->table != NETEM_TABLE_UNIFORM || n->reset_table))
                put_table(w, TCA_NETEM_DELAY_DIST, n->table);
        if (n->seeded)
                nlw_put_u64(w, NETEM_ATTR_PRNG_SEED, n->seed);
        nlw_nest_end(w, nest);
}

static void decode_loss(const NlAttr *loss, Netem *n)
{
        NlIter i = nl_iter_nested(loss);

        for (NlAttr a; nl_iter_next(&i, &a);) {
                struct tc_netem_gimodel gi;
                struct tc_netem_gemodel ge;
                if (a.type == NETEM_LOSS_GI && nl_attr_struct(&a, &gi, sizeof(gi))) {
                        n->loss_model = NETEM_STATE;
                        n->loss_state[SHAPE_P13] = gi.p13;
                        n->loss_state[SHAPE_P31] = gi.p31;
                        n->loss_state[SHAPE_P32] = gi.p32;
                        n->loss_state[SHAPE_P14] = gi.p14;
                        n->loss_state[SHAPE_P23] = gi.p23;
                } else if (a.type == NETEM_LOSS_GE && nl_attr_struct(&a, &ge, sizeof(ge))) {
                        n->loss_model = NETEM_GEMODEL;
                        n->loss_gemodel[SHAPE_GE_P] = ge.p;
                        n->loss_gemodel[SHAPE_GE_R] = ge.r;
                        n->loss_gemodel[SHAPE_GE_1H] = UINT32_MAX - ge.h;
                        n->loss_gemodel[SHAPE_GE_1K] = ge.k1;
                }
        }
}

static uint64_t positive(int64_t v)
{
        return v > 0 ? (uint64_t) v : 0;
}

static uint32_t slot_limit(int32_t v)
{
        return v > 0 && v != SLOT_UNLIMITED ? (uint32_t) v : 0;
}

static void decode_slot(const NlAttr *a, Netem *n)
{
        struct tc_netem_slot slot;

        if (!nl_attr_struct(a, &slot, sizeof(slot)))
                return;
        n->slot_min = positive(slot.min_delay);
        n->slot_max = positive(slot.max_delay);
        n->slot_delay = positive(slot.dist_delay);
        n->slot_jitter = positive(slot.dist_jitter);
        n->slot_packets = slot_limit(slot.max_packets);
        n->slot_bytes = slot_limit(slot.max_bytes);
}

static void decode_rate(const NlAttr *a, Netem *n)
{
        struct tc_netem_rate rate;

        if (!nl_attr_struct(a, &rate, sizeof(rate)))
                return;
        if (rate.rate != 0 || rate.cell_size != 0) /* somebody's own */
                n->rate = n->rate > 0 ? n->rate : rate.rate > 0 ? rate.rate : 1;
        else {
                n->table = (uint32_t) rate.packet_overhead & ~SEEDED;
                n->slot_table = (uint32_t) rate.cell_overhead;
                n->seeded = ((uint32_t) rate.packet_overhead & SEEDED) != 0;
        }
}

static void netem_decode_attribute(const NlAttr *a, Netem *n)
{
        struct tc_netem_corr corr;
        struct tc_netem_reorder pair; /* corrupt has the same layout */
        uint32_t v;

        switch (a->type) {
        case TCA_NETEM_CORR:
                if (nl_attr_struct(a, &corr, sizeof(corr))) {
                        n->delay_correlation = corr.delay_corr;
                        n->loss_correlation = corr.loss_corr;
                        n->duplicate_correlation = corr.dup_corr;
                }
                break;
        case TCA_NETEM_REORDER:
                if (nl_attr_struct(a, &pair, sizeof(pair))) {
                        n->reorder = pair.probability;
                        n->reorder_correlation = pair.correlation;
                }
                break;
        case TCA_NETEM_CORRUPT:
                if (nl_attr_struct(a, &pair, sizeof(pair))) {
                        n->corrupt = pair.probability;
                        n->corrupt_correlation = pair.correlation;
                }
                break;
        case TCA_NETEM_LATENCY64:
                (void) nl_attr_u64(a, &n->latency);
                break;
        case TCA_NETEM_JITTER64:
                (void) nl_attr_u64(a, &n->jitter);
                break;
        case NETEM_ATTR_PRNG_SEED:
                (void) nl_attr_u64(a, &n->seed);
                break;
        case TCA_NETEM_RATE:
                decode_rate(a, n);
                break;
        case TCA_NETEM_RATE64:
                (void) nl_attr_u64(a, &n->rate);
                break;
        case TCA_NETEM_ECN:
                if (nl_attr_u32(a, &v))
                        n->ecn = v != 0;
                break;
        case TCA_NETEM_LOSS:
                decode_loss(a, n);
                break;
        case TCA_NETEM_SLOT:
                decode_slot(a, n);
                break;
        default:
                break;
        }
}

static bool netem_decode(const NlAttr *options, Leaf *leaf)
{
        struct tc_netem_qopt opt;

        if (options->size < sizeof(opt))
                return false;
        memcpy(&opt, options->data, sizeof(opt));
        leaf->netem = (Netem){
                .latency = (uint64_t) opt.latency << 6,
                .jitter = (uint64_t) opt.jitter << 6,
                .limit = opt.limit,
                .loss = opt.loss,
                .duplicate = opt.duplicate,
                .gap = opt.gap,
        };
        NlIter i = nl_iter(options->data + sizeof(opt), options->size - sizeof(opt));
        for (NlAttr a; nl_iter_next(&i, &a);)
                netem_decode_attribute(&a, &leaf->netem);
        /* Since 6.6 the kernel always tells a seed; whose it is we noted. */
        if (!leaf->netem.seeded)
                leaf->netem.seed = 0;
        return true;
}

static bool loss_equal(const Netem *a, const Netem *b)
{
        if (a->loss_model != b->loss_model)
                return false;
        if (a->loss_model == NETEM_STATE)
                return memcmp(a->loss_state, b->loss_state, sizeof(a->loss_state)) == 0;
        if (a->loss_model == NETEM_GEMODEL)
                return memcmp(a->loss_gemodel, b->loss_gemodel, sizeof(a->loss_gemodel)) == 0;
        return a->loss == b->loss && a->loss_correlation == b->loss_correlation;
}

static bool slot_equal(const Netem *a, const Netem *b)
{
        return a->slot_min == b->slot_min && a->slot_max == b->slot_max && a->slot_delay == b->slot_delay &&
                a->slot_jitter == b->slot_jitter && a->slot_packets == b->slot_packets &&
                a->slot_bytes == b->slot_bytes && a->slot_table == b->slot_table;
}

static bool netem_equal(const Leaf *x, const Leaf *y)
{
        const Netem *a = &x->netem, *b = &y->netem;

        return a->latency == b->latency && a->jitter == b->jitter && a->limit == b->limit &&
                a->table == b->table && a->delay_correlation == b->delay_correlation && loss_equal(a, b) &&
                a->duplicate == b->duplicate && a->duplicate_correlation == b->duplicate_correlation &&
                a->corrupt == b->corrupt && a->corrupt_correlation == b->corrupt_correlation &&
                a->reorder == b->reorder && a->reorder_correlation == b->reorder_correlation &&
                a->gap == b->gap && a->ecn == b->ecn && slot_equal(a, b) && a->rate == b->rate &&
                a->seeded == b->seeded && (!a->seeded || a->seed == b->seed);
}

const LeafVtable leaf_netem_vtable = {
        .kind = "netem",
        .module = "sch_netem",
        .encode = netem_encode,
        .decode = netem_decode,
        .equal = netem_equal,
};

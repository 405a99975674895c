/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * netem (net/sched/sch_netem.c). TCA_OPTIONS is a struct tc_netem_qopt followed by attributes inside the same attribute.
 *
 * Every attribute that we may ever set is sent with every change: what is left out keeps its old value in the kernel, and
 * a change must not leave a correlation behind. Times go as TCA_NETEM_LATENCY64/JITTER64 (ns, Linux 4.15); the 32-bit
 * ticks of the struct are filled too, saturated. Reordering happens only when `gap` is not 0, and a gap without
 * TCA_NETEM_REORDER would mean 100%.
 */

#include <linux/rtnetlink.h>

#include "netctl/tc.h"

/* Linux 6.6; not in Debian 12's headers. Older kernels ignore it, which reading back shows. */
#define NETEM_ATTR_PRNG_SEED 15

static uint32_t ticks_saturated(uint64_t ns)
{
        uint64_t t = ns >> 6; /* psched tick: 64 ns */

        return t > UINT32_MAX ? UINT32_MAX : (uint32_t) t;
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
        size_t entries = 0;
        const int16_t *table = netem_distribution((ShapeDistribution) (leaf->major & 0xfU), &entries);

        size_t nest = nlw_nest(w, TCA_OPTIONS);
        nlw_raw(w, &opt, sizeof(opt));
        nlw_put(w, TCA_NETEM_CORR, &corr, sizeof(corr));
        nlw_put(w, TCA_NETEM_REORDER, &reorder, sizeof(reorder));
        nlw_put(w, TCA_NETEM_CORRUPT, &corrupt, sizeof(corrupt));
        nlw_put_u64(w, TCA_NETEM_LATENCY64, n->latency);
        nlw_put_u64(w, TCA_NETEM_JITTER64, n->jitter);
        if (table && n->jitter > 0)
                nlw_put(w, TCA_NETEM_DELAY_DIST, table, entries * sizeof(*table));
        if (n->seeded)
                nlw_put_u64(w, NETEM_ATTR_PRNG_SEED, n->seed);
        nlw_nest_end(w, nest);
}

static void netem_decode_attribute(const NlAttr *a, Netem *n)
{
        struct tc_netem_corr corr;
        struct tc_netem_reorder pair; /* corrupt has the same layout */
        struct tc_netem_rate rate;
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
                n->seeded = nl_attr_u64(a, &n->seed);
                break;
        case TCA_NETEM_RATE:
                if (nl_attr_struct(a, &rate, sizeof(rate)))
                        n->foreign |= rate.rate != 0 || rate.packet_overhead != 0 || rate.cell_size != 0;
                break;
        case TCA_NETEM_ECN:
                n->foreign |= nl_attr_u32(a, &v) && v != 0;
                break;
        case TCA_NETEM_LOSS:
        case TCA_NETEM_SLOT:
                n->foreign = true;
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
        /* Since 6.6 the kernel always tells a seed; whose it is says our handle. */
        if (!(leaf->major & TC_SEEDED)) {
                leaf->netem.seeded = false;
                leaf->netem.seed = 0;
        }
        return true;
}

static bool netem_equal(const Leaf *x, const Leaf *y)
{
        const Netem *a = &x->netem, *b = &y->netem;

        return a->latency == b->latency && a->jitter == b->jitter && a->limit == b->limit &&
                a->delay_correlation == b->delay_correlation && a->loss == b->loss &&
                a->loss_correlation == b->loss_correlation && a->duplicate == b->duplicate &&
                a->duplicate_correlation == b->duplicate_correlation && a->corrupt == b->corrupt &&
                a->corrupt_correlation == b->corrupt_correlation && a->reorder == b->reorder &&
                a->reorder_correlation == b->reorder_correlation && a->gap == b->gap &&
                a->seeded == b->seeded && (!a->seeded || a->seed == b->seed) && a->foreign == b->foreign;
}

const LeafVtable leaf_netem_vtable = {
        .kind = "netem",
        .module = "sch_netem",
        .encode = netem_encode,
        .decode = netem_decode,
        .equal = netem_equal,
};

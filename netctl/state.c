/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/state.h"

#include <stdio.h>
#include <string.h>

#include "netctl/netem-dist.h"

static uint32_t when(const Shape *s, ShapeField f, uint32_t v)
{
        return shape_has(s, f) ? v : 0;
}

static void slot_from_shape(const Shape *s, Netem *n)
{
        if (shape_has(s, SHAPE_SLOT)) {
                n->slot_min = s->slot[0];
                n->slot_max = s->slot[1];
        }
        if (shape_has(s, SHAPE_SLOT_DISTRIBUTION)) {
                n->slot_delay = s->slot_distribution.delay_ns;
                n->slot_jitter = s->slot_distribution.jitter_ns;
                n->slot_table = netem_table_id(&s->slot_distribution.name);
        }
        n->slot_packets = when(s, SHAPE_SLOT_PACKETS, s->slot_packets);
        n->slot_bytes = when(s, SHAPE_SLOT_BYTES, s->slot_bytes);
}

static void netem_from_shape(const Shape *s, uint32_t mtu, const Netem *actual, Netem *ret)
{
        uint32_t reorder = when(s, SHAPE_REORDER, s->reorder);
        uint32_t gap = when(s, SHAPE_GAP, s->gap);
        bool seeded = shape_has(s, SHAPE_SEED);
        Netem n = {
                .latency = shape_has(s, SHAPE_DELAY) ? s->delay_ns : 0,
                .jitter = shape_has(s, SHAPE_JITTER) ? s->jitter_ns : 0,
                .table = shape_has(s, SHAPE_DISTRIBUTION) ? netem_table_id(&s->distribution)
                                                          : NETEM_TABLE_UNIFORM,
                .limit = shape_effective_limit(s, mtu),
                .delay_correlation = when(s, SHAPE_DELAY_CORRELATION, s->delay_correlation),
                .loss_model = shape_has(s, SHAPE_LOSS_STATE) ? NETEM_STATE
                        : shape_has(s, SHAPE_LOSS_GEMODEL)   ? NETEM_GEMODEL
                                                             : NETEM_RANDOM,
                .loss = when(s, SHAPE_LOSS, s->loss),
                .loss_correlation = when(s, SHAPE_LOSS_CORRELATION, s->loss_correlation),
                .duplicate = when(s, SHAPE_DUPLICATE, s->duplicate),
                .duplicate_correlation = when(s, SHAPE_DUPLICATE_CORRELATION, s->duplicate_correlation),
                .corrupt = when(s, SHAPE_CORRUPT, s->corrupt),
                .corrupt_correlation = when(s, SHAPE_CORRUPT_CORRELATION, s->corrupt_correlation),
                .reorder = reorder,
                .reorder_correlation = when(s, SHAPE_REORDER_CORRELATION, s->reorder_correlation),
                /* tc does the same: without a gap nothing is reordered. */
                .gap = reorder > 0 && gap == 0 ? 1 : gap,
                .ecn = shape_has(s, SHAPE_ECN),
                .seeded = seeded,
                .seed = seeded ? s->seed : 0,
        };

        if (n.loss_model == NETEM_STATE)
                memcpy(n.loss_state, s->loss_state, sizeof(n.loss_state));
        if (n.loss_model == NETEM_GEMODEL)
                memcpy(n.loss_gemodel, s->loss_gemodel, sizeof(n.loss_gemodel));
        slot_from_shape(s, &n);
        n.reset_table = actual && actual->table != n.table;
        *ret = n;
}

static void red_from_shape(const Shape *s, uint32_t mtu, Red *ret)
{
        uint32_t limit = shape_effective_limit_bytes(s, mtu);
        Red red = {
                .min = when(s, SHAPE_RED_MIN, s->red_min),
                .max = when(s, SHAPE_RED_MAX, s->red_max),
                .probability =
                        shape_has(s, SHAPE_RED_PROBABILITY) ? s->red_probability : UINT32_MAX / 100 * 2,
                .ecn = shape_has(s, SHAPE_ECN),
                .harddrop = shape_has(s, SHAPE_RED_HARDDROP),
                .adaptive = shape_has(s, SHAPE_RED_ADAPTIVE),
        };

        /* As tc: max is a quarter of the limit, min a third of max. What the user gave pushes the others. */
        if (red.max == 0)
                red.max = red.min > 0 ? MIN2(red.min * 3, SHAPE_RED_BYTES_MAX) : limit / 4;
        if (red.min == 0)
                red.min = MAX2(red.max / 3, 1U);
        if (red.max <= red.min)
                red.max = red.min + 1;
        red.limit = MAX2(limit, red.max);
        red_compute(&red, s->rate_bps);
        *ret = red;
}

static LeafKind kind_from_shape(const Shape *s, const Leaf *actual, bool have_netem)
{
        if (shape_has(s, SHAPE_LINK))
                return LEAF_BLACKHOLE;
        if (shape_has(s, SHAPE_QUEUE))
                return LEAF_RED;
        if (shape_needs_netem(s))
                return LEAF_NETEM;
        if (shape_has(s, SHAPE_LIMIT_BYTES))
                return LEAF_BFIFO;
        if (actual && (actual->kind == LEAF_NETEM || actual->kind == LEAF_PFIFO))
                return actual->kind;
        return have_netem ? LEAF_NETEM : LEAF_PFIFO;
}

void leaf_from_shape(
        const Shape *s, uint32_t mtu, const Leaf *actual, bool have_netem, uint32_t class, Leaf *ret)
{
        Leaf leaf = {.kind = kind_from_shape(s, actual, have_netem)};
        const Leaf *same = actual && actual->kind == leaf.kind ? actual : NULL;
        bool slotted = false;

        switch (leaf.kind) {
        case LEAF_NETEM:
                netem_from_shape(s, mtu, same ? &same->netem : NULL, &leaf.netem);
                /* A table of slots stays in the kernel: it must not be there for slots without one. */
                slotted = shape_has(s, SHAPE_SLOT_DISTRIBUTION) ||
                        (!shape_has(s, SHAPE_SLOT) && same && leaf_is_slotted(same));
                break;
        case LEAF_RED:
                red_from_shape(s, mtu, &leaf.red);
                break;
        case LEAF_BFIFO:
                leaf.limit = shape_effective_limit_bytes(s, mtu);
                break;
        case LEAF_PFIFO:
                leaf.limit = shape_effective_limit(s, mtu);
                break;
        case LEAF_BLACKHOLE:
        case LEAF_NONE:
        case LEAF_OTHER:
        case _LEAF_KIND_MAX:
        default:
                break;
        }
        leaf.major = leaf_major(leaf.kind, slotted, class);
        *ret = leaf;
}

void tree_from_shape(const Shape *s, uint32_t mtu, const TcTree *actual, bool have_netem, TcTree *ret)
{
        bool ours = actual && actual->owner == TC_OURS && actual->has_class;
        TcTree t = {.owner = TC_OURS, .has_class = true};

        (void) snprintf(t.kind, sizeof(t.kind), "htb");
        htb_class_for_shape(s, mtu, &t.htb_class);
        leaf_from_shape(s, mtu, ours ? &actual->leaf : NULL, have_netem, 1, &t.leaf);
        *ret = t;
}

static void mark(Shape *s, ShapeField f)
{
        s->set |= UINT64_C(1) << f;
}

static void put_u32(Shape *s, ShapeField f, uint32_t *where, uint32_t v)
{
        if (v > 0) {
                *where = v;
                mark(s, f);
        }
}

static void put_u64(Shape *s, ShapeField f, uint64_t *where, uint64_t v)
{
        if (v > 0) {
                *where = v;
                mark(s, f);
        }
}

static void slot_to_shape(const Netem *n, Shape *s)
{
        if (n->slot_jitter > 0) {
                mark(s, SHAPE_SLOT_DISTRIBUTION);
                s->slot_distribution.delay_ns = n->slot_delay;
                s->slot_distribution.jitter_ns = n->slot_jitter;
                (void) netem_table_name(n->slot_table, &s->slot_distribution.name);
        } else if (n->slot_max > 0) {
                mark(s, SHAPE_SLOT);
                s->slot[0] = n->slot_min;
                s->slot[1] = n->slot_max;
        } else
                return;
        put_u32(s, SHAPE_SLOT_PACKETS, &s->slot_packets, n->slot_packets);
        put_u32(s, SHAPE_SLOT_BYTES, &s->slot_bytes, n->slot_bytes);
}

static void loss_to_shape(const Netem *n, Shape *s)
{
        if (n->loss_model == NETEM_STATE) {
                mark(s, SHAPE_LOSS_STATE);
                memcpy(s->loss_state, n->loss_state, sizeof(s->loss_state));
        } else if (n->loss_model == NETEM_GEMODEL) {
                mark(s, SHAPE_LOSS_GEMODEL);
                memcpy(s->loss_gemodel, n->loss_gemodel, sizeof(s->loss_gemodel));
        } else {
                put_u32(s, SHAPE_LOSS, &s->loss, n->loss);
                put_u32(s, SHAPE_LOSS_CORRELATION, &s->loss_correlation, n->loss_correlation);
        }
}

static void netem_to_shape(const Netem *n, Shape *s)
{
        put_u64(s, SHAPE_DELAY, &s->delay_ns, n->latency);
        put_u64(s, SHAPE_JITTER, &s->jitter_ns, n->jitter);
        if (n->jitter > 0 && n->table != NETEM_TABLE_UNIFORM && netem_table_name(n->table, &s->distribution))
                mark(s, SHAPE_DISTRIBUTION);
        if (n->seeded) {
                s->seed = n->seed;
                mark(s, SHAPE_SEED);
        }
        put_u32(s, SHAPE_DELAY_CORRELATION, &s->delay_correlation, n->delay_correlation);
        loss_to_shape(n, s);
        put_u32(s, SHAPE_ECN, &s->ecn, n->ecn);
        put_u32(s, SHAPE_DUPLICATE, &s->duplicate, n->duplicate);
        put_u32(s, SHAPE_DUPLICATE_CORRELATION, &s->duplicate_correlation, n->duplicate_correlation);
        put_u32(s, SHAPE_CORRUPT, &s->corrupt, n->corrupt);
        put_u32(s, SHAPE_CORRUPT_CORRELATION, &s->corrupt_correlation, n->corrupt_correlation);
        put_u32(s, SHAPE_REORDER, &s->reorder, n->reorder);
        put_u32(s, SHAPE_REORDER_CORRELATION, &s->reorder_correlation, n->reorder_correlation);
        if (n->reorder > 0 && n->gap > 1)
                put_u32(s, SHAPE_GAP, &s->gap, n->gap);
        slot_to_shape(n, s);
        put_u32(s, SHAPE_LIMIT, &s->limit, n->limit);
}

static void red_to_shape(const Red *red, Shape *s)
{
        s->queue = SHAPE_RED;
        mark(s, SHAPE_QUEUE);
        put_u32(s, SHAPE_RED_MIN, &s->red_min, red->min);
        put_u32(s, SHAPE_RED_MAX, &s->red_max, red->max);
        put_u32(s, SHAPE_RED_PROBABILITY, &s->red_probability, red->probability);
        put_u32(s, SHAPE_RED_HARDDROP, &s->red_harddrop, red->harddrop);
        put_u32(s, SHAPE_RED_ADAPTIVE, &s->red_adaptive, red->adaptive);
        put_u32(s, SHAPE_ECN, &s->ecn, red->ecn);
        put_u32(s, SHAPE_LIMIT_BYTES, &s->limit_bytes, red->limit);
}

void leaf_to_shape(const Leaf *leaf, Shape *s)
{
        switch (leaf->kind) {
        case LEAF_NETEM:
                netem_to_shape(&leaf->netem, s);
                break;
        case LEAF_RED:
                red_to_shape(&leaf->red, s);
                break;
        case LEAF_BFIFO:
                put_u32(s, SHAPE_LIMIT_BYTES, &s->limit_bytes, leaf->limit);
                break;
        case LEAF_PFIFO:
                put_u32(s, SHAPE_LIMIT, &s->limit, leaf->limit);
                break;
        case LEAF_BLACKHOLE:
                put_u32(s, SHAPE_LINK, &s->link_down, 1);
                break;
        case LEAF_NONE:
        case LEAF_OTHER:
        case _LEAF_KIND_MAX:
        default:
                break;
        }
}

void tree_to_shape(const TcTree *t, Shape *ret)
{
        Shape s = {};

        if (t->has_class)
                htb_class_to_shape(&t->htb_class, &s);
        leaf_to_shape(&t->leaf, &s);
        *ret = s;
}

int iface_from_shapes(const Shape *up, const Shape *down, uint32_t mtu, const char *node_id,
        const IfaceState *actual, bool have_netem, IfaceState *ret)
{
        IfaceState s = {.veth = actual->veth};

        if (down)
                tree_from_shape(down, mtu, &actual->down, have_netem, &s.down);
        if (up) {
                int r = ifb_identity(actual->veth, node_id, &s.ifb);
                if (r < 0)
                        return r;
                if (actual->ifb.present)
                        s.ifb.ifindex = actual->ifb.ifindex;
                tree_from_shape(up, mtu, actual->ifb.present ? &actual->up : NULL, have_netem, &s.up);
                s.ingress = (IngressState){.owner = TC_OURS, .filtered = true, .redirect = s.ifb.ifindex};
                (void) snprintf(s.ingress.kind, sizeof(s.ingress.kind), "ingress");
        }
        *ret = s;
        return 0;
}

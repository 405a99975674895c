/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/state.h"

#include <stdio.h>

static uint32_t when(const Shape *s, ShapeField f, uint32_t v)
{
        return shape_has(s, f) ? v : 0;
}

static void netem_from_shape(const Shape *s, uint32_t limit, Leaf *ret)
{
        ShapeDistribution d = shape_has(s, SHAPE_DISTRIBUTION) ? s->distribution : SHAPE_UNIFORM;
        bool seeded = shape_has(s, SHAPE_SEED);
        uint32_t reorder = when(s, SHAPE_REORDER, s->reorder);
        uint32_t gap = when(s, SHAPE_GAP, s->gap);

        *ret = (Leaf){
                .kind = LEAF_NETEM,
                .major = TC_MAJOR_NETEM | (uint32_t) d | (seeded ? TC_SEEDED : 0),
                .netem =
                        {
                                .latency = shape_has(s, SHAPE_DELAY) ? s->delay_ns : 0,
                                .jitter = shape_has(s, SHAPE_JITTER) ? s->jitter_ns : 0,
                                .limit = limit,
                                .delay_correlation = when(s, SHAPE_DELAY_CORRELATION, s->delay_correlation),
                                .loss = when(s, SHAPE_LOSS, s->loss),
                                .loss_correlation = when(s, SHAPE_LOSS_CORRELATION, s->loss_correlation),
                                .duplicate = when(s, SHAPE_DUPLICATE, s->duplicate),
                                .duplicate_correlation =
                                        when(s, SHAPE_DUPLICATE_CORRELATION, s->duplicate_correlation),
                                .corrupt = when(s, SHAPE_CORRUPT, s->corrupt),
                                .corrupt_correlation =
                                        when(s, SHAPE_CORRUPT_CORRELATION, s->corrupt_correlation),
                                .reorder = reorder,
                                .reorder_correlation =
                                        when(s, SHAPE_REORDER_CORRELATION, s->reorder_correlation),
                                /* tc does the same: without a gap nothing is reordered. */
                                .gap = reorder > 0 && gap == 0 ? 1 : gap,
                                .seeded = seeded,
                                .seed = seeded ? s->seed : 0,
                        },
        };
}

void tree_from_shape(const Shape *s, uint32_t mtu, const TcTree *actual, bool have_netem, TcTree *ret)
{
        uint32_t limit = shape_effective_limit(s, mtu);
        TcTree t = {.owner = TC_OURS, .has_class = true};

        (void) snprintf(t.kind, sizeof(t.kind), "htb");
        htb_class_for_rate(shape_has(s, SHAPE_RATE) ? s->rate_bps : 0, mtu, &t.htb_class);

        bool ours = actual && actual->owner == TC_OURS && actual->has_class;
        bool netem;
        if (shape_needs_netem(s))
                netem = true;
        else if (ours && (actual->leaf.kind == LEAF_NETEM || actual->leaf.kind == LEAF_PFIFO))
                netem = actual->leaf.kind == LEAF_NETEM;
        else
                netem = have_netem;

        if (netem) {
                netem_from_shape(s, limit, &t.leaf);
                /* Without jitter the distribution's table is not used: keep the leaf that is there. */
                if (ours && actual->leaf.kind == LEAF_NETEM && t.leaf.netem.jitter == 0 &&
                        ((actual->leaf.major ^ t.leaf.major) & TC_SEEDED) == 0)
                        t.leaf.major = actual->leaf.major;
        } else
                t.leaf = (Leaf){.kind = LEAF_PFIFO, .major = TC_MAJOR_FIFO, .limit = limit};
        *ret = t;
}

static void put_u32(Shape *s, ShapeField f, uint32_t *where, uint32_t v)
{
        if (v > 0) {
                *where = v;
                s->set |= UINT32_C(1) << f;
        }
}

static void netem_to_shape(const Leaf *leaf, Shape *s)
{
        const Netem *n = &leaf->netem;

        if (n->latency > 0) {
                s->delay_ns = n->latency;
                s->set |= UINT32_C(1) << SHAPE_DELAY;
        }
        if (n->jitter > 0) {
                s->jitter_ns = n->jitter;
                s->set |= UINT32_C(1) << SHAPE_JITTER;
                ShapeDistribution d = (ShapeDistribution) (leaf->major & 0xfU);
                if (d > SHAPE_UNIFORM && d < _SHAPE_DISTRIBUTION_MAX) {
                        s->distribution = d;
                        s->set |= UINT32_C(1) << SHAPE_DISTRIBUTION;
                }
        }
        if (n->seeded) {
                s->seed = n->seed;
                s->set |= UINT32_C(1) << SHAPE_SEED;
        }
        put_u32(s, SHAPE_DELAY_CORRELATION, &s->delay_correlation, n->delay_correlation);
        put_u32(s, SHAPE_LOSS, &s->loss, n->loss);
        put_u32(s, SHAPE_LOSS_CORRELATION, &s->loss_correlation, n->loss_correlation);
        put_u32(s, SHAPE_DUPLICATE, &s->duplicate, n->duplicate);
        put_u32(s, SHAPE_DUPLICATE_CORRELATION, &s->duplicate_correlation, n->duplicate_correlation);
        put_u32(s, SHAPE_CORRUPT, &s->corrupt, n->corrupt);
        put_u32(s, SHAPE_CORRUPT_CORRELATION, &s->corrupt_correlation, n->corrupt_correlation);
        put_u32(s, SHAPE_REORDER, &s->reorder, n->reorder);
        put_u32(s, SHAPE_REORDER_CORRELATION, &s->reorder_correlation, n->reorder_correlation);
        if (n->reorder > 0 && n->gap > 1)
                put_u32(s, SHAPE_GAP, &s->gap, n->gap);
}

void tree_to_shape(const TcTree *t, Shape *ret)
{
        Shape s = {};

        if (t->has_class && t->htb_class.rate > 0 && t->htb_class.rate * 8 < TC_UNLIMITED) {
                s.rate_bps = t->htb_class.rate * 8;
                s.set |= UINT32_C(1) << SHAPE_RATE;
        }
        if (t->leaf.kind == LEAF_NETEM)
                netem_to_shape(&t->leaf, &s);
        put_u32(&s, SHAPE_LIMIT, &s.limit, t->leaf.kind == LEAF_NETEM ? t->leaf.netem.limit : t->leaf.limit);
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

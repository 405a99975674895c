/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The kinds of leaves: their table, their handles, and those that have next to no parameters. */

#include <assert.h>
#include <linux/rtnetlink.h>

#include "common/strv.h"
#include "netctl/tc.h"

/* pfifo and bfifo have an explicit limit (pitfall P16: their default is the device's txqlen, which may be 0). */
static void fifo_encode(NlWriter *w, const Leaf *leaf)
{
        struct tc_fifo_qopt opt = {.limit = leaf->limit};

        nlw_put(w, TCA_OPTIONS, &opt, sizeof(opt));
}

static bool fifo_decode(const NlAttr *options, Leaf *leaf)
{
        struct tc_fifo_qopt opt;

        if (!nl_attr_struct(options, &opt, sizeof(opt)))
                return false;
        leaf->limit = opt.limit;
        return true;
}

static bool fifo_equal(const Leaf *a, const Leaf *b)
{
        return a->limit == b->limit;
}

const LeafVtable leaf_pfifo_vtable = {
        .kind = "pfifo",
        .module = "sch_fifo",
        .encode = fifo_encode,
        .decode = fifo_decode,
        .equal = fifo_equal,
};

const LeafVtable leaf_bfifo_vtable = {
        .kind = "bfifo",
        .module = "sch_fifo",
        .encode = fifo_encode,
        .decode = fifo_decode,
        .equal = fifo_equal,
};

/* Drops everything; built into every kernel that has traffic control (net/sched/Makefile). */
static void blackhole_encode(NlWriter *w, const Leaf *leaf)
{
        (void) w;
        (void) leaf;
}

static bool blackhole_decode(const NlAttr *options, Leaf *leaf)
{
        (void) options;
        (void) leaf;
        return true;
}

static bool blackhole_equal(const Leaf *a, const Leaf *b)
{
        return a->kind == b->kind;
}

const LeafVtable leaf_blackhole_vtable = {
        .kind = "blackhole",
        .module = "sch_blackhole",
        .encode = blackhole_encode,
        .decode = blackhole_decode,
        .equal = blackhole_equal,
};

static const LeafVtable *const leaf_table[] = {
        [LEAF_NONE] = NULL,
        [LEAF_PFIFO] = &leaf_pfifo_vtable,
        [LEAF_BFIFO] = &leaf_bfifo_vtable,
        [LEAF_NETEM] = &leaf_netem_vtable,
        [LEAF_RED] = &leaf_red_vtable,
        [LEAF_BLACKHOLE] = &leaf_blackhole_vtable,
        [LEAF_OTHER] = NULL,
};
static_assert(ELEMENTSOF(leaf_table) == _LEAF_KIND_MAX, "one vtable per kind of leaf");

const LeafVtable *leaf_vtable(LeafKind kind)
{
        return kind < _LEAF_KIND_MAX ? leaf_table[kind] : NULL;
}

LeafKind leaf_kind_from_string(const char *kind)
{
        for (LeafKind k = 0; k < _LEAF_KIND_MAX; k++)
                if (leaf_table[k] && tb_streq(leaf_table[k]->kind, kind))
                        return k;
        return LEAF_OTHER;
}

/* 0 is the slotted netem: the others are their kind. */
static_assert(LEAF_NONE == 0 && (unsigned) LEAF_OTHER <= TC_MAJOR_VARIANTS &&
                TC_MAJOR_LEAF % TC_MAJOR_VARIANTS == 0 && TC_MAJOR_LEAVES % TC_MAJOR_VARIANTS == 0,
        "variants of a handle");

uint32_t leaf_major(LeafKind kind, bool slotted, uint32_t class)
{
        uint32_t variant = kind == LEAF_NETEM && slotted ? 0 : (uint32_t) kind;

        return class <= 1 ? TC_MAJOR_LEAF + variant
                          : TC_MAJOR_LEAVES + (class - 2) * TC_MAJOR_VARIANTS + variant;
}

bool leaf_is_slotted(const Leaf *leaf)
{
        return leaf->kind == LEAF_NETEM && leaf->major % TC_MAJOR_VARIANTS == 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* pfifo with an explicit limit (pitfall P16: its default is the device's txqlen, which may be 0), and the table of leaves. */

#include <assert.h>
#include <linux/rtnetlink.h>

#include "common/strv.h"
#include "netctl/tc.h"

static void pfifo_encode(NlWriter *w, const Leaf *leaf)
{
        struct tc_fifo_qopt opt = {.limit = leaf->limit};

        nlw_put(w, TCA_OPTIONS, &opt, sizeof(opt));
}

static bool pfifo_decode(const NlAttr *options, Leaf *leaf)
{
        struct tc_fifo_qopt opt;

        if (!nl_attr_struct(options, &opt, sizeof(opt)))
                return false;
        leaf->limit = opt.limit;
        return true;
}

static bool pfifo_equal(const Leaf *a, const Leaf *b)
{
        return a->limit == b->limit;
}

const LeafVtable leaf_pfifo_vtable = {
        .kind = "pfifo",
        .module = "sch_fifo",
        .encode = pfifo_encode,
        .decode = pfifo_decode,
        .equal = pfifo_equal,
};

static const LeafVtable *const leaf_table[] = {
        [LEAF_NONE] = NULL,
        [LEAF_PFIFO] = &leaf_pfifo_vtable,
        [LEAF_NETEM] = &leaf_netem_vtable,
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

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/tc.h"

/* Shapes <-> kernel objects. Pure. */

/* The leaf of class 7462:<class> for a shape. `actual` (may be NULL) is what is there; it is kept as far as it can be, because
 * another kind of leaf drops the queue. `have_netem`: see below. */
void leaf_from_shape(
        const Shape *s, uint32_t mtu, const Leaf *actual, bool have_netem, uint32_t class, Leaf *ret);

/* Adds what the leaf does to a shape; the limit is always set, but for a link that is down. */
void leaf_to_shape(const Leaf *leaf, Shape *s);

/* The tree for a shape. `actual` is what is there (its leaf is kept as it is when the shape does not need netem: changing
 * the kind of a leaf would drop its queue); `have_netem`: make new leaves netem even if a pfifo would do, so that later
 * changes are in place. */
void tree_from_shape(const Shape *s, uint32_t mtu, const TcTree *actual, bool have_netem, TcTree *ret);

/*
 * Adds the rules of one direction to the tree that tree_from_shape() made: a class with its leaf for each, and the programs.
 * A rule keeps the class that it has in `actual` (NULL: nothing is there); a new one gets a free class, so that nobody
 * else's queue is touched. The programs are those of `actual` where they fit, else they go under the generation that is
 * free. Everything lies in the arena. TB_ERROR_CONFIG -E2BIG: see classify.h.
 */
int tree_add_rules(const ShapeRule *rules, size_t n, bool up, uint32_t mtu, const TcTree *actual,
        bool have_netem, Arena *arena, TcTree *tree, TbError **err) _warn_unused_;

/* What the tree does, in a shape's terms; `limit` is always set. */
void tree_to_shape(const TcTree *t, Shape *ret);

/* The whole interface; NULL for a direction without anything of ours. -EINVAL: id or ifindex out of range. */
int iface_from_shapes(const Shape *up, const Shape *down, uint32_t mtu, const char *node_id,
        const IfaceState *actual, bool have_netem, IfaceState *ret);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <linux/filter.h>

#include "netctl/arena.h"
#include "netctl/shape-rule.h"

/*
 * Which class of our root a packet belongs to: the rules of one direction as classic BPF programs for cls_bpf.
 *
 * A rule is a box in the space of (destination, source, protocol, ports); the first rule in order whose box has the packet
 * wins. The space is cut in halves, at the value that divides the rules best, until few rules are left, which are then
 * compared one by one: the cost grows with the logarithm of the number of rules, wherever they differ (hosts, networks,
 * sources, ports). u32's hash tables would cost one lookup for each prefix length, know no ranges, look for ports at a fixed
 * place, and can't be exchanged at once; flower is not in every kernel.
 *
 * A program answers for its family and its part of the space alone and returns the class (0: not mine, go on; in the end
 * the root's default). So programs may be in force in any order, and beside those of another generation, without a packet
 * getting an answer that neither generation has. A generation lies under one preference; the other one is put in place
 * before it goes.
 *
 * Behind its code a program carries, never executed, the rules themselves: what is in the kernel can be read back.
 *
 * Bounds: a program has at most CLASSIFY_OPS_MAX instructions, so that the kernel can list it in one piece of 32 kB.
 */

#define CLASSIFY_OPS_MAX 3500U
#define CLASSIFY_PROGRAMS_MAX 64U
/* With those that only carry rules: 4096 of up to 12 words each. */
#define CLASSIFY_ALL_MAX (CLASSIFY_PROGRAMS_MAX + 16U)

/* One rule of one direction, and where its packets go. */
typedef struct ClassifyRule {
        ShapeMatch match;
        uint16_t minor; /* of the class */
} ClassifyRule;

typedef struct Program {
        struct sock_filter *ops;
        uint16_t n;
} Program;

typedef struct Programs {
        Program *v;
        size_t n;
} Programs;

/* `rules` in the order of shape_match_compare(). `to_node`: for packets to the node, where `to` is the source. `major`: of
 * the root whose classes these are. Everything in *ret lies in the arena. TB_ERROR_CONFIG -E2BIG: rules that overlap so
 * much that they don't fit into the programs. */
int classify_compile(const ClassifyRule *rules, size_t n, bool to_node, uint32_t major, Arena *arena,
        Programs *ret, TbError **err) _warn_unused_;

bool programs_equal(const Programs *a, const Programs *b);

/* The rules that the programs carry. -EBADMSG: they are not ours or damaged. */
int classify_decode(const Programs *p, Arena *arena, ClassifyRule **ret, size_t *ret_n) _warn_unused_;

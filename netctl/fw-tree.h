/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw-rules.h"

/*
 * Dispatch by trees of chains, so that what a packet costs does not grow with the number of nodes, but with its logarithm.
 *
 * Addresses and ports: the keys are sorted. Where more than FW_TREE_BUCKET are left, one rule looks at the first bit in
 * which the first and the last of them differ and sends packets that have it set to another chain, with `goto`; the others
 * go on in the same chain. (Ports are asked for by their range, which for the first differing bit is the same.) At the end
 * a few rules look at the whole key and the veth, and go to the node's chain. A packet that none of them wants goes to the
 * tree of names: it is forged, or one that has no node's address (broadcasts, what a router passes on).
 *
 * Names of interfaces can only be asked for as a whole or by their beginning when iptables-save shall be able to write the
 * rule down. So there each chain branches by the next character: of Docker's names, which end in hexadecimal digits, at
 * most 16 ways.
 *
 * The shape depends only on the set of keys, and a chain's name only on its place: a new node changes a chain or two.
 */

#define FW_TREE_BUCKET 4

/* "TBNODE.<letter>" of the root. */
void tree_root_name(TreeKind kind, char ret[static XT_FUNCTION_MAXNAMELEN]);
/* Is this a chain of a tree? Then of which. */
bool tree_chain_kind(const char *chain, TreeKind *ret);
/* The leaf that a rule in a chain of this tree is; its target is not looked at. */
void tree_leaf_decode(TreeKind kind, const XtFamily *family, const void *entry, Leaf *ret);

/* Sorts by kind and key; of several that are the same way the first one added stays. */
void leaves_sort(Leaves *l);
/* Is there one (of sorted ones) that leads the same way to the same chain? */
bool leaves_have(const Leaves *l, const Leaf *leaf);

/* `leaves`: all of one kind, sorted, at least one. Appends the root chain and what hangs below it. `otherwise`: the chain for
 * packets that no leaf wants; NULL: they return. */
int tree_build(const XtFamily *family, const Leaf *leaves, size_t n, const char *otherwise, Chains *ret,
        TbError **err) _warn_unused_;

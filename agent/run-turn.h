/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/*
 * Whose node is made next
 *
 * Two hundred requests at once would be two hundred pulls, networks and starts at once in the engine: each would take as long
 * as all. So RUNS_ACTIVE_MAX nodes are being made at a time; that the engine starts more in parallel does not make all of them
 * sooner (design.md 5: 0.20 s one by one, 0.11 s in parallel). Augmentations have their own limit, before this one.
 */
#define RUNS_ACTIVE_MAX 16U

/* Index into `waiting` (oldest first; n > 0) of the request that goes next: the oldest one of those users who have the fewest
 * in `active`. Pure. */
size_t run_turn_choose(const uid_t *active, size_t n_active, const uid_t *waiting, size_t n_waiting);

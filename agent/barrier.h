/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/*
 * Barriers between the nodes of an experiment: whoever enters waits until `count` have entered, then all go on and the
 * name can be used anew. A barrier exists while somebody waits at it.
 *
 * A count is given by whoever enters first with one; another number later is an error of the one who gives it. Without a
 * count the barrier waits for the whole experiment, however large that is at the moment (its "population").
 *
 * Pure: no time, no connections. Names of scopes and barriers are the caller's to check and bound.
 */

typedef struct Barriers Barriers;
typedef struct BarrierWait BarrierWait;

/* The barrier has opened with `count` entered. The wait is gone when this is called: forget it. May not enter or leave. */
typedef void (*BarrierOpenFn)(unsigned count, void *userdata);

int barriers_new(Barriers **ret, TbError **err) _warn_unused_;
/* Waits that are left must have been left before. */
Barriers *barriers_free(Barriers *b);

/* `scope`: the experiment. `count` 0: all of it, `population` at the moment.
 * 0 = *ret waits; 1 = the barrier is open (*ret_count entered, *ret is not set: nothing to leave); -EINVAL kind CONFIG: the
 * barrier waits for another number. */
int barrier_enter(Barriers *b, const char *scope, const char *name, unsigned count, unsigned population,
        BarrierOpenFn fn, void *userdata, BarrierWait **ret, unsigned *ret_count, TbError **err)
        _warn_unused_;
/* Gives up waiting; NULL is fine. */
BarrierWait *barrier_leave(BarrierWait *w);
/* The experiment has become larger or smaller: barriers that wait for all of it may open. */
void barrier_set_population(Barriers *b, const char *scope, unsigned population);

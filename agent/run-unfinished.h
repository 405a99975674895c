/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * What an interrupted `tbnode run` left in the engine
 *
 * A run has a random number: the container's label RUN_LABEL, and, from before the engine is asked for the container until the node is
 * CONFIGURED or the container is removed again, an empty file <state-dir>/runs/NUMBER. A number whose file is there and whose run is not
 * under way is one that was cut short: by the agent's death, or by the engine's, which could not remove the container. Its container is
 * removed when the engine is connected the next time, or when it tells of it (what it was asked for may still happen), and networks
 * that nobody else uses with it. Nodes that `run` finished are not affected, however they came to a stop.
 */

#define RUN_LABEL "org.tbnode.run"
#define RUN_NUMBER_LEN 16U

/* The file of a new run; its number is in `ret`. */
int run_mark(const Manager *m, char ret[static RUN_NUMBER_LEN + 1], TbError **err) _warn_unused_;
/* Nothing of the run is unfinished any more. */
void run_unmark(const Manager *m, const char *number);

/* Looks for them, now or after the look that is under way; asks the engine only if there is a file. Failures are logged: the next look
 * finds them again. */
void run_sweep(Manager *m);
/* The engine made a container of this number. */
void run_sweep_created(Manager *m, const char *number);
void run_sweep_stop(Manager *m);

/* Is the run of this number under way? (run.c) */
bool run_is_under_way(const Manager *m, const char *number);

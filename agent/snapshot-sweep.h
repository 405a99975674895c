/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * What an interrupted snapshot left in the engine
 *
 * An image that the engine committed for a snapshot has SNAPSHOT_LABEL until it is finished and gone again. When the agent was
 * killed meanwhile, or the engine could not remove it, it is found by that label when the engine is connected the next time. Images of
 * snapshots that are under way stay.
 */

/* Looks for them; harmless when a look is under way. Failures are logged: the next look finds the image again. */
void snapshot_sweep(Manager *m);
void snapshot_sweep_stop(Manager *m);

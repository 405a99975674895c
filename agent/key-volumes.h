/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * The volumes of nodes go with their containers
 *
 * `tbnode run` mounts anonymous volumes on /tbnode/keys and /run/tbnode. `tbnode rm` has the engine remove it with the container, `docker rm`
 * without -v does not. The volumes carry a label, KEY_VOLUME_LABEL, so those that no container uses are found by asking the
 * engine, also after the agent was away; a volume in use cannot be removed, the engine sees to that.
 */

#define KEY_VOLUME_LABEL "tbnode.keys"

/* Looks for them, now or after the look that is under way. Failures are logged: the next look finds the volume again. */
void key_volumes_sweep(Manager *m);
void key_volumes_stop(Manager *m);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/config.h"
#include "agent/manager.h"
#include "common/error.h"

/*
 * Reading the configuration again while the agent runs (SIGHUP, systemctl reload)
 *
 * All or nothing: a file with an error changes nothing, and is told with its line. Of a good one, keys that may change while
 * nodes are there hold from then on; others are named, and hold after the next start (which nodes do not notice).
 */

/* Keys whose text differs are taken over from `new` when they may, or else listed in *ret_restart: names separated by ", ", or
 * NULL. *ret_changed: how many were taken over. `new` has the former values then. */
int config_update(Config *current, Config *new, char **ret_restart, size_t *ret_changed, TbError **err)
        _warn_unused_;

/* Reads the file of the start again; logs and records what came of it. */
void config_reload(Manager *m);

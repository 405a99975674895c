/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "augment/client/node-conf.h"
#include "augment/client/options.h"
#include "augment/client/spec.h"

/* Both run until the container ends and return the status to exit with. All signals are blocked on entry;
 * `mask` is what was in force before, for the programs that are started. */

/* Plain mode: just the program. */
int plain_run(const MainSpec *spec, uint64_t mask);

/* Node mode: runsvdir and its services. Falls back to plain mode, saying so, where there is no place to
 * write (a container whose user isn't root). */
int node_run(const MainSpec *spec, const NodeConf *conf, int stop_signal, uint64_t mask);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "augment/client/node-conf.h"
#include "augment/client/options.h"
#include "augment/client/spec.h"

/* Node mode: the services. Runs until the container ends and returns the status to exit with. All signals are blocked on
 * entry; `mask` is what was in force before, for the programs that are started. Becomes just the program, saying so,
 * where there is no place to write (a container whose user isn't root). */
int node_run(const MainSpec *spec, const NodeConf *conf, int stop_signal, uint64_t mask);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "common/error.h"

/* What a node may use at most of its host: `cpus`, `memory` and `pids` of POST /v1/nodes. */

#define RUN_CPUS_MAX 4096U
#define RUN_MEMORY_MIN (6U * 1024 * 1024) /* what the engine insists on (moby, linuxMinMemory) */
#define RUN_PIDS_MAX 4194304U             /* PID_MAX_LIMIT, proc(5) */

typedef struct RunLimits {
        uint64_t nano_cpus; /* 10^-9 of a processor's time; 0 = no limit */
        uint64_t memory;    /* bytes, swap included; 0 = no limit */
        uint64_t pids;      /* processes and threads; 0 = no limit */
} RunLimits;

/* "0.5" -> 500000000. No floating point: the value goes to the kernel. */
int run_limits_parse_cpus(const char *s, uint64_t *ret, TbError **err) _warn_unused_;
/* Members that are absent mean no limit. */
int run_limits_parse(const json_t *body, RunLimits *ret, TbError **err) _warn_unused_;
/* Adds them to the engine's HostConfig. */
int run_limits_add(const RunLimits *l, json_t *host, TbError **err) _warn_unused_;

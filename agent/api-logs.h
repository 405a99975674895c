/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

#include "agent/api.h"

/* Between the files of GET /v1/nodes/NODE/logs. */

#define LOGS_ALL_LINES UINT64_MAX

typedef enum LogsSource {
        LOGS_OUTPUT, /* of the container, as the engine has it */
        LOGS_SYSLOG, /* of the node */
        LOGS_ALL,    /* both, as far as there are both */
} LogsSource;

typedef struct LogsQuery {
        LogsSource source;
        bool follow, timestamps, json;
        uint64_t tail; /* lines, or LOGS_ALL_LINES */
        uint64_t since_ns;
} LogsQuery;

/* The ones with a system log, and all that are to be JSON; takes the request over, on success. -ENOTCONN, -ENOENT: there is no system
 * log now; with `source` LOGS_OUTPUT nobody looks for one. */
int logs_op_start(ApiRequest *request, const Node *n, const LogsQuery *query, bool tty, TbError **err)
        _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/client/macro.h"

typedef struct ServiceOptions {
        const char *socket; /* of the agent */
        const char *rundir;
        char *const *image_env; /* NULL-terminated */
} ServiceOptions;

/* `tbnode-client run`: the service. Returns a status to exit with, on SIGTERM or when it can't work at all. */
int service_run(const ServiceOptions *options);

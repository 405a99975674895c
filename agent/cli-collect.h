/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/cli.h"

typedef struct CollectOptions {
        const char *experiment;
        const char *target; /* a directory, or a tar file when its name says so */
        char **files;       /* patterns, in the nodes; NULL = none */
        const char *since;  /* for logs; NULL = all */
} CollectOptions;

/* `tbnode logs --collect`: a CliExit. */
int cli_collect(Cli *c, const CollectOptions *o);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What users of a node ask: `tbnode-client COMMAND`. */

#include <stdbool.h>

#include "augment/client/macro.h"

enum {
        CLIENT_DONE = 0,
        CLIENT_FAILED = 1,
        CLIENT_USAGE = 2,
        CLIENT_NO_AGENT = 3
};

/* argv[0] is the command. `socket` is the agent's. */
int client_command(const char *socket, bool json, char **argv);
/* Names and one line each, for --help. */
void client_commands_help(void);

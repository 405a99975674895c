/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/client/macro.h"

/* `tmcc [OPTIONS] COMMAND [ARGS]`: Emulab's client, on the node's own socket. The agent knows the formats; what it answers is printed as it
 * comes. Returns 0, or 1 after having said why not. */
int tmcc_main(int argc, char **argv);

/* The request for a command: "VERSION=40 COMMAND ARGS " (reference: emulab, clientside/tmcc/tmcc.c). `argv` is NULL-terminated. To be freed;
 * NULL: there is none, or it is longer than the protocol's 32 kB. */
char *tmcc_request(char *const *argv, const char *version);

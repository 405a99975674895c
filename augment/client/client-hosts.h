/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * /etc/hosts: what is ours stands between two marks, everything else stays byte for byte. The engine mounts the file and changes
 * it itself when networks come and go, so it is written in place, and its own lines win: they come first.
 */

#include <jansson.h>

#include "augment/client/client-text.h"

#define HOSTS_BEGIN "# tbnode-client begin"
#define HOSTS_END "# tbnode-client end"

/* The text with our block holding `hosts` (an array of name, address, aliases), or without a block when there are none. Entries that
 * can't stand in the file are added to `p`. NULL without memory. To be freed. */
char *hosts_edit(const char *text, const json_t *hosts, Problems *p);

/* Edits the file, when it isn't right already. */
void hosts_apply(const char *path, const json_t *hosts, Problems *p);

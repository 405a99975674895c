/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Making the node what its declaration says. Every step is idempotent and independent of the others: what can't be done is a problem, the rest
 * is done all the same. */

#include <jansson.h>

#include "augment/client/client-text.h"

typedef struct ApplyPlace {
        const char *root;   /* "" */
        const char *rundir; /* /run/tbnode */
        const char *path;   /* the image's PATH */
} ApplyPlace;

/* Host name, /etc/hosts, accounts, environment, mounts, the link of tmcc. Not the routes: they come and go, see routes_check(). */
void node_apply(const ApplyPlace *place, const json_t *declaration, Problems *p);

/* "NAME=value" of the declared environment, NULL-terminated, each to be freed; entries that no environment can have are left out. NULL without
 * memory. */
char **declared_environment(const json_t *declaration);
void environment_free(char **env);

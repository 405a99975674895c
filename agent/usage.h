/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/manager.h"
#include "common/error.h"

/*
 * When images were used last
 *
 * STATE-DIR/images.json: { "version": 1, "images": { "<repository>@<digest>": { "seen": s, "used": s } } }, in seconds since
 * 1970. Uses are noted in memory; the file is written a minute after the first of them and when the agent ends: what a crash
 * loses is a minute, where days are counted. An idle agent writes nothing.
 *
 * Hosts share a registry, so each tells the others: what it used and when, and what its containers use now, as the document
 * tbnode/usage:<machine id> in the registry (augment/inventory.h), at most every ten minutes. What a host's containers used
 * when it said so counts as used until it says otherwise.
 */

typedef struct Usage Usage;

/* A file that is broken is left aside, with a warning: the worst that happens is that old images stay for longer. */
int usage_new(Manager *m, Usage **ret, TbError **err) _warn_unused_;
/* Saves first. */
Usage *usage_free(Usage *u);

/* These two accept NULL: a manager that is not set up keeps no notes. */
/* "host/repository[:tag][@digest]" with its digest is being used. */
void usage_note(Usage *u, const char *image, const char *digest);
/* Containers have come or gone: the others are told soon. */
void usage_touch(Usage *u);
/* When it was seen first (now, when it was not) and used last (0 = never) on this host; `key` is "<repository>@<digest>". */
void usage_get(Usage *u, const char *key, int64_t *ret_seen, int64_t *ret_used);
/* Forgets what is not in `keys` (an object) and was not used today. */
void usage_forget_others(Usage *u, const json_t *keys);

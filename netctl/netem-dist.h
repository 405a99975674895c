/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/shape.h"

/*
 * Tables of delay distributions, as netem takes them: the kernel draws an entry and adds jitter * entry /
 * NETEM_DIST_SCALE (8192) to the delay.
 *
 * normal, pareto and paretonormal are computed here. Any other name, and file:NAME, is a file NAME.dist in the directory of
 * the site, else in those of iproute2: numbers from -32768 to 32767 between white space, "#" begins a comment (the format of
 * tc(8)'s own tables).
 *
 * A table has an id, which netem keeps for us (tc.h). That of a file depends on its name and content, so that a file that
 * was changed is another table. Tables that were read stay in memory as long as the process: what the kernel has must be
 * known when it is to be put back. Everything here is for one thread.
 */

#define NETEM_TABLE_UNIFORM 0U
/* Two tables fit into one netlink attribute (64 kB). */
#define NETEM_TABLE_ENTRIES_MAX 16000U
#define NETEM_TABLES_MAX 256U
#define NETEM_TABLES_DIRECTORY "/etc/tbnode/distributions"

/*
 * Makes a name known: reads its file when it is new or changed. `directory` may be NULL (the default one). Errors:
 * TB_ERROR_CONFIG -ENOENT (no such file anywhere: the message says where it was looked for), -EINVAL (not a table: with the
 * line), -E2BIG (too many entries or tables).
 */
int netem_table_load(const char *directory, const ShapeName *name, TbError **err) _warn_unused_;
/* All files of both places, as far as they are tables: for ids that a former process gave. */
void netem_table_load_all(const char *directory);

/* The id of a name that was loaded; uniform for one that was not. */
uint32_t netem_table_id(const ShapeName *name);
/* False for an unknown id. */
bool netem_table_name(uint32_t id, ShapeName *ret);
/* The entries; those of a uniform distribution for NETEM_TABLE_UNIFORM, NULL for an unknown id. */
const int16_t *netem_table_entries(uint32_t id, size_t *ret_n);

/* Reads a table's text; *ret is the caller's. For netem_table_load() and its tests. */
int netem_table_parse(const char *text, size_t size, int16_t **ret, size_t *ret_n, TbError **err)
        _warn_unused_;

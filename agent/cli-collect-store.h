/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/error.h"

/*
 * Where a collection goes: a directory, or a tar file
 *
 * Everything is written into a directory of a temporary name beside the target, and gets its own name when it is complete; what is
 * interrupted has none. Whatever a node calls its files, nothing is written outside of that directory: names are checked
 * component by component, and opened so that no symlink is followed (openat2(2)); we never make one.
 */
typedef struct Store Store;

/* -EEXIST when the target is there (an empty directory is taken). Makes nothing else than the temporary directory. */
int store_new(const char *target, Store **ret, TbError **err) _warn_unused_;
/* Removes what has not been finished. */
Store *store_free(Store *s);
TB_DEFINE_CLEANUP(Store *, store_free)

/* A new file for writing, `directory`/`path`; -EEXIST, and -EINVAL for names that are none (printable ASCII, no ".", no ".."). */
int store_create(Store *s, const char *directory, const char *path, int *ret_fd, TbError **err)
        _warn_unused_;
/* One for people and programs; `j` NULL: out of memory. */
int store_write_json(Store *s, const char *directory, const char *path, const json_t *j, TbError **err)
        _warn_unused_;
/* A file without a name, for what is looked at later. */
int store_scratch(Store *s, int *ret_fd, TbError **err) _warn_unused_;
/* Gives it its name. `stop` is asked between files: true ends it with -ECANCELED. */
int store_finish(Store *s, bool (*stop)(void), TbError **err) _warn_unused_;
/* Is this a name that store_create() takes? Pure. */
bool store_path_is_valid(const char *path);

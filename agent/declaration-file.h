/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/manager.h"

/*
 * <state-dir>/declarations/<key>.json: {"version": 1, "declaration": {...}}. Readable by root only, for it has password
 * hashes. A newer version, or a broken file, is an error: what was declared is never thrown away silently.
 */

#define DECLARATION_FILE_VERSION 1

/* The directory; NULL when out of memory. */
char *declaration_file_dir(const Manager *m);
/* 1 = *ret (checked, the caller's); 0 = there is none. */
int declaration_file_load(const Manager *m, const char *key, json_t **ret, TbError **err) _warn_unused_;
/* Durable when it returns. NULL removes the file. */
int declaration_file_save(const Manager *m, const char *key, const json_t *declaration, TbError **err)
        _warn_unused_;
void declaration_file_remove(const Manager *m, const char *key);

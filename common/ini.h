/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "common/error.h"

/*
 * Strict ini files: `key=value`, `[section]`, comments with # or ; at the start of a line, no continuation
 * lines. An unknown section or key, a duplicate of a key that is not a list, or a value its parser refuses
 * is an error that names file:line. White space around key and value is dropped; there is no quoting.
 */

typedef int (*TbIniParseFn)(const char *value, void *userdata, TbError **err);

typedef struct TbIniItem {
        const char *section; /* NULL = before the first [section] */
        const char *key;
        TbIniParseFn parse;
        void *userdata;
        bool list;              /* may be given more than once */
        const char *help;       /* one line, for the reference */
        const char *value_name; /* "URL", "PATH", ... for the reference */
} TbIniItem;

/* At most 1 MiB. A missing file gives -ENOENT. */
int tb_ini_load(const char *path, const TbIniItem *items, size_t n_items, TbError **err) _warn_unused_;
/* The same on memory; `name` stands for the file in messages. */
int tb_ini_parse(const char *name, const char *data, size_t size, const TbIniItem *items, size_t n_items,
        TbError **err) _warn_unused_;

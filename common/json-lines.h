/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "common/error.h"
#include "common/json.h"

/* Splits a byte stream into JSON values, one per line, each at most `max` bytes. The format of the engine's
 * event, build and push streams, of the worker's output and of our own API's progress. */
typedef struct TbJsonLines TbJsonLines;
typedef int (*TbJsonLineFn)(const json_t *line, void *userdata, TbError **err);
int tb_json_lines_new(const char *what, size_t max, TbJsonLineFn fn, void *userdata, TbJsonLines **ret,
        TbError **err) _warn_unused_;
TbJsonLines *tb_json_lines_free(TbJsonLines *l);
TB_DEFINE_CLEANUP(TbJsonLines *, tb_json_lines_free)
/* -EMSGSIZE for a line beyond max, -EBADMSG for one that is no JSON, or what `fn` returned. After an error
 * the object can only be freed. */
int tb_json_lines_feed(TbJsonLines *l, const void *data, size_t size, TbError **err) _warn_unused_;
/* The stream has ended: a last value without newline is delivered. */
int tb_json_lines_finish(TbJsonLines *l, TbError **err) _warn_unused_;

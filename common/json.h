/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Strict JSON on top of jansson: input is untrusted and bounded. Refused: more than `max` bytes, nesting
 * deeper than 64, duplicate keys, trailing bytes, invalid UTF-8, NUL in strings. Messages carry line and
 * column, and the getters name the key and what was expected ("manifest: layers[3].size: expected an
 * integer, found a string").
 */

static inline void tb_json_decrefp(json_t **j)
{
        json_decref(*j);
}
#define _cleanup_json_ _cleanup_(tb_json_decrefp)

/* `what` names the document in messages. */
int tb_json_parse(const char *data, size_t size, size_t max, const char *what, json_t **ret, TbError **err)
        _warn_unused_;
/* The same for documents that hold secrets: messages say where it went wrong, but quote nothing. */
int tb_json_parse_secret(const char *data, size_t size, size_t max, const char *what, json_t **ret,
        TbError **err) _warn_unused_;
int tb_json_load_file(const char *path, size_t max, json_t **ret, TbError **err) _warn_unused_;

/* Compact; sort = canonical key order, else insertion order. The caller frees. */
int tb_json_dump(const json_t *j, bool sort, char **ret, size_t *ret_size, TbError **err) _warn_unused_;
/* For people: indented by 2. */
int tb_json_dump_pretty(const json_t *j, char **ret, TbError **err) _warn_unused_;

/*
 * Getters: 1 = present, 0 = absent or null (the output is untouched), -EINVAL = another type, or `obj` is no
 * object. Strings and objects are borrowed from the document.
 */
int tb_json_get_string(const json_t *obj, const char *key, const char **ret, TbError **err) _warn_unused_;
int tb_json_get_bool(const json_t *obj, const char *key, bool *ret, TbError **err) _warn_unused_;
int tb_json_get_u64(const json_t *obj, const char *key, uint64_t *ret, TbError **err) _warn_unused_;
int tb_json_get_object(const json_t *obj, const char *key, json_t **ret, TbError **err) _warn_unused_;
int tb_json_get_array(const json_t *obj, const char *key, json_t **ret, TbError **err) _warn_unused_;
/* An array of strings as a strv; null entries are an error. */
int tb_json_get_strv(const json_t *obj, const char *key, char ***ret, TbError **err) _warn_unused_;

/* Builders: steal nothing, return -ENOMEM through err. A NULL string sets JSON null. */
int tb_json_set_string(json_t *obj, const char *key, const char *value, TbError **err) _warn_unused_;
int tb_json_set_u64(json_t *obj, const char *key, uint64_t value, TbError **err) _warn_unused_;
int tb_json_set_bool(json_t *obj, const char *key, bool value, TbError **err) _warn_unused_;
/* Takes ownership of `value` in every case. */
int tb_json_set_new(json_t *obj, const char *key, json_t *value, TbError **err) _warn_unused_;
json_t *tb_json_from_strv(char *const *v);

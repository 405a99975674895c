/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"

/* jansson's own bound is 2048 levels, fixed when it was compiled, and its parser and json_decref() recurse. */
#define DEPTH_MAX 64u

typedef struct Position {
        size_t line, column;
} Position;

/* Counts brackets outside strings; whether they match is the parser's business. */
static bool too_deep(const char *data, size_t size, Position *ret)
{
        size_t depth = 0, line = 1, line_start = 0;
        bool in_string = false;

        for (size_t i = 0; i < size; i++) {
                switch (data[i]) {
                case '\\':
                        if (in_string)
                                i++;
                        break;
                case '"':
                        in_string = !in_string;
                        break;
                case '\n':
                        line++;
                        line_start = i + 1;
                        break;
                case '[':
                case '{':
                        if (!in_string && ++depth > DEPTH_MAX) {
                                *ret = (Position){.line = line, .column = i - line_start + 1};
                                return true;
                        }
                        break;
                case ']':
                case '}':
                        if (!in_string && depth > 0)
                                depth--;
                        break;
                default:
                        break;
                }
        }
        return false;
}

static int parse(const char *data, size_t size, size_t max, const char *what, TbErrorKind kind, bool secret,
        json_t **ret, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        json_error_t error = {};
        Position p = {};
        json_t *j;

        if (size > max)
                return tb_error_set(err, kind, -EMSGSIZE,
                        "%s: %zu bytes of JSON are more than the limit of %zu", what, size, max);
        if (too_deep(data, size, &p))
                return tb_error_set(err, kind, -EINVAL,
                        "%s: line %zu, column %zu: JSON is nested deeper than %u levels", what, p.line,
                        p.column, DEPTH_MAX);

        j = json_loadb(size > 0 ? data : "", size, JSON_REJECT_DUPLICATES, &error);
        if (!j) {
                if (json_error_code(&error) == json_error_out_of_memory)
                        return tb_error_oom(err);
                /* The text quotes the input. */
                if (secret && strstr(error.text, " near "))
                        *strstr(error.text, " near ") = 0;
                text = tb_escape_control(error.text, sizeof(error.text));
                return tb_error_set(err, kind, -EINVAL, "%s: line %d, column %d: %s", what,
                        MAX2(error.line, 1), MAX2(error.column, 0), text ?: "not valid JSON");
        }
        *ret = j;
        return 0;
}

int tb_json_parse(const char *data, size_t size, size_t max, const char *what, json_t **ret, TbError **err)
{
        return parse(data, size, max, what, TB_ERROR_REMOTE, false, ret, err);
}

int tb_json_parse_secret(
        const char *data, size_t size, size_t max, const char *what, json_t **ret, TbError **err)
{
        return parse(data, size, max, what, TB_ERROR_REMOTE, true, ret, err);
}

int tb_json_load_file(const char *path, size_t max, json_t **ret, TbError **err)
{
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        r = tb_file_read(path, max, &data, &size, err);
        if (r < 0)
                return r;
        return parse(data, size, max, path, TB_ERROR_CONFIG, false, ret, err);
}

static int dump(const json_t *j, size_t flags, char **ret, size_t *ret_size, TbError **err)
{
        char *s = json_dumps(j, flags | JSON_ENCODE_ANY);

        /* Strings in a json_t are valid UTF-8 and there are no loops in what we build: only memory can be missing. */
        if (!s)
                return tb_error_oom(err);
        if (ret_size)
                *ret_size = strlen(s);
        *ret = s;
        return 0;
}

int tb_json_dump(const json_t *j, bool sort, char **ret, size_t *ret_size, TbError **err)
{
        return dump(j, JSON_COMPACT | (sort ? JSON_SORT_KEYS : 0), ret, ret_size, err);
}

int tb_json_dump_pretty(const json_t *j, char **ret, TbError **err)
{
        /* 15 digits are what a double holds exactly: 1.628, not 1.6279999999999999. */
        return dump(j, JSON_INDENT(2) | JSON_REAL_PRECISION(15), ret, NULL, err);
}

static const char *type_name(const json_t *j)
{
        if (!j)
                return "nothing";
        switch (json_typeof(j)) {
        case JSON_OBJECT:
                return "an object";
        case JSON_ARRAY:
                return "an array";
        case JSON_STRING:
                return "a string";
        case JSON_INTEGER:
                return "an integer";
        case JSON_REAL:
                return "a number with a fraction or exponent";
        case JSON_TRUE:
        case JSON_FALSE:
                return "a boolean";
        case JSON_NULL:
                return "null";
        default:
                return "something else";
        }
}

static int type_error(TbError **err, const char *key, const char *expected, const json_t *found)
{
        _cleanup_free_ char *shown = tb_escape_control(key, 100);

        return tb_error_set(err, TB_ERROR_REMOTE, -EINVAL, "%s: expected %s, found %s", shown ?: "?",
                expected, type_name(found));
}

/* 1: *ret is present and not null; 0: it is not. */
static int lookup(const json_t *obj, const char *key, json_t **ret, TbError **err)
{
        json_t *j;

        if (!json_is_object(obj))
                return tb_error_set(err, TB_ERROR_REMOTE, -EINVAL,
                        "expected an object with \"%s\", found %s", key, type_name(obj));
        j = json_object_get(obj, key);
        if (!j || json_is_null(j))
                return 0;
        *ret = j;
        return 1;
}

int tb_json_get_string(const json_t *obj, const char *key, const char **ret, TbError **err)
{
        json_t *j = NULL;
        int r;

        r = lookup(obj, key, &j, err);
        if (r <= 0)
                return r;
        if (!json_is_string(j))
                return type_error(err, key, "a string", j);
        *ret = json_string_value(j);
        return 1;
}

int tb_json_get_bool(const json_t *obj, const char *key, bool *ret, TbError **err)
{
        json_t *j = NULL;
        int r;

        r = lookup(obj, key, &j, err);
        if (r <= 0)
                return r;
        if (!json_is_boolean(j))
                return type_error(err, key, "a boolean", j);
        *ret = json_is_true(j);
        return 1;
}

int tb_json_get_u64(const json_t *obj, const char *key, uint64_t *ret, TbError **err)
{
        json_t *j = NULL;
        int r;

        r = lookup(obj, key, &j, err);
        if (r <= 0)
                return r;
        if (!json_is_integer(j))
                return type_error(err, key, "an integer", j);
        if (json_integer_value(j) < 0)
                return type_error(err, key, "an integer that is not negative", j);
        *ret = (uint64_t) json_integer_value(j);
        return 1;
}

int tb_json_get_object(const json_t *obj, const char *key, json_t **ret, TbError **err)
{
        json_t *j = NULL;
        int r;

        r = lookup(obj, key, &j, err);
        if (r <= 0)
                return r;
        if (!json_is_object(j))
                return type_error(err, key, "an object", j);
        *ret = j;
        return 1;
}

int tb_json_get_array(const json_t *obj, const char *key, json_t **ret, TbError **err)
{
        json_t *j = NULL;
        int r;

        r = lookup(obj, key, &j, err);
        if (r <= 0)
                return r;
        if (!json_is_array(j))
                return type_error(err, key, "an array", j);
        *ret = j;
        return 1;
}

int tb_json_get_strv(const json_t *obj, const char *key, char ***ret, TbError **err)
{
        _cleanup_strv_ char **v = NULL;
        json_t *array = NULL;
        size_t n;
        int r;

        r = tb_json_get_array(obj, key, &array, err);
        if (r <= 0)
                return r;

        n = json_array_size(array);
        v = calloc(n + 1, sizeof(char *));
        if (!v)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++) {
                const json_t *item = json_array_get(array, i);

                if (!json_is_string(item)) {
                        _cleanup_free_ char *name = tb_asprintf("%s[%zu]", key, i);

                        return type_error(err, name ?: key, "a string", item);
                }
                v[i] = strdup(json_string_value(item));
                if (!v[i])
                        return tb_error_oom(err);
        }
        *ret = TAKE_PTR(v);
        return 1;
}

int tb_json_set_new(json_t *obj, const char *key, json_t *value, TbError **err)
{
        /* json_object_set_new() drops the value when it fails, and a NULL value is a failed json_...(). */
        if (json_object_set_new(obj, key, value) < 0)
                return tb_error_oom(err);
        return 0;
}

int tb_json_set_string(json_t *obj, const char *key, const char *value, TbError **err)
{
        if (value && !tb_utf8_is_valid(value)) {
                _cleanup_free_ char *shown = tb_escape(value, 100);

                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EILSEQ, "%s: \"%s\" is not valid UTF-8", key, shown ?: "?");
        }
        return tb_json_set_new(obj, key, value ? json_string(value) : json_null(), err);
}

int tb_json_set_u64(json_t *obj, const char *key, uint64_t value, TbError **err)
{
        if (value > (uint64_t) LLONG_MAX)
                return tb_error_set(err, TB_ERROR_BUG, -ERANGE, "%s: %llu is too big for a JSON integer",
                        key, (unsigned long long) value);
        return tb_json_set_new(obj, key, json_integer((json_int_t) value), err);
}

int tb_json_set_bool(json_t *obj, const char *key, bool value, TbError **err)
{
        return tb_json_set_new(obj, key, json_boolean(value), err);
}

json_t *tb_json_from_strv(char *const *v)
{
        json_t *array = json_array();

        for (; array && v && *v; v++)
                if (json_array_append_new(array, json_string(*v)) < 0) {
                        json_decref(array);
                        return NULL;
                }
        return array;
}

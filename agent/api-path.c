/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Paths and errors of the API: the pure part. */

#include <string.h>

#include "agent/api.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

/* RFC 3986, 2.1 */
int api_decode(const char *s, size_t n, char **ret, TbError **err)
{
        _cleanup_free_ char *out = malloc(n + 1);
        size_t k = 0;

        if (!out)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++) {
                if (s[i] == '%') {
                        int hi = i + 2 < n ? hex_digit(s[i + 1]) : -1;
                        int lo = hi >= 0 ? hex_digit(s[i + 2]) : -1;

                        if (lo < 0 || (hi == 0 && lo == 0))
                                return tb_error_set(
                                        err, TB_ERROR_CONFIG, -EINVAL, "the URL has a bad %%-escape");
                        out[k++] = (char) (hi << 4 | lo);
                        i += 2;
                } else
                        out[k++] = s[i];
        }
        out[k] = 0;
        *ret = TAKE_PTR(out);
        return 0;
}

int api_split_path(const char *path, char ***ret, TbError **err)
{
        _cleanup_strv_ char **segments = NULL;
        size_t count = 0;
        int r;

        if (path[0] != '/')
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the path does not start with /");
        while (*path) {
                size_t n = strcspn(++path, "/");
                char *segment;

                if (++count > API_SEGMENTS_MAX)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the path has too many parts");
                r = api_decode(path, n, &segment, err);
                if (r < 0)
                        return r;
                r = tb_strv_consume(&segments, segment, err);
                if (r < 0)
                        return r;
                path += n;
        }
        *ret = TAKE_PTR(segments);
        return 0;
}

static bool path_matches(const char *pattern, char *const *segments, size_t n, size_t *ret_args)
{
        size_t args = 0, i = 0;

        while (*pattern) {
                size_t len = strcspn(++pattern, "/");

                if (i >= n)
                        return false;
                if (len == 2 && memcmp(pattern, "{}", 2) == 0) {
                        if (segments[i][0] == 0)
                                return false;
                        ret_args[args++] = i;
                } else if (strlen(segments[i]) != len || memcmp(segments[i], pattern, len) != 0)
                        return false;
                i++;
                pattern += len;
        }
        return i == n;
}

int api_match(
        const char *method, char *const *segments, size_t n, const ApiOperation **ret, size_t *ret_args)
{
        bool other = false;

        for (const ApiOperation *o = api_operations; o->method; o++) {
                if (!path_matches(o->path, segments, n, ret_args))
                        continue;
                if (!tb_streq(o->method, method)) {
                        other = true;
                        continue;
                }
                *ret = o;
                return 0;
        }
        return other ? -ENOTSUP : -ENOENT;
}

unsigned api_error_status(const TbError *err)
{
        if (!err)
                return 500;
        switch (err->kind) {
        case TB_ERROR_CONFIG:
                if (err->code == -ENOENT)
                        return 404;
                if (err->code == -EACCES)
                        return 403;
                return err->code == -EEXIST || err->code == -EBUSY || err->code == -ENOTUNIQ ||
                                err->code == -ENOTCONN
                        ? 409
                        : 400;
        case TB_ERROR_ENVIRONMENT:
        case TB_ERROR_CANCELLED:
                return 503;
        case TB_ERROR_RESOURCE:
                return 507;
        case TB_ERROR_REMOTE:
                return err->code == -ENOENT ? 404 : 502;
        case TB_ERROR_BUG:
        case TB_ERROR_SYSTEM:
        case _TB_ERROR_KIND_MAX:
                break;
        }
        return 500;
}

json_t *api_error_to_json(const TbError *err)
{
        const char *name = err ? strerrorname_np(-err->code) : NULL;

        return json_pack("{s:s, s:s, s:s, s:b}", "kind", err ? tb_error_kind_to_string(err->kind) : "bug",
                "code", name ?: "EIO", "message", tb_error_message(err), "retryable", err && err->retryable);
}

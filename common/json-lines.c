/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/buffer.h"
#include "common/json-lines.h"
#include "common/strv.h"

struct TbJsonLines {
        char *what;
        size_t max;
        TbJsonLineFn fn;
        void *userdata;
        TbBuffer partial; /* the line whose newline has not come yet */
        bool failed;
};

int tb_json_lines_new(
        const char *what, size_t max, TbJsonLineFn fn, void *userdata, TbJsonLines **ret, TbError **err)
{
        TbJsonLines *l;

        l = calloc(1, sizeof(*l));
        if (!l)
                return tb_error_oom(err);
        l->what = strdup(what);
        if (!l->what) {
                free(l);
                return tb_error_oom(err);
        }
        l->max = max;
        l->fn = fn;
        l->userdata = userdata;
        l->partial = TB_BUFFER_INIT(max);
        *ret = l;
        return 0;
}

TbJsonLines *tb_json_lines_free(TbJsonLines *l)
{
        if (!l)
                return NULL;
        tb_buffer_done(&l->partial);
        free(l->what);
        free(l);
        return NULL;
}

static bool is_blank(const char *line, size_t size)
{
        for (size_t i = 0; i < size; i++)
                if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
                        return false;
        return true;
}

static int json_lines_deliver(TbJsonLines *l, const char *line, size_t size, TbError **err)
{
        _cleanup_json_ json_t *value = NULL;
        int r;

        if (is_blank(line, size))
                return 0;
        r = tb_json_parse(line, size, l->max, l->what, &value, err);
        if (r < 0)
                return r == -ENOMEM ? r : -EBADMSG;
        return l->fn(value, l->userdata, err);
}

static int json_lines_append(TbJsonLines *l, const char *data, size_t size, TbError **err)
{
        if (size > l->max - l->partial.size)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "%s: a line is longer than %zu bytes",
                        l->what, l->max);
        return tb_buffer_append(&l->partial, data, size, err);
}

int tb_json_lines_feed(TbJsonLines *l, const void *data, size_t size, TbError **err)
{
        const char *p = data;
        int r = 0;

        if (l->failed)
                return tb_error_set(err, TB_ERROR_BUG, -ESTALE, "%s: fed after an error", l->what);

        while (size > 0 && r >= 0) {
                const char *nl = memchr(p, '\n', size);
                size_t n = nl ? (size_t) (nl - p) : size;

                if (!nl)
                        r = json_lines_append(l, p, n, err);
                else if (l->partial.size == 0 && n <= l->max)
                        r = json_lines_deliver(l, p, n, err); /* the common case: no copy */
                else {
                        r = json_lines_append(l, p, n, err);
                        if (r >= 0)
                                r = json_lines_deliver(l, l->partial.data, l->partial.size, err);
                        tb_buffer_consume(&l->partial, l->partial.size);
                }
                if (nl)
                        n++;
                p += n;
                size -= n;
        }
        l->failed = r < 0;
        return r < 0 ? r : 0;
}

int tb_json_lines_finish(TbJsonLines *l, TbError **err)
{
        int r = 0;

        if (!l->failed && l->partial.size > 0)
                r = json_lines_deliver(l, l->partial.data, l->partial.size, err);
        l->failed = true;
        return r < 0 ? r : 0;
}

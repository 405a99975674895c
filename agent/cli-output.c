/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the command line prints: JSON and tables. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

int cli_print_json(const json_t *j, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        int r;

        r = tb_json_dump_pretty(j, &text, err);
        if (r < 0)
                return r;
        puts(text);
        return 0;
}

const char *cli_text(const json_t *obj, const char *key, const char *otherwise)
{
        const char *s = json_string_value(json_object_get(obj, key));

        return s && s[0] ? s : otherwise;
}

void cli_notice(const json_t *result)
{
        const char *notice = cli_text(result, "notice", NULL);

        if (notice)
                fprintf(stderr, "tbnode: %s\n", notice);
}

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

#define COLUMNS_MAX 10U

struct CliTable {
        size_t columns;
        size_t width[COLUMNS_MAX];
        char **cells; /* row by row, the header first */
};

int cli_table_new(const char *const *columns, CliTable **ret, TbError **err)
{
        CliTable *t = calloc(1, sizeof(*t));
        int r;

        if (!t)
                return tb_error_oom(err);
        while (columns[t->columns] && t->columns < COLUMNS_MAX)
                t->columns++;
        r = cli_table_add(t, columns, err);
        if (r < 0) {
                cli_table_free(t);
                return r;
        }
        *ret = t;
        return 0;
}

int cli_table_add(CliTable *t, const char *const *cells, TbError **err)
{
        for (size_t i = 0; i < t->columns; i++) {
                size_t n = strlen(cells[i]);
                int r = tb_strv_append(&t->cells, cells[i], err);

                if (r < 0)
                        return r;
                t->width[i] = MAX2(t->width[i], n);
        }
        return 0;
}

void cli_table_print(const CliTable *t)
{
        for (char **c = t->cells; c && *c; c += t->columns) {
                for (size_t i = 0; i + 1 < t->columns; i++)
                        printf("%-*s  ", (int) t->width[i], c[i]);
                printf("%s\n", c[t->columns - 1]);
        }
}

CliTable *cli_table_free(CliTable *t)
{
        if (!t)
                return NULL;
        tb_strv_free(t->cells);
        free(t);
        return NULL;
}

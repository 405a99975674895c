/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the command line prints: JSON, tables, and progress on a terminal. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

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

/* ---- Progress ---------------------------------------------------------------------------------------------------- */

#define BLOBS_MAX 256U
#define REDRAW_USEC UINT64_C(100000)

typedef struct Blob {
        char name[80];
        uint64_t done, total;
} Blob;

typedef struct Progress {
        bool show; /* stderr is a terminal and nobody asked for JSON */
        bool drawn;
        char stage[32];
        Blob blobs[BLOBS_MAX];
        size_t n_blobs;
        uint64_t started_us; /* of the stage */
        uint64_t drawn_us;
        const char *member;
        json_t *result;
} Progress;

static void progress_clear(Progress *p)
{
        if (p->drawn)
                fputs("\r\033[K", stderr);
        p->drawn = false;
}

static void progress_draw(Progress *p, const char *text)
{
        char done_text[TB_UNIT_TEXT_MAX], total_text[TB_UNIT_TEXT_MAX], rate_text[TB_UNIT_TEXT_MAX];
        uint64_t done = 0, total = 0, now = tb_now_us(), spent = now - p->started_us;

        if (!p->show || (p->drawn && now - p->drawn_us < REDRAW_USEC))
                return;
        for (size_t i = 0; i < p->n_blobs; i++) {
                done += p->blobs[i].done;
                total += p->blobs[i].total;
        }
        progress_clear(p);
        if (total > 0)
                fprintf(stderr, "%s: %s of %s in %zu layer(s), %s/s", p->stage,
                        tb_format_bytes(done_text, done), tb_format_bytes(total_text, total), p->n_blobs,
                        tb_format_bytes(rate_text, spent > 0 ? done * 1000000 / spent : 0));
        else
                fprintf(stderr, "%s%s%.60s", p->stage, text ? ": " : "", text ?: "");
        fflush(stderr);
        p->drawn = true;
        p->drawn_us = now;
}

static void progress_take(Progress *p, const json_t *line)
{
        const char *stage = cli_text(line, "stage", ""), *blob = cli_text(line, "blob", NULL);
        uint64_t done = 0, total = 0;
        size_t i;

        if (strncmp(stage, p->stage, sizeof(p->stage) - 1) != 0) {
                (void) snprintf(p->stage, sizeof(p->stage), "%s", stage);
                p->n_blobs = 0;
                p->started_us = tb_now_us();
                p->drawn_us = 0;
        }
        if (blob && tb_json_get_u64(line, "done", &done, NULL) >= 0 &&
                tb_json_get_u64(line, "total", &total, NULL) >= 0) {
                for (i = 0;
                        i < p->n_blobs && strncmp(p->blobs[i].name, blob, sizeof(p->blobs[i].name) - 1) != 0;
                        i++)
                        ;
                if (i < BLOBS_MAX) {
                        p->n_blobs = MAX2(p->n_blobs, i + 1);
                        (void) snprintf(p->blobs[i].name, sizeof(p->blobs[i].name), "%s", blob);
                        p->blobs[i].done = done;
                        p->blobs[i].total = total;
                }
        }
        progress_draw(p, cli_text(line, "text", NULL));
}

static int on_line(const json_t *line, void *userdata, TbError **err)
{
        Progress *p = userdata;
        const char *event = cli_text(line, "event", "");

        if (tb_streq(event, "progress"))
                progress_take(p, line);
        else if (tb_streq(event, "result")) {
                const json_t *j = p->member ? json_object_get(line, p->member) : line;

                json_decref(p->result);
                p->result = json_incref((json_t *) j);
        } else if (tb_streq(event, "error")) {
                const json_t *e = json_object_get(line, "error");
                int kind = tb_error_kind_from_string(cli_text(e, "kind", "system"));

                /* Not REMOTE or ENVIRONMENT: those are taken for a broken connection to the agent (cli-http.c). */
                progress_clear(p);
                return tb_error_set(err, kind == TB_ERROR_CONFIG ? TB_ERROR_CONFIG : TB_ERROR_SYSTEM, -EIO,
                        "%s", cli_text(e, "message", "unknown error"));
        }
        return 0;
}

int cli_long(Cli *c, const char *path, const json_t *body, const char *member, json_t **ret, TbError **err)
{
        _cleanup_free_ Progress *p = calloc(1, sizeof(*p));
        int r;

        if (!p)
                return tb_error_oom(err);
        p->show = !c->json && isatty(STDERR_FILENO);
        p->member = member;
        r = cli_stream(c, "POST", path, body, on_line, p, err);
        progress_clear(p);
        if (r >= 0 && !p->result)
                r = tb_error_set(err, TB_ERROR_SYSTEM, -EPROTO,
                        "tbnoded ended the work without a result; see its log");
        if (r < 0) {
                json_decref(p->result);
                return r;
        }
        *ret = p->result;
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Long work: progress on a terminal, then its result. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

/*
 * The agent sends what it learns some ten times a second: a line for each layer that moves, then one for the stage as a
 * whole, which ends the round. Drawn are the layers of the last round, one line each, and the total below them:
 *
 *         3f1c9a0b22d1   12.3MB of 80.0MB   15%   8.1MB/s
 *         77ab0190fe12    3.1MB of 4.0MB    78%   2.0MB/s
 *         mirror: 15.4MB of 120.0MB   12%   10.1MB/s
 */
#define LAYERS_MAX 16U
#define REDRAW_USEC UINT64_C(100000)
#define COLUMNS_DEFAULT 80U

typedef struct Layer {
        char digest[72];
        uint64_t done, total,
                began; /* what it had when it was first seen: from an earlier try, that doesn't count */
        uint64_t since_us;
        bool seen; /* in this round */
} Layer;

typedef struct Progress {
        bool show;      /* stderr is a terminal and nobody asked for JSON */
        unsigned drawn; /* lines on the screen */
        char stage[32];
        Layer layers[LAYERS_MAX];
        size_t n_layers;
        uint64_t started_us; /* of the stage */
        uint64_t drawn_us;
        const char *member;
        json_t *result;
} Progress;

static void progress_clear(Progress *p)
{
        if (p->drawn > 0)
                fputs("\r\033[K", stderr);
        for (unsigned i = 1; i < p->drawn; i++)
                fputs("\033[A\033[K", stderr);
        p->drawn = 0;
}

static unsigned columns(void)
{
        struct winsize w = {};

        return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) >= 0 && w.ws_col > 0 ? w.ws_col : COLUMNS_DEFAULT;
}

/* Never wider than the terminal: a line that wraps can't be taken back. */
static void draw_line(Progress *p, const char *text)
{
        fprintf(stderr, "%s%.*s", p->drawn > 0 ? "\n" : "", (int) columns() - 1, text);
        p->drawn++;
}

static void draw_bytes(
        Progress *p, const char *name, uint64_t done, uint64_t total, uint64_t moved, uint64_t spent)
{
        char done_text[TB_UNIT_TEXT_MAX], total_text[TB_UNIT_TEXT_MAX], rate_text[TB_UNIT_TEXT_MAX];
        char line[160];

        (void) snprintf(line, sizeof(line), "%s %9s of %-9s %3u%%  %9s/s", name,
                tb_format_bytes(done_text, done), tb_format_bytes(total_text, total),
                (unsigned) (total > 0 ? MIN2(done, total) * 100 / total : 0),
                tb_format_bytes(rate_text, spent > 0 ? moved * 1000000 / spent : 0));
        draw_line(p, line);
}

/* `text`: what the stage is at, when it doesn't count bytes. */
static void progress_draw(Progress *p, uint64_t done, uint64_t total, const char *text)
{
        uint64_t now = tb_now_us();
        char line[160];

        if (!p->show || (p->drawn > 0 && now - p->drawn_us < REDRAW_USEC))
                return;
        progress_clear(p);
        for (size_t i = 0; i < p->n_layers; i++) {
                const Layer *l = &p->layers[i];
                const char *hex = tb_startswith(l->digest, "sha256:") ?: l->digest;

                (void) snprintf(line, sizeof(line), "%.12s", hex);
                draw_bytes(p, line, l->done, l->total, l->done - MIN2(l->began, l->done), now - l->since_us);
        }
        if (total > 0) {
                (void) snprintf(line, sizeof(line), "%s:", p->stage);
                draw_bytes(p, line, done, total, done, now - p->started_us);
        } else {
                (void) snprintf(line, sizeof(line), "%s%s%.100s", p->stage, text ? ": " : "", text ?: "");
                draw_line(p, line);
        }
        fflush(stderr);
        p->drawn_us = now;
}

static void take_layer(Progress *p, const char *digest, uint64_t done, uint64_t total)
{
        Layer *l = NULL;

        for (size_t i = 0; i < p->n_layers && !l; i++)
                if (strncmp(p->layers[i].digest, digest, sizeof(l->digest) - 1) == 0)
                        l = &p->layers[i];
        if (!l) {
                if (p->n_layers >= LAYERS_MAX)
                        return;
                l = &p->layers[p->n_layers++];
                *l = (Layer){.began = done, .since_us = tb_now_us()};
                (void) snprintf(l->digest, sizeof(l->digest), "%s", digest);
        }
        l->done = done;
        l->total = total;
        l->seen = true;
}

/* Layers that were not in this round have arrived. */
static void end_round(Progress *p)
{
        size_t n = 0;

        for (size_t i = 0; i < p->n_layers; i++)
                if (p->layers[i].seen) {
                        p->layers[n] = p->layers[i];
                        p->layers[n++].seen = false;
                }
        p->n_layers = n;
}

static void progress_take(Progress *p, const json_t *line)
{
        const char *stage = cli_text(line, "stage", ""), *blob = cli_text(line, "blob", NULL);
        uint64_t done = 0, total = 0;

        if (tb_json_get_u64(line, "done", &done, NULL) < 0 ||
                tb_json_get_u64(line, "total", &total, NULL) < 0)
                return;
        if (strncmp(stage, p->stage, sizeof(p->stage) - 1) != 0) {
                (void) snprintf(p->stage, sizeof(p->stage), "%s", stage);
                p->n_layers = 0;
                p->started_us = tb_now_us();
                p->drawn_us = 0;
        }
        if (blob) {
                take_layer(p, blob, done, total);
                return;
        }
        end_round(p);
        progress_draw(p, done, total, cli_text(line, "text", NULL));
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

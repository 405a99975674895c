/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode logs --experiment NAME --collect DIR|TAR: several nodes at a time; one that fails is told, and the others go on. */

#include "agent/cli-collect.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli-collect-node.h"
#include "agent/log-time.h"
#include "agent/node-files.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define AT_ONCE 8U
#define REDRAW_USEC UINT64_C(100000)
#define SUMMARY "collect.json"

typedef struct Collect {
        Cli *cli;
        const CollectOptions *options;
        Store *store;
        CollectNode *nodes;
        size_t n, next, running, finished;
        json_t *patterns;
        unsigned *missing, answered;
        uint64_t drawn_us;
        bool show, drawn;
} Collect;

/* ---- Interruption -------------------------------------------------------------------------------------------------- */

static bool interrupted(void)
{
        sigset_t pending;

        return sigpending(&pending) == 0 &&
                (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1 ||
                        sigismember(&pending, SIGHUP) == 1);
}

/* While the loop runs; behind it, interrupted() asks. */
static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
        bool *stop = userdata;

        *stop = true;
        return 0;
}

static int watch_signals(sd_event *event, bool *stop, TbError **err)
{
        static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
        sigset_t set;

        (void) sigemptyset(&set);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                (void) sigaddset(&set, signals[i]);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot block signals");
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                if (sd_event_add_signal(event, NULL, signals[i], on_signal, stop) < 0)
                        return tb_error_oom(err);
        return 0;
}

/* ---- Progress ------------------------------------------------------------------------------------------------------ */

static void draw(Collect *k, bool now)
{
        char text[TB_UNIT_TEXT_MAX];
        uint64_t bytes = 0, at = tb_now_us();

        if (!k->show || (!now && at - k->drawn_us < REDRAW_USEC))
                return;
        for (size_t i = 0; i < k->next; i++)
                bytes += k->nodes[i].bytes;
        fprintf(stderr, "\r\033[Kcollecting: %zu of %zu nodes, %s", k->finished, k->n,
                tb_format_bytes(text, bytes));
        fflush(stderr);
        k->drawn_us = at;
        k->drawn = true;
}

static void undraw(Collect *k)
{
        if (k->drawn)
                fputs("\r\033[K", stderr);
        k->drawn = false;
}

static void on_progress(CollectNode *n, void *userdata)
{
        draw(userdata, false);
}

/* ---- Nodes --------------------------------------------------------------------------------------------------------- */

static void start_more(Collect *k)
{
        while (k->running < AT_ONCE && k->next < k->n) {
                k->running++;
                collect_node_start(&k->nodes[k->next++]);
        }
}

static void on_node(CollectNode *n, void *userdata)
{
        Collect *k = userdata;
        const json_t *e;
        size_t i;

        k->running--;
        k->finished++;
        undraw(k);
        json_array_foreach (n->errors, i, e)
                fprintf(stderr, "tbnode: %s: %s\n", n->name, json_string_value(e));
        draw(k, true);
}

/* A directory's name: the node's, unless it is another one's, too, or would be ours. */
static char *where(const Collect *k, size_t n, const char *name, const char *id)
{
        bool taken =
                name[0] == '.' || tb_streq(name, SUMMARY) || strchr(name, '/') || !store_path_is_valid(name);

        for (size_t i = 0; i < n && !taken; i++)
                taken = tb_streq(k->nodes[i].where, name);
        return taken ? tb_asprintf("node-%.12s", id) : strdup(name);
}

static int add_nodes(Collect *k, const json_t *list, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(k->options->experiment, 80);
        const json_t *j;
        size_t i;

        k->nodes = calloc(json_array_size(list) + 1, sizeof(*k->nodes));
        if (!k->nodes)
                return tb_error_oom(err);
        json_array_foreach (list, i, j) {
                CollectNode *n = &k->nodes[k->n];
                const char *name = cli_text(j, "node", ""), *id = cli_text(j, "id", "");

                if (!tb_streq(cli_text(j, "experiment", NULL), k->options->experiment))
                        continue;
                *n = (CollectNode){.cli = k->cli,
                        .options = k->options,
                        .store = k->store,
                        .patterns = k->patterns,
                        .name = strdup(name),
                        .id = strdup(id),
                        .where = where(k, k->n, name, id),
                        .done = on_node,
                        .progress = on_progress,
                        .userdata = k,
                        .fd = -EBADF,
                        .errors = json_array(),
                        .notes = json_array(),
                        .missing = k->missing,
                        .answered = &k->answered};
                k->n++;
                if (!n->name || !n->id || !n->where || !n->errors || !n->notes)
                        return tb_error_oom(err);
        }
        if (k->n == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "there is no node of an experiment '%s' that you may use; `tbnode ps` lists them",
                        shown ?: "");
        return 0;
}

static int make_patterns(Collect *k, TbError **err)
{
        json_t *user = json_array();
        int r;

        k->patterns = json_array();
        k->missing = calloc(tb_strv_length(k->options->files) + 1, sizeof(*k->missing));
        for (char **f = k->options->files; user && f && *f; f++)
                (void) json_array_append_new(user, json_string(*f));
        r = user && k->patterns && k->missing ? node_files_check(user, err) : tb_error_oom(err);
        for (const char *const *p = collect_own_patterns; r >= 0 && *p; p++)
                r = json_array_append_new(k->patterns, json_string(*p)) < 0 ? tb_error_oom(err) : 0;
        if (r >= 0 && json_array_extend(k->patterns, user) < 0)
                r = tb_error_oom(err);
        json_decref(user);
        if (r >= 0 && json_array_size(k->patterns) > NODE_FILES_PATTERNS_MAX)
                r = tb_error_set(err, TB_ERROR_CONFIG, -E2BIG, "more than %zu patterns of files",
                        NODE_FILES_PATTERNS_MAX -
                                (json_array_size(k->patterns) - tb_strv_length(k->options->files)));
        return r;
}

/* ---- The end ------------------------------------------------------------------------------------------------------- */

/* What there is, and what isn't: for who opens the collection next year. */
static json_t *summary(const Collect *k, bool *ret_failed)
{
        _cleanup_json_ json_t *nodes = json_array();
        char when[32] = "";
        time_t now = time(NULL);
        struct tm tm;

        *ret_failed = false;
        if (gmtime_r(&now, &tm))
                (void) strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
        for (size_t i = 0; nodes && i < k->n; i++) {
                const CollectNode *n = &k->nodes[i];

                *ret_failed = *ret_failed || json_array_size(n->errors) > 0;
                if (json_array_append_new(nodes,
                            json_pack("{s:s, s:s, s:s, s:I, s:I, s:O, s:O}", "node", n->name, "id", n->id,
                                    "directory", n->where, "files", (json_int_t) n->files, "bytes",
                                    (json_int_t) n->bytes, "errors", n->errors, "notes", n->notes)) < 0)
                        return NULL;
        }
        return json_pack("{s:s, s:s, s:s, s:s, s:O}", "experiment", k->options->experiment, "collected",
                when, "version", TBNODE_VERSION, "target", k->options->target, "nodes", nodes);
}

static int finish(Collect *k, bool *ret_failed, TbError **err)
{
        _cleanup_json_ json_t *j = summary(k, ret_failed);
        char size_text[TB_UNIT_TEXT_MAX];
        uint64_t files = 0, bytes = 0;
        int r;

        r = store_write_json(k->store, NULL, SUMMARY, j, err);
        if (r >= 0)
                r = store_finish(k->store, interrupted, err);
        if (r < 0)
                return r;
        for (size_t i = 0; k->options->files && k->options->files[i]; i++)
                if (k->answered > 0 && k->missing[i] == k->answered) {
                        fprintf(stderr, "tbnode: no node has a file that matches '%s'\n",
                                k->options->files[i]);
                        *ret_failed = true;
                }
        if (k->cli->json)
                return cli_print_json(j, err);
        for (size_t i = 0; i < k->n; i++) {
                files += k->nodes[i].files;
                bytes += k->nodes[i].bytes;
        }
        printf("%s: %zu node%s, %llu files, %s\n", k->options->target, k->n, k->n == 1 ? "" : "s",
                (unsigned long long) files, tb_format_bytes(size_text, bytes));
        return 0;
}

static int gather(Collect *k, TbError **err)
{
        bool stop = false;
        int r = watch_signals(k->cli->event, &stop, err);

        draw(k, true);
        while (r >= 0 && k->finished < k->n && !stop) {
                start_more(k);
                if (k->finished < k->n && sd_event_run(k->cli->event, UINT64_MAX) < 0)
                        r = tb_error_set(err, TB_ERROR_SYSTEM, -EIO, "the event loop broke");
        }
        undraw(k);
        if (r >= 0 && stop)
                r = tb_error_set(err, TB_ERROR_CANCELLED, -ECANCELED, "interrupted: nothing was kept");
        return r;
}

static void collect_done(Collect *k)
{
        for (size_t i = 0; i < k->n; i++)
                collect_node_free(&k->nodes[i]);
        free(k->nodes);
        free(k->missing);
        json_decref(k->patterns);
        store_free(k->store);
}

int cli_collect(Cli *c, const CollectOptions *o)
{
        _cleanup_(collect_done)
                Collect k = {.cli = c, .options = o, .show = !c->json && isatty(STDERR_FILENO)};
        _cleanup_json_ json_t *answer = NULL;
        TbError *err = NULL;
        bool some_failed = false;
        int r;

        r = make_patterns(&k, &err);
        if (r >= 0)
                r = cli_call(c, "GET", "/v1/nodes", NULL, &answer, &err);
        if (r >= 0)
                r = store_new(o->target, &k.store, &err);
        if (r >= 0)
                r = add_nodes(&k, json_object_get(answer, "nodes"), &err);
        if (r >= 0)
                r = gather(&k, &err);
        if (r >= 0)
                r = finish(&k, &some_failed, &err);
        return r < 0 ? cli_fail(err) : some_failed ? CLI_FAILED : CLI_OK;
}

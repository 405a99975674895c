/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode declare | programs | program | startup */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define DECLARATION_FILE_MAX (1024U * 1024)

static int read_stdin(json_t **ret, TbError **err)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(DECLARATION_FILE_MAX);
        char data[4096];
        ssize_t n;
        int r = 0;

        while (r >= 0 && (n = read(STDIN_FILENO, data, sizeof(data))) != 0) {
                if (n < 0 && errno == EINTR)
                        continue;
                r = n < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot read standard input")
                          : tb_buffer_append(&b, data, (size_t) n, err);
        }
        return r < 0 ? r
                     : tb_json_parse(b.data ?: "", b.size, DECLARATION_FILE_MAX, "standard input", ret, err);
}

int cli_load_declaration(const char *path, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        int r;

        r = tb_streq(path, "-") ? read_stdin(&j, err)
                                : tb_json_load_file(path, DECLARATION_FILE_MAX, &j, err);
        if (r < 0)
                return r;
        if (!json_is_object(j))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "%s: a declaration is a JSON object", path);
        *ret = TAKE_PTR(j);
        return 0;
}

/* Prints an answer, or its error. */
static int finish(Cli *c, int r, const json_t *answer, TbError *err)
{
        if (r < 0)
                return cli_fail(err);
        if (c->json)
                return cli_print_json(answer, &err) < 0 ? cli_fail(err) : CLI_OK;
        return -1;
}

static int show_declaration(Cli *c, const char *path)
{
        _cleanup_json_ json_t *answer = NULL;
        TbError *err = NULL;
        int r = cli_call(c, "GET", path, NULL, &answer, &err);

        if (r < 0)
                return cli_fail(err);
        return cli_print_json(json_object_get(answer, "declaration"), &err) < 0 ? cli_fail(err) : CLI_OK;
}

int cli_declare(Cli *c, int argc, char **argv)
{
        static const struct option options[] = {{"show", no_argument, NULL, 's'}, CLI_OPTIONS, {}};
        _cleanup_json_ json_t *body = NULL, *answer = NULL;
        _cleanup_free_ char *path = NULL;
        TbError *err = NULL;
        bool show = false;
        int opt, r;

        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                if (opt == 's')
                        show = true;
                else if (opt == 'j')
                        c->json = true;
                else
                        return cli_getopt_other(c, opt);
        if (argc - optind != (show ? 1 : 2))
                return cli_usage(c, show ? "give one node" : "give a node and a file");
        path = cli_node_path(argv[optind], "/declaration");
        if (!path) {
                (void) tb_error_oom(&err);
                return cli_fail(err);
        }
        if (show)
                return show_declaration(c, path);
        if (cli_load_declaration(argv[optind + 1], &body, &err) < 0)
                return cli_fail(err);
        r = cli_call(c, "PUT", path, body, &answer, &err);
        r = finish(c, r, answer, err);
        if (r >= 0)
                return r;
        printf("%s: declared%s\n", cli_text(answer, "node", ""),
                json_is_true(json_object_get(answer, "attached"))
                        ? ""
                        : "; its client is not connected and will apply it when it is");
        return CLI_OK;
}

/* "exited 3", "running", "-" */
static void outcome(const json_t *j, char *buf, size_t size)
{
        const json_t *status = json_object_get(j, "status");
        const char *state = cli_text(j, "state", "-");

        if (json_is_integer(status) && !tb_streq(state, "running"))
                (void) snprintf(buf, size, "%s %lld", state, (long long) json_integer_value(status));
        else
                (void) snprintf(buf, size, "%s", state);
}

int cli_programs(Cli *c, int argc, char **argv)
{
        static const char *const columns[] = {"PROGRAM", "STATE", "USER", "COMMAND", "REASON", NULL};
        _cleanup_(cli_table_freep) CliTable *t = NULL;
        _cleanup_json_ json_t *answer = NULL;
        _cleanup_free_ char *path = NULL;
        TbError *err = NULL;
        const json_t *p;
        size_t i;
        int r;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        if (argc - optind != 1)
                return cli_usage(c, "give one node");
        path = cli_node_path(argv[optind], "/programs");
        r = path ? cli_call(c, "GET", path, NULL, &answer, &err) : tb_error_oom(&err);
        r = finish(c, r, answer, err);
        if (r >= 0)
                return r;
        if (cli_table_new(columns, &t, &err) < 0)
                return cli_fail(err);
        json_array_foreach (json_object_get(answer, "programs"), i, p) {
                char state[64];
                const char *cells[] = {cli_text(p, "name", ""), state, cli_text(p, "user", "-"),
                        cli_text(p, "command", ""), cli_text(p, "reason", "-"), NULL};

                outcome(p, state, sizeof(state));
                if (cli_table_add(t, cells, &err) < 0)
                        return cli_fail(err);
        }
        cli_table_print(t);
        return CLI_OK;
}

/* 9, KILL or SIGKILL. 0 = no signal of that name. */
static unsigned parse_signal(const char *s)
{
        const char *name = tb_startswith(s, "SIG") ?: s;
        uint32_t number;

        if (tb_parse_u32(s, 1, 64, &number, NULL) >= 0)
                return number;
        for (unsigned i = 1; i < 32; i++) {
                const char *known = sigabbrev_np((int) i);

                if (known && tb_streq(known, name))
                        return i;
        }
        return 0;
}

int cli_program(Cli *c, int argc, char **argv)
{
        static const struct option options[] = {{"signal", required_argument, NULL, 's'}, CLI_OPTIONS, {}};
        _cleanup_json_ json_t *body = json_object(), *answer = NULL;
        _cleanup_free_ char *suffix = NULL, *path = NULL, *name = NULL;
        TbError *err = NULL;
        const json_t *reported;
        unsigned number = 0;
        char state[64];
        int opt, r;

        while ((opt = getopt_long(argc, argv, "hs:", options, NULL)) >= 0)
                if (opt == 's') {
                        number = parse_signal(optarg);
                        if (number == 0)
                                return cli_usage(c, "there is no signal '%s'", optarg);
                } else if (opt == 'j')
                        c->json = true;
                else
                        return cli_getopt_other(c, opt);
        if (argc - optind != 3)
                return cli_usage(c, "give a node, what to do, and a program");
        name = tb_engine_escape(argv[optind + 2]);
        suffix = name ? tb_asprintf("/programs/%s", name) : NULL;
        path = suffix ? cli_node_path(argv[optind], suffix) : NULL;
        r = path && body ? tb_json_set_string(body, "action", argv[optind + 1], &err) : tb_error_oom(&err);
        if (r >= 0 && number > 0)
                r = tb_json_set_u64(body, "signal", number, &err);
        if (r >= 0)
                r = cli_call(c, "POST", path, body, &answer, &err);
        r = finish(c, r, answer, err);
        if (r >= 0)
                return r;
        reported = json_object_get(answer, "reported");
        outcome(reported, state, sizeof(state));
        if (!json_is_object(reported))
                printf("%s: its client was told to %s %s; tbnode programs %s shows what becomes of it\n",
                        cli_text(answer, "node", ""), cli_text(answer, "action", ""),
                        cli_text(answer, "program", ""), argv[optind]);
        else
                printf("%s: %s %s%s%s\n", cli_text(answer, "node", ""), cli_text(answer, "program", ""),
                        state, cli_text(reported, "reason", NULL) ? ": " : "",
                        cli_text(reported, "reason", ""));
        return CLI_OK;
}

int cli_startup(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *body = json_object(), *answer = NULL;
        _cleanup_free_ char *path = NULL;
        TbError *err = NULL;
        int r;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        if (argc - optind != 1)
                return cli_usage(c, "give one node");
        path = cli_node_path(argv[optind], "/startup");
        r = path && body ? cli_call(c, "POST", path, body, &answer, &err) : tb_error_oom(&err);
        r = finish(c, r, answer, err);
        if (r >= 0)
                return r;
        printf("%s: its client was told to run the startup command once more\n",
                cli_text(answer, "node", ""));
        return CLI_OK;
}

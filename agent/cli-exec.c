/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode exec */

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

static int add_word(json_t *body, const char *key, const char *word, TbError **err)
{
        json_t *list = json_object_get(body, key);
        int r = 0;

        if (!list) {
                list = json_array();
                r = tb_json_set_new(body, key, list, err);
        }
        if (r >= 0 && json_array_append_new(list, json_string(word)) < 0)
                r = tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "%s: '%s' is not valid UTF-8 text", key, word);
        return r;
}

/* -e NAME takes the value from our environment, as docker exec does. */
static int add_env(json_t *body, const char *value, TbError **err)
{
        _cleanup_free_ char *pair = NULL;

        if (strchr(value, '='))
                return add_word(body, "env", value, err);
        if (!getenv(value))
                return 0;
        pair = tb_asprintf("%s=%s", value, getenv(value));
        return pair ? add_word(body, "env", pair, err) : tb_error_oom(err);
}

/* Options at optind. -1 = go on; else the exit status (with *err: why). */
static int take_options(Cli *c, int argc, char **argv, json_t *body, TbError **err)
{
        static const struct option options[] = {
                {"interactive", no_argument, NULL, 'i'},
                {"tty", no_argument, NULL, 't'},
                {"user", required_argument, NULL, 'u'},
                {"workdir", required_argument, NULL, 'w'},
                {"env", required_argument, NULL, 'e'},
                CLI_OPTIONS,
                {},
        };
        int opt, r = 0;

        while (r >= 0 && (opt = getopt_long(argc, argv, "+itu:w:e:h", options, NULL)) >= 0)
                switch (opt) {
                case 'i':
                        r = tb_json_set_bool(body, "stdin", true, err);
                        break;
                case 't':
                        r = tb_json_set_bool(body, "tty", true, err);
                        break;
                case 'u':
                        r = tb_json_set_string(body, "user", optarg, err);
                        break;
                case 'w':
                        r = tb_json_set_string(body, "workdir", optarg, err);
                        break;
                case 'e':
                        r = add_env(body, optarg, err);
                        break;
                case 'j': /* the program has the output to itself */
                        break;
                default:
                        return cli_getopt_other(c, opt);
                }
        return r < 0 ? r : -1;
}

static int parse(Cli *c, int argc, char **argv, json_t *body, const char **ret_node, TbError **err)
{
        const char *term = getenv("TERM");
        int r;

        r = take_options(c, argc, argv, body, err);
        if (r >= 0 || *err)
                return r;
        if (optind >= argc)
                return cli_usage(c, "no node is given");
        *ret_node = argv[optind];
        /* Options may stand behind the node as well, in front of the command. */
        argv += optind;
        argc -= optind;
        argv[0] = (char *) "tbnode exec";
        optind = 0;
        r = take_options(c, argc, argv, body, err);
        if (r >= 0 || *err)
                return r;
        if (optind >= argc)
                return cli_usage(c, "no command is given");
        r = 0;
        /* What the terminal understands is our terminal's business; -e TERM=... comes later and wins. */
        if (json_is_true(json_object_get(body, "tty")) && term && !json_object_get(body, "env")) {
                _cleanup_free_ char *pair = tb_asprintf("TERM=%s", term);

                r = pair ? add_word(body, "env", pair, err) : tb_error_oom(err);
        }
        for (int i = optind; r >= 0 && i < argc; i++)
                r = add_word(body, "cmd", argv[i], err);
        return r < 0 ? r : -1;
}

int cli_exec(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *body = json_object();
        const char *node = NULL;
        TbError *err = NULL;
        int r, status;

        r = parse(c, argc, argv, body, &node, &err);
        if (err)
                return cli_fail(err);
        if (r >= 0)
                return r;
        return cli_exec_connect(c, node, body, &status, &err) < 0 ? cli_fail(err) : status;
}

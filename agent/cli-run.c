/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode run */

#include <getopt.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli-source.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

/* Adds a copy of s to the list `key` of the request. */
static int add(json_t *body, const char *key, const char *s, TbError **err)
{
        json_t *list = json_object_get(body, key);

        if (!list) {
                list = json_array();
                if (json_object_set_new(body, key, list) < 0)
                        return tb_error_oom(err);
        }
        if (json_array_append_new(list, json_string(s)) < 0)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "%s: '%s' is not valid UTF-8 text", key, s);
        return 0;
}

static int add_default_keys(const Cli *c, json_t *body, TbError **err)
{
        const char *home = getenv("HOME");
        _cleanup_free_ char *pattern = tb_asprintf("%s/.ssh/id_*.pub", home ?: "/root");
        glob_t g = {};
        int r = 0;

        if (!pattern)
                return tb_error_oom(err);
        if (glob(pattern, 0, NULL, &g) == 0)
                for (size_t i = 0; r >= 0 && i < g.gl_pathc; i++)
                        r = cli_add_keys(body, g.gl_pathv[i], err);
        globfree(&g);
        if (r >= 0 && !json_object_get(body, "ssh_keys") && !c->json)
                fprintf(stderr,
                        "tbnode run: there is no %s, so nobody can log in by ssh; give --ssh-key FILE\n",
                        pattern);
        return r;
}

/* One letter per member of the request; lists are marked. */
static const struct {
        int opt;
        const char *member;
        bool list;
} members[] = {
        {'n', "name", false},
        {'E', "experiment", false},
        {'L', "level", false},
        {'B', "builder", false},
        {'P', "platform", false},
        {'J', "project", false},
        {'N', "networks", true},
        {'S', "shape", false},
        {'F', "firewall", false},
        {'X', "on_exit", false},
        {'e', "env", true},
        {'v', "volumes", true},
        {'p', "publish", true},
        {'u', "user", false},
        {'w', "workdir", false},
        {'T', "entrypoint", false},
        {'c', "cpus", false},
        {'m', "memory", false},
};

static int take_option(json_t *body, int opt, const char *value, TbError **err)
{
        for (size_t i = 0; i < ELEMENTSOF(members); i++) {
                if (members[i].opt != opt)
                        continue;
                if (members[i].list)
                        return add(body, members[i].member, value, err);
                if (json_object_set_new(body, members[i].member, json_string(value)) < 0)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "%s: '%s' is not valid UTF-8 text", members[i].member, value);
        }
        return 0;
}

/* -e NAME takes the value from the caller's environment, as docker run does. */
static int take_env(json_t *body, const char *value, TbError **err)
{
        _cleanup_free_ char *pair = NULL;

        if (strchr(value, '='))
                return add(body, "env", value, err);
        if (!getenv(value))
                return 0;
        pair = tb_asprintf("%s=%s", value, getenv(value));
        return pair ? add(body, "env", pair, err) : tb_error_oom(err);
}

static int take_pids(json_t *body, const char *value, TbError **err)
{
        uint32_t n;
        int r;

        r = tb_parse_u32(value, 1, UINT32_MAX, &n, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "--pids-limit");
                return r;
        }
        return tb_json_set_u64(body, "pids", n, err);
}

static int take_declaration(json_t *body, const char *path, TbError **err)
{
        json_t *declaration;
        int r;

        r = cli_load_declaration(path, &declaration, err);
        return r < 0 ? r : tb_json_set_new(body, "declare", declaration, err);
}

/* The command line wins over the file. */
static int take_startup(json_t *body, const char *command, const char *user, TbError **err)
{
        json_t *declaration = json_object_get(body, "declare");
        int r = 0;

        if (!declaration) {
                declaration = json_object();
                r = tb_json_set_new(body, "declare", declaration, err);
        }
        return r < 0 ? r
                     : tb_json_set_new(declaration, "startup",
                               json_pack("{s:s, s:s*}", "command", command, "user", user), err);
}

static int parse(Cli *c, int argc, char **argv, json_t *body, const char **ret_image, CliSource *source,
        TbError **err)
{
        static const struct option options[] = {
                {"name", required_argument, NULL, 'n'},
                {"experiment", required_argument, NULL, 'E'},
                {"level", required_argument, NULL, 'L'},
                {"builder", required_argument, NULL, 'B'},
                {"platform", required_argument, NULL, 'P'},
                {"project", required_argument, NULL, 'J'},
                {"update", no_argument, NULL, 'U'},
                {"policy", required_argument, NULL, CLI_OPT_POLICY},
                CLI_SOURCE_OPTIONS,
                {"network", required_argument, NULL, 'N'},
                {"shape", required_argument, NULL, 'S'},
                {"firewall", required_argument, NULL, 'F'},
                {"on-exit", required_argument, NULL, 'X'},
                {"ssh-key", required_argument, NULL, 'K'},
                {"env", required_argument, NULL, 'e'},
                {"volume", required_argument, NULL, 'v'},
                {"publish", required_argument, NULL, 'p'},
                {"user", required_argument, NULL, 'u'},
                {"workdir", required_argument, NULL, 'w'},
                {"entrypoint", required_argument, NULL, 'T'},
                {"cpus", required_argument, NULL, 'c'},
                {"memory", required_argument, NULL, 'm'},
                {"pids-limit", required_argument, NULL, 'I'},
                {"declare", required_argument, NULL, 'D'},
                {"startup", required_argument, NULL, 'C'},
                {"startup-user", required_argument, NULL, 'O'},
                CLI_OPTIONS,
                {},
        };
        const char *startup = NULL, *startup_user = NULL;
        bool keys = false;
        int opt, r = 0;

        while (r >= 0 && (opt = getopt_long(argc, argv, "+e:v:p:u:w:m:h", options, NULL)) >= 0)
                switch (opt) {
                case 'j':
                        c->json = true;
                        break;
                case 'U':
                        r = json_object_set_new(body, "update", json_true()) < 0 ? tb_error_oom(err) : 0;
                        break;
                case CLI_OPT_POLICY:
                        r = tb_json_set_string(body, "policy", optarg, err);
                        break;
                case CLI_OPT_FILE:
                        source->file = optarg;
                        break;
                case CLI_OPT_BUILD_CONTEXT:
                        source->build_context = optarg;
                        break;
                case 'K':
                        keys = true;
                        if (!tb_streq(optarg, "none"))
                                r = cli_add_keys(body, optarg, err);
                        break;
                case 'D':
                        r = take_declaration(body, optarg, err);
                        break;
                case 'C':
                        startup = optarg;
                        break;
                case 'O':
                        startup_user = optarg;
                        break;
                case 'I':
                        r = take_pids(body, optarg, err);
                        break;
                case 'e':
                        r = take_env(body, optarg, err);
                        break;
                case '?':
                case 'h':
                        return cli_getopt_other(c, opt);
                default:
                        r = take_option(body, opt, optarg, err);
                }
        if (r < 0)
                return r;
        if (optind >= argc)
                return cli_usage(c, "no image is given");
        if (startup_user && !startup)
                return cli_usage(c, "--startup-user is for --startup, which is not given");
        if (startup) {
                r = take_startup(body, startup, startup_user, err);
                if (r < 0)
                        return r;
        }
        *ret_image = argv[optind];
        if (!tb_utf8_is_valid(argv[optind]))
                r = tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the image's name is not valid UTF-8 text");
        for (int i = optind + 1; r >= 0 && i < argc; i++)
                r = add(body, "cmd", argv[i], err);
        if (r >= 0 && !keys)
                r = add_default_keys(c, body, err);
        return r < 0 ? r : -1;
}

int cli_run(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *body = json_object(), *line = NULL;
        TbError *err = NULL;
        const char *ip, *image = NULL;
        CliSource source = {};
        int r;

        r = parse(c, argc, argv, body, &image, &source, &err);
        if (err)
                return cli_fail(err);
        if (r >= 0)
                return r;
        if (cli_source_take(c, image, &source, body, &err) < 0 ||
                cli_long(c, "/v1/nodes", body, NULL, &line, &err) < 0)
                return cli_fail(err);
        cli_notice(json_object_get(line, "augment"));
        (void) json_object_del(line, "event");
        if (c->json)
                return cli_print_json(line, &err) < 0 ? cli_fail(err) : CLI_OK;
        ip = cli_text(line, "ip", NULL);
        printf("node %s is up%s%s, after %.1f s\n", cli_text(line, "name", ""), ip ? " at " : "", ip ?: "",
                json_number_value(json_object_get(line, "ms")) / 1e3);
        if (json_is_true(json_object_get(line, "level_raised")))
                printf("level core: what is declared needs the testbed client in the node\n");
        if (json_object_get(line, "ssh"))
                printf("log in:  tbnode ssh %s\n", cli_text(line, "container", ""));
        return CLI_OK;
}

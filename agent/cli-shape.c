/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode shape | firewall */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"

/* One node, or all, as {"nodes": [...]}. */
static int get_nodes(Cli *c, const char *name, json_t **ret, TbError **err)
{
        _cleanup_free_ char *path = NULL;
        json_t *node = NULL;
        int r;

        if (!name)
                return cli_call(c, "GET", "/v1/nodes", NULL, ret, err);
        path = cli_node_path(name, "");
        r = path ? cli_call(c, "GET", path, NULL, &node, err) : tb_error_oom(err);
        if (r < 0)
                return r;
        *ret = json_pack("{s:[o]}", "nodes", node);
        return *ret ? 0 : tb_error_oom(err);
}

static int print_shapes(const json_t *nodes, TbError **err)
{
        static const char *const columns[] = {"NODE", "IFACE", "NETWORK", "SHAPE", NULL};
        _cleanup_(cli_table_freep) CliTable *t = NULL;
        const json_t *n, *i;
        size_t a, b;

        if (cli_table_new(columns, &t, err) < 0)
                return -ENOMEM;
        json_array_foreach (json_object_get(nodes, "nodes"), a, n) {
                json_array_foreach (json_object_get(n, "interfaces"), b, i) {
                        const char *const cells[] = {cli_text(n, "node", ""), cli_text(i, "ifname", "-"),
                                cli_text(i, "network", ""), cli_text(i, "shape", "-"), NULL};

                        if (json_is_true(json_object_get(i, "control")) && !cli_text(i, "shape", NULL))
                                continue;
                        if (cli_table_add(t, cells, err) < 0)
                                return -ENOMEM;
                }
        }
        cli_table_print(t);
        return 0;
}

/* What `show` tells scripts: only what the verb is about. */
static json_t *shapes_json(const json_t *nodes)
{
        _cleanup_json_ json_t *out = json_array();
        const json_t *n;
        size_t a;

        json_array_foreach (json_object_get(nodes, "nodes"), a, n) {
                if (json_array_append_new(out,
                            json_pack("{s:O, s:O}", "node", json_object_get(n, "node"), "interfaces",
                                    json_object_get(n, "interfaces"))) < 0)
                        return NULL;
        }
        return json_pack("{s:O}", "nodes", out);
}

static int show_shapes(Cli *c, const char *name)
{
        _cleanup_json_ json_t *nodes = NULL, *j = NULL;
        TbError *err = NULL;

        if (get_nodes(c, name, &nodes, &err) < 0)
                return cli_fail(err);
        if (c->json) {
                j = shapes_json(nodes);
                if (!j || cli_print_json(j, &err) < 0)
                        return cli_fail(err);
                return CLI_OK;
        }
        return print_shapes(nodes, &err) < 0 ? cli_fail(err) : CLI_OK;
}

static int change(Cli *c, const char *method, const char *node, const char *suffix, const json_t *body)
{
        _cleanup_free_ char *path = cli_node_path(node, suffix);
        _cleanup_json_ json_t *answer = NULL;
        TbError *err = NULL;
        int r;

        r = path ? cli_call(c, method, path, body, &answer, &err) : tb_error_oom(&err);
        if (r >= 0 && c->json)
                r = cli_print_json(answer, &err);
        return r < 0 ? cli_fail(err) : CLI_OK;
}

#define RULES_FILE_MAX (1024U * 1024)

/* One part in a line; "#" begins a comment. */
static char *rules_from_lines(char *text)
{
        bool comment = false;

        for (char *p = text; *p; p++) {
                if (*p == '\n')
                        comment = false;
                else if (*p == '#')
                        comment = true;
                if (comment)
                        *p = ' ';
                else if (*p == '\n')
                        *p = ';';
        }
        return text;
}

static int set_rules(Cli *c, const char *node, const char *suffix, const char *file)
{
        _cleanup_json_ json_t *body = NULL;
        _cleanup_free_ char *text = NULL;
        TbError *err = NULL;
        size_t size;

        if (tb_file_read(file, RULES_FILE_MAX, &text, &size, &err) < 0)
                return cli_fail(err);
        if (strlen(text) != size)
                return cli_usage(c, "the file of rules is not text");
        body = json_pack("{s:s}", "rules", rules_from_lines(text));
        if (!body)
                return cli_usage(c, "the file of rules is not valid UTF-8 text");
        return change(c, "PUT", node, suffix, body);
}

int cli_shape(Cli *c, int argc, char **argv)
{
        _cleanup_free_ char *iface = NULL, *suffix = NULL, *spec = NULL;
        _cleanup_json_ json_t *body = NULL;
        static const struct option options[] = {CLI_OPTIONS, {"rules", required_argument, NULL, 'r'}, {}};
        const char *rules = NULL;
        int n, opt;

        if (argc > 1 && tb_streq(argv[1], "check"))
                return cli_link_check(c, argc - 1, argv + 1);
        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                if (opt == 'j')
                        c->json = true;
                else if (opt == 'r')
                        rules = optarg;
                else
                        return cli_getopt_other(c, opt);
        argv += optind;
        n = argc - optind;
        if (n >= 1 && n <= 2 && tb_streq(argv[0], "show"))
                return show_shapes(c, n == 2 ? argv[1] : NULL);
        if (n < 3 || !(tb_streq(argv[0], "set") || tb_streq(argv[0], "clear")))
                return cli_usage(c, "show, set NODE IFACE SPEC, or clear NODE IFACE is expected");
        iface = tb_engine_escape(argv[2]);
        suffix = iface ? tb_asprintf("/shape/%s", iface) : NULL;
        if (!suffix)
                return CLI_FAILED;
        if (tb_streq(argv[0], "clear"))
                return n == 3 ? change(c, "DELETE", argv[1], suffix, NULL)
                              : cli_usage(c, "clear takes NODE and IFACE");
        if (rules)
                return n == 3 ? set_rules(c, argv[1], suffix, rules)
                              : cli_usage(c, "--rules FILE takes the place of SPEC");
        if (n < 4)
                return cli_usage(c, "no SPEC is given, like 'rate 10mbit'");
        spec = tb_strv_join(argv + 3, " ");
        body = spec ? json_pack("{s:s}", "spec", spec) : NULL;
        if (!body)
                return cli_usage(c, "SPEC is not valid UTF-8 text");
        return change(c, "PUT", argv[1], suffix, body);
}

static int show_firewalls(Cli *c, const char *name)
{
        static const char *const columns[] = {"NODE", "STYLE", "IP", NULL};
        _cleanup_(cli_table_freep) CliTable *t = NULL;
        _cleanup_json_ json_t *nodes = NULL, *out = json_array(), *j = NULL;
        TbError *err = NULL;
        const json_t *n;
        size_t i;

        if (get_nodes(c, name, &nodes, &err) < 0 || cli_table_new(columns, &t, &err) < 0)
                return cli_fail(err);
        json_array_foreach (json_object_get(nodes, "nodes"), i, n) {
                const char *const cells[] = {cli_text(n, "node", ""), cli_text(n, "firewall", "none"),
                        cli_text(n, "ip", "-"), NULL};

                if (cli_table_add(t, cells, &err) < 0)
                        return cli_fail(err);
                if (json_array_append_new(out,
                            json_pack("{s:O, s:O, s:O}", "node", json_object_get(n, "node"), "style",
                                    json_object_get(n, "firewall"), "ip", json_object_get(n, "ip"))) < 0)
                        return CLI_FAILED;
        }
        if (c->json) {
                j = json_pack("{s:O}", "nodes", out);
                return !j || cli_print_json(j, &err) < 0 ? cli_fail(err) : CLI_OK;
        }
        cli_table_print(t);
        return CLI_OK;
}

int cli_firewall(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *body = NULL;
        int r, n;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        argv += optind;
        n = argc - optind;
        if (n >= 1 && n <= 2 && tb_streq(argv[0], "show"))
                return show_firewalls(c, n == 2 ? argv[1] : NULL);
        if (n != 3 || !tb_streq(argv[0], "set"))
                return cli_usage(c, "show, or set NODE STYLE is expected");
        body = json_pack("{s:s}", "style", argv[2]);
        if (!body)
                return cli_usage(c, "STYLE is not valid UTF-8 text");
        return change(c, "PUT", argv[1], "/firewall", body);
}

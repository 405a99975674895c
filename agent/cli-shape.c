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
#include "common/units.h"

/* What is left of a change for a time, and flaps: "for 25s", "flap 2s/5s". */
static char *schedule_text(const json_t *i)
{
        const json_t *temporary = json_object_get(i, "temporary"), *flap = json_object_get(i, "flap");
        char left[TB_UNIT_TEXT_MAX] = "", down[TB_UNIT_TEXT_MAX], up[TB_UNIT_TEXT_MAX];
        bool is_temporary = json_is_object(temporary);
        uint64_t ms;

        if (is_temporary) {
                ms = (uint64_t) json_integer_value(json_object_get(temporary, "remaining_ms"));
                (void) tb_format_time(left, ms > 10000 ? ms / 1000 * 1000000000 : ms * 1000000);
        }
        if (!json_is_object(flap))
                return tb_asprintf("%s%s", is_temporary ? "for " : "", left);
        ms = (uint64_t) json_integer_value(json_object_get(flap, "down_ms"));
        (void) tb_format_time(down, ms * 1000000);
        ms = (uint64_t) json_integer_value(json_object_get(flap, "up_ms"));
        (void) tb_format_time(up, ms * 1000000);
        return tb_asprintf("flap %s %s%s%s", down, up, is_temporary ? " for " : "", left);
}

static const char *number_text(const json_t *d, const char *key, char buf[24])
{
        (void) snprintf(buf, 24, "%lld", (long long) json_integer_value(json_object_get(d, key)));
        return buf;
}

/* A row for each rule of a direction, in the order in which they are looked at. */
static int add_rules(CliTable *t, const json_t *d, const char *way, TbError **err)
{
        const json_t *rule;
        size_t k;

        json_array_foreach (json_object_get(d, "rules"), k, rule) {
                char numbers[2][24];
                const char *const cells[] = {"", "", "", way, cli_text(rule, "match", ""),
                        cli_text(rule, "shape", ""), number_text(rule, "packets", numbers[0]),
                        number_text(rule, "drops", numbers[1]), "", "", "", "", "", NULL};
                int r = cli_table_add(t, cells, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int add_direction(CliTable *t, const json_t *node, const json_t *i, const char *way, TbError **err)
{
        const json_t *d = json_object_get(i, way);
        char numbers[5][24], burst[TB_UNIT_TEXT_MAX];
        _cleanup_free_ char *schedule = schedule_text(i);

        if (!schedule)
                return tb_error_oom(err);
        if (!json_is_object(d))
                return 0;
        (void) tb_format_bytes(burst, (uint64_t) json_integer_value(json_object_get(d, "burst_bytes")));
        const char *const cells[] = {cli_text(node, "node", ""), cli_text(i, "ifname", "-"),
                cli_text(i, "network", ""), way, cli_text(d, "requested", ""), cli_text(d, "shape", ""),
                number_text(d, "packets", numbers[0]), number_text(d, "drops", numbers[1]),
                number_text(d, "backlog_packets", numbers[2]), burst,
                number_text(d, "quantum_bytes", numbers[3]), cli_text(i, "segmentation", "-"), schedule,
                NULL};
        int r = cli_table_add(t, cells, err);
        return r < 0 ? r : add_rules(t, d, way, err);
}

/* Requested beside what the kernel has, for each direction that has anything. */
static int print_shapes(const json_t *nodes, TbError **err)
{
        static const char *const columns[] = {"NODE", "IFACE", "NETWORK", "WAY", "REQUESTED",
                "IN THE KERNEL", "PACKETS", "DROPS", "QUEUED", "BURST", "QUANTUM", "OFFLOAD", "SCHEDULE",
                NULL};
        _cleanup_(cli_table_freep) CliTable *t = NULL;
        const json_t *n, *i;
        size_t a, b;

        if (cli_table_new(columns, &t, err) < 0)
                return -ENOMEM;
        json_array_foreach (json_object_get(nodes, "nodes"), a, n)
                json_array_foreach (json_object_get(n, "interfaces"), b, i) {
                        int r = add_direction(t, n, i, "up", err);
                        if (r >= 0)
                                r = add_direction(t, n, i, "down", err);
                        if (r < 0)
                                return r;
                }
        cli_table_print(t);
        return 0;
}

static int show_shapes(Cli *c, const char *name)
{
        _cleanup_free_ char *path = name ? cli_node_path(name, "/shape") : strdup("/v1/shapes");
        _cleanup_json_ json_t *nodes = NULL;
        TbError *err = NULL;

        if (!path)
                return CLI_FAILED;
        int r = cli_call(c, "GET", path, NULL, &nodes, &err);
        if (r >= 0)
                r = c->json ? cli_print_json(nodes, &err) : print_shapes(nodes, &err);
        return r < 0 ? cli_fail(err) : CLI_OK;
}

int cli_node_change(Cli *c, const char *method, const char *node, const char *suffix, const json_t *body)
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

static int set_rules(Cli *c, const char *node, const char *suffix, const char *file, const char *for_time,
        bool replace_foreign)
{
        _cleanup_json_ json_t *body = NULL;
        _cleanup_free_ char *text = NULL;
        TbError *err = NULL;
        size_t size;

        if (tb_file_read(file, RULES_FILE_MAX, &text, &size, &err) < 0)
                return cli_fail(err);
        if (strlen(text) != size)
                return cli_usage(c, "the file of rules is not text");
        body = json_pack("{s:s, s:s*}", "rules", rules_from_lines(text), "for", for_time);
        if (!body)
                return cli_usage(c, "the file of rules is not valid UTF-8 text");
        if (replace_foreign && json_object_set_new(body, "replace_foreign", json_true()) < 0)
                return CLI_FAILED;
        return cli_node_change(c, "PUT", node, suffix, body);
}

static const char shape_usage[] =
        "show [NODE], set NODE IFACE SPEC|--rules FILE [for TIME], down|up NODE IFACE [for TIME], "
        "flap NODE IFACE DOWN UP [COUNT] [for TIME], each with --replace-foreign if need be, or clear NODE "
        "IFACE is expected";

/* Takes "for TIME" off the end of a text. Returns TIME, or NULL. */
static char *cut_for_time(char *text)
{
        char *found = NULL;

        for (char *p = strstr(text, "for "); p; p = strstr(p + 1, "for "))
                if (p == text || p[-1] == ' ')
                        found = p;
        if (!found || strchr(found + 4, ' '))
                return NULL;
        *found = '\0';
        if (found > text)
                found[-1] = '\0';
        return found + 4;
}

/* The body of `verb` from the words behind NODE and IFACE; NULL: wrong usage. */
static json_t *change_body(const char *verb, char *const *words)
{
        _cleanup_free_ char *text = tb_strv_join(words, " ");
        const char *for_time, *flap = NULL, *spec = NULL;

        if (!text)
                return NULL;
        for_time = cut_for_time(text);
        if (tb_streq(verb, "set") && text[0])
                spec = text;
        else if (tb_streq(verb, "down") && !text[0])
                spec = "link down";
        else if (tb_streq(verb, "up") && !text[0])
                spec = "link up";
        else if (tb_streq(verb, "flap") && text[0])
                flap = text;
        else
                return NULL;
        return json_pack("{s:s*, s:s*, s:s*}", "spec", spec, "for", for_time, "flap", flap);
}

int cli_shape(Cli *c, int argc, char **argv)
{
        _cleanup_free_ char *iface = NULL, *suffix = NULL;
        _cleanup_json_ json_t *body = NULL;
        static const struct option options[] = {CLI_OPTIONS, {"rules", required_argument, NULL, 'r'},
                {"replace-foreign", no_argument, NULL, 'f'}, {}};
        const char *rules = NULL;
        bool replace_foreign = false;
        int n, opt;

        if (argc > 1 && tb_streq(argv[1], "check"))
                return cli_link_check(c, argc - 1, argv + 1);
        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                if (opt == 'j')
                        c->json = true;
                else if (opt == 'r')
                        rules = optarg;
                else if (opt == 'f')
                        replace_foreign = true;
                else
                        return cli_getopt_other(c, opt);
        argv += optind;
        n = argc - optind;
        if (n >= 1 && n <= 2 && tb_streq(argv[0], "show"))
                return show_shapes(c, n == 2 ? argv[1] : NULL);
        if (n < 3)
                return cli_usage(c, shape_usage);
        iface = tb_engine_escape(argv[2]);
        suffix = iface ? tb_asprintf("/shape/%s", iface) : NULL;
        if (!suffix)
                return CLI_FAILED;
        if (n == 3 && tb_streq(argv[0], "clear"))
                return cli_node_change(c, "DELETE", argv[1], suffix, NULL);
        if (rules && tb_streq(argv[0], "set") && (n == 3 || (n == 5 && tb_streq(argv[3], "for"))))
                return set_rules(c, argv[1], suffix, rules, n == 5 ? argv[4] : NULL, replace_foreign);
        if (rules)
                return cli_usage(c, "--rules FILE takes the place of SPEC in 'set'");
        body = change_body(argv[0], argv + 3);
        if (!body)
                return cli_usage(c, shape_usage);
        if (replace_foreign && json_object_set_new(body, "replace_foreign", json_true()) < 0)
                return CLI_FAILED;
        return cli_node_change(c, "PUT", argv[1], suffix, body);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode ps | inspect | stop | start | restart | rm */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

static int get_node(Cli *c, const char *name, json_t **ret, TbError **err)
{
        _cleanup_free_ char *path = cli_node_path(name, "");

        return path ? cli_call(c, "GET", path, NULL, ret, err) : tb_error_oom(err);
}

/* "lan0 (eth1): rate 10mbit", joined by commas */
static char *interfaces_text(const json_t *node)
{
        _cleanup_strv_ char **parts = NULL;
        const json_t *i;
        size_t k;

        json_array_foreach (json_object_get(node, "interfaces"), k, i) {
                const char *shape = cli_text(i, "shape", NULL);
                char *part;

                if (json_is_true(json_object_get(i, "control")))
                        continue;
                part = tb_asprintf("%s%s%s", cli_text(i, "network", ""), shape ? ": " : "", shape ?: "");
                if (!part || tb_strv_consume(&parts, part, NULL) < 0)
                        return NULL;
        }
        return parts ? tb_strv_join(parts, ", ") : strdup("-");
}

int cli_ps(Cli *c, int argc, char **argv)
{
        static const char *const columns[] = {"NODE", "EXPERIMENT", "STATE", "CLIENT", "IP", "SSH-PORT",
                "FIREWALL", "LINKS", "IMAGE", NULL};
        _cleanup_(cli_table_freep) CliTable *t = NULL;
        _cleanup_json_ json_t *answer = NULL;
        TbError *err = NULL;
        const json_t *n;
        size_t i;
        int r;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        if (optind < argc)
                return cli_usage(c, "unexpected argument '%s'", argv[optind]);
        if (cli_call(c, "GET", "/v1/nodes", NULL, &answer, &err) < 0)
                return cli_fail(err);
        if (c->json)
                return cli_print_json(answer, &err) < 0 ? cli_fail(err) : CLI_OK;
        if (cli_table_new(columns, &t, &err) < 0)
                return cli_fail(err);
        json_array_foreach (json_object_get(answer, "nodes"), i, n) {
                _cleanup_free_ char *links = interfaces_text(n);
                json_int_t port = json_integer_value(json_object_get(n, "ssh_port"));
                char ssh[24] = "-";
                const char *const cells[] = {cli_text(n, "node", "-"), cli_text(n, "experiment", "-"),
                        cli_text(n, "state", "-"), cli_text(n, "client_state", "-"), cli_text(n, "ip", "-"),
                        ssh, cli_text(n, "firewall", "-"), links ?: "-", cli_text(n, "image", "-"), NULL};

                if (port > 0)
                        (void) snprintf(ssh, sizeof(ssh), "%lld", (long long) port);
                if (cli_table_add(t, cells, &err) < 0)
                        return cli_fail(err);
        }
        cli_table_print(t);
        json_array_foreach (json_object_get(answer, "nodes"), i, n)
                if (cli_text(n, "reason", "")[0]) /* why it failed, or what it waits for */
                        printf("%s: %s\n", cli_text(n, "node", ""), cli_text(n, "reason", ""));
        return CLI_OK;
}

static void print_direction(const char *name, const json_t *d)
{
        if (!json_is_object(d))
                return;
        printf("      %-4s  on %s: %s%s; %lld packets, %lld bytes, %lld dropped\n", name,
                cli_text(d, "device", ""), cli_text(d, "shape", "nothing"),
                json_is_true(json_object_get(d, "netem")) ? " (netem)" : "",
                (long long) json_integer_value(json_object_get(d, "packets")),
                (long long) json_integer_value(json_object_get(d, "bytes")),
                (long long) json_integer_value(json_object_get(d, "drops")));
}

/* "exited 3", "running" */
static void print_outcome(const char *what, const char *name, const json_t *j)
{
        const json_t *status = json_object_get(j, "status");

        printf("  %-11s %s%s%s", what, name, name[0] ? " " : "", cli_text(j, "state", "-"));
        if (json_is_integer(status) && !tb_streq(cli_text(j, "state", ""), "running"))
                printf(" %lld", (long long) json_integer_value(status));
        if (cli_text(j, "reason", NULL))
                printf(": %s", cli_text(j, "reason", ""));
        printf("\n");
}

/* What the testbed client in the node said; nothing where there is none and nothing was declared. */
static void print_client(const json_t *c)
{
        const char *state = cli_text(c, "state", NULL), *reason = cli_text(c, "reason", NULL), *name;
        json_t *value;

        if (!state && !json_is_true(json_object_get(c, "declared")))
                return;
        printf("  client      %s%s%s%s%s\n", state ?: "has not said anything", reason ? ": " : "",
                reason ?: "", json_is_true(json_object_get(c, "attached")) ? "" : " (not connected)",
                json_is_true(json_object_get(c, "ready")) ? ", ready" : "");
        if (cli_text(c, "error", NULL))
                printf("  problem     %s\n", cli_text(c, "error", ""));
        if (json_is_object(json_object_get(c, "startup")))
                print_outcome("startup", "", json_object_get(c, "startup"));
        json_object_foreach (json_object_get(c, "programs"), name, value)
                print_outcome("program", name, value);
}

static void print_node(const json_t *n)
{
        const json_t *i;
        size_t k;

        printf("%s\n", cli_text(n, "node", ""));
        if (json_string_value(json_object_get(n, "experiment")))
                printf("  experiment  %s\n", cli_text(n, "experiment", ""));
        printf("  state       %s since %s\n", cli_text(n, "state", ""), cli_text(n, "since", ""));
        if (json_string_value(json_object_get(n, "reason")))
                printf("  reason      %s\n", cli_text(n, "reason", ""));
        if (json_string_value(json_object_get(n, "missing")))
                printf("  waits       %s\n", cli_text(n, "missing", ""));
        printf("  container   %s (%.12s)\n", cli_text(n, "container", ""), cli_text(n, "id", ""));
        printf("  image       %s\n", cli_text(n, "image", "-"));
        printf("  main        %s, on exit %s\n", cli_text(n, "main", "running"), cli_text(n, "on_exit", ""));
        print_client(json_object_get(n, "client"));
        printf("  address     %s\n", cli_text(n, "ip", "-"));
        printf("  firewall    %s%s\n", cli_text(n, "firewall", "none"),
                json_is_true(json_object_get(n, "firewall_installed")) ? " (in the kernel)" : "");
        json_array_foreach (json_object_get(n, "interfaces"), k, i) {
                printf("  %-11s %s%s, %s, %s, host side %s\n", cli_text(i, "ifname", "interface"),
                        cli_text(i, "network", ""),
                        json_is_true(json_object_get(i, "control")) ? " (control)" : "",
                        cli_text(i, "address", "-"), cli_text(i, "mac", "-"),
                        cli_text(i, "host_ifname", "-"));
                if (cli_text(i, "shape", NULL))
                        printf("      shape %s\n", cli_text(i, "shape", ""));
                print_direction("up", json_object_get(i, "up"));
                print_direction("down", json_object_get(i, "down"));
        }
}

int cli_inspect(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *node = NULL;
        TbError *err = NULL;
        int r;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        if (optind + 1 != argc)
                return cli_usage(c, "one node is to be given");
        if (get_node(c, argv[optind], &node, &err) < 0)
                return cli_fail(err);
        if (c->json)
                return cli_print_json(node, &err) < 0 ? cli_fail(err) : CLI_OK;
        print_node(node);
        return CLI_OK;
}

/* The same operation on each node; goes on after a failure, and remembers it. */
static int for_each(Cli *c, int argc, char **argv, const char *method, const char *suffix, const char *done)
{
        _cleanup_json_ json_t *answers = json_array();
        TbError *err = NULL;
        int r, status = CLI_OK;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        if (optind >= argc)
                return cli_usage(c, "no node is given");
        for (int i = optind; i < argc; i++) {
                _cleanup_free_ char *path = cli_node_path(argv[i], suffix);
                json_t *answer = NULL;

                r = path ? cli_call(c, method, path, NULL, &answer, &err) : tb_error_oom(&err);
                if (r < 0) {
                        status = cli_fail(TAKE_PTR(err));
                        if (status == CLI_NO_AGENT)
                                return status;
                        continue;
                }
                if (!c->json)
                        printf("%s %s\n", cli_text(answer, "node", argv[i]), done);
                if (json_array_append_new(answers, answer) < 0)
                        status = CLI_FAILED;
        }
        if (c->json) {
                _cleanup_json_ json_t *j = json_pack("{s:O}", "nodes", answers);

                if (!j || cli_print_json(j, &err) < 0)
                        return cli_fail(err);
        }
        return status;
}

int cli_stop(Cli *c, int argc, char **argv)
{
        return for_each(c, argc, argv, "POST", "/stop", "stopped");
}

int cli_start(Cli *c, int argc, char **argv)
{
        return for_each(c, argc, argv, "POST", "/start", "started");
}

int cli_restart(Cli *c, int argc, char **argv)
{
        return for_each(c, argc, argv, "POST", "/restart", "restarted");
}

int cli_rm(Cli *c, int argc, char **argv)
{
        return for_each(c, argc, argv, "DELETE", "", "removed");
}

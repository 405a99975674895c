/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode firewall: what the kernel has, changes, and which rule would decide. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

static json_int_t number(const json_t *o, const char *group, const char *key)
{
        return json_integer_value(json_object_get(json_object_get(o, group), key));
}

static const char *condition(const json_t *n)
{
        const char *state = cli_text(n, "state", "");

        /* What does not run has nothing in the kernel. */
        if (tb_streq(cli_text(n, "style", "none"), "none") || tb_streq(state, "created") ||
                tb_streq(state, "removing") || tb_streq(state, "stopped"))
                return "-";
        if (!json_is_true(json_object_get(n, "present")))
                return "MISSING";
        return json_is_true(json_object_get(n, "intact")) ? "yes" : "DAMAGED";
}

static int add_row(CliTable *t, const json_t *n, TbError **err)
{
        const json_t *counters = json_object_get(n, "counters"),
                     *dropped = json_object_get(counters, "dropped");
        char in[24], out[24], forged[24], apart[24], denied[24], port[24] = "-";
        const char *const cells[] = {cli_text(n, "node", ""), cli_text(n, "style", "none"), condition(n),
                cli_text(n, "ip", "-"), port, in, out, forged, apart, denied, NULL};

        if (json_integer_value(json_object_get(n, "ssh_port")))
                (void) snprintf(port, sizeof(port), "%lld",
                        (long long) json_integer_value(json_object_get(n, "ssh_port")));
        (void) snprintf(in, sizeof(in), "%lld", (long long) number(counters, "in", "packets"));
        (void) snprintf(out, sizeof(out), "%lld", (long long) number(counters, "out", "packets"));
        (void) snprintf(forged, sizeof(forged), "%lld",
                (long long) json_integer_value(json_object_get(dropped, "identity")));
        (void) snprintf(apart, sizeof(apart), "%lld",
                (long long) json_integer_value(json_object_get(dropped, "isolation")));
        (void) snprintf(denied, sizeof(denied), "%lld",
                (long long) json_integer_value(json_object_get(dropped, "rules")));
        return cli_table_add(t, cells, err);
}

static int print_rules(const char *title, const json_t *list, TbError **err)
{
        static const char *const columns[] = {"WAY", "RULE", "FROM", "PACKETS", "BYTES", NULL};
        _cleanup_(cli_table_freep) CliTable *t = NULL;
        const json_t *r;
        size_t i;

        if (json_array_size(list) == 0)
                return 0;
        if (cli_table_new(columns, &t, err) < 0)
                return -ENOMEM;
        json_array_foreach (list, i, r) {
                char packets[24], bytes[24];
                const char *const cells[] = {cli_text(r, "direction", ""), cli_text(r, "rule", ""),
                        cli_text(r, "from", ""), packets, bytes, NULL};

                (void) snprintf(packets, sizeof(packets), "%lld",
                        (long long) json_integer_value(json_object_get(r, "packets")));
                (void) snprintf(bytes, sizeof(bytes), "%lld",
                        (long long) json_integer_value(json_object_get(r, "bytes")));
                if (cli_table_add(t, cells, err) < 0)
                        return -ENOMEM;
        }
        printf("\n%s\n", title);
        cli_table_print(t);
        return 0;
}

static int show(Cli *c, const char *name)
{
        static const char *const columns[] = {
                "NODE", "STYLE", "INTACT", "IP", "SSH-PORT", "IN", "OUT", "FORGED", "APART", "DENIED", NULL};
        _cleanup_(cli_table_freep) CliTable *t = NULL;
        _cleanup_free_ char *path = name ? cli_node_path(name, "/firewall") : strdup("/v1/firewall");
        _cleanup_json_ json_t *answer = NULL;
        TbError *err = NULL;
        const json_t *n;
        size_t i;

        if (!path || cli_call(c, "GET", path, NULL, &answer, &err) < 0)
                return path ? cli_fail(err) : CLI_FAILED;
        if (c->json)
                return cli_print_json(answer, &err) < 0 ? cli_fail(err) : CLI_OK;
        if (cli_table_new(columns, &t, &err) < 0)
                return cli_fail(err);
        json_array_foreach (json_object_get(answer, "nodes"), i, n)
                if (add_row(t, n, &err) < 0)
                        return cli_fail(err);
        cli_table_print(t);
        n = json_array_get(json_object_get(answer, "nodes"), 0);
        if (name &&
                (print_rules("Rules", json_object_get(n, "rules"), &err) < 0 ||
                        print_rules("Found instead", json_object_get(n, "found"), &err) < 0))
                return cli_fail(err);
        return CLI_OK;
}

static int set(Cli *c, char **argv, int n)
{
        _cleanup_free_ char *rules = n > 3 ? tb_strv_join(argv + 3, " ") : NULL;
        _cleanup_json_ json_t *body = json_pack("{s:s, s:s*}", "style", argv[2], "rules", rules);

        if (!body)
                return cli_usage(c, "STYLE and RULES are not valid UTF-8 text");
        return cli_node_change(c, "PUT", argv[1], "/firewall", body);
}

static void print_step(const json_t *s)
{
        const char *reason = cli_text(s, "reason", ""), *verdict = cli_text(s, "verdict", "");

        printf("%s %s: %s", cli_text(s, "node", ""), cli_text(s, "direction", ""), verdict);
        if (tb_streq(reason, "rule"))
                printf(" by rule %lld (%s): %s\n",
                        (long long) json_integer_value(json_object_get(s, "position")),
                        cli_text(s, "from", ""), cli_text(s, "rule", ""));
        else if (tb_streq(reason, "isolation"))
                printf(": the other node belongs to another experiment\n");
        else if (tb_streq(reason, "identity"))
                printf(": the source address is not the node's\n");
        else if (tb_streq(reason, "no-firewall"))
                printf(": it has no firewall on this interface\n");
        else
                printf(": no rule is about it\n");
}

/* "1.2.3.4:80", "[fd00::1]:80", "1.2.3.4". */
static bool split_address(char *text, const char **ret_address, uint32_t *ret_port)
{
        char *close = text[0] == '[' ? strchr(text, ']') : NULL;
        char *colon = close ? (close[1] == ':' ? close + 1 : NULL) : strchr(text, ':');

        *ret_port = 0;
        *ret_address = close ? text + 1 : text;
        if (text[0] == '[' && !close)
                return false;
        if (!close && colon && strchr(colon + 1, ':')) /* a bare IPv6 address */
                colon = NULL;
        if (colon && tb_parse_u32(colon + 1, 1, UINT16_MAX, ret_port, NULL) < 0)
                return false;
        if (colon)
                *colon = '\0';
        if (close)
                *close = '\0';
        return close == NULL || colon != NULL || close[1] == '\0';
}

static int explain(Cli *c, char **argv, int n)
{
        _cleanup_free_ char *path = cli_node_path(argv[1], "/firewall/explain"), *address = strdup(argv[3]);
        _cleanup_json_ json_t *body = NULL, *answer = NULL;
        const char *host, *direction = n == 5 ? argv[4] : "out";
        TbError *err = NULL;
        const json_t *s;
        uint32_t port;
        size_t i;

        if (!path || !address)
                return CLI_FAILED;
        if (!split_address(address, &host, &port))
                return cli_usage(c, "ADDRESS:PORT is expected, like 10.1.2.3:80 or [fd00::1]:80");
        body = json_pack("{s:s, s:s, s:s}", "direction", direction, "protocol", argv[2], "address", host);
        if (!body || (port && json_object_set_new(body, "port", json_integer(port)) < 0))
                return cli_usage(c, "the arguments are not valid UTF-8 text");
        if (cli_call(c, "POST", path, body, &answer, &err) < 0)
                return cli_fail(err);
        if (c->json)
                return cli_print_json(answer, &err) < 0 ? cli_fail(err) : CLI_OK;
        json_array_foreach (json_object_get(answer, "steps"), i, s)
                print_step(s);
        if (json_array_size(json_object_get(answer, "steps")) == 0)
                printf("nobody on this way has a firewall\n");
        printf("%s\n", tb_streq(cli_text(answer, "verdict", ""), "allow") ? "allowed" : "denied");
        return CLI_OK;
}

int cli_firewall(Cli *c, int argc, char **argv)
{
        int r, n;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        argv += optind;
        n = argc - optind;
        if (n >= 1 && n <= 2 && tb_streq(argv[0], "show"))
                return show(c, n == 2 ? argv[1] : NULL);
        if (n >= 3 && tb_streq(argv[0], "set"))
                return set(c, argv, n);
        if (n >= 4 && n <= 5 && tb_streq(argv[0], "explain"))
                return explain(c, argv, n);
        return cli_usage(c,
                "show [NODE], set NODE STYLE [RULES...], or explain NODE tcp|udp|icmp ADDRESS[:PORT] "
                "[in|out] is "
                "expected");
}

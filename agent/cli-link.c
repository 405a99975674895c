/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode shape check */

#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

typedef struct Check {
        CliTable *table;
        json_t *links;
        bool progress;
        size_t differs;
} Check;

static void check_done(Check *k)
{
        cli_table_free(k->table);
        json_decref(k->links);
}

static double number(const json_t *o, const char *key)
{
        return json_number_value(json_object_get(o, key));
}

static int add_row(Check *k, const json_t *link, TbError **err)
{
        const json_t *latency = json_object_get(link, "latency"), *rate = json_object_get(link, "rate");
        double sent = number(latency, "sent"), received = number(latency, "received");
        char delay[64] = "-", loss[64] = "-", speed[64] = "-";
        const char *verdict = cli_text(link, "verdict", NULL);

        if (received > 0)
                (void) snprintf(delay, sizeof(delay), "%.3f ms", number(latency, "median_ms"));
        if (sent > 0)
                (void) snprintf(loss, sizeof(loss), "%.0f of %.0f", sent - received, sent);
        if (number(rate, "measured_bps") > 0)
                (void) snprintf(speed, sizeof(speed), "%.3f Mbit/s", number(rate, "measured_bps") / 1e6);
        const char *const cells[] = {cli_text(link, "network", "?"), cli_text(link, "from", "?"),
                cli_text(link, "to", "?"), cli_text(link, "declared", ""), delay, loss, speed,
                verdict ?: cli_text(link, "error", "?"), NULL};
        return cli_table_add(k->table, cells, err);
}

static int on_line(const json_t *line, void *userdata, TbError **err)
{
        const char *event = cli_text(line, "event", "");
        json_t *link = json_object_get(line, "link");
        Check *k = userdata;

        if (tb_streq(event, "error")) {
                const json_t *e = json_object_get(line, "error");
                return tb_error_set(
                        err, TB_ERROR_SYSTEM, -EIO, "%s", cli_text(e, "message", "unknown error"));
        }
        if (!link)
                return 0;
        if (!json_is_true(json_object_get(link, "as_declared")))
                k->differs++;
        if (k->progress)
                fprintf(stderr, "\r%zu measured ", json_array_size(k->links) + 1);
        if (json_array_append(k->links, link) < 0)
                return tb_error_oom(err);
        return add_row(k, link, err);
}

int cli_link_check(Cli *c, int argc, char **argv)
{
        static const char *const columns[] = {
                "NETWORK", "FROM", "TO", "DECLARED", "DELAY", "LOST", "RATE", "VERDICT", NULL};
        static const struct option options[] = {{"no-rate", no_argument, NULL, 'n'}, CLI_OPTIONS, {}};
        _cleanup_(check_done) Check k = {.links = json_array(), .progress = isatty(STDERR_FILENO)};
        _cleanup_json_ json_t *body = json_object(), *out = NULL;
        TbError *err = NULL;
        bool rate = true;

        for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;)
                if (o == 'n')
                        rate = false;
                else if (o == 'j')
                        c->json = true;
                else
                        return cli_getopt_other(c, o);
        if (argc - optind > 2)
                return cli_usage(c, "check takes NODE and IFACE at most");
        if (!body || !k.links || json_object_set_new(body, "rate", json_boolean(rate)) < 0 ||
                (argc > optind && json_object_set_new(body, "node", json_string(argv[optind])) < 0) ||
                (argc > optind + 1 &&
                        json_object_set_new(body, "network", json_string(argv[optind + 1])) < 0))
                return cli_usage(c, "NODE and IFACE must be valid UTF-8 text");
        k.progress = k.progress && !c->json;

        int r = cli_table_new(columns, &k.table, &err);
        if (r >= 0)
                r = cli_stream(c, "POST", "/v1/links/check", body, on_line, &k, &err);
        if (k.progress)
                fprintf(stderr, "\r\033[K");
        if (r >= 0 && c->json) {
                out = json_pack("{s:O, s:I}", "links", k.links, "not_as_declared", (json_int_t) k.differs);
                r = out ? cli_print_json(out, &err) : tb_error_oom(&err);
        } else if (r >= 0)
                cli_table_print(k.table);
        if (r < 0)
                return cli_fail(err);
        return k.differs > 0 ? CLI_FAILED : CLI_OK;
}

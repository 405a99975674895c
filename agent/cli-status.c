/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode status | events */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* "docker.io: 76 of 100 pulls left (per 6 h), told at ..." */
static void print_rate_limits(const json_t *limits)
{
        const json_t *l;
        size_t i;

        json_array_foreach (limits, i, l) {
                const json_t *limit = json_object_get(l, "limit"), *left = json_object_get(l, "remaining"),
                             *window = json_object_get(l, "window_s");
                const char *until = cli_text(l, "refused_until", NULL);

                printf("%-9s %s:", i == 0 ? "limits" : "", cli_text(l, "registry", ""));
                if (left)
                        printf(" %lld", (long long) json_integer_value(left));
                if (limit)
                        printf(" of %lld", (long long) json_integer_value(limit));
                if (left || limit)
                        printf(" requests left");
                if (window)
                        printf(" (per %lld min)", (long long) json_integer_value(window) / 60);
                if (until)
                        printf(" REFUSED until %s", until);
                printf(", told at %s\n", cli_text(l, "told", ""));
        }
}

int cli_status(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *j = NULL;
        const json_t *engine, *n;
        TbError *err = NULL;
        const char *state;
        int r;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        if (optind < argc)
                return cli_usage(c, "unexpected argument '%s'", argv[optind]);
        if (cli_call(c, "GET", "/v1/status", NULL, &j, &err) < 0)
                return cli_fail(err);
        if (c->json)
                return cli_print_json(j, &err) < 0 ? cli_fail(err) : CLI_OK;
        engine = json_object_get(j, "engine");
        printf("tbnoded %s, process %lld, since %s\n", cli_text(j, "version", ""),
                (long long) json_integer_value(json_object_get(j, "pid")), cli_text(j, "started", ""));
        if (json_is_true(json_object_get(engine, "connected")))
                printf("engine    Docker %s (API %s) at %s\n", cli_text(engine, "version", ""),
                        cli_text(engine, "api", ""), cli_text(engine, "endpoint", ""));
        else
                printf("engine    NOT CONNECTED: %s\n", cli_text(engine, "error", "not tried yet"));
        printf("registry  %s\n", cli_text(j, "registry", ""));
        print_rate_limits(json_object_get(j, "rate_limits"));
        printf("nodes    ");
        json_object_foreach (json_object_get(j, "nodes"), state, n)
                if (json_integer_value(n) > 0)
                        printf(" %lld %s", (long long) json_integer_value(n), state);
        printf("\naugmentations under way: %lld\n",
                (long long) json_integer_value(json_object_get(j, "jobs")));
        return CLI_OK;
}

typedef struct EventsOut {
        bool json;
} EventsOut;

/* For people: time, event, then the fields. */
static int on_event(const json_t *line, void *userdata, TbError **err)
{
        const EventsOut *o = userdata;
        const char *key;
        json_t *value;

        if (o->json) {
                _cleanup_free_ char *text = NULL;

                if (tb_json_dump(line, false, &text, NULL, err) < 0)
                        return -ENOMEM;
                puts(text);
        } else {
                printf("%s  %-16s", cli_text(line, "time", ""), cli_text(line, "event", ""));
                json_object_foreach ((json_t *) line, key, value) {
                        if (tb_streq(key, "time") || tb_streq(key, "event") || tb_streq(key, "seq"))
                                continue;
                        if (json_is_string(value))
                                printf("  %s=%.*s", key, tb_streq(key, "id") ? 12 : 500,
                                        json_string_value(value));
                        else if (json_is_integer(value))
                                printf("  %s=%lld", key, (long long) json_integer_value(value));
                }
                putchar('\n');
        }
        if (fflush(stdout) != 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write the answer");
        return 0;
}

int cli_events(Cli *c, int argc, char **argv)
{
        static const struct option options[] = {{"follow", no_argument, NULL, 'f'}, CLI_OPTIONS, {}};
        EventsOut o;
        TbError *err = NULL;
        bool follow = false;
        int opt;

        while ((opt = getopt_long(argc, argv, "fh", options, NULL)) >= 0)
                if (opt == 'j')
                        c->json = true;
                else if (opt == 'f')
                        follow = true;
                else
                        return cli_getopt_other(c, opt);
        if (optind < argc)
                return cli_usage(c, "unexpected argument '%s'", argv[optind]);
        o.json = c->json;
        if (cli_stream(c, "GET", follow ? "/v1/events?follow=1" : "/v1/events", NULL, on_event, &o, &err) <
                0)
                return cli_fail(err);
        return CLI_OK;
}

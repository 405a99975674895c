/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode logs: of one node, as they come; --collect is in cli-collect.c */

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli-collect.h"
#include "agent/cli.h"
#include "agent/log-time.h"
#include "common/cleanup.h"
#include "common/engine.h"
#include "common/strv.h"
#include "common/units.h"

typedef struct LogsOptions {
        const char *tail, *since, *source;
        bool follow;
        CollectOptions collect;
} LogsOptions;

/* -1: all is well. */
static int check(Cli *c, const LogsOptions *o, int n_words)
{
        const CollectOptions *k = &o->collect;
        _cleanup_error_ TbError *err = NULL;
        uint64_t n;

        if (o->tail && tb_parse_u64(o->tail, 0, 1000000, &n, NULL) < 0)
                return cli_usage(c, "'%s' is not a number of lines (0 to 1000000)", o->tail);
        if (o->since && log_time_since(o->since, log_time_now(), &n, &err) < 0)
                return cli_usage(c, "%s", tb_error_message(err));
        if (!k->target && (k->experiment || k->files))
                return cli_usage(c, "--experiment and --files are for --collect DIR|TAR");
        if (k->target && !k->experiment)
                return cli_usage(c, "which --experiment is to be collected?");
        if (k->target && (o->follow || o->tail || !tb_streq(o->source, "all")))
                return cli_usage(c, "--follow, --tail, --syslog and --no-syslog are not for --collect");
        if (!k->target && n_words != 1)
                return cli_usage(c, "one node is to be given");
        return -1;
}

static int show(Cli *c, const LogsOptions *o, const char *node)
{
        _cleanup_free_ char *path = NULL, *query = NULL,
                            *since = o->since ? tb_engine_escape(o->since) : NULL;
        TbError *err = NULL;

        if (!o->since || since)
                query = tb_asprintf("/logs?source=%s&follow=%d%s%s%s%s%s", o->source, o->follow,
                        c->json ? "&format=json" : "", o->tail ? "&tail=" : "", o->tail ?: "",
                        since ? "&since=" : "", since ?: "");
        path = query ? cli_node_path(node, query) : NULL;
        if (!path)
                (void) tb_error_oom(&err);
        else if (cli_copy(c, path, &err) >= 0)
                return CLI_OK;
        return cli_fail(err);
}

int cli_logs(Cli *c, int argc, char **argv)
{
        enum {
                OPT_NO_SYSLOG = 0x100,
                OPT_SINCE,
                OPT_EXPERIMENT,
                OPT_COLLECT,
                OPT_FILES,
        };
        static const struct option options[] = {
                {"follow", no_argument, NULL, 'f'},
                {"tail", required_argument, NULL, 'n'},
                {"since", required_argument, NULL, OPT_SINCE},
                {"syslog", no_argument, NULL, 's'},
                {"no-syslog", no_argument, NULL, OPT_NO_SYSLOG},
                {"experiment", required_argument, NULL, OPT_EXPERIMENT},
                {"collect", required_argument, NULL, OPT_COLLECT},
                {"files", required_argument, NULL, OPT_FILES},
                CLI_OPTIONS,
                {},
        };
        LogsOptions o = {.source = "all"};
        _cleanup_strv_ char **files = NULL;
        TbError *err = NULL;
        int opt, r = 0;

        while (r >= 0 && (opt = getopt_long(argc, argv, "fn:sh", options, NULL)) >= 0)
                switch (opt) {
                case 'f':
                        o.follow = true;
                        break;
                case 'n':
                        o.tail = optarg;
                        break;
                case OPT_SINCE:
                        o.since = optarg;
                        break;
                case 's':
                        o.source = "syslog";
                        break;
                case OPT_NO_SYSLOG:
                        o.source = "output";
                        break;
                case OPT_EXPERIMENT:
                        o.collect.experiment = optarg;
                        break;
                case OPT_COLLECT:
                        o.collect.target = optarg;
                        break;
                case OPT_FILES:
                        r = tb_strv_append(&files, optarg, &err);
                        break;
                case 'j':
                        c->json = true;
                        break;
                default:
                        return cli_getopt_other(c, opt);
                }
        /* --files 'A' 'B': what no option takes is another one. */
        for (int i = optind; r >= 0 && files && i < argc; i++)
                r = tb_strv_append(&files, argv[i], &err);
        if (r < 0)
                return cli_fail(err);
        o.collect.files = files;
        o.collect.since = o.since;
        r = check(c, &o, argc - optind);
        if (r >= 0)
                return r;
        if (!o.collect.target)
                return show(c, &o, argv[optind]);
        if (!files && optind < argc)
                return cli_usage(
                        c, "all nodes of the experiment are collected; '%s' is too much", argv[optind]);
        return cli_collect(c, &o.collect);
}

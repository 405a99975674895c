/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode snapshot */

#include <getopt.h>
#include <stdio.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

static int parse(Cli *c, int argc, char **argv, json_t *body)
{
        static const struct option options[] = {
                {"no-pause", no_argument, NULL, 'N'},
                {"project", required_argument, NULL, 'J'},
                CLI_OPTIONS,
                {},
        };
        int opt, r = 0;

        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (opt) {
                case 'N':
                        r = r < 0 ? r : tb_json_set_bool(body, "pause", false, NULL);
                        break;
                case 'J':
                        r = r < 0 ? r : tb_json_set_string(body, "project", optarg, NULL);
                        break;
                case 'j':
                        c->json = true;
                        break;
                default:
                        return cli_getopt_other(c, opt);
                }
        if (argc - optind != 1 && argc - optind != 2)
                return cli_usage(c, "a node, and a name for the image at most, are to be given");
        if (r >= 0 && argc - optind == 2)
                r = tb_json_set_string(body, "name", argv[optind + 1], NULL);
        return r < 0 ? cli_usage(c, "NAME and the project must be valid UTF-8 text") : -1;
}

int cli_snapshot(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *body = json_object(), *result = NULL;
        _cleanup_free_ char *path = NULL;
        char size[TB_UNIT_TEXT_MAX];
        uint64_t bytes = 0;
        TbError *err = NULL;
        int r;

        r = parse(c, argc, argv, body);
        if (r >= 0)
                return r;
        path = cli_node_path(argv[optind], "/snapshot");
        r = path ? cli_long(c, path, body, "result", &result, &err) : tb_error_oom(&err);
        if (r >= 0 && c->json)
                r = cli_print_json(result, &err);
        if (r < 0)
                return cli_fail(err);
        if (c->json)
                return CLI_OK;
        if (tb_json_get_u64(result, "size", &bytes, NULL) < 0)
                bytes = 0;
        printf("%s\n  digest  %s\n  size    %s, after %.1f s\n", cli_text(result, "image", ""),
                cli_text(result, "digest", ""), tb_format_bytes(size, bytes),
                json_number_value(json_object_get(result, "ms")) / 1e3);
        printf("run it:  tbnode run --project %s %s\n", cli_text(result, "project", ""),
                cli_text(result, "image", ""));
        return CLI_OK;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode images | prune */

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "agent/cli.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define GC_HINT                                                                                            \
        "the registry frees the space when its garbage is collected: systemctl start tbnode-registry-gc, " \
        "on its host\n"

static void age_text(char *buf, size_t size, json_int_t seconds)
{
        if (seconds >= 2 * 86400)
                (void) snprintf(buf, size, "%lld days", (long long) seconds / 86400);
        else if (seconds >= 2 * 3600)
                (void) snprintf(buf, size, "%lld hours", (long long) seconds / 3600);
        else
                (void) snprintf(buf, size, "%lld min", (long long) seconds / 60);
}

/* "web1, web2", shortened */
static void names_text(char *buf, size_t size, const json_t *names)
{
        const json_t *name;
        size_t i, n = 0;

        buf[0] = 0;
        json_array_foreach (names, i, name)
                if (n < size)
                        n += (size_t) snprintf(buf + n, size - n, "%s%s", i > 0 ? ", " : "",
                                json_string_value(name) ?: "?");
        if (buf[0] == 0)
                (void) snprintf(buf, size, "-");
}

static int print_images(const json_t *images, TbError **err)
{
        static const char *const columns[] = {
                "SOURCE", "LEVEL", "PLATFORM", "DIGEST", "SIZE", "AGE", "LAST USED", "IN USE BY", NULL};
        _cleanup_(cli_table_freep) CliTable *t = NULL;
        const json_t *image;
        size_t i;
        int r;

        r = cli_table_new(columns, &t, err);
        json_array_foreach (images, i, image) {
                char size[TB_UNIT_TEXT_MAX], age[32], names[80], digest[20];
                bool mirror = tb_streq(cli_text(image, "kind", ""), "mirror");
                const char *cells[] = {cli_text(image, "source", cli_text(image, "repository", "?")),
                        mirror ? "(mirror)" : cli_text(image, "level", "-"),
                        json_is_true(json_object_get(image, "index")) ? "index"
                                                                      : cli_text(image, "platform", "-"),
                        digest,
                        tb_format_bytes(size, (uint64_t) json_integer_value(json_object_get(image, "size"))),
                        age, cli_text(image, "last_used", "-"), names};

                (void) snprintf(digest, sizeof(digest), "%.19s", cli_text(image, "digest", ""));
                age_text(age, sizeof(age), json_integer_value(json_object_get(image, "age_s")));
                names_text(names, sizeof(names), json_object_get(image, "in_use"));
                if (r >= 0)
                        r = cli_table_add(t, cells, err);
        }
        if (r >= 0)
                cli_table_print(t);
        return r;
}

int cli_images(Cli *c, int argc, char **argv)
{
        char bytes[TB_UNIT_TEXT_MAX];
        _cleanup_json_ json_t *j = NULL;
        TbError *err = NULL;
        int r;

        r = cli_parse_plain(c, argc, argv);
        if (r >= 0)
                return r;
        if (optind < argc)
                return cli_usage(c, "unexpected argument '%s'", argv[optind]);
        if (cli_call(c, "GET", "/v1/images", NULL, &j, &err) < 0)
                return cli_fail(err);
        if (c->json)
                return cli_print_json(j, &err) < 0 ? cli_fail(err) : CLI_OK;
        if (print_images(json_object_get(j, "images"), &err) < 0)
                return cli_fail(err);
        printf("%zu images, %s in all\n", json_array_size(json_object_get(j, "images")),
                tb_format_bytes(bytes, (uint64_t) json_integer_value(json_object_get(j, "bytes"))));
        return CLI_OK;
}

int cli_prune(Cli *c, int argc, char **argv)
{
        static const struct option options[] = {
                {"keep-days", required_argument, NULL, 'k'},
                {"dry-run", no_argument, NULL, 'n'},
                CLI_OPTIONS,
                {},
        };
        _cleanup_json_ json_t *body = json_object(), *j = NULL;
        const json_t *image;
        TbError *err = NULL;
        bool dry_run = false;
        json_int_t young;
        uint64_t days;
        size_t i;
        int opt;

        while ((opt = getopt_long(argc, argv, "nh", options, NULL)) >= 0)
                switch (opt) {
                case 'k':
                        if (tb_parse_u64(optarg, 0, 36500, &days, &err) < 0 ||
                                tb_json_set_u64(body, "keep_days", days, &err) < 0) {
                                tb_error_free(err);
                                return cli_usage(c, "'%s' is not a number of days (0 to 36500)", optarg);
                        }
                        break;
                case 'n':
                        dry_run = true;
                        if (tb_json_set_bool(body, "dry_run", true, &err) < 0)
                                return cli_fail(err);
                        break;
                case 'j':
                        c->json = true;
                        break;
                default:
                        return cli_getopt_other(c, opt);
                }
        if (optind < argc)
                return cli_usage(c, "unexpected argument '%s'", argv[optind]);
        if (cli_call(c, "POST", "/v1/images/prune", body, &j, &err) < 0)
                return cli_fail(err);
        if (c->json)
                return cli_print_json(j, &err) < 0 ? cli_fail(err) : CLI_OK;
        json_array_foreach (json_object_get(j, "removed"), i, image)
                printf("%s %s\n", dry_run ? "would remove" : "removed", cli_text(image, "image", ""));
        young = json_integer_value(json_object_get(j, "young"));
        printf("%zu %s, %lld kept", i, dry_run ? "would go" : "removed",
                (long long) json_integer_value(json_object_get(j, "kept")));
        if (young > 0)
                printf("; %lld of them are known for less than %lld s (prune-grace): try again later",
                        (long long) young, (long long) json_integer_value(json_object_get(j, "grace_s")));
        putchar('\n');
        if (i > 0 && !dry_run)
                printf(GC_HINT);
        return CLI_OK;
}

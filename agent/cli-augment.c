/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode augment | dockerfile */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cli-source.h"
#include "augment/augment.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

typedef struct Options {
        json_t *body;
        const char *image;
        const char *context;
        const char *level, *platform;
        CliSource source;
} Options;

/* Options of augment and dockerfile go into the request as they are: the agent checks them. -1 = go on, else the exit
 * status. */
static int parse(Cli *c, int argc, char **argv, bool context, Options *o)
{
        enum {
                OPT_LEVEL = 0x100,
                OPT_BUILDER,
                OPT_PLATFORM,
                OPT_PROJECT,
                OPT_UPDATE,
                OPT_CONTEXT
        };
        const struct option options[] = {
                {"level", required_argument, NULL, OPT_LEVEL},
                {"builder", required_argument, NULL, OPT_BUILDER},
                {"platform", required_argument, NULL, OPT_PLATFORM},
                {"project", required_argument, NULL, OPT_PROJECT},
                {"update", no_argument, NULL, OPT_UPDATE},
                {"policy", required_argument, NULL, CLI_OPT_POLICY},
                CLI_OPTIONS,
                CLI_SOURCE_OPTIONS,
                {context ? "context" : NULL, required_argument, NULL, OPT_CONTEXT},
                {},
        };
        int opt, r = 0;

        while ((opt = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
                switch (opt) {
                case OPT_LEVEL:
                        o->level = optarg;
                        if (augment_level_from_string(optarg) < 0)
                                return cli_usage(c,
                                        "there is no level '%s'; use none, basic, core, buildenv or full",
                                        optarg);
                        r = tb_json_set_string(o->body, "level", optarg, NULL);
                        break;
                case OPT_BUILDER:
                        if (augment_builder_from_string(optarg) < 0)
                                return cli_usage(
                                        c, "there is no builder '%s'; use native or docker", optarg);
                        r = tb_json_set_string(o->body, "builder", optarg, NULL);
                        break;
                case OPT_PLATFORM:
                        o->platform = optarg;
                        r = tb_json_set_string(o->body, "platform", optarg, NULL);
                        break;
                case OPT_PROJECT:
                        r = tb_json_set_string(o->body, "project", optarg, NULL);
                        break;
                case OPT_UPDATE:
                        r = tb_json_set_bool(o->body, "update", true, NULL);
                        break;
                case CLI_OPT_POLICY:
                        r = tb_json_set_string(o->body, "policy", optarg, NULL);
                        break;
                case CLI_OPT_FILE:
                        o->source.file = optarg;
                        break;
                case CLI_OPT_BUILD_CONTEXT:
                        o->source.build_context = optarg;
                        break;
                case OPT_CONTEXT:
                        o->context = optarg;
                        break;
                case 'j':
                        c->json = true;
                        break;
                default:
                        return cli_getopt_other(c, opt);
                }
                if (r < 0)
                        return cli_usage(c, "'%s' is not text", optarg);
        }
        if (optind + 1 != argc)
                return cli_usage(c, optind < argc ? "more than one image is given" : "no image is given");
        if (!tb_utf8_is_valid(argv[optind]))
                return cli_usage(c, "the image's name is not text");
        o->image = argv[optind];
        return -1;
}

static double number(const json_t *obj, const char *group, const char *key)
{
        return json_number_value(json_object_get(json_object_get(obj, group), key));
}

/* What the files of the base say; nothing when nobody had to look. */
static void print_base(const json_t *files)
{
        if (!json_is_object(files)) /* null: nobody did */
                return;
        printf("  base    %s%s%s, %s, packages by %s, shell %s, init %s, sshd %s\n",
                cli_text(files, "distro", "no distribution"), cli_text(files, "version", NULL) ? " " : "",
                cli_text(files, "version", ""), cli_text(files, "libc", "no libc"),
                cli_text(files, "packages", "nothing"), cli_text(files, "shell", "none"),
                cli_text(files, "init", "none"), cli_text(files, "sshd", "none"));
}

static void print_added(const json_t *j)
{
        static const char *const what[_AUGMENT_LEVEL_MAX] = {
                [AUGMENT_LEVEL_NONE] = "nothing, as level none asks",
                [AUGMENT_LEVEL_BASIC] = "init, sshd, syslog, a shell",
                [AUGMENT_LEVEL_CORE] = "init, sshd, syslog, a shell, the testbed client",
                [AUGMENT_LEVEL_BUILDENV] = "init, sshd, syslog, a shell, the testbed client; packages: a "
                                           "compiler and what building needs",
                [AUGMENT_LEVEL_FULL] = "init, sshd, syslog, a shell, the testbed client; packages: a "
                                       "compiler, servers, tools",
        };
        AugmentLevel level = augment_level_from_string(cli_text(j, "level", ""));
        const char *version = cli_text(json_object_get(j, "payload"), "version", NULL);

        if (level < 0)
                return;
        if (level > AUGMENT_LEVEL_NONE && json_is_true(json_object_get(j, "as_is")))
                printf("  added   nothing: the image is augmented to this level already\n");
        else
                printf("  added   %s%s%s%s\n", what[level], version ? " (payload " : "", version ?: "",
                        version ? ")" : "");
}

/* Where the time went, and what moved. */
static void print_work(const json_t *j)
{
        static const char *const stages[] = {"resolve", "mirror", "facts", "build", "push"};
        static const char *const ways[] = {"downloaded", "resumed", "uploaded", "mounted"};
        const char *separator = " (";

        for (size_t i = 0; i < ELEMENTSOF(stages); i++, separator = ", ")
                printf("%s%s %.0f", separator, stages[i], number(j, "timings_ms", stages[i]));
        printf(")\n");
        separator = "  bytes   ";
        for (size_t i = 0; i < ELEMENTSOF(ways); i++)
                if (number(j, "bytes", ways[i]) > 0) {
                        printf("%s%.1f MB %s", separator, number(j, "bytes", ways[i]) / 1e6, ways[i]);
                        separator = ", ";
                }
}

static void print_result(const json_t *j)
{
        const json_t *source = json_object_get(j, "source");
        const char *name = cli_text(source, "name", ""); /* that of a copy has its digest already */
        const json_t *one;
        size_t i;

        printf("%s\n", cli_text(j, "image", ""));
        printf("  digest  %s\n", cli_text(j, "digest", ""));
        printf("  source  %s%s%s%s\n", name, strchr(name, '@') ? "" : "@",
                strchr(name, '@') ? "" : cli_text(source, "digest", ""),
                tb_streq(cli_text(source, "from", ""), "cache") ? " (as cached)" : "");
        if (json_is_true(json_object_get(source, "private")))
                printf("  private to project %s\n", cli_text(j, "project", ""));
        json_array_foreach (json_object_get(j, "platforms"), i, one)
                printf("  %s  %s\n", cli_text(one, "platform", ""), cli_text(one, "digest", ""));
        print_base(json_object_get(json_object_get(j, "facts"), "files"));
        print_added(j);
        printf("  level %s, builder %s, cache %s, %.0f ms", cli_text(j, "level", ""),
                cli_text(j, "builder", ""), cli_text(j, "cache", ""), number(j, "timings_ms", "total"));
        if (!tb_streq(cli_text(j, "cache", ""), "hit"))
                print_work(j);
        putchar('\n');
}

int cli_augment(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *body = json_object(), *result = NULL;
        Options o = {.body = body};
        TbError *err = NULL;
        int r;

        r = parse(c, argc, argv, false, &o);
        if (r >= 0)
                return r;
        if (cli_source_take(c, o.image, &o.source, body, &err) < 0 ||
                cli_long(c, "/v1/augment", body, "result", &result, &err) < 0)
                return cli_fail(err);
        cli_notice(result);
        if (!c->json)
                print_result(result);
        else if (cli_print_json(result, &err) < 0)
                return cli_fail(err);
        return CLI_OK;
}

/* The payload layers come from this host's installation; the Dockerfile from the agent. */
static int write_context(const Options *o, const json_t *result, const char *dockerfile, TbError **err)
{
        _cleanup_augment_request_ AugmentRequest request = {};
        const char *level = cli_text(result, "level", o->level ?: "basic");

        request.level = augment_level_from_string(level);
        request.image = strdup(json_string_value(json_object_get(o->body, "image")));
        request.platform = strdup(cli_text(result, "platform", o->platform ?: ""));
        request.registry = strdup("http://127.0.0.1:5000"); /* is not asked; the check wants a valid one */
        if (!request.image || !request.platform || !request.registry)
                return tb_error_oom(err);
        if (request.platform[0] == 0) {
                free(request.platform);
                request.platform = NULL;
        }
        if (augment_request_check(&request, err) < 0)
                return -EINVAL;
        return augment_context_write(&request, dockerfile, o->context, err);
}

int cli_dockerfile(Cli *c, int argc, char **argv)
{
        _cleanup_json_ json_t *body = json_object(), *result = NULL;
        Options o = {.body = body};
        const char *dockerfile;
        TbError *err = NULL;
        int r;

        r = parse(c, argc, argv, true, &o);
        if (r >= 0)
                return r;
        if (cli_source_take(c, o.image, &o.source, body, &err) < 0 ||
                cli_long(c, "/v1/dockerfile", body, "result", &result, &err) < 0)
                return cli_fail(err);
        cli_notice(result);
        dockerfile = cli_text(result, "dockerfile", NULL);
        if (!dockerfile) {
                (void) tb_error_set(&err, TB_ERROR_CONFIG, -EALREADY,
                        "nothing is added to %s: it is augmented already, or the level is none", o.image);
                return cli_fail(err);
        }
        if (o.context && write_context(&o, result, dockerfile, &err) < 0)
                return cli_fail(err);
        if (!c->json)
                fputs(dockerfile, stdout);
        else if (cli_print_json(result, &err) < 0)
                return cli_fail(err);
        return CLI_OK;
}

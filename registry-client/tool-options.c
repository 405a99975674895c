/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The tables of verbs and options. What a verb takes, its help and the shell completion's test all come from here. */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/tool.h"

#define HELP_COLUMN 30

const ToolVerb tool_verbs[] = {
        {"ping", 1, 1, tool_ping, 0, "HOST", "check that a registry answers and takes our credentials",
                "Says how the registry authenticates and how long the answer took."},
        {"inspect", 1, 1, tool_inspect, TOOL_PLATFORM, "IMAGE",
                "what an image is: platforms, layers, configuration, annotations, referrers",
                "Of an index, the entries, and the image for --platform or this machine, when it has one."},
        {"manifest", 1, 1, tool_manifest, TOOL_PLATFORM | TOOL_OUTPUT, "IMAGE",
                "the manifest or index, byte for byte",
                "The bytes match the digest: nothing is added, not even a line break. With --platform, "
                "that\n"
                "image's manifest out of an index. With --json, an object with the parsed document in it."},
        {"config", 1, 1, tool_config, TOOL_PLATFORM | TOOL_OUTPUT, "IMAGE",
                "the image configuration, byte for byte",
                "With --json, an object with the parsed configuration in it."},
        {"ls", 1, 1, tool_ls, 0, "HOST[/PREFIX]", "repositories of a registry",
                "With PREFIX, only the repository of that name and those below it. Many public registries "
                "(Docker\n"
                "Hub, GHCR) do not allow this. The tags of one repository: tbnode-registry tags."},
        {"tags", 1, 1, tool_tags, 0, "REPOSITORY", "tags of a repository",
                "In the registry's order. What a tag names: tbnode-registry inspect REPOSITORY:TAG."},
        {"referrers", 1, 1, tool_referrers, TOOL_ARTIFACT_TYPE, "IMAGE",
                "what refers to an image: signatures, SBOMs, attestations",
                "A tag is resolved first; of an index, what refers to the index itself. A registry that has "
                "no\n"
                "referrers API is asked for the tag sha256-<hex> instead."},
        {"copy", 2, 2, tool_copy, TOOL_PLATFORM | TOOL_ALL_PLATFORMS | TOOL_PARALLEL | TOOL_RESUME_DIR,
                "SOURCE TARGET", "copy an image; all platforms unless --platform is given",
                "SOURCE and TARGET are images, oci:DIR[:TAG] (a directory, the OCI image layout) or\n"
                "docker-archive:FILE[:NAME] (what docker save writes and docker load reads).\n"
                "Bytes and digests stay the same. What the target has is skipped, inside one registry "
                "layers are\n"
                "mounted, the rest is streamed; the target's tag is written last. With one --platform the "
                "target\n"
                "names that platform's image itself; with several, a new index of just these."},
        {"blob", 1, 1, tool_blob, TOOL_OUTPUT, "REPOSITORY@DIGEST", "a blob's bytes",
                "To stdout as they come, so look at the exit status: 1 if they were not what the digest "
                "says.\n"
                "With --output, the file appears only when they were right. --json needs --output."},
        {"delete", 1, 1, tool_delete, TOOL_DRY_RUN | TOOL_TAG_ONLY, "IMAGE",
                "delete a manifest and with it all its tags",
                "Registries delete manifests, by digest: a tag is resolved first, and every other tag on "
                "the same\n"
                "manifest goes with it. --dry-run shows which. With --tag-only the tag alone goes and the "
                "manifest\n"
                "stays; many registries (docker-registry 2.x) cannot do that. Layers stay until the "
                "registry\n"
                "collects its garbage. Nothing is asked: it is done."},
        {"login", 0, 1, tool_login, TOOL_USERNAME | TOOL_PASSWORD_STDIN, "[HOST]",
                "check credentials with a registry and keep them",
                "HOST is docker.io when not given. The password is asked for on the terminal, or read from "
                "stdin\n"
                "with --password-stdin; never an argument. The registry is asked first: wrong ones are not "
                "kept.\n"
                "They go where docker(1) looks: the credential helper that its config.json names, else the "
                "file."},
        {"logout", 0, 1, tool_logout, 0, "[HOST]", "forget the credentials of a registry",
                "HOST is docker.io when not given."},
        {0},
};

typedef struct ToolOption {
        const char *name;
        int letter;         /* 0 = none */
        const char *arg;    /* NULL = takes none */
        uint32_t verbs_bit; /* 0 = every verb */
        const char *help;
} ToolOption;

enum {
        OPT_JSON,
        OPT_PLATFORM,
        OPT_ALL_PLATFORMS,
        OPT_PARALLEL,
        OPT_RESUME_DIR,
        OPT_DRY_RUN,
        OPT_OUTPUT,
        OPT_ARTIFACT_TYPE,
        OPT_TAG_ONLY,
        OPT_USERNAME,
        OPT_PASSWORD_STDIN,
        OPT_PLAIN_HTTP,
        OPT_UNIX_SOCKET,
        OPT_TLS_CA,
        OPT_TLS_CERT,
        OPT_TLS_KEY,
        OPT_INSECURE,
        OPT_DOCKER_CONFIG,
        OPT_DEBUG,
        OPT_HELP,
        OPT_VERSION,
        _OPT_MAX,
};

static const ToolOption options[_OPT_MAX] = {
        [OPT_JSON] = {"json", 0, NULL, 0, "print one JSON object and nothing else"},
        [OPT_PLATFORM] = {"platform", 0, "OS/ARCH[/VARIANT]", TOOL_PLATFORM,
                "which image of an index (default: this machine's; copy: all)"},
        [OPT_ALL_PLATFORMS] = {"all-platforms", 0, NULL, TOOL_ALL_PLATFORMS,
                "the whole index (this is the default)"},
        [OPT_PARALLEL] = {"parallel", 0, "N", TOOL_PARALLEL, "blobs at a time, 1-16 (default 4)"},
        [OPT_RESUME_DIR] = {"resume-dir", 0, "DIR", TOOL_RESUME_DIR,
                "keep what came of broken downloads there; the next copy goes on"},
        [OPT_DRY_RUN] = {"dry-run", 0, NULL, TOOL_DRY_RUN, "say what would be done, change nothing"},
        [OPT_OUTPUT] = {"output", 'o', "FILE", TOOL_OUTPUT, "write there instead of stdout"},
        [OPT_ARTIFACT_TYPE] = {"artifact-type", 0, "TYPE", TOOL_ARTIFACT_TYPE, "only those of this type"},
        [OPT_TAG_ONLY] = {"tag-only", 0, NULL, TOOL_TAG_ONLY, "delete the tag and leave the manifest"},
        [OPT_USERNAME] = {"username", 'u', "USER", TOOL_USERNAME, "who logs in (default: asked for)"},
        [OPT_PASSWORD_STDIN] = {"password-stdin", 0, NULL, TOOL_PASSWORD_STDIN,
                "read the password or token from stdin"},
        [OPT_PLAIN_HTTP] = {"plain-http", 0, "HOST", 0,
                "speak http with this registry (loopback names: always)"},
        [OPT_UNIX_SOCKET] = {"unix-socket", 0, "HOST=PATH", 0, "reach this registry through a unix socket"},
        [OPT_TLS_CA] = {"tls-ca", 0, "HOST=FILE", 0, "CA certificate; https also on a loopback name"},
        [OPT_TLS_CERT] = {"tls-cert", 0, "HOST=FILE", 0, "client certificate for this registry"},
        [OPT_TLS_KEY] = {"tls-key", 0, "HOST=FILE", 0, "its key"},
        [OPT_INSECURE] = {"insecure", 0, "HOST", 0, "do not verify this registry's certificate"},
        [OPT_DOCKER_CONFIG] = {"docker-config", 0, "FILE", 0,
                "credentials (default: $DOCKER_CONFIG/config.json or ~/.docker/config.json)"},
        [OPT_DEBUG] = {"debug", 0, NULL, 0, "say on stderr what is tried again, and why"},
        [OPT_HELP] = {"help", 'h', NULL, 0, "this text; COMMAND --help has more on a command"},
        [OPT_VERSION] = {"version", 0, NULL, 0, "the version"},
};

static void print_option(const ToolOption *o)
{
        _cleanup_free_ char *left = NULL, *letter = NULL;

        letter = o->letter ? tb_asprintf("-%c, ", o->letter) : NULL;
        left = tb_asprintf(
                "%s--%s%s%s", letter ? letter : "", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        printf("  %-*s%s%s\n", HELP_COLUMN - 2, left ? left : o->name,
                left && strlen(left) > HELP_COLUMN - 3 ? "  " : "", o->help);
}

static void help(void)
{
        puts("tbnode-registry COMMAND [OPTIONS] ARGUMENTS...\n\n"
             "Talks to OCI and Docker registries. Images are named as with Docker: nginx, ghcr.io/a/b:tag,\n"
             "127.0.0.1:5000/x@sha256:...\n\nCommands:");
        for (const ToolVerb *v = tool_verbs; v->name; v++) {
                _cleanup_free_ char *left = tb_asprintf("%s %s", v->name, v->args);

                printf("  %-*s%s\n", HELP_COLUMN - 2, left ? left : v->name, v->help);
        }
        puts("\nOptions:");
        for (size_t i = 0; i < _OPT_MAX; i++)
                if (options[i].verbs_bit == 0)
                        print_option(options + i);
        puts("\nOptions of some commands:");
        for (size_t i = 0; i < _OPT_MAX; i++)
                if (options[i].verbs_bit != 0)
                        print_option(options + i);
        puts("\nExit status: 0 done, 1 failed, 2 wrong usage.");
}

static void help_verb(const ToolVerb *v)
{
        printf("tbnode-registry %s [OPTIONS] %s\n\n%c%s.\n\n%s\n\nOptions:\n", v->name, v->args,
                v->help[0] >= 'a' && v->help[0] <= 'z' ? v->help[0] - 'a' + 'A' : v->help[0], v->help + 1,
                v->more);
        for (size_t i = 0; i < _OPT_MAX; i++)
                if (options[i].verbs_bit != 0 && (options[i].verbs_bit & v->options))
                        print_option(options + i);
        for (size_t i = 0; i < _OPT_MAX; i++)
                if (options[i].verbs_bit == 0)
                        print_option(options + i);
        puts("\nExit status: 0 done, 1 failed, 2 wrong usage.");
}

/* "HOST=VALUE": the settings of HOST and the value. */
static int host_value(
        Tool *t, const ToolOption *o, const char *arg, ToolHost **ret, const char **ret_value, TbError **err)
{
        const char *equals = o->arg && strchr(o->arg, '=') ? strchr(arg, '=') : arg + strlen(arg);
        ToolHost *h;

        if (!equals || equals == arg)
                return tool_usage(t, err, "--%s wants %s, not \"%s\"", o->name, o->arg, arg);
        for (h = t->hosts; h; h = h->next)
                if (strncmp(h->name, arg, (size_t) (equals - arg)) == 0 && !h->name[equals - arg])
                        break;
        if (!h) {
                h = calloc(1, sizeof(*h));
                if (h)
                        h->name = strndup(arg, (size_t) (equals - arg));
                if (!h || !h->name) {
                        free(h);
                        return tb_error_oom(err);
                }
                h->next = t->hosts;
                t->hosts = h;
        }
        *ret = h;
        *ret_value = *equals ? equals + 1 : equals;
        return 0;
}

static void on_debug(const char *line, void *userdata)
{
        fprintf(stderr, "tbnode-registry: %s\n", line);
}

static int take_host_option(Tool *t, int option, const char *arg, TbError **err)
{
        const char *value;
        ToolHost *h;
        int r = host_value(t, options + option, arg, &h, &value, err);

        if (r < 0)
                return r;
        switch (option) {
        case OPT_UNIX_SOCKET:
                h->unix_socket = value;
                return 0;
        case OPT_TLS_CA:
                h->ca_file = value;
                break;
        case OPT_TLS_CERT:
                h->client_cert = value;
                break;
        case OPT_TLS_KEY:
                h->client_key = value;
                break;
        default:
                h->insecure = true;
                break;
        }
        h->tls = true;
        return 0;
}

static int take_option(Tool *t, int option, const char *arg, TbError **err)
{
        switch (option) {
        case OPT_JSON:
                t->json = true;
                return 0;
        case OPT_PLATFORM:
                if (t->n_platforms >= TOOL_PLATFORMS_MAX)
                        return tool_usage(t, err, "more than %u platforms", TOOL_PLATFORMS_MAX);
                return registry_platform_parse(arg, &t->platforms[t->n_platforms++], err);
        case OPT_ALL_PLATFORMS:
                t->all_platforms = true;
                return 0;
        case OPT_PARALLEL:
                return tb_parse_u32(arg, 1, 16, &t->parallel, err);
        case OPT_RESUME_DIR:
                t->resume_dir = arg;
                return 0;
        case OPT_DRY_RUN:
                t->dry_run = true;
                return 0;
        case OPT_OUTPUT:
                t->output = arg;
                return 0;
        case OPT_ARTIFACT_TYPE:
                t->artifact_type = arg;
                return 0;
        case OPT_TAG_ONLY:
                t->tag_only = true;
                return 0;
        case OPT_USERNAME:
                t->user = arg;
                return 0;
        case OPT_PASSWORD_STDIN:
                t->password_stdin = true;
                return 0;
        case OPT_PLAIN_HTTP:
                return registry_client_set_plain_http(t->client, arg, err);
        case OPT_DOCKER_CONFIG:
                t->docker_config = arg;
                return 0;
        case OPT_DEBUG:
                registry_client_set_debug(t->client, on_debug, NULL);
                return 0;
        default:
                return take_host_option(t, option, arg, err);
        }
}

static int apply_hosts(Tool *t, TbError **err)
{
        for (const ToolHost *h = t->hosts; h; h = h->next) {
                RegistryTls tls = {
                        .ca_file = h->ca_file,
                        .client_cert = h->client_cert,
                        .client_key = h->client_key,
                        .insecure = h->insecure,
                };
                int r = 0;

                if (!h->client_cert != !h->client_key)
                        return tool_usage(t, err, "--tls-cert and --tls-key of %s go together", h->name);
                if (h->unix_socket)
                        r = registry_client_set_unix_socket(t->client, h->name, h->unix_socket, err);
                if (r >= 0 && h->tls)
                        r = registry_client_set_tls(t->client, h->name, &tls, err);
                if (r < 0) {
                        t->usage = true;
                        return r;
                }
        }
        return 0;
}

void tool_options_done(Tool *t)
{
        while (t->hosts) {
                ToolHost *next = t->hosts->next;

                free(t->hosts->name);
                free(t->hosts);
                t->hosts = next;
        }
        for (size_t i = 0; i < t->n_platforms; i++)
                registry_platform_done(&t->platforms[i]);
}

static int find_verb(Tool *t, int argc, char **argv, TbError **err)
{
        _cleanup_free_ char *shown = NULL;

        if (argc < 1)
                return tool_usage(t, err, "a command is missing");
        for (const ToolVerb *v = tool_verbs; v->name; v++)
                if (tb_streq(argv[0], v->name)) {
                        t->verb = v;
                        return 0;
                }
        shown = tb_escape(argv[0], 60);
        return tool_usage(t, err, "unknown command \"%s\"", shown ? shown : "?");
}

static int check_arguments(Tool *t, int argc, const bool *seen, TbError **err)
{
        const ToolVerb *v = t->verb;

        for (size_t i = 0; i < _OPT_MAX; i++)
                if (seen[i] && options[i].verbs_bit != 0 && !(options[i].verbs_bit & v->options))
                        return tool_usage(t, err, "%s has no option --%s", v->name, options[i].name);
        if (argc < v->min_args || argc > v->max_args)
                return tool_usage(t, err, "usage: tbnode-registry %s %s", v->name, v->args);
        if (t->n_platforms > 1 && v->fn != tool_copy)
                return tool_usage(t, err, "%s takes one --platform", v->name);
        if (t->n_platforms > 0 && t->all_platforms)
                return tool_usage(t, err, "--platform and --all-platforms exclude each other");
        return apply_hosts(t, err);
}

int tool_parse(Tool *t, int argc, char **argv, int *ret_first, TbError **err)
{
        struct option long_options[_OPT_MAX + 1] = {0};
        bool seen[_OPT_MAX] = {false};
        char letters[2 * _OPT_MAX + 1] = "";
        int c, r;

        for (int i = 0; i < _OPT_MAX; i++) {
                size_t n = strlen(letters);

                long_options[i] = (struct option){.name = options[i].name,
                        .has_arg = options[i].arg ? required_argument : no_argument,
                        .val = 256 + i};
                if (options[i].letter) {
                        letters[n] = (char) options[i].letter;
                        letters[n + 1] = options[i].arg ? ':' : 0;
                }
        }
        while ((c = getopt_long(argc, argv, letters, long_options, NULL)) >= 0) {
                int option = c - 256;

                if (c < 256)
                        for (option = 0; option < _OPT_MAX && options[option].letter != c; option++)
                                ;
                if (c == '?' || option >= _OPT_MAX) {
                        t->usage = true; /* getopt has said which */
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "see tbnode-registry --help");
                }
                seen[option] = true;
                if (option == OPT_HELP || option == OPT_VERSION)
                        continue;
                r = take_option(t, option, optarg, err);
                if (r < 0) { /* a value that cannot be parsed */
                        t->usage = true;
                        return r;
                }
        }
        if (seen[OPT_VERSION]) {
                printf("tbnode-registry %s\n", registry_version());
                return 0;
        }
        if (seen[OPT_HELP] && optind >= argc) {
                help();
                return 0;
        }
        r = find_verb(t, argc - optind, argv + optind, err);
        if (r < 0)
                return r;
        if (seen[OPT_HELP]) {
                help_verb(t->verb);
                return 0;
        }
        *ret_first = optind + 1;
        r = check_arguments(t, argc - optind - 1, seen, err);
        return r < 0 ? r : 1;
}

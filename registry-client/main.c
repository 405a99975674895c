/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* tbnode-registry: the registry client by hand. Everything it does is one call of registry.h and a printout. */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/registry.h"

#define CONFIG_BLOB_MAX (8U * 1024 * 1024)

typedef struct Tool {
        RegistryClient *client;
        bool json, have_platform, progress_shown;
        RegistryPlatform platform;
        unsigned parallel;
        const char *output;
        uint64_t started_usec;
} Tool;

static int usage_error(const char *what, const char *arg)
{
        fprintf(stderr, "tbnode-registry: %s \"%s\"; see tbnode-registry --help\n", what, arg);
        return 2;
}

static int print_json(const json_t *j, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        int r = tb_json_dump_pretty(j, &text, err);

        if (r < 0)
                return r;
        if (puts(text) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write to stdout");
        return 0;
}

static int print_names(const Tool *t, const char *key, char *const *names, TbError **err)
{
        if (t->json) {
                _cleanup_json_ json_t *j = json_pack("{s:o*}", key, tb_json_from_strv(names));

                return j ? print_json(j, err) : tb_error_oom(err);
        }
        for (size_t i = 0; names[i]; i++)
                puts(names[i]);
        return 0;
}

static int do_ping(Tool *t, char **args, TbError **err)
{
        uint64_t start = tb_now_us();
        int r = registry_ping(t->client, args[0], err);
        _cleanup_json_ json_t *j = NULL;

        if (r < 0)
                return r;
        if (!t->json) {
                printf("%s answers (%.1f ms)\n", args[0], (double) (tb_now_us() - start) / 1000);
                return 0;
        }
        j = json_pack("{s:s, s:f}", "host", args[0], "ms", (double) (tb_now_us() - start) / 1000);
        return j ? print_json(j, err) : tb_error_oom(err);
}

static int get_image(Tool *t, const char *name, RegistryRef **ref, RegistryManifest **image,
        RegistryManifest **index, TbError **err)
{
        _cleanup_registry_platform_ RegistryPlatform host = {0};
        int r;

        r = registry_ref_parse(name, ref, err);
        if (r < 0)
                return r;
        if (!t->have_platform) {
                r = registry_platform_host(&host, err);
                if (r < 0)
                        return r;
        }
        return registry_get_image(
                t->client, *ref, t->have_platform ? &t->platform : &host, image, index, err);
}

static json_t *descriptors_to_json(const RegistryDescriptor *d, size_t n)
{
        json_t *list = json_array();

        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ char *platform =
                        d[i].platform.os ? registry_platform_to_string(&d[i].platform) : NULL;
                json_t *o = json_pack("{s:s, s:s, s:I}", "digest", d[i].digest.text, "mediaType",
                        d[i].media_type, "size", (json_int_t) d[i].size);

                if (platform)
                        (void) json_object_set_new(o, "platform", json_string(platform));
                if (d[i].attestation)
                        (void) json_object_set_new(o, "attestation", json_true());
                (void) json_array_append_new(list, o);
        }
        return list;
}

static json_t *manifest_to_json(const char *name, const RegistryManifest *m, const RegistryManifest *index)
{
        const RegistryManifest *top = index ? index : m;
        uint64_t total = m->config.size;
        json_t *j;

        for (size_t i = 0; i < m->n_layers; i++)
                total += m->layers[i].size;
        j = json_pack("{s:s, s:s, s:s}", "name", name, "digest", top->digest.text, "mediaType",
                registry_manifest_kind_to_media_type(top->kind));
        if (j && index)
                (void) json_object_set_new(
                        j, "platforms", descriptors_to_json(index->entries, index->n_entries));
        if (j)
                (void) json_object_set_new(j, "image",
                        json_pack("{s:s, s:s, s:I, s:o, s:o}", "digest", m->digest.text, "mediaType",
                                registry_manifest_kind_to_media_type(m->kind), "size", (json_int_t) total,
                                "config", json_string(m->config.digest.text), "layers",
                                descriptors_to_json(m->layers, m->n_layers)));
        return j;
}

static void print_descriptor(const char *what, const RegistryDescriptor *d)
{
        char size[TB_UNIT_TEXT_MAX];
        _cleanup_free_ char *platform = d->platform.os ? registry_platform_to_string(&d->platform) : NULL;
        _cleanup_free_ char *shown = tb_escape(platform ? platform : d->media_type, 80);

        printf("%-9s %s %10s  %s%s\n", what, d->digest.text, tb_format_bytes(size, d->size),
                shown ? shown : "", d->attestation ? " (attestation)" : "");
}

static int do_inspect(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL, *index = NULL;
        _cleanup_free_ char *name = NULL;
        int r;

        r = get_image(t, args[0], &ref, &m, &index, err);
        if (r < 0)
                return r;
        name = registry_ref_to_string(ref);
        if (!name)
                return tb_error_oom(err);
        if (t->json) {
                _cleanup_json_ json_t *j = manifest_to_json(name, m, index);

                return j ? print_json(j, err) : tb_error_oom(err);
        }
        printf("Name      %s\n", name);
        if (index) {
                printf("Index     %s\n", index->digest.text);
                for (size_t i = 0; i < index->n_entries; i++)
                        print_descriptor("  entry", index->entries + i);
        }
        printf("Manifest  %s\nType      %s\n", m->digest.text,
                registry_manifest_kind_to_media_type(m->kind));
        print_descriptor("Config", &m->config);
        for (size_t i = 0; i < m->n_layers; i++)
                print_descriptor("Layer", m->layers + i);
        return 0;
}

static int write_out(const Tool *t, const void *data, size_t size, TbError **err)
{
        if (t->output)
                return tb_file_write_atomic(t->output, data, size, 0644, err);
        return tb_write_all(STDOUT_FILENO, data, size, err);
}

/* The bytes as they are, so that they still match their digest. */
static int do_manifest(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        int r;

        if (t->have_platform)
                r = get_image(t, args[0], &ref, &m, NULL, err);
        else {
                r = registry_ref_parse(args[0], &ref, err);
                if (r >= 0)
                        r = registry_get_manifest(t->client, ref, &m, err);
        }
        return r < 0 ? r : write_out(t, m->data, m->size, err);
}

static int do_config(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        r = get_image(t, args[0], &ref, &m, NULL, err);
        if (r < 0)
                return r;
        r = registry_get_blob(
                t->client, ref, &m->config.digest, m->config.size, CONFIG_BLOB_MAX, &data, &size, err);
        return r < 0 ? r : write_out(t, data, size, err);
}

static int do_ls(Tool *t, char **args, TbError **err)
{
        _cleanup_strv_ char **names = NULL;
        int r = registry_list_repositories(t->client, args[0], &names, err);

        return r < 0 ? r : print_names(t, "repositories", names, err);
}

static int do_tags(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_strv_ char **names = NULL;
        int r = registry_ref_parse(args[0], &ref, err);

        if (r >= 0)
                r = registry_list_tags(t->client, ref, &names, err);
        return r < 0 ? r : print_names(t, "tags", names, err);
}

static void on_progress(const RegistryCopyProgress *p, void *userdata)
{
        char done[TB_UNIT_TEXT_MAX], total[TB_UNIT_TEXT_MAX], rate[TB_UNIT_TEXT_MAX];
        Tool *t = userdata;
        uint64_t usec = tb_now_us() - t->started_usec;

        fprintf(stderr, "\r\033[K%zu/%zu blobs, %s of %s, %s/s", p->blobs_done, p->blobs_total,
                tb_format_bytes(done, p->bytes_done), tb_format_bytes(total, p->bytes_total),
                tb_format_bytes(
                        rate, usec > 0 ? (uint64_t) ((double) p->bytes_done * 1e6 / (double) usec) : 0));
        t->progress_shown = true;
}

static int print_copy(
        const Tool *t, const char *source, const char *target, const RegistryCopyResult *c, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        uint64_t usec = tb_now_us() - t->started_usec;

        if (!t->json) {
                char up[TB_UNIT_TEXT_MAX];

                printf("%s -> %s: %s\n%zu blobs copied (%s), %zu mounted, %zu there already, %.2f s\n",
                        source, target, c->manifest.digest.text, c->blobs_streamed,
                        tb_format_bytes(up, c->bytes_uploaded), c->blobs_mounted, c->blobs_existed,
                        (double) usec / 1e6);
                return 0;
        }
        j = json_pack("{s:s, s:s, s:s, s:s, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:f}", "source", source,
                "target", target, "digest", c->manifest.digest.text, "mediaType", c->manifest.media_type,
                "bytes", "downloaded", (json_int_t) c->bytes_downloaded, "uploaded",
                (json_int_t) c->bytes_uploaded, "mounted", (json_int_t) c->bytes_mounted, "blobs",
                "streamed", (json_int_t) c->blobs_streamed, "mounted", (json_int_t) c->blobs_mounted,
                "existed", (json_int_t) c->blobs_existed, "ms", (double) usec / 1000);
        return j ? print_json(j, err) : tb_error_oom(err);
}

static int do_copy(Tool *t, char **args, TbError **err)
{
        _cleanup_registry_copy_result_ RegistryCopyResult result = {0};
        _cleanup_(registry_ref_freep) RegistryRef *source = NULL, *target = NULL;
        _cleanup_free_ char *source_name = NULL, *target_name = NULL;
        RegistryCopyOptions o = {
                .platform = t->have_platform ? &t->platform : NULL,
                .parallel = t->parallel,
                .progress = !t->json && isatty(STDERR_FILENO) ? on_progress : NULL,
                .progress_userdata = t,
        };
        int r;

        if ((r = registry_ref_parse(args[0], &source, err)) < 0 ||
                (r = registry_ref_parse(args[1], &target, err)) < 0)
                return r;
        source_name = registry_ref_to_string(source);
        target_name = registry_ref_to_string(target);
        if (!source_name || !target_name)
                return tb_error_oom(err);
        t->started_usec = tb_now_us();
        r = registry_copy(t->client, source, target, &o, &result, err);
        if (t->progress_shown)
                fputs("\r\033[K", stderr);
        return r < 0 ? r : print_copy(t, source_name, target_name, &result, err);
}

static int to_stdout(const void *data, size_t size, void *userdata, TbError **err)
{
        return tb_write_all(STDOUT_FILENO, data, size, err);
}

static int do_blob(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        r = registry_ref_parse(args[0], &ref, err);
        if (r < 0)
                return r;
        if (!tb_digest_is_set(&ref->digest))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "blob: name it by digest, REPOSITORY@sha256:...; \"inspect\" shows the digests");
        return registry_read_blob(t->client, ref, &ref->digest, UINT64_MAX, to_stdout, NULL, err);
}

static int do_delete(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *name = NULL;
        _cleanup_json_ json_t *j = NULL;
        int r;

        r = registry_ref_parse(args[0], &ref, err);
        if (r < 0)
                return r;
        name = registry_ref_to_string(ref);
        if (!name)
                return tb_error_oom(err);
        r = registry_delete_manifest(t->client, ref, err);
        if (r == 0)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -ENOENT, "%s: cannot delete: there is no such image", name);
        if (r < 0)
                return r;
        if (!t->json) {
                printf("%s deleted\n", name);
                return 0;
        }
        j = json_pack("{s:s}", "deleted", name);
        return j ? print_json(j, err) : tb_error_oom(err);
}

static const struct {
        const char *name;
        int n_args;
        int (*fn)(Tool *t, char **args, TbError **err);
        const char *args, *help;
} commands[] = {
        {"ping", 1, do_ping, "HOST", "check that a registry answers and takes our credentials"},
        {"inspect", 1, do_inspect, "IMAGE", "digests, platforms, layers and sizes"},
        {"manifest", 1, do_manifest, "IMAGE", "the manifest or index, byte for byte"},
        {"config", 1, do_config, "IMAGE", "the image configuration, byte for byte"},
        {"ls", 1, do_ls, "HOST", "repositories of a registry"},
        {"tags", 1, do_tags, "REPOSITORY", "tags of a repository"},
        {"copy", 2, do_copy, "SOURCE TARGET", "copy an image; all platforms unless --platform is given"},
        {"blob", 1, do_blob, "REPOSITORY@DIGEST",
                "a blob's bytes to stdout; exit status 1 if they were wrong"},
        {"delete", 1, do_delete, "IMAGE", "delete a manifest and with it all its tags"},
};

static void help(void)
{
        puts("tbnode-registry [OPTIONS] COMMAND ARGUMENTS...\n\n"
             "Talks to OCI and Docker registries. Images are named as with Docker: nginx, ghcr.io/a/b:tag,\n"
             "127.0.0.1:5000/x@sha256:...\n\nCommands:");
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                _cleanup_free_ char *left = tb_asprintf("%s %s", commands[i].name, commands[i].args);

                printf("  %-26s  %s\n", left ? left : commands[i].name, commands[i].help);
        }
        puts("\nOptions:\n"
             "  --json                      print one JSON object (ping inspect ls tags copy delete)\n"
             "  --platform OS/ARCH[/VAR]    which image of an index (default: this machine's; copy: all)\n"
             "  --parallel N                blobs at a time when copying, 1-16 (default 4)\n"
             "  -o, --output FILE           write the manifest or config there\n"
             "  --plain-http HOST           speak http with this registry (loopback names: always)\n"
             "  --tls-ca HOST=FILE          CA certificate for this registry; https also on a loopback "
             "name\n"
             "  --insecure HOST             do not verify this registry's certificate\n"
             "  --docker-config FILE        credentials (default: $DOCKER_CONFIG/config.json or "
             "~/.docker/config.json)\n"
             "  -h, --help                  this text\n"
             "  --version                   the version\n\n"
             "Exit status: 0 done, 1 failed, 2 wrong usage.");
}

static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
        Tool *t = userdata;

        registry_client_cancel(t->client);
        return 0;
}

static int catch_signals(Tool *t, TbError **err)
{
        static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
        sigset_t set;
        int r;

        sigemptyset(&set);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                sigaddset(&set, signals[i]);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot block signals");
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                r = sd_event_add_signal(registry_client_event(t->client), NULL, signals[i], on_signal, t);
                if (r < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch signals");
        }
        return 0;
}

static int option_tls_ca(Tool *t, const char *value, TbError **err)
{
        _cleanup_free_ char *host = strndup(value, strcspn(value, "="));
        RegistryTls tls = {.ca_file = strchr(value, '=') + 1};

        return host ? registry_client_set_tls(t->client, host, &tls, err) : tb_error_oom(err);
}

enum {
        OPT_JSON = 256,
        OPT_PLATFORM,
        OPT_PARALLEL,
        OPT_PLAIN_HTTP,
        OPT_TLS_CA,
        OPT_INSECURE,
        OPT_DOCKER_CONFIG,
        OPT_VERSION,
};

/* Returns 0 = go on, 1 = done (help), 2 = wrong usage, negative = failed. */
static int parse_options(Tool *t, int argc, char **argv, const char **docker_config, TbError **err)
{
        static const struct option options[] = {
                {"json", no_argument, NULL, OPT_JSON},
                {"platform", required_argument, NULL, OPT_PLATFORM},
                {"parallel", required_argument, NULL, OPT_PARALLEL},
                {"output", required_argument, NULL, 'o'},
                {"plain-http", required_argument, NULL, OPT_PLAIN_HTTP},
                {"tls-ca", required_argument, NULL, OPT_TLS_CA},
                {"insecure", required_argument, NULL, OPT_INSECURE},
                {"docker-config", required_argument, NULL, OPT_DOCKER_CONFIG},
                {"help", no_argument, NULL, 'h'},
                {"version", no_argument, NULL, OPT_VERSION},
                {0},
        };
        int c, r = 0;

        while (r >= 0 && (c = getopt_long(argc, argv, "ho:", options, NULL)) >= 0)
                switch (c) {
                case OPT_JSON:
                        t->json = true;
                        break;
                case OPT_PLATFORM:
                        registry_platform_done(&t->platform);
                        r = registry_platform_parse(optarg, &t->platform, err);
                        t->have_platform = true;
                        break;
                case OPT_PARALLEL:
                        r = tb_parse_u32(optarg, 1, 16, &t->parallel, err);
                        break;
                case 'o':
                        t->output = optarg;
                        break;
                case OPT_PLAIN_HTTP:
                        r = registry_client_set_plain_http(t->client, optarg, err);
                        break;
                case OPT_TLS_CA:
                        if (!strchr(optarg, '='))
                                return usage_error("--tls-ca wants HOST=FILE, not", optarg);
                        r = option_tls_ca(t, optarg, err);
                        break;
                case OPT_INSECURE:
                        r = registry_client_set_tls(
                                t->client, optarg, &(RegistryTls){.insecure = true}, err);
                        break;
                case OPT_DOCKER_CONFIG:
                        *docker_config = optarg;
                        break;
                case 'h':
                        help();
                        return 1;
                case OPT_VERSION:
                        puts("tbnode-registry " TBNODE_VERSION);
                        return 1;
                default:
                        fputs("See tbnode-registry --help\n", stderr);
                        return 2;
                }
        return r < 0 ? 2 : 0; /* a value that cannot be parsed is wrong usage too; err says which */
}

static int run_command(Tool *t, int argc, char **argv, const char *docker_config, TbError **err)
{
        int r;

        if (argc < 1) {
                fputs("tbnode-registry: a command is missing; see tbnode-registry --help\n", stderr);
                return 2;
        }
        for (size_t i = 0; i < ELEMENTSOF(commands); i++) {
                if (!tb_streq(argv[0], commands[i].name))
                        continue;
                if (argc - 1 != commands[i].n_args) {
                        fprintf(stderr, "tbnode-registry: usage: tbnode-registry %s %s\n", commands[i].name,
                                commands[i].args);
                        return 2;
                }
                if ((r = registry_client_load_docker_config(t->client, docker_config, err)) < 0 ||
                        (r = catch_signals(t, err)) < 0 || (r = commands[i].fn(t, argv + 1, err)) < 0)
                        return r;
                return 0;
        }
        return usage_error("unknown command", argv[0]);
}

static int run(int argc, char **argv, TbError **err)
{
        _cleanup_(registry_client_freep) RegistryClient *client = NULL;
        Tool t = {0};
        const char *docker_config = NULL;
        int r;

        r = registry_client_new(NULL, &client, err);
        if (r < 0)
                return r;
        t.client = client;
        r = parse_options(&t, argc, argv, &docker_config, err);
        if (r != 0) {
                registry_platform_done(&t.platform);
                return r == 1 ? 0 : r;
        }
        r = run_command(&t, argc - optind, argv + optind, docker_config, err);
        registry_platform_done(&t.platform);
        return r;
}

int main(int argc, char **argv)
{
        _cleanup_error_ TbError *err = NULL;
        int r;

        tb_log_open("tbnode-registry");
        r = run(argc, argv, &err);
        if (err)
                fprintf(stderr, "tbnode-registry: %s\n", tb_error_message(err));
        if (r >= 0 && fflush(stdout) != 0) {
                fprintf(stderr, "tbnode-registry: cannot write to stdout: %m\n");
                return 1;
        }
        if (err && err->kind == TB_ERROR_CONFIG && err->code == -EINVAL)
                return 2; /* a name that cannot be one */
        return r < 0 ? 1 : r;
}

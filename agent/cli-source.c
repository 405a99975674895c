/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cli-source.h"
#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/registry.h"

#define MACHINE_ID_FILE "/etc/machine-id"
#define NAME_PART_MAX 80U

typedef enum Transport {
        TRANSPORT_OCI,
        TRANSPORT_DOCKER_ARCHIVE,
        TRANSPORT_DOCKER_DAEMON,
        TRANSPORT_DOCKERFILE,
        _TRANSPORT_MAX,
} Transport;

/* As containers-transports(5) has them, but for the last one. */
static const char *const transport_names[_TRANSPORT_MAX] = {
        [TRANSPORT_OCI] = "oci",
        [TRANSPORT_DOCKER_ARCHIVE] = "docker-archive",
        [TRANSPORT_DOCKER_DAEMON] = "docker-daemon",
        [TRANSPORT_DOCKERFILE] = "dockerfile",
};

/* What is copied: a place that registry_place_parse() reads, and how it is called in the testbed's registry. */
typedef struct Local {
        Transport transport;
        const char *rest; /* behind "oci:" */
        char *place;
        char *name, *tag;
        int fd; /* what `place` lies in; -EBADF = in files of the caller */
} Local;

static void local_done(Local *l)
{
        free(l->place);
        free(l->name);
        free(l->tag);
        tb_close(l->fd);
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

/* A component of a repository name: what is no lower-case letter or digit becomes one "-". */
static char *component(const char *s, size_t n)
{
        char *out = malloc(NAME_PART_MAX + 1);
        size_t k = 0;

        if (!out)
                return NULL;
        for (size_t i = 0; i < n && k < NAME_PART_MAX; i++)
                if (isalnum((unsigned char) s[i]))
                        out[k++] = (char) tolower((unsigned char) s[i]);
                else if (k > 0 && out[k - 1] != '-')
                        out[k++] = '-';
        while (k > 0 && out[k - 1] == '-')
                k--;
        if (k == 0) {
                memcpy(out, "image", 5);
                k = 5;
        }
        out[k] = 0;
        return out;
}

static char *tag_of(const char *s)
{
        char *out = strndup(s, NAME_PART_MAX);

        for (char *p = out; p && *p; p++)
                if (!isalnum((unsigned char) *p) && *p != '_' && (p == out || !strchr(".-", *p)))
                        *p = '_';
        return out;
}

/* "dir/my-app.tar.gz" -> "my-app" */
static char *name_of_path(const char *path)
{
        size_t end = strlen(path), n;
        const char *base;

        while (end > 1 && path[end - 1] == '/')
                end--;
        base = path + end;
        while (base > path && base[-1] != '/')
                base--;
        n = (size_t) (path + end - base);
        for (size_t i = 1; i < n; i++)
                if (base[i] == '.' &&
                        (strncmp(base + i, ".tar", 4) == 0 || strncmp(base + i, ".tgz", 4) == 0))
                        n = i;
        return component(base, n);
}

/* From a name that docker would understand: its last component and its tag. */
static int name_of_reference(const char *name, char **ret_name, char **ret_tag, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        const char *slash;

        if (!name || registry_ref_parse(name, &ref, NULL) < 0) {
                *ret_name = component(name ?: "", name ? MIN2(strlen(name), (size_t) 19) : 0);
                *ret_tag = strdup("latest");
        } else {
                slash = strrchr(ref->repository, '/');
                slash = slash ? slash + 1 : ref->repository;
                *ret_name = component(slash, strlen(slash));
                *ret_tag = tag_of(ref->tag ?: "latest");
        }
        return *ret_name && *ret_tag ? 0 : tb_error_oom(err);
}

/* Users of several hosts share the registry, and each host counts its users from 1000. */
static int user_component(char **ret, TbError **err)
{
        _cleanup_free_ char *id = NULL;

        if (tb_file_read(MACHINE_ID_FILE, 4096, &id, NULL, NULL) < 0 || strspn(id, "0123456789abcdef") < 8) {
                free(id);
                id = strdup("00000000");
        }
        *ret = id ? tb_asprintf("u%u-%.8s", getuid(), id) : NULL;
        return *ret ? 0 : tb_error_oom(err);
}

/* ---- Copying ----------------------------------------------------------------------------------------------------- */

static void on_copy_progress(const RegistryCopyProgress *p, void *userdata)
{
        char done[TB_UNIT_TEXT_MAX], total[TB_UNIT_TEXT_MAX];
        const Cli *c = userdata;

        if (!c->json && isatty(STDERR_FILENO))
                fprintf(stderr, "\r\033[Kcopying: %s of %s", tb_format_bytes(done, p->bytes_done),
                        tb_format_bytes(total, p->bytes_total));
}

/* One more tag, which does not move: what a request names by digest must not lose its name to the next copy. */
static int keep(RegistryClient *client, const RegistryRef *target, const TbDigest *digest,
        const char *platform, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *pinned = NULL, *kept = NULL;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_free_ char *tag = augment_mirror_digest_tag(digest, platform);
        int r;

        if (!tag)
                return tb_error_oom(err);
        if ((r = registry_ref_with(target, NULL, digest, &pinned, err)) < 0 ||
                (r = registry_ref_with(target, tag, NULL, &kept, err)) < 0 ||
                (r = registry_get_manifest(client, pinned, &m, err)) < 0)
                return r;
        return registry_put_manifest(
                client, kept, registry_manifest_kind_to_media_type(m->kind), m->data, m->size, NULL, err);
}

static int copy(Cli *c, const Local *l, const char *registry, const char *project, const char *platform_text,
        char **ret, TbError **err)
{
        _cleanup_augment_request_ AugmentRequest request = {.registry = strdup(registry)};
        _cleanup_(registry_client_freep) RegistryClient *client = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *target = NULL, *image = NULL;
        _cleanup_(registry_place_freep) RegistryPlace *from = NULL, *to = NULL;
        _cleanup_registry_copy_result_ RegistryCopyResult copied = {};
        _cleanup_registry_platform_ RegistryPlatform platform = {};
        _cleanup_free_ char *host = NULL, *user = NULL, *repository = NULL, *shown = NULL;
        RegistryCopyOptions options = {
                .platform = &platform, .progress = on_copy_progress, .progress_userdata = c};
        bool plain;
        int r;

        if (!request.registry)
                return tb_error_oom(err);
        if ((r = augment_registry_parse(registry, &host, &plain, err)) < 0 ||
                (r = platform_text ? registry_platform_parse(platform_text, &platform, err)
                                   : registry_platform_host(&platform, err)) < 0 ||
                (r = user_component(&user, err)) < 0 || (r = registry_client_new(NULL, &client, err)) < 0 ||
                (r = augment_client_setup(client, &request, err)) < 0)
                return r;
        repository = tb_asprintf("%s%s%smirror/%s/%s/%s", project ? "projects/" : "", project ?: "",
                project ? "/" : "", transport_names[l->transport], user, l->name);
        shown = registry_platform_to_string(&platform);
        if (!repository || !shown)
                return tb_error_oom(err);
        if ((r = registry_place_parse(l->place, &from, err)) < 0 ||
                (r = registry_ref_new(host, repository, l->tag, NULL, &target, err)) < 0 ||
                (r = registry_place_new_registry(target, &to, err)) < 0)
                return r;
        r = registry_copy_place(client, from, to, &options, &copied, err);
        if (!c->json && isatty(STDERR_FILENO))
                fputs("\r\033[K", stderr);
        if (r < 0 || (r = keep(client, target, &copied.manifest.digest, shown, err)) < 0 ||
                (r = registry_ref_with(target, l->tag, &copied.manifest.digest, &image, err)) < 0)
                return r;
        *ret = registry_ref_to_string(image);
        return *ret ? 0 : tb_error_oom(err);
}

/* ---- Transports -------------------------------------------------------------------------------------------------- */

static int take_files(const char *image, Local *l, TbError **err)
{
        _cleanup_(registry_place_freep) RegistryPlace *place = NULL;
        int r;

        r = registry_place_parse(image, &place, err);
        if (r < 0)
                return r;
        if (access(place->path, R_OK) < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno, "cannot read %s", place->path);
        l->place = strdup(image);
        if (place->ref) {
                r = name_of_reference(place->ref->repository, &l->name, &l->tag, err);
                if (r < 0)
                        return r;
                free(l->tag);
                l->tag = tag_of(place->ref->tag ?: "latest");
        } else {
                l->name = name_of_path(place->path);
                l->tag = tag_of(place->tag ?: "latest");
        }
        return l->place && l->name && l->tag ? 0 : tb_error_oom(err);
}

/* ---- What to do about it ------------------------------------------------------------------------------------------ */

static _printf_(2, 3) void append(TbError **err, const char *fmt, ...)
{
        _cleanup_free_ char *advice = NULL;
        TbError *whole = NULL;
        va_list args;

        va_start(args, fmt);
        if (!*err || vasprintf(&advice, fmt, args) < 0)
                advice = NULL;
        va_end(args);
        if (!advice)
                return;
        (void) tb_error_set(&whole, (*err)->kind, (*err)->code, "%s; %s", tb_error_message(*err), advice);
        tb_error_free(*err);
        *err = whole;
}

/* Files that are something else than they were said to be. */
static void advise(const char *image, const Local *l, TbError **err)
{
        _cleanup_(registry_place_freep) RegistryPlace *place = NULL;
        struct stat st;

        if (l->transport == TRANSPORT_DOCKERFILE) {
                if (*err && (*err)->code == -ENOENT)
                        append(err, "--file names a Dockerfile that is called otherwise");
                return;
        }
        if (l->transport == TRANSPORT_DOCKER_DAEMON || registry_place_parse(image, &place, NULL) < 0 ||
                !place->path || stat(place->path, &st) < 0)
                return;
        if (l->transport == TRANSPORT_DOCKER_ARCHIVE && S_ISDIR(st.st_mode))
                append(err, "it is a directory: write oci:%s for an OCI layout, dockerfile:%s for a build",
                        place->path, place->path);
        else if (l->transport == TRANSPORT_DOCKER_ARCHIVE && *err &&
                !strstr(tb_error_message(*err), "no image of") &&
                ((*err)->code == -EBADMSG || (*err)->code == -ENOENT))
                append(err,
                        "a docker-archive is what `docker save` and `skopeo copy ... docker-archive:FILE` "
                        "write");
        else if (l->transport == TRANSPORT_OCI && !S_ISDIR(st.st_mode))
                append(err, "it is a file: write docker-archive:%s if it comes from docker save",
                        place->path);
        else if (l->transport == TRANSPORT_OCI && *err && strstr(tb_error_message(*err), "is no OCI layout"))
                append(err, "an OCI layout is what `skopeo copy ... oci:DIR` writes");
}

/* Names that can't be names in a registry, and what they look like. */
static int check_name(const char *image, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(image, 256);
        struct stat st;

        if (tb_startswith(image, "https://") || tb_startswith(image, "http://"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "\"%s\" is an address and no image; write the name without %s, or dockerfile:URL to "
                        "build what "
                        "is there",
                        shown ?: "?", image[4] == 's' ? "https://" : "http://");
        if (image[0] != '/' && !tb_startswith(image, "./") && !tb_startswith(image, "../"))
                return 0;
        if (stat(image, &st) < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno, "cannot read %s", shown ?: "?");
        if (S_ISDIR(st.st_mode))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%s is a directory and no name in a registry; write oci:%s for an OCI layout, "
                        "dockerfile:%s for a "
                        "build",
                        shown ?: "?", shown ?: "?", shown ?: "?");
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "%s is a file and no name in a registry; write docker-archive:%s if it comes from docker "
                "save, "
                "dockerfile:%s if it is a Dockerfile",
                shown ?: "?", shown ?: "?", shown ?: "?");
}

static int place_of_fd(Local *l, TbError **err)
{
        l->place = tb_asprintf("docker-archive:/proc/self/fd/%d", l->fd);
        return l->place ? 0 : tb_error_oom(err);
}

static int take_daemon(Cli *c, const char *endpoint, Local *l, TbError **err)
{
        _cleanup_engine_ TbEngine *engine = NULL;
        _cleanup_free_ char *tag = NULL;
        int r;

        if (!l->rest[0])
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "no image is named; write docker-daemon:NAME[:TAG] or docker-daemon:ID");
        if ((r = cli_engine_connect(c, endpoint, &engine, err)) < 0 ||
                (r = cli_engine_export(engine, l->rest, &l->fd, &tag, err)) < 0 ||
                (r = name_of_reference(tag ?: l->rest, &l->name, &l->tag, err)) < 0)
                return r;
        return place_of_fd(l, err);
}

static int take_dockerfile(Cli *c, const char *endpoint, const char *platform, const CliSource *options,
        Local *l, TbError **err)
{
        _cleanup_engine_ TbEngine *engine = NULL;
        _cleanup_free_ char *dockerfile = NULL, *cut = NULL;
        _cleanup_close_ int context = -EBADF;
        int r;

        if (!l->rest[0])
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "no Dockerfile is named; write dockerfile:DIR, dockerfile:FILE or dockerfile:URL");
        if ((r = cli_context_make(c, l->rest, options, &context, &dockerfile, err)) < 0 ||
                (r = cli_engine_connect(c, endpoint, &engine, err)) < 0 ||
                (r = cli_engine_build(engine, context, dockerfile, platform,
                         !c->json && isatty(STDERR_FILENO), &l->fd, err)) < 0)
                return r;
        cut = strndup(l->rest, strcspn(l->rest, "?#"));
        l->name = cut ? name_of_path(cut) : NULL;
        l->tag = strdup("latest");
        return l->name && l->tag ? place_of_fd(l, err) : tb_error_oom(err);
}

static int take_local(
        Cli *c, const char *image, Local *l, const CliSource *options, json_t *body, TbError **err)
{
        const char *platform = json_string_value(json_object_get(body, "platform"));
        const char *project = json_string_value(json_object_get(body, "project"));
        _cleanup_free_ char *copied = NULL;
        _cleanup_json_ json_t *status = NULL;
        const char *registry, *endpoint;
        int r;

        r = cli_call(c, "GET", "/v1/status", NULL, &status, err);
        if (r < 0)
                return r;
        registry = cli_text(status, "registry", NULL);
        endpoint = cli_text(json_object_get(status, "engine"), "endpoint", TB_ENGINE_DEFAULT);
        if (!registry)
                return tb_error_set(
                        err, TB_ERROR_SYSTEM, -EPROTO, "tbnoded does not say which registry it uses");
        if (l->transport == TRANSPORT_DOCKER_DAEMON)
                r = take_daemon(c, endpoint, l, err);
        else if (l->transport == TRANSPORT_DOCKERFILE)
                r = take_dockerfile(c, endpoint, platform, options, l, err);
        else
                r = take_files(image, l, err);
        if (r >= 0)
                r = copy(c, l, registry, project, platform, &copied, err);
        if (r < 0) {
                _cleanup_free_ char *shown = tb_escape(image, 256);

                advise(image, l, err);
                /* What reads files says itself which one. */
                if (*err &&
                        (tb_startswith(tb_error_message(*err), "docker-archive:") ||
                                tb_startswith(tb_error_message(*err), "oci:")))
                        tb_error_prefix(err, "cannot take the image");
                else
                        tb_error_prefix(err, "cannot take image %s", shown ?: "?");
                return r;
        }
        return tb_json_set_string(body, "image", copied, err);
}

/* What the caller has for the registry of the image, and nothing else. */
static int take_credentials(const char *image, json_t *body, TbError **err)
{
        _cleanup_(registry_client_freep) RegistryClient *client = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_json_ json_t *config = NULL;
        _cleanup_error_ TbError *e = NULL;
        char *text = NULL;
        int r;

        if (registry_ref_parse(image, &ref, NULL) < 0)
                return 0; /* the agent says what is wrong with the name */
        r = registry_client_new(NULL, &client, err);
        if (r < 0)
                return r;
        r = registry_client_load_docker_config(client, NULL, &e);
        if (r >= 0)
                r = registry_client_export_credentials(client, ref->host, &text, &e);
        if (r < 0) {
                fprintf(stderr, "tbnode: going on without credentials for %s: %s\n", ref->host,
                        tb_error_message(e));
                return 0;
        }
        if (r == 0)
                return 0;
        config = json_loads(text, 0, NULL);
        explicit_bzero(text, strlen(text));
        free(text);
        return config ? tb_json_set_new(body, "auths", json_incref(json_object_get(config, "auths")), err)
                      : tb_error_oom(err);
}

int cli_source_take(Cli *c, const char *image, const CliSource *options, json_t *body, TbError **err)
{
        static const char *const others[] = {
                "oci-archive:", "dir:", "containers-storage:", "docker-daemon://", NULL};
        _cleanup_(local_done) Local l = {.fd = -EBADF};
        const char *name = tb_startswith(image, "docker://") ?: image;
        int r;

        for (const char *const *o = others; *o; o++)
                if (tb_startswith(image, *o))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "images can't be taken from %s here; use oci:DIR, docker-archive:FILE, "
                                "docker-daemon:NAME, "
                                "dockerfile:PATH or a name in a registry",
                                *o);
        for (Transport t = 0; t < _TRANSPORT_MAX && name == image; t++) {
                const char *rest = tb_startswith(image, transport_names[t]);

                if (!rest || *rest != ':')
                        continue;
                l.transport = t;
                l.rest = rest + 1;
                return take_local(c, image, &l, options, body, err);
        }
        if (options->file || options->build_context)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "--file and --build-context are for images that are built: dockerfile:PATH");
        if ((r = check_name(name, err)) < 0 || (r = tb_json_set_string(body, "image", name, err)) < 0)
                return r;
        return take_credentials(name, body, err);
}

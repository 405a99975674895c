/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/facts.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/registry.h"

static bool is_root(const char *user)
{
        static const char *const names[] = {"root", "0", "root:root", "root:0", "0:root", "0:0"};

        for (size_t i = 0; user && i < ELEMENTSOF(names); i++)
                if (tb_streq(user, names[i]))
                        return true;
        return !user;
}

/* The path with "//", "." and ".." resolved as text, always absolute. NULL when out of memory. */
static char *path_clean(const char *path)
{
        size_t n = strlen(path), used = 0;
        char *out = malloc(n + 2);

        if (!out)
                return NULL;
        while (*path) {
                size_t len = strcspn(path, "/");

                if (len == 2 && path[0] == '.' && path[1] == '.') {
                        while (used > 0 && out[--used] != '/')
                                ;
                } else if (len > 0 && !(len == 1 && path[0] == '.')) {
                        out[used++] = '/';
                        memcpy(out + used, path, len);
                        used += len;
                }
                path += len;
                path += strspn(path, "/");
        }
        if (used == 0)
                out[used++] = '/';
        out[used] = 0;
        return out;
}

static int find_volume(const ImageConfig *c, ImageFacts *f, TbError **err)
{
        for (char **v = c->volumes; v && *v; v++) {
                _cleanup_free_ char *clean = path_clean(*v);
                const char *rest;

                if (!clean)
                        return tb_error_oom(err);
                rest = tb_startswith(clean, AUGMENT_ROOT);
                if (tb_streq(clean, "/") || (rest && (*rest == 0 || *rest == '/'))) {
                        f->volume = TAKE_PTR(clean);
                        return 0;
                }
        }
        return 0;
}

/* Reads the command line of our init (augment/client/README.md). Returns the index behind "--", or 0 when it is none
 * that this version writes. */
static size_t read_init_line(char *const *argv)
{
        size_t i = 1;

        while (argv[i]) {
                if (tb_streq(argv[i], "--"))
                        return i + 1;
                if (tb_streq(argv[i], "--keep-home") || tb_startswith(argv[i], "--user=") ||
                        tb_startswith(argv[i], "--stop-signal=") || tb_startswith(argv[i], "--level="))
                        i++;
                else if (argv[i + 1] &&
                        (tb_streq(argv[i], "--user") || tb_streq(argv[i], "--stop-signal") ||
                                tb_streq(argv[i], "--level")))
                        i += 2;
                else
                        return 0;
        }
        return 0;
}

/* Nothing counts here that others wrote: who copies our words gets a wrong line in a listing. */
static AugmentBuilder find_builder(const ImageConfig *c)
{
        AugmentBuilder builder = AUGMENT_BUILDER_NATIVE;
        json_t *entry;
        size_t i;

        json_array_foreach (json_object_get(c->document, "history"), i, entry) {
                const char *by = json_string_value(json_object_get(entry, "created_by"));
                const char *comment = json_string_value(json_object_get(entry, "comment"));

                if (by && strstr(by, "ENTRYPOINT [\"" AUGMENT_INIT "\""))
                        builder = comment && tb_startswith(comment, IMAGE_NATIVE_COMMENT)
                                ? AUGMENT_BUILDER_NATIVE
                                : AUGMENT_BUILDER_DOCKER;
        }
        return builder;
}

static int collect_augmented(const ImageConfig *c, ImageFacts *f, TbError **err)
{
        const char *version = image_config_label(c, AUGMENT_LABEL_VERSION);
        const char *payload = image_config_label(c, AUGMENT_LABEL_PAYLOAD);
        size_t begin;

        f->augmented = true;
        f->builder = find_builder(c);
        f->level = augment_level_from_string(image_config_label(c, AUGMENT_LABEL_LEVEL));
        if (f->level < 0 || f->level == AUGMENT_LEVEL_NONE)
                f->level = AUGMENT_LEVEL_BASIC;
        if ((version && !(f->augmented_version = strdup(version))) ||
                (payload && !(f->augmented_payload = strdup(payload))))
                return tb_error_oom(err);

        begin = read_init_line(c->entrypoint);
        f->readable = begin > 0;
        if (!f->readable)
                return 0;
        f->has_entrypoint = c->entrypoint[begin] != NULL;
        if (f->has_entrypoint && !(f->entrypoint = tb_strv_copy(c->entrypoint + begin)))
                return tb_error_oom(err);
        return 0;
}

static int collect_plain(const ImageConfig *c, ImageFacts *f, TbError **err)
{
        f->readable = true;
        f->has_entrypoint = c->has_entrypoint;
        if (c->entrypoint && !(f->entrypoint = tb_strv_copy(c->entrypoint)))
                return tb_error_oom(err);
        return 0;
}

static int collect_platform(const ImageConfig *c, ImageFacts *f, TbError **err)
{
        _cleanup_registry_platform_ RegistryPlatform platform = {};
        _cleanup_free_ char *text = NULL;
        int r;

        text = tb_asprintf(
                "%s/%s%s%s", c->os, c->architecture, c->variant ? "/" : "", c->variant ? c->variant : "");
        if (!text)
                return tb_error_oom(err);
        r = registry_platform_parse(text, &platform, err);
        if (r < 0) {
                tb_error_prefix(err, "image configuration");
                return r;
        }
        f->platform = registry_platform_to_string(&platform);
        return f->platform ? 0 : tb_error_oom(err);
}

int image_facts_collect(const ImageConfig *config, ImageFacts **ret, TbError **err)
{
        _cleanup_image_facts_ ImageFacts *f = NULL;
        int r;

        f = calloc(1, sizeof(*f));
        if (!f)
                return tb_error_oom(err);
        f->n_layers = config->n_diff_ids;
        for (char **e = config->env; e && *e; e++) {
                const char *home = tb_startswith(*e, "HOME=");

                if (home)
                        f->keep_home = *home != 0;
        }
        if (config->entrypoint && tb_streq(config->entrypoint[0], AUGMENT_INIT))
                r = collect_augmented(config, f, err);
        else
                r = collect_plain(config, f, err);
        if (r < 0)
                return r;
        /* What a Dockerfile on top of an augmented image says counts, not what our command line has kept. */
        if (!is_root(config->user) && !(f->user = strdup(config->user)))
                return tb_error_oom(err);
        r = find_volume(config, f, err);
        if (r < 0)
                return r;
        r = collect_platform(config, f, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(f);
        return 0;
}

ImageFacts *image_facts_free(ImageFacts *f)
{
        if (!f)
                return NULL;
        free(f->platform);
        free(f->augmented_version);
        free(f->augmented_payload);
        tb_strv_free(f->entrypoint);
        free(f->user);
        free(f->volume);
        image_files_free(f->files);
        free(f);
        return NULL;
}

/* null for absent, [] for empty. */
static int set_list(json_t *obj, const char *key, bool present, char *const *v, TbError **err)
{
        json_t *list = !present ? json_null() : v ? tb_json_from_strv(v) : json_array();

        return list ? tb_json_set_new(obj, key, list, err) : tb_error_oom(err);
}

static int config_to_json(const ImageFacts *f, const ImageConfig *c, json_t *obj, TbError **err)
{
        int r;

        if ((r = set_list(obj, "entrypoint", f->has_entrypoint, f->entrypoint, err)) < 0 ||
                (r = set_list(obj, "cmd", c->has_cmd, c->cmd, err)) < 0 ||
                (r = tb_json_set_string(obj, "user", f->user, err)) < 0 ||
                (r = tb_json_set_string(obj, "working_dir", c->working_dir, err)) < 0 ||
                (r = tb_json_set_string(obj, "stop_signal", c->stop_signal, err)) < 0 ||
                (r = tb_json_set_bool(obj, "home", f->keep_home, err)) < 0 ||
                (r = set_list(obj, "volumes", true, c->volumes, err)) < 0 ||
                (r = tb_json_set_bool(obj, "healthcheck", c->has_healthcheck, err)) < 0 ||
                (r = tb_json_set_u64(obj, "on_build", tb_strv_length(c->on_build), err)) < 0)
                return r;
        return tb_json_set_u64(obj, "layers", f->n_layers, err);
}

static int augmented_to_json(const ImageFacts *f, json_t *obj, TbError **err)
{
        int r;

        if ((r = tb_json_set_string(obj, "level", augment_level_to_string(f->level), err)) < 0 ||
                (r = tb_json_set_string(obj, "version", f->augmented_version, err)) < 0)
                return r;
        return tb_json_set_string(obj, "payload", f->augmented_payload, err);
}

int image_facts_to_json(const ImageFacts *f, const ImageConfig *config, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *obj = json_object();
        json_t *part;
        int r;

        if (!obj)
                return tb_error_oom(err);
        if ((r = tb_json_set_u64(obj, "version", IMAGE_FACTS_VERSION, err)) < 0 ||
                (r = tb_json_set_string(obj, "platform", f->platform, err)) < 0)
                return r;

        part = json_object();
        if (!part)
                return tb_error_oom(err);
        r = tb_json_set_new(obj, "config", part, err);
        if (r < 0)
                return r;
        r = config_to_json(f, config, part, err);
        if (r < 0)
                return r;

        if (f->files) {
                r = image_files_to_json(f->files, &part, err);
                if (r < 0)
                        return r;
        } else {
                part = json_null();
        }
        r = tb_json_set_new(obj, "files", part, err);
        if (r < 0)
                return r;

        part = f->augmented ? json_object() : json_null();
        if (!part)
                return tb_error_oom(err);
        r = tb_json_set_new(obj, "augmented", part, err);
        if (r < 0)
                return r;
        if (f->augmented) {
                r = augmented_to_json(f, part, err);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(obj);
        return 0;
}

bool image_facts_use_as_is(const ImageFacts *f, AugmentLevel wanted, bool update)
{
        if (wanted == AUGMENT_LEVEL_NONE)
                return true;
        return f->augmented && f->level >= wanted && !update;
}

int image_facts_check(const ImageFacts *f, const ImageConfig *config, AugmentLevel level,
        AugmentBuilder builder, TbError **err)
{
        if (level == AUGMENT_LEVEL_NONE)
                return 0;
        if (f->volume) {
                _cleanup_free_ char *shown = tb_escape(f->volume, 128);

                return tb_error_set(err, TB_ERROR_CONFIG, -ELOOP,
                        "the image declares the VOLUME %s, which would hide " AUGMENT_ROOT
                        "; use --level none, or build the image without that VOLUME",
                        shown ? shown : "?");
        }
        if (f->files && f->files->has_root && !f->augmented)
                return tb_error_set(err, TB_ERROR_CONFIG, -EEXIST,
                        "the image has something at " AUGMENT_ROOT
                        " already, which is where the testbed's software goes; use --level none, or build "
                        "the image "
                        "without it");
        /* One layer per level, at most. */
        if (f->n_layers + (size_t) level > IMAGE_LAYERS_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG,
                        "the image has %zu layers, level %s adds %u, and no engine runs more than %u; "
                        "squash "
                        "it, or use --level none",
                        f->n_layers, augment_level_to_string(level), (unsigned) level, IMAGE_LAYERS_MAX);
        if (!f->readable)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "the image was augmented by another version of tbnode, whose entrypoint this one "
                        "cannot "
                        "read; augment its base image instead");
        if (builder == AUGMENT_BUILDER_NATIVE && level >= AUGMENT_LEVEL_BUILDENV)
                return tb_error_set(err, TB_ERROR_CONFIG, -EOPNOTSUPP,
                        "level %s installs the distribution's packages, which only an engine can do; use "
                        "--builder "
                        "docker, or --level core",
                        augment_level_to_string(level));
        if (builder == AUGMENT_BUILDER_DOCKER && config->on_build)
                return tb_error_set(err, TB_ERROR_CONFIG, -EOPNOTSUPP,
                        "the image has %zu ONBUILD triggers, which docker build would run now; use "
                        "--builder "
                        "native, which keeps them",
                        tb_strv_length(config->on_build));
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/config.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* Elements of any list in a configuration; the largest published images have a few hundred. */
#define LIST_MAX 65536u

static int copy_string(const json_t *obj, const char *key, char **ret, TbError **err)
{
        const char *s = NULL;
        int r;

        r = tb_json_get_string(obj, key, &s, err);
        if (r < 0)
                return r;
        if (r == 0 || s[0] == 0)
                return 0;
        *ret = strdup(s);
        return *ret ? 1 : tb_error_oom(err);
}

/* 1 when present and not null, with *ret NULL for an empty list. */
static int copy_list(const json_t *obj, const char *key, char ***ret, TbError **err)
{
        json_t *array = NULL;
        int r;

        r = tb_json_get_array(obj, key, &array, err);
        if (r <= 0)
                return r;
        if (json_array_size(array) > LIST_MAX)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -E2BIG, "%s has more than %u elements", key, LIST_MAX);
        if (json_array_size(array) == 0)
                return 1;
        return tb_json_get_strv(obj, key, ret, err);
}

static int parse_volumes(const json_t *config, char ***ret, TbError **err)
{
        _cleanup_strv_ char **v = NULL;
        json_t *volumes = NULL, *value;
        const char *path;
        int r;

        r = tb_json_get_object(config, "Volumes", &volumes, err);
        if (r <= 0)
                return r;
        if (json_object_size(volumes) > LIST_MAX)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -E2BIG, "Volumes has more than %u elements", LIST_MAX);
        json_object_foreach (volumes, path, value) {
                r = tb_strv_append(&v, path, err);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(v);
        return 0;
}

static int check_labels(const json_t *config, TbError **err)
{
        json_t *labels = NULL, *value;
        const char *name;
        int r;

        r = tb_json_get_object(config, "Labels", &labels, err);
        if (r <= 0)
                return r;
        json_object_foreach (labels, name, value)
                if (!json_is_string(value)) {
                        _cleanup_free_ char *shown = tb_escape(name, 64);

                        return tb_error_set(err, TB_ERROR_REMOTE, -EINVAL, "label %s is not a string",
                                shown ? shown : "?");
                }
        return 0;
}

/* It stays as it is; facts tell whether there is one. */
static int parse_healthcheck(const json_t *config, ImageConfig *c, TbError **err)
{
        json_t *health = NULL, *test = NULL;
        int r;

        r = tb_json_get_object(config, "Healthcheck", &health, err);
        if (r <= 0)
                return r;
        r = tb_json_get_array(health, "Test", &test, err);
        if (r < 0)
                return r;
        c->has_healthcheck = json_array_size(test) > 0;
        return 0;
}

static int parse_config(ImageConfig *c, TbError **err)
{
        int r;

        r = copy_list(c->config, "Entrypoint", &c->entrypoint, err);
        if (r < 0)
                return r;
        c->has_entrypoint = r > 0;
        r = copy_list(c->config, "Cmd", &c->cmd, err);
        if (r < 0)
                return r;
        c->has_cmd = r > 0;

        if ((r = copy_string(c->config, "User", &c->user, err)) < 0 ||
                (r = copy_string(c->config, "WorkingDir", &c->working_dir, err)) < 0 ||
                (r = copy_string(c->config, "StopSignal", &c->stop_signal, err)) < 0 ||
                (r = copy_list(c->config, "Env", &c->env, err)) < 0 ||
                (r = copy_list(c->config, "OnBuild", &c->on_build, err)) < 0 ||
                (r = parse_volumes(c->config, &c->volumes, err)) < 0 ||
                (r = check_labels(c->config, err)) < 0 || (r = parse_healthcheck(c->config, c, err)) < 0)
                return r;
        return 0;
}

/* rootfs and history are what the native builder appends to, so they must be sound. */
static int check_rootfs(ImageConfig *c, TbError **err)
{
        json_t *rootfs = NULL, *diff_ids = NULL, *history = NULL, *value;
        size_t i;
        int r;

        r = tb_json_get_object(c->document, "rootfs", &rootfs, err);
        if (r < 0)
                return r;
        if (r == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -EINVAL, "rootfs is missing");
        r = tb_json_get_array(rootfs, "diff_ids", &diff_ids, err);
        if (r < 0)
                return r;
        /* The empty image (FROM scratch with metadata only) has "diff_ids": null or []. */
        c->diff_ids = calloc(json_array_size(diff_ids) + 1, sizeof(*c->diff_ids));
        if (!c->diff_ids)
                return tb_error_oom(err);
        json_array_foreach (diff_ids, i, value) {
                if (!json_is_string(value))
                        return tb_error_set(
                                err, TB_ERROR_REMOTE, -EINVAL, "rootfs.diff_ids[%zu] is not a string", i);
                r = tb_digest_parse(json_string_value(value), &c->diff_ids[i], err);
                if (r < 0) {
                        tb_error_prefix(err, "rootfs.diff_ids[%zu]", i);
                        return r;
                }
        }
        c->n_diff_ids = json_array_size(diff_ids);
        r = tb_json_get_array(c->document, "history", &history, err);
        if (r < 0)
                return r;
        json_array_foreach (history, i, value)
                if (!json_is_object(value))
                        return tb_error_set(
                                err, TB_ERROR_REMOTE, -EINVAL, "history[%zu] is not an object", i);
        return 0;
}

static int parse_document(ImageConfig *c, TbError **err)
{
        int r;

        if ((r = copy_string(c->document, "os", &c->os, err)) < 0 ||
                (r = copy_string(c->document, "architecture", &c->architecture, err)) < 0 ||
                (r = copy_string(c->document, "variant", &c->variant, err)) < 0)
                return r;
        if (!c->os || !c->architecture)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EINVAL, "\"%s\" is missing", c->os ? "architecture" : "os");
        if (!tb_streq(c->os, "linux")) {
                _cleanup_free_ char *shown = tb_escape(c->os, 32);

                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "it is an image for \"%s\", only linux images can become nodes",
                        shown ? shown : "?");
        }
        r = check_rootfs(c, err);
        if (r < 0)
                return r;
        r = tb_json_get_object(c->document, "config", &c->config, err);
        if (r <= 0)
                return r;
        return parse_config(c, err);
}

int image_config_parse(const char *data, size_t size, ImageConfig **ret, TbError **err)
{
        _cleanup_image_config_ ImageConfig *c = NULL;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return tb_error_oom(err);
        r = tb_json_parse(data, size, IMAGE_CONFIG_MAX, "image configuration", &c->document, err);
        if (r < 0)
                return r;
        if (!json_is_object(c->document))
                return tb_error_set(err, TB_ERROR_REMOTE, -EINVAL, "image configuration: not a JSON object");
        r = parse_document(c, err);
        if (r < 0) {
                tb_error_prefix(err, "image configuration");
                return r;
        }
        *ret = TAKE_PTR(c);
        return 0;
}

ImageConfig *image_config_free(ImageConfig *c)
{
        if (!c)
                return NULL;
        json_decref(c->document);
        free(c->os);
        free(c->architecture);
        free(c->variant);
        tb_strv_free(c->entrypoint);
        tb_strv_free(c->cmd);
        free(c->user);
        free(c->working_dir);
        free(c->stop_signal);
        tb_strv_free(c->env);
        tb_strv_free(c->on_build);
        tb_strv_free(c->volumes);
        free(c->diff_ids);
        free(c);
        return NULL;
}

const char *image_config_label(const ImageConfig *c, const char *name)
{
        return json_string_value(json_object_get(json_object_get(c->config, "Labels"), name));
}

int image_config_ensure(ImageConfig *c, json_t **ret, TbError **err)
{
        json_t *config;
        int r;

        if (!c->config) {
                config = json_object();
                if (!config)
                        return tb_error_oom(err);
                r = tb_json_set_new(c->document, "config", config, err);
                if (r < 0)
                        return r;
                c->config = config;
        }
        *ret = c->config;
        return 0;
}

int image_config_dump(const ImageConfig *c, char **ret, size_t *ret_size, TbError **err)
{
        return tb_json_dump(c->document, false, ret, ret_size, err);
}

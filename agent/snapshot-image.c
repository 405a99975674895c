/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "agent/project.h"
#include "agent/snapshot-image.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* distribution refuses longer names (reference: NameTotalLengthMax). */
#define REPOSITORY_MAX 255u
#define NAME_SHOWN_MAX 80u

int snapshot_project_of(const char *image, const char *registry_host, char **ret, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        const char *rest;

        *ret = NULL;
        /* Containers can be made of an image's id as well: that names no project. */
        if (registry_ref_parse(image, &ref, NULL) < 0 || !project_is_testbed(ref->host, registry_host))
                return 0;
        rest = tb_startswith(ref->repository, "projects/");
        if (!rest)
                return 0;
        *ret = strndup(rest, strcspn(rest, "/"));
        return *ret ? 0 : tb_error_oom(err);
}

int snapshot_name_make(
        const char *registry_host, const char *project, const char *name, RegistryRef **ret, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *prefix = NULL, *text = NULL, *shown = tb_escape(name, NAME_SHOWN_MAX);
        _cleanup_error_ TbError *cause = NULL;
        size_t length;
        int r;

        prefix = tb_asprintf("projects/%s/snapshots/", project);
        text = prefix ? tb_asprintf("%s/%s%s", registry_host, prefix, name) : NULL;
        if (!text || !shown)
                return tb_error_oom(err);
        length = strlen(prefix) + strcspn(name, ":");
        if (length > REPOSITORY_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENAMETOOLONG,
                        "'%s' is too long for an image's name in the testbed's registry (%zu bytes of %u, "
                        "with "
                        "'%s')",
                        shown, length, REPOSITORY_MAX, prefix);
        r = registry_ref_parse(text, &ref, &cause);
        if (r == -ENOMEM)
                return tb_error_move(err, &cause);
        if (r < 0 || tb_digest_is_set(&ref->digest) || !tb_startswith(ref->repository, prefix))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "a snapshot can't be called '%s'; write NAME[:TAG] with small letters, digits and "
                        "single . _ - between them, like web or lab1/web:monday",
                        shown);
        *ret = TAKE_PTR(ref);
        return 0;
}

char *snapshot_name_default(const char *experiment, const char *node)
{
        char *name = tb_asprintf("%s%s%s", experiment ?: "", experiment ? "/" : "", node);

        for (char *p = name; p && *p; p++)
                *p = (char) tolower((unsigned char) *p);
        return name;
}

/* Those of the members that the engine describes an image with which are an image's, and not only a container's (Host name,
 * terminal, ...): moby image-spec v1.2 and its OnBuild, Shell, Healthcheck, ArgsEscaped. */
static int copy_config(const json_t *config, json_t **ret, TbError **err)
{
        static const char *const members[] = {"User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes",
                "WorkingDir", "Labels", "StopSignal", "Healthcheck", "Shell", "OnBuild", "ArgsEscaped",
                NULL};
        _cleanup_json_ json_t *copy = json_object();

        if (!copy)
                return tb_error_oom(err);
        for (const char *const *m = members; *m; m++) {
                json_t *value = json_object_get(config, *m);

                if (value && !json_is_null(value) && json_object_set(copy, *m, value) < 0)
                        return tb_error_oom(err);
        }
        *ret = TAKE_PTR(copy);
        return 0;
}

/* The engine notes the container's command as that which made the layer. */
static int copy_history(const json_t *pushed, json_t *made, TbError **err)
{
        _cleanup_json_ json_t *history = json_deep_copy(json_object_get(pushed, "history"));
        json_t *last;

        if (!history)
                return 0; /* it is optional */
        last = json_array_get(history, json_array_size(history) - 1);
        if (last) {
                (void) json_object_del(last, "comment"); /* when there is one */
                if (json_object_set_new(last, "created_by", json_string("tbnode snapshot")) < 0)
                        return tb_error_oom(err);
        }
        return json_object_set(made, "history", history) < 0 ? tb_error_oom(err) : 0;
}

int snapshot_config_make(
        const json_t *pushed, const json_t *config, char **ret, size_t *ret_size, TbError **err)
{
        static const char *const members[] = {
                "architecture", "variant", "os", "os.version", "os.features", "created", "rootfs", NULL};
        _cleanup_json_ json_t *made = json_object(), *inner = NULL;
        int r;

        if (!made)
                return tb_error_oom(err);
        if (!json_is_object(json_object_get(pushed, "rootfs")) ||
                !json_is_string(json_object_get(pushed, "os")))
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                        "what the engine pushed has no image's configuration");
        for (const char *const *m = members; *m; m++) {
                json_t *value = json_object_get(pushed, *m);

                if (value && json_object_set(made, *m, value) < 0)
                        return tb_error_oom(err);
        }
        r = copy_history(pushed, made, err);
        if (r >= 0)
                r = copy_config(config, &inner, err);
        if (r >= 0 && json_object_set(made, "config", inner) < 0)
                r = tb_error_oom(err);
        return r < 0 ? r : tb_json_dump(made, true, ret, ret_size, err);
}

int snapshot_manifest_make(const RegistryManifest *pushed, const TbDigest *config, size_t config_size,
        char **ret, size_t *ret_size, TbError **err)
{
        _cleanup_json_ json_t *made = NULL;
        json_t *descriptor;
        int r;

        if (registry_manifest_is_index(pushed) || !tb_digest_is_set(&pushed->config.digest))
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EPROTO, "what the engine pushed is not one image");
        made = json_deep_copy(pushed->json);
        descriptor = json_object_get(made, "config");
        if (!descriptor)
                return tb_error_oom(err);
        r = tb_json_set_string(descriptor, "digest", config->text, err);
        if (r >= 0)
                r = tb_json_set_u64(descriptor, "size", config_size, err);
        return r < 0 ? r : tb_json_dump(made, false, ret, ret_size, err);
}

uint64_t snapshot_size(const RegistryManifest *m, size_t config_size)
{
        uint64_t size = config_size;

        for (size_t i = 0; i < m->n_layers; i++)
                if (!m->layers[i].foreign && size <= UINT64_MAX - m->layers[i].size)
                        size += m->layers[i].size;
        return size;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "augment/augment.h"
#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/registry.h"

#define REQUEST_VERSION 1
#define REQUEST_MAX (64u * 1024)
#define PROJECT_MAX 64u

static const char *const level_names[] = {
        [AUGMENT_LEVEL_NONE] = "none",
        [AUGMENT_LEVEL_BASIC] = "basic",
        [AUGMENT_LEVEL_CORE] = "core",
        [AUGMENT_LEVEL_BUILDENV] = "buildenv",
        [AUGMENT_LEVEL_FULL] = "full",
};
static_assert(ELEMENTSOF(level_names) == _AUGMENT_LEVEL_MAX, "a name for each level");

static const char *const builder_names[] = {
        [AUGMENT_BUILDER_NATIVE] = "native",
        [AUGMENT_BUILDER_DOCKER] = "docker",
};
static_assert(ELEMENTSOF(builder_names) == _AUGMENT_BUILDER_MAX, "a name for each builder");

static const char *const op_names[] = {
        [AUGMENT_OP_AUGMENT] = "augment",
        [AUGMENT_OP_MIRROR] = "mirror",
        [AUGMENT_OP_IMAGES] = "images",
        [AUGMENT_OP_DOCKERFILE] = "dockerfile",
};
static_assert(ELEMENTSOF(op_names) == _AUGMENT_OP_MAX, "a name for each operation");

static const char *const policy_names[] = {
        [AUGMENT_POLICY_LATEST] = "latest",
        [AUGMENT_POLICY_CACHED] = "cached",
};
static_assert(ELEMENTSOF(policy_names) == _AUGMENT_POLICY_MAX, "a name for each policy");

static const char *const from_names[] = {
        [AUGMENT_FROM_REGISTRY] = "registry",
        [AUGMENT_FROM_CACHE] = "cache",
        [AUGMENT_FROM_DIGEST] = "digest",
};
static_assert(ELEMENTSOF(from_names) == _AUGMENT_FROM_MAX, "a name for each");

static const char *to_string(const char *const *names, size_t n, int value)
{
        return value >= 0 && (size_t) value < n ? names[value] : "?";
}

static int from_string(const char *const *names, size_t n, const char *s)
{
        for (size_t i = 0; s && i < n; i++)
                if (tb_streq(names[i], s))
                        return (int) i;
        return -EINVAL;
}

const char *augment_level_to_string(AugmentLevel level)
{
        return to_string(level_names, ELEMENTSOF(level_names), level);
}

AugmentLevel augment_level_from_string(const char *s)
{
        return from_string(level_names, ELEMENTSOF(level_names), s);
}

const char *augment_builder_to_string(AugmentBuilder builder)
{
        return to_string(builder_names, ELEMENTSOF(builder_names), builder);
}

AugmentBuilder augment_builder_from_string(const char *s)
{
        return from_string(builder_names, ELEMENTSOF(builder_names), s);
}

const char *augment_op_to_string(AugmentOp op)
{
        return to_string(op_names, ELEMENTSOF(op_names), op);
}

AugmentOp augment_op_from_string(const char *s)
{
        return from_string(op_names, ELEMENTSOF(op_names), s);
}

static const char *const kind_names[] = {
        [AUGMENT_SOURCE_UNKNOWN] = "unknown",
        [AUGMENT_SOURCE_IMAGE] = "image",
        [AUGMENT_SOURCE_INDEX] = "index",
};
static_assert(ELEMENTSOF(kind_names) == _AUGMENT_SOURCE_KIND_MAX, "a name for each kind");

AugmentSourceKind augment_source_kind(const char *media_type)
{
        RegistryManifestKind kind = media_type ? registry_manifest_kind_from_media_type(media_type)
                                               : _REGISTRY_MANIFEST_KIND_INVALID;

        if (kind < 0)
                return AUGMENT_SOURCE_UNKNOWN;
        return kind == REGISTRY_DOCKER_LIST || kind == REGISTRY_OCI_INDEX ? AUGMENT_SOURCE_INDEX
                                                                          : AUGMENT_SOURCE_IMAGE;
}

const char *augment_policy_to_string(AugmentPolicy policy)
{
        return to_string(policy_names, ELEMENTSOF(policy_names), policy);
}

AugmentPolicy augment_policy_from_string(const char *s)
{
        return from_string(policy_names, ELEMENTSOF(policy_names), s);
}

const char *augment_from_to_string(AugmentFrom from)
{
        return to_string(from_names, ELEMENTSOF(from_names), from);
}

AugmentFrom augment_from_from_string(const char *s)
{
        return from_string(from_names, ELEMENTSOF(from_names), s);
}

void augment_request_done(AugmentRequest *r)
{
        if (r->auth)
                explicit_bzero(r->auth, strlen(r->auth));
        free(r->auth);
        free(r->private_project);
        free(r->notice);
        free(r->manifest);
        free(r->manifest_type);
        free(r->image);
        free(r->platform);
        free(r->project);
        free(r->registry);
        free(r->payload_dir);
        free(r->docker_config);
        free(r->state_dir);
        *r = (AugmentRequest){};
}

/* A project is a component of repository names: lower-case letters, digits, single separators inside. */
static int check_project(const char *project, TbError **err)
{
        _cleanup_free_ char *component = augment_host_component(project);

        if (!component)
                return tb_error_oom(err);
        if (strlen(project) <= PROJECT_MAX && tb_streq(component, project))
                return 0;
        _cleanup_free_ char *shown = tb_escape(project, PROJECT_MAX);
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "\"%s\" is not a project name; use at most %u lower-case letters and digits, with single . "
                "_ or - "
                "between them",
                shown ? shown : "?", PROJECT_MAX);
}

static int check_platform(AugmentRequest *r, TbError **err)
{
        _cleanup_registry_platform_ RegistryPlatform platform = {};
        char *text;
        int k;

        k = r->platform ? registry_platform_parse(r->platform, &platform, err)
                        : registry_platform_host(&platform, err);
        if (k < 0)
                return k;
        if (!r->platform)
                r->all_platforms = true;
        /* An engine builds for one platform at a time. */
        if (r->builder != AUGMENT_BUILDER_NATIVE)
                r->all_platforms = false;
        if (!tb_streq(platform.os, "linux"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EOPNOTSUPP,
                        "only linux images can become nodes; use --platform linux/ARCHITECTURE");
        text = registry_platform_to_string(&platform);
        if (!text)
                return tb_error_oom(err);
        free(r->platform);
        r->platform = text;
        return 0;
}

int augment_request_for_host(AugmentRequest *r, TbError **err)
{
        _cleanup_registry_platform_ RegistryPlatform platform = {};
        int k;

        if (r->platform)
                return 0;
        k = registry_platform_host(&platform, err);
        if (k < 0)
                return k;
        r->platform = registry_platform_to_string(&platform);
        return r->platform ? 0 : tb_error_oom(err);
}

int augment_request_check(AugmentRequest *r, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *host = NULL;
        bool plain_http;
        int k;

        if (!r->image || !r->registry)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the request names no %s",
                        r->image ? "registry" : "image");
        if (r->builder < 0 || r->builder >= _AUGMENT_BUILDER_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "unknown builder; use native or docker");
        if (r->level < 0 || r->level >= _AUGMENT_LEVEL_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "unknown level; use none, basic, core, buildenv or full");
        if (r->policy < 0 || r->policy >= _AUGMENT_POLICY_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "unknown policy; use latest or cached");
        if ((k = registry_ref_parse(r->image, &ref, err)) < 0 ||
                (k = augment_registry_parse(r->registry, &host, &plain_http, err)) < 0 ||
                (r->project && (k = check_project(r->project, err)) < 0) ||
                (r->private_project && (k = check_project(r->private_project, err)) < 0))
                return k;
        return check_platform(r, err);
}

int augment_request_to_json(const AugmentRequest *r, AugmentOp op, char **ret, TbError **err)
{
        const struct {
                const char *key, *value;
        } strings[] = {
                {"op", augment_op_to_string(op)},
                {"image", r->image},
                {"level", augment_level_to_string(r->level)},
                {"builder", augment_builder_to_string(r->builder)},
                {"platform", r->platform},
                {"project", r->project},
                {"registry", r->registry},
                {"payload_dir", r->payload_dir},
                {"docker_config", r->docker_config},
                {"state_dir", r->state_dir},
                {"resolved", tb_digest_is_set(&r->resolved) ? r->resolved.text : NULL},
                {"policy", augment_policy_to_string(r->policy)},
                {"auth", r->auth},
                {"private_project", r->private_project},
                {"from", augment_from_to_string(r->from)},
                {"notice", r->notice},
                {"kind", to_string(kind_names, ELEMENTSOF(kind_names), r->kind)},
                {"manifest", r->manifest},
                {"manifest_type", r->manifest_type},
        };
        _cleanup_json_ json_t *obj = json_object();
        int k;

        if (!obj)
                return tb_error_oom(err);
        k = tb_json_set_u64(obj, "version", REQUEST_VERSION, err);
        for (size_t i = 0; k >= 0 && i < ELEMENTSOF(strings); i++)
                if (strings[i].value)
                        k = tb_json_set_string(obj, strings[i].key, strings[i].value, err);
        if (k >= 0)
                k = tb_json_set_bool(obj, "update", r->update, err);
        if (k >= 0)
                k = tb_json_set_bool(obj, "private", r->private, err);
        if (k >= 0)
                k = tb_json_set_bool(obj, "all_platforms", r->all_platforms, err);
        return k < 0 ? k : tb_json_dump(obj, false, ret, NULL, err);
}

static int take_string(const json_t *obj, const char *key, char **ret, TbError **err)
{
        const char *s = NULL;
        int r = tb_json_get_string(obj, key, &s, err);

        if (r <= 0)
                return r;
        *ret = strdup(s);
        return *ret ? 1 : tb_error_oom(err);
}

static int take_enum(
        const json_t *obj, const char *key, const char *const *names, size_t n, int *ret, TbError **err)
{
        const char *s = NULL;
        int r = tb_json_get_string(obj, key, &s, err);

        if (r < 0)
                return r;
        if (r == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "\"%s\" is missing", key);
        *ret = from_string(names, n, s);
        if (*ret < 0) {
                _cleanup_free_ char *shown = tb_escape(s, 32);

                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "\"%s\": \"%s\" is not known", key,
                        shown ? shown : "?");
        }
        return 0;
}

static int request_from_object(const json_t *obj, AugmentRequest *r, AugmentOp *ret_op, TbError **err)
{
        static const char *const known[] = {"version", "op", "image", "level", "builder", "platform",
                "project", "registry", "payload_dir", "docker_config", "state_dir", "resolved", "kind",
                "update", "all_platforms", "policy", "auth", "private_project", "from", "notice", "private",
                "manifest", "manifest_type", NULL};
        _cleanup_free_ char *resolved = NULL, *kind = NULL;
        uint64_t version = 0;
        const char *key;
        json_t *value;
        int k, level = -EINVAL, builder = -EINVAL, op = -EINVAL, policy = 0, from = 0;

        json_object_foreach ((json_t *) obj, key, value)
                if (!tb_strv_contains((char *const *) known, key)) {
                        _cleanup_free_ char *shown = tb_escape(key, 32);

                        return tb_error_set(
                                err, TB_ERROR_CONFIG, -EINVAL, "unknown field \"%s\"", shown ? shown : "?");
                }
        k = tb_json_get_u64(obj, "version", &version, err);
        if (k < 0)
                return k;
        if (version != REQUEST_VERSION)
                return tb_error_set(err, TB_ERROR_CONFIG, -EPROTO,
                        "the agent and the worker are not of the same version; restart the agent");
        if ((k = take_enum(obj, "op", op_names, ELEMENTSOF(op_names), &op, err)) < 0 ||
                (k = take_enum(obj, "level", level_names, ELEMENTSOF(level_names), &level, err)) < 0 ||
                (k = take_enum(obj, "builder", builder_names, ELEMENTSOF(builder_names), &builder, err)) <
                        0 ||
                (k = take_string(obj, "image", &r->image, err)) < 0 ||
                (k = take_string(obj, "platform", &r->platform, err)) < 0 ||
                (k = take_string(obj, "project", &r->project, err)) < 0 ||
                (k = take_string(obj, "registry", &r->registry, err)) < 0 ||
                (k = take_string(obj, "payload_dir", &r->payload_dir, err)) < 0 ||
                (k = take_string(obj, "docker_config", &r->docker_config, err)) < 0 ||
                (k = take_string(obj, "state_dir", &r->state_dir, err)) < 0 ||
                (k = take_string(obj, "resolved", &resolved, err)) < 0 ||
                (k = take_string(obj, "kind", &kind, err)) < 0 ||
                (k = tb_json_get_bool(obj, "all_platforms", &r->all_platforms, err)) < 0 ||
                (k = take_string(obj, "auth", &r->auth, err)) < 0 ||
                (k = take_string(obj, "private_project", &r->private_project, err)) < 0 ||
                (k = take_string(obj, "notice", &r->notice, err)) < 0 ||
                (k = take_string(obj, "manifest", &r->manifest, err)) < 0 ||
                (k = take_string(obj, "manifest_type", &r->manifest_type, err)) < 0 ||
                (k = tb_json_get_bool(obj, "private", &r->private, err)) < 0 ||
                (k = tb_json_get_bool(obj, "update", &r->update, err)) < 0 ||
                (json_object_get(obj, "policy") &&
                        (k = take_enum(obj, "policy", policy_names, ELEMENTSOF(policy_names), &policy,
                                 err)) < 0) ||
                (json_object_get(obj, "from") &&
                        (k = take_enum(obj, "from", from_names, ELEMENTSOF(from_names), &from, err)) < 0))
                return k;
        r->policy = policy;
        r->from = from;
        if (kind) {
                k = from_string(kind_names, ELEMENTSOF(kind_names), kind);
                if (k < 0)
                        return tb_error_set(err, TB_ERROR_CONFIG, k, "\"kind\" is not known");
                r->kind = k;
        }
        r->level = level;
        r->builder = builder;
        *ret_op = op;
        if (resolved && (k = tb_digest_parse(resolved, &r->resolved, err)) < 0)
                return k;
        return augment_request_check(r, err);
}

int augment_request_from_json(
        const char *data, size_t size, AugmentRequest *ret, AugmentOp *ret_op, TbError **err)
{
        _cleanup_augment_request_ AugmentRequest request = {};
        _cleanup_json_ json_t *obj = NULL;
        AugmentOp op = _AUGMENT_OP_INVALID;
        int r;

        r = tb_json_parse(data, size, REQUEST_MAX, "request", &obj, err);
        if (r < 0)
                return r;
        if (!json_is_object(obj))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "request: not a JSON object");
        r = request_from_object(obj, &request, &op, err);
        if (r < 0)
                return r;
        *ret = request;
        request = (AugmentRequest){};
        *ret_op = op;
        return 0;
}

const char *augment_worker_path(void)
{
        const char *path = secure_getenv("TBNODE_WORKER");

        return path && path[0] ? path : TBNODE_LIBEXECDIR "/tbnode-augment-worker";
}

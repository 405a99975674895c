/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/request-body.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

#define AUTH_MAX (16U * 1024)

int request_body_check_members(const json_t *body, const char *const *known, TbError **err)
{
        const char *key;
        json_t *value;

        json_object_foreach ((json_t *) body, key, value) {
                _cleanup_free_ char *shown = NULL;
                const char *const *k = known;

                while (*k && !tb_streq(*k, key))
                        k++;
                if (*k)
                        continue;
                shown = tb_escape(key, 60);
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "there is no member '%s' in this request",
                        shown ?: "");
        }
        return 0;
}

int request_body_take_string(const json_t *body, const char *key, char **ret, TbError **err)
{
        const char *s = NULL;
        char *copy;
        int r;

        r = tb_json_get_string(body, key, &s, err);
        if (r <= 0)
                return r;
        if (strlen(s) > REQUEST_TEXT_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s is too long", key);
        copy = strdup(s);
        if (!copy)
                return tb_error_oom(err);
        free(*ret);
        *ret = copy;
        return 0;
}

static int take_how(const json_t *body, AugmentRequest *ret, TbError **err)
{
        const char *level = NULL, *builder = NULL;
        int r;

        r = tb_json_get_string(body, "level", &level, err);
        if (r >= 0)
                r = tb_json_get_string(body, "builder", &builder, err);
        if (r < 0)
                return r;
        if (level) {
                ret->level = augment_level_from_string(level);
                if (ret->level < 0)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "there is no such level; use none, basic, core, buildenv or full");
        }
        if (builder) {
                ret->builder = augment_builder_from_string(builder);
                if (ret->builder < 0)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "there is no such builder; use native or docker");
        }
        return 0;
}

/* A docker configuration with nothing but `auths`: helpers that it names would be ours to run. */
static int take_auth(const json_t *body, AugmentRequest *ret, TbError **err)
{
        json_t *auths = NULL;
        _cleanup_json_ json_t *config = NULL;
        int r;

        r = tb_json_get_object(body, "auths", &auths, err);
        if (r <= 0)
                return r;
        config = json_pack("{s:O}", "auths", auths);
        ret->auth = config ? json_dumps(config, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
        if (!ret->auth)
                return tb_error_oom(err);
        if (strlen(ret->auth) > AUTH_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EMSGSIZE, "auths is larger than %u bytes", AUTH_MAX);
        return 0;
}

static int take_policy(const json_t *body, AugmentRequest *ret, TbError **err)
{
        const char *policy = NULL;
        int r;

        r = tb_json_get_string(body, "policy", &policy, err);
        if (r <= 0)
                return r;
        ret->policy = augment_policy_from_string(policy);
        if (ret->policy < 0)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "there is no such policy; use latest or cached");
        return 0;
}

int request_body_take_augment(const json_t *body, const Config *config, AugmentRequest *ret, TbError **err)
{
        int r;

        ret->level = config->level;
        ret->policy = config->policy;
        ret->builder = config->builder;
        r = request_body_take_string(body, "image", &ret->image, err);
        if (r >= 0 && (!ret->image || ret->image[0] == 0))
                r = tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "no image is named");
        if (r >= 0)
                r = request_body_take_string(body, "platform", &ret->platform, err);
        if (r >= 0)
                r = request_body_take_string(body, "project", &ret->project, err);
        if (r >= 0)
                r = tb_json_get_bool(body, "update", &ret->update, err);
        if (r >= 0)
                r = take_policy(body, ret, err);
        if (r >= 0)
                r = take_auth(body, ret, err);
        return r < 0 ? r : take_how(body, ret, err);
}

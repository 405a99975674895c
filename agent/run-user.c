/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * As whom a node's programs run
 *
 * An augmented image keeps its User: docker run, docker exec and health checks are the engine's business, as with the
 * original. A node is started as root, for its services, whatever the image says; so the agent tells init who main is
 * (node.conf, augment/client/README.md), and has health checks go back to that user, because the engine runs them as
 * the container's user.
 */

#include <ctype.h>
#include <string.h>

#include "agent/run-spec.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* NODE_NAME_MAX of augment/client/node-conf.h */
#define USER_MAX 255u

static json_t *image_config(const json_t *inspect, const char *key)
{
        return json_object_get(json_object_get(inspect, "Config"), key);
}

const char *run_spec_user(const RunSpec *s, const json_t *inspect)
{
        const char *user = s->user ?: json_string_value(image_config(inspect, "User"));

        return user && user[0] ? user : NULL;
}

/* Entries replace each other by name; "HOME" without a value takes it away (moby container/env.go,
 * ReplaceOrAppendEnvVars). An empty HOME is none to the runtime (runc finalizeNamespace). */
static void look_for_home(const char *entry, bool *ret)
{
        const char *value = entry ? tb_startswith(entry, "HOME") : NULL;

        if (value && (*value == 0 || *value == '='))
                *ret = value[0] && value[1];
}

static bool has_own_home(const RunSpec *s, const json_t *inspect)
{
        bool own = false;
        json_t *value;
        size_t i;

        json_array_foreach (image_config(inspect, "Env"), i, value)
                look_for_home(json_string_value(value), &own);
        for (char **e = s->env; e && *e; e++)
                look_for_home(*e, &own);
        return own;
}

int run_spec_node_conf(const RunSpec *s, const json_t *inspect, char **ret, TbError **err)
{
        const char *user = run_spec_user(s, inspect);
        char *text;

        for (const char *c = user; c && *c; c++)
                if (iscntrl((unsigned char) *c))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "the user has a control character in its name; give another --user");
        if (user && strlen(user) > USER_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENAMETOOLONG,
                        "the user's name is longer than %u bytes; give another --user", USER_MAX);
        text = tb_asprintf("on-exit=%s\nnode=%s\n%s%s%s%s%s%skeep-home=%s\n",
                node_on_exit_to_string(s->on_exit), s->node, s->experiment ? "experiment=" : "",
                s->experiment ?: "", s->experiment ? "\n" : "", user ? "user=" : "", user ?: "",
                user ? "\n" : "", has_own_home(s, inspect) ? "yes" : "no");
        if (!text)
                return tb_error_oom(err);
        *ret = text;
        return 0;
}

static bool append(json_t *a, const char *s)
{
        return json_array_append_new(a, json_string(s)) >= 0;
}

/* The image's check with init in front; NULL in *ret: there is none. What it does not say (times) the engine takes from
 * the image, field by field (moby daemon/commit.go, merge()). */
static int wrap_health_check(
        const RunSpec *s, const json_t *inspect, const char *user, json_t **ret, TbError **err)
{
        const json_t *test = json_object_get(image_config(inspect, "Healthcheck"), "Test"),
                     *shell = image_config(inspect, "Shell");
        const char *kind = json_string_value(json_array_get(test, 0));
        _cleanup_json_ json_t *wrapped = NULL;
        bool ok, in_shell = tb_streq(kind, "CMD-SHELL");

        if (!in_shell && !tb_streq(kind, "CMD"))
                return 0;
        wrapped = json_array();
        ok = wrapped && append(wrapped, "CMD") && append(wrapped, "/tbnode/init") &&
                append(wrapped, "as-user") && append(wrapped, user) &&
                (!has_own_home(s, inspect) || append(wrapped, "--keep-home")) && append(wrapped, "--");
        if (in_shell && json_array_size(shell) > 0)
                ok = ok && json_array_extend(wrapped, (json_t *) shell) >= 0;
        else if (in_shell)
                ok = ok && append(wrapped, "/bin/sh") && append(wrapped, "-c");
        for (size_t i = 1; ok && i < json_array_size(test); i++)
                ok = json_array_append(wrapped, json_array_get(test, i)) >= 0;
        if (!ok)
                return tb_error_oom(err);
        *ret = TAKE_PTR(wrapped);
        return 0;
}

int run_spec_add_user(const RunSpec *s, const json_t *inspect, json_t *body, TbError **err)
{
        const char *user = run_spec_user(s, inspect);
        json_t *test = NULL;
        int r;

        if (!user)
                return 0;
        /* A name would have to be in the image's /etc/passwd. */
        r = tb_json_set_string(body, "User", "0", err);
        if (r >= 0)
                r = wrap_health_check(s, inspect, user, &test, err);
        if (r >= 0 && test && json_object_set_new(body, "Healthcheck", json_pack("{s:o}", "Test", test)) < 0)
                r = tb_error_oom(err);
        return r;
}

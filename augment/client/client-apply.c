/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-apply.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "augment/client/client-file.h"
#include "augment/client/client-hosts.h"
#include "augment/client/client-system.h"
#include "augment/client/client-users.h"
#include "augment/client/util.h"

#define MOUNTINFO_MAX (4U * 1024 * 1024)

char **declared_environment(const json_t *declaration)
{
        json_t *environment = json_object_get(declaration, "environment"), *value;
        char **env = calloc(json_object_size(environment) + 1, sizeof(*env));
        const char *name;
        size_t n = 0;

        if (!env)
                return NULL;
        json_object_foreach (environment, name, value) {
                Text t = {};

                if (!json_is_string(value) || !name[0] || !line_is_clean(name, "=", 256) ||
                        !line_is_clean(json_string_value(value), "", 65536))
                        continue;
                text_addf(&t, "%s=%s", name, json_string_value(value));
                env[n] = text_take(&t);
                if (!env[n]) {
                        environment_free(env);
                        return NULL;
                }
                n++;
        }
        return env;
}

void environment_free(char **env)
{
        for (size_t i = 0; env && env[i]; i++)
                free(env[i]);
        free(env);
}

/* For the ssh sessions: <rundir>/environment, a line for each variable. */
static void apply_environment(const ApplyPlace *place, const json_t *declaration, Problems *p)
{
        _cleanup_free_ char *text = NULL, *before = NULL;
        char **env = declared_environment(declaration);
        char path[PATH_MAX];
        Text t = {};
        int r;

        for (size_t i = 0; env && env[i]; i++)
                text_addf(&t, "%s\n", env[i]);
        environment_free(env);
        text = text_take(&t);
        format_path(path, sizeof(path), "%s/environment", place->rundir);
        if (!text || (read_text_file(path, IMAGE_FILE_MAX, &before, NULL) >= 0 && strcmp(before, text) == 0))
                return;
        if (!before && !text[0])
                return;
        r = write_text_file(path, 0644, text);
        if (r < 0)
                problem(p, "cannot write %s: %s", path, strerror(-r));
}

static void apply_hosts(const ApplyPlace *place, const json_t *hosts, Problems *p)
{
        char etc[PATH_MAX], path[PATH_MAX];
        int r = 0;

        snprintf(etc, sizeof(etc), "%.4000s/etc", place->root);
        snprintf(path, sizeof(path), "%.4000s/etc/hosts", place->root);
        if (json_array_size(hosts) > 0)
                r = make_dirs(etc);
        if (r < 0)
                problem(p, "cannot make %s: %s", etc, strerror(-r));
        else
                hosts_apply(path, hosts, p);
}

static void check_mounts(const json_t *mounts, Problems *p)
{
        _cleanup_free_ char *text = NULL;
        int r;

        if (json_array_size(mounts) == 0)
                return;
        r = read_text_file("/proc/self/mountinfo", MOUNTINFO_MAX, &text, NULL);
        if (r < 0)
                problem(p, "cannot read /proc/self/mountinfo: %s", strerror(-r));
        else
                mounts_check(text, mounts, p);
}

void node_apply(const ApplyPlace *place, const json_t *declaration, Problems *p)
{
        hostname_apply(member_string(declaration, "hostname", ""), p);
        apply_hosts(place, json_object_get(declaration, "hosts"), p);
        users_apply(place->root, place->rundir, place->path, json_object_get(declaration, "accounts"), p);
        apply_environment(place, declaration, p);
        check_mounts(json_object_get(declaration, "mounts"), p);
        tmcc_link(place->root);
}

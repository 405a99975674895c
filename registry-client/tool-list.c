/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ls, tags and referrers: lists. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/tool.h"

static int print_names(
        const Tool *t, const char *what, const char *of, const char *key, char *const *names, TbError **err)
{
        if (t->json)
                return tool_print_json_new(
                        json_pack("{s:s, s:o*}", what, of, key, tb_json_from_strv(names)), err);
        for (size_t i = 0; names[i]; i++)
                puts(names[i]);
        return 0;
}

/* Keeps `prefix` and what lies below it. */
static void filter(char **names, const char *prefix)
{
        size_t n = 0;

        for (size_t i = 0; names[i]; i++) {
                const char *rest = tb_startswith(names[i], prefix);

                if (rest && (!*rest || *rest == '/'))
                        names[n++] = names[i];
                else
                        free(names[i]);
        }
        names[n] = NULL;
}

int tool_ls(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_names_freep) char **names = NULL;
        _cleanup_free_ char *host = strndup(args[0], strcspn(args[0], "/")), *prefix = NULL;
        size_t n;
        int r;

        if (!host)
                return tb_error_oom(err);
        if (args[0][strlen(host)] == '/') {
                prefix = strdup(args[0] + strlen(host) + 1);
                if (!prefix)
                        return tb_error_oom(err);
                for (n = strlen(prefix); n > 0 && prefix[n - 1] == '/'; n--)
                        prefix[n - 1] = 0;
        }
        r = registry_list_repositories(t->client, host, &names, err);
        if (r < 0) {
                t->usage = !tool_is_host(host);
                return r;
        }
        if (prefix && *prefix)
                filter(names, prefix);
        return print_names(t, "host", host, "repositories", names, err);
}

int tool_tags(Tool *t, char **args, TbError **err)
{
        _cleanup_(registry_names_freep) char **names = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *name = NULL;
        int r;

        if ((r = tool_parse_ref(t, args[0], &ref, err)) < 0 ||
                (r = registry_list_tags(t->client, ref, &names, err)) < 0)
                return r;
        name = registry_ref_name(ref);
        if (!name)
                return tb_error_oom(err);
        return print_names(t, "repository", name, "tags", names, err);
}

/* ---- referrers ---- */

static int print_referrers(
        const Tool *t, const RegistryRef *ref, const RegistryReferrers *list, TbError **err)
{
        _cleanup_free_ char *name = registry_ref_to_string(ref);
        json_t *j, *entries;

        if (!name)
                return tb_error_oom(err);
        if (!t->json) {
                for (size_t i = 0; i < list->n_entries; i++) {
                        const RegistryDescriptor *d = list->entries + i;
                        char size[TB_UNIT_TEXT_MAX];
                        _cleanup_free_ char *type =
                                tb_escape_control(d->artifact_type ? d->artifact_type : d->media_type, 100);

                        printf("%s  %10s  %s\n", d->digest.text, tb_format_bytes(size, d->size),
                                type ? type : "?");
                }
                return 0;
        }
        entries = tool_descriptors_to_json(list->entries, list->n_entries);
        for (size_t i = 0; i < list->n_entries && entries; i++) {
                json_t *e = json_array_get(entries, i);

                if (list->entries[i].artifact_type)
                        (void) json_object_set_new(
                                e, "artifactType", json_string(list->entries[i].artifact_type));
                if (list->entries[i].annotations)
                        (void) json_object_set(e, "annotations", list->entries[i].annotations);
        }
        j = json_pack("{s:s, s:s, s:s, s:o}", "name", name, "digest", ref->digest.text, "source",
                list->by_tag ? "tag" : "api", "referrers", entries);
        return tool_print_json_new(j, err);
}

int tool_referrers(Tool *t, char **args, TbError **err)
{
        _cleanup_registry_referrers_ RegistryReferrers list = {0};
        _cleanup_registry_descriptor_ RegistryDescriptor d = {0};
        _cleanup_(registry_ref_freep) RegistryRef *named = NULL, *ref = NULL;
        int r;

        r = tool_parse_ref(t, args[0], &named, err);
        if (r < 0)
                return r;
        if (!tb_digest_is_set(&named->digest)) {
                _cleanup_free_ char *name = registry_ref_to_string(named);

                r = registry_resolve(t->client, named, &d, err);
                if (r == 0)
                        return tb_error_set(err, TB_ERROR_REMOTE, -ENOENT, "%s: there is no such image",
                                name ? name : args[0]);
                if (r < 0)
                        return r;
        }
        r = registry_ref_with(
                named, named->tag, tb_digest_is_set(&named->digest) ? &named->digest : &d.digest, &ref, err);
        if (r < 0 || (r = registry_list_referrers(t->client, ref, t->artifact_type, &list, err)) < 0)
                return r;
        return print_referrers(t, ref, &list, err);
}

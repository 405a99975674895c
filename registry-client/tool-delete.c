/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* delete: a manifest with all its tags, or one tag. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/tool.h"

typedef struct Doomed {
        RegistryRef *ref;
        char *name;
        RegistryDescriptor manifest;
        char **tags; /* that go with it; only with --dry-run: finding them takes a request for each tag */
} Doomed;

static void doomed_done(Doomed *d)
{
        registry_ref_free(d->ref);
        free(d->name);
        registry_descriptor_done(&d->manifest);
        tb_strv_free(d->tags);
}

static int find_tags(Tool *t, Doomed *d, TbError **err)
{
        _cleanup_(registry_names_freep) char **all = NULL;
        int r;

        r = registry_list_tags(t->client, d->ref, &all, err);
        if (r < 0)
                return r;
        for (size_t i = 0; all[i]; i++) {
                _cleanup_registry_descriptor_ RegistryDescriptor named = {0};
                _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;

                r = registry_ref_with(d->ref, all[i], NULL, &ref, err);
                if (r >= 0)
                        r = registry_resolve(t->client, ref, &named, err);
                if (r > 0 && tb_digest_equal(&named.digest, &d->manifest.digest))
                        r = tb_strv_append(&d->tags, all[i], err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int print_doomed(Tool *t, const Doomed *d, TbError **err)
{
        _cleanup_free_ char *tags = NULL;
        json_t *j;

        if (t->json) {
                j = json_pack("{s:s, s:s}", t->dry_run ? "would_delete" : "deleted", d->name, "digest",
                        d->manifest.digest.text);
                if (j && t->dry_run && !t->tag_only)
                        (void) json_object_set_new(
                                j, "tags", d->tags ? tb_json_from_strv(d->tags) : json_array());
                return tool_print_json_new(j, err);
        }
        if (t->dry_run && !t->tag_only) {
                tags = d->tags ? tb_strv_join(d->tags, " ") : NULL;
                printf("would delete %s (%s) with tags: %s\n", d->name, d->manifest.digest.text,
                        tags ? tags : "none");
        } else
                printf("%s%s %s(%s)\n", t->dry_run ? "would delete " : "", d->name,
                        t->dry_run ? "" : "deleted ", d->manifest.digest.text);
        return 0;
}

int tool_delete(Tool *t, char **args, TbError **err)
{
        _cleanup_(doomed_done) Doomed d = {0};
        _cleanup_(registry_ref_freep) RegistryRef *pinned = NULL;
        int r;

        r = tool_parse_ref(t, args[0], &d.ref, err);
        if (r < 0)
                return r;
        if (t->tag_only && (tb_digest_is_set(&d.ref->digest) || !d.ref->tag))
                return tool_usage(t, err, "delete: --tag-only needs a tag, and no digest");
        d.name = registry_ref_to_string(d.ref);
        if (!d.name)
                return tb_error_oom(err);
        r = registry_resolve(t->client, d.ref, &d.manifest, err);
        if (r == 0)
                return tb_error_set(err, TB_ERROR_REMOTE, -ENOENT,
                        "%s: cannot delete: there is no such image; \"tags\" lists what is there", d.name);
        if (r < 0)
                return r;
        if (t->dry_run)
                r = t->tag_only ? 0 : find_tags(t, &d, err);
        else if (t->tag_only)
                r = registry_delete_tag(t->client, d.ref, err);
        else {
                /* What was looked at is what goes, also when the tag moves meanwhile. */
                r = registry_ref_with(d.ref, NULL, &d.manifest.digest, &pinned, err);
                if (r >= 0)
                        r = registry_delete_manifest(t->client, pinned, err);
        }
        return r < 0 ? r : print_doomed(t, &d, err);
}

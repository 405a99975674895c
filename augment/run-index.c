/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/build-native.h"
#include "augment/run-internal.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

/*
 * An index as a whole: one platform after the other, each as a request for it alone would do it, under the key that such a
 * request has; then the index, under its own. So a node on one of the hosts, whose request names a platform, finds its
 * image made, and what was made before for one platform is mounted, not made again.
 *
 * The mirror keeps the source's index without what nobody asked for: a registry refuses an index whose images it hasn't.
 */

/* What the mirror keeps of it, else the source. */
static int read_any(Run *run, RegistryManifest **ret, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *mirror = NULL;
        _cleanup_error_ TbError *e = NULL;
        int r;

        if (!run->names.base_is_local) {
                r = run_mirror_ref(run, run->platforms.key, &mirror, err);
                if (r < 0)
                        return r;
                r = registry_get_manifest(run->client, mirror, ret, &e);
                if (r >= 0)
                        return r;
                if (r != -ENOENT) {
                        tb_error_prefix(&e, "cannot read the mirror");
                        return tb_error_move(err, &e);
                }
        }
        return registry_get_manifest(run->client, run->pinned, ret, err);
}

int run_index_read(Run *run, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        int r;

        if (run->kind == AUGMENT_SOURCE_IMAGE)
                return 0;
        r = read_any(run, &m, err);
        if (r < 0)
                return r;
        if (registry_manifest_is_index(m)) {
                run->kind = AUGMENT_SOURCE_INDEX;
                run->index = TAKE_PTR(m);
        } else {
                run->kind = AUGMENT_SOURCE_IMAGE;
        }
        return 0;
}

/* { platform, digest, base, as_is, facts } */
static int add_platform(Run *run, const Run *one, TbError **err)
{
        json_t *j = json_object();
        int r;

        if (!j || json_array_append_new(run->result.platforms, j) < 0)
                return tb_error_oom(err);
        if ((r = tb_json_set_string(j, "platform", one->request->platform, err)) < 0 ||
                (r = tb_json_set_string(j, "digest", one->result.digest.text, err)) < 0 ||
                (r = tb_json_set_string(j, "base", one->result.base_digest.text, err)) < 0 ||
                (r = tb_json_set_bool(j, "as_is", one->result.as_is, err)) < 0)
                return r;
        return one->result.facts ? tb_json_set_new(j, "facts", json_incref(one->result.facts), err) : 0;
}

static void add_costs(AugmentResult *all, const AugmentResult *one)
{
        all->timings.facts += one->timings.facts;
        all->timings.mirror += one->timings.mirror;
        all->timings.build += one->timings.build;
        all->timings.push += one->timings.push;
        all->bytes.downloaded += one->bytes.downloaded;
        all->bytes.uploaded += one->bytes.uploaded;
        all->bytes.mounted += one->bytes.mounted;
}

/* What one platform's run owns; the rest is its parent's. */
static void one_done(Run *one)
{
        run_platform_done(one);
        registry_platform_done(&one->platform);
        augment_result_done(&one->result);
}

static int one_prepare(Run *one, TbError **err)
{
        char key_tag[AUGMENT_KEY_TAG_MAX];
        int r;

        r = registry_platform_parse(one->request->platform, &one->platform, err);
        if (r < 0)
                return r;
        if (one->request->level != AUGMENT_LEVEL_NONE) {
                r = payload_digest(one->payload, one->request->level, &one->result.payload_digest, err);
                if (r < 0)
                        return r;
        }
        r = augment_cache_key_tag(
                &one->result.source_digest, one->request, &one->result.payload_digest, key_tag, err);
        if (r < 0)
                return r;
        one->result.key_tag = strdup(key_tag);
        return one->result.key_tag ? 0 : tb_error_oom(err);
}

static int run_entry(Run *run, size_t i, NativeIndexEntry *entry, TbError **err)
{
        const RegistryDescriptor *d = &run->index->entries[i];
        const RegistryPlatform *meant = d->platform.os ? &d->platform : &run->platform;
        _cleanup_free_ char *platform = registry_platform_to_string(meant);
        AugmentRequest request = *run->request; /* borrowed */
        _cleanup_(one_done) Run one = {
                .request = &request,
                .op = run->op,
                .hooks = run->hooks,
                .client = run->client,
                .source = run->source,
                .pinned = run->pinned,
                .kind = run->kind,
                .child = &d->digest,
                .names = run->names, /* borrowed */
                .payload = run->request->level == AUGMENT_LEVEL_NONE
                        ? NULL
                        : augment_platforms_find(&run->platforms, meant->architecture),
                .result.source_digest = run->result.source_digest,
        };
        int r;

        if (!platform)
                return tb_error_oom(err);
        request.platform = platform;
        request.all_platforms = false;
        one.names.mirror_tag = NULL; /* those are the index's */
        one.names.target_tag = NULL;
        r = one_prepare(&one, err);
        if (r >= 0)
                r = run_platform(&one, err);
        if (r >= 0)
                r = add_platform(run, &one, err);
        if (r < 0) {
                tb_error_prefix(err, "%s", platform);
                return r;
        }
        add_costs(&run->result, &one.result);
        run->result.as_is &= one.result.as_is;
        *entry = (NativeIndexEntry){.kept = true, .digest = one.result.digest, .size = one.pushed_size};
        return 0;
}

/* The source's index as far as it is mirrored: what it is known by there, and what its tag names. */
static int mirror_index(Run *run, NativeIndexEntry *entries, TbError **err)
{
        const char *media_type = registry_manifest_kind_to_media_type(run->index->kind);
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *text = NULL;
        TbDigest digest;
        size_t size;
        int r;

        if (run->names.base_is_local)
                return 0;
        if ((r = native_make_index(run->index, entries, NULL, &text, &size, err)) < 0 ||
                (r = run_mirror_ref(run, run->platforms.key, &ref, err)) < 0 ||
                (r = registry_put_manifest(run->client, ref, media_type, text, size, &digest, err)) < 0)
                return r;
        run->result.bytes.uploaded += size;
        r = run_follow_tag(run, media_type, text, size, &digest, err);
        if (r >= 0 && run->names.mirror_tag)
                r = run_note(run, err);
        return r < 0 ? r : augment_pending_wait(&run->pending, err);
}

/* name, value, ...: what the images say about themselves in labels, said of all of them. */
static int make_annotations(const Run *run, char ***ret, TbError **err)
{
        const char *const pairs[] = {
                AUGMENT_LABEL_BASE_NAME,
                run->result.source_name,
                AUGMENT_LABEL_BASE_DIGEST,
                run->result.source_digest.text,
                AUGMENT_LABEL_VERSION,
                TBNODE_VERSION,
                AUGMENT_LABEL_LEVEL,
                augment_level_to_string(run->request->level),
                AUGMENT_LABEL_PAYLOAD,
                run->result.payload_digest.text,
        };
        _cleanup_strv_ char **list = NULL;

        for (size_t i = 0; i < ELEMENTSOF(pairs); i++) {
                int r = tb_strv_append(&list, pairs[i], err);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(list);
        return 0;
}

static int push_index(Run *run, const NativeIndexEntry *entries, TbError **err)
{
        const char *media_type = registry_manifest_kind_to_media_type(run->index->kind);
        const char *tags[] = {run->result.key_tag, run->names.target_tag};
        _cleanup_strv_ char **annotations = NULL;
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        if (!run->result.as_is && (r = make_annotations(run, &annotations, err)) < 0)
                return r;
        r = native_make_index(run->index, entries, annotations, &text, &size, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < ELEMENTSOF(tags); i++) {
                _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;

                if (!tags[i])
                        continue;
                if ((r = registry_ref_new(run->names.registry_host, run->names.target_repository, tags[i],
                             NULL, &ref, err)) < 0 ||
                        (r = registry_put_manifest(
                                 run->client, ref, media_type, text, size, &run->result.digest, err)) < 0)
                        return r;
                run->result.bytes.uploaded += size;
        }
        return 0;
}

int run_index(Run *run, TbError **err)
{
        _cleanup_free_ NativeIndexEntry *made = NULL, *kept = NULL;
        _cleanup_free_ bool *chosen = NULL;
        size_t n = run->index->n_entries, n_chosen;
        uint64_t started;
        int r;

        run->result.index = true;
        free(run->result.platform);
        run->result.platform = NULL;
        run->result.payload_digest = run->platforms.digest;
        run->result.as_is = true;
        run->result.platforms = json_array();
        made = calloc(n + 1, sizeof(*made));
        kept = calloc(n + 1, sizeof(*kept));
        chosen = calloc(n + 1, sizeof(*chosen));
        if (!run->result.platforms || !made || !kept || !chosen)
                return tb_error_oom(err);
        r = augment_platforms_choose(&run->platforms, run->index, chosen, &n_chosen, err);
        if (r < 0)
                return r;
        /* Level none of an index that lies in the testbed's registry is that index. */
        if (run->names.base_is_local && run->request->level == AUGMENT_LEVEL_NONE) {
                run->result.digest = run->index->digest;
                return 0;
        }
        for (size_t i = 0; i < n; i++) {
                const RegistryDescriptor *d = &run->index->entries[i];

                if (!chosen[i])
                        continue;
                r = run_entry(run, i, &made[i], err);
                if (r < 0)
                        return r;
                kept[i] = (NativeIndexEntry){.kept = true, .digest = d->digest, .size = d->size};
        }
        started = tb_now_us();
        if ((r = mirror_index(run, kept, err)) < 0)
                return r;
        run->result.timings.mirror += tb_now_us() - started;
        started = tb_now_us();
        run_stage(run, "push");
        r = push_index(run, made, err);
        run->result.timings.push += tb_now_us() - started;
        return r;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/lookup-internal.h"
#include "common/cleanup.h"
#include "common/strv.h"

/* An image alone: for this machine. */
static int lookup_image(AugmentLookup *l, TbError **err)
{
        if (l->request.level != AUGMENT_LEVEL_NONE) {
                l->result.payload_version = strdup(l->payload->version);
                if (!l->result.payload_version)
                        return tb_error_oom(err);
        }
        l->result.platform = strdup(l->request.platform);
        if (!l->result.platform)
                return tb_error_oom(err);
        return l->request.level == AUGMENT_LEVEL_NONE
                ? 0
                : payload_digest(l->payload, l->request.level, &l->result.payload_digest, err);
}

/* The tag that says so is the one that was found: of a digest that may have been an index as well. */
static int lookup_is_image(AugmentLookup *l, TbError **err)
{
        l->kind = AUGMENT_SOURCE_IMAGE;
        l->result.digest = l->other_digest;
        l->result.index = false;
        free(l->result.payload_version);
        l->result.payload_version = NULL;
        free(l->result.key_tag);
        free(l->result.image);
        l->result.key_tag = strdup(l->other->tag);
        l->result.image = registry_ref_to_string(l->other);
        if (!l->result.key_tag || !l->result.image)
                return tb_error_oom(err);
        return lookup_image(l, err);
}

static void on_mirror(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentLookup *l = userdata;
        _cleanup_error_ TbError *error = NULL;

        if (result < 0)
                lookup_fail(l, err);
        else if (result > 0)
                lookup_finish(l, NULL);
        else {
                l->manifest_op = registry_op_free(l->manifest_op);
                if (lookup_start_resolve(l, &error) < 0)
                        lookup_finish(l, TAKE_PTR(error));
        }
}

static int lookup_start_mirror(AugmentLookup *l, TbError **err)
{
        _cleanup_free_ char *tag = augment_mirror_digest_tag(&l->source->digest, l->request.platform);
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        if (!tag)
                return tb_error_oom(err);
        lookup_set_state(l, LOOKUP_MIRROR);
        r = registry_ref_new(l->names.registry_host, l->names.mirror_repository, tag, NULL, &ref, err);
        return r < 0 ? r : registry_resolve_start(l->client, ref, on_mirror, l, &l->manifest_op, err);
}

/* Both tags are known. */
static int lookup_decide(AugmentLookup *l, TbError **err)
{
        int r;

        if (!l->key_found && l->other_found) {
                r = lookup_is_image(l, err);
                if (r < 0)
                        return r;
                lookup_finish_hit(l);
                return 0;
        }
        if (!l->key_found && l->by_digest && l->anonymous && !l->names.base_is_local)
                return lookup_start_mirror(l, err);
        if (!l->key_found) {
                lookup_finish(l, NULL);
                return 0;
        }
        l->result.digest = l->key_digest;
        if (!l->moving || tb_digest_equal(&l->key_digest, &l->moving_digest)) {
                lookup_finish_hit(l);
                return 0;
        }
        return lookup_start_retag(l, err);
}

static void lookup_tag_answered(AugmentLookup *l)
{
        _cleanup_error_ TbError *error = NULL;

        if (l->key_op || l->moving_op || l->other_op)
                return;
        if (lookup_decide(l, &error) < 0)
                lookup_finish(l, TAKE_PTR(error));
}

static void on_key(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentLookup *l = userdata;

        if (result < 0) {
                lookup_fail(l, err);
                return;
        }
        if (result > 0) {
                l->key_found = true;
                l->key_digest = registry_op_descriptor(op)->digest;
        }
        l->key_op = registry_op_free(l->key_op);
        lookup_tag_answered(l);
}

static void on_moving(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentLookup *l = userdata;

        if (result < 0) {
                lookup_fail(l, err);
                return;
        }
        if (result > 0)
                l->moving_digest = registry_op_descriptor(op)->digest;
        l->moving_op = registry_op_free(l->moving_op);
        lookup_tag_answered(l);
}

static void on_other(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentLookup *l = userdata;

        if (result < 0) {
                lookup_fail(l, err);
                return;
        }
        if (result > 0) {
                l->other_found = true;
                l->other_digest = registry_op_descriptor(op)->digest;
        }
        l->other_op = registry_op_free(l->other_op);
        lookup_tag_answered(l);
}

/* The key tag of what is looked for: an index as a whole, or one image. */
static int lookup_key_tag(AugmentLookup *l, bool whole, char ret[static AUGMENT_KEY_TAG_MAX], TbError **err)
{
        TbDigest payload = {};
        int r;

        if (whole)
                return augment_platforms_key_tag(
                        &l->platforms, &l->result.source_digest, &l->request, ret, err);
        if (l->payload) {
                r = payload_digest(l->payload, l->request.level, &payload, err);
                if (r < 0)
                        return r;
        }
        return augment_cache_key_tag(&l->result.source_digest, &l->request, &payload, ret, err);
}

static int lookup_start_other(AugmentLookup *l, TbError **err)
{
        char tag[AUGMENT_KEY_TAG_MAX];
        int r;

        if ((r = lookup_key_tag(l, false, tag, err)) < 0 ||
                (r = registry_ref_new(
                         l->names.registry_host, l->names.target_repository, tag, NULL, &l->other, err)) < 0)
                return r;
        return registry_resolve_start(l->client, l->other, on_other, l, &l->other_op, err);
}

/* What the result says about an index, or an image. */
static int lookup_describe(AugmentLookup *l, bool whole, TbError **err)
{
        const Payload *first;

        if (!whole)
                return lookup_image(l, err);
        l->result.index = true;
        if (l->request.level == AUGMENT_LEVEL_NONE)
                return 0;
        first = l->platforms.payloads[0];
        l->result.payload_digest = l->platforms.digest;
        l->result.payload_version = strdup(first->version);
        return l->result.payload_version ? 0 : tb_error_oom(err);
}

/* What was asked for before the name was resolved. */
static void lookup_forget_tags(AugmentLookup *l)
{
        l->key = registry_ref_free(l->key);
        l->moving = registry_ref_free(l->moving);
        l->other = registry_ref_free(l->other);
        free(l->result.key_tag);
        free(l->result.image);
        free(l->result.platform);
        free(l->result.payload_version);
        l->result.key_tag = l->result.image = l->result.platform = l->result.payload_version = NULL;
        l->result.payload_digest = (TbDigest){};
        l->result.index = false;
}

static int lookup_ask_tags(AugmentLookup *l, TbError **err)
{
        int r = registry_resolve_start(l->client, l->key, on_key, l, &l->key_op, err);

        if (r >= 0 && l->ask_other)
                r = lookup_start_other(l, err);
        if (r < 0 || !l->moving)
                return r;
        return registry_resolve_start(l->client, l->moving, on_moving, l, &l->moving_op, err);
}

/* The name is what it was, and the tag that was asked for is the one. */
static bool lookup_early_fits(const AugmentLookup *l)
{
        return l->early && l->moving && tb_digest_equal(&l->before.source, &l->result.source_digest) &&
                tb_streq(l->before.key_tag, l->result.key_tag) && tb_streq(l->early->tag, l->moving->tag) &&
                tb_streq(l->early->repository, l->moving->repository);
}

static int lookup_early_decide(AugmentLookup *l, TbError **err)
{
        if (!tb_digest_equal(&l->early_digest, &l->before.digest))
                return lookup_ask_tags(l, err);
        l->result.digest = l->early_digest;
        lookup_finish_hit(l);
        return 0;
}

static void on_early(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentLookup *l = userdata;
        _cleanup_error_ TbError *error = NULL;

        if (result > 0)
                l->early_digest = registry_op_descriptor(op)->digest;
        l->early_op = registry_op_free(l->early_op);
        if (l->early_counts && lookup_early_decide(l, &error) < 0)
                lookup_finish(l, TAKE_PTR(error));
}

/* Without it the lookup takes longer, that is all. */
void lookup_start_early(AugmentLookup *l)
{
        _cleanup_augment_names_ AugmentNames names = {};

        if (!augment_known_hit(l->known, &l->request, &l->before) ||
                augment_names_make(&l->request, l->source, &names, NULL) < 0 ||
                (l->before.kind == AUGMENT_SOURCE_INDEX && !l->request.all_platforms &&
                        augment_names_of_platform(&names, l->request.platform, NULL) < 0) ||
                !names.target_tag ||
                registry_ref_new(names.registry_host, names.target_repository, names.target_tag, NULL,
                        &l->early, NULL) < 0)
                return;
        if (registry_resolve_start(l->client, l->early, on_early, l, &l->early_op, NULL) < 0)
                l->early = registry_ref_free(l->early);
}

/* source_digest is known: makes the names that depend on it and asks for them. */
int lookup_start_tags(AugmentLookup *l, TbError **err)
{
        const char *host = l->names.registry_host, *repository = l->names.target_repository;
        bool whole = l->request.all_platforms && l->kind != AUGMENT_SOURCE_IMAGE;
        char key_tag[AUGMENT_KEY_TAG_MAX];
        int r;

        lookup_set_state(l, LOOKUP_TAGS);
        lookup_forget_tags(l);
        if (whole && !l->platforms.key) {
                r = augment_platforms_load(&l->request, &l->platforms, err);
                if (r < 0)
                        return r;
        }
        if (l->kind == AUGMENT_SOURCE_INDEX && !whole) {
                r = augment_names_of_platform(&l->names, l->request.platform, err);
                if (r < 0)
                        return r;
        }
        if ((r = lookup_describe(l, whole, err)) < 0 || (r = lookup_key_tag(l, whole, key_tag, err)) < 0)
                return r;
        l->result.key_tag = strdup(key_tag);
        if (!l->result.key_tag)
                return tb_error_oom(err);
        if ((r = registry_ref_new(host, repository, key_tag, NULL, &l->key, err)) < 0 ||
                (l->names.target_tag &&
                        (r = registry_ref_new(
                                 host, repository, l->names.target_tag, NULL, &l->moving, err)) < 0))
                return r;
        l->result.image = registry_ref_to_string(l->moving ? l->moving : l->key);
        if (!l->result.image)
                return tb_error_oom(err);
        l->ask_other = whole && l->kind == AUGMENT_SOURCE_UNKNOWN;
        if (!lookup_early_fits(l))
                return lookup_ask_tags(l, err);
        l->early_counts = true;
        return l->early_op ? 0 : lookup_early_decide(l, err);
}

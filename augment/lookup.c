/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/cache.h"
#include "augment/platforms.h"
#include "augment/record.h"
#include "augment/resolve.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

/*
 * The lookup is a chain of a few exchanges:
 *
 *         RESOLVE   what the name is now (augment/resolve.h)
 *         TAGS      HEAD key tag  |  HEAD moving tag   at the same time
 *         RETAG     GET key tag, PUT moving tag        only when the moving tag names something else; what the name is
 *                                                      is noted beside the mirror then, too
 *         DONE
 *
 * A name with a digest that is asked for outside of projects begins with TAGS; after a miss it goes on with
 *
 *         MIRROR    HEAD the mirror's tag of the digest -> there: everybody may have it; DONE
 *                                                       -> not: RESOLVE, TAGS
 *
 * A name whose kind isn't known (a digest, where nothing is resolved) may be an index or an image; then the key tags of
 * both are asked for, and there is no moving tag.
 *
 * Each callback drops its own operation, notes what it learned and calls lookup_step(), which starts what comes next
 * or ends the lookup. The end is announced from callbacks only, never from augment_lookup_start().
 */

typedef enum LookupState {
        LOOKUP_RESOLVE, /* asking the source */
        LOOKUP_TAGS,    /* asking for key tag and moving tag; ends when both answers are here */
        LOOKUP_MIRROR,  /* is the base mirrored outside of projects? */
        LOOKUP_RETAG,   /* reading by the key tag, then writing the moving tag */
        LOOKUP_DONE,    /* the callback was called, or must not be any more */
} LookupState;

struct AugmentLookup {
        RegistryClient *client, *anonymous;
        AugmentRequest request;
        RegistryRef *source;
        RegistryRef *key, *moving; /* moving is NULL when there is no such name */
        RegistryRef *other;        /* the key tag for an image alone, when `key` is that of an index */
        AugmentSourceKind kind;
        Payload *payload;           /* NULL for level none */
        AugmentPlatforms platforms; /* of the request for all; else empty */
        AugmentNames names;
        AugmentResult result;
        LookupState state;
        uint64_t started_us;
        BaseResolve *resolve;
        RegistryOp *key_op, *moving_op, *other_op, *manifest_op;
        char *record;   /* is being written */
        bool by_digest; /* not resolved: the digest is the name's own */
        bool key_found, other_found;
        TbDigest key_digest, moving_digest, other_digest;
        bool hit;
        AugmentLookupFn done;
        void *userdata;
};

static void lookup_set_state(AugmentLookup *l, LookupState state)
{
        l->state = state;
}

static void lookup_cancel_ops(AugmentLookup *l)
{
        l->resolve = base_resolve_free(l->resolve);
        l->key_op = registry_op_free(l->key_op);
        l->moving_op = registry_op_free(l->moving_op);
        l->other_op = registry_op_free(l->other_op);
        l->manifest_op = registry_op_free(l->manifest_op);
}

/* Ends the lookup; nothing of it may be touched afterwards. Takes the error. */
static void lookup_finish(AugmentLookup *l, TbError *error)
{
        _cleanup_error_ TbError *e = error;

        lookup_cancel_ops(l);
        lookup_set_state(l, LOOKUP_DONE);
        l->result.timings.total = tb_now_us() - l->started_us;
        l->result.cache_hit = l->hit;
        if (e)
                tb_error_prefix(&e, "cannot look up image %s", l->result.source_name);
        l->done(l, e, l->userdata);
}

static void lookup_finish_hit(AugmentLookup *l)
{
        l->hit = true;
        lookup_finish(l, NULL);
}

static void lookup_fail(AugmentLookup *l, const TbError *error)
{
        TbError *copy = tb_error_copy(error);

        lookup_finish(l, copy);
}

static void on_record_written(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        lookup_finish_hit(userdata); /* a note that is missing costs a question later */
}

/* The tag has moved to what is there already: what is noted beside the mirror is out of date. */
static int lookup_note(AugmentLookup *l, TbError **err)
{
        const BaseRecord record = {
                .digest = l->result.source_digest,
                .kind = l->kind,
                .private = l->result.private,
        };
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        size_t size;
        int r;

        if ((r = base_record_ref(&l->names, l->source, &ref, err)) < 0 ||
                (r = base_record_render(l->source, &record, &l->record, &size, err)) < 0)
                return r;
        return registry_put_manifest_start(l->client, ref, REGISTRY_TYPE_OCI_MANIFEST, l->record, size,
                on_record_written, l, &l->manifest_op, err);
}

static void on_moving_written(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentLookup *l = userdata;
        _cleanup_error_ TbError *error = NULL;

        if (result < 0) {
                lookup_fail(l, err);
                return;
        }
        l->manifest_op = registry_op_free(l->manifest_op);
        if (l->names.base_is_local || l->result.from != AUGMENT_FROM_REGISTRY || !l->source->tag ||
                lookup_note(l, &error) < 0)
                lookup_finish_hit(l);
}

static void on_key_manifest(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentLookup *l = userdata;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_error_ TbError *error = NULL;

        if (result < 0) {
                lookup_fail(l, err);
                return;
        }
        m = registry_op_steal_manifest(op);
        l->manifest_op = registry_op_free(l->manifest_op);
        if (registry_put_manifest_start(l->client, l->moving, registry_manifest_kind_to_media_type(m->kind),
                    m->data, m->size, on_moving_written, l, &l->manifest_op, &error) < 0)
                lookup_finish(l, TAKE_PTR(error));
}

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

static int lookup_start_resolve(AugmentLookup *l, TbError **err);

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
        lookup_set_state(l, LOOKUP_RETAG);
        return registry_get_manifest_start(l->client, l->key, on_key_manifest, l, &l->manifest_op, err);
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

/* source_digest is known: makes the names that depend on it and asks for them. */
static int lookup_start_tags(AugmentLookup *l, TbError **err)
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
        r = registry_resolve_start(l->client, l->key, on_key, l, &l->key_op, err);
        if (r >= 0 && whole && l->kind == AUGMENT_SOURCE_UNKNOWN)
                r = lookup_start_other(l, err);
        if (r < 0 || !l->moving)
                return r;
        return registry_resolve_start(l->client, l->moving, on_moving, l, &l->moving_op, err);
}

/* Not everybody may have the base, so it must not lie where everybody finds it. */
static int lookup_move_to_project(AugmentLookup *l, TbError **err)
{
        if (!l->request.private_project)
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "the image is private; name the project that may have it, with --project");
        l->request.project = strdup(l->request.private_project);
        l->result.project = strdup(l->request.private_project);
        if (!l->request.project || !l->result.project)
                return tb_error_oom(err);
        augment_names_done(&l->names);
        return augment_names_make(&l->request, l->source, &l->names, err);
}

static int lookup_take_answer(AugmentLookup *l, const BaseAnswer *answer, TbError **err)
{
        int r;

        l->result.source_digest = answer->digest;
        l->result.from = answer->from;
        l->result.private = answer->private;
        l->kind = answer->kind;
        if (answer->notice[0] && !(l->result.notice = strdup(answer->notice)))
                return tb_error_oom(err);
        if (answer->private && !l->request.project) {
                r = lookup_move_to_project(l, err);
                if (r < 0)
                        return r;
        }
        /* Level none of an image that lies in the testbed's registry is that image. */
        if (l->names.base_is_local && l->request.level == AUGMENT_LEVEL_NONE) {
                l->result.digest = l->result.source_digest;
                l->result.as_is = true;
                l->result.index = l->kind == AUGMENT_SOURCE_INDEX;
                l->result.image = strdup(l->result.source_name);
                if (!l->result.image)
                        return tb_error_oom(err);
                lookup_finish_hit(l);
                return 0;
        }
        return lookup_start_tags(l, err);
}

static void on_resolved(BaseResolve *b, const BaseAnswer *answer, const TbError *err, void *userdata)
{
        AugmentLookup *l = userdata;
        _cleanup_error_ TbError *error = NULL;

        l->result.timings.resolve = tb_now_us() - l->started_us;
        if (err) {
                lookup_fail(l, err);
                return;
        }
        if (lookup_take_answer(l, answer, &error) < 0)
                lookup_finish(l, TAKE_PTR(error));
}

static int lookup_start_resolve(AugmentLookup *l, TbError **err)
{
        lookup_set_state(l, LOOKUP_RESOLVE);
        l->by_digest = false;
        return base_resolve_start(l->client, l->anonymous, &l->request, l->source, &l->names, on_resolved, l,
                &l->resolve, err);
}

static int lookup_copy_request(AugmentLookup *l, const AugmentRequest *request, TbError **err)
{
        AugmentRequest *copy = &l->request;

        copy->level = request->level;
        copy->builder = request->builder;
        copy->update = request->update;
        copy->all_platforms = request->all_platforms;
        copy->resolved = request->resolved;
        copy->policy = request->policy;
        copy->private = request->private;
        if ((request->image && !(copy->image = strdup(request->image))) ||
                (request->platform && !(copy->platform = strdup(request->platform))) ||
                (request->project && !(copy->project = strdup(request->project))) ||
                (request->private_project && !(copy->private_project = strdup(request->private_project))) ||
                (request->registry && !(copy->registry = strdup(request->registry))) ||
                (request->payload_dir && !(copy->payload_dir = strdup(request->payload_dir))))
                return tb_error_oom(err);
        return augment_request_check(copy, err);
}

static int lookup_load_payload(AugmentLookup *l, TbError **err)
{
        _cleanup_registry_platform_ RegistryPlatform platform = {};
        int r;

        if (l->request.level == AUGMENT_LEVEL_NONE)
                return 0;
        r = registry_platform_parse(l->request.platform, &platform, err);
        return r < 0 ? r : payload_load(l->request.payload_dir, platform.architecture, &l->payload, err);
}

static int lookup_prepare(AugmentLookup *l, const AugmentRequest *request, TbError **err)
{
        int r;

        if ((r = lookup_copy_request(l, request, err)) < 0 ||
                (r = registry_ref_parse(l->request.image, &l->source, err)) < 0 ||
                (r = augment_names_make(&l->request, l->source, &l->names, err)) < 0 ||
                (r = lookup_load_payload(l, err)) < 0)
                return r;
        l->result.level = l->request.level;
        l->result.builder = l->request.builder;
        l->result.source_name = registry_ref_to_string(l->source);
        if (l->request.project && !(l->result.project = strdup(l->request.project)))
                return tb_error_oom(err);
        return l->result.source_name ? 0 : tb_error_oom(err);
}

/* The digest is the name, and nobody need be asked: what lies outside of projects is everybody's. */
static bool lookup_starts_with_tags(const AugmentLookup *l)
{
        if (!tb_digest_is_set(&l->source->digest))
                return false;
        if (l->names.base_is_local)
                return l->request.level != AUGMENT_LEVEL_NONE;
        return !l->anonymous || !l->request.project;
}

int augment_lookup_start(RegistryClient *client, RegistryClient *anonymous, const AugmentRequest *request,
        AugmentLookupFn done, void *userdata, AugmentLookup **ret, TbError **err)
{
        _cleanup_(augment_lookup_freep) AugmentLookup *l = NULL;
        int r;

        l = calloc(1, sizeof(*l));
        if (!l)
                return tb_error_oom(err);
        l->client = client;
        l->anonymous = anonymous;
        l->done = done;
        l->userdata = userdata;
        l->started_us = tb_now_us();
        r = lookup_prepare(l, request, err);
        if (r < 0)
                return r;
        if (lookup_starts_with_tags(l)) {
                l->by_digest = true;
                l->result.source_digest = l->source->digest;
                l->result.from = AUGMENT_FROM_DIGEST;
                r = lookup_start_tags(l, err);
        } else
                r = lookup_start_resolve(l, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(l);
        return 0;
}

AugmentLookup *augment_lookup_free(AugmentLookup *l)
{
        if (!l)
                return NULL;
        lookup_cancel_ops(l);
        registry_ref_free(l->source);
        registry_ref_free(l->key);
        registry_ref_free(l->moving);
        registry_ref_free(l->other);
        payload_free(l->payload);
        augment_platforms_done(&l->platforms);
        augment_request_done(&l->request);
        augment_names_done(&l->names);
        augment_result_done(&l->result);
        free(l->record);
        free(l);
        return NULL;
}

bool augment_lookup_is_hit(const AugmentLookup *l)
{
        return l->hit;
}

const AugmentResult *augment_lookup_result(const AugmentLookup *l)
{
        return &l->result;
}

static int replace(char **field, const char *value, TbError **err)
{
        char *copy = value ? strdup(value) : NULL;

        if (value && !copy)
                return tb_error_oom(err);
        free(*field);
        *field = copy;
        return 0;
}

int augment_lookup_resolve(const AugmentLookup *l, AugmentRequest *request, TbError **err)
{
        const AugmentResult *found = &l->result;
        int r;

        if ((r = replace(&request->project, found->project, err)) < 0 ||
                (r = replace(&request->notice, found->notice, err)) < 0)
                return r;
        request->resolved = found->source_digest;
        request->kind = l->kind;
        request->from = found->from;
        request->private = found->private;
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/lookup-internal.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

/* A request has to fit into a pipe; larger manifests are read again. */
#define HANDED_OVER_MAX 8192U

void lookup_set_state(AugmentLookup *l, LookupState state)
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
        l->early_op = registry_op_free(l->early_op);
        l->describe = image_describe_free(l->describe);
}

/* Ends the lookup; nothing of it may be touched afterwards. Takes the error. */
void lookup_finish(AugmentLookup *l, TbError *error)
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

void lookup_fail(AugmentLookup *l, const TbError *error)
{
        TbError *copy = tb_error_copy(error);

        lookup_finish(l, copy);
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
        registry_manifest_free(l->base);
        l->base = base_resolve_steal_manifest(b);
        if (err) {
                lookup_fail(l, err);
                return;
        }
        if (lookup_take_answer(l, answer, &error) < 0)
                lookup_finish(l, TAKE_PTR(error));
}

int lookup_start_resolve(AugmentLookup *l, TbError **err)
{
        KnownHit before;

        lookup_set_state(l, LOOKUP_RESOLVE);
        l->by_digest = false;
        return base_resolve_start(l->client, l->anonymous, &l->request, l->source, &l->names,
                l->request.level != AUGMENT_LEVEL_NONE && !augment_known_hit(l->known, &l->request, &before),
                on_resolved, l, &l->resolve, err);
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
        AugmentKnown *known, AugmentLookupFn done, void *userdata, AugmentLookup **ret, TbError **err)
{
        _cleanup_(augment_lookup_freep) AugmentLookup *l = NULL;
        int r;

        l = calloc(1, sizeof(*l));
        if (!l)
                return tb_error_oom(err);
        l->client = client;
        l->anonymous = anonymous;
        l->known = known;
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
        } else {
                r = lookup_start_resolve(l, err);
                if (r >= 0)
                        lookup_start_early(l);
        }
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
        registry_ref_free(l->early);
        payload_free(l->payload);
        registry_manifest_free(l->base);
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
        const RegistryManifest *base = l->base && l->base->size <= HANDED_OVER_MAX &&
                        !registry_manifest_is_index(l->base) &&
                        tb_digest_equal(&l->base->digest, &found->source_digest)
                ? l->base
                : NULL;
        int r;

        if ((r = replace(&request->project, found->project, err)) < 0 ||
                (r = replace(&request->notice, found->notice, err)) < 0 ||
                (r = replace(&request->manifest, base ? base->data : NULL, err)) < 0 ||
                (r = replace(&request->manifest_type,
                         base ? registry_manifest_kind_to_media_type(base->kind) : NULL, err)) < 0)
                return r;
        request->resolved = found->source_digest;
        request->kind = l->kind;
        request->from = found->from;
        request->private = found->private;
        return 0;
}

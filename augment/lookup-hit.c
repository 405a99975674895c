/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>

#include "augment/lookup-internal.h"
#include "augment/record.h"
#include "common/cleanup.h"

/* Only a name that everybody may ask for, and that the short way is one for. */
static void lookup_note_hit(AugmentLookup *l)
{
        KnownHit hit = {.source = l->result.source_digest, .kind = l->kind, .digest = l->result.digest};

        if (!l->moving || l->result.private || l->kind == AUGMENT_SOURCE_UNKNOWN)
                return;
        (void) snprintf(hit.key_tag, sizeof(hit.key_tag), "%s", l->result.key_tag);
        augment_known_note_hit(l->known, &l->request, &hit);
}

static void lookup_end_hit(AugmentLookup *l, const KnownImage *image)
{
        if (image) {
                l->result.level = image->level;
                l->result.builder = image->builder;
        }
        l->hit = true;
        lookup_note_hit(l);
        lookup_finish(l, NULL);
}

static void on_described(ImageDescribe *d, const KnownImage *image, void *userdata)
{
        AugmentLookup *l = userdata;

        if (image)
                augment_known_note_image(l->known, &l->result.digest, image);
        lookup_end_hit(l, image);
}

/* The image is there; its level and builder may not be those that were asked for: the key does not say who shall make it, and
 * an image that was augmented before is used as it is. When it can't be read, the answer holds all the same. */
void lookup_finish_hit(AugmentLookup *l)
{
        KnownImage image = {.level = l->request.level, .builder = l->request.builder};
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;

        if (!l->known || l->request.level == AUGMENT_LEVEL_NONE ||
                augment_known_image(l->known, &l->result.digest, &image)) {
                lookup_end_hit(l, &image);
                return;
        }
        lookup_set_state(l, LOOKUP_DESCRIBE);
        if (registry_ref_new(l->names.registry_host, l->names.target_repository, NULL, &l->result.digest,
                    &ref, NULL) < 0 ||
                image_describe_start(l->client, ref, &image, on_described, l, &l->describe, NULL) < 0)
                lookup_end_hit(l, NULL);
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

int lookup_start_retag(AugmentLookup *l, TbError **err)
{
        lookup_set_state(l, LOOKUP_RETAG);
        return registry_get_manifest_start(l->client, l->key, on_key_manifest, l, &l->manifest_op, err);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>

#include "augment/describe.h"
#include "augment/facts.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* The agent reads this, and not a worker: no configuration of an image that runs somewhere comes near. */
#define DESCRIBE_CONFIG_MAX (1024U * 1024)

struct ImageDescribe {
        RegistryClient *client;
        RegistryRef *ref;
        RegistryOp *op;
        KnownImage image;
        ImageDescribeFn done;
        void *userdata;
};

static void finish(ImageDescribe *d, bool found)
{
        d->op = registry_op_free(d->op);
        d->done(d, found ? &d->image : NULL, d->userdata);
}

static void on_config(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_image_config_ ImageConfig *config = NULL;
        _cleanup_image_facts_ ImageFacts *facts = NULL;
        _cleanup_free_ char *data = NULL;
        ImageDescribe *d = userdata;
        size_t size = 0;

        if (result >= 0)
                data = registry_op_steal_blob(op, &size);
        if (!data || image_config_parse(data, size, &config, NULL) < 0 ||
                image_facts_collect(config, &facts, NULL) < 0 || !facts->augmented) {
                finish(d, false);
                return;
        }
        d->image = (KnownImage){.level = facts->level, .builder = facts->builder};
        finish(d, true);
}

static void describe_index(ImageDescribe *d, const RegistryManifest *m)
{
        json_t *annotations = NULL;
        const char *text = NULL;

        d->image.builder = AUGMENT_BUILDER_NATIVE;
        if (tb_json_get_object(m->json, "annotations", &annotations, NULL) > 0 &&
                tb_json_get_string(annotations, AUGMENT_LABEL_LEVEL, &text, NULL) > 0 &&
                augment_level_from_string(text) > AUGMENT_LEVEL_NONE)
                d->image.level = augment_level_from_string(text);
}

static void on_manifest(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        ImageDescribe *d = userdata;

        if (result >= 0)
                m = registry_op_steal_manifest(op);
        d->op = registry_op_free(d->op);
        if (m && registry_manifest_is_index(m)) {
                describe_index(d, m);
                finish(d, true);
                return;
        }
        if (!m || m->config.size > DESCRIBE_CONFIG_MAX ||
                registry_get_blob_start(d->client, d->ref, &m->config.digest, m->config.size,
                        DESCRIBE_CONFIG_MAX, on_config, d, &d->op, NULL) < 0)
                finish(d, false);
}

int image_describe_start(RegistryClient *client, const RegistryRef *ref, const KnownImage *image,
        ImageDescribeFn done, void *userdata, ImageDescribe **ret, TbError **err)
{
        _cleanup_(image_describe_freep) ImageDescribe *d = calloc(1, sizeof(*d));
        int r;

        if (!d)
                return tb_error_oom(err);
        *d = (ImageDescribe){.client = client, .image = *image, .done = done, .userdata = userdata};
        if ((r = registry_ref_with(ref, NULL, &ref->digest, &d->ref, err)) < 0 ||
                (r = registry_get_manifest_start(client, d->ref, on_manifest, d, &d->op, err)) < 0)
                return r;
        *ret = TAKE_PTR(d);
        return 0;
}

ImageDescribe *image_describe_free(ImageDescribe *d)
{
        if (!d)
                return NULL;
        registry_op_free(d->op);
        registry_ref_free(d->ref);
        free(d);
        return NULL;
}

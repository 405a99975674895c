/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a copy does with manifests besides moving them between registries: files, and indexes of some platforms. */

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/copy.h"

/* ---- files ---- */

typedef struct LocalOp {
        RegistryOp op;
        sd_event_source *source;
} LocalOp;

static void local_destroy(RegistryOp *op)
{
        LocalOp *o = (LocalOp *) op;

        sd_event_source_disable_unref(o->source);
}

static int on_turn(sd_event_source *s, void *userdata)
{
        registry_op_finish(userdata, 0, NULL);
        return 0;
}

static int local_new(
        RegistryClient *client, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(client, sizeof(LocalOp), local_destroy, done, userdata, err);
        int r;

        if (!op)
                return -ENOMEM;
        r = sd_event_add_defer(client->event, &((LocalOp *) op)->source, on_turn, op);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot use the event loop");
        *ret = TAKE_PTR(op);
        return 0;
}

int copy_local_get(RegistryClient *client, RegistryStore *from, const TbDigest *digest, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r;

        if ((r = local_new(client, done, userdata, &op, err)) < 0 ||
                (r = from->ops->get_manifest(from, digest, &op->manifest, err)) < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

int copy_local_put(RegistryClient *client, RegistryStore *to, const RegistryManifest *m, bool root,
        RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r;

        if ((r = local_new(client, done, userdata, &op, err)) < 0 ||
                (r = to->ops->put_manifest(to, m, root, err)) < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

/* ---- some platforms ---- */

/* The manifest that an attestation is about (BuildKit, docs/attestations/attestation-storage.md), or NULL. */
static const char *subject_of(const RegistryDescriptor *d)
{
        return json_string_value(json_object_get(d->annotations, "vnd.docker.reference.digest"));
}

static int mark(const RegistryManifest *index, const RegistryPlatform *platforms, size_t n, bool *keep,
        TbError **err)
{
        for (size_t i = 0; i < n; i++) {
                const RegistryDescriptor *d;
                int r = registry_manifest_select(index, platforms + i, &d, err);

                if (r < 0)
                        return r;
                keep[d - index->entries] = true;
        }
        for (size_t i = 0; i < index->n_entries; i++) {
                const char *subject = index->entries[i].attestation ? subject_of(index->entries + i) : NULL;

                for (size_t k = 0; subject && k < index->n_entries; k++)
                        if (keep[k] && !index->entries[k].attestation &&
                                tb_streq(subject, index->entries[k].digest.text))
                                keep[i] = true;
        }
        return 0;
}

int copy_filter_index(const RegistryManifest *index, const RegistryPlatform *platforms, size_t n,
        RegistryManifest **ret, TbError **err)
{
        _cleanup_free_ bool *keep = calloc(index->n_entries + 1, sizeof(*keep));
        _cleanup_json_ json_t *doc = NULL;
        _cleanup_free_ char *text = NULL;
        size_t size, kept = 0;
        json_t *list;
        int r;

        if (!keep)
                return tb_error_oom(err);
        r = mark(index, platforms, n, keep, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < index->n_entries; i++)
                kept += keep[i];
        if (kept == index->n_entries)
                return 0;
        doc = json_deep_copy(index->json);
        list = json_object_get(doc, "manifests");
        if (!list)
                return tb_error_oom(err);
        for (size_t i = index->n_entries; i-- > 0;)
                if (!keep[i])
                        (void) json_array_remove(list, i);
        r = tb_json_dump(doc, false, &text, &size, err);
        if (r < 0)
                return r;
        return registry_manifest_parse(
                text, size, registry_manifest_kind_to_media_type(index->kind), NULL, ret, err);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "augment/build-native.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* image-spec manifest.md, "Guidance for an Empty Descriptor" */
#define EMPTY_JSON "{}"
#define EMPTY_JSON_TYPE "application/vnd.oci.empty.v1+json"
#define PAYLOAD_ARTIFACT_TYPE "application/vnd.tbnode.payload.v1"

static int new_ref(
        const char *host, const char *repository, const char *tag, RegistryRef **ret, TbError **err)
{
        return registry_ref_new(host, repository, tag, NULL, ret, err);
}

/* An artifact that names the layer alone, so that the registry's garbage collection sees it in use. */
static int payload_manifest(const PayloadLayer *layer, char **ret, size_t *ret_size, TbError **err)
{
        TbDigest empty;
        int r;

        r = tb_digest_of(EMPTY_JSON, strlen(EMPTY_JSON), &empty, err);
        if (r < 0)
                return r;
        _cleanup_json_ json_t *m = json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:i}, s:[{s:s, s:s, s:I}]}",
                "schemaVersion", 2, "mediaType", REGISTRY_TYPE_OCI_MANIFEST, "artifactType",
                PAYLOAD_ARTIFACT_TYPE, "config", "mediaType", EMPTY_JSON_TYPE, "digest", empty.text, "size",
                (int) strlen(EMPTY_JSON), "layers", "mediaType", REGISTRY_TYPE_OCI_LAYER, "digest",
                layer->digest.text, "size", (json_int_t) layer->size);
        if (!m)
                return tb_error_oom(err);
        return tb_json_dump(m, false, ret, ret_size, err);
}

int native_publish_payload(
        RegistryClient *client, const char *host, PayloadLayer *layer, AugmentBytes *bytes, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *manifest = NULL;
        _cleanup_close_ int fd = -EBADF;
        char tag[41];
        size_t size;
        int r;

        r = payload_layer_verify(layer, err);
        if (r < 0)
                return r;
        (void) snprintf(tag, sizeof(tag), "%.40s", tb_digest_hex(&layer->digest));
        r = new_ref(host, AUGMENT_PAYLOAD_REPOSITORY, tag, &ref, err);
        if (r < 0)
                return r;
        fd = open(layer->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, -errno, "cannot open the payload layer %s", layer->path);
        r = registry_put_blob_fd(client, ref, fd, &layer->digest, NULL, NULL, err);
        if (r < 0)
                return r;
        r = registry_put_blob(client, ref, EMPTY_JSON, strlen(EMPTY_JSON), NULL, NULL, err);
        if (r < 0)
                return r;
        r = payload_manifest(layer, &manifest, &size, err);
        if (r < 0)
                return r;
        bytes->uploaded += layer->size + strlen(EMPTY_JSON) + size;
        return registry_put_manifest(client, ref, REGISTRY_TYPE_OCI_MANIFEST, manifest, size, NULL, err);
}

/* ---- Mounts ---- */

/* Blobs of one repository on their way into the target's. */
typedef struct Mounts {
        RegistryDescriptor *blobs; /* borrowed contents */
        RegistryMountResult *results;
        size_t n;
        RegistryOp *op;
} Mounts;

static void mounts_done(Mounts *m)
{
        registry_op_free(m->op);
        free(m->blobs);
        free(m->results);
}

static int mounts_alloc(Mounts *m, size_t max, TbError **err)
{
        m->blobs = calloc(max ? max : 1, sizeof(*m->blobs));
        m->results = calloc(max ? max : 1, sizeof(*m->results));
        return m->blobs && m->results ? 0 : tb_error_oom(err);
}

/* The base's blobs: its layers, and its configuration when the image is taken as it is. */
static int mount_base_start(const NativePush *p, const RegistryRef *target, Mounts *m, TbError **err)
{
        int r;

        r = mounts_alloc(m, p->base->n_layers + 1, err);
        if (r < 0)
                return r;
        if (!tb_streq(p->names->mirror_repository, p->names->target_repository)) {
                for (size_t i = 0; i < p->base->n_layers; i++)
                        m->blobs[m->n++] = p->base->layers[i];
                if (!p->recipe)
                        m->blobs[m->n++] = p->base->config;
        }
        return registry_mount_blobs_start(p->client, target, p->names->mirror_repository, m->blobs, m->n,
                m->results, NULL, NULL, &m->op, err);
}

static int mount_base_end(const NativePush *p, const Mounts *m, TbError **err)
{
        for (size_t i = 0; i < m->n; i++) {
                if (m->results[i] == REGISTRY_MOUNT_NEEDS_UPLOAD)
                        return tb_error_set(err, TB_ERROR_REMOTE, -ESTALE,
                                "blob %s of the base image can't be mounted from %s: it is not there",
                                m->blobs[i].digest.text, p->names->mirror_repository);
                p->bytes->mounted += m->blobs[i].size;
        }
        return 0;
}

static int mount_payload_start(const NativePush *p, const RegistryRef *target, Mounts *m, TbError **err)
{
        size_t n = p->recipe ? p->recipe->n_steps : 0;
        int r;

        r = mounts_alloc(m, n, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++)
                if (p->recipe->steps[i].op == RECIPE_ADD)
                        m->blobs[m->n++] = (RegistryDescriptor){
                                .digest = p->recipe->steps[i].layer->digest,
                                .size = p->recipe->steps[i].layer->size,
                        };
        return registry_mount_blobs_start(p->client, target, AUGMENT_PAYLOAD_REPOSITORY, m->blobs, m->n,
                m->results, NULL, NULL, &m->op, err);
}

/* The first image on this registry: the payload isn't there yet. */
static int publish_and_mount(const NativePush *p, const RegistryRef *target, PayloadLayer *layer,
        const RegistryDescriptor *blob, TbError **err)
{
        RegistryMountResult result = REGISTRY_MOUNT_NEEDS_UPLOAD;
        int r;

        r = native_publish_payload(p->client, p->names->registry_host, layer, p->bytes, err);
        if (r < 0) {
                tb_error_prefix(err, "cannot upload the payload layer");
                return r;
        }
        r = registry_mount_blobs(p->client, target, AUGMENT_PAYLOAD_REPOSITORY, blob, 1, &result, err);
        if (r < 0 || result != REGISTRY_MOUNT_NEEDS_UPLOAD)
                return r;
        return tb_error_set(err, TB_ERROR_REMOTE, -EREMOTEIO,
                "registry %s has the payload layer in " AUGMENT_PAYLOAD_REPOSITORY
                " but does not let it be mounted; a pull-through cache can't hold augmented images",
                p->names->registry_host);
}

static int mount_payload_end(const NativePush *p, const RegistryRef *target, const Mounts *m, TbError **err)
{
        for (size_t i = 0, k = 0; k < m->n; i++) {
                int r;

                if (p->recipe->steps[i].op != RECIPE_ADD)
                        continue;
                if (m->results[k] == REGISTRY_MOUNT_NEEDS_UPLOAD) {
                        r = publish_and_mount(p, target, p->recipe->steps[i].layer, &m->blobs[k], err);
                        if (r < 0)
                                return r;
                }
                p->bytes->mounted += m->blobs[k++].size;
        }
        return 0;
}

/* ---- Blobs, then names ---- */

/* Through the session that was opened for it, or a new one. */
static int upload_config_start(const NativePush *p, const RegistryRef *target, TbDigest *ret,
        AugmentPending *pending, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = p->upload ? TAKE_PTR(*p->upload) : NULL;
        int r;

        if ((r = tb_digest_of(p->config, p->config_size, ret, err)) < 0)
                return r;
        r = op ? registry_put_blob_send(op, p->config, p->config_size, ret, err)
               : registry_put_blob_start(
                         p->client, target, p->config, p->config_size, ret, NULL, NULL, &op, err);
        if (r < 0)
                return r;
        return augment_pending_add(pending, TAKE_PTR(op), NULL, "cannot upload the configuration", err);
}

/* None of them needs another: the configuration goes up while the layers are mounted. */
static int push_blobs(const NativePush *p, const RegistryRef *target, TbDigest *ret_config, TbError **err)
{
        _cleanup_(mounts_done) Mounts base = {}, payload = {};
        _cleanup_augment_pending_ AugmentPending pending = {};
        TbDigest digest = {};
        int r, uploaded;

        if (p->recipe && (r = upload_config_start(p, target, &digest, &pending, err)) < 0)
                return r;
        r = mount_base_start(p, target, &base, err);
        if (r >= 0)
                r = mount_payload_start(p, target, &payload, err);
        if (r >= 0)
                r = registry_op_wait(base.op, err);
        if (r >= 0)
                r = mount_base_end(p, &base, err);
        if (r >= 0)
                r = registry_op_wait(payload.op, err);
        if (r >= 0)
                r = mount_payload_end(p, target, &payload, err);
        /* In any case: no open session stays behind. */
        uploaded = augment_pending_wait(&pending, r < 0 ? NULL : err);
        if (r < 0 || uploaded < 0)
                return r < 0 ? r : uploaded;
        p->bytes->uploaded += p->config_size;
        *ret_config = digest;
        return 0;
}

/* Both names at once: each is that of a complete image, whichever is there first, and a lookup asks for the key tag. */
static int put_tags(const NativePush *p, const char *media_type, const char *manifest, size_t size,
        TbDigest *ret_digest, TbError **err)
{
        const char *tags[] = {p->key_tag, p->names->target_tag};
        _cleanup_augment_pending_ AugmentPending pending = {};
        int r;

        for (size_t i = 0; i < ELEMENTSOF(tags); i++) {
                _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
                RegistryOp *op;

                if (!tags[i])
                        continue;
                if ((r = new_ref(p->names->registry_host, p->names->target_repository, tags[i], &ref, err)) <
                                0 ||
                        (r = registry_put_manifest_start(
                                 p->client, ref, media_type, manifest, size, NULL, NULL, &op, err)) < 0 ||
                        (r = augment_pending_add(&pending, op, NULL, "cannot name the image", err)) < 0)
                        return r;
                p->bytes->uploaded += size;
        }
        r = tb_digest_of(manifest, size, ret_digest, err);
        return r < 0 ? r : augment_pending_wait(&pending, err);
}

int native_push(const NativePush *push, TbDigest *ret_digest, uint64_t *ret_size, TbError **err)
{
        const char *media_type = registry_manifest_kind_to_media_type(push->base->kind);
        _cleanup_(registry_ref_freep) RegistryRef *target = NULL;
        _cleanup_free_ char *manifest = NULL;
        TbDigest config = {};
        size_t size;
        int r;

        r = new_ref(push->names->registry_host, push->names->target_repository, push->key_tag, &target, err);
        if (r < 0)
                return r;
        r = push_blobs(push, target, &config, err);
        if (r >= 0 && push->before)
                r = augment_pending_wait(push->before, err);
        if (r < 0)
                return r;
        if (!push->recipe) {
                *ret_size = push->base->size;
                return put_tags(push, media_type, push->base->data, push->base->size, ret_digest, err);
        }
        r = native_make_manifest(
                push->base, push->recipe, &config, push->config_size, &manifest, &size, err);
        if (r < 0)
                return r;
        *ret_size = size;
        return put_tags(push, media_type, manifest, size, ret_digest, err);
}

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

static int mount_payload(const NativePush *p, const RegistryRef *target, PayloadLayer *layer, TbError **err)
{
        RegistryMountResult result = REGISTRY_MOUNT_NEEDS_UPLOAD;
        _cleanup_registry_descriptor_ RegistryDescriptor d = {.digest = layer->digest, .size = layer->size};
        int r;

        d.media_type = strdup(REGISTRY_TYPE_OCI_LAYER);
        if (!d.media_type)
                return tb_error_oom(err);
        for (unsigned attempt = 0; attempt < 2; attempt++) {
                r = registry_mount_blobs(p->client, target, AUGMENT_PAYLOAD_REPOSITORY, &d, 1, &result, err);
                if (r < 0)
                        return r;
                if (result != REGISTRY_MOUNT_NEEDS_UPLOAD) {
                        p->bytes->mounted += layer->size;
                        return 0;
                }
                if (attempt == 0) {
                        r = native_publish_payload(p->client, p->names->registry_host, layer, p->bytes, err);
                        if (r < 0) {
                                tb_error_prefix(err, "cannot upload the payload layer");
                                return r;
                        }
                }
        }
        return tb_error_set(err, TB_ERROR_REMOTE, -EREMOTEIO,
                "registry %s has the payload layer in " AUGMENT_PAYLOAD_REPOSITORY
                " but does not let it be mounted; a pull-through cache can't hold augmented images",
                p->names->registry_host);
}

/* The base's blobs: its layers, and its configuration when the image is taken as it is. */
static int mount_base(const NativePush *p, const RegistryRef *target, TbError **err)
{
        size_t n = p->base->n_layers + (p->recipe ? 0 : 1);
        _cleanup_free_ RegistryMountResult *results = NULL;
        _cleanup_free_ RegistryDescriptor *blobs = NULL; /* borrowed contents */
        int r;

        if (tb_streq(p->names->mirror_repository, p->names->target_repository) || n == 0)
                return 0;
        results = calloc(n, sizeof(*results));
        blobs = calloc(n, sizeof(*blobs));
        if (!results || !blobs)
                return tb_error_oom(err);
        for (size_t i = 0; i < p->base->n_layers; i++)
                blobs[i] = p->base->layers[i];
        if (!p->recipe)
                blobs[n - 1] = p->base->config;
        r = registry_mount_blobs(p->client, target, p->names->mirror_repository, blobs, n, results, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++) {
                if (results[i] == REGISTRY_MOUNT_NEEDS_UPLOAD)
                        return tb_error_set(err, TB_ERROR_REMOTE, -ESTALE,
                                "blob %s of the base image can't be mounted from %s: it is not there",
                                blobs[i].digest.text, p->names->mirror_repository);
                p->bytes->mounted += blobs[i].size;
        }
        return 0;
}

/* The key tag first, the moving one last. */
static int put_tags(const NativePush *p, const char *media_type, const char *manifest, size_t size,
        TbDigest *ret_digest, TbError **err)
{
        const char *tags[] = {p->key_tag, p->names->target_tag};
        TbDigest digest = {};
        int r;

        for (size_t i = 0; i < ELEMENTSOF(tags); i++) {
                _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;

                if (!tags[i])
                        continue;
                if ((r = new_ref(p->names->registry_host, p->names->target_repository, tags[i], &ref, err)) <
                                0 ||
                        (r = registry_put_manifest(
                                 p->client, ref, media_type, manifest, size, &digest, err)) < 0)
                        return r;
                p->bytes->uploaded += size;
        }
        *ret_digest = digest;
        return 0;
}

static int mount_layers(const NativePush *p, const RegistryRef *target, TbError **err)
{
        int r;

        r = mount_base(p, target, err);
        for (size_t i = 0; r >= 0 && p->recipe && i < p->recipe->n_steps; i++)
                if (p->recipe->steps[i].op == RECIPE_ADD)
                        r = mount_payload(p, target, p->recipe->steps[i].layer, err);
        return r;
}

/* The configuration goes up while the layers are mounted: neither needs the other, and each takes several exchanges. */
static int push_blobs(const NativePush *p, const RegistryRef *target, TbDigest *ret_config, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *upload = NULL;
        _cleanup_error_ TbError *upload_error = NULL;
        TbDigest digest = {};
        int r, uploaded;

        if (!p->recipe)
                return mount_layers(p, target, err);
        r = tb_digest_of(p->config, p->config_size, &digest, err);
        if (r < 0)
                return r;
        r = registry_put_blob_start(
                p->client, target, p->config, p->config_size, &digest, NULL, NULL, &upload, err);
        if (r < 0)
                return r;
        r = mount_layers(p, target, err);
        uploaded = registry_op_wait(upload, &upload_error); /* in any case: no open session stays behind */
        if (r < 0)
                return r;
        if (uploaded < 0)
                return tb_error_move(err, &upload_error);
        p->bytes->uploaded += p->config_size;
        *ret_config = digest;
        return 0;
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

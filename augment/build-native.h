/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/cache.h"
#include "augment/config.h"
#include "augment/pending.h"
#include "augment/recipe.h"
#include "common/error.h"
#include "registry-client/registry.h"

/*
 * The native builder: carries out a recipe inside the registry, without a container engine
 *
 * An image is a manifest that names a configuration and layers. Nothing that a recipe of the levels up to core does
 * needs a running container: ADD appends one layer that exists already, everything else edits the configuration. So the
 * new image costs one configuration and one manifest; all layers are mounted from the repositories that have them.
 *
 * The result has no time of its own: `created` stays the base's, and the new history entries repeat it. The same base
 * and payload give the same digest on every host.
 */

/* Edits the document of `config`; call it once. Its view is not updated. */
int native_apply_config(ImageConfig *config, const Recipe *recipe, TbError **err) _warn_unused_;

/*
 * The manifest of the new image: the base's own with the configuration replaced, the recipe's layers appended, and, for
 * OCI manifests, annotations. Docker schema 2 stays Docker, OCI stays OCI. *ret is the text (to be freed).
 */
int native_make_manifest(const RegistryManifest *base, const Recipe *recipe, const TbDigest *config_digest,
        uint64_t config_size, char **ret, size_t *ret_size, TbError **err) _warn_unused_;

/* What becomes of an entry of an index. */
typedef struct NativeIndexEntry {
        bool kept;
        TbDigest digest; /* of the image in its place */
        uint64_t size;
} NativeIndexEntry;

/*
 * The index of the results: the base's own, with the entries that are kept (`entries`: one for each of the base's), which
 * name the new images and say of their platform what they said; for OCI, with annotations (name, value, ..., NULL; or
 * NULL). Its media type is the base's. When all entries are kept as they were, the text is the base's own.
 */
int native_make_index(const RegistryManifest *base, const NativeIndexEntry *entries,
        char *const *annotations, char **ret, size_t *ret_size, TbError **err) _warn_unused_;

typedef struct NativePush {
        RegistryClient *client;
        const AugmentNames *names;
        const RegistryManifest *base;
        const Recipe *recipe; /* NULL = push the base itself under the target's names */
        const char *config;   /* the new configuration; NULL with recipe NULL */
        size_t config_size;
        const char *key_tag;
        AugmentBytes *bytes;    /* added to */
        AugmentPending *before; /* what has to be there before the names are; or NULL */
        RegistryOp **upload; /* registry_put_blob_open_start() into the target repository, taken; or NULL */
} NativePush;

/*
 * Mounts the layers into the target repository, uploads the configuration (and, once per registry, the payload layer),
 * then, when all that is there, the manifest under the key tag and the moving tag. Blocks.
 * *ret_size: of the manifest, in bytes.
 * -ESTALE: the mirror lacks a blob of the base; mirror it again.
 */
int native_push(const NativePush *push, TbDigest *ret_digest, uint64_t *ret_size, TbError **err)
        _warn_unused_;

/* Makes sure that `tbnode/payload` has the layer, with a tag that keeps it. */
int native_publish_payload(RegistryClient *client, const char *host, PayloadLayer *layer,
        AugmentBytes *bytes, TbError **err) _warn_unused_;

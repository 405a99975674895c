/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/cache.h"
#include "augment/pending.h"
#include "registry-client/registry.h"

/*
 * What a tag was when it was mirrored, kept beside the mirror
 *
 *         mirror/<host>/<repository>:n-<first 40 hex of the SHA-256 of the tag>
 *
 * An artifact without content; its annotations say what the tag resolved to (which the mirror itself does not: it holds one
 * platform's manifest), since when, and whether everybody may have it. With it a tag can be answered when its registry is
 * not asked (policy `cached`) or cannot be (offline, rate limits). A private base is never answered from it: whether the
 * caller may have it is for its registry to say.
 */

#define BASE_RECORD_TYPE "application/vnd.tbnode.base.v1+json"

typedef struct BaseRecord {
        TbDigest digest; /* what the tag was */
        AugmentSourceKind kind;
        bool private;
        char since[32]; /* RFC 3339; not looked at when it is written */
} BaseRecord;

/* Where it is kept; `source` must have a tag. */
int base_record_ref(const AugmentNames *names, const RegistryRef *source, RegistryRef **ret, TbError **err)
        _warn_unused_;
/* The artifact's manifest (media type REGISTRY_TYPE_OCI_MANIFEST), as of now. The caller frees. */
int base_record_render(const RegistryRef *source, const BaseRecord *record, char **ret, size_t *ret_size,
        TbError **err) _warn_unused_;
/* 1 = *ret is set, 0 = whatever lies there is not a record. */
int base_record_parse(const RegistryManifest *m, BaseRecord *ret);
/* Begins to write it. The mirror's repository must have the blob "{}" (image-spec's empty descriptor). */
int base_record_store(RegistryClient *client, const AugmentNames *names, const RegistryRef *source,
        const BaseRecord *record, AugmentPending *pending, TbError **err) _warn_unused_;

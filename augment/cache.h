/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/augment.h"
#include "augment/payload.h"
#include "common/digest.h"
#include "common/error.h"

/*
 * Names and the cache in the testbed's registry
 *
 *         mirror/<host>/<repository>:<tag>                       the base as it is upstream (moves)
 *         mirror/<host>/<repository>:d-<40 hex>                  the same by its digest (never moves)
 *         augmented/<host>/<repository>:<tag>-<level>            the augmented image (moves)
 *         augmented/<host>/<repository>:k-<40 hex>               the same by its cache key (never moves)
 *         projects/<project>/mirror/..., .../augmented/...       the same, for one project only
 *         tbnode/payload:<40 hex>                                keeps the payload layers when the registry
 * collects garbage
 *
 * <host> is the registry's name with the port's ':' turned into '_' ("127.0.0.1_5000"). A name that is no
 * valid repository component even so ("[::1]:5000") is reduced to its letters and digits with the first 8
 * hex digits of its SHA-256 behind, so two hosts never share a name. A tag that does not fit (128 bytes with
 * "-<level>"), or a reference by digest only, has no moving name.
 *
 * The cache key is the SHA-256 of this text, each line ended by a newline:
 *
 *         tbnode-cache-key 1
 *         base sha256:<hex>          what the name resolves to (index or manifest)
 *         platform linux/amd64
 *         level basic
 *         payload sha256:<hex>       "-" for level none
 *         generator 1                AUGMENT_GENERATOR_VERSION
 */

#define AUGMENT_KEY_TAG_MAX (2 + 40 + 1)
#define AUGMENT_PAYLOAD_REPOSITORY "tbnode/payload"

/* "k-<first 40 hex of the key>" */
int augment_cache_key_tag(const TbDigest *base, const char *platform, AugmentLevel level,
        const TbDigest *payload, char ret[static AUGMENT_KEY_TAG_MAX], TbError **err) _warn_unused_;
/* The text that is hashed. The caller frees. */
int augment_cache_key_text(const TbDigest *base, const char *platform, AugmentLevel level,
        const TbDigest *payload, char **ret, TbError **err) _warn_unused_;

typedef struct AugmentNames {
        char *registry_host;     /* "127.0.0.1:5000" */
        bool base_is_local;      /* the base already lies in the testbed's registry: no mirror */
        char *mirror_repository; /* where the base is found: mirror/... or its own repository */
        char *mirror_tag;        /* NULL = the reference has no tag */
        char *target_repository; /* augmented/...; equals mirror_repository for level none */
        char *target_tag;        /* "<tag>-<level>" or NULL; for level none "<tag>" */
} AugmentNames;

void augment_names_done(AugmentNames *n);
#define _cleanup_augment_names_ _cleanup_(augment_names_done)

/* The repository component for a registry host. NULL when out of memory. */
char *augment_host_component(const char *host);

/*
 * Lookup: resolves the name at its registry (HEAD; not at all when the request names a digest), then asks
 * the testbed's registry for the key tag and the moving tag at once. When the key is there but the moving
 * tag is not, or is another image, the moving tag is written anew: a hit always gives a name that works.
 */
typedef struct AugmentLookup AugmentLookup;
/* `err` borrowed; NULL = ask augment_lookup_is_hit(). The lookup may be freed from here. */
typedef void (*AugmentLookupFn)(AugmentLookup *l, const TbError *err, void *userdata);

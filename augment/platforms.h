/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/augment.h"
#include "augment/cache.h"
#include "augment/payload.h"
#include "common/digest.h"
#include "common/error.h"
#include "registry-client/registry.h"

/*
 * The platforms that an index is augmented for: those of its entries that an installed payload runs on
 *
 * They are known before the index is: the cache key of an index is made from the payloads that are installed, so that
 * another one beside them makes another key, and a hit needs no look into the index.
 */

typedef struct AugmentPlatforms {
        Payload **payloads; /* by architecture, sorted; those that have what the level needs */
        size_t n_payloads;
        char *text;      /* "linux/amd64,linux/arm64" */
        char *key;       /* "index linux/amd64,linux/arm64": stands for the platform in the cache key */
        TbDigest digest; /* one digest for what all of them add; unset for level none */
} AugmentPlatforms;

/* Reads what is installed. For level none it tells only which platforms matter. -EOPNOTSUPP: there is no payload. */
int augment_platforms_load(const AugmentRequest *request, AugmentPlatforms *ret, TbError **err)
        _warn_unused_;
void augment_platforms_done(AugmentPlatforms *p);
#define _cleanup_augment_platforms_ _cleanup_(augment_platforms_done)

/* The payload for an architecture, or NULL; borrowed. */
Payload *augment_platforms_find(const AugmentPlatforms *p, const char *architecture);

/* The key tag of an index, as augment_cache_key_tag(). */
int augment_platforms_key_tag(const AugmentPlatforms *p, const TbDigest *base, const AugmentRequest *request,
        char ret[static AUGMENT_KEY_TAG_MAX], TbError **err) _warn_unused_;

/*
 * Which entries of an index are augmented: Linux images for which there is a payload, one per platform, in the index's
 * order. Attestations, other systems and other kinds of artifacts are none. ret[i] is set for each of the index's
 * entries; *ret_n is how many are true. -ENOENT: none; the message says what the index has, and what there is.
 */
int augment_platforms_choose(const AugmentPlatforms *p, const RegistryManifest *index, bool *ret,
        size_t *ret_n, TbError **err) _warn_unused_;

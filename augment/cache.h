/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/augment.h"
#include "augment/payload.h"
#include "common/digest.h"
#include "common/error.h"
#include "registry-client/registry.h"

/*
 * Names and the cache in the testbed's registry
 *
 *         mirror/<host>/<repository>:<tag>                       the base as it is upstream (moves)
 *         mirror/<host>/<repository>:d-<40 hex>-<os>-<arch>      the same by its digest and platform (never moves)
 *         mirror/<host>/<repository>:d-<40 hex>-index-<os>-<arch>_<os>-<arch>  an index of those platforms (never moves)
 *         augmented/<host>/<repository>:<tag>-<level>            the augmented image or index (moves)
 *         augmented/<host>/<repository>:<tag>-<level>-<os>-<arch> one image of an index, asked for alone (moves)
 *         augmented/<host>/<repository>:k-<40 hex>               the same by its cache key (never moves)
 *         mirror/<transport>/<user>/<name>                       what was copied from elsewhere (agent/cli-source.h); its
 *                                                                augmented image is augmented/<transport>/...
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
 *         platform linux/amd64       for an index: those of the installed payloads, "index linux/amd64,linux/arm64"
 *         level basic
 *         payload sha256:<hex>       "-" for level none; for an index: of all payloads' digests, one per line
 *         generator 3                AUGMENT_GENERATOR_VERSION
 *
 * and one more line, "update 1", for a request that asks to augment again what is augmented already: for such a base its
 * answer is another one.
 */

#define AUGMENT_KEY_TAG_MAX (2 + 40 + 1)
#define AUGMENT_PAYLOAD_REPOSITORY "tbnode/payload"

/* "k-<first 40 hex of the key>". `base` is what the name resolves to; the request must have been checked. */
int augment_cache_key_tag(const TbDigest *base, const AugmentRequest *request, const TbDigest *payload,
        char ret[static AUGMENT_KEY_TAG_MAX], TbError **err) _warn_unused_;
/* The text that is hashed. The caller frees. */
int augment_cache_key_text(const TbDigest *base, const AugmentRequest *request, const TbDigest *payload,
        char **ret, TbError **err) _warn_unused_;

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

/* `ref` is the source; the request must have been checked. -ENAMETOOLONG when a name gets too long for a registry. */
int augment_names_make(const AugmentRequest *request, const RegistryRef *ref, AugmentNames *ret,
        TbError **err) _warn_unused_;
/* One image of an index was asked for: its moving names are not those of the whole ("<tag>-<level>-<os>-<architecture>"). */
int augment_names_of_platform(AugmentNames *n, const char *platform, TbError **err) _warn_unused_;
/* "d-<40 hex>-<os>-<architecture>[-<variant>]": where the mirror keeps what `resolved` is for a platform. */
char *augment_mirror_digest_tag(const TbDigest *resolved, const char *platform);
/* Splits "http://127.0.0.1:5000" into the host and whether it is plain http. Without a scheme: what the registry client
 * does by itself (https but for loopback). -EINVAL when it has a path or is no host. */
int augment_registry_parse(const char *url, char **ret_host, bool *ret_plain_http, TbError **err)
        _warn_unused_;
/* Makes a client speak to the request's registry and with the credentials that the request names: the agent's, and before
 * those the caller's own. */
int augment_client_setup(RegistryClient *client, const AugmentRequest *request, TbError **err) _warn_unused_;
/* The same without any credentials. */
int augment_client_setup_anonymous(RegistryClient *client, const AugmentRequest *request, TbError **err)
        _warn_unused_;

/*
 * Lookup: resolves the name at its registry (HEAD), then asks the testbed's registry for the key tag and the moving tag at
 * once. When the key is there but the moving tag is not, or is another image, the moving tag is written anew: a hit always
 * gives a name that works. Nothing blocks.
 *
 * Who may have it: the registry is asked without credentials first. Only when it refuses and then agrees with credentials
 * the base is private; it goes to the request's project, else to its `private_project`. So what lies outside of projects is
 * what everybody may have, and a name with a digest that is there is a hit without a question; for one in a project the
 * registry is always asked.
 *
 * Policy: with `cached`, and when the registry cannot be asked (or does not answer within LOOKUP_PATIENCE_USEC) the tag is
 * what was noted when it was mirrored (augment/record.h), unless the base is private or the request asks for an update.
 *
 * A name that does not exist, or a registry that can't be asked, is an error. "No such tag" in the testbed's registry is
 * a miss.
 */
typedef struct AugmentLookup AugmentLookup;
typedef struct AugmentKnown AugmentKnown; /* augment/known.h */
/* `err` borrowed; NULL = ask augment_lookup_is_hit(). The lookup may be freed from here. */
typedef void (*AugmentLookupFn)(AugmentLookup *l, const TbError *err, void *userdata);

/* The client must have been set up with augment_client_setup() and outlive the lookup; the request is checked and
 * copied. Callbacks come from the loop only. */
#define LOOKUP_PATIENCE_USEC UINT64_C(5000000)
/* `known` (augment/known.h) is read and added to, and must outlive the lookup; NULL = no memory: a hit's level and builder are those that were asked for. `anonymous` is a client without credentials on the same loop, or NULL: then nothing is taken for private. */
int augment_lookup_start(RegistryClient *client, RegistryClient *anonymous, const AugmentRequest *request,
        AugmentKnown *known, AugmentLookupFn done, void *userdata, AugmentLookup **ret, TbError **err)
        _warn_unused_;
/* Cancels when still running. */
AugmentLookup *augment_lookup_free(AugmentLookup *l);
TB_DEFINE_CLEANUP(AugmentLookup *, augment_lookup_free)

bool augment_lookup_is_hit(const AugmentLookup *l);
/* Borrowed. After a hit a complete result, with the level and the builder that the image was made with (see `known`); after a miss source, platform, level, key_tag, payload, from, notice, private and
 * project are set. */
const AugmentResult *augment_lookup_result(const AugmentLookup *l);
/* What the lookup found out, into the request for the worker. */
int augment_lookup_resolve(const AugmentLookup *l, AugmentRequest *request, TbError **err) _warn_unused_;

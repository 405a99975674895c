/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between run.c (the job), run-platform.c (one platform of it) and run-index.c (several of them). */

#include "augment/base-files.h"
#include "augment/cache.h"
#include "augment/facts.h"
#include "augment/pending.h"
#include "augment/platforms.h"
#include "augment/recipe.h"
#include "augment/run.h"

typedef struct Run {
        const AugmentRequest *request;
        AugmentRequest lowered; /* what `request` is when the image can't have the level; borrowed content */
        AugmentOp op;
        const AugmentRunHooks *hooks;

        RegistryClient *client;
        RegistryRef *source;    /* as named */
        RegistryRef *pinned;    /* the same by the digest it resolved to */
        AugmentSourceKind kind; /* of what it resolved to */
        const TbDigest *child; /* the one image of an index that is meant, borrowed; NULL = what fits best */
        RegistryPlatform platform;
        AugmentNames names;
        Payload *payload;       /* NULL for level none */
        RegistryManifest *base; /* of the platform */
        bool repair;            /* the mirror lacks blobs that its manifest names */
        bool mirrored;          /* the base's blobs are in the testbed's registry */
        bool copied;            /* by this run; the base has no names there yet */
        bool files_are_new;     /* the facts about its files are not kept there yet */
        ImageConfig *config;
        ImageFacts *facts;
        AugmentPending pending;     /* written beside the image */
        RegistryOp *upload;         /* of the new configuration: its session, opened early; or NULL */
        bool has_empty;             /* the mirror's repository has the blob "{}" */
        BaseFiles *scan;            /* the layers, while the base is mirrored; NULL = not yet, or no more */
        Recipe *recipe;             /* NULL = use the image as it is */
        AugmentPlatforms platforms; /* for all; else empty */
        RegistryManifest *index;    /* to be augmented as a whole, or NULL */
        AugmentResult result;
        uint64_t pushed_size; /* of the manifest that result.digest names */
} Run;

void run_stage(const Run *run, const char *stage);

/* The names that depend on what the source is, and on the request's level. May be called again. */
int run_name(Run *run, TbError **err) _warn_unused_;
/* Reads, mirrors and, for AUGMENT_OP_AUGMENT, builds what `pinned` is for the request's platform. */
int run_platform(Run *run, TbError **err) _warn_unused_;
/*
 * Of a request for all platforms: reads what `pinned` is. When it is an index, `index` is set, else nothing is. `kind` is
 * known afterwards.
 */
int run_index_read(Run *run, TbError **err) _warn_unused_;
/* Each platform of `index` as run_platform() does it, then the index of the results. */
int run_index(Run *run, TbError **err) _warn_unused_;
/* "d-...": what the mirror keeps of the source for a platform, or an index ("index linux/amd64,linux/arm64"). */
int run_mirror_ref(const Run *run, const char *platform, RegistryRef **ret, TbError **err) _warn_unused_;
/* The mirror's moving tag follows the source's. 1 = it was something else. */
int run_follow_tag(const Run *run, const char *media_type, const char *manifest, size_t size,
        const TbDigest *digest, TbError **err) _warn_unused_;
/* Beside the mirror: what the tag is now (augment/record.h). Goes on in `pending`. */
int run_note(Run *run, TbError **err) _warn_unused_;
/* Frees what belongs to one platform. */
void run_platform_done(Run *run);

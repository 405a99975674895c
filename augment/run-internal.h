/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between run.c (the job) and run-platform.c (one platform of it). */

#include "augment/base-files.h"
#include "augment/cache.h"
#include "augment/facts.h"
#include "augment/recipe.h"
#include "augment/run.h"

typedef struct Run {
        const AugmentRequest *request;
        AugmentOp op;
        const AugmentRunHooks *hooks;

        RegistryClient *client;
        RegistryRef *source; /* as named */
        RegistryRef *pinned; /* the same by the digest it resolved to */
        RegistryPlatform platform;
        AugmentNames names;
        Payload *payload;       /* NULL for level none */
        RegistryManifest *base; /* of the platform */
        bool repair;            /* the mirror lacks blobs that its manifest names */
        bool mirrored;          /* the base was found in the testbed's registry */
        ImageConfig *config;
        ImageFacts *facts;
        BaseFiles *scan; /* the layers, while the base is mirrored; NULL = not yet, or no more */
        Recipe *recipe;  /* NULL = use the image as it is */
        AugmentResult result;
} Run;

void run_stage(const Run *run, const char *stage);

/* Reads, mirrors and, for AUGMENT_OP_AUGMENT, builds what `pinned` is for the request's platform. */
int run_platform(Run *run, TbError **err) _warn_unused_;
/* Frees what belongs to one platform. */
void run_platform_done(Run *run);

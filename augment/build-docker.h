/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/augment.h"
#include "common/engine.h"

/*
 * The docker builder: the engine builds the generated Dockerfile from the mirrored base and pushes the
 * result
 *
 * Steps: stream the build context (Dockerfile and payload layers) to POST /build under a temporary tag that
 * nobody else uses; tag it with the names of the testbed's registry; push the key tag, then the moving tag;
 * remove all these local tags again (the engine keeps no name of ours, as after a native build). Nothing
 * blocks. When a step fails, or the build is freed before its end, what was made in the engine is removed;
 * the registry's tags are the last thing that is written.
 */

typedef struct AugmentDockerBuild AugmentDockerBuild;

/* `err` (borrowed) NULL = `result` (borrowed) is complete. The build may be freed from here. */
typedef void (*AugmentDockerBuildFn)(
        AugmentDockerBuild *b, const AugmentResult *result, const TbError *err, void *userdata);
/* Text of the engine, one line; for logs and progress. */
typedef void (*AugmentDockerProgressFn)(AugmentDockerBuild *b, const char *text, void *userdata);

typedef struct AugmentDockerBuildOptions {
        const AugmentRequest *request;    /* copied */
        const AugmentResult *mirrored;    /* the worker's result for AUGMENT_OP_MIRROR; copied */
        const char *registry_auth;        /* value of X-Registry-Auth; NULL = anonymous */
        AugmentDockerProgressFn progress; /* may be NULL */
        AugmentDockerBuildFn done;
        void *userdata;
} AugmentDockerBuildOptions;

/* The engine must be connected and outlive the build. Callbacks come from the loop only. */
int augment_docker_build_start(TbEngine *engine, const AugmentDockerBuildOptions *options,
        AugmentDockerBuild **ret, TbError **err) _warn_unused_;
/* Cancels when still running; the clean-up in the engine goes on by itself as long as the engine object
 * lives. */
AugmentDockerBuild *augment_docker_build_free(AugmentDockerBuild *b);
TB_DEFINE_CLEANUP(AugmentDockerBuild *, augment_docker_build_free)

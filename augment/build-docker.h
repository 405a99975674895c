/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/augment.h"
#include "common/engine.h"
#include "registry-client/registry.h"

/*
 * The docker builder: the engine builds the generated Dockerfile from the mirrored base and pushes the result
 *
 * Steps: stream the build context (Dockerfile and payload layers) to POST /build, named by the key tag in the testbed's
 * registry; push that; write the moving tag through the registry (it is the same manifest); remove the name from the
 * engine again, unless the engine had it before: after a build the engine keeps no name of ours, as after a native
 * one. Only the base stays in the engine's store, as with every docker build.
 *
 * Nothing blocks. When a step fails, what was made in the engine is removed before `done` is called. The registry's
 * tags are written last: key tag, then moving tag.
 */

typedef struct AugmentDockerBuild AugmentDockerBuild;

/* `err` (borrowed) NULL = `result` (borrowed) is complete. The build may be freed from here. */
typedef void (*AugmentDockerBuildFn)(
        AugmentDockerBuild *b, const AugmentResult *result, const TbError *err, void *userdata);
/* Text of the engine, one line; for logs and progress. */
typedef void (*AugmentDockerProgressFn)(AugmentDockerBuild *b, const char *text, void *userdata);

typedef struct AugmentDockerBuildOptions {
        const AugmentRequest *request; /* checked and copied */
        const AugmentResult
                *mirrored; /* the worker's result for AUGMENT_OP_MIRROR; copied. When it is as_is there
                                             is nothing to build: it is the answer */
        RegistryClient *registry;         /* set up with augment_client_setup(); outlives the build */
        const char *registry_auth;        /* value of X-Registry-Auth; NULL = anonymous */
        AugmentDockerProgressFn progress; /* may be NULL */
        AugmentDockerBuildFn done;
        void *userdata;
} AugmentDockerBuildOptions;

/* The engine must be connected and outlive the build. Callbacks come from the loop only. */
int augment_docker_build_start(TbEngine *engine, const AugmentDockerBuildOptions *options,
        AugmentDockerBuild **ret, TbError **err) _warn_unused_;
/* Stops the work, cleans up in the engine, then calls `done` with an error of kind CANCELLED, which may be
 * before this returns. Harmless when the clean-up has begun already. */
void augment_docker_build_cancel(AugmentDockerBuild *b);
/* When it is still running: stops at once, without clean-up in the engine and without a call of `done`. */
AugmentDockerBuild *augment_docker_build_free(AugmentDockerBuild *b);
TB_DEFINE_CLEANUP(AugmentDockerBuild *, augment_docker_build_free)

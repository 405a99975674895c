/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/cache.h"
#include "registry-client/registry.h"

/*
 * What a name is, and who may have it: the first half of a lookup
 *
 *         policy cached, a tag: RECORD -> there: done
 *                                      -> not: ASK
 *         ASK without credentials -> found: done, public
 *                                 -> refused or not there: ASK with credentials -> found: done, private
 *             no answer within LOOKUP_PATIENCE_USEC, or none at all: RECORD -> there: done, with a notice
 *                                                                           -> not: the registry's own error
 */

typedef struct BaseResolve BaseResolve;

typedef struct BaseAnswer {
        TbDigest digest;
        AugmentSourceKind kind;
        AugmentFrom from;
        bool private;
        char notice[512]; /* "" = nothing to say */
} BaseAnswer;

/* `err` (borrowed) NULL: `answer` (borrowed) is complete. The resolve may be freed from here. */
typedef void (*BaseResolveFn)(BaseResolve *b, const BaseAnswer *answer, const TbError *err, void *userdata);

/*
 * Everything passed in is borrowed and must outlive it. Callbacks come from the loop only. `read`: a base in the testbed's own
 * registry is asked for by GET instead of HEAD, which takes as long, and whoever augments it needs not ask again.
 */
int base_resolve_start(RegistryClient *client, RegistryClient *anonymous, const AugmentRequest *request,
        const RegistryRef *source, const AugmentNames *names, bool read, BaseResolveFn done, void *userdata,
        BaseResolve **ret, TbError **err) _warn_unused_;
/* What was read, in the callback; NULL = nothing was. */
RegistryManifest *base_resolve_steal_manifest(BaseResolve *b);
/* Cancels when still running. */
BaseResolve *base_resolve_free(BaseResolve *b);
TB_DEFINE_CLEANUP(BaseResolve *, base_resolve_free)

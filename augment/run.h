/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/augment.h"
#include "common/error.h"

/*
 * The worker's job from request to answer: resolve, look up, read, mirror, build, push. Blocks; the worker process calls
 * it, and a program of its own may. The order is what keeps a failure from leaving traces: everything that can be
 * refused is refused from the base's manifest and configuration, before the first byte is written; then blobs, which
 * nobody sees without a tag; what the base's files refuse is refused before the base gets one; tags last, the moving one at
 * the very end.
 *
 * What is copied into the mirror is the image of the asked platform, or those of an index that there are payloads for, not
 * the whole index: one upstream has 10 to 20 platforms and their attestations. So a reference to the mirror has the
 * digest of an image's manifest, or of an index without the rest.
 */

typedef struct AugmentRunHooks {
        /* `p` is borrowed. May be NULL. */
        void (*progress)(const AugmentProgress *p, void *userdata);
        /* Files of this machine (credentials, payload) have been read, nothing of a stranger's has: the moment to give up
         * what is needed no more. May be NULL; a negative errno with *err set ends the job. */
        int (*prepared)(void *userdata, TbError **err);
        void *userdata;
} AugmentRunHooks;

/* The request must have been checked. */
int augment_run(const AugmentRequest *request, AugmentOp op, const AugmentRunHooks *hooks,
        AugmentResult *ret, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/error.h"
#include "registry-client/registry.h"

/*
 * Exchanges with a registry that are under way while a job goes on
 *
 * What is written beside an image (its mirror's tags and notes) takes an exchange each and depends on nothing that comes
 * next; waiting for each in turn would be most of what a job takes once the layers are there. They go on whenever the
 * client's loop runs, that is, while anything else is waited for. The job waits for all of them before it writes the
 * names of its result, so that these are still the last.
 */

#define AUGMENT_PENDING_MAX 8U

typedef struct AugmentPending {
        struct {
                RegistryOp *op;
                char *text;       /* what it sends */
                const char *what; /* what can't be done when it fails */
        } items[AUGMENT_PENDING_MAX];
        size_t n;
} AugmentPending;

/* Takes `op` and `text` (may be NULL), also when it fails. `what` is a constant: "cannot ...". */
int augment_pending_add(AugmentPending *p, RegistryOp *op, char *text, const char *what, TbError **err)
        _warn_unused_;
/* PUTs a manifest; takes `text`, also when it fails. */
int augment_pending_manifest(AugmentPending *p, RegistryClient *client, const RegistryRef *ref,
        const char *media_type, char *text, size_t size, const char *what, TbError **err) _warn_unused_;
/* Until all are over; the first error. None is left. */
int augment_pending_wait(AugmentPending *p, TbError **err) _warn_unused_;
/* Gives them up. */
void augment_pending_done(AugmentPending *p);
#define _cleanup_augment_pending_ _cleanup_(augment_pending_done)

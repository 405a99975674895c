/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/augment.h"
#include "augment/cache.h"
#include "common/digest.h"
#include "common/error.h"

/*
 * What lookups have found out before: a bounded memory of one process
 *
 * Nothing in it can be out of date. What an image is follows from its digest; that a key has an image was found in the
 * registry, and is believed only together with an answer of the registry of just now (augment/lookup.c). So a lookup that
 * finds nothing here, as after a restart of the agent, costs more questions and gives the same answer.
 *
 * Each table has as many places as its constant says, and a digest has one place in it: what comes later takes it.
 */

#define KNOWN_IMAGES 1024U
#define KNOWN_HITS 1024U

/* Who made an augmented image, and how much is in it. */
typedef struct KnownImage {
        AugmentLevel level;
        AugmentBuilder builder;
} KnownImage;

/* What a request's name was, and what it was answered with. */
typedef struct KnownHit {
        TbDigest source;
        AugmentSourceKind kind;
        char key_tag[AUGMENT_KEY_TAG_MAX];
        TbDigest digest; /* of the augmented image */
} KnownHit;

int augment_known_new(AugmentKnown **ret, TbError **err) _warn_unused_;
AugmentKnown *augment_known_free(AugmentKnown *k);
TB_DEFINE_CLEANUP(AugmentKnown *, augment_known_free)

/* These accept NULL: it knows nothing. */
bool augment_known_image(const AugmentKnown *k, const TbDigest *digest, KnownImage *ret);
void augment_known_note_image(AugmentKnown *k, const TbDigest *digest, const KnownImage *image);
/* The request must have been checked. */
bool augment_known_hit(const AugmentKnown *k, const AugmentRequest *request, KnownHit *ret);
void augment_known_note_hit(AugmentKnown *k, const AugmentRequest *request, const KnownHit *hit);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/cache.h"
#include "augment/describe.h"
#include "augment/known.h"
#include "augment/platforms.h"
#include "augment/resolve.h"

/*
 * Between lookup.c (from its beginning to the name's digest, and the end), lookup-tags.c (is there an image under the names of
 * this digest?) and lookup-hit.c (there is: the moving tag, who made it)
 *
 * The lookup is a chain of a few exchanges:
 *
 *         RESOLVE   what the name is now (augment/resolve.h)
 *         TAGS      HEAD key tag  |  HEAD moving tag   at the same time
 *         RETAG     GET key tag, PUT moving tag        only when the moving tag names something else; what the name is
 *                                                      is noted beside the mirror then, too
 *         DESCRIBE  who made it (augment/describe.h)   only when this process has not seen the image before
 *         DONE
 *
 * A request that was a hit before asks for the moving tag together with RESOLVE. When the name is still what it was, and the
 * moving tag the image that was the answer then, it is the answer now: the key tag has named it and never moves, and the
 * registry has just said that it has it. So a hit takes one exchange's time. Anything else goes the long way.
 *
 * A name with a digest that is asked for outside of projects begins with TAGS; after a miss it goes on with
 *
 *         MIRROR    HEAD the mirror's tag of the digest -> there: everybody may have it; DONE
 *                                                       -> not: RESOLVE, TAGS
 *
 * A name whose kind isn't known (a digest, where nothing is resolved) may be an index or an image; then the key tags of
 * both are asked for, and there is no moving tag.
 *
 * A base in the testbed's own registry that was no hit before is read in RESOLVE, for the worker.
 *
 * Each callback drops its own operation, notes what it learned, and starts what comes next or ends the lookup. The end is announced from callbacks only, never from augment_lookup_start().
 */

typedef enum LookupState {
        LOOKUP_RESOLVE,  /* asking the source */
        LOOKUP_TAGS,     /* asking for key tag and moving tag; ends when both answers are here */
        LOOKUP_MIRROR,   /* is the base mirrored outside of projects? */
        LOOKUP_RETAG,    /* reading by the key tag, then writing the moving tag */
        LOOKUP_DESCRIBE, /* who made the image? */
        LOOKUP_DONE,     /* the callback was called, or must not be any more */
} LookupState;

struct AugmentLookup {
        RegistryClient *client, *anonymous;
        AugmentRequest request;
        RegistryRef *source;
        RegistryRef *key, *moving; /* moving is NULL when there is no such name */
        RegistryRef *other;        /* the key tag for an image alone, when `key` is that of an index */
        AugmentSourceKind kind;
        Payload *payload;           /* NULL for level none */
        AugmentPlatforms platforms; /* of the request for all; else empty */
        AugmentNames names;
        AugmentResult result;
        LookupState state;
        uint64_t started_us;
        BaseResolve *resolve;
        RegistryManifest *base; /* what the name is, when it was read */
        RegistryOp *key_op, *moving_op, *other_op, *manifest_op;
        char *record;   /* is being written */
        bool by_digest; /* not resolved: the digest is the name's own */
        bool key_found, other_found, ask_other;
        TbDigest key_digest, moving_digest, other_digest;
        AugmentKnown *known;
        KnownHit before;    /* what it was; with `early` only */
        RegistryRef *early; /* the moving tag that is asked for before the name is resolved, or NULL */
        RegistryOp *early_op;
        TbDigest early_digest; /* unset = not there, or not known yet */
        bool early_counts;     /* the name is what it was: the answer decides */
        ImageDescribe *describe;
        bool hit;
        AugmentLookupFn done;
        void *userdata;
};

/* ---- lookup.c ---- */

void lookup_set_state(AugmentLookup *l, LookupState state);
/* Ends the lookup; nothing of it may be touched afterwards. Takes the error; NULL = a miss, or a hit by lookup_finish_hit(). */
void lookup_finish(AugmentLookup *l, TbError *error);
/* The same; the error is borrowed, and may be an operation's own. */
void lookup_fail(AugmentLookup *l, const TbError *error);
int lookup_start_resolve(AugmentLookup *l, TbError **err) _warn_unused_;

/* ---- lookup-tags.c ---- */

/* result.source_digest is known: makes the names that depend on it and asks for them. */
int lookup_start_tags(AugmentLookup *l, TbError **err) _warn_unused_;
/* The moving tag, while the name is being resolved, for a request that was a hit before. Without it the lookup takes longer,
 * that is all. */
void lookup_start_early(AugmentLookup *l);

/* ---- lookup-hit.c ---- */

/* result.digest is the answer. What it is made of is found out if need be; then the lookup ends. */
void lookup_finish_hit(AugmentLookup *l);
/* The key is there and the moving tag names something else: writes it anew, then lookup_finish_hit(). */
int lookup_start_retag(AugmentLookup *l, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "augment/augment.h"
#include "common/digest.h"
#include "common/error.h"

/*
 * The software that is added to images: layers built once (augment/payload/), the same bytes for every
 * image. A directory <payload dir>/<arch>/ holds payload.json and the layers it lists:
 *
 *         { "version": "...", "arch": "amd64",
 *           "layers": [ { "level": "basic", "file": "basic.tar.gz", "digest": "sha256:...", "diff_id":
 * "sha256:...", "size": 123 } ], "components": [ { "name": "...", "version": "...", "source": "...",
 * "license": "..." } ] }
 *
 * It is read strictly: unknown keys, missing fields, a file name with a slash or a wrong type are errors.
 */

typedef struct PayloadLayer {
        AugmentLevel level;
        char *path;       /* absolute */
        char *file;       /* name inside the directory, also in the Dockerfile and its context */
        TbDigest digest;  /* of the compressed file */
        TbDigest diff_id; /* of the tar */
        uint64_t size;    /* compressed bytes */
        bool verified;
} PayloadLayer;

typedef struct Payload {
        char *version;
        char *arch; /* as in image configurations: amd64, arm64 */
        PayloadLayer *layers;
        size_t n_layers;
} Payload;

/* $TBNODE_PAYLOAD_DIR or the installed directory. */
const char *augment_payload_dir(void);

/* `dir` NULL = augment_payload_dir(). A platform that has no payload: -EOPNOTSUPP, kind ENVIRONMENT. */
int payload_load(const char *dir, const char *arch, Payload **ret, TbError **err) _warn_unused_;
Payload *payload_free(Payload *p);
TB_DEFINE_CLEANUP(Payload *, payload_free)
#define _cleanup_payload_ _cleanup_(payload_freep)

/* The layer of exactly this level, or NULL. */
PayloadLayer *payload_find(Payload *p, AugmentLevel level);

/* The layers that an image of a level has: one for each level from basic up, lowest first. */
typedef struct PayloadLayers {
        PayloadLayer *layer[_AUGMENT_LEVEL_MAX]; /* borrowed from the payload */
        size_t n;
} PayloadLayers;

/* Level none: no layers. -ENOENT, kind ENVIRONMENT, when one of them isn't installed. */
int payload_layers(Payload *p, AugmentLevel level, PayloadLayers *ret, TbError **err) _warn_unused_;

/* One digest for all layers that a level needs: that of the layer itself when it is one (basic), else of the
 * text of their digests, one per line. Level none: unset. */
int payload_digest(Payload *p, AugmentLevel level, TbDigest *ret, TbError **err) _warn_unused_;

/* Reads the file once per process and compares size and digest: -EBADMSG when it is not what payload.json
 * says. */
int payload_layer_verify(PayloadLayer *l, TbError **err) _warn_unused_;

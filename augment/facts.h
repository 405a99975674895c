/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "augment/augment.h"
#include "augment/config.h"
#include "augment/image-files.h"
#include "common/error.h"

/*
 * What augmentation has to know about a base image before it adds anything
 *
 * Facts come from the configuration (what runs, as whom, what was added already) and from the layers (what lies in the
 * file system). Their JSON form is versioned and cached by the digest of the manifest they describe:
 *
 *         { "version": 1, "platform": "linux/amd64",
 *           "config": { "entrypoint": [...]|null, "cmd": [...]|null, "user", "working_dir", "stop_signal",
 *                       "home": bool, "volumes": [...], "healthcheck": bool, "on_build": n, "layers": n },
 *           "augmented": null | { "level", "version", "payload" },
 *           "files": null | { ... } }                          image-files.h; null when they weren't looked at
 *
 * A reader ignores members it doesn't know and recomputes facts of another version.
 */

#define IMAGE_FACTS_VERSION 2

/* The private directory in the image, and the first process in it; design.md 4.6. */
#define AUGMENT_ROOT "/tbnode"
#define AUGMENT_INIT "/tbnode/init"

/*
 * Labels of an augmented image. They are not called "tbnode.*": containers inherit the labels of their image, and
 * those say what the agent shall do with a container (design.md 4.2).
 */
#define AUGMENT_LABEL_BASE_NAME "org.opencontainers.image.base.name"
#define AUGMENT_LABEL_BASE_DIGEST "org.opencontainers.image.base.digest"
#define AUGMENT_LABEL_VERSION "org.tbnode.version"
#define AUGMENT_LABEL_LEVEL "org.tbnode.level"
#define AUGMENT_LABEL_PAYLOAD "org.tbnode.payload"

/* How the native builder's entries in an image's history are told. */
#define IMAGE_NATIVE_COMMENT "tbnode "

/* moby layer/layer_store.go: maxLayerDepth. An image with more can be pushed, but no engine runs it. */
#define IMAGE_LAYERS_MAX 125u

typedef struct ImageFacts {
        char *platform; /* "linux/amd64", "linux/arm/v7" */
        size_t n_layers;
        bool augmented;     /* Entrypoint begins with our init */
        AugmentLevel level; /* then: what the label says, BASIC when it says nothing we know */
        AugmentBuilder
                builder; /* then: whose entry of our ENTRYPOINT is the last in the history. A native one writes none
                                    for a base that has no history; docker always does */
        char *augmented_version; /* of the tbnode that did it; NULL = not told */
        char *augmented_payload; /* digest text; NULL = not told */

        bool readable; /* the command line of the init is one that this version writes (or there is none) */

        /* What the image runs without us: the configuration's own values, or for an augmented image those that were
         * wrapped. */
        bool has_entrypoint;
        char **entrypoint; /* NULL when empty */
        char *user;        /* NULL = root */
        bool keep_home;    /* Env has a HOME of its own */
        char *volume;      /* a VOLUME that covers AUGMENT_ROOT, or lies in it; NULL = none */

        ImageFiles *files; /* what the layers say; set by who has looked at them, NULL = nobody has */
} ImageFacts;

int image_facts_collect(const ImageConfig *config, ImageFacts **ret, TbError **err) _warn_unused_;
ImageFacts *image_facts_free(ImageFacts *f);
TB_DEFINE_CLEANUP(ImageFacts *, image_facts_free)
#define _cleanup_image_facts_ _cleanup_(image_facts_freep)

int image_facts_to_json(const ImageFacts *f, const ImageConfig *config, json_t **ret, TbError **err)
        _warn_unused_;

/* The decision table of augmentation: true = use the image as it is. Raise, never lower; `update` does it again. */
bool image_facts_use_as_is(const ImageFacts *f, AugmentLevel wanted, bool update);

/* What makes an image impossible to augment to a level: -ELOOP for a volume in our place, -EEXIST for files there, -E2BIG
 * for too many layers, -EOPNOTSUPP for ONBUILD triggers with the docker builder (it would run them), and for
 * packages with the native one. */
int image_facts_check(const ImageFacts *f, const ImageConfig *config, AugmentLevel level,
        AugmentBuilder builder, TbError **err) _warn_unused_;

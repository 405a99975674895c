/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "augment/augment.h"
#include "augment/config.h"
#include "augment/facts.h"
#include "augment/payload.h"
#include "common/error.h"
#include "registry-client/registry.h"

/*
 * Recipe: what an augmentation does, as a list of Dockerfile instructions
 *
 * This is the one truth. dockerfile.h writes it as text for people and for docker build, build-native.h carries out the
 * same list on an image configuration. Whatever one of them does, the other does because it is a step here.
 *
 * An image that is augmented already is taken apart: layers of the wanted payload that it has stay, so that raising basic
 * to core adds one layer; those of another payload go.
 *
 * A step has the instruction's arguments as bytes, before any quoting.
 */

typedef enum RecipeOp {
        RECIPE_ADD,        /* a payload layer, unpacked at / */
        RECIPE_USER,       /* args[0]: who runs what follows */
        RECIPE_RUN,        /* argv; only a docker build can do that */
        RECIPE_LABEL,      /* name, value, name, value, ... */
        RECIPE_ENTRYPOINT, /* argv */
        RECIPE_CMD,        /* argv, may be empty */
        _RECIPE_OP_MAX,
        _RECIPE_OP_INVALID = -EINVAL,
} RecipeOp;

typedef struct RecipeStep {
        RecipeOp op;
        const char *why;     /* comment above the instruction; static text, lines separated by \n */
        PayloadLayer *layer; /* RECIPE_ADD; borrowed from the payload */
        char **args;         /* NULL = none */
} RecipeStep;

typedef struct Recipe {
        char *base_name;      /* canonical, with the tag when it has one: "docker.io/library/nginx:1.25" */
        TbDigest base_digest; /* manifest of this platform */
        char *platform;
        AugmentLevel level;
        bool has_on_build; /* the base has triggers that a docker build runs */
        bool has_run;      /* there are RUN steps */
        bool augmented;    /* the base is */
        bool *dropped; /* for each layer of the base: it is of an earlier augmentation, and what it held comes anew.
                              The native builder leaves it out; docker build can't, it is covered there */
        size_t n_base_layers;
        RecipeStep *steps;
        size_t n_steps;
} Recipe;

typedef struct RecipeInput {
        const ImageConfig *config;
        const ImageFacts *facts;
        Payload *payload;             /* must outlive the recipe */
        AugmentLevel level;           /* what the image has afterwards */
        bool packages;                /* install what the level has of the distribution's packages */
        const RegistryManifest *base; /* NULL = its layers are not known; then none is told from another */
        const char *base_name;
        TbDigest base_digest;
} RecipeInput;

/* The image must have passed image_facts_check(); for buildenv and full its files must have been looked at. -EOPNOTSUPP: a
 * distribution that there are no packages for. */
int recipe_make(const RecipeInput *input, Recipe **ret, TbError **err) _warn_unused_;
Recipe *recipe_free(Recipe *r);
TB_DEFINE_CLEANUP(Recipe *, recipe_free)
#define _cleanup_recipe_ _cleanup_(recipe_freep)

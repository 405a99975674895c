/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the augment tests share: image configurations from tests/unit/data/augment/ and a payload that exists only as
 * a description. */

#include "augment/dockerfile.h"
#include "augment/recipe.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"

#define FIXTURE_BASE "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define FIXTURE_LAYER "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define FIXTURE_CORE "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
#define FIXTURE_CORE_DIFF "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
#define FIXTURE_DIFF "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

typedef struct Fixture {
        ImageConfig *config;
        ImageFacts *facts;
        Recipe *recipe;
        PayloadLayer layers[2]; /* basic, core */
        Payload payload;
        char *path; /* of the file, without ".json" */
} Fixture;

static inline void fixture_done(Fixture *f)
{
        recipe_free(f->recipe);
        image_facts_free(f->facts);
        image_config_free(f->config);
        free(f->path);
}
#define _cleanup_fixture_ _cleanup_(fixture_done)

/* Reads the configuration and collects its facts. */
static inline void fixture_load(Fixture *f, const char *name)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *path = NULL, *data = NULL;
        const char *srcdir = getenv("srcdir");
        size_t size;

        *f = (Fixture){};
        f->path = tb_asprintf("%s/tests/unit/data/augment/%s", srcdir ? srcdir : ".", name);
        assert_non_null(f->path);
        path = tb_asprintf("%s.json", f->path);
        assert_non_null(path);
        assert_ok(tb_file_read(path, IMAGE_CONFIG_MAX, &data, &size, &err), err);
        assert_ok(image_config_parse(data, size, &f->config, &err), err);
        assert_ok(image_facts_collect(f->config, &f->facts, &err), err);

        f->layers[0] = (PayloadLayer){
                .level = AUGMENT_LEVEL_BASIC,
                .path = (char *) "/nowhere/basic.tar.gz",
                .file = (char *) "basic.tar.gz",
                .size = 4711,
        };
        f->layers[1] = (PayloadLayer){
                .level = AUGMENT_LEVEL_CORE,
                .path = (char *) "/nowhere/core.tar.gz",
                .file = (char *) "core.tar.gz",
                .size = 815,
        };
        assert_ok(tb_digest_parse(FIXTURE_LAYER, &f->layers[0].digest, &err), err);
        assert_ok(tb_digest_parse(FIXTURE_DIFF, &f->layers[0].diff_id, &err), err);
        assert_ok(tb_digest_parse(FIXTURE_CORE, &f->layers[1].digest, &err), err);
        assert_ok(tb_digest_parse(FIXTURE_CORE_DIFF, &f->layers[1].diff_id, &err), err);
        f->payload = (Payload){
                .version = (char *) "test",
                .arch = (char *) "amd64",
                .layers = f->layers,
                .n_layers = ELEMENTSOF(f->layers),
        };
}

static inline void fixture_make_recipe_at(Fixture *f, AugmentLevel level)
{
        _cleanup_error_ TbError *err = NULL;
        RecipeInput input = {
                .config = f->config,
                .facts = f->facts,
                .payload = &f->payload,
                .level = level,
                .packages = level >= AUGMENT_LEVEL_BUILDENV,
                .base_name = "docker.io/library/fixture:1.0",
        };

        assert_ok(tb_digest_parse(FIXTURE_BASE, &input.base_digest, &err), err);
        assert_ok(recipe_make(&input, &f->recipe, &err), err);
}

static inline void fixture_make_recipe(Fixture *f)
{
        fixture_make_recipe_at(f, AUGMENT_LEVEL_BASIC);
}

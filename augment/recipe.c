/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/packages.h"
#include "augment/recipe.h"
#include "common/cleanup.h"
#include "common/strv.h"

/* ADD once per payload layer, USER twice, the others at most once. */
#define STEPS_MAX 16u

static RecipeStep *add_step(Recipe *r, RecipeOp op, const char *why)
{
        RecipeStep *s = &r->steps[r->n_steps++];

        s->op = op;
        s->why = why;
        return s;
}

static int append_all(char ***v, char *const *more, TbError **err)
{
        for (; more && *more; more++) {
                int k = tb_strv_append(v, *more, err);
                if (k < 0)
                        return k;
        }
        return 0;
}

static int append_option(char ***v, const char *name, const char *value, TbError **err)
{
        int k = tb_strv_append(v, name, err);

        return k < 0 ? k : tb_strv_append(v, value, err);
}

/* Does the base have it, as the layer of an augmentation? */
static bool has_layer(const RecipeInput *in, const PayloadLayer *layer)
{
        const ImageFiles *f = in->facts->augmented && in->base ? in->facts->files : NULL;

        for (size_t i = 0; f && i < f->n_own; i++)
                if (f->own[i] < in->base->n_layers &&
                        tb_digest_equal(&in->base->layers[f->own[i]].digest, &layer->digest))
                        return true;
        return false;
}

static int drop_layers(Recipe *r, const RecipeInput *in, const PayloadLayers *wanted, TbError **err)
{
        const ImageFiles *f = in->facts->augmented && in->base ? in->facts->files : NULL;

        r->n_base_layers = in->base ? in->base->n_layers : 0;
        r->dropped = calloc(r->n_base_layers + 1, sizeof(*r->dropped));
        if (!r->dropped)
                return tb_error_oom(err);
        for (size_t i = 0; f && i < f->n_own; i++) {
                bool stays = false;

                if (f->own[i] >= r->n_base_layers)
                        continue;
                for (size_t k = 0; k < wanted->n; k++)
                        stays |= tb_digest_equal(
                                &in->base->layers[f->own[i]].digest, &wanted->layer[k]->digest);
                r->dropped[f->own[i]] = !stays;
        }
        return 0;
}

static int add_payload(Recipe *r, const RecipeInput *in, TbError **err)
{
        static const char *const why[] = {
                [AUGMENT_LEVEL_BASIC] =
                        "The testbed's software: static programs, all of them under " AUGMENT_ROOT
                        ".\nNo file of the image is touched.",
                [AUGMENT_LEVEL_CORE] = "Level core: the testbed client beside them.",
        };
        PayloadLayers layers;
        int k;

        k = payload_layers(in->payload, in->level, &layers, err);
        if (k < 0)
                return k;
        k = drop_layers(r, in, &layers, err);
        for (size_t i = 0; k >= 0 && i < layers.n; i++) {
                PayloadLayer *layer = layers.layer[i];

                if (has_layer(in, layer))
                        continue;
                add_step(r, RECIPE_ADD,
                        (size_t) layer->level < ELEMENTSOF(why) ? why[layer->level]
                                                                : "More of the testbed's software.")
                        ->layer = layer;
        }
        return k;
}

/* What the distribution's package tool is to do, as root, whoever the image's user is. */
static int add_packages(Recipe *r, const RecipeInput *in, TbError **err)
{
        _cleanup_free_ char *script = NULL;
        RecipeStep *s;
        int k;

        if (!in->packages)
                return 0;
        if (!in->facts->files)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "nobody has looked at the image's files");
        k = augment_packages_script(in->facts->files, in->level, &script, err);
        if (k < 0)
                return k;
        if (in->config->user) {
                s = add_step(r, RECIPE_USER, "Packages are installed by root.");
                k = tb_strv_append(&s->args, "0", err);
                if (k < 0)
                        return k;
        }
        s = add_step(r, RECIPE_RUN,
                in->level == AUGMENT_LEVEL_FULL ? "Level full: a compiler and its friends, servers and "
                                                  "tools, from the distribution's own "
                                                  "packages.\nWhat a release does not have is left out."
                                                : "Level buildenv: a compiler and its friends, from the "
                                                  "distribution's own packages.\nWhat a "
                                                  "release does not have is left out.");
        r->has_run = true;
        if ((k = tb_strv_append(&s->args, "/bin/sh", err)) < 0 ||
                (k = tb_strv_append(&s->args, "-euc", err)) < 0 ||
                (k = tb_strv_consume(&s->args, TAKE_PTR(script), err)) < 0)
                return k;
        if (!in->config->user)
                return 0;
        s = add_step(r, RECIPE_USER, "The image's own user again.");
        return tb_strv_append(&s->args, in->config->user, err);
}

static int add_labels(Recipe *r, const RecipeInput *in, TbError **err)
{
        RecipeStep *s = add_step(r, RECIPE_LABEL, "What this image was made from, and with what.");
        TbDigest payload = {};
        int k;

        k = payload_digest(in->payload, in->level, &payload, err);
        if (k < 0)
                return k;
        if ((k = append_option(&s->args, AUGMENT_LABEL_BASE_NAME, in->base_name, err)) < 0 ||
                (k = append_option(&s->args, AUGMENT_LABEL_BASE_DIGEST, in->base_digest.text, err)) < 0 ||
                (k = append_option(&s->args, AUGMENT_LABEL_VERSION, TBNODE_VERSION, err)) < 0 ||
                (k = append_option(&s->args, AUGMENT_LABEL_LEVEL, augment_level_to_string(in->level), err)) <
                        0)
                return k;
        return append_option(&s->args, AUGMENT_LABEL_PAYLOAD, payload.text, err);
}

/* The options are the contract of augment/client/README.md. --user and --keep-home matter to a testbed node only, whose
 * container starts as root whatever the image says; in a plain container the engine has seen to the user. */
static int add_entrypoint(Recipe *r, const RecipeInput *in, TbError **err)
{
        RecipeStep *s = add_step(r, RECIPE_ENTRYPOINT,
                "The first process. What follows -- is the image's own ENTRYPOINT; arguments of docker run, "
                "or\n"
                "CMD, come behind it as always.");
        int k;

        k = tb_strv_append(&s->args, AUGMENT_INIT, err);
        if (k < 0)
                return k;
        if ((in->facts->user && (k = append_option(&s->args, "--user", in->facts->user, err)) < 0) ||
                (in->facts->keep_home && (k = tb_strv_append(&s->args, "--keep-home", err)) < 0) ||
                (in->config->stop_signal &&
                        (k = append_option(&s->args, "--stop-signal", in->config->stop_signal, err)) < 0) ||
                (k = append_option(&s->args, "--level", augment_level_to_string(in->level), err)) < 0 ||
                (k = tb_strv_append(&s->args, "--", err)) < 0)
                return k;
        return append_all(&s->args, in->facts->entrypoint, err);
}

static int add_cmd(Recipe *r, const RecipeInput *in, TbError **err)
{
        RecipeStep *s;

        /* An image without CMD stays without: ENTRYPOINT has cleared it. */
        if (!in->config->has_cmd)
                return 0;
        s = add_step(r, RECIPE_CMD, "Restated, because ENTRYPOINT clears the inherited CMD.");
        return append_all(&s->args, in->config->cmd, err);
}

int recipe_make(const RecipeInput *input, Recipe **ret, TbError **err)
{
        _cleanup_recipe_ Recipe *r = NULL;
        int k;

        r = calloc(1, sizeof(*r));
        if (!r)
                return tb_error_oom(err);
        r->level = input->level;
        r->base_digest = input->base_digest;
        r->has_on_build = input->config->on_build != NULL;
        r->augmented = input->facts->augmented;
        r->base_name = strdup(input->base_name);
        r->platform = strdup(input->facts->platform);
        r->steps = calloc(STEPS_MAX, sizeof(*r->steps));
        if (!r->base_name || !r->platform || !r->steps)
                return tb_error_oom(err);

        if ((k = add_payload(r, input, err)) < 0 || (k = add_packages(r, input, err)) < 0 ||
                (k = add_labels(r, input, err)) < 0 || (k = add_entrypoint(r, input, err)) < 0 ||
                (k = add_cmd(r, input, err)) < 0)
                return k;
        *ret = TAKE_PTR(r);
        return 0;
}

Recipe *recipe_free(Recipe *r)
{
        if (!r)
                return NULL;
        for (size_t i = 0; i < r->n_steps; i++)
                tb_strv_free(r->steps[i].args);
        free(r->steps);
        free(r->dropped);
        free(r->base_name);
        free(r->platform);
        free(r);
        return NULL;
}

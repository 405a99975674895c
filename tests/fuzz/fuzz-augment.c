/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Image configurations come from strangers. Whatever is accepted must be augmentable without a crash, the Dockerfile must
 * say exactly what the native builder does, and the result must be a configuration again that is recognised as augmented
 * and gives the original command back.
 */

#include <stdlib.h>
#include <string.h>

#include "augment/build-native.h"
#include "augment/dockerfile.h"
#include "augment/facts.h"
#include "augment/recipe.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "tests/fuzz/fuzz.h"

#define SOME_DIGEST "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

/* Reads an instruction as docker's parser does: lines joined at their last backslash. */
static char *instruction(const char *text, const char *name)
{
        char *out = malloc(strlen(text) + 1), *end = out;
        const char *p = text;
        size_t n = strlen(name);

        if (!out)
                return NULL;
        while (p && (strncmp(p, name, n) != 0 || p[n] != ' ')) {
                p = strchr(p, '\n');
                p = p ? p + 1 : NULL;
        }
        while (p) {
                size_t line = strcspn(p, "\n");

                fuzz_assert(line < 65536);
                fuzz_assert(p[strspn(p, " \t")] != '#');
                memcpy(end, p, line);
                end += line;
                if (line == 0 || end[-1] != '\\')
                        break;
                end--;
                fuzz_assert(line < 2 || end[-1] != '\\');
                p += line + 1;
        }
        *end = 0;
        return out;
}

static void check_array(const char *text, const char *name, char *const *expected)
{
        _cleanup_free_ char *line = instruction(text, name);
        _cleanup_json_ json_t *array = NULL;
        const char *json = line ? strchr(line, '[') : NULL;
        json_t *value;
        size_t i;

        if (!line)
                return;
        fuzz_assert(json);
        array = json_loads(json, 0, NULL);
        fuzz_assert(json_is_array(array) && json_array_size(array) == tb_strv_length(expected));
        json_array_foreach (array, i, value)
                fuzz_assert(tb_streq(json_string_value(value), expected[i]));
}

static void check_dockerfile(const Recipe *recipe)
{
        _cleanup_free_ char *text = NULL;
        int r = dockerfile_render(recipe, &text, NULL);

        if (r < 0)
                return;
        /* No byte that hides what the text says. */
        for (const char *p = text; *p; p++)
                fuzz_assert(*p == '\n' || ((unsigned char) *p >= 0x20 && *p != 0x7f));
        for (size_t i = 0; i < recipe->n_steps; i++) {
                if (recipe->steps[i].op == RECIPE_ENTRYPOINT)
                        check_array(text, "ENTRYPOINT", recipe->steps[i].args);
                if (recipe->steps[i].op == RECIPE_CMD)
                        check_array(text, "CMD", recipe->steps[i].args);
        }
}

static void check_result(ImageConfig *config, const ImageFacts *before)
{
        _cleanup_image_config_ ImageConfig *again = NULL;
        _cleanup_image_facts_ ImageFacts *after = NULL;
        _cleanup_free_ char *text = NULL;
        size_t size;

        if (image_config_dump(config, &text, &size, NULL) < 0 || size > IMAGE_CONFIG_MAX)
                return;
        fuzz_assert(image_config_parse(text, size, &again, NULL) >= 0);
        fuzz_assert(again->n_diff_ids == config->n_diff_ids + 1);
        if (image_facts_collect(again, &after, NULL) < 0)
                return;
        fuzz_assert(after->augmented && after->readable && after->level == AUGMENT_LEVEL_BASIC);
        fuzz_assert(tb_strv_equal(after->entrypoint, before->entrypoint));
        fuzz_assert(tb_streq(after->user ? after->user : "", before->user ? before->user : ""));
        fuzz_assert(after->keep_home == before->keep_home);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        PayloadLayer layer = {.level = AUGMENT_LEVEL_BASIC, .file = (char *) "basic.tar.gz", .size = 1};
        Payload payload = {.arch = (char *) "amd64", .layers = &layer, .n_layers = 1};
        _cleanup_image_config_ ImageConfig *config = NULL;
        _cleanup_image_facts_ ImageFacts *facts = NULL;
        _cleanup_recipe_ Recipe *recipe = NULL;
        _cleanup_json_ json_t *json = NULL;

        if (tb_digest_parse(SOME_DIGEST, &layer.digest, NULL) < 0)
                return 0;
        layer.diff_id = layer.digest;
        if (image_config_parse((const char *) data, size, &config, NULL) < 0 ||
                image_facts_collect(config, &facts, NULL) < 0 ||
                image_facts_to_json(facts, config, &json, NULL) < 0 ||
                image_facts_check(facts, config, AUGMENT_LEVEL_BASIC, AUGMENT_BUILDER_NATIVE, NULL) < 0)
                return 0;
        RecipeInput input = {
                .config = config,
                .facts = facts,
                .payload = &payload,
                .level = AUGMENT_LEVEL_BASIC,
                .base_name = "docker.io/library/x:1",
                .base_digest = layer.digest,
        };

        if (recipe_make(&input, &recipe, NULL) < 0)
                return 0;
        check_dockerfile(recipe);
        if (native_apply_config(config, recipe, NULL) >= 0)
                check_result(config, facts);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "tests/unit/test.h"

#include "augment/build-native.h"
#include "common/json.h"
#include "tests/unit/augment-fixture.h"

#define ROOTFS "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" FIXTURE_DIFF "\"]}"
#define HEAD "{\"os\":\"linux\",\"architecture\":\"amd64\"," ROOTFS

static int parse(const char *text, ImageConfig **ret, TbError **err)
{
        return image_config_parse(text, strlen(text), ret, err);
}

static json_t *member(const Fixture *f, const char *key)
{
        return json_object_get(json_object_get(f->config->document, "config"), key);
}

static void apply(Fixture *f, const char *name)
{
        _cleanup_error_ TbError *err = NULL;

        fixture_load(f, name);
        fixture_make_recipe(f);
        assert_ok(native_apply_config(f->config, f->recipe, &err), err);
}

static void assert_json(const json_t *value, const char *expected)
{
        _cleanup_json_ json_t *e = json_loads(expected, JSON_DECODE_ANY, NULL);

        assert_non_null(e);
        if (!json_equal(value, e)) {
                _cleanup_free_ char *got = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;

                fail_msg("expected %s, got %s", expected, got ? got : "nothing");
        }
}

/* Everything that augmentation does not mean to change is the same afterwards, known to us or not. */
static void test_unknown_fields_survive(void **state)
{
        _cleanup_fixture_ Fixture before = {}, after = {};
        const char *key;
        json_t *value;

        fixture_load(&before, "unknown-fields");
        apply(&after, "unknown-fields");
        json_object_foreach (before.config->document, key, value)
                if (!tb_streq(key, "config") && !tb_streq(key, "rootfs") && !tb_streq(key, "history"))
                        assert_true(json_equal(value, json_object_get(after.config->document, key)));
        json_object_foreach (json_object_get(before.config->document, "config"), key, value)
                if (!tb_streq(key, "Entrypoint") && !tb_streq(key, "Labels"))
                        assert_true(json_equal(value, member(&after, key)));
        /* The order of keys is the original's. */
        _cleanup_free_ char *text = NULL;
        _cleanup_error_ TbError *err = NULL;
        size_t size;
        assert_ok(image_config_dump(after.config, &text, &size, &err), err);
        assert_true(strstr(text, "\"Hostname\"") < strstr(text, "\"FutureField\""));
        assert_true(strstr(text, "\"FutureField\"") < strstr(text, "\"container_config\""));
}

static void test_null_and_empty(void **state)
{
        _cleanup_fixture_ Fixture absent = {}, empty = {}, null = {}, none = {};

        apply(&absent, "nothing");
        assert_null(member(&absent, "Cmd"));
        assert_json(member(&absent, "Entrypoint"), "[\"/tbnode/init\",\"--level\",\"basic\",\"--\"]");

        apply(&empty, "empty-cmd");
        assert_json(member(&empty, "Cmd"), "[]");

        apply(&null, "python");
        assert_json(member(&null, "Cmd"), "[\"python3\"]");

        /* "config": null */
        apply(&none, "no-config");
        assert_non_null(member(&none, "Entrypoint"));
        assert_null(member(&none, "Cmd"));
}

static void test_options(void **state)
{
        _cleanup_fixture_ Fixture nginx = {}, memcached = {}, mongo = {}, kong = {}, root = {};

        apply(&nginx, "nginx");
        assert_json(member(&nginx, "Entrypoint"),
                "[\"/tbnode/init\",\"--stop-signal\",\"SIGQUIT\",\"--level\",\"basic\",\"--\",\"/"
                "docker-entrypoint.sh\"]");
        assert_null(member(&nginx, "User"));
        assert_json(member(&nginx, "StopSignal"), "\"SIGQUIT\"");

        apply(&memcached, "memcached");
        assert_json(member(&memcached, "Entrypoint"),
                "[\"/tbnode/"
                "init\",\"--user\",\"memcache\",\"--level\",\"basic\",\"--\",\"docker-entrypoint.sh\"]");
        assert_json(member(&memcached, "User"), "\"memcache\"");

        apply(&mongo, "mongo");
        assert_json(member(&mongo, "Entrypoint"),
                "[\"/tbnode/init\",\"--keep-home\",\"--level\",\"basic\",\"--\",\"docker-entrypoint.sh\"]");

        apply(&kong, "kong");
        assert_json(member(&kong, "Healthcheck"),
                "{\"Test\":[\"CMD-SHELL\",\"kong health || exit 1\"],\"Interval\":60000000000,"
                "\"Timeout\":10000000000,\"Retries\":10,"
                "\"Unknown\":\"kept\"}");

        /* An image that says it starts as root keeps its own word for that. */
        apply(&root, "root-user");
        assert_json(member(&root, "User"), "\"root\"");
        assert_json(member(&root, "Entrypoint"), "[\"/tbnode/init\",\"--level\",\"basic\",\"--\"]");
}

static void test_layers_and_history(void **state)
{
        _cleanup_fixture_ Fixture f = {};
        size_t layers = 0, i;
        json_t *entry;

        apply(&f, "memcached");
        assert_int_equal(
                json_array_size(json_object_get(json_object_get(f.config->document, "rootfs"), "diff_ids")),
                2);
        assert_string_equal(
                json_string_value(json_array_get(
                        json_object_get(json_object_get(f.config->document, "rootfs"), "diff_ids"), 1)),
                FIXTURE_DIFF);
        json_array_foreach (json_object_get(f.config->document, "history"), i, entry)
                if (!json_is_true(json_object_get(entry, "empty_layer")))
                        layers++;
        assert_int_equal(layers, 2);
        /* ADD LABEL ENTRYPOINT CMD behind the base's one. */
        assert_int_equal(json_array_size(json_object_get(f.config->document, "history")), 5);
        assert_string_equal(
                json_string_value(json_object_get(
                        json_array_get(json_object_get(f.config->document, "history"), 1), "created_by")),
                "ADD basic.tar.gz /");
}

/* An augmented image is taken apart again, not wrapped twice. */
static void test_augment_again(void **state)
{
        _cleanup_fixture_ Fixture f = {};

        fixture_load(&f, "augmented");
        assert_true(f.facts->augmented);
        assert_int_equal(f.facts->level, AUGMENT_LEVEL_BASIC);
        assert_string_equal(f.facts->user, "memcache");
        assert_true(image_facts_use_as_is(f.facts, AUGMENT_LEVEL_BASIC, false));
        assert_false(image_facts_use_as_is(f.facts, AUGMENT_LEVEL_BASIC, true));
        assert_false(image_facts_use_as_is(f.facts, AUGMENT_LEVEL_CORE, false));
        assert_true(image_facts_use_as_is(f.facts, AUGMENT_LEVEL_NONE, true));
        fixture_done(&f);

        apply(&f, "augmented");
        assert_json(member(&f, "Entrypoint"),
                "[\"/tbnode/"
                "init\",\"--user\",\"memcache\",\"--level\",\"basic\",\"--\",\"docker-entrypoint.sh\"]");
        assert_json(json_object_get(member(&f, "Healthcheck"), "Test"), "[\"CMD-SHELL\",\"true\"]");
        assert_json(member(&f, "User"), "\"memcache\"");
}

static void test_refusals(void **state)
{
        _cleanup_fixture_ Fixture volume = {}, near = {}, onbuild = {};
        _cleanup_error_ TbError *err = NULL;

        fixture_load(&volume, "volume-collision");
        assert_error(image_facts_check(
                             volume.facts, volume.config, AUGMENT_LEVEL_BASIC, AUGMENT_BUILDER_NATIVE, &err),
                -ELOOP, err);
        assert_ok(image_facts_check(
                          volume.facts, volume.config, AUGMENT_LEVEL_NONE, AUGMENT_BUILDER_NATIVE, &err),
                err);

        fixture_load(&near, "volume-near");
        assert_null(near.facts->volume);

        fixture_load(&onbuild, "onbuild");
        assert_ok(image_facts_check(
                          onbuild.facts, onbuild.config, AUGMENT_LEVEL_BASIC, AUGMENT_BUILDER_NATIVE, &err),
                err);
        assert_error(image_facts_check(onbuild.facts, onbuild.config, AUGMENT_LEVEL_BASIC,
                             AUGMENT_BUILDER_DOCKER, &err),
                -EOPNOTSUPP, err);
        assert_error(image_facts_check(onbuild.facts, onbuild.config, AUGMENT_LEVEL_BUILDENV,
                             AUGMENT_BUILDER_NATIVE, &err),
                -EOPNOTSUPP, err);
        near.facts->files = calloc(1, sizeof(*near.facts->files));
        assert_non_null(near.facts->files);
        near.facts->files->has_root = true;
        assert_error(image_facts_check(
                             near.facts, near.config, AUGMENT_LEVEL_BASIC, AUGMENT_BUILDER_NATIVE, &err),
                -EEXIST, err);
        onbuild.facts->n_layers = IMAGE_LAYERS_MAX;
        assert_error(image_facts_check(onbuild.facts, onbuild.config, AUGMENT_LEVEL_BASIC,
                             AUGMENT_BUILDER_NATIVE, &err),
                -E2BIG, err);
}

static void test_strict(void **state)
{
        static const char *const broken[] = {
                "",
                "[]",
                "{}",
                "{\"os\":\"linux\"," ROOTFS "}",
                "{\"os\":\"linux\",\"architecture\":\"amd64\"}",
                "{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":{\"diff_ids\":[1]}}",
                HEAD ",\"config\":[]}",
                HEAD ",\"config\":{\"Entrypoint\":\"sh\"}}",
                HEAD ",\"config\":{\"Cmd\":[\"a\",null]}}",
                HEAD ",\"config\":{\"User\":1000}}",
                HEAD ",\"config\":{\"Env\":{}}}",
                HEAD ",\"config\":{\"Volumes\":[\"/data\"]}}",
                HEAD ",\"config\":{\"Labels\":{\"a\":1}}}",
                HEAD ",\"config\":{\"Healthcheck\":[\"CMD\"]}}",
                HEAD ",\"config\":{\"Healthcheck\":{\"Test\":\"true\"}}}",
                HEAD ",\"config\":{\"User\":\"a\\u0000b\"}}",
                HEAD ",\"history\":[1]}",
                HEAD "} x",
        };
        _cleanup_error_ TbError *err = NULL;
        ImageConfig *c = NULL;

        for (size_t i = 0; i < ELEMENTSOF(broken); i++) {
                int r = parse(broken[i], &c, &err);

                if (r >= 0)
                        fail_msg("accepted: %s", broken[i]);
                assert_non_null(err);
                assert_null(c);
                err = tb_error_free(err);
        }
        assert_error(parse("{\"os\":\"windows\",\"architecture\":\"amd64\"," ROOTFS "}", &c, &err),
                -EOPNOTSUPP, err);
}

static RegistryManifest *manifest(const char *text)
{
        _cleanup_error_ TbError *err = NULL;
        RegistryManifest *m = NULL;

        assert_ok(registry_manifest_parse(text, strlen(text), NULL, NULL, &m, &err), err);
        return m;
}

#define DOCKER_MANIFEST                                                                               \
        "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_DOCKER_MANIFEST                         \
        "\",\"config\":{\"mediaType\":\"" REGISTRY_TYPE_DOCKER_CONFIG "\",\"digest\":\"" FIXTURE_BASE \
        "\",\"size\":5},\"layers\":[{\"mediaType\":\"" REGISTRY_TYPE_DOCKER_LAYER                     \
        "\",\"digest\":\"" FIXTURE_DIFF "\",\"size\":7}]}"
#define OCI_MANIFEST                                                                                      \
        "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG                      \
        "\",\"digest\":\"" FIXTURE_BASE                                                                   \
        "\",\"size\":5,\"data\":\"e30=\"},\"layers\":[{\"mediaType\":\"" REGISTRY_TYPE_OCI_LAYER "\","    \
        "\"digest\":\"" FIXTURE_DIFF "\",\"size\":7}],\"annotations\":{\"a\":\"b\"},\"x\":1,\"subject\":" \
        "{\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST "\",\"digest\":\"" FIXTURE_BASE "\",\"size\":5}}"

static json_t *make_at(const char *base_text, AugmentLevel level)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *base = manifest(base_text);
        _cleanup_fixture_ Fixture f = {};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *text = NULL;
        TbDigest config;
        json_t *j = NULL;
        size_t size;

        fixture_load(&f, "nginx");
        fixture_make_recipe_at(&f, level);
        assert_ok(tb_digest_parse(FIXTURE_LAYER, &config, &err), err);
        assert_ok(native_make_manifest(base, f.recipe, &config, 4242, &text, &size, &err), err);
        assert_ok(tb_json_parse(text, size, size, "manifest", &j, &err), err);
        return j;
}

static json_t *make(const char *base_text)
{
        return make_at(base_text, AUGMENT_LEVEL_BASIC);
}

/* Media types follow the base; a Docker manifest has no annotations. */
static void test_manifest(void **state)
{
        _cleanup_json_ json_t *docker = make(DOCKER_MANIFEST), *oci = make(OCI_MANIFEST);
        const json_t *layer, *annotations;

        assert_json(json_object_get(docker, "config"),
                "{\"mediaType\":\"" REGISTRY_TYPE_DOCKER_CONFIG "\",\"digest\":\"" FIXTURE_LAYER
                "\",\"size\":4242}");
        assert_int_equal(json_array_size(json_object_get(docker, "layers")), 2);
        layer = json_array_get(json_object_get(docker, "layers"), 1);
        assert_json(layer,
                "{\"mediaType\":\"" REGISTRY_TYPE_DOCKER_LAYER "\",\"digest\":\"" FIXTURE_LAYER
                "\",\"size\":4711}");
        assert_null(json_object_get(docker, "annotations"));

        assert_json(json_object_get(oci, "config"),
                "{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG "\",\"digest\":\"" FIXTURE_LAYER
                "\",\"size\":4242}");
        assert_json(json_object_get(oci, "mediaType"), "\"" REGISTRY_TYPE_OCI_MANIFEST "\"");
        layer = json_array_get(json_object_get(oci, "layers"), 1);
        assert_json(json_object_get(layer, "mediaType"), "\"" REGISTRY_TYPE_OCI_LAYER "\"");
        annotations = json_object_get(oci, "annotations");
        assert_json(json_object_get(annotations, "a"), "\"b\"");
        assert_json(json_object_get(annotations, AUGMENT_LABEL_BASE_DIGEST), "\"" FIXTURE_BASE "\"");
        assert_json(
                json_object_get(annotations, AUGMENT_LABEL_BASE_NAME), "\"docker.io/library/fixture:1.0\"");
        assert_json(json_object_get(annotations, AUGMENT_LABEL_LEVEL), "\"basic\"");
        assert_json(json_object_get(annotations, AUGMENT_LABEL_PAYLOAD), "\"" FIXTURE_LAYER "\"");
        assert_json(json_object_get(oci, "x"), "1");
        assert_null(json_object_get(oci, "subject"));
}

/* sha256 of "FIXTURE_LAYER\nFIXTURE_CORE\n": the payload of a core image is both layers. */
#define CORE_PAYLOAD "sha256:5ea41603e530c3a42f22350ba67cfe269e9fc025ff93a1e40cc415bbb325276d"

/* Level core: the layers of basic and core, in this order, in the manifest, in the configuration, and one digest over
 * both in the labels. */
static void test_core(void **state)
{
        _cleanup_json_ json_t *oci = make_at(OCI_MANIFEST, AUGMENT_LEVEL_CORE);
        const json_t *layers = json_object_get(oci, "layers"), *diff_ids, *entrypoint;
        _cleanup_fixture_ Fixture f = {};
        _cleanup_error_ TbError *err = NULL;
        size_t before;

        assert_int_equal(json_array_size(layers), 3);
        assert_json(json_object_get(json_array_get(layers, 1), "digest"), "\"" FIXTURE_LAYER "\"");
        assert_json(json_object_get(json_array_get(layers, 2), "digest"), "\"" FIXTURE_CORE "\"");
        assert_json(json_object_get(json_object_get(oci, "annotations"), AUGMENT_LABEL_LEVEL), "\"core\"");

        fixture_load(&f, "nginx");
        before = f.config->n_diff_ids;
        fixture_make_recipe_at(&f, AUGMENT_LEVEL_CORE);
        assert_ok(native_apply_config(f.config, f.recipe, &err), err);
        diff_ids = json_object_get(json_object_get(f.config->document, "rootfs"), "diff_ids");
        assert_int_equal(json_array_size(diff_ids), before + 2);
        assert_json(json_array_get(diff_ids, before), "\"" FIXTURE_DIFF "\"");
        assert_json(json_array_get(diff_ids, before + 1), "\"" FIXTURE_CORE_DIFF "\"");
        assert_json(json_object_get(member(&f, "Labels"), AUGMENT_LABEL_PAYLOAD), "\"" CORE_PAYLOAD "\"");
        entrypoint = member(&f, "Entrypoint");
        assert_json(json_array_get(entrypoint, 4), "\"core\"");

        /* What is at core needs nothing for basic, what is at basic isn't core. */
        f.facts->augmented = true;
        f.facts->level = AUGMENT_LEVEL_CORE;
        assert_true(image_facts_use_as_is(f.facts, AUGMENT_LEVEL_BASIC, false));
        assert_true(image_facts_use_as_is(f.facts, AUGMENT_LEVEL_CORE, false));
        f.facts->level = AUGMENT_LEVEL_BASIC;
        assert_false(image_facts_use_as_is(f.facts, AUGMENT_LEVEL_CORE, false));

        /* Both layers have to fit below an engine's limit. */
        f.facts->n_layers = IMAGE_LAYERS_MAX - 1;
        assert_ok(image_facts_check(f.facts, f.config, AUGMENT_LEVEL_BASIC, AUGMENT_BUILDER_NATIVE, &err),
                err);
        assert_error(image_facts_check(f.facts, f.config, AUGMENT_LEVEL_CORE, AUGMENT_BUILDER_NATIVE, &err),
                -E2BIG, err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_unknown_fields_survive),
                cmocka_unit_test(test_null_and_empty),
                cmocka_unit_test(test_options),
                cmocka_unit_test(test_layers_and_history),
                cmocka_unit_test(test_augment_again),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_strict),
                cmocka_unit_test(test_manifest),
                cmocka_unit_test(test_core),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

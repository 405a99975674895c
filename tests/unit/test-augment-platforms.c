/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Indexes: which entries are augmented, and the index that is made of the results. Images that are augmented already:
 * which of their layers stay. */

#include "tests/unit/test.h"

#include "augment/build-native.h"
#include "augment/platforms.h"
#include "common/json.h"
#include "tests/unit/augment-fixture.h"

#define A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B FIXTURE_BASE
#define C FIXTURE_LAYER
#define D FIXTURE_DIFF
#define IMAGE(type, digest, platform) \
        "{\"mediaType\":\"" type "\",\"digest\":\"" digest "\",\"size\":5" platform "}"
#define PLATFORM(os, arch) ",\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch "\"}"
#define OCI(digest, platform) IMAGE(REGISTRY_TYPE_OCI_MANIFEST, digest, platform)
#define INDEX(type, entries, more) \
        "{\"schemaVersion\":2,\"mediaType\":\"" type "\",\"manifests\":[" entries "]" more "}"

static RegistryManifest *parse(const char *text)
{
        _cleanup_error_ TbError *err = NULL;
        RegistryManifest *m = NULL;

        assert_ok(registry_manifest_parse(text, strlen(text), NULL, NULL, &m, &err), err);
        return m;
}

/* The chosen entries as "0110". */
static const char *choose(const char *text, TbError **err)
{
        static char answer[16];
        Payload amd64 = {.arch = (char *) "amd64"}, arm64 = {.arch = (char *) "arm64"};
        Payload *payloads[] = {&amd64, &arm64};
        const AugmentPlatforms p = {
                .payloads = payloads,
                .n_payloads = 2,
                .text = (char *) "linux/amd64,linux/arm64",
        };
        _cleanup_(registry_manifest_freep) RegistryManifest *index = parse(text);
        bool chosen[16] = {};
        size_t n = 0, seen = 0;

        assert_true(index->n_entries < sizeof(answer));
        if (augment_platforms_choose(&p, index, chosen, &n, err) < 0)
                return NULL;
        for (size_t i = 0; i < index->n_entries; i++) {
                answer[i] = chosen[i] ? '1' : '0';
                seen += chosen[i];
        }
        answer[index->n_entries] = 0;
        assert_int_equal(n, seen);
        return answer;
}

static void test_choose(void **state)
{
        _cleanup_error_ TbError *err = NULL, *none = NULL;

        assert_string_equal(choose(INDEX(REGISTRY_TYPE_OCI_INDEX,
                                           OCI(A, PLATFORM("linux", "s390x")) "," OCI(
                                                   A, PLATFORM("linux", "amd64")) "," OCI(B,
                                                   PLATFORM("windows", "amd64")) "," OCI(B,
                                                   PLATFORM("unknown", "unknown")) "," OCI(C,
                                                   PLATFORM("linux", "arm64\",\"variant\":\"v8")) "," OCI(D,
                                                   PLATFORM("linux", "arm64")) "," OCI(D,
                                                   PLATFORM("linux", "amd64\",\"variant\":\"v3")),
                                           ""),
                                    &err),
                "0100101");
        /* An attestation that lies about its platform, an index in the index, an entry that says nothing. */
        assert_string_equal(
                choose(INDEX(REGISTRY_TYPE_OCI_INDEX,
                               OCI(A,
                                       PLATFORM("linux",
                                               "amd64") ",\"annotations\":{\"vnd.docker.reference.type\":"
                                                        "\"x\"}") "," IMAGE(REGISTRY_TYPE_OCI_INDEX, A,
                                       PLATFORM("linux", "amd64")) "," OCI(A, "") "," OCI(B,
                                       PLATFORM("linux", "arm64")),
                               ""),
                        &err),
                "0001");
        assert_string_equal(
                choose(INDEX(REGISTRY_TYPE_OCI_INDEX, OCI(A, "") "," OCI(B, ""), ""), &err), "10");
        assert_null(choose(
                INDEX(REGISTRY_TYPE_OCI_INDEX,
                        OCI(A, PLATFORM("linux", "riscv64")) "," OCI(B, PLATFORM("windows", "amd64")), ""),
                &err));
        assert_non_null(strstr(tb_error_message(err), "it has linux/riscv64, windows/amd64, payloads are"));
        assert_null(choose(INDEX(REGISTRY_TYPE_OCI_INDEX, "", ""), &none));
        assert_non_null(strstr(tb_error_message(none), "it has none, payloads are"));
}

static json_t *make(const char *base_text, const NativeIndexEntry *entries, char **ret_text)
{
        static char *const annotations[] = {(char *) "k", (char *) "v", NULL};
        _cleanup_(registry_manifest_freep) RegistryManifest *base = parse(base_text);
        _cleanup_error_ TbError *err = NULL;
        json_t *j = NULL;
        size_t size;

        assert_ok(native_make_index(base, entries, annotations, ret_text, &size, &err), err);
        assert_int_equal(strlen(*ret_text), size);
        assert_ok(tb_json_parse(*ret_text, size, size, "index", &j, &err), err);
        return j;
}

static void test_index(void **state)
{
        static const char oci[] = INDEX(REGISTRY_TYPE_OCI_INDEX,
                OCI(A,
                        PLATFORM("linux",
                                "amd64") ",\"annotations\":{\"a\":\"b\"},\"data\":\"e30=\"") "," OCI(B,
                        PLATFORM("linux", "s390x")),
                ",\"annotations\":{\"x\":\"y\"},\"unknown\":[1]");
        static const char docker[] = INDEX(REGISTRY_TYPE_DOCKER_LIST,
                IMAGE(REGISTRY_TYPE_DOCKER_MANIFEST, A, PLATFORM("linux", "amd64")), "");
        NativeIndexEntry entries[2] = {{.kept = true, .size = 77}, {}};
        _cleanup_free_ char *one = NULL, *two = NULL, *three = NULL;
        _cleanup_json_ json_t *made = NULL, *list = NULL, *same = NULL;
        _cleanup_error_ TbError *err = NULL;
        json_t *entry;

        assert_ok(tb_digest_parse(C, &entries[0].digest, &err), err);
        made = make(oci, entries, &one);
        assert_int_equal(json_array_size(json_object_get(made, "manifests")), 1);
        entry = json_array_get(json_object_get(made, "manifests"), 0);
        assert_string_equal(json_string_value(json_object_get(entry, "digest")), C);
        assert_int_equal(json_integer_value(json_object_get(entry, "size")), 77);
        assert_null(json_object_get(entry, "data"));
        assert_string_equal(
                json_string_value(json_object_get(json_object_get(entry, "annotations"), "a")), "b");
        assert_string_equal(
                json_string_value(json_object_get(json_object_get(made, "annotations"), "k")), "v");
        assert_string_equal(
                json_string_value(json_object_get(json_object_get(made, "annotations"), "x")), "y");
        assert_non_null(json_object_get(made, "unknown"));

        list = make(docker, entries, &two);
        assert_string_equal(
                json_string_value(json_object_get(list, "mediaType")), REGISTRY_TYPE_DOCKER_LIST);
        assert_null(json_object_get(list, "annotations"));

        /* Nothing has changed: nor has the text. */
        assert_ok(tb_digest_parse(A, &entries[0].digest, &err), err);
        same = make(docker, entries, &three);
        assert_string_equal(three, docker);
}

/* An augmented image of three layers: its own, an older basic one, today's core. */
static void test_layers_of_an_augmentation(void **state)
{
#define LAYER(digest) "{\"mediaType\":\"" REGISTRY_TYPE_OCI_LAYER "\",\"digest\":\"" digest "\",\"size\":7}"
        _cleanup_(registry_manifest_freep) RegistryManifest *base =
                parse("{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG
                      "\",\"digest\":\"" A
                      "\",\"size\":5},\"layers\":[" LAYER(A) "," LAYER(B) "," LAYER(FIXTURE_CORE) "]}");
        static const char config_text[] =
                "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Entrypoint\":[\"/tbnode/init\","
                "\"--level\",\"core\",\"--\",\"/x\"],\"Labels\":{\"org.tbnode.level\":\"core\"}},"
                "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"" A "\",\"" B "\",\"" FIXTURE_CORE_DIFF
                "\"]},"
                "\"history\":[{\"created_by\":\"a\"},{\"created_by\":\"e\",\"empty_layer\":true},"
                "{\"created_by\":\"b\",\"comment\":\"tbnode 0\"},{\"created_by\":\"c\",\"comment\":\"tbnode "
                "0\"},"
                "{\"created_by\":\"LABEL\",\"comment\":\"tbnode 0\",\"empty_layer\":true}]}";
        uint32_t own[] = {1, 2, 9};
        _cleanup_free_ char *text = NULL;
        _cleanup_error_ TbError *err = NULL;
        _cleanup_json_ json_t *m = NULL;
        _cleanup_fixture_ Fixture f = {};
        const json_t *list;
        ImageFiles files = {.own = own, .n_own = 3};
        size_t size;

        fixture_load(&f, "nginx");
        f.facts = image_facts_free(f.facts);
        f.config = image_config_free(f.config);
        assert_ok(image_config_parse(config_text, strlen(config_text), &f.config, &err), err);
        assert_ok(image_facts_collect(f.config, &f.facts, &err), err);
        assert_true(f.facts->augmented);
        f.facts->files = &files;
        RecipeInput input = {
                .config = f.config,
                .facts = f.facts,
                .payload = &f.payload,
                .level = AUGMENT_LEVEL_CORE,
                .base = base,
                .base_name = "x",
                .base_digest = f.layers[0].digest,
        };
        assert_ok(recipe_make(&input, &f.recipe, &err), err);
        f.facts->files = NULL;
        assert_false(f.recipe->dropped[0]);
        assert_true(f.recipe->dropped[1]);
        assert_false(f.recipe->dropped[2]);
        assert_int_equal(f.recipe->steps[0].op, RECIPE_ADD);
        assert_int_equal(f.recipe->steps[0].layer->level, AUGMENT_LEVEL_BASIC);
        assert_int_not_equal(f.recipe->steps[1].op, RECIPE_ADD);

        assert_ok(native_apply_config(f.config, f.recipe, &err), err);
        list = json_object_get(json_object_get(f.config->document, "rootfs"), "diff_ids");
        assert_int_equal(json_array_size(list), 3);
        assert_string_equal(json_string_value(json_array_get(list, 0)), A);
        assert_string_equal(json_string_value(json_array_get(list, 1)), FIXTURE_CORE_DIFF);
        assert_string_equal(json_string_value(json_array_get(list, 2)), FIXTURE_DIFF);
        list = json_object_get(f.config->document, "history");
        assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "created_by")), "e");
        assert_string_equal(json_string_value(json_object_get(json_array_get(list, 2), "created_by")), "c");
        assert_string_equal(json_string_value(json_object_get(json_array_get(list, 3), "created_by")),
                "ADD basic.tar.gz /");

        assert_ok(native_make_manifest(base, f.recipe, &f.layers[0].digest, 5, &text, &size, &err), err);
        assert_ok(tb_json_parse(text, size, size, "manifest", &m, &err), err);
        list = json_object_get(m, "layers");
        assert_int_equal(json_array_size(list), 3);
        assert_string_equal(
                json_string_value(json_object_get(json_array_get(list, 1), "digest")), FIXTURE_CORE);
        assert_string_equal(
                json_string_value(json_object_get(json_array_get(list, 2), "digest")), FIXTURE_LAYER);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_choose),
                cmocka_unit_test(test_index),
                cmocka_unit_test(test_layers_of_an_augmentation),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

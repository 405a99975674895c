/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Manifests and indexes: kinds, refusals, the choice of a platform. */

#include "tests/unit/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/registry.h"

#define HEX64(c) c c c c c c c c c c c c c c c c
#define DIGEST(c) "sha256:" HEX64(c c c c)
#define CONFIG                                                  \
        "\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG \
        "\",\"digest\":\"" DIGEST("a") "\",\"size\":7}"
#define LAYER(c) "{\"mediaType\":\"" REGISTRY_TYPE_OCI_LAYER "\",\"digest\":\"" DIGEST(c) "\",\"size\":99}"
#define LAYERS "\"layers\":[" LAYER("b") "," LAYER("c") "]"
#define ENTRY(c, platform)                             \
        "{\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST \
        "\",\"digest\":\"" DIGEST(c) "\",\"size\":5" platform "}"
#define P(os, arch) ",\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch "\"}"
#define PV(os, arch, v) \
        ",\"platform\":{\"os\":\"" os "\",\"architecture\":\"" arch "\",\"variant\":\"" v "\"}"
#define TYPE(t) "\"mediaType\":\"" t "\","

static int parse(const char *text, const char *type, RegistryManifest **ret, TbError **err)
{
        return registry_manifest_parse(text, strlen(text), type, NULL, ret, err);
}

static void test_image(void **state)
{
        static const char text[] = "{\"schemaVersion\":2," CONFIG "," LAYERS "}";
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;

        assert_int_equal(parse(text, REGISTRY_TYPE_OCI_MANIFEST "; charset=utf-8", &m, NULL), 0);
        assert_int_equal(m->kind, REGISTRY_OCI_MANIFEST);
        assert_int_equal(m->size, strlen(text));
        assert_memory_equal(m->data, text, m->size);
        assert_string_equal(m->config.digest.text, DIGEST("a"));
        assert_int_equal(m->config.size, 7);
        assert_int_equal(m->n_layers, 2);
        assert_string_equal(m->layers[1].digest.text, DIGEST("c"));
        assert_false(registry_manifest_is_index(m));
}

#define SUBJECT                                                    \
        "\"subject\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST \
        "\",\"digest\":\"" DIGEST("d") "\",\"size\":77}"

/* Signatures, SBOMs, charts: what they are and what they are about. */
static void test_artifacts(void **state)
{
        static const struct {
                const char *text, *artifact_type; /* NULL = none */
                RegistryManifestKind kind;
                bool subject;
                size_t layers;
        } cases[] = {
                {"{\"schemaVersion\":2," CONFIG "," LAYERS "}", NULL, REGISTRY_OCI_MANIFEST, false, 2},
                {"{\"schemaVersion\":2,\"artifactType\":\"a/sbom\"," CONFIG "," LAYERS "," SUBJECT "}",
                        "a/sbom", REGISTRY_OCI_MANIFEST, true, 2},
                /* without the field the config's type says it, unless it says "image" or "nothing" */
                {"{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/chart\",\"digest\":\"" DIGEST(
                         "a") "\","
                              "\"size\":2},\"layers\":[]}",
                        "a/chart", REGISTRY_OCI_MANIFEST, false, 0},
                {"{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_EMPTY
                 "\",\"digest\":\"" DIGEST("a") "\",\"size\":2},\"layers\":[]}",
                        NULL, REGISTRY_OCI_MANIFEST, false, 0},
                {"{" TYPE(REGISTRY_TYPE_OCI_ARTIFACT) "\"artifactType\":\"a/sig\",\"blobs\":[" LAYER(
                         "b") "]," SUBJECT "}",
                        "a/sig", REGISTRY_OCI_ARTIFACT, true, 1},
                {"{" TYPE(REGISTRY_TYPE_OCI_ARTIFACT) "\"artifactType\":\"a/empty\"}", "a/empty",
                        REGISTRY_OCI_ARTIFACT, false, 0},
                {"{\"schemaVersion\":2,\"artifactType\":\"a/set\",\"manifests\":[]," SUBJECT "}", "a/set",
                        REGISTRY_OCI_INDEX, true, 0},
        };
        static const char *const bad[] = {
                /* an artifact that could be read as an image, or is only called one by its Content-Type */
                "{" TYPE(REGISTRY_TYPE_OCI_ARTIFACT) "\"blobs\":[]," CONFIG "," LAYERS "}",
                "{" TYPE(REGISTRY_TYPE_OCI_ARTIFACT) "\"manifests\":[]}",
                "{\"schemaVersion\":2," CONFIG "," LAYERS ",\"subject\":\"x\"}",
                "{\"schemaVersion\":2," CONFIG "," LAYERS ",\"subject\":{\"digest\":\"sha256:1\"}}",
                "{\"schemaVersion\":2," CONFIG "," LAYERS ",\"artifactType\":7}",
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
                _cleanup_error_ TbError *e = NULL;

                if (parse(cases[i].text, NULL, &m, &e) < 0)
                        fail_msg("%zu: %s", i, tb_error_message(e));
                assert_int_equal(m->kind, cases[i].kind);
                assert_int_equal(m->n_layers, cases[i].layers);
                if (!tb_streq(m->artifact_type, cases[i].artifact_type))
                        fail_msg("%zu: artifact type %s", i, m->artifact_type);
                assert_int_equal(tb_digest_is_set(&m->subject.digest), cases[i].subject);
                if (cases[i].subject)
                        assert_int_equal(m->subject.size, 77);
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                RegistryManifest *m;

                if (parse(bad[i], NULL, &m, NULL) >= 0)
                        fail_msg("taken: %s", bad[i]);
        }
}

static void test_entry_fields(void **state)
{
        static const char text[] =
                "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST
                "\",\"digest\":\"" DIGEST("c") "\",\"size\":5,\"artifactType\":\"a/b\","
                                               "\"annotations\":{\"k\":\"v\"}}]}";
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_registry_descriptor_ RegistryDescriptor copy = {0};

        assert_int_equal(parse(text, NULL, &m, NULL), 0);
        assert_int_equal(registry_descriptor_copy(m->entries, &copy, NULL), 0);
        m = registry_manifest_free(m);
        assert_string_equal(copy.artifact_type, "a/b");
        assert_string_equal(json_string_value(json_object_get(copy.annotations, "k")), "v");
}

static void test_kinds(void **state)
{
        static const struct {
                const char *text, *type;
                int result; /* kind or error */
        } cases[] = {
                {"{\"schemaVersion\":2," CONFIG "," LAYERS "}", NULL, REGISTRY_OCI_MANIFEST},
                {"{\"schemaVersion\":2," CONFIG "," LAYERS "}", "application/json", REGISTRY_OCI_MANIFEST},
                {"{\"schemaVersion\":2," CONFIG "," LAYERS "}", REGISTRY_TYPE_DOCKER_MANIFEST,
                        REGISTRY_DOCKER_MANIFEST},
                {"{\"schemaVersion\":2," TYPE(REGISTRY_TYPE_DOCKER_MANIFEST) CONFIG "," LAYERS "}", NULL,
                        REGISTRY_DOCKER_MANIFEST},
                {"{\"schemaVersion\":2," CONFIG ",\"layers\":[]}", NULL, REGISTRY_OCI_MANIFEST},
                {"{\"schemaVersion\":2,\"manifests\":[]}", NULL, REGISTRY_OCI_INDEX},
                {"{\"schemaVersion\":2,\"manifests\":[]}", REGISTRY_TYPE_DOCKER_LIST, REGISTRY_DOCKER_LIST},
                /* CVE-2021-41190 */
                {"{\"schemaVersion\":2," CONFIG "," LAYERS ",\"manifests\":[]}", NULL, -EBADMSG},
                {"{\"schemaVersion\":2," CONFIG "," LAYERS ",\"manifests\":[]}", REGISTRY_TYPE_OCI_INDEX,
                        -EBADMSG},
                {"{\"schemaVersion\":2," TYPE(REGISTRY_TYPE_OCI_MANIFEST) CONFIG "," LAYERS "}",
                        REGISTRY_TYPE_OCI_INDEX, -EBADMSG},
                {"{\"schemaVersion\":2," CONFIG "," LAYERS "}", REGISTRY_TYPE_OCI_INDEX, -EBADMSG},
                {"{\"schemaVersion\":2,\"manifests\":[]}", REGISTRY_TYPE_OCI_MANIFEST, -EBADMSG},
                {"{\"schemaVersion\":2," CONFIG "," LAYERS "}", "text/html", -EOPNOTSUPP},
                {"{\"schemaVersion\":1,\"fsLayers\":[]}", NULL, -EOPNOTSUPP},
                {"{\"schemaVersion\":2,\"mediaType\":\"application/x\"}", NULL, -EOPNOTSUPP},
                {"{\"schemaVersion\":3," CONFIG "," LAYERS "}", NULL, -EPROTO},
                {"{" CONFIG "," LAYERS "}", NULL, -EPROTO},
                {"{\"schemaVersion\":2," LAYERS "}", NULL, -EPROTO},
                {"{\"schemaVersion\":2," CONFIG "}", NULL, -EPROTO},
                {"[]", NULL, -EPROTO},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
                _cleanup_error_ TbError *e = NULL;
                int r = parse(cases[i].text, cases[i].type, &m, &e);

                if (r >= 0)
                        r = (int) m->kind;
                if (r != cases[i].result)
                        fail_msg("case %zu: %d, %s", i, r, tb_error_message(e));
        }
}

static void test_broken(void **state)
{
        static const char *const bad[] = {
                "",
                "{",
                "null",
                "{\"schemaVersion\":2," CONFIG ",\"layers\":{}}",
                "{\"schemaVersion\":2," CONFIG ",\"layers\":[1]}",
                "{\"schemaVersion\":2," CONFIG
                ",\"layers\":[{\"mediaType\":\"x\",\"digest\":\"" DIGEST("a") "\"}]}",
                "{\"schemaVersion\":2," CONFIG
                ",\"layers\":[{\"mediaType\":\"x\",\"digest\":\"" DIGEST("a") "\",\"size\":-1}]}",
                "{\"schemaVersion\":2," CONFIG
                ",\"layers\":[{\"mediaType\":\"x\",\"digest\":\"" DIGEST("a") "\",\"size\":1.5}]}",
                "{\"schemaVersion\":2," CONFIG
                ",\"layers\":[{\"mediaType\":\"x\",\"digest\":\"sha256:a\",\"size\":1}]}",
                "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"mediaType\":\"x\",\"size\":1}]}",
                "{\"schemaVersion\":2," CONFIG ",\"layers\":[{\"digest\":\"" DIGEST("a") "\",\"size\":1}]}",
                "{\"schemaVersion\":2," CONFIG "," LAYERS "} trailing",
                "{\"schemaVersion\":2,\"schemaVersion\":2," CONFIG "," LAYERS "}",
                "{\"schemaVersion\":\"2\"," CONFIG "," LAYERS "}",
                "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"x\",\"digest\":\"" DIGEST(
                        "a") "\",\"size\":1,\"platform\":\"linux\"}]}",
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                RegistryManifest *m = NULL;
                _cleanup_error_ TbError *e = NULL;

                if (parse(bad[i], NULL, &m, &e) >= 0)
                        fail_msg("taken: %s", bad[i]);
                assert_non_null(e);
                assert_null(m);
        }
}

static void test_bounds(void **state)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_free_ char *text = malloc(REGISTRY_MANIFEST_MAX + 1);
        TbDigest other;
        size_t n;

        n = (size_t) sprintf(text, "{\"schemaVersion\":2," CONFIG ",\"layers\":[");
        for (size_t i = 0; i < REGISTRY_LAYERS_MAX + 1; i++)
                n += (size_t) sprintf(text + n, "%s%s", i > 0 ? "," : "", LAYER("b"));
        strcpy(text + n, "]}");
        assert_int_equal(parse(text, NULL, &m, NULL), -EMSGSIZE);
        assert_int_equal(
                registry_manifest_parse(text, REGISTRY_MANIFEST_MAX + 1, NULL, NULL, &m, NULL), -EMSGSIZE);

        assert_int_equal(tb_digest_parse(DIGEST("0"), &other, NULL), 0);
        assert_int_equal(registry_manifest_parse("{}", 2, NULL, &other, &m, NULL), -EBADMSG);
}

static void test_foreign(void **state)
{
        static const char text[] =
                "{\"schemaVersion\":2," CONFIG ",\"layers\":["
                "{\"mediaType\":\"application/"
                "vnd.docker.image.rootfs.foreign.diff.tar.gzip\",\"digest\":\"" DIGEST(
                        "b") "\",\"size\":1,\"urls\":[\"https://x/\"]},"
                             "{\"mediaType\":\"application/"
                             "vnd.oci.image.layer.nondistributable.v1.tar\",\"digest\":\"" DIGEST(
                                     "c") "\",\"size\":1}," LAYER("d") "]}";
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;

        assert_int_equal(parse(text, NULL, &m, NULL), 0);
        assert_true(m->layers[0].foreign);
        assert_false(m->layers[1].foreign);
        assert_false(m->layers[2].foreign);
}

/* An index as on Docker Hub today: several architectures, attestations, a windows entry (images.md 0.9). */
static void test_select(void **state)
{
        static const char text[] = "{\"schemaVersion\":2,\"manifests\":[" ENTRY(
                "1", P("unknown", "unknown")) "," ENTRY("2", P("windows", "amd64")) "," ENTRY("3",
                P("linux", "amd64")) "," ENTRY("4", PV("linux", "arm", "v5")) "," ENTRY("5",
                PV("linux", "arm", "v6")) "," ENTRY("6", PV("linux", "arm64", "v8")) "," ENTRY("7",
                P("linux", "s390x")) ","
                                     "{\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST
                                     "\",\"digest\":\"" DIGEST(
                                             "8") "\",\"size\":5,\"platform\":{\"os\":\"linux\","
                                                  "\"architecture\":\"riscv64\"},"
                                                  "\"annotations\":{\"vnd.docker.reference.type\":"
                                                  "\"attestation-manifest\"}}]}";
        static const struct {
                const char *platform;
                char digit; /* 0 = nothing fits */
        } cases[] = {
                {"linux/amd64", '3'},
                {"linux/arm/v7", '5'},
                {"linux/arm", '5'},
                {"linux/arm/v6", '5'},
                {"linux/arm/v5", '4'},
                {"linux/arm64", '6'},
                {"windows/amd64", '2'},
                {"linux/riscv64", 0},
                {"linux/386", 0},
                {"unknown/unknown", 0},
        };
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;

        assert_int_equal(parse(text, REGISTRY_TYPE_OCI_INDEX, &m, NULL), 0);
        assert_true(m->entries[0].attestation);
        assert_true(m->entries[7].attestation);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_registry_platform_ RegistryPlatform p = {0};
                _cleanup_error_ TbError *e = NULL;
                const RegistryDescriptor *d = NULL;
                int r;

                assert_int_equal(registry_platform_parse(cases[i].platform, &p, NULL), 0);
                r = registry_manifest_select(m, &p, &d, &e);
                if (cases[i].digit == 0) {
                        assert_int_equal(r, -ENOENT);
                        assert_non_null(strstr(e->message, "linux/arm/v6"));
                        assert_null(strstr(e->message, "unknown,"));
                        continue;
                }
                if (r < 0 || d->digest.text[7] != cases[i].digit)
                        fail_msg("%s: %s", cases[i].platform, r < 0 ? tb_error_message(e) : d->digest.text);
        }
}

static void test_select_without_platform(void **state)
{
        static const char text[] = "{\"schemaVersion\":2,\"manifests\":[" ENTRY("1", "") "," ENTRY(
                "2", P("linux", "amd64")) "]}";
        static const char hostile[] =
                "{\"schemaVersion\":2,\"manifests\":[" ENTRY("1", P("lin\\u001b[31mux", "amd64")) "]}";
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL, *h = NULL;
        _cleanup_registry_platform_ RegistryPlatform amd = {0}, arm = {0};
        _cleanup_error_ TbError *e = NULL;
        const RegistryDescriptor *d;

        assert_int_equal(registry_platform_parse("linux/amd64", &amd, NULL), 0);
        assert_int_equal(registry_platform_parse("linux/arm64", &arm, NULL), 0);
        assert_int_equal(parse(text, NULL, &m, NULL), 0);
        assert_int_equal(registry_manifest_select(m, &amd, &d, NULL), 0);
        assert_int_equal(d->digest.text[7], '2');
        assert_int_equal(registry_manifest_select(m, &arm, &d, NULL), 0);
        assert_int_equal(d->digest.text[7], '1');

        assert_int_equal(parse(hostile, NULL, &h, NULL), 0);
        assert_int_equal(registry_manifest_select(h, &amd, &d, &e), -ENOENT);
        assert_null(strchr(e->message, '\033'));
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_image),
                cmocka_unit_test(test_artifacts),
                cmocka_unit_test(test_entry_fields),
                cmocka_unit_test(test_kinds),
                cmocka_unit_test(test_broken),
                cmocka_unit_test(test_bounds),
                cmocka_unit_test(test_foreign),
                cmocka_unit_test(test_select),
                cmocka_unit_test(test_select_without_platform),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

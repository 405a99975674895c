/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "tests/unit/test.h"

#include "agent/snapshot-image.h"
#include "common/cleanup.h"
#include "common/json.h"

#define HOST "127.0.0.1:5000"
#define HEX "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void check_name(const char *name, const char *expected)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *text = NULL;
        _cleanup_error_ TbError *err = NULL;

        assert_ok(snapshot_name_make(HOST, "p", name, &ref, &err), err);
        text = registry_ref_to_string(ref);
        assert_string_equal(text, expected);
}

static void test_names(void **state)
{
        static const char *const bad[] = {"", "UPPER", "a//b", "/a", "a/", "..", "../../mirror/x",
                "a@sha256:" HEX, ":tag", "a:", "a b", "a:b:c", "a\n", NULL};
        char much[700];
        TbError *err = NULL;
        RegistryRef *ref = NULL;

        check_name("web", HOST "/projects/p/snapshots/web:latest");
        check_name("lab1/web:monday", HOST "/projects/p/snapshots/lab1/web:monday");
        for (const char *const *b = bad; *b; b++)
                assert_error(snapshot_name_make(HOST, "p", *b, &ref, &err), -EINVAL, err);
        memset(much, 'a', sizeof(much));
        much[sizeof(much) - 1] = 0;
        assert_error(snapshot_name_make(HOST, "p", much, &ref, &err), -ENAMETOOLONG, err);
        much[250] = 0;
        assert_error(snapshot_name_make(HOST, "p", much, &ref, &err), -ENAMETOOLONG, err);
        assert_null(ref);
}

static void test_default_names(void **state)
{
        _cleanup_free_ char *alone = snapshot_name_default(NULL, "Web.1"),
                            *together = snapshot_name_default("Exp", "web");

        assert_string_equal(alone, "web.1");
        assert_string_equal(together, "exp/web");
}

static void test_projects(void **state)
{
        static const struct {
                const char *image, *project;
        } cases[] = {
                {HOST "/projects/p-1/augmented/x/y@sha256:" HEX, "p-1"},
                {HOST "/projects/p/snapshots/web:latest", "p"},
                {HOST "/augmented/docker.io/library/nginx:1", NULL},
                {"elsewhere.example/projects/p/x:1", NULL},
                {"localhost:5000/projects/p/mirror/x:1", "p"},
                {"sha256:" HEX, NULL},
                {"nginx", NULL},
                {"", NULL},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                _cleanup_free_ char *project = NULL;
                _cleanup_error_ TbError *err = NULL;

                assert_ok(snapshot_project_of(cases[i].image, HOST, &project, &err), err);
                if (cases[i].project)
                        assert_string_equal(project, cases[i].project);
                else
                        assert_null(project);
        }
}

/* The container's settings go, those of its image come; what says which layers there are stays. */
static void test_configuration(void **state)
{
        _cleanup_json_ json_t *pushed =
                json_loads("{\"architecture\": \"arm64\", \"variant\": \"v8\", \"os\": \"linux\", "
                           "\"created\": \"2026\","
                           " \"container\": \"c0\", \"container_config\": {\"Hostname\": \"secret\"},"
                           " \"config\": {\"Hostname\": \"secret\", \"Env\": [\"KEY=secret\"], \"Labels\": "
                           "{\"tbnode.experiment\": \"secret\"},"
                           " \"User\": \"0\"}, \"rootfs\": {\"type\": \"layers\", \"diff_ids\": "
                           "[\"sha256:1\", \"sha256:2\"]},"
                           " \"history\": [{\"created_by\": \"ADD\", \"comment\": \"kept\"}, "
                           "{\"created_by\": \"secret\", \"comment\": \"secret\"}]}",
                        0, NULL);
        _cleanup_json_ json_t *image = json_loads("{\"Hostname\": \"\", \"AttachStdin\": false, \"User\": "
                                                  "\"1000\", \"Env\": [\"A=1\"], \"Cmd\": null,"
                                                  " \"Entrypoint\": [\"/tbnode/init\", \"--\", \"x\"], "
                                                  "\"Labels\": {\"org.tbnode.level\": \"core\"}}",
                0, NULL);
        _cleanup_json_ json_t *expected =
                json_loads("{\"architecture\": \"arm64\", \"variant\": \"v8\", \"os\": \"linux\", "
                           "\"created\": \"2026\","
                           " \"config\": {\"User\": \"1000\", \"Env\": [\"A=1\"], \"Entrypoint\": "
                           "[\"/tbnode/init\", \"--\", \"x\"],"
                           " \"Labels\": {\"org.tbnode.level\": \"core\"}},"
                           " \"rootfs\": {\"type\": \"layers\", \"diff_ids\": [\"sha256:1\", \"sha256:2\"]},"
                           " \"history\": [{\"created_by\": \"ADD\", \"comment\": \"kept\"}, "
                           "{\"created_by\": \"tbnode snapshot\"}]}",
                        0, NULL);
        _cleanup_json_ json_t *got = NULL;
        _cleanup_free_ char *text = NULL;
        TbError *err = NULL;
        size_t size;

        assert_non_null(pushed);
        assert_non_null(image);
        assert_non_null(expected);
        assert_ok(snapshot_config_make(pushed, image, &text, &size, &err), err);
        assert_int_equal(size, strlen(text));
        got = json_loads(text, 0, NULL);
        assert_true(json_equal(got, expected));
}

static void test_configuration_that_is_none(void **state)
{
        static const char *const bad[] = {"{}", "[]", "{\"os\": \"linux\"}", "{\"os\": 1, \"rootfs\": {}}",
                "{\"rootfs\": [], \"os\": \"linux\"}", NULL};
        _cleanup_json_ json_t *image = json_object();
        TbError *err = NULL;
        char *text = NULL;
        size_t size;

        for (const char *const *b = bad; *b; b++) {
                _cleanup_json_ json_t *pushed = json_loads(*b, 0, NULL);

                assert_error(snapshot_config_make(pushed, image, &text, &size, &err), -EPROTO, err);
        }
        assert_null(text);
}

static void test_manifest(void **state)
{
#define MANIFEST(digest, size)                                                                        \
        "{\"schemaVersion\":2,\"mediaType\":\"application/"                                           \
        "vnd.docker.distribution.manifest.v2+json\",\"config\":{"                                     \
        "\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\"size\":" size             \
        ",\"digest\":\"" digest "\"},\"layers\":[{\"mediaType\":"                                     \
        "\"application/vnd.docker.image.rootfs.diff.tar.gzip\",\"size\":100,\"digest\":\"sha256:" HEX \
        "\"}]}"
        static const char pushed[] = MANIFEST("sha256:" HEX, "7");
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_json_ json_t *got = NULL, *expected = NULL;
        _cleanup_free_ char *text = NULL;
        TbError *err = NULL;
        TbDigest digest;
        size_t size;

        assert_ok(registry_manifest_parse(pushed, sizeof(pushed) - 1, NULL, NULL, &m, &err), err);
        assert_ok(tb_digest_of("config", 6, &digest, &err), err);
        assert_ok(snapshot_manifest_make(m, &digest, 6, &text, &size, &err), err);
        got = json_loads(text, 0, NULL);
        expected = json_loads(pushed, 0, NULL);
        (void) json_object_set_new(json_object_get(expected, "config"), "digest", json_string(digest.text));
        (void) json_object_set_new(json_object_get(expected, "config"), "size", json_integer(6));
        assert_true(json_equal(got, expected));
        assert_int_equal(snapshot_size(m, 6), 106);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_default_names),
                cmocka_unit_test(test_projects),
                cmocka_unit_test(test_configuration),
                cmocka_unit_test(test_configuration_that_is_none),
                cmocka_unit_test(test_manifest),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/test.h"

#include "augment/cache.h"
#include "augment/docker-context.h"
#include "augment/known.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/registry.h"

#define BASE "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define PAYLOAD "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

static TbDigest digest(const char *s)
{
        _cleanup_error_ TbError *err = NULL;
        TbDigest d;

        assert_ok(tb_digest_parse(s, &d, &err), err);
        return d;
}

static AugmentRequest request(const char *image, const char *project)
{
        AugmentRequest r = {
                .image = strdup(image),
                .level = AUGMENT_LEVEL_BASIC,
                .platform = strdup("linux/amd64"),
                .project = project ? strdup(project) : NULL,
                .registry = strdup("http://127.0.0.1:5000"),
        };
        _cleanup_error_ TbError *err = NULL;

        assert_ok(augment_request_check(&r, &err), err);
        return r;
}

static void test_key(void **state)
{
        _cleanup_augment_request_ AugmentRequest r = request("nginx", NULL);
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *text = NULL;
        TbDigest base = digest(BASE), payload = digest(PAYLOAD), none = {}, expected;
        char tag[AUGMENT_KEY_TAG_MAX], other[AUGMENT_KEY_TAG_MAX];

        assert_ok(augment_cache_key_text(&base, &r, &payload, &text, &err), err);
        assert_string_equal(text,
                "tbnode-cache-key 1\nbase " BASE "\nplatform linux/amd64\nlevel basic\npayload " PAYLOAD
                "\ngenerator 3\n");
        assert_ok(augment_cache_key_tag(&base, &r, &payload, tag, &err), err);
        assert_ok(tb_digest_of(text, strlen(text), &expected, &err), err);
        assert_int_equal(strlen(tag), 42);
        assert_memory_equal(tag, "k-", 2);
        assert_memory_equal(tag + 2, tb_digest_hex(&expected), 40);

        /* Each part counts. */
        assert_ok(augment_cache_key_tag(&payload, &r, &payload, other, &err), err);
        assert_string_not_equal(tag, other);
        assert_ok(augment_cache_key_tag(&base, &r, &base, other, &err), err);
        assert_string_not_equal(tag, other);
        r.update = true;
        assert_ok(augment_cache_key_tag(&base, &r, &payload, other, &err), err);
        assert_string_not_equal(tag, other);
        r.update = false;
        free(r.platform);
        r.platform = strdup("linux/arm64");
        assert_ok(augment_cache_key_tag(&base, &r, &payload, other, &err), err);
        assert_string_not_equal(tag, other);

        /* Level none has no payload, and only that. */
        assert_error(augment_cache_key_tag(&base, &r, &none, other, &err), -EINVAL, err);
        r.level = AUGMENT_LEVEL_NONE;
        assert_ok(augment_cache_key_tag(&base, &r, &none, other, &err), err);
}

/* Another request is another one, nothing is found that was not noted, and what has no room makes some. */
static void test_known(void **state)
{
        _cleanup_augment_request_ AugmentRequest r = request("nginx", NULL),
                                                 mine = request("nginx", "team-7");
        _cleanup_(augment_known_freep) AugmentKnown *k = NULL;
        _cleanup_error_ TbError *err = NULL;
        KnownHit hit = {.source = digest(BASE), .kind = AUGMENT_SOURCE_INDEX, .digest = digest(PAYLOAD)},
                 found;
        KnownImage image = {AUGMENT_LEVEL_CORE, AUGMENT_BUILDER_DOCKER}, what;
        TbDigest one = digest(BASE), other = one;

        assert_ok(augment_known_new(&k, &err), err);
        assert_false(augment_known_hit(NULL, &r, &found));
        assert_false(augment_known_hit(k, &r, &found));
        augment_known_note_hit(k, &r, &hit);
        assert_true(augment_known_hit(k, &r, &found));
        assert_string_equal(found.digest.text, PAYLOAD);
        assert_false(augment_known_hit(k, &mine, &found));
        r.update = true;
        assert_false(augment_known_hit(k, &r, &found));

        assert_false(augment_known_image(k, &one, &what));
        augment_known_note_image(k, &one, &image);
        assert_true(augment_known_image(k, &one, &what));
        assert_int_equal(what.level, AUGMENT_LEVEL_CORE);
        assert_int_equal(what.builder, AUGMENT_BUILDER_DOCKER);
        other.text[sizeof(other.text) - 2] = 'c'; /* the same place */
        assert_false(augment_known_image(k, &other, &what));
        augment_known_note_image(k, &other, &image);
        assert_false(augment_known_image(k, &one, &what));
}

static void check_names(const char *image, const char *project, AugmentLevel level, const char *mirror,
        const char *target, const char *tag)
{
        _cleanup_augment_request_ AugmentRequest r = request(image, project);
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_augment_names_ AugmentNames n = {};
        _cleanup_error_ TbError *err = NULL;

        r.level = level;
        assert_ok(registry_ref_parse(image, &ref, &err), err);
        assert_ok(augment_names_make(&r, ref, &n, &err), err);
        assert_string_equal(n.registry_host, "127.0.0.1:5000");
        assert_string_equal(n.mirror_repository, mirror);
        assert_string_equal(n.target_repository, target);
        if (tag)
                assert_string_equal(n.target_tag, tag);
        else
                assert_null(n.target_tag);
}

static void test_names(void **state)
{
        check_names("nginx:1.25", NULL, AUGMENT_LEVEL_BASIC, "mirror/docker.io/library/nginx",
                "augmented/docker.io/library/nginx", "1.25-basic");
        check_names("nginx", NULL, AUGMENT_LEVEL_NONE, "mirror/docker.io/library/nginx",
                "mirror/docker.io/library/nginx", "latest");
        check_names("quay.io:8443/a/b:x", NULL, AUGMENT_LEVEL_BASIC, "mirror/quay.io_8443/a/b",
                "augmented/quay.io_8443/a/b", "x-basic");
        check_names("nginx@" BASE, NULL, AUGMENT_LEVEL_BASIC, "mirror/docker.io/library/nginx",
                "augmented/docker.io/library/nginx", NULL);
        check_names("nginx:1@" BASE, "team-7", AUGMENT_LEVEL_BASIC,
                "projects/team-7/mirror/docker.io/library/nginx",
                "projects/team-7/augmented/docker.io/library/nginx", "1-basic");
        /* A base in the testbed's registry is mounted from where it is. */
        check_names("127.0.0.1:5000/my/base:2", NULL, AUGMENT_LEVEL_BASIC, "my/base",
                "augmented/127.0.0.1_5000/my/base", "2-basic");
        check_names("nginx:1.25", NULL, AUGMENT_LEVEL_CORE, "mirror/docker.io/library/nginx",
                "augmented/docker.io/library/nginx", "1.25-core");
        check_names("127.0.0.1:5000/my/base:2", NULL, AUGMENT_LEVEL_NONE, "my/base", "my/base", "2");
}

static void test_long_tag(void **state)
{
        char image[256] = "nginx:";
        size_t n = strlen(image);

        /* 128 bytes are a tag, with "-basic" behind it they are none. */
        memset(image + n, 'a', 128);
        image[n + 128] = 0;
        check_names(image, NULL, AUGMENT_LEVEL_BASIC, "mirror/docker.io/library/nginx",
                "augmented/docker.io/library/nginx", NULL);
}

/* Every host gives a valid component, and no two the same. */
static void test_host_component(void **state)
{
        static const char *const hosts[][2] = {
                {"docker.io", "docker.io"},
                {"127.0.0.1:5000", "127.0.0.1_5000"},
                {"registry.example:443", "registry.example_443"},
                {"a--b.c", "a--b.c"},
        };
        _cleanup_free_ char *six = augment_host_component("[::1]:5000"),
                            *other = augment_host_component("1:5000");

        for (size_t i = 0; i < ELEMENTSOF(hosts); i++) {
                _cleanup_free_ char *got = augment_host_component(hosts[i][0]);

                assert_string_equal(got, hosts[i][1]);
        }
        assert_string_not_equal(six, other);
        assert_int_equal(strspn(six, "abcdefghijklmnopqrstuvwxyz0123456789-"), strlen(six));
        assert_memory_equal(six, "15000-", 6);
}

static void test_request_checks(void **state)
{
        static const char *const projects[] = {"", "UPPER", "a/b", "..", "-a", "a b", "k\n"};
        static const char *const registries[] = {
                "", "http://", "http://a/b", "http://x@127.0.0.1:5000", "ftp://127.0.0.1:5000", "docker.io"};
        _cleanup_augment_request_ AugmentRequest r = request("nginx", NULL);
        _cleanup_error_ TbError *err = NULL;

        for (size_t i = 0; i < ELEMENTSOF(projects); i++) {
                r.project = (char *) projects[i];
                assert_error(augment_request_check(&r, &err), -EINVAL, err);
        }
        r.project = NULL;
        for (size_t i = 0; i < ELEMENTSOF(registries); i++) {
                char *registry = r.registry;

                r.registry = (char *) registries[i];
                if (augment_request_check(&r, &err) >= 0)
                        fail_msg("accepted registry \"%s\"", registries[i]);
                err = tb_error_free(err);
                r.registry = registry;
        }
        r.level = AUGMENT_LEVEL_CORE;
        assert_ok(augment_request_check(&r, &err), err);
        r.level = AUGMENT_LEVEL_FULL;
        assert_ok(augment_request_check(&r, &err), err);
}

static void test_request_json(void **state)
{
        _cleanup_augment_request_ AugmentRequest r = request("nginx:1", "p"), back = {};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *text = NULL;
        AugmentOp op = _AUGMENT_OP_INVALID;
        const char *bad[] = {
                "", "{}", "{\"version\":2}", "[]", "{\"version\":1,\"op\":\"augment\",\"evil\":1}"};

        r.resolved = digest(BASE);
        r.update = true;
        r.builder = AUGMENT_BUILDER_DOCKER;
        r.manifest = strdup("{\n \"a\": \"\\u0000\"}");
        r.manifest_type = strdup(REGISTRY_TYPE_OCI_MANIFEST);
        assert_ok(augment_request_to_json(&r, AUGMENT_OP_MIRROR, &text, &err), err);
        assert_null(strchr(text, '\n'));
        assert_ok(augment_request_from_json(text, strlen(text), &back, &op, &err), err);
        assert_int_equal(op, AUGMENT_OP_MIRROR);
        assert_string_equal(back.image, "nginx:1");
        assert_string_equal(back.project, "p");
        assert_string_equal(back.registry, r.registry);
        assert_true(back.update);
        assert_int_equal(back.builder, AUGMENT_BUILDER_DOCKER);
        assert_true(tb_digest_equal(&back.resolved, &r.resolved));
        assert_string_equal(back.manifest, r.manifest);
        assert_string_equal(back.manifest_type, r.manifest_type);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                assert_true(augment_request_from_json(bad[i], strlen(bad[i]), &back, &op, &err) < 0);
                err = tb_error_free(err);
        }
}

static void test_events(void **state)
{
        static const char *const bad[] = {
                "{}",
                "[]",
                "{\"event\":\"progress\"}",
                "{\"event\":\"result\"}",
                "{\"event\":\"error\",\"kind\":\"remote\",\"code\":5,\"message\":\"x\"}",
                "{\"event\":\"error\",\"kind\":\"what\",\"code\":-5,\"message\":\"x\"}",
                "{\"event\":\"result\",\"level\":\"basic\",\"builder\":\"native\",\"cache\":\"maybe\","
                "\"source\":{\"name\":\"x\",\"digest\":\"" BASE "\"}}",
        };
        _cleanup_augment_event_ AugmentEvent e = {};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_json_ json_t *good = json_loads("{\"event\":\"error\",\"kind\":\"remote\",\"code\":-111,"
                                                 "\"message\":\"two\\nlines\",\"retryable\":true}",
                0, NULL);

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_json_ json_t *j = json_loads(bad[i], 0, NULL);

                assert_error(augment_event_parse(j, &e, &err), -EBADMSG, err);
        }
        assert_ok(augment_event_parse(good, &e, &err), err);
        assert_int_equal(e.type, AUGMENT_EVENT_ERROR);
        assert_int_equal(e.error->kind, TB_ERROR_REMOTE);
        assert_int_equal(e.error->code, -111);
        assert_true(e.error->retryable);
        assert_string_equal(e.error->message, "two lines");
}

static void test_result_json(void **state)
{
        _cleanup_augment_result_ AugmentResult r = {}, back = {};
        _cleanup_json_ json_t *j = NULL;
        _cleanup_error_ TbError *err = NULL;

        r.source_name = strdup("docker.io/library/nginx:1");
        r.source_digest = digest(BASE);
        r.image = strdup("127.0.0.1:5000/augmented/docker.io/library/nginx:1-basic");
        r.digest = digest(PAYLOAD);
        r.level = AUGMENT_LEVEL_BASIC;
        r.platform = strdup("linux/amd64");
        r.timings.total = 12345;
        r.bytes.mounted = 1ull << 40;
        assert_ok(augment_result_to_json(&r, &j, &err), err);
        assert_string_equal(json_string_value(json_object_get(j, "cache")), "miss");
        assert_true(json_is_null(json_object_get(j, "payload")));
        assert_ok(augment_result_from_json(j, &back, &err), err);
        assert_string_equal(back.image, r.image);
        assert_true(tb_digest_equal(&back.digest, &r.digest));
        assert_int_equal(back.timings.total, 12345);
        assert_true(back.bytes.mounted == 1ull << 40);
}

static void write_payload(const char *dir, const char *json, const char *layer)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *sub = tb_asprintf("%s/amd64", dir), *path = tb_asprintf("%s/payload.json", sub);
        _cleanup_free_ char *blob = tb_asprintf("%s/basic.tar.gz", sub);

        assert_ok(tb_mkdir_p(sub, 0755, &err), err);
        assert_ok(tb_file_write_atomic(path, json, strlen(json), 0644, &err), err);
        assert_ok(tb_file_write_atomic(blob, layer, strlen(layer), 0644, &err), err);
}

#define LAYER_JSON(file, digest)                                                                  \
        "{\"version\":\"1\",\"arch\":\"amd64\",\"layers\":[{\"level\":\"basic\",\"file\":\"" file \
        "\",\"digest\":\"" digest "\",\"diff_id\":\"" BASE                                        \
        "\",\"size\":5}],\"components\":[{\"name\":\"a\",\"version\":\"1\","                      \
        "\"source\":\"s\",\"license\":\"MIT\"}]}"
/* of "hello" */
#define HELLO "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

static void test_payload(void **state)
{
        static const char *const bad[] = {
                "{}",
                LAYER_JSON("../basic.tar.gz", HELLO),
                LAYER_JSON("a b", HELLO),
                LAYER_JSON("basic.tar.gz", "sha256:12"),
                "{\"version\":\"1\",\"arch\":\"arm64\",\"layers\":[{\"level\":\"basic\",\"file\":\"b\","
                "\"digest\":\"" HELLO "\",\"diff_id\":\"" BASE "\",\"size\":5}]}",
                "{\"version\":\"1\",\"arch\":\"amd64\",\"layers\":[],\"more\":1}",
        };
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *dir = NULL;
        _cleanup_payload_ Payload *p = NULL;
        TbDigest d;

        assert_ok(tb_mkdtemp("/tmp/tbnode-test-XXXXXX", &dir, &err), err);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                write_payload(dir, bad[i], "hello");
                if (payload_load(dir, "amd64", &p, &err) >= 0)
                        fail_msg("accepted: %s", bad[i]);
                err = tb_error_free(err);
        }
        assert_error(payload_load(dir, "arm64", &p, &err), -EOPNOTSUPP, err);
        assert_error(payload_load(dir, "../amd64", &p, &err), -EINVAL, err);

        write_payload(dir, LAYER_JSON("basic.tar.gz", HELLO), "hellO");
        assert_ok(payload_load(dir, "amd64", &p, &err), err);
        assert_error(payload_layer_verify(payload_find(p, AUGMENT_LEVEL_BASIC), &err), -EBADMSG, err);
        write_payload(dir, LAYER_JSON("basic.tar.gz", HELLO), "hello");
        assert_ok(payload_layer_verify(payload_find(p, AUGMENT_LEVEL_BASIC), &err), err);
        assert_ok(payload_digest(p, AUGMENT_LEVEL_BASIC, &d, &err), err);
        assert_string_equal(d.text, HELLO);
        /* Nothing of core is installed: neither its digest nor its context can be made, least of all of basic alone. */
        assert_null(payload_find(p, AUGMENT_LEVEL_CORE));
        assert_error(payload_digest(p, AUGMENT_LEVEL_CORE, &d, &err), -ENOENT, err);

        /* The build context: two members in 512-byte blocks, then two blocks of zeros, whatever the reader's pace. */
        _cleanup_(docker_context_freep) DockerContext *c = NULL;
        char buffer[8192];
        size_t used = 0;
        ssize_t n;

        assert_error(docker_context_new("FROM scratch\n", p, AUGMENT_LEVEL_CORE, &c, &err), -ENOENT, err);
        assert_ok(docker_context_new("FROM scratch\n", p, AUGMENT_LEVEL_BASIC, &c, &err), err);
        assert_int_equal(docker_context_size(c), 512 * 6);
        while ((n = docker_context_read(c, buffer + used, 100)) > 0)
                used += (size_t) n;
        assert_int_equal(n, 0);
        assert_int_equal(used, 512 * 6);
        assert_string_equal(buffer, "Dockerfile");
        assert_memory_equal(buffer + 512, "FROM scratch\n", 14);
        assert_string_equal(buffer + 1024, "basic.tar.gz");
        assert_memory_equal(buffer + 1536, "hello", 6);
        assert_memory_equal(buffer + 257, "ustar", 6);
        assert_ok(tb_rm_rf(dir, &err), err);
}

static void write_in(const char *dir, const char *name, const char *text)
{
        _cleanup_free_ char *path = tb_asprintf("%s/amd64/%s", dir, name);
        _cleanup_error_ TbError *err = NULL;

        assert_ok(tb_file_write_atomic(path, text, strlen(text), 0644, &err), err);
}

#define WORLD "sha256:486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7"
#define ONE_LAYER(level, digest)                                                      \
        "{\"level\":\"" level "\",\"file\":\"" level ".tar.gz\",\"digest\":\"" digest \
        "\",\"diff_id\":\"" BASE "\",\"size\":5}"

/* Two levels, listed in any order: the context has both files, basic's first. */
static void test_payload_core(void **state)
{
        _cleanup_(docker_context_freep) DockerContext *c = NULL;
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *dir = NULL;
        _cleanup_payload_ Payload *p = NULL;
        TbDigest both, expected;
        char buffer[8192];
        size_t used = 0;
        ssize_t n;

        assert_ok(tb_mkdtemp("/tmp/tbnode-test-XXXXXX", &dir, &err), err);
        write_payload(dir,
                "{\"version\":\"1\",\"arch\":\"amd64\",\"layers\":[" ONE_LAYER("core", WORLD) "," ONE_LAYER(
                        "basic", HELLO) "],\"components\":[]}",
                "hello");
        write_in(dir, "core.tar.gz", "world");
        assert_ok(payload_load(dir, "amd64", &p, &err), err);
        assert_ok(payload_digest(p, AUGMENT_LEVEL_CORE, &both, &err), err);
        assert_ok(tb_digest_of(HELLO "\n" WORLD "\n", strlen(HELLO "\n" WORLD "\n"), &expected, &err), err);
        assert_true(tb_digest_equal(&both, &expected));
        assert_ok(payload_digest(p, AUGMENT_LEVEL_BASIC, &both, &err), err);
        assert_string_equal(both.text, HELLO);

        assert_ok(docker_context_new("FROM scratch\n", p, AUGMENT_LEVEL_CORE, &c, &err), err);
        assert_int_equal(docker_context_size(c), 512 * 8);
        while ((n = docker_context_read(c, buffer + used, 1000)) > 0)
                used += (size_t) n;
        assert_int_equal(used, 512 * 8);
        assert_string_equal(buffer + 1024, "basic.tar.gz");
        assert_string_equal(buffer + 2048, "core.tar.gz");
        assert_memory_equal(buffer + 2560, "world", 6);
        assert_ok(tb_rm_rf(dir, &err), err);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_key),
                cmocka_unit_test(test_known),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_long_tag),
                cmocka_unit_test(test_host_component),
                cmocka_unit_test(test_request_checks),
                cmocka_unit_test(test_request_json),
                cmocka_unit_test(test_events),
                cmocka_unit_test(test_result_json),
                cmocka_unit_test(test_payload),
                cmocka_unit_test(test_payload_core),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

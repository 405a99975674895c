/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* References, platforms, challenges, docker config, tokens, URLs: what is taken and what is refused. */

#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define D "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* ---- references: the cases of distribution's reference_test.go and normalize_test.go that apply, and more ---- */

static void test_reference_good(void **state)
{
        static const struct {
                const char *in, *out;
        } cases[] = {
                {"nginx", "docker.io/library/nginx:latest"},
                {"nginx:1.25", "docker.io/library/nginx:1.25"},
                {"library/nginx", "docker.io/library/nginx:latest"},
                {"docker.io/nginx", "docker.io/library/nginx:latest"},
                {"index.docker.io/nginx", "docker.io/library/nginx:latest"},
                {"docker.io/a/b/c:x", "docker.io/a/b/c:x"},
                {"bitnami/redis:7", "docker.io/bitnami/redis:7"},
                {"ghcr.io/a/b", "ghcr.io/a/b:latest"},
                {"ghcr.io/a", "ghcr.io/a:latest"},
                {"GHCR.io/a/b", "ghcr.io/a/b:latest"},
                {"Host/a", "Host/a:latest"},
                {"localhost/x", "localhost/x:latest"},
                {"localhost:5000/x:1", "localhost:5000/x:1"},
                {"127.0.0.1:5000/x/y", "127.0.0.1:5000/x/y:latest"},
                {"[::1]:5000/x:t", "[::1]:5000/x:t"},
                {"[2001:db8::1]/x", "[2001:db8::1]/x:latest"},
                {"host:5000", "docker.io/library/host:5000"},
                {"x@" D, "docker.io/library/x@" D},
                {"x:t@" D, "docker.io/library/x:t@" D},
                {"r.example:65535/a.b/c_d/e__f/g-h/i---j", "r.example:65535/a.b/c_d/e__f/g-h/i---j:latest"},
                {"x:_a.B-9", "docker.io/library/x:_a.B-9"},
                {"xn--n3h.com/myimage", "xn--n3h.com/myimage:latest"},
                {"aa/asdf$$^/aa", NULL},
                {"0:0", "docker.io/library/0:0"},
                {"a.b/c", "a.b/c:latest"},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_ref_freep) RegistryRef *ref = NULL, *again = NULL;
                _cleanup_error_ TbError *e = NULL;
                _cleanup_free_ char *text = NULL, *text_again = NULL;
                int r = registry_ref_parse(cases[i].in, &ref, &e);

                if (!cases[i].out) {
                        assert_int_equal(r, -EINVAL);
                        continue;
                }
                if (r < 0)
                        fail_msg("%s: %s", cases[i].in, tb_error_message(e));
                text = registry_ref_to_string(ref);
                assert_string_equal(text, cases[i].out);
                assert_int_equal(registry_ref_parse(text, &again, NULL), 0);
                text_again = registry_ref_to_string(again);
                assert_string_equal(text_again, text);
        }
}

static void test_reference_bad(void **state)
{
        static const char *const bad[] = {
                "",
                ":",
                "@",
                "/",
                "a/",
                "/a",
                "a//b",
                ":justtag",
                "@" D,
                "repo@sha256:ffffffff",
                "validname@invaliddigest:ff",
                "Uppercase:tag",
                "test:5000/Uppercase/lowercase:tag",
                "lowercase:Uppercase/x",
                "a:",
                "a@",
                "a b",
                "a\n",
                "x:-a",
                "x:.a",
                "x@" D "0",
                "x@SHA256:0123",
                "a..b",
                "a___b",
                "a.-b",
                "a_",
                "-a",
                "a-",
                ".a",
                "host-/a",
                "-host.x/a",
                "host..x/a",
                "host.x:/a",
                "host.x:0/a",
                "host.x:65536/a",
                "host.x:1x/a",
                "[::1/a",
                "[::1]x/a",
                "[]/a",
                "[fe80::1%eth0]/a",
                "[1.2.3.4]/a",
                "http://host/a",
                "docker.io/",
                "docker.io//x",
                "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "a@" D "@" D,
                "a:b:c",
                "a/b:c/d:e:f",
                "\xff\xfe",
                "a/../b",
                "x@sha512:00",
                "user@host/x",
                "a%2fb",
                "host.x:5000:5000/a",
        };
        char tag[140] = "x:", name[300];

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                RegistryRef *ref = NULL;
                _cleanup_error_ TbError *e = NULL;

                if (registry_ref_parse(bad[i], &ref, &e) >= 0)
                        fail_msg("\"%s\" was taken", bad[i]);
                assert_null(ref);
                assert_non_null(e);
        }

        memset(tag + 2, 'a', 128);
        RegistryRef *ref = NULL;
        assert_int_equal(registry_ref_parse(tag, &ref, NULL), 0);
        registry_ref_free(ref);
        tag[130] = 'a';
        assert_true(registry_ref_parse(tag, &ref, NULL) < 0);
        memset(name, 'a', sizeof(name));
        name[256] = 0;
        assert_true(registry_ref_parse(name, &ref, NULL) < 0);
}

static void test_reference_parts(void **state)
{
        _cleanup_(registry_ref_freep) RegistryRef *a = NULL, *b = NULL;
        _cleanup_free_ char *s = NULL;
        TbDigest d;

        assert_int_equal(tb_digest_parse(D, &d, NULL), 0);
        assert_int_equal(
                registry_ref_new("127.0.0.1:5000", "mirror/docker.io/library/nginx", "1.25", NULL, &a, NULL),
                0);
        assert_int_equal(registry_ref_with(a, NULL, &d, &b, NULL), 0);
        s = registry_ref_to_string(b);
        assert_string_equal(s, "127.0.0.1:5000/mirror/docker.io/library/nginx@" D);
        RegistryRef *c = NULL;
        assert_int_equal(registry_ref_new("docker.io", "Bad", NULL, NULL, &c, NULL), -EINVAL);
        assert_int_equal(registry_ref_new("a/b", "x", NULL, NULL, &c, NULL), -EINVAL);
}

/* ---- platforms ---- */

static void test_platform(void **state)
{
        static const struct {
                const char *in, *out;
        } cases[] = {
                {"linux/amd64", "linux/amd64"},
                {"linux/x86_64", "linux/amd64"},
                {"Linux/AArch64", "linux/arm64"},
                {"linux/arm64/v8", "linux/arm64"},
                {"linux/arm", "linux/arm/v7"},
                {"linux/arm/v6", "linux/arm/v6"},
                {"linux", NULL},
                {"/", NULL},
                {"linux/", NULL},
                {"linux/a/b/c", NULL},
                {"linux/a b", NULL},
        };
        _cleanup_registry_platform_ RegistryPlatform host = {0};

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_registry_platform_ RegistryPlatform p = {0};
                _cleanup_free_ char *s = NULL;
                int r = registry_platform_parse(cases[i].in, &p, NULL);

                assert_int_equal(r, cases[i].out ? 0 : -EINVAL);
                if (r < 0)
                        continue;
                s = registry_platform_to_string(&p);
                assert_string_equal(s, cases[i].out);
        }
        assert_int_equal(registry_platform_host(&host, NULL), 0);
        assert_string_equal(host.os, "linux");
}

/* ---- challenges: distribution's authchallenge_test.go, RFC 9110 examples, and rubbish ---- */

static void test_challenge(void **state)
{
        static const struct {
                const char *in;
                RegistryAuthScheme scheme;
                const char *realm, *service, *scope;
        } cases[] = {
                {"Bearer "
                 "realm=\"https://auth.docker.io/"
                 "token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
                        REGISTRY_AUTH_BEARER, "https://auth.docker.io/token", "registry.docker.io",
                        "repository:a/b:pull,push"},
                {"bearer REALM=https://a/t , service = s", REGISTRY_AUTH_BEARER, "https://a/t", "s", NULL},
                {"Basic realm=\"x\"", REGISTRY_AUTH_BASIC, "x", NULL, NULL},
                {"Basic", REGISTRY_AUTH_BASIC, NULL, NULL, NULL},
                {"Basic realm=\"x\", Bearer realm=\"https://t\"", REGISTRY_AUTH_BEARER, "https://t", NULL,
                        NULL},
                {"Bearer realm=\"https://t\", Basic realm=\"x\"", REGISTRY_AUTH_BEARER, "https://t", NULL,
                        NULL},
                {"Negotiate, Basic realm=\"q\\\"uote\\\\\"", REGISTRY_AUTH_BASIC, "q\"uote\\", NULL, NULL},
                {"NTLM YWJj/ZGVm+==, Basic realm=\"a\"", REGISTRY_AUTH_BASIC, "a", NULL, NULL},
                {"Digest realm=\"d, with comma\", nonce=\"1\", Basic", REGISTRY_AUTH_BASIC, NULL, NULL,
                        NULL},
                {"Newauth realm=\"apps\", type=1, title=\"Login to \\\"apps\\\"\", Basic realm=\"simple\"",
                        REGISTRY_AUTH_BASIC, "simple", NULL, NULL},
                {"Bearer realm=\"a\",realm=\"b\"", REGISTRY_AUTH_BEARER, "a", NULL, NULL},
                {"", REGISTRY_AUTH_NONE, NULL, NULL, NULL},
                {" , ,", REGISTRY_AUTH_NONE, NULL, NULL, NULL},
                {"Unknown", REGISTRY_AUTH_NONE, NULL, NULL, NULL},
        };
        static const char *const bad[] = {
                "Bearer",
                "Bearer service=\"x\"",
                "Bearer realm=\"open",
                "Bearer realm=",
                "Bearer realm=\"a\\",
                "=",
                "\"",
                "Basic =x",
                "Bearer realm=\"a\" =",
                "Basic(x",
                "Basic realm=\"a\"\"b\"",
        };
        static char many[200], huge[6000];

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_registry_challenge_ RegistryChallenge c = {0};
                _cleanup_error_ TbError *e = NULL;

                if (registry_challenge_parse(cases[i].in, &c, &e) < 0)
                        fail_msg("%s: %s", cases[i].in, tb_error_message(e));
                assert_int_equal(c.scheme, cases[i].scheme);
                if (!tb_streq(c.realm, cases[i].realm) || !tb_streq(c.service, cases[i].service) ||
                        !tb_streq(c.scope, cases[i].scope))
                        fail_msg("%s: realm %s service %s scope %s", cases[i].in, c.realm, c.service,
                                c.scope);
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_registry_challenge_ RegistryChallenge c = {0};

                if (registry_challenge_parse(bad[i], &c, NULL) >= 0)
                        fail_msg("\"%s\" was taken", bad[i]);
        }
        for (size_t i = 0; i + 3 < sizeof(many); i += 2)
                memcpy(many + i, "A,", 2);
        memset(huge, 'A', sizeof(huge) - 1);
        _cleanup_registry_challenge_ RegistryChallenge c = {0};
        assert_int_equal(registry_challenge_parse(many, &c, NULL), -EMSGSIZE);
        assert_int_equal(registry_challenge_parse(huge, &c, NULL), -EMSGSIZE);
}

static void test_scopes(void **state)
{
        char *have[] = {(char *) "repository:a/b:pull,push", (char *) "repository:h:5000/x:pull", NULL};

        assert_true(registry_scope_is_covered(have, "repository:a/b:pull"));
        assert_true(registry_scope_is_covered(have, "repository:a/b:push,pull"));
        assert_true(registry_scope_is_covered(have, "repository:h:5000/x:pull"));
        assert_false(registry_scope_is_covered(have, "repository:h:5000/x:push"));
        assert_false(registry_scope_is_covered(have, "repository:a/b:delete"));
        assert_false(registry_scope_is_covered(have, "repository:a/b:pul"));
        assert_false(registry_scope_is_covered(have, "repository:a/bb:pull"));
        assert_false(registry_scope_is_covered(have, "nocolon"));
        assert_false(registry_scope_is_covered(NULL, "repository:a/b:pull"));
}

/* ---- docker config ---- */

static RegistryDockerConfig *config_of(const char *text)
{
        _cleanup_error_ TbError *e = NULL;
        RegistryDockerConfig *config = NULL;

        if (registry_docker_config_parse(text, strlen(text), "config", &config, &e) < 0)
                fail_msg("%s: %s", text, tb_error_message(e));
        return config;
}

static const RegistryCredentials *find(const RegistryDockerConfig *config, const char *host)
{
        const char *helper;

        return registry_docker_config_find(config, host, &helper);
}

static const char *helper_of(const RegistryDockerConfig *config, const char *host)
{
        const char *helper;

        (void) registry_docker_config_find(config, host, &helper);
        return helper;
}

static void test_docker_config(void **state)
{
        _cleanup_(registry_docker_config_freep) RegistryDockerConfig
                *list = config_of(
                        "{\"auths\":{"
                        "\"https://index.docker.io/v1/\":{\"auth\":\"dXNlcjpwYTpzcw==\"},"
                        "\"docker.io\":{\"auth\":\"bm86bm8=\"},"
                        "\"https://R.example:5000/v2/\":{\"username\":\"u\",\"password\":\"p\"},"
                        "\"helper.example\":{},"
                        "\"id.example\":{\"auth\":\"MDAwMDAwMDA6\",\"identitytoken\":\"x\"},"
                        "\"quay.io/namespace\":{\"auth\":\"YTpi\"},"
                        "\"[::1]:5000\":{\"auth\":\"YTpi\"},"
                        "\"tok.example\":{\"registrytoken\":\"abc\"}},"
                        "\"credHelpers\":{\"gcr.io\":\"gcloud\",\"https://index.docker.io/v1/\":\"hub\"},"
                        "\"HttpHeaders\":{\"x\":\"y\"},\"credsStore\":\"secretservice\"}"),
                *plain = config_of("{\"credHelpers\":{\"docker.io\":\"hub\"}}");

        assert_string_equal(find(list, "docker.io")->user, "user");
        assert_string_equal(find(list, "docker.io")->password, "pa:ss");
        assert_string_equal(find(list, "r.example:5000")->password, "p");
        assert_null(find(list, "helper.example")); /* empty: the store has it */
        assert_string_equal(find(list, "id.example")->identity_token, "x");
        assert_null(find(list, "id.example")->user);
        assert_null(find(list, "quay.io"));
        assert_string_equal(find(list, "[::1]:5000")->user, "a");
        assert_string_equal(find(list, "tok.example")->registry_token, "abc");
        assert_string_equal(helper_of(list, "gcr.io"), "gcloud");
        assert_string_equal(helper_of(list, "docker.io"), "hub");
        assert_string_equal(helper_of(list, "any.example"), "secretservice");
        assert_string_equal(helper_of(plain, "docker.io"), "hub");
        assert_null(helper_of(plain, "any.example"));
}

/* docker/cli: the key that is the host itself counts; of others that mean it, the first. */
static void test_docker_config_keys(void **state)
{
        _cleanup_(registry_docker_config_freep) RegistryDockerConfig *list =
                config_of("{\"auths\":{"
                          "\"https://a.example/v1/\":{\"username\":\"v1\",\"password\":\"\"},"
                          "\"https://a.example\":{\"username\":\"url\",\"password\":\"\"},"
                          "\"a.example\":{\"username\":\"plain\",\"password\":\"\"},"
                          "\"http://b.example:80/v2\":{\"username\":\"first\",\"password\":\"\"},"
                          "\"b.example:80/\":{\"username\":\"second\",\"password\":\"\"},"
                          "\"index.docker.io\":{\"username\":\"short\",\"password\":\"\"},"
                          "\"https://index.docker.io/v1/\":{\"username\":\"hub\",\"password\":\"\"}}}");

        assert_string_equal(find(list, "a.example")->user, "plain");
        assert_string_equal(find(list, "b.example:80")->user, "first");
        assert_null(find(list, "b.example")); /* another port is another registry */
        assert_string_equal(find(list, "docker.io")->user, "hub");
}

static void test_docker_config_bad(void **state)
{
        static const char *const bad[] = {
                "",
                "[]",
                "{\"auths\":[]}",
                "{\"auths\":{\"a.b\":1}}",
                "{\"auths\":{\"a.b\":{\"auth\":\"!\"}}}",
                "{\"auths\":{\"a.b\":{\"auth\":\"bm9jb2xvbg==\"}}}",
                "{\"auths\":{\"a.b\":{\"auth\":\"OnB3\"}}}",
                "{\"auths\":{\"a.b\":{\"auth\":7}}}",
                "{\"auths\":{\"a.b\":{\"registrytoken\":\"a\\r\\nb\"}}}",
                "{\"auths\":{\"a.b\":{\"auth\":\"dXNlcjpwYTpzcw===\"}}}",
                "{\"auths\":{},\"auths\":{}}",
                "{} x",
                "{\"auths\":{\"a.b\":{\"auth\":\"YQBiOmM=\"}}}", /* a\0b:c */
                "{\"auths\":{\"a.b\":{\"identitytoken\":\"a b\"}}}",
                "{\"credHelpers\":{\"a.b\":7}}",
                "{\"credHelpers\":{\"a.b\":\"../../tmp/evil\"}}",
                "{\"credHelpers\":{\"a.b\":\"a b\"}}",
                "{\"credHelpers\":{\"a.b\":\"\"}}",
                "{\"credsStore\":\"x;reboot\"}",
                "{\"credsStore\":\"x/y\"}",
                "{\"credsStore\":[]}",
        };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                _cleanup_(registry_docker_config_freep) RegistryDockerConfig *list = NULL;
                _cleanup_error_ TbError *e = NULL;

                if (registry_docker_config_parse(bad[i], strlen(bad[i]), "config", &list, &e) >= 0)
                        fail_msg("%s was taken", bad[i]);
                assert_non_null(e);
        }
}

static void test_base64(void **state)
{
        static const struct {
                const char *plain, *coded;
        } cases[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="},
                {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}}; /* RFC 4648 section 10 */

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *c = registry_base64_encode(cases[i].plain, strlen(cases[i].plain)),
                                    *p = NULL;
                size_t n;

                assert_string_equal(c, cases[i].coded);
                assert_int_equal(registry_base64_decode(c, &p, &n, NULL), 0);
                assert_string_equal(p, cases[i].plain);
                assert_int_equal(n, strlen(cases[i].plain));
        }
}

/* ---- tokens, headers, URLs ---- */

static void test_token(void **state)
{
        static const struct {
                const char *in, *token;
                uint64_t expires;
        } good[] = {
                {"{\"token\":\"a.b\"}", "a.b", 60},
                {"{\"access_token\":\"a\",\"expires_in\":300}", "a", 300},
                {"{\"token\":\"t\",\"access_token\":\"a\",\"expires_in\":1}", "t", 60},
                {"{\"token\":\"\",\"access_token\":\"a\",\"expires_in\":99999999999}", "a", 86400},
                {"{\"token\":null,\"access_token\":\"a\"}", "a", 60},
        };
        static const char *const bad[] = {"", "{}", "[]", "{\"token\":1}", "{\"token\":\"a b\"}",
                "{\"token\":\"\\u00e9\"}", "{\"token\":\"a\",\"expires_in\":-1}",
                "{\"token\":\"a\",\"expires_in\":\"1\"}"};

        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                _cleanup_(registry_token_answer_done) RegistryTokenAnswer a = {0};

                assert_int_equal(registry_token_parse(good[i].in, strlen(good[i].in), NULL, &a, NULL), 0);
                assert_string_equal(a.token, good[i].token);
                assert_int_equal(a.expires_sec, good[i].expires);
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                RegistryTokenAnswer a;

                if (registry_token_parse(bad[i], strlen(bad[i]), NULL, &a, NULL) >= 0)
                        fail_msg("%s was taken", bad[i]);
        }
}

/* What is left of a token counts from when the server made it, by the server's clock: ours may be years off. */
static void test_token_age(void **state)
{
        static const struct {
                const char *issued, *date;
                uint64_t expires;
        } cases[] = {
                {"2009-11-10T23:00:00Z", "Tue, 10 Nov 2009 23:00:00 GMT", 300},
                {"2009-11-10T22:58:20Z", "Tue, 10 Nov 2009 23:00:00 GMT",
                        200}, /* kept for 100 s somewhere */
                {"2009-11-11T00:58:20.123456789+02:00", "Tue, 10 Nov 2009 23:00:00 GMT", 200},
                {"2009-11-10T23:00:30Z", "Tue, 10 Nov 2009 23:00:00 GMT", 300}, /* two clocks that differ */
                {"2009-11-10T22:00:00Z", "Tue, 10 Nov 2009 23:00:00 GMT",
                        300}, /* cannot be: dead on arrival */
                {"2009-11-10T22:58:20Z", NULL, 300},
                {"2009-11-10T22:58:20Z", "yesterday", 300},
                {"0001-01-01T00:00:00Z", "Tue, 10 Nov 2009 23:00:00 GMT", 300}, /* Go's zero time */
                {"soon", "Tue, 10 Nov 2009 23:00:00 GMT", 300},
        };
        static const char *const bad[] = {"", "2009-11-10", "2009-11-10T23:00:00", "2009-13-10T23:00:00Z",
                "2009-00-10T23:00:00Z", "2009-11-10T23:00:00.Z", "2009-11-10T23:00:00+0200",
                "2009-11-10T24:00:00Z", "2009-11-10 23:00:00Z", "2009-11-10T23:00:00Zx",
                "20o9-11-10T23:00:00Z"};
        int64_t t;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(registry_token_answer_done) RegistryTokenAnswer a = {0};
                char text[200];

                snprintf(text, sizeof(text), "{\"token\":\"t\",\"expires_in\":300,\"issued_at\":\"%s\"}",
                        cases[i].issued);
                assert_int_equal(registry_token_parse(text, strlen(text), cases[i].date, &a, NULL), 0);
                if (a.expires_sec != cases[i].expires)
                        fail_msg("%s at %s: %u s left", cases[i].issued, cases[i].date,
                                (unsigned) a.expires_sec);
        }
        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                if (registry_parse_rfc3339(bad[i], &t))
                        fail_msg("\"%s\" was taken", bad[i]);
        assert_true(registry_parse_rfc3339("1970-01-02T00:00:01Z", &t) && t == 86401);
}

/* No message quotes what may be a secret, however the document is broken. */
static void test_secrets_not_quoted(void **state)
{
        static const char *const texts[] = {
                "{\"token\":\"hunter2\" x}",
                "{\"token\" \"hunter2\"}",
                "{\"token\":\"hunter2",
                "{\"token\":\"hunter2\\x\"}",
                "{\"a\":{\"hunter2\":\"hunter2\"}",
                "\"hunter2\"",
                "hunter2",
        };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_(registry_docker_config_freep) RegistryDockerConfig *config = NULL;
                _cleanup_error_ TbError *a = NULL, *b = NULL, *c = NULL;
                RegistryCredentials cred = {0};
                RegistryTokenAnswer answer;

                assert_true(registry_token_parse(texts[i], strlen(texts[i]), NULL, &answer, &a) < 0);
                assert_true(registry_docker_config_parse(texts[i], strlen(texts[i]), "config", &config, &b) <
                                0 ||
                        i > 4);
                assert_true(registry_helper_answer_parse(texts[i], strlen(texts[i]), &cred, &c) < 0);
                assert_null(strstr(tb_error_message(a), "hunter2"));
                assert_true(!b || !strstr(tb_error_message(b), "hunter2"));
                assert_null(strstr(tb_error_message(c), "hunter2"));
        }
}

static void test_helper_answer(void **state)
{
        static const char *const bad[] = {"", "{}", "[]", "{\"Username\":\"u\"}", "{\"Secret\":\"s\"}",
                "{\"Username\":\"\",\"Secret\":\"s\"}", "{\"Username\":\"u\",\"Secret\":\"\"}",
                "{\"Username\":7,\"Secret\":\"s\"}", "{\"Username\":\"a:b\",\"Secret\":\"s\"}",
                "{\"Username\":\"<token>\",\"Secret\":\"a b\"}",
                "{\"Username\":\"u\",\"Secret\":\"s\"} trailing"};
        static const char good[] = "{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"p w:x\"}\n",
                          token[] = "{\"Username\":\"<token>\",\"Secret\":\"tok\"}";
        RegistryCredentials *c = calloc(1, sizeof(*c)), *t = calloc(1, sizeof(*t));

        assert_int_equal(registry_helper_answer_parse(good, strlen(good), c, NULL), 0);
        assert_string_equal(c->user, "u");
        assert_string_equal(c->password, "p w:x");
        assert_int_equal(registry_helper_answer_parse(token, strlen(token), t, NULL), 0);
        assert_null(t->user);
        assert_string_equal(t->identity_token, "tok");
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                RegistryCredentials other = {0};

                if (registry_helper_answer_parse(bad[i], strlen(bad[i]), &other, NULL) >= 0)
                        fail_msg("%s was taken", bad[i]);
        }
        registry_credentials_free(c);
        registry_credentials_free(t);
}

static void test_retry_after(void **state)
{
        char date[64];
        time_t t = time(NULL) + 100;
        struct tm tm;
        uint64_t usec;

        assert_int_equal(registry_retry_after_usec(NULL), 0);
        assert_int_equal(registry_retry_after_usec("7"), 7 * USEC_PER_SEC);
        assert_int_equal(registry_retry_after_usec("99999999999999999999999"), 86400 * USEC_PER_SEC);
        assert_int_equal(registry_retry_after_usec("-1"), 0);
        assert_int_equal(registry_retry_after_usec("soon"), 0);
        assert_int_equal(registry_retry_after_usec("Wed, 21 Oct 2015 07:28:00 GMT"), 0);
        gmtime_r(&t, &tm);
        strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        usec = registry_retry_after_usec(date);
        assert_true(usec > 0 && usec <= 100 * USEC_PER_SEC);
}

static void test_link(void **state)
{
        static const struct {
                const char *in, *next;
        } cases[] = {
                {"</v2/a/tags/list?last=b&n=1>; rel=\"next\"", "/v2/a/tags/list?last=b&n=1"},
                {"<a>; rel=prev, <b>; rel=next", "b"},
                {"<a,b>;rel=next", "a,b"},
                {"<a>; title=\"x, <y>; rel=next\"; rel=\"prev\"", NULL},
                {"<a>; rel=\"nextish\"", NULL},
                {"", NULL},
        };
        char *none = NULL;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *next = NULL;

                assert_int_equal(registry_link_next(cases[i].in, &next, NULL), cases[i].next ? 1 : 0);
                if (cases[i].next)
                        assert_string_equal(next, cases[i].next);
        }
        assert_int_equal(registry_link_next("nonsense", &none, NULL), -EPROTO);
        assert_int_equal(registry_link_next("<open", &none, NULL), -EPROTO);
}

static void test_urls(void **state)
{
        static const struct {
                const char *base, *location, *out;
        } cases[] = {
                {"https://r.x/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/u?_state=x%3D",
                        "https://r.x/v2/a/blobs/uploads/u?_state=x%3D"},
                {"https://r.x:5000/v2/a", "https://other/x", "https://other/x"},
                {"http://r.x/v2/a/b", "c?d=1", "http://r.x/v2/a/c?d=1"},
                {"http://r.x/v2/", "//h2/x", "http://h2/x"},
                {"http://[::1]:5000/v2/", "/x", "http://[::1]:5000/x"},
                {"http://r.x/", "javascript:alert(1)", NULL},
                {"http://r.x/", "http://u@h/", NULL},
                {"http://r.x/", "/a b", NULL},
                {"http://r.x/", "/a\tb", NULL},
                {"http://r.x/", "", NULL},
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *out = NULL;
                int r = registry_url_resolve(cases[i].base, cases[i].location, &out, NULL);

                assert_int_equal(r, cases[i].out ? 0 : -EPROTO);
                if (r >= 0)
                        assert_string_equal(out, cases[i].out);
        }
        assert_true(registry_url_same_origin("https://A.x/1", "https://a.x:443/2"));
        assert_false(registry_url_same_origin("https://a.x/", "http://a.x/"));
        assert_false(registry_url_same_origin("https://a.x/", "https://a.x:444/"));
        assert_false(registry_url_same_origin("https://a.x/", "https://b.a.x/"));

        assert_true(registry_host_is_loopback("localhost:5000"));
        assert_true(registry_host_is_loopback("a.localhost"));
        assert_true(registry_host_is_loopback("127.8.9.1:1"));
        assert_true(registry_host_is_loopback("[::1]:5000"));
        assert_false(registry_host_is_loopback("localhost.example"));
        assert_false(registry_host_is_loopback("127.0.0.1.example"));
        assert_false(registry_host_is_loopback("10.0.0.1"));
        assert_false(registry_host_is_loopback("notlocalhost"));
        assert_true(registry_host_is_private("172.31.0.1"));
        assert_false(registry_host_is_private("172.32.0.1"));
        assert_true(registry_host_is_private("100.64.0.1"));
        assert_false(registry_host_is_private("100.128.0.1"));
        assert_true(registry_host_is_private("[fe80::1]"));
        assert_false(registry_host_is_private("[2606:4700::1]"));
}

static void test_error_text(void **state)
{
        static const char body[] =
                "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"no\\n\\u001b[0m\",\"detail\":{}}]}";
        _cleanup_free_ char *s = registry_error_text(body, strlen(body));
        static const char *const none[] = {
                "", "<html>", "{}", "{\"errors\":[]}", "{\"errors\":[1]}", "{\"errors\":{}}"};

        assert_non_null(s);
        assert_non_null(strstr(s, "DENIED: no"));
        assert_null(strpbrk(s, "\n\033"));
        for (size_t i = 0; i < ELEMENTSOF(none); i++)
                assert_null(registry_error_text(none[i], strlen(none[i])));
}

/* What is wiped is freed once: a part that somebody else holds as well is still his. */
static void test_wiped_json_is_freed_once(void **state)
{
        json_t *j = json_pack("{s:{s:s}, s:[s]}", "auths", "registry", "secret", "more", "another");
        json_t *held = json_incref(json_object_get(j, "auths"));
        json_t *text = json_object_get(held, "registry");

        assert_non_null(j);
        registry_json_wipe(j);
        assert_int_equal(held->refcount, 1);
        assert_int_equal(text->refcount, 1);
        assert_memory_equal(json_string_value(text), "\0\0\0\0\0\0", 7);
        json_decref(held);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_wiped_json_is_freed_once),
                cmocka_unit_test(test_reference_good),
                cmocka_unit_test(test_reference_bad),
                cmocka_unit_test(test_reference_parts),
                cmocka_unit_test(test_platform),
                cmocka_unit_test(test_challenge),
                cmocka_unit_test(test_scopes),
                cmocka_unit_test(test_docker_config),
                cmocka_unit_test(test_docker_config_keys),
                cmocka_unit_test(test_docker_config_bad),
                cmocka_unit_test(test_base64),
                cmocka_unit_test(test_token),
                cmocka_unit_test(test_token_age),
                cmocka_unit_test(test_secrets_not_quoted),
                cmocka_unit_test(test_helper_answer),
                cmocka_unit_test(test_retry_after),
                cmocka_unit_test(test_link),
                cmocka_unit_test(test_urls),
                cmocka_unit_test(test_error_text),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The grammar of references, case by case as distribution/reference decides it (the inputs of its reference_test.go,
 * normalize_test.go and regexp_test.go), read as Docker reads a name: ParseNormalizedNamed() and TagNameOnly().
 *
 * Where we differ, and why, is marked with "ours".
 */

#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define F64 "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
#define SHA "sha256:" F64
#define ID "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"

typedef struct Case {
        const char *in;
        const char *host, *repository, *tag; /* host NULL = refused */
        bool digest;
} Case;

static const Case cases[] = {
        /* ---- reference_test.go, TestReferenceParse ---- */
        {"test_com", "docker.io", "library/test_com", "latest", false},
        {"test.com:tag", "docker.io", "library/test.com", "tag", false},
        {"test.com:5000", "docker.io", "library/test.com", "5000", false},
        {"test.com/repo:tag", "test.com", "repo", "tag", false},
        {"test:5000/repo", "test:5000", "repo", "latest", false},
        {"test:5000/repo:tag", "test:5000", "repo", "tag", false},
        {"test:5000/repo@" SHA, "test:5000", "repo", NULL, true},
        {"test:5000/repo:tag@" SHA, "test:5000", "repo", "tag", true},
        {"", NULL, NULL, NULL, false},
        {":justtag", NULL, NULL, NULL, false},
        {"@" SHA, NULL, NULL, NULL, false},
        {"repo@sha256:ffffffffffffffffffffffffffffffffff", NULL, NULL, NULL, false},
        {"validname@invaliddigest:" F64 F64, NULL, NULL, NULL, false},
        {"Uppercase:tag", NULL, NULL, NULL, false},
        {"Uppercase/lowercase:tag", "Uppercase", "lowercase", "tag", false},
        {"test:5000/Uppercase/lowercase:tag", NULL, NULL, NULL, false},
        {"lowercase:Uppercase", "docker.io", "library/lowercase", "Uppercase", false},
        {"aa/asdf$$^/aa", NULL, NULL, NULL, false},
        {"sub-dom1.foo.com/bar/baz/quux", "sub-dom1.foo.com", "bar/baz/quux", "latest", false},
        {"sub-dom1.foo.com/bar/baz/quux:some-long-tag", "sub-dom1.foo.com", "bar/baz/quux", "some-long-tag",
                false},
        {"b.gcr.io/test.example.com/my-app:test.example.com", "b.gcr.io", "test.example.com/my-app",
                "test.example.com", false},
        {"xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com", "myimage", "xn--n3h.com", false},
        /* ours: only sha256 digests can be verified here */
        {"xn--7o8h.com/myimage:xn--7o8h.com@sha512:" F64 F64, NULL, NULL, NULL, false},
        {"foo_bar.com:8080", "docker.io", "library/foo_bar.com", "8080", false},
        {"foo/foo_bar.com:8080", "docker.io", "foo/foo_bar.com", "8080", false},
        {"192.168.1.1", "docker.io", "library/192.168.1.1", "latest", false},
        {"192.168.1.1:tag", "docker.io", "library/192.168.1.1", "tag", false},
        {"192.168.1.1:5000", "docker.io", "library/192.168.1.1", "5000", false},
        {"192.168.1.1/repo", "192.168.1.1", "repo", "latest", false},
        {"192.168.1.1:5000/repo", "192.168.1.1:5000", "repo", "latest", false},
        {"192.168.1.1:5000/repo:5050", "192.168.1.1:5000", "repo", "5050", false},
        {"[2001:db8::1]", NULL, NULL, NULL, false},
        {"[2001:db8::1]:5000", NULL, NULL, NULL, false},
        {"[2001:db8::1]:tag", NULL, NULL, NULL, false},
        {"[2001:db8::1]/repo", "[2001:db8::1]", "repo", "latest", false},
        {"[2001:db8:1:2:3:4:5:6]/repo:tag", "[2001:db8:1:2:3:4:5:6]", "repo", "tag", false},
        {"[2001:db8::1]:5000/repo", "[2001:db8::1]:5000", "repo", "latest", false},
        {"[2001:db8::1]:5000/repo:tag", "[2001:db8::1]:5000", "repo", "tag", false},
        {"[2001:db8::1]:5000/repo@" SHA, "[2001:db8::1]:5000", "repo", NULL, true},
        {"[2001:db8::1]:5000/repo:tag@" SHA, "[2001:db8::1]:5000", "repo", "tag", true},
        {"[2001:db8::]:5000/repo", "[2001:db8::]:5000", "repo", "latest", false},
        {"[::1]:5000/repo", "[::1]:5000", "repo", "latest", false},
        {"[fe80::1%eth0]:5000/repo", NULL, NULL, NULL, false},
        {"[fe80::1%@invalidzone]:5000/repo", NULL, NULL, NULL, false},

        /* ---- normalize_test.go, TestValidateReferenceName ---- */
        {"docker/docker", "docker.io", "docker/docker", "latest", false},
        {"library/debian", "docker.io", "library/debian", "latest", false},
        {"debian", "docker.io", "library/debian", "latest", false},
        {"docker.io/docker/docker", "docker.io", "docker/docker", "latest", false},
        {"docker.io/library/debian", "docker.io", "library/debian", "latest", false},
        {"docker.io/debian", "docker.io", "library/debian", "latest", false},
        {"index.docker.io/docker/docker", "docker.io", "docker/docker", "latest", false},
        {"index.docker.io/library/debian", "docker.io", "library/debian", "latest", false},
        {"index.docker.io/debian", "docker.io", "library/debian", "latest", false},
        {"127.0.0.1:5000/docker/docker", "127.0.0.1:5000", "docker/docker", "latest", false},
        {"127.0.0.1:5000/library/debian", "127.0.0.1:5000", "library/debian", "latest", false},
        {"127.0.0.1:5000/debian", "127.0.0.1:5000", "debian", "latest", false},
        {"192.168.0.1", "docker.io", "library/192.168.0.1", "latest", false},
        {"192.168.0.1:80", "docker.io", "library/192.168.0.1", "80", false},
        {"192.168.0.1:8/debian", "192.168.0.1:8", "debian", "latest", false},
        {"192.168.0.2:25000/debian", "192.168.0.2:25000", "debian", "latest", false},
        {"thisisthesongthatneverendsitgoesonandonandonthisisthesongthatnev", "docker.io",
                "library/thisisthesongthatneverendsitgoesonandonandonthisisthesongthatnev", "latest", false},
        {"[fc00::1]:5000/docker", "[fc00::1]:5000", "docker", "latest", false},
        {"[fc00::1]:5000/docker/docker", "[fc00::1]:5000", "docker/docker", "latest", false},
        {"[fc00:1:2:3:4:5:6:7]:5000/library/debian", "[fc00:1:2:3:4:5:6:7]:5000", "library/debian", "latest",
                false},
        {"docker.io/" ID, "docker.io", "library/" ID, "latest", false},
        {"Docker/docker", "Docker", "docker", "latest", false},
        {"DOCKER/docker", "DOCKER", "docker", "latest", false},
        {"https://github.com/docker/docker", NULL, NULL, NULL, false},
        {"docker/Docker", NULL, NULL, NULL, false},
        {"-docker", NULL, NULL, NULL, false},
        {"-docker/docker", NULL, NULL, NULL, false},
        {"-docker.io/docker/docker", NULL, NULL, NULL, false},
        {"docker///docker", NULL, NULL, NULL, false},
        {"docker.io/docker/Docker", NULL, NULL, NULL, false},
        {"docker.io/docker///docker", NULL, NULL, NULL, false},
        {"[fc00::1]", NULL, NULL, NULL, false},
        {"[fc00::1]:5000", NULL, NULL, NULL, false},
        {"fc00::1:5000/debian", NULL, NULL, NULL, false},
        {"[fe80::1%eth0]:5000/debian", NULL, NULL, NULL, false},
        {ID, NULL, NULL, NULL, false},

        /* ---- normalize_test.go, TestValidateRemoteName ---- */
        {"docker-rules/docker", "docker.io", "docker-rules/docker", "latest", false},
        {"docker---rules/docker", "docker.io", "docker---rules/docker", "latest", false},
        {"doc/docker", "docker.io", "doc/docker", "latest", false},
        {"d/docker", "docker.io", "d/docker", "latest", false},
        {"jess/t", "docker.io", "jess/t", "latest", false},
        {"dock__er/docker", "docker.io", "dock__er/docker", "latest", false},
        {"docker-/docker", NULL, NULL, NULL, false},
        {"-docker-/docker", NULL, NULL, NULL, false},
        {"____/____", NULL, NULL, NULL, false},
        {"_docker/_docker", NULL, NULL, NULL, false},
        {"dock..er/docker", NULL, NULL, NULL, false},
        {"dock_.er/docker", NULL, NULL, NULL, false},
        {"dock-.er/docker", NULL, NULL, NULL, false},
        {"docker/", NULL, NULL, NULL, false},
        {"this_is_not_a_valid_namespace_because_its_lenth_is_greater_than_255_this_is_not_a_valid_namespace_"
         "because_its_"
         "lenth_is_greater_than_255_this_is_not_a_valid_namespace_because_its_lenth_is_greater_than_255_"
         "this_is_not_a_"
         "valid_namespace_because_its_lenth_is_greater_than_255/docker",
                NULL, NULL, NULL, false},

        /* ---- normalize_test.go, TestParseRepositoryInfo, TestParseAnyReference, TestNormalizedSplitHostname ---- */
        {"fooo/bar", "docker.io", "fooo/bar", "latest", false},
        {"index.docker.io/fooo/bar", "docker.io", "fooo/bar", "latest", false},
        {"nonlibrary/ubuntu", "docker.io", "nonlibrary/ubuntu", "latest", false},
        {"other/library", "docker.io", "other/library", "latest", false},
        {"127.0.0.1:8000/private/moonbase", "127.0.0.1:8000", "private/moonbase", "latest", false},
        {"127.0.0.1:8000/privatebase", "127.0.0.1:8000", "privatebase", "latest", false},
        {"example.com/private/moonbase", "example.com", "private/moonbase", "latest", false},
        {"example.com/privatebase", "example.com", "privatebase", "latest", false},
        {"example.com:8000/private/moonbase", "example.com:8000", "private/moonbase", "latest", false},
        {"ubuntu-12.04-base", "docker.io", "library/ubuntu-12.04-base", "latest", false},
        {"index.docker.io/library/ubuntu-12.04-base", "docker.io", "library/ubuntu-12.04-base", "latest",
                false},
        {"docker.io/foo", "docker.io", "library/foo", "latest", false},
        {"library/foo/bar", "docker.io", "library/foo/bar", "latest", false},
        {"store/foo/bar", "docker.io", "store/foo/bar", "latest", false},
        {"Foo/bar", "Foo", "bar", "latest", false},
        {"FOO/bar", "FOO", "bar", "latest", false},
        {"busybox:latest@" SHA, "docker.io", "library/busybox", "latest", true},
        {"-foo", NULL, NULL, NULL, false},
        {"busybox:-foo", NULL, NULL, NULL, false},
        {"busybox@foo", NULL, NULL, NULL, false},
        {"redis@" SHA, "docker.io", "library/redis", NULL, true},
        {"docker.io/library/redis:latest", "docker.io", "library/redis", "latest", false},
        {"dmcgowan/myapp:latest", "docker.io", "dmcgowan/myapp", "latest", false},
        {"docker.io/dmcgowan/myapp@" SHA, "docker.io", "dmcgowan/myapp", NULL, true},
        {"dbcc1c35ac38df41fd2f5e4130b32ffdb93ebae8b3dbe638c23575912276fc9", "docker.io",
                "library/dbcc1c35ac38df41fd2f5e4130b32ffdb93ebae8b3dbe638c23575912276fc9", "latest", false},
        {"dbcc1", "docker.io", "library/dbcc1", "latest", false},
        /* ours: a digest alone is the ID of a local image; no registry has a name for it */
        {SHA, NULL, NULL, NULL, false},
        {"test_com/foo", "docker.io", "test_com/foo", "latest", false},
        {"docker/migrator", "docker.io", "docker/migrator", "latest", false},
        {"test-com:8080/foo", "test-com:8080", "foo", "latest", false},
        {"xn--n3h.com:18080/foo", "xn--n3h.com:18080", "foo", "latest", false},

        /* ---- regexp_test.go, TestFullNameRegexp, as names to pull ---- */
        {"aa/aa/aa/aa/aa/aa/aa/aa/aa/bb/bb/bb/bb/bb/bb", "docker.io",
                "aa/aa/aa/aa/aa/aa/aa/aa/aa/bb/bb/bb/bb/bb/bb", "latest", false},
        {"a/a/a/a", "docker.io", "a/a/a/a", "latest", false},
        {"a/a/a/a/", NULL, NULL, NULL, false},
        {"a//a/a", NULL, NULL, NULL, false},
        {"foo.com", "docker.io", "library/foo.com", "latest", false},
        {"foo.com/", NULL, NULL, NULL, false},
        {"foo.com:8080/bar", "foo.com:8080", "bar", "latest", false},
        {"foo.com:http/bar", NULL, NULL, NULL, false},
        {"foo.com/bar/baz", "foo.com", "bar/baz", "latest", false},
        {"localhost:8080/bar", "localhost:8080", "bar", "latest", false},
        {"a^a", NULL, NULL, NULL, false},
        {"asdf$$^/aa", NULL, NULL, NULL, false},
        {"aa-a/a", "docker.io", "aa-a/a", "latest", false},
        {"a-/a/a/a", NULL, NULL, NULL, false},
        {"foo.com/a-/a/a", NULL, NULL, NULL, false},
        {"foo/bar-", NULL, NULL, NULL, false},
        {"foo-/bar", NULL, NULL, NULL, false},
        {"foo/-bar", NULL, NULL, NULL, false},
        {"_foo/bar", NULL, NULL, NULL, false},
        {"foo_bar", "docker.io", "library/foo_bar", "latest", false},
        {"foo_bar.com:8080/app", NULL, NULL, NULL, false},
        {"foo.com/foo_bar", "foo.com", "foo_bar", "latest", false},
        {"docker_/docker_", NULL, NULL, NULL, false},
        {"example.com/xn--7o8h.com/myimage", "example.com", "xn--7o8h.com/myimage", "latest", false},
        {"example.com/some_separator__underscore/myimage", "example.com",
                "some_separator__underscore/myimage", "latest", false},
        {"example.com/__underscore/myimage", NULL, NULL, NULL, false},
        {"example.com/..dots/myimage", NULL, NULL, NULL, false},
        {"example.com/.dots/myimage", NULL, NULL, NULL, false},
        {"example.com/nodouble..dots/myimage", NULL, NULL, NULL, false},
        {"docker./docker", NULL, NULL, NULL, false},
        {".docker/docker", NULL, NULL, NULL, false},
        {"do..cker/docker", NULL, NULL, NULL, false},
        {"do__cker:8080/docker", NULL, NULL, NULL, false},
        {"do__cker/docker", "docker.io", "do__cker/docker", "latest", false},
        {"registry.io/foo/project--id.module--name.ver---sion--name", "registry.io",
                "foo/project--id.module--name.ver---sion--name", "latest", false},
        {"Asdf.com/foo/bar", "asdf.com", "foo/bar", "latest", false}, /* ours: names do not differ in case */
        {"Foo/FarB", NULL, NULL, NULL, false},

        /* ---- regexp_test.go, TestReferenceRegexp ---- */
        {"registry.com:8080/myapp:tag", "registry.com:8080", "myapp", "tag", false},
        {"registry.com:8080/myapp:tag2@" SHA, "registry.com:8080", "myapp", "tag2", true},
        {"registry.com:8080/myapp@sha256:badbadbadbad", NULL, NULL, NULL, false},
        {"registry.com:8080/myapp:invalid~tag", NULL, NULL, NULL, false},
        {"bad_hostname.com:8080/myapp:tag", NULL, NULL, NULL, false},
        {"localhost:8080@" SHA, "docker.io", "library/localhost", "8080", true},
        {"localhost:8080/name@" SHA, "localhost:8080", "name", NULL, true},
        {"localhost:http/name@" SHA, NULL, NULL, NULL, false},
        {"localhost@" SHA, "docker.io", "library/localhost", NULL, true},
        {"registry.com:8080/myapp@bad", NULL, NULL, NULL, false},
        {"registry.com:8080/myapp@2bad", NULL, NULL, NULL, false},

        /* ---- regexp_test.go, TestDomainRegexp, with a repository behind ---- */
        {"test.com:10304/x", "test.com:10304", "x", "latest", false},
        {"test.com:http/x", NULL, NULL, NULL, false},
        {"a.b/x", "a.b", "x", "latest", false},
        {"ab.cd.com/x", "ab.cd.com", "x", "latest", false},
        {"a-b.com/x", "a-b.com", "x", "latest", false},
        {"-ab.com/x", NULL, NULL, NULL, false},
        {"ab-.com/x", NULL, NULL, NULL, false},
        {"ab.c-om/x", "ab.c-om", "x", "latest", false},
        {"ab.-com/x", NULL, NULL, NULL, false},
        {"ab.com-/x", NULL, NULL, NULL, false},
        {"0101.com/x", "0101.com", "x", "latest", false},
        {"001a.com/x", "001a.com", "x", "latest", false},
        {"b.gbc.io:443/x", "b.gbc.io:443", "x", "latest", false},
        /* ours: what the grammar takes and no connection could, "it will fail on validation" */
        {"192.168.1.1:75050/x", NULL, NULL, NULL, false},
        {"192.168.1.1:750050/x", NULL, NULL, NULL, false},
        {"[fd00:1:2::3]:75050/x", NULL, NULL, NULL, false},
        {"[fd00123123123]:5050/x", NULL, NULL, NULL, false},
        {"[fd00:1:2::3]5050/x", NULL, NULL, NULL, false},
        {"[fd00:1:2::3]::5050/x", NULL, NULL, NULL, false},
        {"[fd00:1:2::3%eth0]:5050/x", NULL, NULL, NULL, false},
        {"[2001:0db8:85a3:0000:0000:8a2e:0370:7334]:5050/x",
                "[2001:0db8:85a3:0000:0000:8a2e:0370:7334]:5050", "x", "latest", false},
        {"fd00:1:2::3:5050/x", NULL, NULL, NULL, false},
};

static void check(const Case *c)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL, *again = NULL;
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *text = NULL;
        int r = registry_ref_parse(c->in, &ref, &e);

        if (!c->host) {
                if (r >= 0)
                        fail_msg("\"%s\" was taken", c->in);
                assert_non_null(e);
                return;
        }
        if (r < 0)
                fail_msg("%s", tb_error_message(e));
        if (!tb_streq(ref->host, c->host) || !tb_streq(ref->repository, c->repository) ||
                !tb_streq(ref->tag, c->tag) || tb_digest_is_set(&ref->digest) != c->digest)
                fail_msg("\"%s\": %s | %s | %s | %s", c->in, ref->host, ref->repository, ref->tag,
                        ref->digest.text);
        text = registry_ref_to_string(ref);
        assert_int_equal(registry_ref_parse(text, &again, NULL), 0);
        assert_string_equal(again->host, ref->host);
        assert_string_equal(again->repository, ref->repository);
}

static void test_cases(void **state)
{
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                check(cases + i);
}

/* reference_test.go: strings.Repeat("a/", n) + "a" + tag. The limit of 255 is for the host and the name together
 * (distribution-spec), so Docker's own "docker.io/" counts. */
static void test_lengths(void **state)
{
        for (unsigned n = 120; n <= 128; n++) {
                _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
                char name[400];
                size_t k = 0;

                for (unsigned i = 0; i < n; i++) {
                        name[k++] = 'a';
                        name[k++] = '/';
                }
                snprintf(name + k, sizeof(name) - k, "a:tag-puts-this-over-max");
                assert_int_equal(
                        registry_ref_parse(name, &ref, NULL) >= 0, strlen("docker.io/") + 2 * n + 1 <= 255);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_cases),
                cmocka_unit_test(test_lengths),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

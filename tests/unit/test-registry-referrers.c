/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Referrers with and without the API, pages that lead astray, nested indexes, deleting. */

#include "tests/unit/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"
#include "tests/unit/registry-server.h"

#define HEX64(c) c c c c c c c c c c c c c c c c
#define DIGEST(c) "sha256:" HEX64(c c c c)
#define ENTRY(c, type) \
        "{\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST "\",\"digest\":\"" DIGEST(c) "\",\"size\":5" type "}"
#define TYPE(t) ",\"artifactType\":\"" t "\""
#define INDEX(entries) \
        "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_OCI_INDEX "\",\"manifests\":[" entries "]}"
#define INDEX_HEADER "Content-Type: " REGISTRY_TYPE_OCI_INDEX "\r\n"

typedef struct Fixture {
        RegistryClient *client;
        Server *server;
        RegistryRef *ref; /* a digest */
        void (*script)(Exchange *e);
        pthread_mutex_t lock;
        char *list; /* what the fallback tag holds */
        unsigned list_puts;
        char list_tag[128];
} Fixture;

static Fixture *current;

static void on_request(Exchange *e)
{
        current->script(e);
}

static int setup(void **state)
{
        Fixture *f = calloc(1, sizeof(*f));
        char name[256];

        pthread_mutex_init(&f->lock, NULL);
        f->server = server_new(on_request, NULL);
        assert_int_equal(registry_client_new(NULL, &f->client, NULL), 0);
        registry_client_set_retry(f->client, 1, 1000);
        snprintf(name, sizeof(name), "%s/some/image@" DIGEST("d"), server_host(f->server));
        assert_int_equal(registry_ref_parse(name, &f->ref, NULL), 0);
        snprintf(f->list_tag, sizeof(f->list_tag), "/v2/some/image/manifests/sha256-%s", HEX64("dddd"));
        current = f;
        *state = f;
        return 0;
}

static int teardown(void **state)
{
        Fixture *f = *state;

        registry_ref_free(f->ref);
        registry_client_free(f->client);
        server_free(f->server);
        free(f->list);
        free(f);
        return 0;
}

/* "b*" or "bc": first hex digits of what is listed, "*" = by tag. */
static void assert_list(Fixture *f, const char *type, const char *expected)
{
        _cleanup_registry_referrers_ RegistryReferrers list = {0};
        _cleanup_error_ TbError *e = NULL;
        char got[64] = "";

        if (registry_list_referrers(f->client, f->ref, type, &list, &e) < 0)
                fail_msg("%s", tb_error_message(e));
        for (size_t i = 0; i < list.n_entries && i < 60; i++)
                got[i] = tb_digest_hex(&list.entries[i].digest)[0];
        if (list.by_tag)
                strcat(got, "*");
        assert_string_equal(got, expected);
}

static int list(Fixture *f, TbError **err)
{
        RegistryReferrers l;

        return registry_list_referrers(f->client, f->ref, NULL, &l, err);
}

/* ---- with the API ---- */

static void two_pages(Exchange *e)
{
        char head[512];

        if (strstr(e->path, "page=2")) {
                exchange_text(e, 200, INDEX_HEADER, INDEX(ENTRY("c", TYPE("a/sig"))));
                return;
        }
        snprintf(head, sizeof(head),
                INDEX_HEADER "Link: </v2/some/image/referrers/" DIGEST("d") "?page=2>; rel=\"next\"\r\n");
        exchange_text(e, 200, head, INDEX(ENTRY("a", TYPE("a/sbom")) "," ENTRY("b", TYPE("a/sig"))));
}

static void filters(Exchange *e)
{
        if (strstr(e->path, "?artifactType=a%2Fsig"))
                exchange_text(
                        e, 200, INDEX_HEADER "OCI-Filters-Applied: artifactType\r\n", INDEX(ENTRY("b", "")));
        else
                exchange_text(e, 500, "", "");
}

static void none(Exchange *e)
{
        exchange_text(e, 200, INDEX_HEADER, INDEX(""));
}

static void test_api(void **state)
{
        Fixture *f = *state;
        _cleanup_(registry_ref_freep) RegistryRef *tag = NULL;

        f->script = two_pages;
        assert_list(f, NULL, "abc");
        assert_list(f, "a/sig", "bc"); /* the registry did not filter: we do */
        assert_list(f, "a/none", "");
        f->script = filters;
        assert_list(f, "a/sig", "b"); /* it did, and is believed */
        f->script = none;
        assert_list(f, NULL, "");
        assert_int_equal(registry_ref_with(f->ref, "tag", NULL, &tag, NULL), 0);
        {
                RegistryReferrers l;
                assert_fails(
                        registry_list_referrers(f->client, tag, NULL, &l, err), -EINVAL, "for a digest");
        }
}

/* ---- without ---- */

static void only_tag(Exchange *e)
{
        if (strcmp(e->path, current->list_tag) == 0)
                exchange_text(e, 200, INDEX_HEADER,
                        INDEX(ENTRY("a", TYPE("a/sbom")) "," ENTRY("b", TYPE("a/sig"))));
        else
                exchange_text(e, 404, "", "");
}

static void nothing(Exchange *e)
{
        exchange_text(e, 404, "", "404 page not found");
}

/* A front end that answers everything. */
static void web_page(Exchange *e)
{
        if (strstr(e->path, "/referrers/"))
                exchange_text(e, 200, "Content-Type: text/html\r\n", "<html>");
        else
                only_tag(e);
}

static void tag_is_image(Exchange *e)
{
        if (strstr(e->path, "/referrers/"))
                nothing(e);
        else
                exchange_text(e, 200, "Content-Type: " REGISTRY_TYPE_OCI_MANIFEST "\r\n",
                        "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/b\",\"digest\":\"" DIGEST(
                                "a") "\",\"size\":1},\"layers\":[]}");
}

static void denied(Exchange *e)
{
        exchange_text(e, 403, "", "");
}

static void test_fallback(void **state)
{
        Fixture *f = *state;

        f->script = only_tag;
        assert_list(f, NULL, "ab*");
        assert_list(f, "a/sig", "b*");
        f->script = nothing;
        assert_list(f, NULL, "*");
        f->script = web_page;
        assert_list(f, NULL, "ab*");
        f->script = tag_is_image;
        assert_fails(list(f, err), -EPROTO, "not an index");
        f->script = denied;
        assert_fails(list(f, err), -EACCES, "cannot list the referrers");
}

/* ---- pages that lead astray ---- */

static void next_page(Exchange *e, const char *target)
{
        char head[4096];

        snprintf(head, sizeof(head), INDEX_HEADER "Link: <%s>; rel=next\r\n", target);
        exchange_text(
                e, 200, head, strstr(e->path, "tags/list") ? "{\"tags\":[\"a\"]}" : INDEX(ENTRY("a", "")));
}

static void same_page(Exchange *e)
{
        next_page(e, e->path);
}

static void ring_of_three(Exchange *e)
{
        const char *p = strstr(e->path, "p=");
        char next[64];

        snprintf(next, sizeof(next), "?p=%d", p ? (atoi(p + 2) + 1) % 3 : 0);
        next_page(e, next);
}

static void endless(Exchange *e)
{
        const char *p = strstr(e->path, "p=");
        char next[64];

        snprintf(next, sizeof(next), "?p=%d", p ? atoi(p + 2) + 1 : 0);
        next_page(e, next);
}

static void plain_elsewhere(Exchange *e)
{
        next_page(e, "http://registry.example/v2/x/tags/list");
}

static void no_url(Exchange *e)
{
        next_page(e, "file:///etc/passwd");
}

static void broken_link(Exchange *e)
{
        exchange_text(e, 200, INDEX_HEADER "Link: rubbish\r\n",
                strstr(e->path, "tags/list") ? "{\"tags\":[\"a\"]}" : INDEX(""));
}

static void test_pages(void **state)
{
        static const struct {
                void (*script)(Exchange *);
                int code;
                const char *message;
        } cases[] = {
                {same_page, -ELOOP, "names itself"},
                {ring_of_three, -ELOOP, "in a circle"},
                {endless, -EMSGSIZE, "more than"},
                {plain_elsewhere, -EPROTO, "registry.example"},
                {no_url, -EPROTO, "neither http nor https"},
                {broken_link, -EPROTO, "Link"},
        };
        Fixture *f = *state;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                char **tags;

                f->script = cases[i].script;
                assert_fails(list(f, err), cases[i].code, cases[i].message);
                assert_fails(
                        registry_list_tags(f->client, f->ref, &tags, err), cases[i].code, cases[i].message);
        }
        assert_true(server_count(f->server, "GET", "/v2/some/image/tags/list") < 1100);
}

/* ---- pushing with a subject ---- */

static void keeps_list(Exchange *e)
{
        Fixture *f = current;

        pthread_mutex_lock(&f->lock);
        if (strcmp(e->path, f->list_tag) == 0 && strcmp(e->method, "PUT") == 0) {
                free(f->list);
                f->list = strndup(e->body, e->body_size);
                f->list_puts++;
                exchange_text(e, 201, "", "");
        } else if (strcmp(e->path, f->list_tag) == 0 && f->list)
                exchange_text(e, 200, INDEX_HEADER, f->list);
        else if (exchange_is(e, "PUT", "/v2/some/image/manifests/"))
                exchange_text(e, 201, "", "");
        else
                exchange_text(e, 404, "", "");
        pthread_mutex_unlock(&f->lock);
}

static void knows_subjects(Exchange *e)
{
        exchange_text(e, 201, "OCI-Subject: " DIGEST("d") "\r\n", "");
}

static char *signature(unsigned n)
{
        return tb_asprintf(
                "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST
                "\",\"artifactType\":\"a/sig\",\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_EMPTY
                "\",\"digest\":\"" DIGEST("a") "\",\"size\":2},\"layers\":[],\"subject\":{\"mediaType\":"
                                               "\"" REGISTRY_TYPE_OCI_MANIFEST "\",\"digest\":\"" DIGEST(
                                                       "d") "\",\"size\":7},"
                                                            "\"annotations\":{\"n\":\"%u\"}}",
                n);
}

static RegistryRef *by_digest(Fixture *f, const char *text)
{
        RegistryRef *ref = NULL;
        TbDigest digest;

        assert_int_equal(tb_digest_of(text, strlen(text), &digest, NULL), 0);
        assert_int_equal(registry_ref_with(f->ref, NULL, &digest, &ref, NULL), 0);
        return ref;
}

static void put(Fixture *f, const char *text)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = by_digest(f, text);
        _cleanup_error_ TbError *e = NULL;

        if (registry_put_manifest(f->client, ref, REGISTRY_TYPE_OCI_MANIFEST, text, strlen(text), NULL, &e) <
                0)
                fail_msg("%s", tb_error_message(e));
}

static void on_put(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        unsigned *left = userdata;

        assert_int_equal(result, 0);
        (*left)--;
}

static void test_subject(void **state)
{
        _cleanup_free_ char *one = signature(1), *two = signature(2);
        _cleanup_registry_referrers_ RegistryReferrers l = {0};
        Fixture *f = *state;
        RegistryOp *ops[5];
        unsigned left = ELEMENTSOF(ops);

        f->script = knows_subjects;
        put(f, one);
        assert_int_equal(server_count(f->server, "GET", "/"), 0);
        assert_int_equal(server_count(f->server, "PUT", "/"), 1);

        f->script = keeps_list;
        put(f, one);
        put(f, two);
        assert_int_equal(f->list_puts, 2);
        put(f, two); /* is listed */
        assert_int_equal(f->list_puts, 2);
        assert_int_equal(registry_list_referrers(f->client, f->ref, "a/sig", &l, NULL), 0);
        assert_int_equal(l.n_entries, 2);
        assert_true(l.by_tag);
        assert_int_equal(l.entries[0].size, strlen(one));
        assert_string_equal(json_string_value(json_object_get(l.entries[1].annotations, "n")), "2");

        /* pushed at the same time: none is lost; and one that is given up does not stop the others */
        for (unsigned i = 0; i < ELEMENTSOF(ops); i++) {
                _cleanup_free_ char *text = signature(10 + i);
                _cleanup_(registry_ref_freep) RegistryRef *ref = by_digest(f, text);

                assert_int_equal(registry_put_manifest_start(f->client, ref, REGISTRY_TYPE_OCI_MANIFEST,
                                         text, strlen(text), on_put, &left, &ops[i], NULL),
                        0);
        }
        while (left > 2)
                assert_true(sd_event_run(f->client->event, UINT64_MAX) >= 0);
        for (unsigned i = 0; i < ELEMENTSOF(ops); i++)
                if (!registry_op_is_done(ops[i])) {
                        ops[i] = registry_op_free(ops[i]);
                        left--;
                        break;
                }
        while (left > 0)
                assert_true(sd_event_run(f->client->event, UINT64_MAX) >= 0);
        for (unsigned i = 0; i < ELEMENTSOF(ops); i++)
                registry_op_free(ops[i]);
        registry_referrers_done(&l);
        assert_int_equal(registry_list_referrers(f->client, f->ref, "a/sig", &l, NULL), 0);
        assert_true(l.n_entries >= 2 + ELEMENTSOF(ops) - 1);
}

static void list_is_image(Exchange *e)
{
        if (strcmp(e->method, "PUT") == 0)
                exchange_text(e, 201, "", "");
        else
                tag_is_image(e);
}

static void test_subject_refused(void **state)
{
        _cleanup_free_ char *one = signature(1);
        Fixture *f = *state;
        _cleanup_(registry_ref_freep) RegistryRef *ref = by_digest(f, one);

        f->script = list_is_image; /* somebody's image under that tag is not overwritten */
        assert_fails(registry_put_manifest(
                             f->client, ref, REGISTRY_TYPE_OCI_MANIFEST, one, strlen(one), NULL, err),
                -EPROTO, "left alone");
        assert_int_equal(server_count(f->server, "PUT", "/"), 1);
}

static unsigned torn;

static void link_is_torn(Exchange *e)
{
        if (strcmp(e->method, "PUT") == 0 && torn > 0 && torn--)
                exchange_text(e, 400, "", "{\"errors\":[{\"code\":\"DIGEST_INVALID\"}]}");
        else
                exchange_text(e, 201, "", "");
}

/* Another request was writing a link that the registry read for ours. */
static void test_digest_refused_at_first(void **state)
{
        static const char text[] =
                "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_OCI_INDEX "\",\"manifests\":[]}";
        Fixture *f = *state;
        _cleanup_(registry_ref_freep) RegistryRef *ref = by_digest(f, text);

        f->script = link_is_torn;
        registry_client_set_retry(f->client, 2, 1000);
        torn = 1;
        assert_int_equal(registry_put_manifest(
                                 f->client, ref, REGISTRY_TYPE_OCI_INDEX, text, strlen(text), NULL, NULL),
                0);
        assert_int_equal(server_count(f->server, "PUT", "/"), 2);
        torn = 2;
        assert_fails(registry_put_manifest(
                             f->client, ref, REGISTRY_TYPE_OCI_INDEX, text, strlen(text), NULL, err),
                -EREMOTEIO, "DIGEST_INVALID");
}

/* ---- deleting ---- */

static unsigned answer;

static void answers(Exchange *e)
{
        exchange_text(e, answer, "", "{\"errors\":[{\"code\":\"UNSUPPORTED\"}]}");
}

static void test_delete(void **state)
{
        Fixture *f = *state;
        _cleanup_(registry_ref_freep) RegistryRef *tag = NULL;

        assert_int_equal(registry_ref_with(f->ref, "v1", NULL, &tag, NULL), 0);
        f->script = answers;
        answer = 202;
        assert_int_equal(registry_delete_tag(f->client, tag, NULL), 1);
        assert_int_equal(server_count(f->server, "DELETE", "/v2/some/image/manifests/v1"), 1);
        assert_int_equal(registry_delete_blob(f->client, f->ref, &f->ref->digest, NULL), 1);
        assert_int_equal(server_count(f->server, "DELETE", "/v2/some/image/blobs/" DIGEST("d")), 1);
        answer = 404;
        assert_int_equal(registry_delete_tag(f->client, tag, NULL), 0);
        assert_int_equal(registry_delete_blob(f->client, f->ref, &f->ref->digest, NULL), 0);
        answer = 405;
        assert_fails(registry_delete_tag(f->client, tag, err), -EOPNOTSUPP, "deletes only manifests");
        assert_fails(registry_delete_blob(f->client, f->ref, &f->ref->digest, err), -EOPNOTSUPP,
                "storage.delete");
        answer = 400;
        assert_fails(registry_delete_tag(f->client, tag, err), -EOPNOTSUPP, "deletes only manifests");
        answer = 403;
        assert_fails(registry_delete_blob(f->client, f->ref, &f->ref->digest, err), -EACCES,
                "cannot delete blob");
        assert_fails(registry_delete_tag(f->client, f->ref, err), -EINVAL, "no tag");
        assert_int_equal(server_count(f->server, "DELETE", "/v2/some/image/manifests/sha256"), 0);
}

/* ---- nested indexes ---- */

static char bodies[8][2048];
static size_t n_bodies;

/* Adds a document; gives its digest. */
static TbDigest add_body(const char *text)
{
        TbDigest d;

        snprintf(bodies[n_bodies++], sizeof(bodies[0]), "%s", text);
        assert_int_equal(tb_digest_of(text, strlen(text), &d, NULL), 0);
        return d;
}

static void serves_bodies(Exchange *e)
{
        for (size_t i = 0; i < n_bodies; i++) {
                TbDigest d;

                if (tb_digest_of(bodies[i], strlen(bodies[i]), &d, NULL) < 0 || !strstr(e->path, d.text))
                        continue;
                exchange_text(e, 200,
                        strstr(bodies[i], "\"manifests\"") ? INDEX_HEADER
                                                           : "Content-Type: " REGISTRY_TYPE_OCI_MANIFEST
                                                             "\r\n",
                        bodies[i]);
                return;
        }
        exchange_text(e, 404, "", "");
}

static TbDigest add_index(
        const char *media_type, const TbDigest *first, const TbDigest *second, const char *platform)
{
        char text[2048];

        snprintf(text, sizeof(text),
                "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":5%s}%"
                "s%s%s%s%s]}",
                media_type, first->text, platform, second ? ",{\"mediaType\":\"" : "",
                second ? media_type : "", second ? "\",\"digest\":\"" : "", second ? second->text : "",
                second ? "\",\"size\":5}" : "");
        return add_body(text);
}

static void test_nested(void **state)
{
        Fixture *f = *state;
        _cleanup_registry_platform_ RegistryPlatform arm = {0}, amd = {0}, s390 = {0};
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL, *top = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        TbDigest image, inner_amd, inner_arm, outer;

        n_bodies = 0;
        image = add_body("{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG
                         "\",\"digest\":\"" DIGEST("a") "\",\"size\":2},\"layers\":[]}");
        inner_amd = add_index(REGISTRY_TYPE_OCI_MANIFEST, &image, NULL,
                ",\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}");
        inner_arm = add_index(REGISTRY_TYPE_OCI_MANIFEST, &image, NULL,
                ",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}");
        outer = add_index(REGISTRY_TYPE_OCI_INDEX, &inner_amd, &inner_arm, "");
        f->script = serves_bodies;
        assert_int_equal(registry_platform_parse("linux/arm64", &arm, NULL), 0);
        assert_int_equal(registry_platform_parse("linux/amd64", &amd, NULL), 0);
        assert_int_equal(registry_platform_parse("linux/s390x", &s390, NULL), 0);
        assert_int_equal(registry_ref_with(f->ref, NULL, &outer, &ref, NULL), 0);
        /* the second inner index is looked into as well */
        assert_int_equal(registry_get_image(f->client, ref, &arm, &m, &top, NULL), 0);
        assert_string_equal(m->digest.text, image.text);
        assert_string_equal(top->digest.text, outer.text);
        m = registry_manifest_free(m);
        assert_int_equal(registry_get_image(f->client, ref, &amd, &m, NULL, NULL), 0);
        {
                RegistryManifest *never = NULL;
                assert_fails(registry_get_image(f->client, ref, &s390, &never, NULL, err), -ENOENT,
                        "linux/s390x");
        }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_api),
                T(test_fallback),
                T(test_pages),
                T(test_subject),
                T(test_subject_refused),
                T(test_digest_refused_at_first),
                T(test_delete),
                T(test_nested),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

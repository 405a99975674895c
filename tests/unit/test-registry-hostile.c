/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A registry that lies, byte by byte
 *
 * Each case is the exact answer of a server to everything it is asked, and what the client must make of it: success, or
 * one error with a known code and the right `retryable`, one line that is fit for a terminal, in a bounded number of
 * requests. Run under ASan and LSan this also shows that no way out leaks. The last tests break an answer off at each of
 * its bytes.
 */

#include "tests/unit/test.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "registry-client/internal.h"
#include "tests/unit/registry-server.h"

#define TRIES 2U
#define REQUESTS_MAX 24U /* for one operation: tries, times redirects, times a token */
#define OCI "Content-Type: " REGISTRY_TYPE_OCI_MANIFEST "\r\n"
#define EMPTY "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" /* of "{}" */
#define OTHER "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define BODY                                                                                \
        "{\"schemaVersion\":2,\"mediaType\":\"" REGISTRY_TYPE_OCI_MANIFEST                  \
        "\",\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG "\",\"digest\":\"" EMPTY \
        "\",\"size\":2},\"layers\":[]}"
#define OK "HTTP/1.1 200 OK\r\n"

typedef enum Question {
        MANIFEST = 1 << 0, /* GET by tag */
        PINNED = 1 << 1,   /* GET by the digest of BODY */
        RESOLVE = 1 << 2,
        BLOB = 1 << 3, /* "{}" */
        TAGS = 1 << 4,
        PING = 1 << 5,
        PUT_BLOB = 1 << 6,
        PUT_MANIFEST = 1 << 7,
        READING = MANIFEST | PINNED | BLOB | TAGS,
        ALL = 255,
} Question;

#define EITHER 2

typedef struct Case {
        const char *name;
        Question questions;
        int code;      /* 0 = success, 1 = any error */
        int retryable; /* 0, 1, or -1 = either */
        const char *answer;
        size_t size;       /* 0 = strlen */
        const char *again; /* sent over and over behind the answer, until the client has had enough */
        void (*handler)(Exchange *e);
} Case;

static struct {
        Server *server, *other;
        RegistryClient *client;
        const Case *now;
        TbDigest manifest;
        const char *data; /* for the tests that cut an answer off */
        size_t size;
        bool reset;
} f;

static void serve(Exchange *e)
{
        const Case *c = f.now;

        if (c->handler) {
                c->handler(e);
                return;
        }
        e->close = true;
        if (!exchange_write(e, c->answer, c->size ? c->size : strlen(c->answer)))
                return;
        while (c->again && exchange_puts(e, c->again))
                ;
}

static void serve_other(Exchange *e)
{
        exchange_text(e, 200, "", "{\"tags\":[\"x\"]}");
}

/* It counts and keeps every request and serves some hundred connections: a new one now and then. */
static void new_server(void)
{
        server_free(f.server);
        f.server = server_new(serve, NULL);
}

static int setup(void **state)
{
        new_server();
        f.other = server_new(serve_other, NULL);
        assert_int_equal(tb_digest_of(BODY, strlen(BODY), &f.manifest, NULL), 0);
        return 0;
}

static int teardown(void **state)
{
        server_free(f.server);
        server_free(f.other);
        return 0;
}

static int ask_for_manifest(RegistryClient *c, const TbDigest *digest, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        r = registry_ref_new(server_host(f.server), "a/b", digest ? NULL : "1", digest, &ref, err);
        if (r < 0)
                return r;
        r = registry_get_manifest(c, ref, &m, err);
        if (r < 0)
                assert_null(m);
        else if (digest)
                assert_true(tb_digest_equal(&m->digest, digest));
        return r;
}

static int ask(RegistryClient *c, Question question, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_(registry_names_freep) char **names = NULL;
        _cleanup_registry_descriptor_ RegistryDescriptor d = {0};
        _cleanup_free_ char *data = NULL;
        TbDigest digest;
        size_t size;
        int r;

        assert_int_equal(registry_ref_new(server_host(f.server), "a/b", "1", NULL, &ref, NULL), 0);
        assert_int_equal(tb_digest_parse(EMPTY, &digest, NULL), 0);
        switch (question) {
        case MANIFEST:
                return ask_for_manifest(c, NULL, err);
        case PINNED:
                return ask_for_manifest(c, &f.manifest, err);
        case RESOLVE:
                return registry_resolve(c, ref, &d, err);
        case BLOB:
                r = registry_get_blob(c, ref, &digest, UINT64_MAX, 1024, &data, &size, err);
                if (r >= 0) { /* whatever happened on the way: what is handed out is right */
                        assert_int_equal(size, 2);
                        assert_string_equal(data, "{}");
                }
                return r;
        case TAGS:
                return registry_list_tags(c, ref, &names, err);
        case PING:
                return registry_ping(c, server_host(f.server), err);
        case PUT_BLOB:
                return registry_put_blob(c, ref, "{}", 2, NULL, NULL, err);
        case PUT_MANIFEST:
                return registry_put_manifest(
                        c, ref, REGISTRY_TYPE_OCI_MANIFEST, BODY, strlen(BODY), NULL, err);
        case READING:
        case ALL:
                break;
        }
        fail();
        return 0;
}

static unsigned failures;

/* Goes on: one run shows all that is wrong. */
#define wrong(...) (failures++, print_error(__VA_ARGS__))

static void check_error(const Case *c, Question question, int r, const TbError *err)
{
        if (c->code == 0) {
                if (r < 0)
                        wrong("%s, question %u: %s\n", c->name, question, tb_error_message(err));
                assert_null(err);
                return;
        }
        if (r >= 0 && c->code == EITHER) {
                assert_null(err);
                return;
        }
        if (r >= 0)
                wrong("%s, question %u: went through\n", c->name, question);
        if (!err)
                return;
        assert_int_equal(err->code, r);
        if (c->code < 0 && r != c->code)
                wrong("%s, question %u: %d instead of %d: %s\n", c->name, question, r, c->code,
                        err->message);
        if (c->retryable >= 0 && err->retryable != (c->retryable == 1))
                wrong("%s, question %u: retryable is %d: %s\n", c->name, question, err->retryable,
                        err->message);
        if (strlen(err->message) < 10 || strlen(err->message) > 1000)
                wrong("%s: message of %zu bytes: %.100s\n", c->name, strlen(err->message), err->message);
        for (const unsigned char *p = (const unsigned char *) err->message; *p; p++)
                if (*p < ' ' || *p == 127)
                        wrong("%s: a control character in \"%s\"\n", c->name, err->message);
        if (strstr(err->message, "hunter2") || strstr(err->message, "YWxpY2U6aHVudGVyMg"))
                wrong("%s: a secret in \"%s\"\n", c->name, err->message);
}

static void run_case(const Case *c)
{
        const char *verbose = getenv("VERBOSE");

        for (Question question = 1; question < ALL; question <<= 1) {
                uint64_t start = tb_now_us();
                _cleanup_(registry_client_freep) RegistryClient *client = NULL;
                _cleanup_error_ TbError *err = NULL;
                unsigned before = server_count(f.server, "", "/"), n;
                int r;

                if (!(c->questions & question))
                        continue;
                f.now = c;
                assert_int_equal(registry_client_new(NULL, &client, NULL), 0);
                registry_client_set_retry(client, TRIES, 1000);
                assert_int_equal(registry_client_set_credentials(
                                         client, server_host(f.server), "alice", "hunter2", NULL),
                        0);
                r = ask(client, question, &err);
                if (verbose)
                        print_message("%s, question %u: %d %s (%llu ms): %s\n", c->name, question, r,
                                err && err->retryable ? "retryable" : "",
                                (unsigned long long) (tb_now_us() - start) / 1000, err ? err->message : "");
                check_error(c, question, r, err);
                n = server_count(f.server, "", "/") - before;
                if (n > REQUESTS_MAX && !strstr(c->name, "pages"))
                        wrong("%s, question %u: %u requests\n", c->name, question, n);
        }
}

/* ---- answers that need more than a string ---- */

static void deep_json(Exchange *e)
{
        static char text[200001];

        memset(text, '[', 100000);
        memset(text + 100000, ']', 100000);
        exchange_reply(e, 200, OCI, text, 200000);
}

static void huge_manifest(Exchange *e)
{
        static char text[REGISTRY_MANIFEST_MAX + 2];

        memset(text, ' ', sizeof(text));
        memcpy(text, BODY, strlen(BODY));
        exchange_reply(e, 200, OCI, text, sizeof(text) - 1);
}

/* A token of 1 MB: it would have to go into a header line. */
static void giant_token(Exchange *e)
{
        static char text[1100000];

        if (strncmp(e->path, "/token", 6) == 0) {
                int n = snprintf(text, sizeof(text), "{\"token\":\"%*s\"}", 1000000, "x");

                for (char *p = text; *p; p++)
                        if (*p == ' ')
                                *p = 'A';
                exchange_reply(e, 200, "", text, (size_t) n);
                return;
        }
        snprintf(text, sizeof(text), "WWW-Authenticate: Bearer realm=\"http://%s/token\"\r\n",
                server_host(f.server));
        exchange_text(e, 401, text, "");
}

static void always_401(Exchange *e)
{
        char header[256];

        if (strncmp(e->path, "/token", 6) == 0) {
                snprintf(header, sizeof(header), "{\"token\":\"t%u\"}", e->nth);
                exchange_text(e, 200, "", header);
                return;
        }
        snprintf(header, sizeof(header),
                "WWW-Authenticate: Bearer realm=\"http://%s/token\",scope=\"repository:x%u:pull\"\r\n",
                server_host(f.server), e->nth);
        exchange_text(e, 401, header, "");
}

/* The token server wants a token, too. */
static void token_needs_token(Exchange *e)
{
        char header[256];

        snprintf(header, sizeof(header), "WWW-Authenticate: Bearer realm=\"http://%s/token\"\r\n",
                server_host(f.server));
        exchange_text(e, 401, header, "");
}

static void redirect_loop(Exchange *e)
{
        exchange_text(e, 307, "Location: /again\r\n", "");
}

static void redirect_ping_pong(Exchange *e)
{
        exchange_text(e, 307, strstr(e->path, "/ping") ? "Location: /pong\r\n" : "Location: /ping\r\n", "");
}

static void next_page_is_this_one(Exchange *e)
{
        exchange_text(e, 200, "Link: </v2/a/b/tags/list?n=1>; rel=\"next\"\r\n", "{\"tags\":[\"x\"]}");
}

static void always_another_page(Exchange *e)
{
        const char *last = strstr(e->path, "last=");
        char header[128];

        snprintf(header, sizeof(header), "Link: </v2/a/b/tags/list?n=1&last=%lu>; rel=\"next\"\r\n",
                last ? strtoul(last + 5, NULL, 10) + 1 : 0);
        exchange_text(e, 200, header, "{\"tags\":[\"x\"]}");
}

static void upload_to(Exchange *e, const char *location)
{
        char header[512];

        if (strcmp(e->method, "POST") == 0) {
                snprintf(header, sizeof(header), "Location: %s\r\nRange: 0-0\r\n", location);
                exchange_text(e, 202, header, "");
        } else
                exchange_text(e, 201, "Docker-Content-Digest: " OTHER "\r\n", "");
}

static void upload_location_file(Exchange *e)
{
        upload_to(e, "file:///etc/passwd");
}

static void upload_location_garbage(Exchange *e)
{
        upload_to(e, "http://[::1/\x01\x7f ");
}

static void upload_wrong_digest(Exchange *e)
{
        upload_to(e, "/v2/a/b/blobs/uploads/1");
}

static void commit_never(Exchange *e)
{
        if (strcmp(e->method, "PUT") == 0)
                exchange_text(e, 202, "Location: /v2/a/b/blobs/uploads/2\r\n", "");
        else
                upload_to(e, "/v2/a/b/blobs/uploads/1");
}

static const char gzipped_empty[] = /* "{}" as gzip, which nobody asked for */
        OK "Content-Encoding: gzip\r\nContent-Length: 22\r\n\r\n"
           "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";

#define CHUNKED OK OCI "Transfer-Encoding: chunked\r\n\r\n"
#define X50 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X100 X50 X50

static const Case cases[] = {
        /* ---- no HTTP ---- */
        {"nothing at all", ALL, -ECONNRESET, 1, ""},
        {"HTTP/0.9", ALL, -EPROTO, 0, "{\"schemaVersion\":2}"},
        {"SSH", ALL, -EPROTO, 0, "SSH-2.0-OpenSSH_9.2p1\r\n"},
        {"binary", ALL, -EPROTO, 0, "\x16\x03\x01\x02\x00\x01\x00\x01", 8},
        {"half a status line", ALL, 1, -1, "HTTP/1."},
        {"status 99", ALL, 1, -1, "HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n"},
        {"status 999", ALL, 1, 0, "HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n"},
        {"status of four digits", ALL, 1, 0, "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"},
        {"status in letters", ALL, -EPROTO, 0, "HTTP/1.1 abc OK\r\n\r\n"},
        {"HTTP/3 over TCP", ALL, 1, 0, "HTTP/3 200\r\n\r\n"},
        {"no reason phrase", MANIFEST | PINNED, 0, 0, "HTTP/1.1 200\r\n" OCI "\r\n" BODY},

        /* ---- lengths ---- */
        {"no length, closed at the end", MANIFEST | PINNED, 0, 0, OK OCI "\r\n" BODY},
        {"no length, too short", PINNED, 1, -1, OK OCI "\r\n{\"schema"},
        {"length too large", MANIFEST | PINNED, -ECONNRESET, 1,
                OK OCI "Content-Length: 100000\r\n\r\n" BODY},
        {"length too large, blob", BLOB, -ECONNRESET, 1, OK "Content-Length: 3\r\n\r\n{}"},
        {"length too small", MANIFEST | PINNED, 1, 0, OK OCI "Content-Length: 10\r\n\r\n" BODY},
        {"length too small, blob", BLOB, -EBADMSG, 0, OK "Content-Length: 1\r\n\r\n{}"},
        {"length 0", READING, EITHER, -1, OK "Content-Length: 0\r\n\r\n"},
        {"length of 20 digits", READING, EITHER, -1, OK "Content-Length: 99999999999999999999\r\n\r\n{}"},
        {"length 2^63-1", READING, EITHER, -1, OK "Content-Length: 9223372036854775807\r\n\r\n{}"},
        {"negative length", READING, EITHER, -1, OK "Content-Length: -1\r\n\r\n{}"},
        {"length is no number", READING, EITHER, -1, OK "Content-Length: abc\r\n\r\n"},
        {"two lengths", MANIFEST | PINNED, 1, -1,
                OK "Content-Length: 3\r\nContent-Length: 100000\r\n\r\n" BODY},
        {"larger than 4 MiB", MANIFEST | PINNED, -EMSGSIZE, 0, .handler = huge_manifest},
        {"endless body", READING, -EMSGSIZE, 0, OK OCI "\r\n", 0, X100},
        {"blob larger than allowed", BLOB, -EMSGSIZE, 0, OK "Content-Length: 5000\r\n\r\n", 0, X100},

        /* ---- chunks ---- */
        {"chunks that are right", BLOB, 0, 0, CHUNKED "1\r\n{\r\n1;ext=1\r\n}\r\n0\r\nTrailer: x\r\n\r\n"},
        {"chunk size is no number", READING, EITHER, -1, CHUNKED "zz\r\n{}\r\n0\r\n\r\n"},
        {"chunk size of 2^64", READING, EITHER, -1, CHUNKED "10000000000000000\r\n{}"},
        {"chunk size 2^63", READING, EITHER, -1, CHUNKED "8000000000000000\r\n{}"},
        {"negative chunk size", READING, EITHER, -1, CHUNKED "-2\r\n{}\r\n0\r\n\r\n"},
        {"chunk longer than it says", READING, EITHER, -1, CHUNKED "1\r\n{}}}}}\r\n0\r\n\r\n"},
        {"chunks without an end", READING, -ECONNRESET, 1, CHUNKED "1\r\n{\r\n1\r\n}\r\n"},
        {"endless chunks", MANIFEST | TAGS, -EMSGSIZE, 0, CHUNKED, 0, "64\r\n" X100 "\r\n"},
        {"endless chunk size", READING, EITHER, -1, CHUNKED, 0, "0000000000000000"},
        {"endless trailers", READING, EITHER, -1, CHUNKED "2\r\n{}\r\n0\r\n", 0, "X-Trailer: " X100 "\r\n"},
        {"chunked and a length", BLOB, 0, 0,
                OK "Content-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"},
        {"unknown transfer coding", READING, EITHER, -1, OK "Transfer-Encoding: sausage\r\n\r\n{}"},

        /* ---- headers ---- */
        {"endless headers", ALL, -EMSGSIZE, 0, OK, 0, "X-A: b\r\n"},
        {"one endless header", ALL, -EMSGSIZE, 0, OK "X-A: ", 0, X100},
        {"endless interim answers", ALL, -EMSGSIZE, 0, "", 0, "HTTP/1.1 100 Continue\r\n\r\n"},
        {"endless early hints", ALL, -EMSGSIZE, 0, "", 0, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"},
        {"interim answers, then a good one", BLOB, 0, 0,
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nLink: <x>\r\n\r\n" OK
                "Content-Length: 2\r\n\r\n{}"},
        {"101 switching protocols", ALL, 1, -1, "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n" OK},
        {"NUL in a header", ALL, 1, 0, OK "X-A: a\0b\r\nContent-Length: 2\r\n\r\n{}",
                sizeof(OK "X-A: a\0b\r\nContent-Length: 2\r\n\r\n{}") - 1},
        {"header without a colon", ALL, 1, 0, OK "what is this\r\nContent-Length: 2\r\n\r\n{}"},
        {"bare line feeds", BLOB, 0, 0, "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"},

        /* ---- what the content is ---- */
        {"gzip that nobody asked for", BLOB, -EBADMSG, 0, gzipped_empty, sizeof(gzipped_empty) - 1},
        {"says gzip, is none", BLOB, 0, 0, OK "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"},
        {"wrong blob", BLOB, -EBADMSG, 0, OK "Content-Length: 2\r\n\r\n[]"},
        {"wrong manifest", PINNED, -EBADMSG, 0, OK OCI "Content-Length: 2\r\n\r\n{}"},
        {"wrong digest header", MANIFEST, -EBADMSG, 0,
                OK OCI "Docker-Content-Digest: " OTHER "\r\n\r\n" BODY},
        {"wrong digest header, but we know better", PINNED, 1, -1,
                OK OCI "Docker-Content-Digest: " OTHER "\r\n\r\n[]"},
        {"digest header is garbage", MANIFEST, 1, 0, OK OCI "Docker-Content-Digest: \x01\x1b[31m\r\n\r\n[]"},
        {"NUL bytes", MANIFEST | PINNED | TAGS, 1, 0, OK OCI "Content-Length: 4\r\n\r\n\0\0\0\0",
                sizeof(OK OCI "Content-Length: 4\r\n\r\n") - 1 + 4},
        {"JSON of 100,000 levels", MANIFEST | PINNED | TAGS, 1, 0, .handler = deep_json},
        {"HTML", MANIFEST | PINNED | TAGS, 1, 0,
                OK "Content-Type: text/html\r\n\r\n<html>\x1b[2J<h1>Log in</h1></html>"},
        {"an image and an index", MANIFEST, -EBADMSG, 0,
                OK OCI "\r\n{\"schemaVersion\":2,\"config\":{},\"layers\":[],\"manifests\":[]}"},
        {"tags that are none", TAGS, -EPROTO, 0, OK "\r\n{\"tags\":[\"../../x\"]}"},
        {"tags that are numbers", TAGS, -EPROTO, 0, OK "\r\n{\"tags\":[1]}"},
        {"tags with an escape", TAGS, -EPROTO, 0, OK "\r\n{\"tags\":[\"\\u001b[31m\"]}"},
        {"no tags", TAGS, 0, 0, OK "\r\n{\"tags\":null}"},

        /* ---- other statuses ---- */
        {"204", MANIFEST | PINNED | BLOB | TAGS, 1, 0, "HTTP/1.1 204 No Content\r\n\r\n"},
        {"206 that nobody asked for", BLOB, 1, -1,
                "HTTP/1.1 206 Partial\r\nContent-Range: bytes 7-8/9\r\nContent-Length: 2\r\n\r\n{}"},
        {"304 that nobody asked for", ALL, 1, 0, "HTTP/1.1 304 Not Modified\r\n\r\n"},
        {"416", BLOB, 1, 0, "HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n"},
        {"418 with an error of 10 kB", ALL, -EREMOTEIO, 0,
                "HTTP/1.1 418 X\r\n\r\n{\"errors\":[{\"code\":\"\\u001b[31mBAD\",\"message\":\"" X100 X100
                        X100 X100 X100 X100 X100 X100 "\\r\\ntbnode: all is well\"}]}"},
        {"500 for ever", ALL, -EREMOTEIO, 1, "HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"},
        {"503 and an endless error", ALL & ~RESOLVE, -EREMOTEIO, 1, "HTTP/1.1 503 X\r\n\r\n", 0, X100},
        {"429 for a day", ALL, -EAGAIN, 1,
                "HTTP/1.1 429 X\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n"},
        {"429, waiting time is garbage", ALL, -EAGAIN, 1,
                "HTTP/1.1 429 X\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n"},
        {"429, waiting time overflows", ALL, -EAGAIN, 1,
                "HTTP/1.1 429 X\r\nRetry-After: 99999999999999999999999\r\nContent-Length: 0\r\n\r\n"},

        /* ---- elsewhere ---- */
        {"redirect to itself", READING | RESOLVE, -ELOOP, 0, .handler = redirect_loop},
        {"redirects in a circle", READING | RESOLVE, -ELOOP, 0, .handler = redirect_ping_pong},
        {"redirect to a file", READING, 1, 0,
                "HTTP/1.1 307 X\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"},
        {"redirect to gopher", READING, 1, 0,
                "HTTP/1.1 307 X\r\nLocation: gopher://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n"},
        {"redirect to nothing", READING, 1, 0, "HTTP/1.1 307 X\r\nLocation: \r\nContent-Length: 0\r\n\r\n"},
        {"redirect without a target", ALL, 1, 0, "HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n"},
        {"redirect with an escape", READING, 1, 0,
                "HTTP/1.1 307 X\r\nLocation: http://\x1b[31mx/\r\nContent-Length: 0\r\n\r\n"},
        {"the next of the pages is the same", TAGS, -ELOOP, 0, .handler = next_page_is_this_one},
        {"pages without an end", TAGS, -EMSGSIZE, 0, .handler = always_another_page},

        /* ---- authentication ---- */
        {"401 without a challenge", ALL, -EACCES, 0, "HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n"},
        {"challenge is garbage", ALL, 1, 0,
                "HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer \x01===\"\r\nContent-Length: 0\r\n\r\n"},
        {"Basic, always refused", ALL, -EACCES, 0,
                "HTTP/1.1 401 X\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n"},
        {"token server is a file", ALL, 1, 0,
                "HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm=\"file:///etc/passwd\"\r\nContent-Length: "
                "0\r\n\r\n"},
        {"no token is good enough", ALL, -EACCES, 0, .handler = always_401},
        {"the token server wants a token", ALL, -EACCES, 0, .handler = token_needs_token},
        {"a giant token", ALL, 1, 0, .handler = giant_token},

        /* ---- uploads ---- */
        {"upload without a place", PUT_BLOB, -EPROTO, 0, "HTTP/1.1 202 X\r\nContent-Length: 0\r\n\r\n"},
        {"upload into a file", PUT_BLOB, 1, 0, .handler = upload_location_file},
        {"upload to nowhere", PUT_BLOB, 1, 0, .handler = upload_location_garbage},
        {"another digest than ours", PUT_BLOB, -EBADMSG, -1, .handler = upload_wrong_digest},
        {"never committed", PUT_BLOB, 1, -1, .handler = commit_never},
        {"manifest stored under another digest", PUT_MANIFEST, -EBADMSG, 0,
                "HTTP/1.1 201 X\r\nDocker-Content-Digest: " OTHER "\r\nContent-Length: 0\r\n\r\n"},
        {"manifest accepted with 299", PUT_MANIFEST, 1, 0, "HTTP/1.1 299 X\r\nContent-Length: 0\r\n\r\n"},
};

static void test_cases(void **state)
{
        const char *only = getenv("CASE");

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                if (!only || strstr(cases[i].name, only)) {
                        new_server();
                        run_case(cases + i);
                }
        assert_int_equal(failures, 0);
}

/* ---- an answer that breaks off at each byte ---- */

static void cut(Exchange *e)
{
        exchange_write(e, f.data, f.size);
        e->close = true;
        if (f.reset)
                exchange_reset(e);
}

/* The first answer is cut, the next one is whole. */
static void cut_once(Exchange *e)
{
        if (e->nth == 0 || f.size == 0)
                cut(e);
        else if (exchange_header(e, "Range"))
                exchange_text(e, 206, "Content-Range: bytes 1-1/2\r\n", "}");
        else if (strstr(e->path, "/blobs/"))
                exchange_text(e, 200, "", "{}");
        else
                exchange_text(e, 200, OCI, BODY);
}

static void cut_everywhere(const char *answer, Question question, bool reset, bool once)
{
        size_t whole = strlen(answer);

        for (size_t n = once ? 1 : 0; n <= whole; n++) {
                char name[64];
                Case c = {name, question,
                        once || n == whole       ? 0
                                : n + 1 == whole ? EITHER
                                                 : 1,
                        -1, .handler = once ? cut_once : cut};

                snprintf(name, sizeof(name), "%s after %zu of %zu bytes", reset ? "reset" : "closed", n,
                        whole);
                f.data = answer;
                f.size = n;
                f.reset = reset;
                if (once || n % 100 == 0) /* `once`: the count of earlier requests starts anew */
                        new_server();
                /* With a reset even a whole answer may get lost on the way: both outcomes are right then. */
                if (reset && n == whole)
                        continue;
                run_case(&c);
        }
        assert_int_equal(failures, 0);
}

#define WHOLE_BLOB OK "Content-Length: 2\r\nDocker-Content-Digest: " EMPTY "\r\n\r\n{}"

static void test_closed_at_each_byte(void **state)
{
        char manifest[1024];

        snprintf(manifest, sizeof(manifest), OK OCI "Content-Length: %zu\r\n\r\n" BODY, strlen(BODY));
        cut_everywhere(WHOLE_BLOB, BLOB, false, false);
        cut_everywhere(manifest, PINNED, false, false);
        cut_everywhere(
                OK "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", BLOB, false, false);
}

static void test_reset_at_each_byte(void **state)
{
        char manifest[1024];

        snprintf(manifest, sizeof(manifest), OK OCI "Content-Length: %zu\r\n\r\n" BODY, strlen(BODY));
        cut_everywhere(WHOLE_BLOB, BLOB, true, false);
        cut_everywhere(manifest, PINNED, true, false);
}

static void test_goes_on_after_each_byte(void **state)
{
        cut_everywhere(WHOLE_BLOB, BLOB, false, true);
        cut_everywhere(OK OCI "Content-Length: 1000\r\n\r\n" BODY, PINNED, true, true);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_cases),
                cmocka_unit_test(test_closed_at_each_byte),
                cmocka_unit_test(test_reset_at_each_byte),
                cmocka_unit_test(test_goes_on_after_each_byte),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

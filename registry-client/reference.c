/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Image references
 *
 * Grammar of distribution's reference package (reference.go, normalize.go), which is what users know from Docker:
 *
 *         reference := [host "/"] repository [":" tag] ["@" digest]
 *         host      := (name *("." name) | "[" IPv6 "]") [":" port]
 *         repository:= component *("/" component)      component := [a-z0-9]+ ((. | _ | __ | -+) [a-z0-9]+)*
 *         tag       := [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
 *
 * The parser cuts from the ends inward ("@" first, then the last ":" behind the last "/"), then decides whether the
 * first component is a host; each piece is then checked on its own by a checker that registry_ref_new() shares.
 */

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define NAME_MAX_LENGTH 255U /* distribution-spec: host and name together; many implementations stop there */
#define TAG_MAX_LENGTH 128U

static bool is_lower_alnum(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_upper(char c)
{
        return c >= 'A' && c <= 'Z';
}

static bool is_alnum(char c)
{
        return is_lower_alnum(c) || is_upper(c);
}

/* "example.org", "a-b", "10.0.0.1": labels of letters, digits and inner dashes. */
static bool host_name_valid(const char *s, size_t n)
{
        size_t label = 0;

        if (n == 0)
                return false;
        for (size_t i = 0; i < n; i++) {
                if (s[i] == '.') {
                        if (label == 0 || s[i - 1] == '-')
                                return false;
                        label = 0;
                } else if (is_alnum(s[i]) || (s[i] == '-' && label > 0))
                        label++;
                else
                        return false;
        }
        return label > 0 && s[n - 1] != '-';
}

static bool host_ipv6_valid(const char *s, size_t n)
{
        char text[INET6_ADDRSTRLEN];
        struct in6_addr a;

        if (n == 0 || n >= sizeof(text))
                return false;
        memcpy(text, s, n);
        text[n] = 0;
        return inet_pton(AF_INET6, text, &a) == 1;
}

bool registry_host_is_valid(const char *host)
{
        const char *name_end, *port;
        uint32_t p;

        if (strlen(host) > NAME_MAX_LENGTH)
                return false;
        if (host[0] == '[') {
                name_end = strchr(host, ']');
                if (!name_end || !host_ipv6_valid(host + 1, (size_t) (name_end - host - 1)))
                        return false;
                name_end++;
        } else {
                name_end = host + strcspn(host, ":");
                if (!host_name_valid(host, (size_t) (name_end - host)))
                        return false;
        }
        if (*name_end == 0)
                return true;
        if (*name_end != ':')
                return false;
        port = name_end + 1;
        return strlen(port) <= 5 && tb_parse_u32(port, 1, 65535, &p, NULL) >= 0;
}

bool registry_repository_is_valid(const char *s)
{
        size_t n = strlen(s);

        if (n == 0 || n > NAME_MAX_LENGTH)
                return false;
        for (size_t i = 0; i < n;) {
                size_t sep;

                if (!is_lower_alnum(s[i]))
                        return false;
                while (i < n && is_lower_alnum(s[i]))
                        i++;
                if (i == n)
                        return true;
                if (s[i] == '/' || s[i] == '.')
                        sep = 1;
                else if (s[i] == '_')
                        sep = s[i + 1] == '_' ? 2 : 1;
                else if (s[i] == '-')
                        sep = strspn(s + i, "-");
                else
                        return false;
                i += sep;
                if (i >= n) /* ends in a separator */
                        return false;
        }
        return true;
}

bool registry_tag_is_valid(const char *s)
{
        size_t n = strlen(s);

        if (n == 0 || n > TAG_MAX_LENGTH || !(is_alnum(s[0]) || s[0] == '_'))
                return false;
        for (size_t i = 1; i < n; i++)
                if (!is_alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
                        return false;
        return true;
}

static int bad_reference(TbError **err, const char *what, const char *text, const char *why)
{
        _cleanup_free_ char *shown = tb_escape(text, 80);

        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s \"%s\": %s", what, shown ? shown : "?", why);
}

/* The checks that both constructors share; takes nothing. */
static int ref_check(const char *host, const char *repository, const char *tag, TbError **err)
{
        if (!registry_host_is_valid(host))
                return bad_reference(err, "registry host", host,
                        "not a host name, address or [IPv6], with an optional port 1-65535");
        if (!registry_repository_is_valid(repository)) {
                for (const char *p = repository; *p; p++)
                        if (is_upper(*p))
                                return bad_reference(err, "repository", repository, "must be lower case");
                return bad_reference(err, "repository", repository,
                        "components must be a-z 0-9, joined by single \".\", \"_\", \"__\" or dashes, and "
                        "\"/\"");
        }
        if (strlen(host) + 1 + strlen(repository) > NAME_MAX_LENGTH)
                return bad_reference(
                        err, "image name", repository, "longer than 255 characters with its host");
        if (tag && !registry_tag_is_valid(tag))
                return bad_reference(err, "tag", tag,
                        "must be 1-128 of A-Z a-z 0-9 \"_\" \".\" \"-\", not starting with \".\" or \"-\"");
        return 0;
}

static void lower(char *s)
{
        for (; *s; s++)
                if (is_upper(*s))
                        *s = (char) (*s - 'A' + 'a');
}

int registry_ref_new(const char *host, const char *repository, const char *tag, const TbDigest *digest,
        RegistryRef **ret, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        if (digest && !tb_digest_is_set(digest))
                digest = NULL;
        if (!tag && !digest)
                tag = "latest";
        r = ref_check(host, repository, tag, err);
        if (r < 0)
                return r;

        ref = calloc(1, sizeof(*ref));
        if (!ref)
                return tb_error_oom(err);
        ref->host = strdup(host);
        ref->repository = strdup(repository);
        if (!ref->host || !ref->repository)
                return tb_error_oom(err);
        /* Names do not differ in case. "Host/x" is left alone: in lower case it would no longer read as a host. */
        if (strpbrk(ref->host, ".:") || strcasecmp(ref->host, "localhost") == 0)
                lower(ref->host);
        if (tb_streq(ref->host, "index.docker.io")) { /* Docker's own legacy name for the Hub */
                free(ref->host);
                ref->host = strdup("docker.io");
                if (!ref->host)
                        return tb_error_oom(err);
        }
        if (tag) {
                ref->tag = strdup(tag);
                if (!ref->tag)
                        return tb_error_oom(err);
        }
        if (digest)
                ref->digest = *digest;
        *ret = TAKE_PTR(ref);
        return 0;
}

int registry_ref_with(
        const RegistryRef *ref, const char *tag, const TbDigest *digest, RegistryRef **ret, TbError **err)
{
        return registry_ref_new(ref->host, ref->repository, tag, digest, ret, err);
}

/* Docker's rule for "is the first component a host": normalize.go, splitDockerDomain(). */
static bool component_is_host(const char *s)
{
        if (tb_streq(s, "localhost") || strpbrk(s, ".:"))
                return true;
        for (; *s; s++)
                if (is_upper(*s))
                        return true;
        return false;
}

static bool is_64_hex(const char *s)
{
        return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

int registry_ref_parse(const char *s, RegistryRef **ret, TbError **err)
{
        _cleanup_free_ char *copy = NULL, *library = NULL;
        char *at, *colon, *slash, *tag = NULL, *repository;
        const char *host = "docker.io";
        TbDigest digest = {0};
        int r;

        /* host, name, tag and digest at their longest; keeps the copies below small as well */
        if (strlen(s) > NAME_MAX_LENGTH + 1 + TAG_MAX_LENGTH + 1 + TB_DIGEST_TEXT_MAX)
                return bad_reference(err, "image reference", s, "too long");
        copy = strdup(s);
        if (!copy)
                return tb_error_oom(err);

        at = strchr(copy, '@');
        if (at) {
                *at = 0;
                r = tb_digest_parse(at + 1, &digest, err);
                if (r < 0) {
                        _cleanup_free_ char *shown = tb_escape(s, 80);

                        tb_error_prefix(err, "image reference \"%s\"", shown ? shown : "?");
                        return r;
                }
        }

        slash = strrchr(copy, '/');
        colon = strrchr(slash ? slash : copy, ':');
        if (colon) {
                *colon = 0;
                tag = colon + 1;
        }
        if (copy[0] == 0)
                return bad_reference(err, "image reference", s, "has no name");

        repository = copy;
        slash = strchr(copy, '/');
        if (slash) {
                *slash = 0;
                if (component_is_host(copy)) {
                        host = copy;
                        repository = slash + 1;
                } else
                        *slash = '/';
        }
        if (host != copy && is_64_hex(repository))
                return bad_reference(err, "image reference", s, "64 hex digits are an image ID, not a name");
        if (host != copy && tag && tb_streq(repository, "sha256") && is_64_hex(tag))
                return bad_reference(
                        err, "image reference", s, "a digest alone names no image; write REPOSITORY@DIGEST");

        if ((strcasecmp(host, "docker.io") == 0 || strcasecmp(host, "index.docker.io") == 0) &&
                !strchr(repository, '/')) {
                library = tb_asprintf("library/%s", repository);
                if (!library)
                        return tb_error_oom(err);
                /* An empty name would become the valid-looking "library/". */
                if (repository[0] == 0)
                        return bad_reference(err, "image reference", s, "has no name");
        }

        r = registry_ref_new(host, library ? library : repository, tag, &digest, ret, err);
        if (r < 0) {
                _cleanup_free_ char *shown = tb_escape(s, 80);

                tb_error_prefix(err, "image reference \"%s\"", shown ? shown : "?");
                return r;
        }
        return 0;
}

RegistryRef *registry_ref_free(RegistryRef *ref)
{
        if (!ref)
                return NULL;
        free(ref->host);
        free(ref->repository);
        free(ref->tag);
        free(ref);
        return NULL;
}

char *registry_ref_to_string(const RegistryRef *ref)
{
        bool d = tb_digest_is_set(&ref->digest);

        return tb_asprintf("%s/%s%s%s%s%s", ref->host, ref->repository, ref->tag ? ":" : "",
                ref->tag ? ref->tag : "", d ? "@" : "", ref->digest.text);
}

char *registry_ref_name(const RegistryRef *ref)
{
        return tb_asprintf("%s/%s", ref->host, ref->repository);
}

const char *registry_ref_selector(const RegistryRef *ref)
{
        return tb_digest_is_set(&ref->digest) ? ref->digest.text : ref->tag;
}

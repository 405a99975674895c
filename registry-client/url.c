/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * URLs that registries give us (Location, Link, realm) are hostile input: parsed by libcurl's URL API, the same parser
 * that will connect, so that what was checked is what is used.
 */

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define URL_MAX 16384U

static void curl_url_cleanupp(CURLU **u)
{
        if (*u)
                curl_url_cleanup(*u);
}
#define _cleanup_curlu_ _cleanup_(curl_url_cleanupp)

static void curl_stringp(char **s)
{
        curl_free(*s);
}
#define _cleanup_curl_string_ _cleanup_(curl_stringp)

static CURLU *url_parse(const char *url)
{
        CURLU *u = curl_url();

        if (u && (strlen(url) > URL_MAX || curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK)) {
                curl_url_cleanup(u);
                u = NULL;
        }
        return u;
}

int registry_url_resolve(const char *base, const char *location, char **ret, TbError **err)
{
        _cleanup_curlu_ CURLU *u = url_parse(base);
        _cleanup_curl_string_ char *scheme = NULL, *user = NULL, *url = NULL;
        _cleanup_free_ char *shown = NULL;
        const char *why = "not a URL";
        char *copy;

        if (!u)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "cannot parse the URL it is relative to");
        for (const char *p = location; *p; p++)
                if ((unsigned char) *p <= ' ' || *p == 127) {
                        why = "it has blanks or control characters";
                        goto bad;
                }
        if (!*location || strlen(location) > URL_MAX ||
                curl_url_set(u, CURLUPART_URL, location, 0) != CURLUE_OK)
                goto bad;
        if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
                (!tb_streq(scheme, "http") && !tb_streq(scheme, "https"))) {
                why = "neither http nor https";
                goto bad;
        }
        if (curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_OK) {
                why = "it has a user name";
                goto bad;
        }
        if (curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) != CURLUE_OK ||
                curl_url_get(u, CURLUPART_URL, &url, 0) != CURLUE_OK)
                goto bad;
        copy = strdup(url);
        if (!copy)
                return tb_error_oom(err);
        *ret = copy;
        return 0;

bad:
        shown = tb_escape(location, 200);
        return tb_error_set(
                err, TB_ERROR_REMOTE, -EPROTO, "bad address \"%s\": %s", shown ? shown : "?", why);
}

int registry_url_add_query(const char *url, const char *name, const char *value, char **ret, TbError **err)
{
        _cleanup_curl_string_ char *escaped = curl_easy_escape(NULL, value, 0);
        char *out;

        if (!escaped)
                return tb_error_oom(err);
        out = tb_asprintf("%s%s%s=%s", url, strchr(url, '?') ? (tb_endswith(url, "?") ? "" : "&") : "?",
                name, escaped);
        if (!out)
                return tb_error_oom(err);
        *ret = out;
        return 0;
}

int registry_form_add(TbBuffer *b, const char *name, const char *value, TbError **err)
{
        _cleanup_curl_string_ char *escaped = curl_easy_escape(NULL, value, 0);
        int r;

        if (!escaped)
                return tb_error_oom(err);
        r = tb_buffer_printf(b, err, "%s%s=%s", b->size > 0 ? "&" : "", name, escaped);
        explicit_bzero(escaped, strlen(escaped)); /* forms hold passwords */
        return r;
}

static bool url_origin(const char *url, char **scheme, char **host, char **port)
{
        _cleanup_curlu_ CURLU *u = url_parse(url);

        return u && curl_url_get(u, CURLUPART_SCHEME, scheme, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_HOST, host, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_PORT, port, CURLU_DEFAULT_PORT) == CURLUE_OK;
}

bool registry_url_same_origin(const char *a, const char *b)
{
        _cleanup_curl_string_ char *sa = NULL, *ha = NULL, *pa = NULL, *sb = NULL, *hb = NULL, *pb = NULL;

        return url_origin(a, &sa, &ha, &pa) && url_origin(b, &sb, &hb, &pb) && tb_streq(sa, sb) &&
                strcasecmp(ha, hb) == 0 && tb_streq(pa, pb);
}

bool registry_url_host_port(const char *url, char **ret_host, char **ret_port)
{
        _cleanup_curl_string_ char *scheme = NULL, *host = NULL, *port = NULL;
        size_t n;

        if (!url_origin(url, &scheme, &host, &port))
                return false;
        n = strlen(host);
        *ret_host = host[0] == '[' && n > 2 ? strndup(host + 1, n - 2) : strdup(host);
        *ret_port = strdup(port);
        return *ret_host && *ret_port;
}

char *registry_url_authority(const char *url)
{
        _cleanup_curl_string_ char *scheme = NULL, *host = NULL, *port = NULL;
        char *out;

        if (!url_origin(url, &scheme, &host, &port))
                return NULL;
        if (tb_streq(port, tb_streq(scheme, "https") ? "443" : "80"))
                out = strdup(host);
        else
                out = tb_asprintf("%s:%s", host, port);
        for (char *p = out; p && *p; p++)
                if (*p >= 'A' && *p <= 'Z')
                        *p = (char) (*p - 'A' + 'a');
        return out;
}

bool registry_url_is_https(const char *url)
{
        return strncasecmp(url, "https://", 8) == 0;
}

char *registry_url_for_people(const char *url)
{
        _cleanup_curlu_ CURLU *u = url_parse(url);
        _cleanup_curl_string_ char *out = NULL;

        if (!u || curl_url_set(u, CURLUPART_QUERY, NULL, 0) != CURLUE_OK ||
                curl_url_set(u, CURLUPART_USER, NULL, 0) != CURLUE_OK ||
                curl_url_set(u, CURLUPART_PASSWORD, NULL, 0) != CURLUE_OK ||
                curl_url_get(u, CURLUPART_URL, &out, 0) != CURLUE_OK)
                return strdup("(bad URL)");
        return tb_escape(out, 200);
}

/* The host part of "host", "host:port", "[v6]", "[v6]:port" in buf, without brackets. */
static bool host_part(const char *authority, char *buf, size_t size)
{
        const char *start = authority;
        size_t n;

        if (*start == '[') {
                start++;
                n = strcspn(start, "]");
        } else
                n = strcspn(start, ":");
        if (n == 0 || n >= size)
                return false;
        memcpy(buf, start, n);
        buf[n] = 0;
        if (n > 1 && buf[n - 1] == '.') /* the absolute form of a name */
                buf[n - 1] = 0;
        return true;
}

static bool name_is_loopback(const char *name)
{
        size_t n = strlen(name);

        return strcasecmp(name, "localhost") == 0 ||
                (n > 10 && strcasecmp(name + n - 10, ".localhost") == 0);
}

static bool v4_is_loopback(uint32_t a)
{
        return a >> 24 == 127;
}

/* RFC 6890: what is not meant to be reached over the internet. */
static bool v4_is_private(uint32_t a)
{
        return a >> 24 == 0 || a >> 24 == 10 || a >> 24 == 127 || a >> 20 == (172 << 4 | 1) ||
                a >> 16 == (192 << 8 | 168) || a >> 16 == (169 << 8 | 254) || a >> 22 == (100 << 2 | 1) ||
                a >> 8 == (192 << 16 | 0 << 8 | 0) || a >> 17 == (198 << 7 | 18 >> 1) || a >> 28 >= 14;
}

static bool v6_is_private(const struct in6_addr *a)
{
        const uint8_t *b = a->s6_addr;

        if (IN6_IS_ADDR_V4MAPPED(a) || IN6_IS_ADDR_V4COMPAT(a)) /* the latter holds :: and ::1 as well */
                return v4_is_private((uint32_t) b[12] << 24 | (uint32_t) b[13] << 16 |
                               (uint32_t) b[14] << 8 | b[15]) ||
                        IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a);
        if (IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a))
                return true;
        /* Both lead to the IPv4 address inside: NAT64 (RFC 6052) and 6to4 (RFC 3056). */
        if (memcmp(b, (const uint8_t[12]){0, 0x64, 0xff, 0x9b}, 12) == 0)
                return v4_is_private(
                        (uint32_t) b[12] << 24 | (uint32_t) b[13] << 16 | (uint32_t) b[14] << 8 | b[15]);
        if (b[0] == 0x20 && b[1] == 0x02)
                return v4_is_private(
                        (uint32_t) b[2] << 24 | (uint32_t) b[3] << 16 | (uint32_t) b[4] << 8 | b[5]);
        return (b[0] & 0xfe) == 0xfc || (b[0] == 0xfe && (b[1] & 0x80) == 0x80) || b[0] == 0xff;
}

bool registry_host_is_loopback(const char *authority)
{
        char name[256];
        struct in_addr v4;
        struct in6_addr v6;

        if (!host_part(authority, name, sizeof(name)))
                return false;
        if (inet_pton(AF_INET, name, &v4) == 1)
                return v4_is_loopback(ntohl(v4.s_addr));
        if (inet_pton(AF_INET6, name, &v6) == 1)
                return IN6_IS_ADDR_LOOPBACK(&v6);
        return name_is_loopback(name);
}

bool registry_host_is_private(const char *authority)
{
        char name[256];
        struct in_addr v4;
        struct in6_addr v6;

        if (!host_part(authority, name, sizeof(name)))
                return true;
        /* inet_aton() as well: "127.1", "0x7f000001" and "2130706433" reach the same machine. */
        if (inet_pton(AF_INET, name, &v4) == 1 || inet_aton(name, &v4) == 1)
                return v4_is_private(ntohl(v4.s_addr));
        if (inet_pton(AF_INET6, name, &v6) == 1)
                return v6_is_private(&v6);
        return name_is_loopback(name);
}

bool registry_address_is_private(const struct sockaddr *address)
{
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;

        switch (address->sa_family) {
        case AF_INET:
                memcpy(&v4, address, sizeof(v4));
                return v4_is_private(ntohl(v4.sin_addr.s_addr));
        case AF_INET6:
                memcpy(&v6, address, sizeof(v6));
                return v6_is_private(&v6.sin6_addr);
        default:
                return true;
        }
}

int registry_link_next(const char *header, char **ret, TbError **err)
{
        const char *p = header;

        if (strlen(header) > URL_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "Link header is too long");
        while (*p) {
                const char *start, *end, *params;
                bool quoted = false, next = false;

                p += strspn(p, " \t,");
                if (!*p)
                        return 0;
                if (*p != '<' || !(end = strchr(p, '>')))
                        return tb_error_set(
                                err, TB_ERROR_REMOTE, -EPROTO, "cannot understand the Link header");
                start = p + 1;
                params = end + 1;
                for (p = params; *p && (quoted || *p != ','); p++)
                        if (*p == '"')
                                quoted = !quoted;
                quoted = false;
                for (const char *q = params; q < p; q++) {
                        const char *v = q + 5;

                        if (*q == '"')
                                quoted = !quoted;
                        if (quoted || (*q != ';' && *q != ' ') || strncasecmp(q + 1, "rel=", 4) != 0)
                                continue;
                        v += *v == '"';
                        /* strchr() finds the terminator too: the end of the value */
                        next = next || (strncasecmp(v, "next", 4) == 0 && strchr("\" \t;,", v[4]));
                }
                if (next) {
                        *ret = strndup(start, (size_t) (end - start));
                        return *ret ? 1 : tb_error_oom(err);
                }
        }
        return 0;
}

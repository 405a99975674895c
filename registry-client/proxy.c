/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Which proxy an URL goes through
 *
 * As Docker does it, which is Go's golang.org/x/net/http/httpproxy (config.go): curl's own reading of the environment
 * differs (it proxies loopback names, ignores HTTP_PROXY, and takes ".example.org" for the name itself as well).
 *
 *         NO_PROXY := entry *("," entry)       blanks around entries do not count
 *         entry    := "*"                      no proxy for anything
 *                   | address "/" bits         literal addresses within the block
 *                   | address [":" port]       "[v6]:port" with a port
 *                   | name [":" port]          the name and everything below it
 *                   | [*]"." name [":" port]   only what is below
 */

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define NO_PROXY_MAX 65536U
#define ENTRY_MAX 512U

typedef struct Address {
        int family;
        uint8_t bytes[16];
} Address;

static bool parse_address(const char *s, Address *ret)
{
        Address a = {0};

        if (inet_pton(AF_INET, s, a.bytes) == 1)
                a.family = AF_INET;
        else if (inet_pton(AF_INET6, s, a.bytes) == 1)
                a.family = AF_INET6;
        else
                return false;
        /* "::ffff:10.0.0.1" is the same machine as "10.0.0.1" */
        if (a.family == AF_INET6 && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *) (const void *) a.bytes)) {
                memmove(a.bytes, a.bytes + 12, 4);
                memset(a.bytes + 4, 0, 12);
                a.family = AF_INET;
        }
        *ret = a;
        return true;
}

static bool in_block(const Address *a, const Address *net, unsigned bits)
{
        unsigned whole = bits / 8, rest = bits % 8;
        uint8_t mask = (uint8_t) (0xff00 >> rest);

        return a->family == net->family && memcmp(a->bytes, net->bytes, whole) == 0 &&
                (rest == 0 || ((a->bytes[whole] ^ net->bytes[whole]) & mask) == 0);
}

/* Cuts "host:port", "[v6]:port", "[v6]" in place; a bare IPv6 address has no port. */
static char *cut_port(char **host)
{
        char *colon, *end;

        if (**host == '[') {
                end = strchr(*host, ']');
                if (!end)
                        return NULL;
                (*host)++;
                *end = 0;
                return end[1] == ':' ? end + 2 : NULL;
        }
        colon = strchr(*host, ':');
        if (!colon || strchr(colon + 1, ':'))
                return NULL;
        *colon = 0;
        return colon + 1;
}

static bool matches_name(const char *host, const char *entry)
{
        size_t n = strlen(host), m;

        if (entry[0] == '*' && entry[1] == '.')
                entry++;
        m = strlen(entry);
        if (entry[0] == '.')
                return m > 1 && n > m && strcasecmp(host + n - m, entry) == 0;
        return strcasecmp(host, entry) == 0 ||
                (n > m && host[n - m - 1] == '.' && strcasecmp(host + n - m, entry) == 0);
}

/* `entry` is changed. */
static bool entry_matches(char *entry, const char *host, const char *port)
{
        Address a, net;
        char *slash = strchr(entry, '/'), *entry_port;
        uint32_t bits;

        if (slash) {
                *slash = 0;
                return parse_address(host, &a) && parse_address(entry, &net) &&
                        tb_parse_u32(slash + 1, 0, net.family == AF_INET ? 32 : 128, &bits, NULL) >= 0 &&
                        in_block(&a, &net, bits);
        }
        entry_port = cut_port(&entry);
        if (!*entry || (entry_port && *entry_port && !tb_streq(entry_port, port)))
                return false;
        if (parse_address(entry, &net))
                return parse_address(host, &a) && a.family == net.family &&
                        memcmp(a.bytes, net.bytes, sizeof(a.bytes)) == 0;
        return matches_name(host, entry);
}

bool registry_no_proxy_matches(const char *list, const char *host, const char *port)
{
        char entry[ENTRY_MAX];

        if (!list || strlen(list) > NO_PROXY_MAX)
                return false;
        for (const char *p = list; *p; p += *p == ',') {
                const char *start = p + strspn(p, " \t");
                size_t n;

                p += strcspn(p, ",");
                n = start < p ? (size_t) (p - start) : 0;
                while (n > 0 && (start[n - 1] == ' ' || start[n - 1] == '\t'))
                        n--;
                if (n == 0 || n >= sizeof(entry))
                        continue;
                memcpy(entry, start, n);
                entry[n] = 0;
                if (tb_streq(entry, "*") || entry_matches(entry, host, port))
                        return true;
        }
        return false;
}

/* Go adds "http://" to what has no scheme, and lets SOCKS proxies resolve names. */
static int canonical_proxy(const char *url, char **ret, TbError **err)
{
        static const char *const schemes[] = {"http://", "https://", "socks5://", "socks5h://"};
        const char *rest = NULL;
        char *copy;

        if (strlen(url) > 4096)
                return tb_error_set(err, TB_ERROR_CONFIG, -EMSGSIZE, "the address of the proxy is too long");
        for (const char *p = url; *p; p++)
                if ((unsigned char) *p <= ' ' || *p == 127)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "the address of the proxy has blanks or control characters");
        for (size_t i = 0; i < ELEMENTSOF(schemes) && !rest; i++)
                if (strncasecmp(url, schemes[i], strlen(schemes[i])) == 0)
                        rest = url + strlen(schemes[i]);
        if (!rest && strstr(url, "://"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "the address of the proxy must begin with http://, https:// or socks5://");
        if (rest && strncasecmp(url, "socks5", 6) == 0)
                copy = tb_asprintf("socks5h://%s", rest);
        else
                copy = rest ? strdup(url) : tb_asprintf("http://%s", url);
        if (!copy)
                return tb_error_oom(err);
        *ret = copy;
        return 0;
}

static const char *environment(const char *upper, const char *lower)
{
        const char *s = getenv(upper);

        return s && *s ? s : getenv(lower);
}

static int keep_proxy(const char *url, char **ret, TbError **err)
{
        _cleanup_secret_ char *full = NULL;
        char *kept = NULL;
        int r;

        if (url && *url) {
                r = canonical_proxy(url, &full, err);
                if (r < 0)
                        return r;
                kept = registry_secret_keep(full); /* it may hold a password */
                if (!kept)
                        return tb_error_oom(err);
        }
        registry_secret_drop(*ret);
        *ret = kept;
        return 0;
}

int registry_proxy_from_environment(RegistryProxy *p, TbError **err)
{
        const char *http = environment("HTTP_PROXY", "http_proxy"),
                   *none = environment("NO_PROXY", "no_proxy");
        int r;

        if (getenv("REQUEST_METHOD")) /* a CGI program: HTTP_PROXY is the client's "Proxy:" header */
                http = getenv("http_proxy");
        r = keep_proxy(http, &p->http, err);
        if (r >= 0)
                r = keep_proxy(environment("HTTPS_PROXY", "https_proxy"), &p->https, err);
        if (r < 0) {
                tb_error_prefix(err, "http_proxy or https_proxy in the environment");
                return r;
        }
        free(p->no_proxy);
        p->no_proxy = none ? strdup(none) : NULL;
        return none && !p->no_proxy ? tb_error_oom(err) : 0;
}

int registry_client_set_proxy(RegistryClient *c, const char *url, const char *no_proxy, TbError **err)
{
        char *none = no_proxy ? strdup(no_proxy) : NULL;
        int r;

        if (no_proxy && !none)
                return tb_error_oom(err);
        r = keep_proxy(url, &c->proxy.http, err);
        if (r >= 0)
                r = keep_proxy(url, &c->proxy.https, err);
        if (r < 0) {
                free(none);
                return r;
        }
        free(c->proxy.no_proxy);
        c->proxy.no_proxy = none;
        c->proxy.error = tb_error_free(c->proxy.error);
        return 0;
}

int registry_proxy_for(const RegistryProxy *p, const char *url, const char **ret, TbError **err)
{
        _cleanup_free_ char *host = NULL, *port = NULL, *authority = NULL;
        TbError *copy;

        if (p->error) {
                copy = tb_error_copy(p->error);
                return copy ? tb_error_move(err, &copy) : tb_error_oom(err);
        }
        *ret = "";
        if (!p->http && !p->https)
                return 0;
        authority = registry_url_authority(url);
        if (!authority || !registry_url_host_port(url, &host, &port))
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "bad address");
        if (registry_host_is_loopback(authority) || registry_no_proxy_matches(p->no_proxy, host, port))
                return 0;
        if (registry_url_is_https(url))
                *ret = p->https ? p->https : "";
        else
                *ret = p->http ? p->http : "";
        return 0;
}

void registry_proxy_done(RegistryProxy *p)
{
        registry_secret_drop(p->http);
        registry_secret_drop(p->https);
        free(p->no_proxy);
        tb_error_free(p->error);
        *p = (RegistryProxy){0};
}

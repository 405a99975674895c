/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What registries say beside the answer: warnings for the user, and how many more requests they will take. */

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/internal.h"

#define WARNING_MAX 4096U /* distribution-spec: more than 4096 bytes in all warnings need not be read */
#define VALUES_MAX 16U

/* ---- warnings ---- */

/* A quoted-string (RFC 9110 5.6.4) at *p, which stands on the quote. */
static int read_quoted(const char **p, char **ret)
{
        char *v = malloc(strlen(*p));
        size_t n = 0;

        if (!v)
                return -ENOMEM;
        for ((*p)++; **p != '"'; (*p)++) {
                if (**p == '\\')
                        (*p)++;
                if (**p == 0) {
                        free(v);
                        return -EPROTO;
                }
                v[n++] = **p;
        }
        (*p)++;
        v[n] = 0;
        *ret = v;
        return 0;
}

/*
 * RFC 7234 5.5:  warn-code SP warn-agent SP warn-text [SP <"> date <">], more after a comma. distribution-spec: the code
 * is 299, the agent "-"; everything else is for caches.
 */
int registry_warning_next(const char **p, char **ret)
{
        for (unsigned i = 0; i < VALUES_MAX; i++) {
                _cleanup_free_ char *text = NULL, *date = NULL;
                const char *agent;
                bool ours;
                size_t n;
                int r;

                *p += strspn(*p, " \t,");
                if (!**p)
                        return 0;
                ours = strncmp(*p, "299", 3) == 0;
                if (strspn(*p, "0123456789") != 3 || (*p)[3] != ' ')
                        return -EPROTO;
                agent = *p + 4;
                n = strcspn(agent, " \t,\"");
                ours = ours && n == 1 && *agent == '-';
                if (n == 0 || agent[n] != ' ' || agent[n + 1] != '"')
                        return -EPROTO;
                *p = agent + n + 1;
                r = read_quoted(p, &text);
                if (r >= 0 && (*p)[0] == ' ' && (*p)[1] == '"') {
                        (*p)++;
                        r = read_quoted(p, &date);
                }
                if (r < 0)
                        return r;
                if (ours && *text) {
                        *ret = TAKE_PTR(text);
                        return 1;
                }
        }
        return 0;
}

static void tell(RegistryClient *c, const RegistryHost *h, const char *text)
{
        _cleanup_free_ char *line = NULL, *shown = tb_escape_control(text, WARNING_MAX);

        line = shown ? tb_asprintf("%s: %s", h->name, shown) : NULL;
        if (!line || tb_strv_contains(c->warnings, line) ||
                tb_strv_length(c->warnings) >= REGISTRY_WARNINGS_MAX ||
                tb_strv_append(&c->warnings, line, NULL) < 0)
                return;
        if (c->warning)
                c->warning(h->name, shown, c->warning_userdata);
        else
                registry_client_debug(c, "registry %s: warns: %s", h->name, shown);
}

static void take_warnings(RegistryClient *c, const RegistryHost *h, const TbHttpRequest *r)
{
        size_t bytes = 0;
        const char *p;

        for (size_t i = 0; (p = tb_http_request_header_nth(r, "Warning", i)); i++) {
                char *text;

                bytes += strlen(p);
                if (bytes > WARNING_MAX)
                        return;
                while (registry_warning_next(&p, &text) > 0) {
                        tell(c, h, text);
                        free(text);
                }
        }
}

void registry_client_set_warning_handler(RegistryClient *c, RegistryWarningFn fn, void *userdata)
{
        c->warning = fn;
        c->warning_userdata = userdata;
}

/* ---- limits ---- */

/* "100;w=21600", "100" (Docker Hub; draft-ietf-httpapi-ratelimit-headers), "100, 100;w=60": the first one. */
bool registry_ratelimit_parse(const char *s, uint64_t *ret_count, uint64_t *ret_window)
{
        char number[21];
        uint64_t count, window = 0;
        size_t n;

        s += strspn(s, " \t");
        n = strspn(s, "0123456789");
        if (n == 0 || n >= sizeof(number))
                return false;
        memcpy(number, s, n);
        number[n] = 0;
        if (tb_parse_u64(number, 0, INT64_MAX, &count, NULL) < 0)
                return false;
        for (s += n; *s && *s != ',';) {
                s += strspn(s, " \t;");
                if (strncasecmp(s, "w=", 2) == 0) {
                        n = strspn(s + 2, "0123456789");
                        if (n > 0 && n < sizeof(number)) {
                                memcpy(number, s + 2, n);
                                number[n] = 0;
                                if (tb_parse_u64(number, 0, INT64_MAX, &window, NULL) < 0)
                                        window = 0;
                        }
                } else if (*s && *s != ',' && s[strspn(s, "0123456789")] == 0)
                        return false; /* "100 200": no list of parameters */
                s += strcspn(s, ";,");
        }
        *ret_count = count;
        *ret_window = window;
        return true;
}

static uint64_t realtime_usec(void)
{
        struct timespec ts;

        (void) clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

static void take_limits(RegistryHost *h, const TbHttpRequest *r)
{
        const char *limit = tb_http_request_header(r, "RateLimit-Limit"),
                   *remaining = tb_http_request_header(r, "RateLimit-Remaining");
        RegistryRateLimit l = {.limit = UINT64_MAX, .remaining = UINT64_MAX};
        uint64_t window = 0, wait;
        bool told = false;

        if (limit && registry_ratelimit_parse(limit, &l.limit, &l.window_sec))
                told = true;
        if (remaining && registry_ratelimit_parse(remaining, &l.remaining, &window)) {
                told = true;
                if (l.window_sec == 0)
                        l.window_sec = window;
        }
        if (tb_http_request_status(r) == 429) {
                wait = registry_retry_after_usec(tb_http_request_header(r, "Retry-After"));
                if (!told && h->has_rate_limit) /* the numbers of before still hold */
                        l = h->rate_limit;
                l.refused_until_usec = wait > 0 ? realtime_usec() + wait : 0;
                told = told || wait > 0;
        }
        if (!told)
                return;
        l.told_at_usec = realtime_usec();
        h->rate_limit = l;
        h->has_rate_limit = true;
}

int registry_client_get_rate_limit(const RegistryClient *c, const char *host, RegistryRateLimit *ret)
{
        for (const RegistryHost *h = c->hosts; h; h = h->next)
                if (strcasecmp(h->name, host) == 0 && h->has_rate_limit) {
                        *ret = h->rate_limit;
                        return 1;
                }
        return 0;
}

const char *registry_client_rate_limit_nth(const RegistryClient *c, size_t index, RegistryRateLimit *ret)
{
        for (const RegistryHost *h = c->hosts; h; h = h->next)
                if (h->has_rate_limit && index-- == 0) {
                        *ret = h->rate_limit;
                        return h->name;
                }
        return NULL;
}

void registry_notices_take(RegistryClient *c, RegistryHost *h, const TbHttpRequest *r)
{
        take_warnings(c, h, r);
        take_limits(h, r);
}

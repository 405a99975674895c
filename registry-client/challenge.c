/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * WWW-Authenticate (RFC 9110 11.2-11.6.1)
 *
 *         challenge   := scheme [1*SP (token68 | [auth-param *(OWS "," OWS auth-param)])]
 *         auth-param  := token BWS "=" BWS (token | quoted-string)
 *
 * A header value holds several challenges, separated by the same commas as the parameters: after a comma, a token that
 * is followed by "=" is a parameter, any other token begins the next challenge. Unknown schemes and parameters are
 * skipped; the first value of a repeated parameter counts.
 */

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "registry-client/internal.h"

#define VALUE_MAX 4096U
#define CHALLENGES_MAX 8U

static bool is_token_char(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                (c != 0 && strchr("!#$%&'*+-.^_`|~", c));
}

static void skip_blanks(const char **p)
{
        *p += strspn(*p, " \t");
}

static void skip_separators(const char **p)
{
        *p += strspn(*p, " \t,");
}

static size_t token_length(const char *p)
{
        size_t n = 0;

        while (is_token_char(p[n]))
                n++;
        return n;
}

/* Reads a token or a quoted string into a new string; *p moves behind it. */
static int read_value(const char **p, char **ret)
{
        char *v;
        size_t n = 0;

        if (**p != '"') {
                /* Lenient: real servers leave URLs and scopes unquoted; take all up to the next separator. */
                n = strcspn(*p, " \t,\"");
                if (n == 0)
                        return -EPROTO;
                v = strndup(*p, n);
                if (!v)
                        return -ENOMEM;
                *p += n;
                *ret = v;
                return 0;
        }

        v = malloc(strlen(*p));
        if (!v)
                return -ENOMEM;
        for ((*p)++; **p != '"'; (*p)++) {
                if (**p == '\\')
                        (*p)++;
                if (**p == 0) { /* no closing quote */
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

static void keep(char **field, char **value)
{
        if (!*field)
                *field = TAKE_PTR(*value);
}

/* The parameters of one challenge; stops where the next challenge begins. */
static int parse_params(const char **p, RegistryChallenge *c)
{
        for (;;) {
                _cleanup_free_ char *value = NULL;
                const char *name, *q;
                size_t n;
                int r;

                skip_separators(p);
                name = *p;
                n = token_length(name);
                q = name + n;
                skip_blanks(&q);
                if (n == 0 || *q != '=')
                        return 0;
                q++;
                skip_blanks(&q);
                r = read_value(&q, &value);
                if (r < 0)
                        return r;
                *p = q;
                if (n == 5 && strncasecmp(name, "realm", n) == 0)
                        keep(&c->realm, &value);
                else if (n == 7 && strncasecmp(name, "service", n) == 0)
                        keep(&c->service, &value);
                else if (n == 5 && strncasecmp(name, "scope", n) == 0)
                        keep(&c->scope, &value);
                else if (n == 5 && strncasecmp(name, "error", n) == 0)
                        keep(&c->error, &value);
        }
}

/* token68 ("Negotiate YII..."): one blob up to the next comma, with "=" only at its end. */
static void skip_token68(const char **p)
{
        const char *q = *p;

        while (is_token_char(*q) || *q == '/')
                q++;
        if (q == *p)
                return;
        if (*q == '=') {
                const char *e = q + strspn(q, "=");

                if (e[strspn(e, " \t")] != 0 && e[strspn(e, " \t")] != ',')
                        return; /* name=value */
                q = e;
        } else if (*q != 0 && *q != ' ' && *q != '\t' && *q != ',')
                return;
        else if (q[strspn(q, " \t")] == '=')
                return;
        *p = q;
}

static int parse_one(const char **p, RegistryChallenge *c)
{
        size_t n = token_length(*p);

        if (n == 0)
                return -EPROTO;
        if (n == 6 && strncasecmp(*p, "Bearer", n) == 0)
                c->scheme = REGISTRY_AUTH_BEARER;
        else if (n == 5 && strncasecmp(*p, "Basic", n) == 0)
                c->scheme = REGISTRY_AUTH_BASIC;
        else
                c->scheme = REGISTRY_AUTH_NONE;
        *p += n;
        if (**p != 0 && **p != ',' && **p != ' ' && **p != '\t')
                return -EPROTO;
        if (**p == ' ' || **p == '\t') {
                skip_blanks(p);
                if (c->scheme == REGISTRY_AUTH_NONE)
                        skip_token68(p);
        }
        return parse_params(p, c);
}

static bool better(const RegistryChallenge *a, const RegistryChallenge *b)
{
        return a->scheme > b->scheme; /* the enum is in the order of preference */
}

int registry_challenge_parse(const char *header, RegistryChallenge *best, TbError **err)
{
        const char *p = header;
        size_t n = 0;

        if (strlen(header) > VALUE_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE,
                        "WWW-Authenticate is longer than %u bytes", VALUE_MAX);
        for (skip_separators(&p); *p; skip_separators(&p)) {
                _cleanup_registry_challenge_ RegistryChallenge c = {0};
                int r;

                if (++n > CHALLENGES_MAX)
                        return tb_error_set(
                                err, TB_ERROR_REMOTE, -EMSGSIZE, "WWW-Authenticate has too many challenges");
                r = parse_one(&p, &c);
                if (r == -ENOMEM)
                        return tb_error_oom(err);
                /* A Bearer challenge without a place to get a token from cannot be answered. */
                if (r < 0 || (c.scheme == REGISTRY_AUTH_BEARER && !c.realm)) {
                        _cleanup_free_ char *shown = tb_escape(header, 200);

                        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                                "cannot understand WWW-Authenticate \"%s\"", shown ? shown : "?");
                }
                if (better(&c, best)) {
                        registry_challenge_done(best);
                        *best = c;
                        c = (RegistryChallenge){0};
                }
        }
        return 0;
}

void registry_challenge_done(RegistryChallenge *c)
{
        free(c->realm);
        free(c->service);
        free(c->scope);
        free(c->error);
        *c = (RegistryChallenge){0};
}

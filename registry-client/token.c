/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The answer of a token server: distribution, docs/spec/auth/token.md, "Token Response Fields". */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "registry-client/internal.h"

#define ANSWER_MAX (256U * 1024)
#define TOKEN_MAX (64U * 1024)
#define EXPIRES_MIN_SEC 60U /* also the default: "never less than 60" for old clients */
#define EXPIRES_MAX_SEC 86400U

/* The token goes into a header line: nothing but visible ASCII, so that a token server cannot add headers. */
static bool fit_for_header(const char *s)
{
        for (; *s; s++)
                if (*s <= ' ' || *s > '~')
                        return false;
        return true;
}

static bool two_digits(const char *s, int max, int *ret)
{
        if (s[0] < '0' || s[0] > '9' || s[1] < '0' || s[1] > '9')
                return false;
        *ret = (s[0] - '0') * 10 + s[1] - '0';
        return *ret <= max;
}

bool registry_parse_rfc3339(const char *s, int64_t *ret)
{
        struct tm tm = {0};
        int century, year, hours = 0, minutes = 0, sign = 0;
        const char *p;

        if (strlen(s) < 20 || s[4] != '-' || s[7] != '-' || (s[10] != 'T' && s[10] != 't') || s[13] != ':' ||
                s[16] != ':')
                return false;
        if (!two_digits(s, 99, &century) || !two_digits(s + 2, 99, &year) ||
                !two_digits(s + 5, 12, &tm.tm_mon) || !two_digits(s + 8, 31, &tm.tm_mday) ||
                !two_digits(s + 11, 23, &tm.tm_hour) || !two_digits(s + 14, 59, &tm.tm_min) ||
                !two_digits(s + 17, 60, &tm.tm_sec) || tm.tm_mon < 1 || tm.tm_mday < 1)
                return false;
        p = s + 19;
        if (*p == '.') {
                size_t n = strspn(p + 1, "0123456789");

                if (n == 0)
                        return false;
                p += 1 + n;
        }
        if (*p == '+' || *p == '-') {
                sign = *p == '+' ? 1 : -1;
                if (strlen(p) != 6 || p[3] != ':' || !two_digits(p + 1, 23, &hours) ||
                        !two_digits(p + 4, 59, &minutes))
                        return false;
        } else if ((*p != 'Z' && *p != 'z') || p[1] != 0)
                return false;
        tm.tm_mon--;
        tm.tm_year = century * 100 + year - 1900;
        *ret = (int64_t) timegm(&tm) - sign * (hours * 3600 + minutes * 60);
        return true;
}

bool registry_parse_http_date(const char *s, int64_t *ret)
{
        struct tm tm = {0};
        const char *end = strptime(s, "%a, %d %b %Y %H:%M:%S GMT", &tm);

        if (!end || *end != 0)
                return false;
        *ret = timegm(&tm);
        return true;
}

void registry_token_answer_done(RegistryTokenAnswer *a)
{
        registry_secret_free(a->token);
        registry_secret_free(a->refresh_token);
        *a = (RegistryTokenAnswer){0};
}

static int take_token(const char *text, char **ret, TbError **err)
{
        char *copy;

        if (strlen(text) > TOKEN_MAX)
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EMSGSIZE, "the token is larger than %u bytes", TOKEN_MAX);
        if (!fit_for_header(text))
                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EPROTO, "the token has characters that no token may have");
        copy = strdup(text);
        if (!copy)
                return tb_error_oom(err);
        *ret = copy;
        return 0;
}

/* How old the answer was when the server sent it: a proxy, or the server itself, may keep tokens. */
static uint64_t age_of(const json_t *j, const char *date)
{
        const char *issued = NULL;
        int64_t sent, since;

        if (!date || tb_json_get_string(j, "issued_at", &issued, NULL) <= 0 ||
                !registry_parse_http_date(date, &sent) || !registry_parse_rfc3339(issued, &since) ||
                since >= sent)
                return 0;
        return (uint64_t) (sent - since);
}

int registry_token_parse(
        const char *body, size_t size, const char *date, RegistryTokenAnswer *ret, TbError **err)
{
        _cleanup_(registry_json_wipep) json_t *j = NULL;
        _cleanup_(registry_token_answer_done) RegistryTokenAnswer a = {0};
        const char *token = NULL, *refresh = NULL;
        uint64_t expires = 0, age;
        int r;

        r = tb_json_parse_secret(body, size, ANSWER_MAX, "token answer", &j, err);
        if (r < 0)
                return r;
        r = tb_json_get_string(j, "token", &token, err);
        if (r < 0)
                return r;
        if (r == 0 || !*token) { /* OAuth2's name for the same */
                r = tb_json_get_string(j, "access_token", &token, err);
                if (r < 0)
                        return r;
        }
        if (!token || !*token)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "the token server's answer has no token");
        r = take_token(token, &a.token, err);
        if (r < 0)
                return r;
        r = tb_json_get_string(j, "refresh_token", &refresh, err);
        if (r > 0 && *refresh)
                r = take_token(refresh, &a.refresh_token, err);
        if (r < 0)
                return r;
        r = tb_json_get_u64(j, "expires_in", &expires, err);
        if (r < 0)
                return r;
        a.expires_sec =
                expires < EXPIRES_MIN_SEC ? EXPIRES_MIN_SEC : MIN2(expires, (uint64_t) EXPIRES_MAX_SEC);
        age = age_of(j, date);
        /* An age beyond the whole life is a clock that is wrong on the other side, not a dead token. */
        if (age < a.expires_sec)
                a.expires_sec -= age;
        *ret = a;
        a = (RegistryTokenAnswer){0};
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/cleanup.h"
#include "common/strv.h"

const char *tb_startswith(const char *s, const char *prefix)
{
        size_t n = strlen(prefix);

        return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}

const char *tb_endswith(const char *s, const char *suffix)
{
        size_t n = strlen(s), m = strlen(suffix);

        return n >= m && memcmp(s + n - m, suffix, m) == 0 ? s + n - m : NULL;
}

char *tb_asprintf(const char *fmt, ...)
{
        char *s = NULL;
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vasprintf(&s, fmt, ap);
        va_end(ap);
        return n < 0 ? NULL : s;
}

size_t tb_strv_length(char *const *v)
{
        size_t n = 0;

        while (v && v[n])
                n++;
        return n;
}

char **tb_strv_copy(char *const *v)
{
        size_t n = tb_strv_length(v);
        _cleanup_strv_ char **copy = calloc(n + 1, sizeof(char *));

        if (!copy)
                return NULL;
        for (size_t i = 0; i < n; i++) {
                copy[i] = strdup(v[i]);
                if (!copy[i])
                        return NULL;
        }
        return TAKE_PTR(copy);
}

int tb_strv_append(char ***v, const char *s, TbError **err)
{
        char *copy = strdup(s);

        if (!copy)
                return tb_error_oom(err);
        return tb_strv_consume(v, copy, err);
}

int tb_strv_consume(char ***v, char *s, TbError **err)
{
        _cleanup_free_ char *owned = s;
        size_t n = tb_strv_length(*v);
        char **grown;

        /* NULL is what strdup() and tb_asprintf() give without memory: callers may pass it straight on. */
        if (!owned)
                return tb_error_oom(err);

        grown = reallocarray(*v, n + 2, sizeof(char *));
        if (!grown)
                return tb_error_oom(err);
        grown[n] = TAKE_PTR(owned);
        grown[n + 1] = NULL;
        *v = grown;
        return 0;
}

bool tb_strv_contains(char *const *v, const char *s)
{
        for (; v && *v; v++)
                if (strcmp(*v, s) == 0)
                        return true;
        return false;
}

bool tb_strv_equal(char *const *a, char *const *b)
{
        size_t n = tb_strv_length(a);

        if (n != tb_strv_length(b))
                return false;
        for (size_t i = 0; i < n; i++)
                if (strcmp(a[i], b[i]) != 0)
                        return false;
        return true;
}

char *tb_strv_join(char *const *v, const char *separator)
{
        size_t m = strlen(separator), total = 1;
        char *s, *p;

        for (size_t i = 0; v && v[i]; i++)
                total += strlen(v[i]) + (i > 0 ? m : 0);

        p = s = malloc(total);
        if (!s)
                return NULL;
        for (size_t i = 0; v && v[i]; i++) {
                if (i > 0)
                        p = mempcpy(p, separator, m);
                p = mempcpy(p, v[i], strlen(v[i]));
        }
        *p = 0;
        return s;
}

char **tb_strv_free(char **v)
{
        for (size_t i = 0; v && v[i]; i++)
                free(v[i]);
        free(v);
        return NULL;
}

/* Length of the well-formed UTF-8 sequence at p (Unicode 15, table 3-7), 0 when it is none. p is
 * NUL-terminated, so reading stops by itself at the end: NUL is no continuation byte. */
static size_t utf8_sequence(const unsigned char *p)
{
        unsigned char lo = 0x80, hi = 0xbf;
        size_t n;

        if (p[0] < 0x80)
                return 1;
        if (p[0] >= 0xc2 && p[0] <= 0xdf)
                n = 2;
        else if (p[0] >= 0xe0 && p[0] <= 0xef)
                n = 3;
        else if (p[0] >= 0xf0 && p[0] <= 0xf4)
                n = 4;
        else
                return 0;

        /* No overlong forms, no surrogates, nothing above U+10FFFF. */
        if (p[0] == 0xe0)
                lo = 0xa0;
        else if (p[0] == 0xed)
                hi = 0x9f;
        else if (p[0] == 0xf0)
                lo = 0x90;
        else if (p[0] == 0xf4)
                hi = 0x8f;
        if (p[1] < lo || p[1] > hi)
                return 0;
        for (size_t i = 2; i < n; i++)
                if (p[i] < 0x80 || p[i] > 0xbf)
                        return 0;
        return n;
}

/* U+0080..U+009F are control characters too: terminals act on them. */
static bool is_c1_control(const unsigned char *p, size_t n)
{
        return n == 2 && p[0] == 0xc2 && p[1] < 0xa0;
}

static char *escape(const char *s, size_t max, bool quotes)
{
        static const char simple[] = "\a\b\t\n\v\f\r\"'\\", letters[] = "abtnvfr\"'\\";
        const unsigned char *p = (const unsigned char *) s, *end = p + strnlen(s, max);
        size_t length = (size_t) (end - p);
        char *out, *o;

        /* The longest form of a byte is \ooo; "..." marks a cut. */
        if (length > (SIZE_MAX - 4) / 4)
                return NULL;
        o = out = malloc(length * 4 + 4);
        if (!out)
                return NULL;

        while (p < end) {
                size_t n = utf8_sequence(p);
                const char *e;

                if (n > 1 && n <= (size_t) (end - p) && !is_c1_control(p, n)) {
                        o = mempcpy(o, p, n);
                        p += n;
                        continue;
                }
                if (n > (size_t) (end - p))
                        break; /* the cut fell into a character: leave it out */

                e = strchr(simple, *p);
                if (e && (quotes || *p < 0x20)) {
                        *o++ = '\\';
                        *o++ = letters[e - simple];
                } else if (*p < 0x20 || *p >= 0x7f) {
                        *o++ = '\\';
                        *o++ = (char) ('0' + (*p >> 6));
                        *o++ = (char) ('0' + ((*p >> 3) & 7));
                        *o++ = (char) ('0' + (*p & 7));
                } else
                        *o++ = (char) *p;
                p++;
        }
        if (s[length])
                o = mempcpy(o, "...", 3);
        *o = 0;
        return out;
}

char *tb_escape(const char *s, size_t max)
{
        return escape(s, max, true);
}

char *tb_escape_control(const char *s, size_t max)
{
        return escape(s, max, false);
}

bool tb_utf8_is_valid(const char *s)
{
        const unsigned char *p = (const unsigned char *) s;

        while (*p) {
                size_t n = utf8_sequence(p);

                if (n == 0)
                        return false;
                p += n;
        }
        return true;
}

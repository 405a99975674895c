/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool text_reserve(Text *t, size_t more)
{
        size_t need = t->size + more + 1, room = t->room ? t->room : 256;
        char *bigger;

        if (t->failed || need < more)
                return false;
        while (room < need)
                room *= 2;
        if (room != t->room) {
                bigger = realloc(t->data, room);
                if (!bigger) {
                        t->failed = true;
                        return false;
                }
                t->data = bigger;
                t->room = room;
        }
        return true;
}

void text_add(Text *t, const void *data, size_t size)
{
        if (!text_reserve(t, size))
                return;
        memcpy(t->data + t->size, data, size);
        t->size += size;
        t->data[t->size] = '\0';
}

void text_adds(Text *t, const char *s)
{
        text_add(t, s, strlen(s));
}

void text_addf(Text *t, const char *fmt, ...)
{
        va_list ap, again;
        int n;

        va_start(ap, fmt);
        va_copy(again, ap);
        n = vsnprintf(NULL, 0, fmt, ap);
        va_end(ap);
        if (n < 0)
                t->failed = true;
        else if (text_reserve(t, (size_t) n)) {
                (void) vsnprintf(t->data + t->size, (size_t) n + 1, fmt, again);
                t->size += (size_t) n;
        }
        va_end(again);
}

char *text_take(Text *t)
{
        char *data;

        text_add(t, "", 0);
        if (t->failed) {
                text_done(t);
                return NULL;
        }
        data = t->data;
        *t = (Text){};
        return data;
}

void text_done(Text *t)
{
        free(t->data);
        *t = (Text){};
}

void problem(Problems *p, const char *fmt, ...)
{
        va_list ap;

        if (p->count < PROBLEMS_KEPT) {
                va_start(ap, fmt);
                (void) vsnprintf(p->reason[p->count], sizeof(p->reason[0]), fmt, ap);
                va_end(ap);
        }
        p->count++;
}

const char *member_string(const json_t *obj, const char *key, const char *otherwise)
{
        const char *s = json_string_value(json_object_get(obj, key));

        return s ? s : otherwise;
}

int member_number(const json_t *obj, const char *key, uint64_t max, uint64_t *ret)
{
        const json_t *v = json_object_get(obj, key);

        if (!v || json_is_null(v))
                return -ENOENT;
        if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t) json_integer_value(v) > max)
                return -EINVAL;
        *ret = (uint64_t) json_integer_value(v);
        return 0;
}

bool account_name_is_valid(const char *s)
{
        size_t n = strlen(s);

        if (n == 0 || n > 32 || !strchr(LETTERS "_", s[0]))
                return false;
        n = strspn(s, LETTERS DIGITS "_.-");
        return s[n] == '\0' || (s[n] == '$' && s[n + 1] == '\0');
}

bool program_name_is_valid(const char *s)
{
        return s[0] != '\0' && strlen(s) <= 64 && s[strspn(s, LETTERS DIGITS "_.-")] == '\0';
}

bool line_is_clean(const char *s, const char *forbidden, size_t max)
{
        if (strlen(s) > max || strpbrk(s, forbidden))
                return false;
        for (; *s; s++)
                if (((unsigned char) *s < 0x20 && *s != '\t') || *s == 0x7f)
                        return false;
        return true;
}

bool path_is_clean(const char *s)
{
        if (s[0] != '/' || !line_is_clean(s, ":", 1024))
                return false;
        for (const char *p = s; p; p = strchr(p + 1, '/')) {
                size_t n = strcspn(p + 1, "/");

                if ((n == 1 && p[1] == '.') || (n == 2 && p[1] == '.' && p[2] == '.'))
                        return false;
        }
        return true;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-table.h"

#include <stdlib.h>
#include <string.h>

#include "augment/client/client-text.h"
#include "augment/client/util.h"

static bool table_room(Table *t)
{
        char **bigger;

        if (t->failed)
                return false;
        if (t->n < t->room)
                return true;
        bigger = realloc(t->lines, (t->room ? 2 * t->room : 64) * sizeof(*bigger));
        if (!bigger) {
                t->failed = true;
                return false;
        }
        t->lines = bigger;
        t->room = t->room ? 2 * t->room : 64;
        return true;
}

static void insert_line(Table *t, size_t at, const char *text, size_t size)
{
        char *line;

        if (!table_room(t))
                return;
        line = strndup(text, size);
        if (!line) {
                t->failed = true;
                return;
        }
        memmove(t->lines + at + 1, t->lines + at, (t->n - at) * sizeof(*t->lines));
        t->lines[at] = line;
        t->n++;
}

void table_parse(Table *t, const char *text)
{
        *t = (Table){};
        while (text && *text) {
                size_t size = strcspn(text, "\n");

                insert_line(t, t->n, text, size);
                text += size;
                text += *text == '\n';
        }
}

void table_done(Table *t)
{
        for (size_t i = 0; i < t->n; i++)
                free(t->lines[i]);
        free(t->lines);
        *t = (Table){};
}

char *table_render(const Table *t)
{
        Text text = {.failed = t->failed};

        for (size_t i = 0; i < t->n; i++)
                if (t->lines[i]) {
                        text_adds(&text, t->lines[i]);
                        text_add(&text, "\n", 1);
                }
        return text_take(&text);
}

/* Where a field begins in a line, and its length; NULL if the line has fewer. */
static const char *find_field(const char *line, unsigned n, size_t *ret_size)
{
        for (; n > 0; n--) {
                line = strchr(line, ':');
                if (!line)
                        return NULL;
                line++;
        }
        *ret_size = strcspn(line, ":");
        return line;
}

size_t table_find(const Table *t, const char *name)
{
        size_t size = strlen(name);

        for (size_t i = 0; i < t->n; i++)
                if (t->lines[i] && strncmp(t->lines[i], name, size) == 0 && t->lines[i][size] == ':')
                        return i;
        return TABLE_NONE;
}

char *table_field(const Table *t, size_t line, unsigned n)
{
        size_t size = 0;
        const char *field = find_field(t->lines[line], n, &size);

        return strndup(field ? field : "", field ? size : 0);
}

bool table_number(const Table *t, size_t line, unsigned n, uint32_t *ret)
{
        _cleanup_free_ char *field = table_field(t, line, n);

        return field && parse_u32(field, UINT32_MAX, ret) >= 0;
}

void table_set_field(Table *t, size_t line, unsigned n, const char *value)
{
        const char *old = t->lines[line], *field;
        Text text = {};
        size_t size = 0;
        unsigned have = 0;
        char *changed;

        field = find_field(old, n, &size);
        if (field && strlen(value) == size && strncmp(field, value, size) == 0)
                return;
        if (field) {
                text_add(&text, old, (size_t) (field - old));
        } else {
                text_adds(&text, old);
                for (const char *p = old; (p = strchr(p, ':')); p++)
                        have++;
                for (; have < n; have++)
                        text_adds(&text, ":");
        }
        text_adds(&text, value);
        if (field)
                text_adds(&text, field + size);
        changed = text_take(&text);
        if (!changed) {
                t->failed = true;
                return;
        }
        free(t->lines[line]);
        t->lines[line] = changed;
        t->changed = true;
}

void table_add(Table *t, const char *line)
{
        size_t at = t->n;

        for (size_t i = 0; i < t->n; i++)
                if (t->lines[i] && (t->lines[i][0] == '+' || t->lines[i][0] == '-')) {
                        at = i;
                        break;
                }
        insert_line(t, at, line, strlen(line));
        t->changed = true;
}

void table_drop(Table *t, size_t line)
{
        free(t->lines[line]);
        t->lines[line] = NULL;
        t->changed = true;
}

bool table_list_has(const Table *t, size_t line, unsigned n, const char *item)
{
        size_t size = 0, wanted = strlen(item);
        const char *p = find_field(t->lines[line], n, &size), *end;

        for (end = p ? p + size : NULL; p && p <= end;) {
                size_t length = strcspn(p, ",:");

                if (length == wanted && strncmp(p, item, length) == 0)
                        return true;
                p += length + 1;
        }
        return false;
}

void table_list_add(Table *t, size_t line, unsigned n, const char *item)
{
        _cleanup_free_ char *list = table_field(t, line, n), *longer = NULL;
        Text text = {};

        if (!list) {
                t->failed = true;
                return;
        }
        if (table_list_has(t, line, n, item))
                return;
        text_addf(&text, "%s%s%s", list, list[0] ? "," : "", item);
        longer = text_take(&text);
        if (longer)
                table_set_field(t, line, n, longer);
        else
                t->failed = true;
}

void table_list_remove(Table *t, size_t line, unsigned n, const char *item)
{
        _cleanup_free_ char *list = table_field(t, line, n), *shorter = NULL;
        Text text = {};

        if (!list) {
                t->failed = true;
                return;
        }
        if (!table_list_has(t, line, n, item))
                return;
        for (char *p = list; *p;) {
                size_t size = strcspn(p, ",");

                if (size != strlen(item) || strncmp(p, item, size) != 0) {
                        text_adds(&text, text.size > 0 ? "," : "");
                        text_add(&text, p, size);
                }
                p += size;
                p += *p == ',';
        }
        shorter = text_take(&text);
        if (shorter)
                table_set_field(t, line, n, shorter);
        else
                t->failed = true;
}

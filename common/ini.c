/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/ini.h"
#include "common/strv.h"

#define FILE_SIZE_MAX (1024u * 1024u)

typedef struct IniParser {
        const char *name;
        unsigned line;
        char *section; /* NULL = before the first one */
        const TbIniItem *items;
        size_t n_items;
        bool *seen; /* one for each item */
} IniParser;

static void ini_parser_done(IniParser *p)
{
        free(p->section);
        free(p->seen);
}

/* Cuts white space off both ends, in place. */
static char *strip(char *s)
{
        size_t n;

        s += strspn(s, " \t\r");
        n = strlen(s);
        while (n > 0 && strchr(" \t\r", s[n - 1]))
                n--;
        s[n] = 0;
        return s;
}

static int refuse(IniParser *p, TbError **err, const char *problem, const char *text, const char *advice)
{
        _cleanup_free_ char *shown = tb_escape(text, 80);

        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s:%u: %s \"%s\"; %s", p->name, p->line, problem,
                shown ?: "?", advice);
}

/* ", "-joined names of what is known: the sections, or the keys of the current section. */
static char *known_names(const IniParser *p, bool sections)
{
        _cleanup_strv_ char **names = NULL;

        for (size_t i = 0; i < p->n_items; i++) {
                const char *name = sections ? p->items[i].section : p->items[i].key;

                if (!name || (!sections && !tb_streq(p->items[i].section, p->section)) ||
                        tb_strv_contains(names, name))
                        continue;
                if (tb_strv_append(&names, name, NULL) < 0)
                        return NULL;
        }
        return tb_strv_join(names, ", ");
}

static int refuse_unknown(IniParser *p, TbError **err, bool section, const char *text)
{
        _cleanup_free_ char *names = known_names(p, section);
        _cleanup_free_ char *advice = tb_asprintf("known here: %s", names && *names ? names : "none");

        return refuse(
                p, err, section ? "unknown section" : "unknown key", text, advice ?: "check the spelling");
}

static int handle_section(IniParser *p, char *line, TbError **err)
{
        size_t n = strlen(line);
        bool known = false;
        char *name, *copy;

        if (n < 3 || line[n - 1] != ']')
                return refuse(p, err, "bad section header", line, "write [name]");
        line[n - 1] = 0;
        name = strip(line + 1);

        for (size_t i = 0; i < p->n_items; i++)
                known = known || (p->items[i].section && strcmp(p->items[i].section, name) == 0);
        if (!known)
                return refuse_unknown(p, err, true, name);

        copy = strdup(name);
        if (!copy)
                return tb_error_oom(err);
        free(p->section);
        p->section = copy;
        return 0;
}

static int handle_assignment(IniParser *p, char *line, TbError **err)
{
        char *equals = strchr(line, '='), *key, *value;
        const TbIniItem *item = NULL;
        size_t index = 0;
        int r;

        if (!equals || equals == line)
                return refuse(p, err, "cannot understand", line, "write key=value");
        *equals = 0;
        key = strip(line);
        value = strip(equals + 1);

        for (; index < p->n_items; index++)
                if (tb_streq(p->items[index].section, p->section) && strcmp(p->items[index].key, key) == 0) {
                        item = &p->items[index];
                        break;
                }
        if (!item)
                return refuse_unknown(p, err, false, key);
        if (p->seen[index] && !item->list)
                return refuse(p, err, "second value for", key, "give it once");
        p->seen[index] = true;

        r = item->parse(value, item->userdata, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s:%u: %s", p->name, p->line, key);
                return r;
        }
        return 0;
}

static int handle_line(IniParser *p, const char *data, size_t size, TbError **err)
{
        _cleanup_free_ char *copy = NULL;
        char *line;

        if (memchr(data, 0, size))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%s:%u: NUL byte; this is not a text file", p->name, p->line);
        copy = strndup(data, size);
        if (!copy)
                return tb_error_oom(err);
        if (!tb_utf8_is_valid(copy))
                return refuse(p, err, "not valid UTF-8:", copy, "save the file as UTF-8");

        line = strip(copy);
        if (*line == 0 || *line == '#' || *line == ';')
                return 0;
        if (*line == '[')
                return handle_section(p, line, err);
        return handle_assignment(p, line, err);
}

int tb_ini_parse(const char *name, const char *data, size_t size, const TbIniItem *items, size_t n_items,
        TbError **err)
{
        _cleanup_(ini_parser_done) IniParser p = {.name = name, .items = items, .n_items = n_items};
        const char *end = data + size;

        p.seen = calloc(n_items + 1, sizeof(bool));
        if (!p.seen)
                return tb_error_oom(err);

        while (data < end) {
                const char *newline = memchr(data, '\n', (size_t) (end - data));
                size_t n = (size_t) ((newline ?: end) - data);
                int r;

                p.line++;
                r = handle_line(&p, data, n, err);
                if (r < 0)
                        return r;
                data = newline ? newline + 1 : end;
        }
        return 0;
}

int tb_ini_load(const char *path, const TbIniItem *items, size_t n_items, TbError **err)
{
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        r = tb_file_read(path, FILE_SIZE_MAX, &data, &size, err);
        if (r < 0)
                return r;
        return tb_ini_parse(path, data, size, items, n_items, err);
}

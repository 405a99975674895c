/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "augment/image-distro.h"
#include "common/cleanup.h"
#include "common/strv.h"

#define TEXT_MAX 128U
#define BLANK " \t\r\n"
#define DIGITS "0123456789"

static bool is_printable(const char *s)
{
        for (; *s; s++)
                if ((unsigned char) *s < ' ' || *s == 0x7f)
                        return false;
        return true;
}

/* A word as the shell reads it on the right side of an assignment. `out` has room for `size` + 1. */
static void unquote(const char *p, size_t size, char *out)
{
        char quote = 0;
        size_t n = 0;

        for (size_t i = 0; i < size; i++) {
                char c = p[i];

                if (quote == '\'') {
                        if (c == '\'')
                                quote = 0;
                        else
                                out[n++] = c;
                } else if (c == '\\' && i + 1 < size) {
                        out[n++] = p[++i];
                } else if (c == '"') {
                        quote = quote ? 0 : '"';
                } else if (c == '\'' && !quote) {
                        quote = '\'';
                } else if (!quote && strchr(BLANK ";#", c)) {
                        break;
                } else {
                        out[n++] = c;
                }
        }
        out[n] = 0;
}

int distro_variable(const char *data, const char *key, char **ret, TbError **err)
{
        _cleanup_free_ char *value = NULL;
        size_t key_size = strlen(key);

        for (const char *line = data; *line; line += strcspn(line, "\n"), line += *line == '\n') {
                size_t size;

                line += strspn(line, " \t\r");
                if (strncmp(line, key, key_size) != 0 || line[key_size] != '=')
                        continue;
                free(value);
                value = NULL;
                size = strcspn(line + key_size + 1, "\r\n");
                if (size > TEXT_MAX)
                        continue;
                value = malloc(size + 1);
                if (!value)
                        return tb_error_oom(err);
                unquote(line + key_size + 1, size, value);
        }
        if (!value || !value[0] || !is_printable(value) || !tb_utf8_is_valid(value))
                return 0;
        *ret = TAKE_PTR(value);
        return 1;
}

char *distro_identifier(const char *s)
{
        char *out;
        size_t n = strlen(s);

        if (n == 0 || n > TEXT_MAX)
                return NULL;
        out = strdup(s);
        for (size_t i = 0; out && i < n; i++) {
                if (out[i] >= 'A' && out[i] <= 'Z')
                        out[i] = (char) (out[i] - 'A' + 'a');
                if (!strchr("abcdefghijklmnopqrstuvwxyz._-" DIGITS, out[i])) {
                        free(out);
                        return NULL;
                }
        }
        return out;
}

static int take_version(const char *p, char **ret, TbError **err)
{
        size_t n = strspn(p, DIGITS ".");

        while (n > 0 && p[n - 1] == '.')
                n--;
        if (n == 0 || n > TEXT_MAX || p[0] == '.')
                return 0;
        *ret = strndup(p, n);
        return *ret ? 1 : tb_error_oom(err);
}

int distro_redhat(const char *data, char **ret_id, char **ret_version, TbError **err)
{
        static const struct {
                const char *begin, *id;
        } families[] = {
                {"CentOS", "centos"},
                {"Fedora", "fedora"},
                {"Red Hat", "rhel"},
                {"Rocky", "rocky"},
                {"AlmaLinux", "almalinux"},
                {"Oracle", "ol"},
                {"Amazon", "amzn"},
                {"Scientific", "scientific"},
        };
        _cleanup_free_ char *id = NULL, *version = NULL, *line = NULL;
        const char *release;
        int r;

        data += strspn(data, BLANK);
        line = strndup(data, strcspn(data, "\r\n"));
        if (!line)
                return tb_error_oom(err);
        for (size_t i = 0; i < ELEMENTSOF(families) && !id; i++)
                if (tb_startswith(line, families[i].begin) && !(id = strdup(families[i].id)))
                        return tb_error_oom(err);
        if (!id)
                return 0;
        release = strstr(line, "release ");
        if (release) {
                r = take_version(release + strlen("release "), &version, err);
                if (r < 0)
                        return r;
        }
        *ret_id = TAKE_PTR(id);
        *ret_version = TAKE_PTR(version);
        return 1;
}

int distro_version_line(const char *data, char **ret, TbError **err)
{
        data += strspn(data, BLANK);
        return take_version(data, ret, err);
}

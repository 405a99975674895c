/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-hosts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "augment/client/client-file.h"

static bool host_name_is_valid(const char *s)
{
        size_t n = strlen(s);

        return n > 0 && n <= 253 && s[0] != '-' && s[0] != '.' &&
                s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")] == '\0';
}

static bool address_is_valid(const char *s)
{
        unsigned char bytes[sizeof(struct in6_addr)];

        return inet_pton(AF_INET, s, bytes) == 1 || inet_pton(AF_INET6, s, bytes) == 1;
}

static void add_host(Text *t, const json_t *host, Problems *p)
{
        const char *name = member_string(host, "name", ""), *address = member_string(host, "address", "");
        const json_t *alias;
        size_t i;

        if (!host_name_is_valid(name) || !address_is_valid(address)) {
                problem(p, "/etc/hosts: \"%.60s\" at \"%.60s\" is no name with an address", name, address);
                return;
        }
        text_addf(t, "%s\t%s", address, name);
        json_array_foreach (json_object_get(host, "aliases"), i, alias)
                if (json_is_string(alias) && host_name_is_valid(json_string_value(alias)))
                        text_addf(t, " %s", json_string_value(alias));
        text_adds(t, "\n");
}

static bool line_is(const char *line, size_t size, const char *mark)
{
        return size == strlen(mark) && strncmp(line, mark, size) == 0;
}

/* Without our block. One whose end was lost goes up to the end of the file only if nothing but entries follow: as it is never known,
 * then only its first line goes. */
static void add_without_block(Text *t, const char *text)
{
        bool inside = false;

        while (*text) {
                size_t size = strcspn(text, "\n");
                size_t whole = size + (text[size] == '\n');

                if (!inside && line_is(text, size, HOSTS_BEGIN))
                        inside = strstr(text, "\n" HOSTS_END) != NULL;
                else if (inside && line_is(text, size, HOSTS_END))
                        inside = false;
                else if (!inside)
                        text_add(t, text, whole);
                text += whole;
        }
        if (t->size > 0 && t->data[t->size - 1] != '\n')
                text_adds(t, "\n");
}

char *hosts_edit(const char *text, const json_t *hosts, Problems *p)
{
        _cleanup_text_ Text entries = {};
        const json_t *host;
        Text t = {};
        size_t i;

        json_array_foreach ((json_t *) hosts, i, host)
                add_host(&entries, host, p);
        add_without_block(&t, text);
        if (entries.size > 0) {
                text_adds(&t, HOSTS_BEGIN "\n");
                text_add(&t, entries.data, entries.size);
                text_adds(&t, HOSTS_END "\n");
        }
        t.failed |= entries.failed;
        return text_take(&t);
}

void hosts_apply(const char *path, const json_t *hosts, Problems *p)
{
        _cleanup_free_ char *before = NULL, *after = NULL;
        int r;

        r = image_file_read(path, &before);
        if (r < 0) {
                problem(p, "cannot read %s: %s", path,
                        r == -EINVAL ? "it is no regular file" : strerror(-r));
                return;
        }
        if (!before && json_array_size(hosts) == 0)
                return;
        if (before && json_array_size(hosts) == 0 && !strstr(before, HOSTS_BEGIN))
                return;
        after = hosts_edit(before ? before : "", hosts, p);
        if (!after) {
                problem(p, "%s: out of memory", path);
                return;
        }
        if (before && strcmp(before, after) == 0)
                return;
        r = image_file_rewrite(path, after, 0644);
        if (r < 0)
                problem(p, "cannot write %s: %s", path, strerror(-r));
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-system.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/client-file.h"
#include "augment/client/util.h"

void hostname_apply(const char *name, Problems *p)
{
        char now[HOST_NAME_MAX + 2] = "";

        if (!name[0] || strlen(name) > HOST_NAME_MAX || !line_is_clean(name, " /", HOST_NAME_MAX))
                return;
        (void) gethostname(now, sizeof(now) - 1);
        if (strcmp(now, name) == 0)
                return;
        if (sethostname(name, strlen(name)) < 0)
                problem(p,
                        "the host name is %s and can't be made %s: %s; create the node with that host name",
                        now, name, strerror(errno));
}

/* ---- Mounts --------------------------------------------------------------------------------------------------------- */

/* proc(5), mountinfo: blanks and backslashes are octal escapes. In place. */
static void unescape(char *s)
{
        char *out = s;

        while (*s) {
                if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
                        s[3] >= '0' && s[3] <= '7') {
                        *out++ = (char) ((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
                        s += 4;
                } else {
                        *out++ = *s++;
                }
        }
        *out = '\0';
}

static bool has_option(const char *options, const char *wanted)
{
        for (size_t n; *options; options += n + (options[n] == ',')) {
                n = strcspn(options, ",");
                if (n == strlen(wanted) && strncmp(options, wanted, n) == 0)
                        return true;
        }
        return false;
}

/* 1: it is mounted, 0: it is not. *ret_read_only is that of the last, which is on top. */
static int find_mount(const char *text, const char *target, bool *ret_read_only)
{
        int found = 0;

        while (*text) {
                size_t size = strcspn(text, "\n");
                _cleanup_free_ char *line = strndup(text, size);
                char *field[6] = {}, *next = line;

                text += size + (text[size] == '\n');
                for (size_t i = 0; next && i < ELEMENTSOF(field); i++)
                        field[i] = strsep(&next, " ");
                if (!field[5])
                        continue;
                unescape(field[4]);
                if (strcmp(field[4], target) != 0)
                        continue;
                found = 1;
                *ret_read_only = has_option(field[5], "ro");
        }
        return found;
}

void mounts_check(const char *text, const json_t *mounts, Problems *p)
{
        const json_t *mount;
        size_t i;

        json_array_foreach ((json_t *) mounts, i, mount) {
                const char *target = member_string(mount, "target", "");
                bool read_only = false;

                if (find_mount(text, target, &read_only) == 0)
                        problem(p, "%.200s is not mounted; tbnode stop and start mount it again", target);
                else if (read_only && !json_is_true(json_object_get(mount, "read_only")))
                        problem(p, "%.200s is mounted read-only", target);
        }
}

/* ---- Places --------------------------------------------------------------------------------------------------------- */

void tmcc_link(const char *root)
{
        char directory[PATH_MAX], path[PATH_MAX + 8];
        struct stat st;

        snprintf(directory, sizeof(directory), "%s/usr/local/etc/emulab", root);
        snprintf(path, sizeof(path), "%s/tmcc", directory);
        if (lstat(path, &st) == 0 || make_dirs(directory) < 0)
                return;
        (void) !symlink(TBNODE_BIN_DIR "/tmcc", path);
}

const char *interface_by_mac(const char *mac, char *ret)
{
        DIR *dir = opendir("/sys/class/net");
        const char *found = NULL;
        struct dirent *de;

        if (!dir)
                return NULL;
        while (!found && (de = readdir(dir))) {
                _cleanup_free_ char *address = NULL;
                char path[PATH_MAX];

                if (de->d_name[0] == '.' || strlen(de->d_name) >= IF_NAMESIZE)
                        continue;
                snprintf(path, sizeof(path), "/sys/class/net/%s/address", de->d_name);
                if (read_text_file(path, 256, &address, NULL) < 0)
                        continue;
                address[strcspn(address, "\n")] = '\0';
                if (strcasecmp(address, mac) == 0) {
                        snprintf(ret, IF_NAMESIZE, "%.15s", de->d_name);
                        found = ret;
                }
        }
        closedir(dir);
        return found;
}

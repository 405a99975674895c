/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Account lookup for the sshd in the payload (linked in with -Wl,--wrap=getpwnam)
 *
 * Images need not have accounts: scratch images have no /etc/passwd, many name a shell that isn't there. A node must
 * let its owner in all the same. So
 *
 *   - root always exists, whatever /etc/passwd says or if there is none;
 *   - an account whose shell is absent gets the payload's shell;
 *   - so does root where its shell refuses logins: images without a shell ("distroless") have nologin there;
 *   - a home of root's that is absent is /.
 *
 * Another account whose shell refuses logins (nologin, false) keeps it: that is a decision of whoever made the image.
 */

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tbnode-passwd.h"

#define TBNODE_SHELL "/tbnode/bin/sh"

struct passwd *__real_getpwnam(const char *name);
struct passwd *__wrap_getpwnam(const char *name);

static int refuses_login(const char *shell)
{
        const char *base = strrchr(shell, '/');

        base = base ? base + 1 : shell;
        return strcmp(base, "nologin") == 0 || strcmp(base, "false") == 0;
}

int tbnode_shell_is_good(const char *shell)
{
        return !refuses_login(shell) && access(shell, X_OK) == 0;
}

struct passwd *__wrap_getpwnam(const char *name)
{
        static char shell[] = TBNODE_SHELL;
        static char root_name[] = "root";
        static char no_password[] = "*";
        static char no_gecos[] = "";
        static char root_home[] = "/root";
        static char top[] = "/";
        static struct passwd root = {
                .pw_name = root_name,
                .pw_passwd = no_password,
                .pw_gecos = no_gecos,
        };
        struct passwd *pw = __real_getpwnam(name);
        const char *wanted;

        if (!pw) {
                if (strcmp(name, "root") != 0)
                        return NULL;
                root.pw_dir = access(root_home, X_OK) == 0 ? root_home : top;
                root.pw_shell = shell;
                return &root;
        }

        /* An empty shell means /bin/sh: passwd(5). */
        wanted = pw->pw_shell[0] ? pw->pw_shell : "/bin/sh";
        if (!tbnode_shell_is_good(wanted) && (pw->pw_uid == 0 || !refuses_login(wanted)))
                pw->pw_shell = shell;
        if (pw->pw_uid == 0 && access(pw->pw_dir, X_OK) < 0)
                pw->pw_dir = top;
        return pw;
}

void tbnode_add_environment(const char *directory)
{
        static const char *const kept[] = {"HOME=", "USER=", "LOGNAME=", "SHELL="};
        char path[512], line[70000];
        FILE *f;

        if (snprintf(path, sizeof(path), "%s/../environment", directory) >= (int) sizeof(path))
                return;
        f = fopen(path, "r");
        if (!f)
                return;
        while (fgets(line, sizeof(line), f)) {
                char *value = strchr(line, '='), *end = strchr(line, '\n');
                int keep = !value || value == line || !end;

                for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
                        keep |= strncmp(line, kept[i], strlen(kept[i])) == 0;
                if (keep)
                        continue;
                *end = '\0';
                *value++ = '\0';
                (void) setenv(line, value, 1);
        }
        fclose(f);
}

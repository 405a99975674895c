/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "augment/client/exec-main.h"
#include "augment/client/signals.h"
#include "augment/client/user.h"
#include "augment/client/util.h"

int session_tty(void)
{
        for (int fd = 0; fd <= 2; fd++)
                if (isatty(fd) && tcgetsid(fd) == getsid(0))
                        return fd;
        return -1;
}

static void enter_session(int tty)
{
        if (tty < 0) {
                /* runsv leads no session here, so a program without a terminal can lead its own, as it would in the
                 * original. */
                (void) setsid();
                return;
        }
        /* Signals are still blocked here: a background group that sets the foreground one gets TTOU. */
        (void) setpgid(0, 0);
        (void) tcsetpgrp(tty, getpid());
}

/* What Go's os/exec takes for executable: any x bit, not a directory. */
static int check_executable(const char *path)
{
        struct stat st;

        if (stat(path, &st) < 0)
                return -errno;
        return !S_ISDIR(st.st_mode) && (st.st_mode & 0111) ? 0 : -EACCES;
}

/* strerror() in Go's words, which the messages of the original have; musl's own differ in some. */
static const char *reason(int code, char *buffer, size_t size)
{
        static const struct {
                int code;
                const char *text;
        } words[] = {
                {ENAMETOOLONG, "file name too long"},
                {ELOOP, "too many levels of symbolic links"},
                {EIO, "input/output error"},
                {ENOMEM, "cannot allocate memory"},
        };

        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                if (words[i].code == code)
                        return words[i].text;
        snprintf(buffer, size, "%s", strerror(code));
        buffer[0] = (char) tolower((unsigned char) buffer[0]);
        return buffer;
}

/* As Go's exec.LookPath(), which runc uses: a name with a slash is a path, others are looked up in PATH,
 * whose empty parts mean the working directory. Returns 0 and the path, or an exit status after saying why.
 */
static int find_program(const char *name, const char *path, char *ret, size_t ret_size)
{
        char why[128];
        int r;

        if (strchr(name, '/')) {
                r = check_executable(name);
                if (r == -EACCES) {
                        say("exec: \"%s\": permission denied", name);
                        return EXIT_NOT_EXECUTABLE;
                }
                if (r < 0) {
                        say("exec: \"%s\": stat %s: %s", name, name, reason(-r, why, sizeof(why)));
                        return r == -ENOENT ? EXIT_NOT_FOUND : EXIT_INIT_FAILED;
                }
                if (snprintf(ret, ret_size, "%s", name) < (int) ret_size)
                        return 0;
        } else if (*name) {
                for (const char *p = path && *path ? path : NULL; p;) {
                        size_t n = strcspn(p, ":");
                        int length;

                        length = snprintf(ret, ret_size, "%.*s%s%s", (int) n, p, n > 0 ? "/" : "./", name);
                        if (length < (int) ret_size && check_executable(ret) >= 0) {
                                if (*ret == '/')
                                        return 0;
                                say("exec: \"%s\": cannot run executable found relative to current "
                                    "directory",
                                        name);
                                return EXIT_INIT_FAILED;
                        }
                        p = p[n] ? p + n + 1 : NULL;
                }
        }
        say("exec: \"%s\": executable file not found in $PATH", name);
        return EXIT_NOT_FOUND;
}

/* The environment with HOME at its old place, or at the end. */
static char **env_with_home(char **env, const char *home)
{
        size_t n = 0, at = SIZE_MAX;
        char **copy, *entry;

        for (; env[n]; n++)
                if (at == SIZE_MAX && strncmp(env[n], "HOME=", 5) == 0)
                        at = n;
        copy = calloc(n + 2, sizeof(char *));
        if (!copy || asprintf(&entry, "HOME=%s", home) < 0) {
                free(copy);
                return NULL;
        }
        memcpy(copy, env, n * sizeof(char *));
        copy[at == SIZE_MAX ? n : at] = entry;
        return copy;
}

int program_exec(char **argv, char **env, const char *user, bool keep_home)
{
        char path[PATH_MAX], why[128], *home = NULL;
        const char *search;
        int r;

        if (!argv[0]) {
                say("No command specified");
                return EXIT_INIT_FAILED;
        }
        if (user) {
                r = user_become(user, keep_home, env_get(env, "HOME"), &home);
                if (r != 0)
                        return r;
                if (home) {
                        env = env_with_home(env, home);
                        if (!env) {
                                say("out of memory");
                                return EXIT_INIT_FAILED;
                        }
                }
        }

        search = env_get(env, "PATH");
        r = find_program(argv[0], search, path, sizeof(path));
        if (r != 0)
                return r;
        execve(path, argv, env);
        r = errno;
        say("exec %s: %s", path, reason(r, why, sizeof(why)));
        /* runc tries access(2) before it says that the container runs: the engine's status for that. */
        return r == EACCES ? EXIT_NOT_EXECUTABLE : EXIT_EXEC_FAILED;
}

int main_exec(const MainSpec *s, int tty, uint64_t mask)
{
        enter_session(tty);
        if (signal_mask_set(mask, NULL) < 0) {
                say("cannot restore the signal mask: %s", strerror(errno));
                return EXIT_INIT_FAILED;
        }
        (void) umask(s->umask);
        if (s->cwd && chdir(s->cwd) < 0) {
                say("cannot enter %s: %s", s->cwd, strerror(errno));
                return EXIT_INIT_FAILED;
        }
        return program_exec(s->argv, s->env, s->user, s->keep_home);
}

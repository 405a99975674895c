/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * login and logout
 *
 * A password comes from the terminal, without echo, or from stdin: arguments are in `ps` and in the shell's history. The
 * registry is asked before anything is kept. While the terminal is asked, signals are watched as well: who gives up with
 * ^C gets the echo back.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/tool.h"

#define DEFAULT_HOST "docker.io"
#define SECRET_MAX (64U * 1024) /* tokens of cloud registries have some kB */

static void secret_freep(char **s)
{
        if (*s) {
                explicit_bzero(*s, strlen(*s));
                free(*s);
        }
}

/* Reads up to a line feed or the end; NUL bytes and control characters are no part of a password. */
static int read_secret(int fd, bool one_line, char **ret, TbError **err)
{
        _cleanup_(secret_freep) char *s = calloc(1, SECRET_MAX + 2);
        size_t n = 0;

        if (!s)
                return tb_error_oom(err);
        for (;;) {
                ssize_t k = read(fd, s + n, SECRET_MAX + 1 - n);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot read the password");
                n += (size_t) k;
                if (k == 0 || (one_line && memchr(s, '\n', n)))
                        break;
                if (n > SECRET_MAX)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EMSGSIZE,
                                "the password has more than %u bytes", SECRET_MAX);
        }
        if (n > 0 && s[n - 1] == '\n')
                s[--n] = 0;
        if (n > 0 && s[n - 1] == '\r')
                s[--n] = 0;
        if (n == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "there is nothing to read");
        for (size_t i = 0; i < n; i++)
                if ((unsigned char) s[i] < ' ' || s[i] == 127)
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                                "it has a control character or more than one line");
        *ret = TAKE_PTR(s);
        return 0;
}

static int wait_for_line(int tty, TbError **err)
{
        _cleanup_close_ int signals = -EBADF;
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGHUP);
        signals = signalfd(-1, &set, SFD_CLOEXEC); /* tool.c has blocked them */
        if (signals < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot watch signals");
        for (;;) {
                struct pollfd p[] = {{.fd = tty, .events = POLLIN}, {.fd = signals, .events = POLLIN}};

                if (poll(p, ELEMENTSOF(p), -1) < 0 && errno != EINTR)
                        return tb_error_set_errno(
                                err, TB_ERROR_SYSTEM, -errno, "cannot wait for the terminal");
                if (p[1].revents)
                        return tb_error_set(err, TB_ERROR_CANCELLED, -ECANCELED, "cancelled");
                if (p[0].revents)
                        return 0;
        }
}

static int ask(const char *prompt, bool echo, char **ret, TbError **err)
{
        _cleanup_close_ int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
        struct termios before, quiet;
        int r;

        if (tty < 0 || tcgetattr(tty, &before) < 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOTTY,
                        "login: there is no terminal to ask on; give --username and --password-stdin");
        quiet = before;
        if (!echo)
                quiet.c_lflag &= ~(tcflag_t) ECHO;
        quiet.c_lflag |= ICANON | ISIG;
        /* First the terminal, then the question: what is typed before the echo is off is thrown away. */
        if (tcsetattr(tty, TCSAFLUSH, &quiet) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot set up the terminal");
        r = tb_write_all(tty, prompt, strlen(prompt), err);
        if (r >= 0)
                r = wait_for_line(tty, err);
        if (r >= 0)
                r = read_secret(tty, true, ret, err);
        (void) tcsetattr(tty, TCSADRAIN, &before);
        if ((!echo || r < 0) && tb_write_all(tty, "\n", 1, NULL) < 0)
                return r; /* the line break matters less than what happened */
        return r;
}

/* The name that config.json and the client agree on. */
static int take_host(Tool *t, const char *arg, char **ret, TbError **err)
{
        const char *host = arg ? arg : DEFAULT_HOST, *rest;
        char *copy;

        /* What docker(1) takes as well. */
        if ((rest = tb_startswith(host, "https://")) || (rest = tb_startswith(host, "http://")))
                host = rest;
        copy = strndup(host, strcspn(host, "/"));
        if (!copy)
                return tb_error_oom(err);
        rest = host + strlen(copy);
        for (char *c = copy; *c; c++)
                if (*c >= 'A' && *c <= 'Z')
                        *c = (char) (*c - 'A' + 'a');
        if (tb_streq(copy, "index.docker.io") || tb_streq(copy, "registry-1.docker.io")) {
                free(copy);
                copy = strdup(DEFAULT_HOST);
                if (!copy)
                        return tb_error_oom(err);
        } else if ((*rest && !tb_streq(rest, "/") && !tb_streq(rest, "/v1/") && !tb_streq(rest, "/v2/")) ||
                !tool_is_host(copy)) {
                _cleanup_free_ char *shown = tb_escape(arg, 80);

                free(copy);
                return tool_usage(t, err, "\"%s\" is not the name of a registry; write HOST or HOST:PORT",
                        shown ? shown : "?");
        }
        *ret = copy;
        return 0;
}

static int get_credentials(Tool *t, const char *host, char **user, char **password, TbError **err)
{
        _cleanup_free_ char *prompt = NULL;
        int r;

        if (t->user) {
                *user = strdup(t->user);
                if (!*user)
                        return tb_error_oom(err);
        } else if (t->password_stdin)
                return tool_usage(t, err, "login: --password-stdin needs --username USER");
        else {
                prompt = tb_asprintf("Username for %s: ", host);
                r = prompt ? ask(prompt, true, user, err) : tb_error_oom(err);
                if (r < 0)
                        goto out;
        }
        if (t->password_stdin)
                r = read_secret(STDIN_FILENO, false, password, err);
        else {
                free(prompt);
                prompt = tb_asprintf("Password for %s on %s: ", *user, host);
                r = prompt ? ask(prompt, false, password, err) : tb_error_oom(err);
        }
out:
        if (r == -ENOTTY)
                t->usage = true;
        else if (r < 0 && r != -ECANCELED)
                tb_error_prefix(err, "login: password");
        return r;
}

int tool_login(Tool *t, char **args, TbError **err)
{
        _cleanup_(secret_freep) char *password = NULL;
        _cleanup_free_ char *host = NULL, *user = NULL, *where = NULL;
        const char *scheme;
        int r;

        r = take_host(t, args[0], &host, err);
        if (r < 0)
                return r;
        r = get_credentials(t, host, &user, &password, err);
        if (r < 0)
                return r;
        r = registry_client_set_credentials(t->client, host, user, password, err);
        if (r < 0) {
                t->usage = r == -EINVAL; /* no user name */
                return r;
        }
        r = registry_ping(t->client, host, err);
        if (r < 0) {
                tb_error_prefix(err, "login: nothing was kept");
                return r;
        }
        scheme = registry_client_auth_scheme(t->client, host);
        r = registry_store_credentials(t->client, t->docker_config, host, user, password, &where, err);
        if (r < 0)
                return r;
        if (t->json)
                return tool_print_json_new(json_pack("{s:s, s:s, s:s, s:s}", "host", host, "user", user,
                                                   "auth", scheme, "stored", where),
                        err);
        printf("%s: logged in as %s; kept in %s\n", host, user, where);
        if (tb_streq(scheme, "none"))
                printf("note: %s did not ask for credentials, so it has not checked them\n", host);
        return 0;
}

int tool_logout(Tool *t, char **args, TbError **err)
{
        _cleanup_free_ char *host = NULL, *where = NULL;
        int r;

        r = take_host(t, args[0], &host, err);
        if (r < 0)
                return r;
        r = registry_erase_credentials(t->client, t->docker_config, host, &where, err);
        if (r < 0)
                return r;
        if (t->json)
                return tool_print_json_new(
                        json_pack("{s:s, s:b, s:s}", "host", host, "removed", r > 0, "store", where), err);
        if (r > 0)
                printf("%s: logged out; removed from %s\n", host, where);
        else
                printf("%s: no credentials in %s\n", host, where);
        return 0;
}

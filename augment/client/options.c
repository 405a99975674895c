/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "augment/client/options.h"
#include "augment/client/signals.h"

/* The value of "--NAME VALUE" or "--NAME=VALUE" at **p; moves *p past it. 1: it is this option, 0: it isn't,
 * -EINVAL: the value is missing. */
static int option_value(char ***p, const char *name, const char **ret)
{
        size_t n = strlen(name);
        char *arg = **p;

        if (strncmp(arg, name, n) != 0)
                return 0;
        if (arg[n] == '=') {
                *ret = arg + n + 1;
                *p += 1;
                return 1;
        }
        if (arg[n] != '\0')
                return 0;
        if (!(*p)[1])
                return -EINVAL;
        *ret = (*p)[1];
        *p += 2;
        return 1;
}

static int parse_from(char **p, bool for_init, InitOptions *o, char *why, size_t why_size)
{
        const char *stop_signal = NULL;

        while (*p && strcmp(*p, "--") != 0) {
                const char *option = *p;
                int r = 0;

                if (strcmp(*p, "--keep-home") == 0) {
                        o->keep_home = true;
                        p++;
                        continue;
                }
                if (for_init) {
                        r = option_value(&p, "--user", &o->user);
                        if (r == 0)
                                r = option_value(&p, "--stop-signal", &stop_signal);
                        if (r == 0)
                                r = option_value(&p, "--level", &o->level);
                }
                if (r == 0) {
                        snprintf(why, why_size, "unknown option %.100s", option);
                        return -EINVAL;
                }
                if (r < 0) {
                        snprintf(why, why_size, "option %.100s needs a value", option);
                        return r;
                }
        }
        if (!*p) {
                snprintf(why, why_size, "no \"--\" before the program");
                return -EINVAL;
        }
        o->command = p + 1;
        o->stop_signal = stop_signal_from_string(stop_signal);
        return 0;
}

int init_options_parse(char **argv, InitOptions *ret, char *why, size_t why_size)
{
        InitOptions o = {.level = "basic"};
        int r;

        /* An argv without even a name is legal for execve(2). */
        r = parse_from(argv[0] ? argv + 1 : argv, true, &o, why, why_size);
        if (r < 0)
                return r;
        if (o.user && !*o.user)
                o.user = NULL;
        *ret = o;
        return 0;
}

int as_user_options_parse(char **argv, InitOptions *ret, char *why, size_t why_size)
{
        InitOptions o = {};
        int r;

        if (!argv[2] || strcmp(argv[2], "--") == 0) {
                snprintf(why, why_size, "as-user: no user named");
                return -EINVAL;
        }
        o.user = argv[2];
        r = parse_from(argv + 3, false, &o, why, why_size);
        if (r < 0)
                return r;
        if (!o.command[0]) {
                snprintf(why, why_size, "as-user: no program named");
                return -EINVAL;
        }
        *ret = o;
        return 0;
}

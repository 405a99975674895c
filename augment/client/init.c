/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /tbnode/init: one program, several roles (README.md)
 *
 *      /tbnode/init ... -- PROGRAM      the container's first process
 *      /tbnode/init as-user SPEC -- ... a node's health check as the image's user
 *      /tbnode/init ssh                 one ssh connection that the agent hands in from outside
 *      ./run, ./finish, ./control/t     a service of runit, see services.h
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/exec-main.h"
#include "augment/client/node-conf.h"
#include "augment/client/node.h"
#include "augment/client/options.h"
#include "augment/client/services.h"
#include "augment/client/signals.h"
#include "augment/client/ssh-outside.h"
#include "augment/client/util.h"

extern char **environ;

static int run_as_user(char **argv)
{
        InitOptions options;
        char why[256];

        if (as_user_options_parse(argv, &options, why, sizeof(why)) < 0) {
                say("%s: %s", TBNODE_INIT_PATH, why);
                return EXIT_INIT_FAILED;
        }
        return program_exec(options.command, environ, options.user, options.keep_home);
}

/* What main is: the container's own command, as whom the agent says, else the image. Its umask is the container's, ours
 * and the services' the usual one: what they make is for others to read, too. */
static MainSpec make_spec(const InitOptions *options, const NodeConf *conf, char *cwd, size_t cwd_size)
{
        MainSpec spec = {
                .argv = options->command,
                .env = environ,
                .user = *conf->user ? conf->user : options->user,
                .keep_home = conf->keep_home == KEEP_HOME_UNSET ? options->keep_home
                                                                : conf->keep_home == KEEP_HOME_YES,
                .umask = umask(022),
        };

        spec.cwd = getcwd(cwd, cwd_size);
        if (!spec.cwd || *spec.cwd != '/') /* "(unreachable)..." */
                spec.cwd = "/";
        return spec;
}

static int run_init(char **argv)
{
        char why[256], cwd[PATH_MAX];
        InitOptions options;
        NodeConf conf;
        MainSpec spec;
        uint64_t mask;

        if (init_options_parse(argv, &options, why, sizeof(why)) < 0) {
                say("%s: %s", TBNODE_INIT_PATH, why);
                return EXIT_INIT_FAILED;
        }
        /* A plain container: nothing was touched so far, and nothing of us stays. The engine has seen to the user. */
        if (!options.command[0] || node_conf_load(TBNODE_RUN_DIR "/node.conf", &conf) == 0)
                return program_exec(options.command, environ, NULL, false);

        /* From here on nothing is lost: what comes waits until somebody is there to get it. */
        if (signal_mask_set(UINT64_MAX, &mask) < 0) {
                say("cannot block signals: %s", strerror(errno));
                return EXIT_INIT_FAILED;
        }
        if (getpid() != 1)
                (void) prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        spec = make_spec(&options, &conf, cwd, sizeof(cwd));
        return node_run(&spec, &conf, options.stop_signal, mask);
}

int main(int argc, char **argv)
{
        const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL;

        name = name ? name + 1 : argc > 0 ? argv[0] : "";
        if (strcmp(name, "run") == 0 || strcmp(name, "finish") == 0 || strcmp(name, "t") == 0)
                return service_main(name, argv);
        if (argc > 1 && strcmp(argv[1], "as-user") == 0)
                return run_as_user(argv);
        if (argc == 2 && strcmp(argv[1], "ssh") == 0)
                return ssh_outside_run();
        if (argc > 1 && strcmp(argv[1], "--version") == 0) {
                printf("tbnode-init %s\n", TBNODE_VERSION);
                return 0;
        }
        return run_init(argv);
}

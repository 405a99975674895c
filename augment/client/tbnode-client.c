/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /tbnode/bin/tbnode-client: what a node has from level core on (README.md)
 *
 *      tbnode-client run        the service, started by init
 *      tbnode-client COMMAND    questions of the node's users
 *      tmcc ...                 Emulab's client, by name
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "augment/client/client-commands.h"
#include "augment/client/client-link.h"
#include "augment/client/client-service.h"
#include "augment/client/client-tmcc.h"
#include "augment/client/spec.h"
#include "augment/client/util.h"

extern char **environ;

static int help(void)
{
        puts("Usage: tbnode-client [--json] [--socket PATH] COMMAND\n"
             "\n"
             "Asks the testbed about this node and its experiment.\n");
        client_commands_help();
        puts("\n"
             "  run [--rundir DIR] [--spec-fd N]             the node's service; init runs it\n"
             "\n"
             "  --json         print the answer as JSON\n"
             "  --socket PATH  the agent's socket (" AGENT_SOCKET ")\n"
             "  --version      print the version\n"
             "\n"
             "Exit status: 0 done, 1 failed, 2 wrong usage, 3 the agent can't be reached.");
        return fflush(stdout) == 0 ? CLIENT_DONE : CLIENT_FAILED;
}

static int wrong(const char *what)
{
        say("tbnode-client: %s; tbnode-client --help says how", what);
        return CLIENT_USAGE;
}

static int run_service(const char *socket, char **args)
{
        ServiceOptions options = {.socket = socket, .rundir = "/run/tbnode", .image_env = environ};
        static MainSpec spec;
        uint32_t fd;

        for (; *args; args += 2) {
                if (!args[1])
                        return wrong("run: an option lacks its value");
                if (strcmp(*args, "--rundir") == 0 && strlen(args[1]) <= RUNDIR_MAX) {
                        options.rundir = args[1];
                } else if (strcmp(*args, "--spec-fd") == 0 && parse_u32(args[1], 1U << 20, &fd) >= 0) {
                        int r = main_spec_from_fd((int) fd, &spec);

                        if (r < 0 || set_cloexec((int) fd) < 0) {
                                say("tbnode-client: cannot get the image's environment from init: %s",
                                        strerror(-r));
                                return CLIENT_FAILED;
                        }
                        options.image_env = spec.env;
                } else {
                        return wrong("run takes --rundir DIR and --spec-fd N");
                }
        }
        return service_run(&options);
}

int main(int argc, char **argv)
{
        const char *name = argc > 0 ? strrchr(argv[0], '/') : NULL, *socket = AGENT_SOCKET;
        bool json = false;
        int i = 1;

        name = name ? name + 1 : argc > 0 ? argv[0] : "";
        if (strcmp(name, "tmcc") == 0)
                return tmcc_main(argc, argv);
        for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
                if (strcmp(argv[i], "--help") == 0)
                        return help();
                if (strcmp(argv[i], "--version") == 0) {
                        puts("tbnode-client " TBNODE_VERSION);
                        return CLIENT_DONE;
                }
                if (strcmp(argv[i], "--json") == 0)
                        json = true;
                else if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc)
                        socket = argv[++i];
                else
                        return wrong("there is no such option");
        }
        if (i >= argc)
                return wrong("which command?");
        /* Also behind the command, where people write it. */
        if (argc > i + 1 && strcmp(argv[argc - 1], "--json") == 0) {
                json = true;
                argv[argc - 1] = NULL;
        }
        if (argc > i + 1 && argv[i + 1] && strcmp(argv[i + 1], "--help") == 0)
                return help();
        if (strcmp(argv[i], "run") == 0)
                return run_service(socket, argv + i + 1);
        return client_command(socket, json, argv + i);
}

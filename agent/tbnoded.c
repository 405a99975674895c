/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/config.h"
#include "agent/control-interface.h"
#include "agent/manager.h"
#include "agent/message.h"
#include "common/log.h"
#include "common/strv.h"
#include "registry-client/registry.h"

/* Exit status as for tbnode: 0 done, 1 failed, 2 wrong usage. */

static int help(void)
{
        const char *key, *value, *text;

        printf("tbnoded [--config FILE] [--check-config | --release-control-interface]\n\n"
               "The node agent of the testbed: follows the Docker engine of this host, and puts traffic "
               "shaping\n"
               "and firewall rules on the host side of the containers that have tbnode.* labels.\n\n"
               "  --config FILE    read FILE instead of %s\n"
               "  --check-config   read the configuration, say what is wrong with it, and exit\n"
               "  --release-control-interface\n"
               "                   give the control network's interface its addresses back (stop the agent "
               "first)\n"
               "  --version        print the version and exit\n"
               "  --help           print this and exit\n\n"
               "Keys of the configuration (KEY=VALUE, one per line):\n",
                AGENT_CONFIG_FILE);
        for (size_t i = 0; (key = config_key_at(i, &value, &text)); i++)
                printf("  %s=%s\n        %s\n", key, value, text);
        printf("\nEnvironment: TBNODE_LOG_LEVEL (debug, info, ...), TBNODE_PAYLOAD_DIR, TBNODE_WORKER.\n");
        return EXIT_SUCCESS;
}

static int release_interface(const Config *c)
{
        _cleanup_error_ TbError *err = NULL;
        int r = control_interface_release(c, &err);

        if (r < 0)
                fprintf(stderr, "tbnoded: %s\n", tb_error_message(err));
        else
                printf("%s\n",
                        r > 0 ? "the interface has its addresses and routes back"
                              : "there is nothing to be given back");
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char *argv[])
{
        enum {
                OPT_CONFIG = 0x100,
                OPT_CHECK,
                OPT_RELEASE,
                OPT_VERSION,
                OPT_HELP
        };
        static const struct option options[] = {
                {"config", required_argument, NULL, OPT_CONFIG},
                {"check-config", no_argument, NULL, OPT_CHECK},
                {"release-control-interface", no_argument, NULL, OPT_RELEASE},
                {"version", no_argument, NULL, OPT_VERSION},
                {"help", no_argument, NULL, OPT_HELP},
                {},
        };
        _cleanup_config_ Config config = {};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_(manager_freep) Manager *m = NULL;
        const char *path = NULL;
        bool check = false, release = false;
        int c;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case OPT_CONFIG:
                        path = optarg;
                        break;
                case OPT_CHECK:
                        check = true;
                        break;
                case OPT_RELEASE:
                        release = true;
                        break;
                case OPT_VERSION:
                        printf("tbnoded %s\n", TBNODE_VERSION);
                        return EXIT_SUCCESS;
                case 'h':
                case OPT_HELP:
                        return help();
                default:
                        return 2; /* getopt has said it */
                }
        if (optind < argc) {
                fprintf(stderr, "tbnoded: unexpected argument '%s'; see tbnoded --help\n", argv[optind]);
                return 2;
        }

        tb_log_open("tbnoded");
        if (config_init(&config, &err) < 0 || config_load(&config, path, &err) < 0) {
                fprintf(stderr, "tbnoded: %s\n", tb_error_message(err));
                return EXIT_FAILURE;
        }
        if (check) {
                printf("%s: good\n", path ?: AGENT_CONFIG_FILE);
                return EXIT_SUCCESS;
        }
        if (release)
                return release_interface(&config);
        /* It holds credentials of registries. */
        if (registry_protect_process(&err) < 0 || manager_new(&config, &m, &err) < 0 ||
                manager_run(m, &err) < 0) {
                log_message(LOG_ERR, MESSAGE_START_FAILED, "%s", tb_error_message(err));
                return EXIT_FAILURE;
        }
        return EXIT_SUCCESS;
}

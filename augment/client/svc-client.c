/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* client: the testbed client (client-service.c). It gets the description of main for the image's environment, which its jobs have as well. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "augment/client/services.h"
#include "augment/client/util.h"

int service_run_client(const char *rundir, int spec_fd)
{
        char fd[16], svdir[PATH_MAX];
        char *argv[] = {(char *) "tbnode-client", (char *) "run", (char *) "--rundir", (char *) rundir,
                (char *) "--spec-fd", fd, NULL};
        char *env[] = {(char *) "PATH=" TBNODE_BIN_DIR, svdir, NULL};

        if (fcntl(spec_fd, F_SETFD, 0) < 0 || chdir("/") < 0)
                return EXIT_INIT_FAILED;
        snprintf(fd, sizeof(fd), "%d", spec_fd);
        format_path(svdir, sizeof(svdir), "SVDIR=%s/service", rundir);
        execve(TBNODE_CLIENT_PATH, argv, env);
        return EXIT_NOT_FOUND;
}

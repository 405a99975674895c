/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "augment/client/services.h"
#include "augment/client/util.h"

/* The time is the syslogd's own, in UTC, whatever the image's zone is and whatever a program writes (-t): by it the agent puts the
 * log of the system and the container's output in one order. */

/* One file of this size and the one before it. */
#define LOG_FILE_KB "256"

int service_run_syslog(const char *rundir)
{
        char directory[PATH_MAX], file[PATH_MAX];
        char *argv[] = {(char *) "syslogd", (char *) "-n", (char *) "-O", file, (char *) "-s",
                (char *) LOG_FILE_KB, (char *) "-b", (char *) "1", (char *) "-t", NULL};
        char *env[] = {(char *) "PATH=" TBNODE_BIN_DIR, (char *) "TZ=UTC0", NULL};

        format_path(directory, sizeof(directory), "%s/log", rundir);
        format_path(file, sizeof(file), "%s/messages", directory);
        if (make_dir(directory, 0755) < 0)
                return EXIT_INIT_FAILED;
        execve(TBNODE_BIN_DIR "/syslogd", argv, env);
        return EXIT_NOT_FOUND;
}

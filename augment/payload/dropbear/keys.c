/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files of keys for the sshd in the payload: that of the agent, and one per user from the client
 *
 * They are opened with root's rights, so a name must not lead anywhere else: no slash, no symlink, a regular file that
 * nobody but its owner can write.
 */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tbnode-passwd.h"

FILE *tbnode_keys_open(const char *directory, const char *name)
{
        char path[4096];
        struct stat st;
        FILE *file;
        int fd, n;

        if (*name == '\0' || *name == '.' || strchr(name, '/'))
                return NULL;
        n = snprintf(path, sizeof(path), "%s/%s", directory, name);
        if (n < 0 || n >= (int) sizeof(path))
                return NULL;
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        if (fd < 0)
                return NULL;
        file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && !(st.st_mode & (S_IWGRP | S_IWOTH))
                ? fdopen(fd, "r")
                : NULL;
        if (!file)
                close(fd);
        return file;
}

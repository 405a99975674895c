/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdio.h>

/* 1 if people may log in with this shell: it is there and isn't one that refuses logins. Replaces the look into
 * /etc/shells, a file that most images lack or don't keep in step with what they have. */
int tbnode_shell_is_good(const char *shell);

/* DIRECTORY/NAME for reading, or NULL when there is no such file or one that can't be trusted. */
FILE *tbnode_keys_open(const char *directory, const char *name);

/* Sets the variables (NAME=value, one a line) of the file `environment` beside `directory`, in a session that is about to be started. What
 * ssh itself sets stays: HOME, USER, LOGNAME, SHELL. */
void tbnode_add_environment(const char *directory);

/* The variable that tells dropbear -i whose connection it is: pipes.c. */
#define TBNODE_CONNECTION "TBNODE_SSH_CONNECTION"

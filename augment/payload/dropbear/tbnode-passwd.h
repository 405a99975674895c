/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* 1 if people may log in with this shell: it is there and isn't one that refuses logins. Replaces the look into
 * /etc/shells, a file that most images lack or don't keep in step with what they have. */
int tbnode_shell_is_good(const char *shell);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

#include "augment/client/macro.h"

/*
 * /tbnode/init ssh: one ssh connection in a node that has nothing of ours but these programs, mounted (agent/outside-ssh.h)
 *
 * The agent has the engine run it as root, with the connection's bytes as standard input and output. Ahead of them it sends
 *
 *         "tbnode-ssh 1 A B C D\n" and A + B + C + D bytes
 *
 * : the host keys ed25519 and ecdsa as dropbear has them, the keys that may log in (authorized_keys), and the connection's addresses
 * as in SSH_CONNECTION. Keys are laid down in a directory of root's in /dev, which is a tmpfs in every container: no snapshot has
 * them, and they are gone when the container stops. Then this process is dropbear.
 */

#define SSH_OUTSIDE_HEADER_MAX 80U
#define SSH_OUTSIDE_PARTS 4U

/* How many bytes each part has: NULL-terminated `line` without its line break. -EINVAL: not such a line, or one of them too long. */
int ssh_outside_parse(const char *line, size_t ret[static SSH_OUTSIDE_PARTS]) _warn_unused_;

/* Returns only a status to exit with. */
int ssh_outside_run(void);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Accounts, homes, keys and sudo of a node: what client-accounts.h works out, done on files. `root` is "" for the node's
 * own root directory; the tests have others. */

#include <jansson.h>

#include "augment/client/client-text.h"

/* Edits <root>/etc/{passwd,group,shadow,gshadow} under their locks, and only when something differs. Then makes homes that are
 * missing (mode 0700, with what <root>/etc/skel has), <root>/etc/sudoers.d/tbnode where sudo is installed, and
 * <rundir>/keys/<user> for each user who has keys (root gets those of all users with "root": true as well). `path` is
 * the image's PATH, for shells without a slash. */
void users_apply(
        const char *root, const char *rundir, const char *path, const json_t *accounts, Problems *p);

/* The path of a shell: a word is looked up in `path`, then in the payload's directory; what isn't there becomes /bin/sh, or the
 * payload's shell. `ret` has PATH_MAX bytes. */
void users_find_shell(const char *root, const char *path, const char *shell, char *ret);

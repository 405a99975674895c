/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who a program runs as: moby's rules (moby/sys/user, GetExecUser; reference/images.md 2.2)
 *
 *  - SPEC is user, uid, user:group, uid:gid, uid:group or user:gid. A number is always an id, never a name.
 *  - The first matching line of /etc/passwd and /etc/group wins; broken numbers in these files count as 0.
 *  - A uid or gid that no line has is legal (gid 0 for an unknown uid); a name that no line has is an error.
 * A file that is absent has no lines.
 *  - Without a group the supplementary groups are those whose lines list the user's name. With one there are
 * none.
 *  - The engine hands the gid and these groups on as numbers, and runc looks them up once more, as if somebody had
 * written them: 77 becomes the group *named* 77, if there is one (user_groups()). The gid itself isn't changed.
 *
 * These files belong to the image, hence to a stranger: everything is bounded and nothing of them is trusted
 * further.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "augment/client/macro.h"

/* The most the kernel takes is 65536; no account has this many. */
#define USER_GROUPS_MAX 1024
#define USER_LIST_MAX (USER_GROUPS_MAX + 1)

typedef struct UserIds {
        uid_t uid;
        gid_t gid;
        gid_t groups[USER_GROUPS_MAX]; /* supplementary, without gid */
        size_t n_groups;
} UserIds;

/* `passwd` and `group` are the files' texts or NULL. 0, or -ENOENT (unknown name), -ERANGE (id out of
 * range); then `why` (of `why_size` bytes) has Docker's own words for it. */
int user_resolve(const char *spec, const char *passwd, const char *group, UserIds *ret, char *why,
        size_t why_size) _warn_unused_;

/* The full list of supplementary groups, the primary one included (moby since CVE-2022-36109), as runc makes it of
 * the engine's numbers (GetAdditionalGroups in libcontainer/user; setupUser in libcontainer, runc up to 1.2). `ret`
 * has room for USER_LIST_MAX. 0, or -ERANGE with `why` when a line of the user gives a group out of range. */
int user_groups(const UserIds *ids, const char *group, gid_t *ret, size_t *ret_n, char *why, size_t why_size)
        _warn_unused_;

/* The home directory that an OCI runtime gives a uid: that of the first line with this uid, "/" if there is
 * none (runc, finalizeNamespace). To be freed; NULL without memory. */
char *user_home(const char *passwd, uid_t uid);

/* Becomes SPEC as the files of this container say. Does nothing if the process isn't root or already is
 * all that SPEC asks for, which needs no capability then. Groups that the container was given beyond root's
 * own (docker run
 * --group-add) are kept. stdin, stdout and stderr go to the new user, as runc does it, so that he can open
 * /dev/stdout.
 *
 * *ret_home: NULL if HOME is to stay as it is, else the value it gets (to be freed). HOME is left alone with
 * `keep_home`, and when it isn't what the runtime had set for root: somebody chose it.
 *
 * 0 or an exit status; the reason has been said then. */
int user_become(const char *spec, bool keep_home, const char *home, char **ret_home) _warn_unused_;

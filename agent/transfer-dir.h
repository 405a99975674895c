/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include "common/error.h"

/*
 * Where workers keep what they have of a large blob, so that a download that broke off goes on
 *
 *     <state-dir>/transfers/<32 hex>/          one for each project and source repository; the worker user's, 0700
 *
 * One job's files are for others of the same project and repository only: who may not read an image finds nothing of it
 * here either. (Workers of all projects are one user; landlock keeps each in its own directory.) What is in it counts for
 * nothing until it was hashed again (registry-client/spool.c). A directory goes with the last job that uses it when
 * nothing is left in it, and when it is old, or all together are too large.
 */

/* Makes the directory that a job of this repository uses. `project` may be NULL; `repository`: "docker.io/library/nginx". */
int transfer_dir_make(const char *state_dir, const char *project, const char *repository, uid_t uid,
        gid_t gid, char **ret, TbError **err) _warn_unused_;
/* Nobody uses it any more: it goes if it is empty. NULL does nothing. */
void transfer_dir_release(const char *dir);
/* Removes what nobody came back for. */
void transfer_dirs_sweep(const char *state_dir);

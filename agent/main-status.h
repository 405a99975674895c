/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/facts.h"
#include "common/error.h"

/* The root directory of a container, by its process: an O_PATH descriptor for openat2(2). -ESRCH: it is gone. */
int container_root_open(const ProcessIdentity *identity, TbError **err) _warn_unused_;

/*
 * How the main program of a node ended, as /tbnode/init wrote it down inside the container: "exited N" or
 * "signaled N" in /run/tbnode/main.status or /dev/.tbnode/main.status. The container's file system is the user's: it is
 * opened so that no symlink leads out of it (openat2(2), RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), only a regular file
 * counts, and only text of exactly this form.
 *
 * 1 = *ret is set (to be freed); 0 = the program has not ended, or the image is not an augmented one.
 */
int main_status_read(const ProcessIdentity *identity, char **ret, TbError **err) _warn_unused_;
/* The form itself: pure. */
bool main_status_is_valid(const char *text);

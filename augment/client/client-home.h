/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include "augment/client/macro.h"

/* Makes a home directory that isn't there: mode 0700, owned by uid:gid, holding a copy of <root>/etc/skel (at most 1000 files, 16 MB, 8
 * levels). It appears whole or not at all. One that exists, whatever it is, is left alone. */
int home_make(const char *root, const char *home, uid_t uid, gid_t gid) _warn_unused_;

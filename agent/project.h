/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

#include "augment/augment.h"
#include "common/error.h"

/*
 * Who may act for a project
 *
 * root for every one, others for the Unix group of that name that they are in, and everybody for "user-<uid>", which is
 * where a private image goes when no project is named. An image that lies below projects/<p>/ in the testbed's registry can
 * only be named together with that project.
 */

/* Checks the request in the name of `uid` and sets its private_project; its registry must be set. -EACCES. */
int project_check(AugmentRequest *request, uid_t uid, TbError **err) _warn_unused_;
bool project_may_act(uid_t uid, const char *project);
/* Is it the testbed's registry, by its name or by another one of this machine? */
bool project_is_testbed(const char *host, const char *registry_host);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/manager.h"
#include "common/error.h"

/* Which images of the testbed's registry this host's containers use, running or not: asked of the engine, and of the nodes
 * that are being made. */

typedef struct InUse InUse;

/* `used` (borrowed): {"<repository>@<digest>": [container names]}. `err` (borrowed) NULL = it is complete. The query may be
 * freed from here. */
typedef void (*InUseFn)(InUse *q, const json_t *used, const TbError *err, void *userdata);

/* Callbacks come from the loop only. -ENOTCONN: there is no engine, so nobody knows. */
int in_use_ask(Manager *m, InUseFn done, void *userdata, InUse **ret, TbError **err) _warn_unused_;
/* Cancels when still running. */
InUse *in_use_free(InUse *q);

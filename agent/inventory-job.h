/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"
#include "augment/augment.h"
#include "common/error.h"

/* One worker that lists what lies in the testbed's registry (AUGMENT_OP_IMAGES), beside the queue of augmentations. */

typedef struct InventoryJob InventoryJob;

/* err == NULL: result->report is the inventory; both borrowed. The job may be freed from here. */
typedef void (*InventoryFn)(
        InventoryJob *j, const AugmentResult *result, const TbError *err, void *userdata);

/* Callbacks come from the loop only. */
int inventory_job_start(Manager *m, InventoryFn done, void *userdata, InventoryJob **ret, TbError **err)
        _warn_unused_;
/* Cancels when still running. */
InventoryJob *inventory_job_free(InventoryJob *j);
TB_DEFINE_CLEANUP(InventoryJob *, inventory_job_free)

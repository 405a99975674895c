/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/plan.h"
#include "netctl/rtnl.h"

/* Encodes one operation as one (or, for none, zero) message. */
void op_encode(NlWriter *w, const Op *op);

/* The error of one operation: a TbError with advice from errno and the kernel's words. Returns its code. Deleting what is
 * gone is no error (0). */
int op_error(const Op *op, const RtnlResult *result, TbError **err);

typedef struct ApplyCounts {
        unsigned long writes, sends;
} ApplyCounts;

/* Sends all operations in one batch; `links` as of now: which groups of devices there are (NULL: nobody knows). errors[op->owner] gets the first error of each owner (entries that are not NULL are
 * kept). Fails only when the exchange with the kernel itself failed. */
int apply_plan(Rtnl *r, const Links *links, const Plan *plan, TbError **errors, ApplyCounts *counts,
        TbError **err) _warn_unused_;

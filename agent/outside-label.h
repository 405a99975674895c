/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/node.h"

/*
 * Whose are the keys in tbnode.ssh-keys?
 *
 * A container has its image's labels besides its own, and nothing tells them apart: an image could let in whoever made it. So the
 * engine is asked what the image has, and a value that is the image's counts for nothing. (`tbnode run` takes care by itself: it always
 * writes a value that no image has.)
 */

typedef struct OutsideLabel OutsideLabel;

/* `err` (borrowed): NULL = the container's own; -EPERM: the image's; others: it could not be learnt. */
typedef void (*OutsideLabelFn)(const TbError *err, void *userdata);

/* The callback comes from the loop, once; the check may be freed in it. */
int outside_label_check(
        const Node *n, OutsideLabelFn done, void *userdata, OutsideLabel **ret, TbError **err) _warn_unused_;
OutsideLabel *outside_label_free(OutsideLabel *l);

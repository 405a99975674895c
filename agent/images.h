/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "agent/manager.h"
#include "common/error.h"

/*
 * The images in the testbed's registry: listing and removing
 *
 *         inventory (worker) -> what containers use (engine) -> merged with when they were used (usage.h)
 *         prune: [jobs held until those under way have ended] -> the same -> what goes is decided -> deleted, one by one
 *
 * What goes is what nobody has used for so long on any host, and no container uses: augmented images and indexes; mirrors
 * that no image that stays is made from; what is noted about mirrors that go. An index that stays keeps its images.
 */

typedef struct ImagesJob ImagesJob;

/* `result` (borrowed) is the answer of the API. The job is freed afterwards. */
typedef void (*ImagesFn)(const json_t *result, const TbError *err, void *userdata);

/* {"images": [...], "bytes": n}; only what `uid` may see. */
int images_list(Manager *m, uid_t uid, ImagesFn done, void *userdata, ImagesJob **ret, TbError **err)
        _warn_unused_;
/* {"removed": [...], "kept": n, "young": n, "grace_s": n, "bytes": n, "dry_run"}; `keep_sec`: what was used since then
 * stays, and what is younger than the configuration's prune-grace ("young", when nothing else keeps it). */
int images_prune(Manager *m, int64_t keep_sec, bool dry_run, ImagesFn done, void *userdata, ImagesJob **ret,
        TbError **err) _warn_unused_;
/* Cancels: what is deleted by then is deleted. */
ImagesJob *images_job_free(ImagesJob *j);

/* Pure: marks each item of an inventory that may go with "remove": true. Items have "last" (when it was used or seen, s) and
 * "in_use" (an array) by then. */
int images_decide(json_t *items, int64_t now, int64_t keep_sec, TbError **err) _warn_unused_;

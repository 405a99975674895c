/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "agent/api.h"
#include "agent/manager.h"

/*
 * `tbnode snapshot`: from a node to an image of which another node can be made
 *
 *     INSPECT (the node's image) -> IMAGE (its configuration) -> COMMIT -> PUSH (under a name for this job alone)
 *             -> READ (the manifest that was pushed) -> CONFIG -> UPLOAD (the snapshot's own: snapshot-image.h)
 *             -> TAG (the snapshot's name: now it exists) -> REMOVE (from the engine) -> FORGET (the job's name) -> answer
 *
 * The name that others see is written when everything is there, so it names a complete image or, as before, none or the former
 * one. Whatever happens, a failure, the time-out (augment-timeout), a client that goes away, REMOVE and FORGET follow. A
 * commit can't be called off: the engine finishes it all the same, so its end is awaited, and then removed. What an agent that was
 * killed left in the engine is found by its label: snapshot-sweep.h.
 */

typedef struct SnapshotJob SnapshotJob;

typedef struct SnapshotSpec {
        const char *name;    /* NULL: that of the node */
        const char *project; /* NULL: the one of the node's image, else of the node's owner */
        bool pause;          /* nothing runs in the node while the engine reads its files */
} SnapshotSpec;

/* Streams progress and the result into `r`, whose caller may use the node. `spec` is copied. */
int snapshot_start(ApiRequest *r, const Node *n, const SnapshotSpec *spec, TbError **err) _warn_unused_;
/* At once and without cleaning up: only when the agent stops. */
SnapshotJob *snapshot_free(SnapshotJob *j);
/* Is a job with this value of SNAPSHOT_LABEL under way? */
bool snapshot_is_running(const Manager *m, const char *label);

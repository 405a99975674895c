/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/api.h"
#include "agent/manager.h"
#include "agent/run-spec.h"

/*
 * `tbnode run`: from the name of an image to a node that one can log in to
 *
 *     AUGMENT -> IMAGE (is it in the engine?) -> PULL -> INSPECT -> NETWORKS -> DIRECTORY -> CREATE -> CONNECT -> START
 *             -> CONFIGURE (wait for the state machine) -> answer
 *
 * One step at a time; each leaves behind what undoing it takes. A failure, the time-out, and a client that goes away
 * all lead to UNDO: container, networks made for it and its directory are removed again, then the answer is sent.
 */

/* Streams progress and the result into `r`. Takes the content of *spec. */
int run_job_start(ApiRequest *r, RunSpec *spec, TbError **err) _warn_unused_;
/* At once and without undoing: only when the agent stops. */
RunJob *run_job_free(RunJob *j);

/* Is this container being made by a run that is under way? */
bool run_is_making(const Manager *m, const char *id);

/* A node changed its state: a run may have waited for that. */
void run_node_changed(Manager *m, const Node *n);
/* Adds the images of the nodes that are being made to {"<repository>@<digest>": [names]}; `prefix` is the registry's
 * ("127.0.0.1:5000/"). */
int run_images_in_use(const Manager *m, const char *prefix, json_t *used, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "augment/augment.h"
#include "augment/run.h"

/*
 * What lies in the testbed's registry of ours: AUGMENT_OP_IMAGES, in the worker
 *
 *         { "items": [ { "repository", "project" (of projects/<p>/), "kind": mirror | augmented | facts | record,
 *                        "digest", "tags": [...], "index": bool, "size": bytes of manifest and blobs,
 *                        "children": [digests] (of an index), "platform", "level", "source": name, "base": digest } ],
 *           "usage": [ { "<repository>@<digest>": seconds since 1970, ... } ],  what hosts have said (agent/usage.h)
 *           "bytes": of all blobs, each once }
 *
 * `source` and `base` of an augmented image are what its labels say; a mirror's source is its name upstream. An item is
 * one manifest of one repository. Manifests without a tag can't be listed.
 */
#define INVENTORY_ITEMS_MAX 50000U

/* The usage document of one host: tbnode/usage:<machine id>. */
#define AUGMENT_USAGE_REPOSITORY "tbnode/usage"
#define AUGMENT_USAGE_TYPE "application/vnd.tbnode.usage.v1+json"
#define AUGMENT_USAGE_ANNOTATION "org.tbnode.usage"

/* Blocks; `request` says which registry. */
int augment_inventory(const AugmentRequest *request, const AugmentRunHooks *hooks, json_t **ret,
        TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "common/error.h"
#include "registry-client/registry.h"

/*
 * The image of a snapshot: its name, and what is in it
 *
 * A snapshot is the node's image with one more layer: what was written in the node. Everything else about it is as the
 * node's image has it: entrypoint, command, user, environment, labels, health check. What the engine's commit adds of the
 * container (its labels, host name, environment, command, ports) belongs to one node and not to the next: the image would
 * declare a node of the old one's experiment wherever it is started.
 *
 * Pure: nothing here knows of engine and jobs.
 */

/* Such an image is under way to the registry, or was left in the engine; its value tells which job's it is. No finished
 * snapshot has it. */
#define SNAPSHOT_LABEL "org.tbnode.snapshot"

/* The project below which an image of the testbed's registry lies; NULL in *ret: none, or not of that registry. The caller
 * frees *ret. */
int snapshot_project_of(const char *image, const char *registry_host, char **ret, TbError **err)
        _warn_unused_;

/* "<host>/projects/<project>/snapshots/<name>[:<tag>]"; without a tag "latest". `name` is what the user wrote. -EINVAL, kind
 * CONFIG, says what is wrong with it. */
int snapshot_name_make(const char *registry_host, const char *project, const char *name, RegistryRef **ret,
        TbError **err) _warn_unused_;

/* "<experiment>/<node>" in lower case, for those who give no name. NULL when out of memory. */
char *snapshot_name_default(const char *experiment, const char *node);

/* `pushed`: the configuration that the engine made of the container; `config`: that of the node's image, as the engine
 * describes it. *ret is the snapshot's, the caller's to free. -EPROTO: `pushed` is no image's. */
int snapshot_config_make(const json_t *pushed, const json_t *config, char **ret, size_t *ret_size,
        TbError **err) _warn_unused_;

/* The manifest that was pushed with another configuration. */
int snapshot_manifest_make(const RegistryManifest *pushed, const TbDigest *config, size_t config_size,
        char **ret, size_t *ret_size, TbError **err) _warn_unused_;

/* Bytes of all that belongs to an image; layers that lie elsewhere are not counted. */
uint64_t snapshot_size(const RegistryManifest *m, size_t config_size);

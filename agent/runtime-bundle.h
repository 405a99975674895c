/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "common/error.h"

/*
 * What Docker has written about a container by the time it is started, for the start gate: nobody has to be asked, and the
 * engine could not answer (it holds the container's lock during its start; while it starts containers after a reboot it does not
 * even listen).
 *
 *   the bundle       config.json (OCI runtime specification) and init.pid (containerd), in the directory that the shim, and so the
 *                    runtime, works in
 *   the container's  config.v2.json and hostconfig.json, beside the file that the bundle mounts on /etc/hostname
 */

/*
 * The request to the gate: {"version": 1, "id", "pid", "name", "labels": {}, "networks": {NAME: NETWORK-ID}, "network_mode",
 * "image", "node_dir"}; docs/reference.md has it.
 *
 * `bundle` is a directory. Returns 1 and the request when the container carries a label `tbnode.*`; 0 when it carries none, or is
 * no container of Docker's. Errors: TB_ERROR_SYSTEM or TB_ERROR_RESOURCE, a labelled container that cannot be described.
 */
int runtime_describe(const char *bundle, const char *id, json_t **ret, TbError **err) _warn_unused_;

/*
 * Adds the mount of `tree` on /tbnode to the bundle of a container that is to be created, when its label tbnode.ssh-keys asks for it
 * (agent/outside-ssh.h), it has nothing there, and the tree is there. 1 when it did. Errors: TB_ERROR_SYSTEM, TB_ERROR_RESOURCE;
 * config.json is as it was then.
 */
int runtime_add_programs(const char *bundle, const char *id, const char *tree, TbError **err) _warn_unused_;

/* Where the bundle of a container is: the current directory when its name is `id`; else what the runtime's own state under `root`
 * (--root, may be NULL) says, as runc and crun keep it. NULL: not found. */
char *runtime_find_bundle(const char *root, const char *id);

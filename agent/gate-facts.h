/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/facts.h"
#include "common/error.h"

/* A request to the start gate, checked. */
typedef struct GateRequest {
        char id[CONTAINER_ID_LEN + 1];
        pid_t pid;
        const char *name; /* this and the following: borrowed from the request */
        const json_t *labels;
        const json_t *networks; /* {NAME: NETWORK-ID} */
        const char *network_mode, *image, *node_dir;
} GateRequest;

/* TB_ERROR_REMOTE -EPROTO: not what tbnode-runtime sends. */
int gate_request_parse(const json_t *j, GateRequest *ret, TbError **err) _warn_unused_;

/*
 * Describes the container from the request and from what is in its network namespace. A network whose interface cannot be told
 * (no bridge of that network has the host side) has no MAC, as for the engine a network that is not attached.
 * -ESRCH: its process is gone.
 */
int gate_facts_read(const GateRequest *q, ContainerFacts *ret, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "netctl/fw-backend.h"

/* What was read back, as tbnode-netctl and the agent say it: "present", "intact", "counters", "rules" (those of the lists, with
 * what they counted), "found" (what is there instead of a list that is not intact). NULL when out of memory. */
json_t *fw_readback_json(const FwReadback *b);

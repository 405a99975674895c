/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "netctl/fw-backend.h"

/* Bridged packets only meet rules of the host's IP layers with bridge-nf-call-iptables and -ip6tables on (settings of the network
 * namespace). Turns on what is off, or (`enable` false) fails when it is; notes it in `outcome`. */
int fw_bridge_nf_ensure(bool enable, FwOutcome *outcome, TbError **err) _warn_unused_;

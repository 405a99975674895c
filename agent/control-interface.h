/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * `control-interface`: the control network is the physical one
 *
 * Each time the engine is connected, the control network is made if it is missing, and the interface becomes a port of its bridge
 * (netctl/uplink.h: with its addresses and routes, and without losing a packet). That it is one already costs no write. When somebody
 * removes the network, the bridge and what it had are gone: the interface gets its addresses back at once, and the network is made again.
 * The agent's end changes nothing; `tbnoded --release-control-interface` undoes it.
 */

void control_interface_check(Manager *m);
/* The network of this name was removed. */
void control_interface_network_gone(Manager *m, const char *name);
void control_interface_stop(Manager *m);

/* For --release-control-interface. 0: there is nothing to be given back. */
int control_interface_release(const Config *c, TbError **err) _warn_unused_;

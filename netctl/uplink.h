/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/error.h"

/*
 * A physical interface becomes a port of a bridge, and back
 *
 * Its addresses and static routes move to the bridge with it, in one batch, in an order in which there is always a way: the bridge
 * gets the addresses as well, the interface becomes a port, the routes are replaced one by one, and only then the interface loses its
 * addresses. Frames to the interface's own MAC are the host's also when they come in at a port, so nobody has to learn anything.
 *
 * What was moved is written to a record before anything is changed, as the kernel described it; release() makes exactly that again.
 * A record of an interface that is a port of the bridge is the truth (an attach that was cut short is finished); of one that is not
 * (after a reboot, or when the bridge was removed and with it what it had) the interface itself is, if it has an address, else the record.
 *
 * Not moved: link-local IPv6 addresses, what the kernel makes itself (connected routes), what router advertisements made. Routes with
 * several next hops are refused.
 */

/* 0: it was so already, and nothing was written; 1: it was moved. On failure all is as it was before. */
int uplink_attach(const char *interface, const char *bridge, const char *record, TbError **err)
        _warn_unused_;

/* Puts back what the record says and removes the record. 0: there is no record. */
int uplink_release(const char *record, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * Somebody else changed our tables of nf_tables (`nft flush ruleset`, a reload of firewalld): the kernel says so, and the firewall's
 * watch (firewall-watch.h) has a look. A kernel without nf_tables has nothing to watch.
 */
int fw_watch_start(Manager *m, TbError **err) _warn_unused_;
void fw_watch_stop(Manager *m);

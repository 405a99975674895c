/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/manager.h"

/*
 * Docker networks that the agent makes: bridges with the label org.tbnode.network=control|experiment. The control
 * network stays once it exists; an experiment network goes when the last container that knows it (running or not) is
 * gone. Networks that somebody else made are used and never removed.
 */

typedef struct NetworkJob NetworkJob;
/* `made_id`: the network was missing and has been made; NULL when it was there, or after a removal. Both borrowed. The
 * job is freed afterwards. */
typedef void (*NetworkDoneFn)(const char *made_id, const TbError *err, void *userdata);

/* `subnet` NULL: Docker chooses. */
int network_ensure(Manager *m, const char *name, const char *subnet, bool control, NetworkDoneFn done,
        void *userdata, NetworkJob **ret, TbError **err) _warn_unused_;
/* Removes our experiment networks that no container uses and that no run is about to use. */
int network_remove_unused(Manager *m, NetworkDoneFn done, void *userdata, NetworkJob **ret, TbError **err)
        _warn_unused_;
/* Cancels; what the engine was asked to do may still happen. */
NetworkJob *network_job_free(NetworkJob *j);

/* Is a run about to use this network? (run.c) */
bool run_uses_network(const Manager *m, const char *name);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

#include "agent/manager.h"

/*
 * Following the engine
 *
 * Order is everything: the event stream is asked for FIRST, from a time on that lies before anything we know, and only
 * then are the containers listed. What happens between the two is in the stream; what happened before is in the list;
 * nothing falls in between. Whoever heard an event about a container after the list was asked for knows better than
 * the list. When the stream ends (engine restarted, connection cut) everything is done again, with growing pauses,
 * and the stream is asked for from the last event on.
 *
 * Replayed and doubled events are harmless: each only makes the agent ask what the container is like now, and a `die`
 * that is older than the running process is not believed.
 */

int docker_events_new(Manager *m, DockerEvents **ret, TbError **err) _warn_unused_;
DockerEvents *docker_events_free(DockerEvents *d);

/* Connects, and keeps connected from then on. */
int docker_events_start(DockerEvents *d, TbError **err) _warn_unused_;

bool docker_events_is_connected(const DockerEvents *d);
/* Why not, borrowed; NULL when connected or not tried yet. */
const TbError *docker_events_error(const DockerEvents *d);

/* The node of a container, made when its labels say that it is one; *ret NULL: it is none. Also for whoever hears of a container before
 * the engine's event about it is here. */
int docker_events_find_or_add(Manager *m, const char *id, const char *name, const json_t *labels, Node **ret,
        TbError **err) _warn_unused_;

/* One value of the event stream, and the answer of the list: for the stream itself and for the fuzzer. */
void docker_events_take(DockerEvents *d, const json_t *event);
void docker_events_take_list(DockerEvents *d, const json_t *list);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <microhttpd.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"

/*
 * The connections of the API, counted by user and watched by one clock
 *
 * libmicrohttpd only knows how many there are and when a byte came last, so somebody could take all of them, or keep one by a
 * byte every few seconds. Here each has a deadline: for its request to be there, and for its answer to be taken. None while
 * the agent works on it, or streams.
 */
typedef struct ApiConnections ApiConnections;

int api_connections_new(sd_event *event, ApiConnections **ret, TbError **err) _warn_unused_;
/* After MHD_stop_daemon(). */
ApiConnections *api_connections_free(ApiConnections *l);

/* MHD_NotifyConnectionCallback; `cls` is the list. Who has too many is told 503 and cut off. */
void api_connections_notify(void *cls, struct MHD_Connection *c, void **socket_context,
        enum MHD_ConnectionNotificationCode what);

/* The request is there; its answer is ready; both are done, and another may come. */
void api_connection_busy(struct MHD_Connection *c);
void api_connection_answered(struct MHD_Connection *c);
void api_connection_idle(struct MHD_Connection *c);

unsigned api_connections_count(const ApiConnections *l);
/* Cut off since the start. */
uint64_t api_connections_refused(const ApiConnections *l);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <microhttpd.h>
#include <systemd/sd-event.h>

#include "agent/api-connection.h"
#include "agent/api.h"
#include "common/buffer.h"

/* Between api.c, which has the requests, and api-server.c, which has the socket and libmicrohttpd's place in the loop. */

struct Api {
        Manager *manager;
        int fd;
        char *path;
        struct MHD_Daemon *daemon;
        sd_event_source *io;
        sd_event_source *timer;
        ApiRequest *requests; /* list of those that are under way */
        ApiConnections *connections;
        gid_t operators;        /* -1: nobody but root */
        sd_event_source *known; /* goes on with what waits for the nodes */
        uint64_t n_requests;
        bool stopping;
};

/*
 * A request is: RECEIVING its body -> dispatched to its operation -> either answered (response set), or suspended
 * until api_reply() or the stream have something. `connection` belongs to MHD and lives until on_completed().
 */
struct ApiRequest {
        Api *api;
        ApiRequest *next, *prev;
        struct MHD_Connection *connection;
        char *method;
        char **segments;
        const ApiOperation *operation;
        size_t arguments[API_SEGMENTS_MAX];
        Caller caller;
        TbBuffer received;
        json_t *body;
        bool too_large;
        size_t thrown_away;
        bool waiting; /* for the nodes to be known */
        bool dispatched;
        bool suspended;

        unsigned status;
        struct MHD_Response *response; /* ready to be queued */
        bool queued;

        bool streaming;
        bool ended;
        bool broken; /* it ended before its end: the client is to notice */
        TbBuffer out;
        void (*drained)(ApiRequest *r, void *userdata);
        void *drained_userdata;

        ApiUpgradedFn upgraded_fn;
        void *upgraded_userdata;
        struct MHD_UpgradeResponseHandle *upgraded; /* the connection speaks another protocol */

        int watch_fd; /* of the connection, to notice a hang-up while it is suspended */
        sd_event_source *watch;
        void (*gone)(ApiRequest *r, void *userdata);
        void *gone_userdata;
};

/* The request is not wanted any more: its operation is told. */
void api_request_gone(ApiRequest *r);
/* Have libmicrohttpd run, from the loop as soon as possible: it must not be entered from its own callbacks. */
void api_kick(Api *a);
/* The timer of what waits for the nodes. */
int api_on_known(sd_event_source *s, uint64_t usec, void *userdata);

/* Callbacks of libmicrohttpd. */
enum MHD_Result api_on_access(void *cls, struct MHD_Connection *c, const char *url, const char *method,
        const char *version, const char *data, size_t *size, void **con_cls);
void api_on_completed(
        void *cls, struct MHD_Connection *c, void **con_cls, enum MHD_RequestTerminationCode why);
size_t api_on_unescape(void *cls, struct MHD_Connection *c, char *s);
void api_on_mhd_log(void *cls, const char *fmt, va_list ap);

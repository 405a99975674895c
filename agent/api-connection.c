/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "agent/access.h"
#include "agent/api-connection.h"
#include "agent/api.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/units.h"

/* One clock for all: nobody minds half a second. */
#define CLOCK_ACCURACY_USEC (500 * UINT64_C(1000))

typedef struct ApiConnection {
        ApiConnections *list;
        struct ApiConnection *next, *prev;
        int fd; /* MHD's */
        uid_t uid;
        uint64_t deadline_us; /* CLOCK_MONOTONIC; 0 = none */
} ApiConnection;

struct ApiConnections {
        sd_event *event;
        sd_event_source *clock;
        ApiConnection *first;
        unsigned n;
        unsigned n_users; /* without root's */
        uint64_t refused;
};

/* ---- Deadlines --------------------------------------------------------------------------------------------------- */

static void set_clock(ApiConnections *l, uint64_t us)
{
        if (sd_event_source_set_time(l->clock, us) < 0 ||
                sd_event_source_set_enabled(l->clock, SD_EVENT_ONESHOT) < 0)
                log_debug("cannot set the clock of the API's connections");
}

static int on_clock(sd_event_source *s, uint64_t usec, void *userdata)
{
        ApiConnections *l = userdata;
        uint64_t now = tb_now_us(), next = UINT64_MAX;

        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        for (ApiConnection *c = l->first; c; c = c->next) {
                if (c->deadline_us == 0)
                        continue;
                if (c->deadline_us <= now) {
                        c->deadline_us = 0;
                        l->refused++;
                        /* MHD sees its end, and closes it. */
                        (void) shutdown(c->fd, SHUT_RDWR);
                } else if (c->deadline_us < next)
                        next = c->deadline_us;
        }
        if (next != UINT64_MAX)
                set_clock(l, next);
        return 0;
}

static void set_deadline(ApiConnection *c, uint64_t in_us)
{
        int enabled = SD_EVENT_OFF;

        if (!c)
                return;
        c->deadline_us = in_us > 0 ? tb_now_us() + in_us : 0;
        (void) sd_event_source_get_enabled(c->list->clock, &enabled);
        /* Times only grow, but there are two of them: the clock may run early, and looks again then. */
        if (in_us > 0 && enabled == SD_EVENT_OFF)
                set_clock(c->list, tb_now_us() + MIN2(in_us, API_SEND_USEC));
}

static ApiConnection *context(struct MHD_Connection *c)
{
        const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

        return info ? info->socket_context : NULL;
}

void api_connection_busy(struct MHD_Connection *c)
{
        set_deadline(context(c), 0);
}

void api_connection_answered(struct MHD_Connection *c)
{
        set_deadline(context(c), API_TAKE_USEC);
}

void api_connection_idle(struct MHD_Connection *c)
{
        set_deadline(context(c), API_SEND_USEC);
}

/* ---- Coming and going -------------------------------------------------------------------------------------------- */

static bool has_too_many(const ApiConnections *l, uid_t uid)
{
        unsigned n = 0;

        if (uid == 0)
                return false;
        if (l->n_users >= API_CONNECTIONS_MAX - API_RESERVED_CONNECTIONS)
                return true;
        for (const ApiConnection *c = l->first; c; c = c->next)
                n += c->uid == uid;
        return n >= API_USER_CONNECTIONS_MAX;
}

static void refuse(ApiConnections *l, int fd)
{
        static const char body[] = "{\"error\":{\"kind\":\"resource\",\"code\":\"EUSERS\",\"message\":"
                                   "\"there are too many connections to the agent; end some, or try "
                                   "later\",\"retryable\":true}}\n";
        char answer[512];
        int n = snprintf(answer, sizeof(answer),
                "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Type: application/json\r\n"
                "Content-Length: %zu\r\n\r\n%s",
                strlen(body), body);

        l->refused++;
        (void) send(fd, answer, (size_t) n, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void) shutdown(fd, SHUT_RDWR);
}

static void opened(ApiConnections *l, struct MHD_Connection *connection, void **socket_context)
{
        const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        ApiConnection *c;
        uid_t uid;

        if (!info)
                return;
        uid = access_caller(info->connect_fd, (gid_t) -1).uid;
        c = has_too_many(l, uid) ? NULL : calloc(1, sizeof(*c));
        if (!c) {
                refuse(l, info->connect_fd);
                return;
        }
        *c = (ApiConnection){.list = l, .next = l->first, .fd = info->connect_fd, .uid = uid};
        if (c->next)
                c->next->prev = c;
        l->first = c;
        l->n++;
        l->n_users += uid != 0;
        *socket_context = c;
        set_deadline(c, API_SEND_USEC);
}

static void closed(ApiConnections *l, ApiConnection *c)
{
        if (!c)
                return;
        if (c->prev)
                c->prev->next = c->next;
        else
                l->first = c->next;
        if (c->next)
                c->next->prev = c->prev;
        l->n--;
        l->n_users -= c->uid != 0;
        free(c);
}

void api_connections_notify(
        void *cls, struct MHD_Connection *c, void **socket_context, enum MHD_ConnectionNotificationCode what)
{
        if (what == MHD_CONNECTION_NOTIFY_STARTED)
                opened(cls, c, socket_context);
        else {
                closed(cls, *socket_context);
                *socket_context = NULL;
        }
}

/* ---- All of them ------------------------------------------------------------------------------------------------- */

int api_connections_new(sd_event *event, ApiConnections **ret, TbError **err)
{
        ApiConnections *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return tb_error_oom(err);
        l->event = sd_event_ref(event);
        r = sd_event_add_time(event, &l->clock, CLOCK_MONOTONIC, 0, CLOCK_ACCURACY_USEC, on_clock, l);
        if (r >= 0)
                r = sd_event_source_set_enabled(l->clock, SD_EVENT_OFF);
        if (r < 0) {
                api_connections_free(l);
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, r, "cannot set up the clock of the API's connections");
        }
        (void) sd_event_source_set_description(l->clock, "api-connections");
        *ret = l;
        return 0;
}

ApiConnections *api_connections_free(ApiConnections *l)
{
        if (!l)
                return NULL;
        while (l->first)
                closed(l, l->first);
        sd_event_source_disable_unref(l->clock);
        sd_event_unref(l->event);
        free(l);
        return NULL;
}

unsigned api_connections_count(const ApiConnections *l)
{
        return l->n;
}

uint64_t api_connections_refused(const ApiConnections *l)
{
        return l->refused;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/event-log.h"
#include "common/cleanup.h"
#include "common/json.h"

struct EventListener {
        EventLog *log;
        EventListener *next;
        EventListenerFn fn;
        void *userdata;
};

struct EventLog {
        EventOwnerFn owner;
        void *owner_userdata;
        uint32_t owners[EVENT_LOG_MAX];
        char *lines[EVENT_LOG_MAX]; /* seq % EVENT_LOG_MAX */
        uint64_t next;
        EventListener *listeners;
};

int event_log_new(EventLog **ret, TbError **err)
{
        EventLog *l = calloc(1, sizeof(*l));

        if (!l)
                return tb_error_oom(err);
        l->next = 1;
        *ret = l;
        return 0;
}

EventLog *event_log_free(EventLog *l)
{
        if (!l)
                return NULL;
        for (size_t i = 0; i < EVENT_LOG_MAX; i++)
                free(l->lines[i]);
        for (EventListener *i = l->listeners; i; i = i->next)
                i->log = NULL;
        free(l);
        return NULL;
}

const char *event_time_format(char buf[static EVENT_TIME_MAX], uint64_t realtime_us)
{
        time_t t = (time_t) (realtime_us / 1000000);
        struct tm tm;
        size_t n;

        if (!gmtime_r(&t, &tm)) {
                buf[0] = 0;
                return buf;
        }
        n = strftime(buf, EVENT_TIME_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
        (void) snprintf(buf + n, EVENT_TIME_MAX - n, ".%06uZ", (unsigned) (realtime_us % 1000000));
        return buf;
}

const char *event_time_now(char buf[static EVENT_TIME_MAX])
{
        struct timespec ts;

        (void) clock_gettime(CLOCK_REALTIME, &ts);
        return event_time_format(buf, (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000);
}

void event_log_add(EventLog *l, const char *event, json_t *fields)
{
        _cleanup_json_ json_t *given = fields, *j = json_object();
        char time[EVENT_TIME_MAX], *line = NULL;

        if (!given || !j || tb_json_set_u64(j, "seq", l->next, NULL) < 0 ||
                tb_json_set_string(j, "time", event_time_now(time), NULL) < 0 ||
                tb_json_set_string(j, "event", event, NULL) < 0 || json_object_update(j, given) < 0 ||
                tb_json_dump(j, false, &line, NULL, NULL) < 0)
                return;
        l->owners[l->next % EVENT_LOG_MAX] = l->owner ? l->owner(given, l->owner_userdata) : EVENT_FOR_ALL;
        free(l->lines[l->next % EVENT_LOG_MAX]);
        l->lines[l->next % EVENT_LOG_MAX] = line;
        l->next++;
        for (EventListener *i = l->listeners; i; i = i->next)
                i->fn(i->userdata);
}

void event_log_set_owner(EventLog *l, EventOwnerFn fn, void *userdata)
{
        l->owner = fn;
        l->owner_userdata = userdata;
}

const char *event_log_get(const EventLog *l, uint64_t from, uint64_t *ret_seq, uint32_t *ret_owner)
{
        uint64_t oldest = l->next > EVENT_LOG_MAX ? l->next - EVENT_LOG_MAX : 1;
        uint64_t seq = from > oldest ? from : oldest;

        if (seq >= l->next)
                return NULL;
        *ret_seq = seq;
        *ret_owner = l->owners[seq % EVENT_LOG_MAX];
        return l->lines[seq % EVENT_LOG_MAX];
}

uint64_t event_log_next(const EventLog *l)
{
        return l->next;
}

int event_log_listen(EventLog *l, EventListenerFn fn, void *userdata, EventListener **ret, TbError **err)
{
        EventListener *n = calloc(1, sizeof(*n));

        if (!n)
                return tb_error_oom(err);
        *n = (EventListener){.log = l, .next = l->listeners, .fn = fn, .userdata = userdata};
        l->listeners = n;
        *ret = n;
        return 0;
}

EventListener *event_listener_free(EventListener *n)
{
        if (!n)
                return NULL;
        if (n->log)
                for (EventListener **p = &n->log->listeners; *p; p = &(*p)->next)
                        if (*p == n) {
                                *p = n->next;
                                break;
                        }
        free(n);
        return NULL;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * What happened, for people and scripts: `tbnode events`. A ring of the last EVENT_LOG_MAX events, each one JSON object
 * {"seq":N,"time":"2026-01-31T12:00:00.123456Z","event":"node-state",...}, and listeners that are told when another one
 * came. A slow reader loses the oldest events, never holds the agent up; it sees the gap in `seq`.
 */

#define EVENT_LOG_MAX 1024U
#define EVENT_FOR_ALL UINT32_MAX /* owner of what everybody may know */

typedef struct EventLog EventLog;
typedef struct EventListener EventListener;
/* Another event is there; called from inside event_log_add(): take note only. */
typedef void (*EventListenerFn)(void *userdata);

int event_log_new(EventLog **ret, TbError **err) _warn_unused_;
EventLog *event_log_free(EventLog *l);
TB_DEFINE_CLEANUP(EventLog *, event_log_free)

/* Whose an event is: called with its fields when it is added, and kept with it. Without it, all are for everybody. */
typedef uint32_t (*EventOwnerFn)(const json_t *fields, void *userdata);
void event_log_set_owner(EventLog *l, EventOwnerFn fn, void *userdata);

/* Takes ownership of `fields` (an object; NULL is ignored) and adds seq, time and event. What cannot be recorded for
 * want of memory is lost: never an error. */
void event_log_add(EventLog *l, const char *event, json_t *fields);

/* The first event with seq >= `from`, borrowed, as one line without newline; NULL = none yet. *ret_seq is its seq,
 * *ret_owner whose it is. */
const char *event_log_get(const EventLog *l, uint64_t from, uint64_t *ret_seq, uint32_t *ret_owner);
/* The seq that the next event will get. */
uint64_t event_log_next(const EventLog *l);

int event_log_listen(EventLog *l, EventListenerFn fn, void *userdata, EventListener **ret, TbError **err)
        _warn_unused_;
EventListener *event_listener_free(EventListener *l);

/* "2026-01-31T12:00:00.123456Z" of CLOCK_REALTIME now (RFC 3339). */
#define EVENT_TIME_MAX 32
const char *event_time_now(char buf[static EVENT_TIME_MAX]);
const char *event_time_format(char buf[static EVENT_TIME_MAX], uint64_t realtime_us);

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Operations that stream: augmentation, Dockerfile, events. */

#include <stdlib.h>
#include <string.h>

#include "agent/access.h"
#include "agent/api-ops.h"
#include "agent/augment-job.h"
#include "agent/request-body.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* ---- Augmentation ------------------------------------------------------------------------------------------------ */

typedef struct AugmentOpState {
        ApiRequest *request;
        JobWaiter *waiter;
} AugmentOpState;

static void on_progress(const json_t *line, void *userdata)
{
        AugmentOpState *s = userdata;

        api_stream_line(s->request, json_deep_copy(line), false);
}

static void on_done(const AugmentResult *result, const TbError *err, void *userdata)
{
        AugmentOpState *s = userdata;
        _cleanup_error_ TbError *failed = NULL;
        json_t *j = NULL;

        if (!err && augment_result_to_json(result, &j, &failed) < 0)
                err = failed;
        if (err)
                api_stream_line(s->request,
                        json_pack("{s:s, s:o}", "event", "error", "error", api_error_to_json(err)), true);
        else
                api_stream_line(s->request, json_pack("{s:s, s:o}", "event", "result", "result", j), true);
        api_stream_end(s->request);
        free(s);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        AugmentOpState *s = userdata;

        job_waiter_free(s->waiter);
        free(s);
}

static int parse_request(const json_t *body, const Config *config, AugmentRequest *ret, TbError **err)
{
        static const char *const members[] = {
                "image", "level", "builder", "platform", "project", "update", "policy", "auths", NULL};
        int r;

        r = request_body_check_members(body, members, err);
        return r < 0 ? r : request_body_take_augment(body, config, ret, err);
}

static void submit(ApiRequest *r, AugmentOp op)
{
        _cleanup_augment_request_ AugmentRequest request = {};
        _cleanup_error_ TbError *err = NULL;
        Manager *m = api_request_manager(r);
        AugmentOpState *s;

        s = calloc(1, sizeof(*s));
        if (!s) {
                api_reply(r, 507, NULL);
                return;
        }
        s->request = r;
        if (api_blame_caller(parse_request(api_request_body(r), &m->config, &request, &err), &err) < 0 ||
                job_submit(m->jobs, api_request_uid(r), &request, op,
                        &(JobCallbacks){.progress = on_progress, .done = on_done, .userdata = s}, &s->waiter,
                        &err) < 0) {
                api_reply_error(r, err);
                free(s);
                return;
        }
        api_stream_start(r);
        api_request_on_gone(r, on_gone, s);
}

void op_augment(ApiRequest *r)
{
        submit(r, AUGMENT_OP_AUGMENT);
}

void op_dockerfile(ApiRequest *r)
{
        submit(r, AUGMENT_OP_DOCKERFILE);
}

/* ---- Events ------------------------------------------------------------------------------------------------------ */

typedef struct EventsOp {
        ApiRequest *request;
        EventListener *listener;
        const EventLog *log;
        uint64_t next;
        bool started;
        uint64_t lost; /* since the last line */
        bool follow;
        Caller caller;
} EventsOp;

/* As much as the reader has room for; the rest when it asks for more. */
static void events_pump(EventsOp *o)
{
        const char *line;
        uint32_t owner;
        uint64_t seq;

        while ((line = event_log_get(o->log, o->next, &seq, &owner))) {
                _cleanup_free_ char *text = NULL;
                /* Whoever reads too slowly, or comes too late, is told so. */
                uint64_t lost = o->lost + (o->started ? seq - o->next : 0);

                o->started = true;
                if (owner != EVENT_FOR_ALL && !o->caller.is_operator && owner != o->caller.uid) {
                        o->next = seq + 1;
                        o->lost = lost;
                        continue;
                }
                text = lost > 0 ? tb_asprintf("{\"event\":\"lost\",\"events\":%lu}\n%s\n",
                                          (unsigned long) lost, line)
                                : tb_asprintf("%s\n", line);

                if (!text || !api_stream_text(o->request, text, strlen(text)))
                        return;
                o->next = seq + 1;
                o->lost = 0;
        }
}

static void on_event(void *userdata)
{
        events_pump(userdata);
}

static void on_drained(ApiRequest *r, void *userdata)
{
        events_pump(userdata);
}

static void on_events_gone(ApiRequest *r, void *userdata)
{
        EventsOp *o = userdata;

        event_listener_free(o->listener);
        free(o);
}

void op_events(ApiRequest *r)
{
        Manager *m = api_request_manager(r);
        const char *follow = api_request_query(r, "follow");
        _cleanup_error_ TbError *err = NULL;
        EventsOp *o = calloc(1, sizeof(*o));

        if (!o) {
                api_reply(r, 507, NULL);
                return;
        }
        *o = (EventsOp){.request = r,
                .log = m->log,
                .next = 1,
                .follow = tb_streq(follow, "1"),
                .caller = *api_request_caller(r)};
        if (o->follow && event_log_listen(m->log, on_event, o, &o->listener, &err) < 0) {
                api_reply_error(r, err);
                free(o);
                return;
        }
        api_stream_start(r);
        events_pump(o);
        if (!o->follow) {
                api_stream_end(r); /* the ring is smaller than what a stream may hold */
                free(o);
                return;
        }
        api_stream_on_drained(r, on_drained, o);
        api_request_on_gone(r, on_events_gone, o);
}

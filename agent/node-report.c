/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the inside of a node says about itself: checked, kept, told as events. */

#include "agent/node-report.h"

#include <stdlib.h>
#include <string.h>

#include "agent/declaration.h"
#include "agent/experiment.h"
#include "agent/run.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

#define REASON_MAX 512
#define EVENTS_RATE 2U /* a second and node */
#define EVENTS_BURST 50U

void node_report_event(Node *n, const char *event, json_t *fields)
{
        if (!token_bucket_take(&n->events, EVENTS_RATE, EVENTS_BURST, tb_now_us()) || !fields ||
                json_object_set_new(fields, "node", json_string(node_display_name(n))) < 0 ||
                json_object_set_new(fields, "id", json_string(n->id)) < 0 ||
                (n->labels.experiment &&
                        json_object_set_new(fields, "experiment", json_string(n->labels.experiment)) < 0)) {
                json_decref(fields);
                return;
        }
        event_log_add(n->manager->log, event, fields);
}

static int bad(TbError **err, const char *what)
{
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s", what);
}

static int check_client(const Node *n, TbError **err)
{
        return n->client ? 0 : tb_error_oom(err);
}

/* A copy for people: bounded, without control characters. */
static json_t *clean_reason(const char *reason)
{
        _cleanup_free_ char *text = reason ? tb_escape_control(reason, REASON_MAX) : NULL;

        return text && text[0] ? json_string(text) : json_null();
}

static bool one_of(const char *s, const char *const *list)
{
        for (; s && *list; list++)
                if (tb_streq(*list, s))
                        return true;
        return false;
}

/* Sets members of what was reported; true when something is other than before. */
static bool update(Node *n, const char *key, json_t *value)
{
        json_t *status = n->client->status, *before = json_object_get(status, key);
        bool same = value && before && json_equal(before, value);

        if (!value || same || json_object_set(status, key, value) < 0) {
                json_decref(value);
                return false;
        }
        json_decref(value);
        node_client_save(n->client);
        return true;
}

int node_client_report_state(Node *n, const char *state, const char *reason, TbError **err)
{
        static const char *const states[] = {"booting", "up", "failed", NULL};
        bool changed;
        int r;

        r = check_client(n, err);
        if (r < 0)
                return r;
        if (!one_of(state, states))
                return bad(err, "the state is booting, up or failed");
        changed = update(n, "state", json_string(state));
        changed |= update(n, "reason", clean_reason(reason));
        if (changed) {
                json_t *said = json_object_get(n->client->status, "reason");

                node_report_event(
                        n, "client-state", json_pack("{s:s, s:O?}", "state", state, "reason", said));
                run_node_changed(n->manager, n);
        }
        return 0;
}

int node_client_report_emulab_state(Node *n, const char *state, TbError **err)
{
        static const struct {
                const char *emulab, *state;
        } known[] = {{"BOOTING", "booting"}, {"TBSETUP", "booting"}, {"ISUP", "up"}, {"TBFAILED", "failed"}};
        size_t length = strlen(state);
        int r;

        r = check_client(n, err);
        if (r < 0)
                return r;
        if (length == 0 || length > 32 ||
                strspn(state, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != length)
                return bad(err, "a state is of letters, digits, '_' and '-', at most 32");
        if (update(n, "emulab_state", json_string(state)))
                node_report_event(n, "client-emulab-state", json_pack("{s:s}", "state", state));
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (tb_streq(known[i].emulab, state))
                        return node_client_report_state(n, known[i].state, NULL, err);
        return 0;
}

/* {"state", "status", "reason"[, "pid"]} out of a report. */
static int take_outcome(const json_t *report, const char *const *states, json_t **ret, TbError **err)
{
        const char *state = NULL, *reason = NULL;
        uint64_t status = 0, pid = 0;
        int has_status, has_pid;

        has_status = tb_json_get_u64(report, "status", &status, err);
        if (has_status < 0 || tb_json_get_string(report, "state", &state, err) < 0 ||
                tb_json_get_string(report, "reason", &reason, err) < 0)
                return -EINVAL;
        has_pid = tb_json_get_u64(report, "pid", &pid, err);
        if (has_pid < 0)
                return -EINVAL;
        if (!one_of(state, states))
                return bad(err, "the state is none that is reported");
        if (status > 255 || pid > INT32_MAX)
                return bad(err, "status is at most 255, pid at most 2147483647");
        *ret = json_pack("{s:s, s:o, s:o, s:o}", "state", state, "status",
                has_status > 0 ? json_integer((json_int_t) status) : json_null(), "reason",
                clean_reason(reason), "pid", has_pid > 0 ? json_integer((json_int_t) pid) : json_null());
        return *ret ? 0 : tb_error_oom(err);
}

int node_client_report_startup(Node *n, const json_t *report, TbError **err)
{
        static const char *const states[] = {"running", "exited", "signaled", "failed", NULL};
        json_t *outcome = NULL;
        int r;

        r = check_client(n, err);
        if (r >= 0)
                r = take_outcome(report, states, &outcome, err);
        if (r < 0)
                return r;
        (void) json_object_del(outcome, "pid");
        if (update(n, "startup", json_incref(outcome)))
                node_report_event(n, "startup-status", json_deep_copy(outcome));
        json_decref(outcome);
        return 0;
}

static bool is_declared(const Node *n, const char *program)
{
        const json_t *p;
        size_t i;

        json_array_foreach (json_object_get(n->client->declaration, "programs"), i, p)
                if (tb_streq(json_string_value(json_object_get(p, "name")), program))
                        return true;
        return false;
}

int node_client_report_program(Node *n, const json_t *report, TbError **err)
{
        static const char *const states[] = {"running", "exited", "signaled", "timeout", "failed", NULL};
        _cleanup_json_ json_t *outcome = NULL, *programs = NULL;
        const char *name = NULL;
        int r;

        r = check_client(n, err);
        if (r >= 0)
                r = tb_json_get_string(report, "name", &name, err);
        if (r < 0)
                return r;
        if (!name || !is_declared(n, name))
                return bad(err, "no program of that name is declared");
        r = take_outcome(report, states, &outcome, err);
        if (r < 0)
                return r;
        programs = json_object_get(n->client->status, "programs")
                ? json_copy(json_object_get(n->client->status, "programs"))
                : json_object();
        if (!programs || json_object_set(programs, name, outcome) < 0)
                return tb_error_oom(err);
        if (update(n, "programs", json_incref(programs))) {
                json_t *fields = json_deep_copy(outcome);

                if (fields)
                        (void) json_object_set_new(fields, "program", json_string(name));
                node_report_event(n, "program-status", fields);
        }
        node_report_tell(n->client, name, outcome);
        return 0;
}

/* ---- Who waits for a report ---------------------------------------------------------------------------------------- */

struct ProgramWatch {
        NodeClient *client;
        ProgramWatch *next;
        char *program;
        ProgramWatchFn fn;
        void *userdata;
};

int node_client_watch(
        Node *n, const char *program, ProgramWatchFn fn, void *userdata, ProgramWatch **ret, TbError **err)
{
        ProgramWatch *w = calloc(1, sizeof(*w));

        if (!w || !(w->program = strdup(program))) {
                free(w);
                return tb_error_oom(err);
        }
        w->client = n->client;
        w->fn = fn;
        w->userdata = userdata;
        w->next = n->client->watches;
        n->client->watches = w;
        *ret = w;
        return 0;
}

ProgramWatch *node_client_unwatch(ProgramWatch *w)
{
        if (!w)
                return NULL;
        for (ProgramWatch **p = &w->client->watches; *p; p = &(*p)->next)
                if (*p == w) {
                        *p = w->next;
                        break;
                }
        free(w->program);
        free(w);
        return NULL;
}

/* From the start again after each: whoever is told may have unwatched others. */
void node_report_tell(NodeClient *c, const char *program, const json_t *outcome)
{
        for (ProgramWatch *w = c->watches; w;) {
                if (!program || tb_streq(w->program, program)) {
                        ProgramWatchFn fn = w->fn;
                        void *userdata = w->userdata;

                        node_client_unwatch(w);
                        fn(outcome, userdata);
                        w = c->watches;
                } else
                        w = w->next;
        }
}

void node_client_report_ready(Node *n)
{
        if (n->client && update(n, "ready", json_true()))
                node_report_event(n, "node-ready",
                        json_pack("{s:i, s:i}", "ready", (int) experiment_ready(n), "total",
                                (int) experiment_size(n)));
}

void node_report_forget_programs(Node *n)
{
        json_t *programs = json_object_get(n->client->status, "programs"), *value;
        const char *name;
        void *next;

        json_object_foreach_safe(programs, next, name, value) if (!is_declared(n, name))(void)
                json_object_del(programs, name);
}

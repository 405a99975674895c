/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The service: stays connected to the agent, makes the node what is declared, runs what is to run, reports
 *
 * One loop, which sleeps in poll() until the agent says something, a job ends, a route changes or a signal comes. While the agent is away it
 * tries again after growing pauses of at most 5 s. Reports are never queued for an agent that isn't there: when it comes back it gets the whole
 * state again, so that what happened meanwhile can't be lost, and what was lost with a connection doesn't matter.
 *
 * Nothing starts before the first declaration: who the node is and what it may run is the agent's to say.
 */
#include "augment/client/client-service.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "augment/client/client-apply.h"
#include "augment/client/client-jobs.h"
#include "augment/client/client-link.h"
#include "augment/client/client-system.h"
#include "augment/client/signals.h"
#include "augment/client/util.h"

#define PAUSE_FIRST_MS 100
#define PAUSE_MAX_MS 5000
#define ANSWER_MS 30000
#define ROUTES_MS 5000

enum {
        ID_REPORT = 0,
        ID_ATTACH = 1,
        ID_DECLARATION = 2
};

typedef enum NodeReport {
        REPORT_NONE,    /* nothing is known yet */
        REPORT_BOOTING, /* the first declaration is being applied */
        REPORT_UP,
        REPORT_FAILED, /* something declared is not so; the rest is */
        _REPORT_MAX,
} NodeReport;

static const char *const report_names[] = {
        [REPORT_NONE] = "unknown",
        [REPORT_BOOTING] = "booting",
        [REPORT_UP] = "up",
        [REPORT_FAILED] = "failed",
};
_Static_assert(ELEMENTSOF(report_names) == _REPORT_MAX, "a name for each state");

typedef struct Service {
        const ServiceOptions *options;
        char directory[128]; /* <rundir>/client */
        Link link;
        Jobs jobs;
        json_t *declaration;
        NodeReport report;
        char reason[400];
        Problems problems; /* of the last time that the declaration was applied, without routes */
        bool applied;      /* at least once */
        int signal_fd, route_fd;
        int64_t retry_at, answer_due, routes_due; /* ms of CLOCK_MONOTONIC; -1: not waiting */
        int64_t pause;
        bool ended;
} Service;

static int64_t now_ms(void)
{
        struct timespec ts = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- Telling -------------------------------------------------------------------------------------------------------- */

static void disconnect(Service *s)
{
        link_close(&s->link);
        s->answer_due = -1;
        s->retry_at = now_ms() + s->pause;
        s->pause = MIN2(s->pause * 2, (int64_t) PAUSE_MAX_MS);
}

static void send_message(Service *s, json_t *message)
{
        if (s->link.fd < 0)
                json_decref(message);
        else if (link_send(&s->link, message) < 0)
                disconnect(s);
}

/* What the commands of this node's users show besides the agent's answers. */
static void write_state_file(Service *s)
{
        json_t *problems = json_array(), *j;
        _cleanup_free_ char *text = NULL;
        char path[PATH_MAX];

        for (unsigned i = 0; problems && i < MIN2(s->problems.count, (unsigned) PROBLEMS_KEPT); i++)
                (void) json_array_append_new(problems, json_string(s->problems.reason[i]));
        j = json_pack("{s:s, s:s?, s:o, s:o, s:o}", "state", report_names[s->report], "reason",
                s->reason[0] ? s->reason : NULL, "problems", problems, "startup",
                job_to_json(&s->jobs.startup), "programs", jobs_to_json(&s->jobs));
        text = j ? json_dumps(j, JSON_COMPACT) : NULL;
        json_decref(j);
        format_path(path, sizeof(path), "%s/state.json", s->directory);
        if (text)
                (void) !write_text_file(path, 0644, text);
}

static void send_state(Service *s)
{
        if (s->report != REPORT_NONE)
                send_message(s,
                        json_pack("{s:i, s:s, s:s, s:s*}", "id", ID_REPORT, "op", "state", "state",
                                report_names[s->report], "reason",
                                s->report == REPORT_FAILED ? s->reason : NULL));
}

static void send_job(Service *s, const Job *j, const char *program)
{
        json_t *message = j->state == JOB_NONE ? NULL : job_to_json(j);

        if (!message)
                return;
        (void) json_object_set_new(message, "id", json_integer(ID_REPORT));
        (void) json_object_set_new(message, "op", json_string(program ? "program" : "startstatus"));
        if (program)
                (void) json_object_set_new(message, "name", json_string(program));
        else
                (void) json_object_del(message, "pid");
        send_message(s, message);
}

static void send_everything(Service *s)
{
        send_state(s);
        send_job(s, &s->jobs.startup, NULL);
        for (size_t i = 0; i < s->jobs.n && s->link.fd >= 0; i++)
                if (s->jobs.programs[i].declared)
                        send_job(s, &s->jobs.programs[i].job, s->jobs.programs[i].name);
}

/* The one place where the state changes. */
static void set_report(Service *s, NodeReport report, const char *reason)
{
        if (s->report == report && strcmp(s->reason, reason) == 0)
                return;
        s->report = report;
        snprintf(s->reason, sizeof(s->reason), "%s", reason);
        write_state_file(s);
        send_state(s);
}

/* ---- Declaration ---------------------------------------------------------------------------------------------------- */

/* Up, or why not. Routes come from outside, perhaps a moment after us: they have ROUTES_MS. */
static void judge(Service *s)
{
        Problems p = s->problems;
        unsigned missing = routes_check(json_object_get(s->declaration, "routes"), &p);
        char reason[400];

        if (missing == 0 || s->route_fd < 0)
                s->routes_due = -1;
        else if (missing == p.count && s->report != REPORT_FAILED) {
                if (s->routes_due < 0)
                        s->routes_due = now_ms() + ROUTES_MS;
                if (now_ms() < s->routes_due)
                        return;
                s->routes_due = -1;
        }
        if (p.count == 0) {
                set_report(s, REPORT_UP, "");
                return;
        }
        snprintf(reason, sizeof(reason), "%s", p.reason[0]);
        if (p.count > 1)
                snprintf(reason + strlen(reason), sizeof(reason) - strlen(reason), " (and %u more)",
                        p.count - 1);
        set_report(s, REPORT_FAILED, reason);
}

static void apply(Service *s)
{
        const char *path = s->options->image_env ? env_get(s->options->image_env, "PATH") : NULL;
        ApplyPlace place = {
                .root = "",
                .rundir = s->options->rundir,
                .path = path && *path ? path
                                      : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        };

        if (s->report == REPORT_NONE)
                set_report(s, REPORT_BOOTING, "");
        s->problems = (Problems){};
        node_apply(&place, s->declaration, &s->problems);
        jobs_declare(&s->jobs, s->declaration);
        /* Once per start of the container: its file is there then. */
        if (s->jobs.startup.state == JOB_NONE &&
                json_is_object(json_object_get(s->declaration, "startup"))) {
                jobs_start_startup(&s->jobs);
                send_job(s, &s->jobs.startup, NULL);
        }
        s->applied = true;
        write_state_file(s);
        judge(s);
}

static void ask_declaration(Service *s)
{
        send_message(s, json_pack("{s:i, s:s}", "id", ID_DECLARATION, "op", "declaration"));
        if (s->answer_due < 0 && s->link.fd >= 0)
                s->answer_due = now_ms() + ANSWER_MS;
}

static void take_declaration(Service *s, json_t *answer)
{
        s->answer_due = -1;
        s->pause = PAUSE_FIRST_MS;
        /* What is there already costs nothing, and what somebody changed meanwhile is put right. */
        json_decref(s->declaration);
        s->declaration = json_incref(answer);
        apply(s);
}

/* ---- Messages ------------------------------------------------------------------------------------------------------- */

static void take_program_event(Service *s, const json_t *event)
{
        const char *name = member_string(event, "name", ""), *action = member_string(event, "action", "");
        Program *program = jobs_find(&s->jobs, name);
        uint64_t signal = SIGKILL;

        if (!program)
                return;
        if (strcmp(action, "start") == 0)
                jobs_start_program(&s->jobs, program);
        else if (strcmp(action, "stop") == 0)
                (void) !job_stop(&program->job);
        else if (strcmp(action, "kill") == 0 && member_number(event, "signal", NSIG - 1, &signal) != -EINVAL)
                (void) !job_kill(&program->job, (int) signal);
        write_state_file(s);
        send_job(s, &program->job, program->name);
}

static void take_message(Service *s, json_t *message)
{
        const char *event = member_string(message, "event", NULL);
        json_int_t id = json_integer_value(json_object_get(message, "id"));

        if (!event) {
                bool ok = json_is_true(json_object_get(message, "ok"));

                if (id == ID_DECLARATION && ok)
                        take_declaration(s, message);
                else if (id == ID_DECLARATION || (id == ID_ATTACH && !ok))
                        disconnect(s); /* it has trouble of its own; later */
                return;
        }
        if (strcmp(event, "changed") == 0) {
                ask_declaration(s);
        } else if (strcmp(event, "program") == 0) {
                take_program_event(s, message);
        } else if (strcmp(event, "startup") == 0) {
                jobs_start_startup(&s->jobs);
                write_state_file(s);
                send_job(s, &s->jobs.startup, NULL);
        }
}

static void try_connect(Service *s)
{
        s->retry_at = -1;
        if (link_open(&s->link, s->options->socket) < 0) {
                disconnect(s);
                return;
        }
        send_message(s, json_pack("{s:i, s:s}", "id", ID_ATTACH, "op", "attach"));
        send_everything(s);
        if (s->link.fd >= 0)
                ask_declaration(s);
}

static void handle_link(Service *s, short events)
{
        int r = 1;
        bool bad = false;
        json_t *message;

        if (events & POLLOUT)
                r = link_flush(&s->link);
        if (r >= 0 && (events & (POLLIN | POLLHUP | POLLERR)))
                r = link_read(&s->link);
        else if (r >= 0)
                r = 1;
        while (s->link.fd >= 0 && (message = link_next(&s->link, &bad))) {
                take_message(s, message);
                json_decref(message);
        }
        if (s->link.fd >= 0 && (r <= 0 || bad))
                disconnect(s);
}

/* ---- Loop ----------------------------------------------------------------------------------------------------------- */

static void handle_signals(Service *s)
{
        struct signalfd_siginfo si;

        while (read(s->signal_fd, &si, sizeof(si)) == (ssize_t) sizeof(si)) {
                if (si.ssi_signo == SIGTERM || si.ssi_signo == SIGINT)
                        s->ended = true;
                else if (si.ssi_signo == SIGHUP && s->link.fd >= 0)
                        ask_declaration(s);
        }
}

static void handle_routes(Service *s)
{
        char buffer[16384];

        /* What changed doesn't matter, nor that some of it was lost: all is looked at again. */
        while (recv(s->route_fd, buffer, sizeof(buffer), MSG_DONTWAIT) > 0)
                ;
        if (s->applied)
                judge(s);
}

static void handle_jobs(Service *s)
{
        bool changed = false;

        if (job_update(&s->jobs.startup, s->directory)) {
                send_job(s, &s->jobs.startup, NULL);
                changed = true;
        }
        for (size_t i = 0; i < s->jobs.n; i++)
                if (job_update(&s->jobs.programs[i].job, s->directory)) {
                        if (s->jobs.programs[i].declared)
                                send_job(s, &s->jobs.programs[i].job, s->jobs.programs[i].name);
                        changed = true;
                }
        jobs_forget(&s->jobs);
        if (changed)
                write_state_file(s);
}

static void handle_time(Service *s)
{
        int64_t now = now_ms();

        if (s->answer_due >= 0 && now >= s->answer_due)
                disconnect(s);
        if (s->routes_due >= 0 && now >= s->routes_due)
                judge(s);
        if (s->retry_at >= 0 && now >= s->retry_at)
                try_connect(s);
}

static int poll_timeout(const Service *s)
{
        const int64_t times[] = {s->retry_at, s->answer_due, s->routes_due};
        int64_t first = -1, left;

        for (size_t i = 0; i < ELEMENTSOF(times); i++)
                if (times[i] >= 0 && (first < 0 || times[i] < first))
                        first = times[i];
        if (first < 0)
                return -1;
        left = first - now_ms();
        return left < 0 ? 0 : (int) MIN2(left, (int64_t) INT_MAX);
}

static int turn(Service *s)
{
        static struct pollfd p[3 + JOBS_FDS_MAX];
        size_t n = 3;

        p[0] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
        p[1] = (struct pollfd){.fd = s->route_fd, .events = POLLIN};
        p[2] = (struct pollfd){
                .fd = s->link.fd, .events = (short) (POLLIN | (link_wants_write(&s->link) ? POLLOUT : 0))};
        n += jobs_poll(&s->jobs, p + 3);
        if (poll(p, n, poll_timeout(s)) < 0)
                return errno == EINTR ? 0 : -errno;
        if (p[0].revents)
                handle_signals(s);
        if (p[1].revents)
                handle_routes(s);
        if (p[2].revents && s->link.fd >= 0)
                handle_link(s, p[2].revents);
        for (size_t i = 3; i < n; i++)
                if (p[i].revents) {
                        handle_jobs(s);
                        break;
                }
        handle_time(s);
        return 0;
}

int service_run(const ServiceOptions *options)
{
        Service s = {
                .options = options,
                .link = {.fd = -1},
                .retry_at = -1,
                .answer_due = -1,
                .routes_due = -1,
                .pause = PAUSE_FIRST_MS,
        };
        int r;

        /* Files get the modes that they are written with. */
        (void) umask(022);
        format_path(s.directory, sizeof(s.directory), "%s/client", options->rundir);
        r = make_dir(s.directory, 0755);
        if (r < 0) {
                say("tbnode-client: %s: %s", s.directory, strerror(-r));
                return 1;
        }
        r = signal_mask_set(UINT64_MAX, NULL);
        s.signal_fd = r < 0 ? r : signal_fd_new(UINT64_MAX);
        if (s.signal_fd < 0) {
                say("tbnode-client: cannot receive signals: %s", strerror(-s.signal_fd));
                return 1;
        }
        s.route_fd = routes_watch();
        jobs_load(&s.jobs, s.directory, options);
        try_connect(&s);
        while (!s.ended && r >= 0)
                r = turn(&s);
        link_close(&s.link);
        jobs_done(&s.jobs);
        json_decref(s.declaration);
        return r < 0;
}

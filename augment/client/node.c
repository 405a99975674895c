/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Node mode: runit's supervision, ended by whoever stops the container
 *
 * init's own children are a runsv per service (supervise.h) and whatever is orphaned; all of it is reaped at once. main
 * is runsv's child, so what happens to it comes through a pipe from its run and finish programs (services.h); its pid
 * is held as a pidfd, so that no signal ever goes to a stranger.
 *
 * runit can't end a container in order: runsvdir leaves its services behind, and nobody would know main's status
 * (reference/images.md 0.3). So init does it: main gets the signal that came, in its own time; then everything gets
 * TERM and HUP; then, after a bound, KILL. Only then init ends. Docker's own time-out is above all of this.
 *
 * Nothing here has a period: an idle node sleeps until a signal or an event comes. The timers are the bound above and
 * the second before a runsv that was killed is started again.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "augment/client/exec-main.h"
#include "augment/client/node.h"
#include "augment/client/services.h"
#include "augment/client/signals.h"
#include "augment/client/supervise.h"
#include "augment/client/util.h"

/* For everything but main, from the first TERM to the KILL. */
#define END_BOUND_MS 3000

typedef enum NodeState {
        NODE_UP,       /* services run; main may or may not */
        NODE_STOPPING, /* a stop signal came, main has it; the container ends when main has ended */
        NODE_ENDING,   /* the services and all that is left have been told to end */
        NODE_ENDED,    /* nothing is left, or it was killed: init ends */
        _NODE_STATE_MAX,
} NodeState;

typedef struct Node {
        NodeState state;
        const MainSpec *spec;
        const NodeConf *conf;
        Supervisor supervisor;
        int event_fd, signal_fd;
        int main_pidfd; /* -EBADF: main isn't running */
        pid_t main_pid; /* 0: main isn't running */
        bool main_has_started;
        uint64_t held_signals; /* came before main was there */
        int status;            /* main's last exit status as Docker counts it */
        int64_t deadline;      /* of NODE_ENDING, in ms of CLOCK_MONOTONIC; -1: none */
} Node;

static int64_t now_ms(void)
{
        struct timespec ts = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool is_pid1(void)
{
        return getpid() == 1;
}

/* Once all that runs hears it, and every time that an orphan of what has ended has come to us. */
static void tell_to_end(void)
{
        /* runsv passes TERM on; a shell at a terminal wants HUP; what is stopped must go on to end. */
        static const int signals[] = {SIGTERM, SIGHUP, SIGCONT};

        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                if (is_pid1())
                        (void) kill(-1, signals[i]); /* all but us */
                else
                        (void) children_signal(signals[i]); /* the others may be the host's: --pid=host */
}

static void kill_the_rest(void)
{
        if (is_pid1())
                (void) kill(-1, SIGKILL);
        else
                children_kill();
}

/* The one place where the state changes. */
static void node_set_state(Node *n, NodeState state)
{
        if (n->state == state)
                return;
        n->state = state;

        switch (state) {
        case NODE_STOPPING:
                if (services_mark_stopping(n->supervisor.context.rundir) < 0)
                        say("%s: cannot write; main may be started again while the container ends",
                                n->supervisor.context.rundir);
                break;
        case NODE_ENDING:
                n->deadline = now_ms() + END_BOUND_MS;
                tell_to_end();
                break;
        case NODE_ENDED:
                kill_the_rest();
                break;
        case NODE_UP:
        case _NODE_STATE_MAX:
                break;
        }
}

static void write_status(Node *n, const MainEvent *e)
{
        char path[PATH_MAX], text[64];
        int r;

        format_path(path, sizeof(path), "%s/main.status", n->supervisor.context.rundir);
        if (e->kind == MAIN_EVENT_STARTED) {
                (void) unlink(path);
                return;
        }
        if (e->signal > 0)
                snprintf(text, sizeof(text), "signaled %d\n", e->signal);
        else
                snprintf(text, sizeof(text), "exited %d\n", e->code);
        r = write_text_file(path, 0644, text);
        if (r < 0)
                say("%s: %s", path, strerror(-r));
}

static void send_to_main(Node *n, int signal)
{
        if (n->main_pidfd >= 0)
                (void) syscall(SYS_pidfd_send_signal, n->main_pidfd, signal, NULL, 0);
        else if (!n->main_has_started)
                n->held_signals |= UINT64_C(1) << (signal - 1);
}

static void main_started(Node *n, const MainEvent *e)
{
        uint64_t held = n->held_signals;

        if (n->main_pidfd >= 0)
                close(n->main_pidfd);
        n->main_pidfd = (int) syscall(SYS_pidfd_open, e->pid, 0);
        n->main_pid = e->pid;
        n->main_has_started = true;
        n->held_signals = 0;
        for (int i = 1; i <= SIGNAL_MAX; i++)
                if (held & (UINT64_C(1) << (i - 1)))
                        send_to_main(n, i);
}

static void main_ended(Node *n, const MainEvent *e)
{
        if (n->main_pidfd >= 0)
                close(n->main_pidfd);
        n->main_pidfd = -EBADF;
        n->main_pid = 0;
        n->status = e->signal > 0 ? 128 + e->signal : e->code & 0xff;

        if (n->state == NODE_STOPPING || (n->conf->on_exit == ON_EXIT_STOP && !e->starts_anew))
                node_set_state(n, NODE_ENDING);
}

static void handle_events(Node *n)
{
        MainEvent e;

        while (read(n->event_fd, &e, sizeof(e)) == (ssize_t) sizeof(e)) {
                /* What ends while everything ends is not main's own doing. */
                if (n->state >= NODE_ENDING)
                        continue;
                write_status(n, &e);
                if (e.kind == MAIN_EVENT_STARTED)
                        main_started(n, &e);
                else if (e.kind == MAIN_EVENT_ENDED)
                        main_ended(n, &e);
        }
}

static bool means_stop(const Node *n, int signal)
{
        return signal == n->supervisor.context.stop_signal || signal == SIGTERM || signal == SIGINT ||
                signal == SIGQUIT;
}

static void handle_signals(Node *n)
{
        struct signalfd_siginfo si;

        while (read(n->signal_fd, &si, sizeof(si)) == (ssize_t) sizeof(si)) {
                int signal = (int) si.ssi_signo;

                /* What the kernel sends to a terminal's foreground group, main has got already. */
                if (signal == SIGCHLD || si.ssi_code == SI_KERNEL)
                        continue;
                if (n->state >= NODE_ENDING)
                        continue;
                if (means_stop(n, signal)) {
                        node_set_state(n, NODE_STOPPING);
                        if (!n->main_has_started)
                                n->status = 128 + signal; /* what it would have died of, unprepared */
                }
                send_to_main(n, signal);
                if (n->state == NODE_STOPPING && n->main_pid == 0)
                        node_set_state(n, NODE_ENDING);
        }
}

/* Its runsv was killed: nobody else will tell. */
static void main_ended_without_runsv(Node *n, int status, int64_t now)
{
        MainEvent e = {
                .kind = MAIN_EVENT_ENDED,
                .code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        };

        write_status(n, &e);
        main_ended(n, &e);
        supervisor_again(&n->supervisor, SERVICE_MAIN, n->conf->on_exit != ON_EXIT_RESTART, now);
}

static void main_runsv_ended(Node *n, int64_t now)
{
        handle_events(n); /* main's end may be among them, when somebody said `sv exit main` */
        if (n->state >= NODE_ENDING)
                return;
        if (!n->main_has_started) {
                say("tbnode: the services can't be started");
                n->status = EXIT_INIT_FAILED;
                node_set_state(n, NODE_ENDING);
                return;
        }
        if (n->main_pid == 0)
                supervisor_again(&n->supervisor, SERVICE_MAIN, n->conf->on_exit != ON_EXIT_RESTART, now);
}

static void reap(Node *n)
{
        int64_t now = now_ms();
        bool any = false;
        int status;
        pid_t pid;

        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
                any = true;
                if (n->state >= NODE_ENDING)
                        continue;
                if (pid == n->main_pid)
                        main_ended_without_runsv(n, status, now);
                else if (supervisor_reaped(&n->supervisor, pid, now) == SERVICE_MAIN)
                        main_runsv_ended(n, now);
        }
        if (n->state != NODE_ENDING)
                return;
        if (pid < 0 && errno == ECHILD)
                node_set_state(n, NODE_ENDED);
        else if (any && !is_pid1())
                tell_to_end();
}

static void handle_time(Node *n)
{
        int64_t now = now_ms();

        if (n->deadline >= 0 && now >= n->deadline)
                node_set_state(n, NODE_ENDED);
        if (n->state < NODE_ENDING)
                supervisor_dispatch(&n->supervisor, now);
}

/* For poll(2). */
static int time_left(const Node *n)
{
        int64_t due = n->deadline >= 0 ? n->deadline : supervisor_due(&n->supervisor), left;

        if (due <= 0)
                return -1;
        left = due - now_ms();
        return left < 0 ? 0 : (int) MIN2(left, (int64_t) END_BOUND_MS);
}

static int node_set_up(Node *n)
{
        ServiceContext *c = &n->supervisor.context;
        int fds[2], r;

        r = services_lay_out(&c->rundir);
        if (r < 0) {
                say("tbnode: no place to write for the services (%s); running the program only",
                        strerror(-r));
                return r;
        }
        n->signal_fd = signal_fd_new(UINT64_MAX);
        if (n->signal_fd < 0)
                return n->signal_fd;
        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        n->event_fd = fds[0];
        c->event_fd = fds[1];
        if (fcntl(n->event_fd, F_SETFL, O_NONBLOCK) < 0)
                return -errno;
        c->spec_fd = main_spec_to_fd(n->spec);
        if (c->spec_fd < 0)
                return c->spec_fd;
        r = supervisor_start(&n->supervisor);
        if (r < 0)
                say("tbnode: cannot start the services (%s); running the program only", strerror(-r));
        return r;
}

/* Nothing of us stays, as in a plain container. */
static int run_program_only(const MainSpec *spec, uint64_t mask)
{
        if (signal_mask_set(mask, NULL) < 0) {
                say("cannot restore the signal mask: %s", strerror(errno));
                return EXIT_INIT_FAILED;
        }
        (void) umask(spec->umask);
        return program_exec(spec->argv, spec->env, spec->user, spec->keep_home);
}

int node_run(const MainSpec *spec, const NodeConf *conf, int stop_signal, uint64_t mask)
{
        Node n = {
                .state = NODE_UP,
                .spec = spec,
                .conf = conf,
                .supervisor = {.context.stop_signal = stop_signal, .mask = mask},
                .main_pidfd = -EBADF,
                .deadline = -1,
        };

        if (node_set_up(&n) < 0)
                return run_program_only(spec, mask);

        while (n.state != NODE_ENDED) {
                struct pollfd p[] = {
                        {.fd = n.signal_fd, .events = POLLIN},
                        {.fd = n.event_fd, .events = POLLIN},
                };

                if (poll(p, ELEMENTSOF(p), time_left(&n)) < 0 && errno != EINTR)
                        return EXIT_INIT_FAILED;
                /* Events first: a stop signal that came with main's end finds it ended. */
                handle_events(&n);
                handle_signals(&n);
                reap(&n);
                handle_time(&n);
        }
        return n.status;
}

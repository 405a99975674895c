/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/docker-events.h"
#include "agent/gate-facts.h"
#include "agent/gate.h"
#include "agent/log-node.h"
#include "agent/reconcile.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"

#define SOCKET_NAME "gate.sock"
#define BACKLOG 512
#define FREEZE_USEC UINT64_C(1000000)

struct Gate {
        Manager *manager;
        sd_event_source *accept;
        sd_event_source *thaw; /* nothing is accepted until then */
        int listen_fd;
        GateCall *calls;
        unsigned n_calls;
};

/* One container that waits to start. */
struct GateCall {
        Gate *gate;
        GateCall *next, **link;
        int fd;
        sd_event_source *io;    /* its request, later its hang-up */
        sd_event_source *timer; /* GATE_TIMEOUT_USEC */
        sd_event_source *describe;
        char *buffer;
        size_t size;
        json_t *document;
        GateRequest request; /* borrows from the document */
        Node *node;          /* that it holds; NULL before the request is complete */
};

static void call_free(GateCall *c)
{
        if (c->node)
                c->node->gate = NULL;
        sd_event_source_disable_unref(c->io);
        sd_event_source_disable_unref(c->timer);
        sd_event_source_disable_unref(c->describe);
        tb_close(c->fd);
        json_decref(c->document);
        free(c->buffer);
        *c->link = c->next;
        if (c->next)
                c->next->link = c->link;
        c->gate->n_calls--;
        free(c);
}

/* The end of a call. `err` NULL: it may start. What the other side does not take any more needs no answer. */
static void call_answer(GateCall *c, const TbError *err)
{
        _cleanup_json_ json_t *j = err ? json_pack("{s:b, s:s}", "ok", 0, "error", tb_error_message(err))
                                       : json_pack("{s:b}", "ok", 1);
        _cleanup_free_ char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
        _cleanup_free_ char *line = text ? tb_asprintf("%s\n", text) : NULL;

        if (line)
                (void) send(c->fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (c->node)
                log_node(c->node, LOG_DEBUG, "start gate: %s", err ? tb_error_message(err) : "open");
        call_free(c);
}

/* ---- The node --------------------------------------------------------------------------------------------------- */

static int on_describe(sd_event_source *s, void *userdata)
{
        _cleanup_container_facts_ ContainerFacts facts = {};
        _cleanup_error_ TbError *err = NULL;
        GateCall *c = userdata;
        Node *n = c->node;
        Manager *m = c->gate->manager;

        c->describe = sd_event_source_disable_unref(c->describe);
        if (gate_facts_read(&c->request, &facts, &err) < 0) {
                if (err->code == -ESRCH)
                        node_event(n, NODE_EVENT_NOT_RUNNING, NULL);
                else
                        node_event(n, NODE_EVENT_FAIL, err);
                return 0;
        }
        node_take_facts(n, &facts); /* may answer and free the call */
        if (!m->synced && n->gate && n->state == NODE_CONFIGURING)
                reconcile_before_sync(m, n);
        return 0;
}

void gate_describe(GateCall *c)
{
        _cleanup_error_ TbError *err = NULL;

        if (c->describe)
                return;
        if (sd_event_add_defer(c->gate->manager->event, &c->describe, on_describe, c) >= 0)
                return;
        (void) tb_error_oom(&err);
        call_answer(c, err);
}

void gate_node_changed(Node *n)
{
        _cleanup_error_ TbError *err = NULL;

        if (!n->gate)
                return;
        switch (n->state) {
        case NODE_CONFIGURED:
                call_answer(n->gate, NULL);
                break;
        case NODE_FAILED:
                if (n->manager->config.gate_optional)
                        call_answer(n->gate, NULL);
                else if (!n->error ||
                        !n->error->retryable) /* else it is tried again, until GATE_TIMEOUT_USEC */
                        call_answer(n->gate, n->error);
                break;
        case NODE_REMOVING:
        case NODE_STOPPED:
                (void) tb_error_set(
                        &err, TB_ERROR_SYSTEM, -ESRCH, "the container's process ended before it started");
                call_answer(n->gate, err);
                break;
        case NODE_CREATED:
        case NODE_STARTING:
        case NODE_CONFIGURING:
        case _NODE_STATE_MAX:
        case _NODE_STATE_INVALID:
                break;
        }
}

void gate_node_gone(Node *n)
{
        _cleanup_error_ TbError *err = NULL;

        if (!n->gate)
                return;
        (void) tb_error_set(&err, TB_ERROR_SYSTEM, -ESRCH, "the container is being removed");
        call_answer(n->gate, err);
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        _cleanup_error_ TbError *err = NULL;
        GateCall *c = userdata;
        const char *missing = NULL;

        if (c->node && c->node->error)
                err = tb_error_copy(c->node->error);
        else if (c->node && !node_check_ready(c->node, &missing))
                (void) tb_error_set(&err, TB_ERROR_SYSTEM, -ETIMEDOUT,
                        "the node is not ready to start after %u s: %s",
                        (unsigned) (GATE_TIMEOUT_USEC / 1000000), missing);
        else
                (void) tb_error_set(&err, TB_ERROR_SYSTEM, -ETIMEDOUT,
                        "the node is not ready to start after %u s",
                        (unsigned) (GATE_TIMEOUT_USEC / 1000000));
        call_answer(c, err);
        return 0;
}

/* ---- The request ------------------------------------------------------------------------------------------------- */

/* A container that is asked for again (its runtime was killed, and docker tried once more): the later one counts. */
static void hold(GateCall *c, Node *n)
{
        if (n->gate)
                gate_node_gone(n);
        c->node = n;
        n->gate = c;
        n->touched_us = tb_now_us();
        n->event_us = n->touched_us;
        node_event(n, NODE_EVENT_START, NULL);
}

static void call_complete(GateCall *c)
{
        _cleanup_error_ TbError *err = NULL;
        Manager *m = c->gate->manager;
        Node *n = NULL;

        if (tb_json_parse(c->buffer, c->size, GATE_REQUEST_MAX, "the request to the start gate",
                    &c->document, &err) < 0 ||
                gate_request_parse(c->document, &c->request, &err) < 0 ||
                docker_events_find_or_add(m, c->request.id, c->request.name, c->request.labels, &n, &err) <
                        0) {
                call_answer(c, err);
                return;
        }
        if (n)
                hold(c, n);
        else
                call_answer(c, NULL); /* not ours */
}

static int on_io(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        _cleanup_error_ TbError *err = NULL;
        GateCall *c = userdata;
        char spare[64];

        if (c->node) { /* nothing more is expected: tbnode-runtime was killed */
                ssize_t n = read(fd, spare, sizeof(spare));
                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return 0;
                call_free(c);
                return 0;
        }
        ssize_t n = read(fd, c->buffer + c->size, GATE_REQUEST_MAX - c->size);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                call_free(c);
                return 0;
        }
        c->size += (size_t) n;
        if (c->buffer[c->size - 1] == '\n')
                call_complete(c);
        else if (c->size == GATE_REQUEST_MAX) {
                (void) tb_error_set(
                        &err, TB_ERROR_REMOTE, -EMSGSIZE, "the request to the start gate is too long");
                call_answer(c, err);
        }
        return 0;
}

static int on_thaw(sd_event_source *s, uint64_t usec, void *userdata)
{
        Gate *g = userdata;

        g->thaw = sd_event_source_disable_unref(g->thaw);
        (void) sd_event_source_set_enabled(g->accept, SD_EVENT_ON);
        return 0;
}

/* Out of descriptors or memory: who asks stays in the queue, and so would the event. */
static void freeze(Gate *g)
{
        if (g->thaw ||
                sd_event_add_time_relative(
                        g->manager->event, &g->thaw, CLOCK_MONOTONIC, FREEZE_USEC, 0, on_thaw, g) < 0)
                return;
        log_warning("no descriptor is free for the start gate: containers wait; raise the limit of open "
                    "files (LimitNOFILE=)");
        (void) sd_event_source_set_enabled(g->accept, SD_EVENT_OFF);
}

static int on_accept(sd_event_source *s, int listen_fd, uint32_t events, void *userdata)
{
        Gate *g = userdata;
        int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        GateCall *c;

        if (fd < 0) {
                if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                        freeze(g);
                return 0;
        }
        c = g->n_calls < GATE_CALLS_MAX ? calloc(1, sizeof(*c)) : NULL;
        if (!c) {
                tb_close(fd); /* it connects again */
                return 0;
        }
        *c = (GateCall){.gate = g, .fd = fd, .next = g->calls, .link = &g->calls};
        if (c->next)
                c->next->link = &c->next;
        g->calls = c;
        g->n_calls++;
        c->buffer = malloc(GATE_REQUEST_MAX);
        if (!c->buffer || sd_event_add_io(g->manager->event, &c->io, fd, EPOLLIN, on_io, c) < 0 ||
                sd_event_add_time_relative(g->manager->event, &c->timer, CLOCK_MONOTONIC, GATE_TIMEOUT_USEC,
                        0, on_timeout, c) < 0)
                call_free(c);
        return 0;
}

/* ---- The socket -------------------------------------------------------------------------------------------------- */

/* Made under another name and renamed: whoever waits for it in the directory finds it listening. */
static int gate_listen(Gate *g, TbError **err)
{
        const char *dir = g->manager->config.run_dir;
        _cleanup_free_ char *path = tb_asprintf("%s/" SOCKET_NAME, dir);
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        mode_t mask;

        if (!path)
                return tb_error_oom(err);
        if (snprintf(a.sun_path, sizeof(a.sun_path), "%s.new", path) >= (int) sizeof(a.sun_path))
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -ENAMETOOLONG, "run-dir is too long for a socket: %s", dir);
        if (unlink(a.sun_path) < 0 && errno != ENOENT)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot remove %s", a.sun_path);
        mask = umask(0177); /* root only: whoever answers here lets containers start */
        int r = bind(g->listen_fd, (struct sockaddr *) &a, sizeof(a)) < 0 ? -errno : 0;
        (void) umask(mask);
        if (r < 0 || listen(g->listen_fd, BACKLOG) < 0 || rename(a.sun_path, path) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, r < 0 ? r : -errno, "cannot listen on %s", path);
        return 0;
}

int gate_new(Manager *m, Gate **ret, TbError **err)
{
        Gate *g = calloc(1, sizeof(*g));
        int r;

        if (!g)
                return tb_error_oom(err);
        g->manager = m;
        g->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        r = g->listen_fd < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, errno, "cannot make a socket")
                             : gate_listen(g, err);
        if (r >= 0 && sd_event_add_io(m->event, &g->accept, g->listen_fd, EPOLLIN, on_accept, g) < 0)
                r = tb_error_oom(err);
        if (r < 0) {
                gate_free(g);
                return r;
        }
        *ret = g;
        return 0;
}

Gate *gate_free(Gate *g)
{
        if (!g)
                return NULL;
        while (g->calls)
                call_free(g->calls);
        sd_event_source_disable_unref(g->accept);
        sd_event_source_disable_unref(g->thaw);
        tb_close(g->listen_fd);
        free(g);
        return NULL;
}

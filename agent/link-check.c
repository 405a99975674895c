/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/link-check.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "agent/log-node.h"
#include "agent/message.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "netctl/link-expect.h"

#define ETHERNET_MTU 1500U /* what every link of Docker's carries; the rate does not depend on it */
/* A host that was too busy to fill a link gets another chance. */
#define RATE_TRIES 3
/* From the last node that was configured to the measurement: an experiment's nodes come in a row. */
#define QUIET_USEC (2 * UINT64_C(1000000))

/* One end, as it was when the check began: the node may be gone before its turn comes. */
typedef struct End {
        char *name;
        char id[CONTAINER_ID_LEN + 1];
        LinkProbeEnd probe; /* netns_fd is ours */
} End;

typedef struct Direction {
        char *network;
        End from, to;
        Shape expected;
} Direction;

/* What the child reports about one direction; smaller than PIPE_BUF, so it arrives whole (pipe(7)). */
typedef struct Record {
        uint32_t index;
        int32_t code; /* negative: `message` says why it could not be measured */
        char message[256];
        LinkProbeResult latency, rate;
} Record;
static_assert(sizeof(Record) < PIPE_BUF, "a record is written in one piece");

struct LinkCheck {
        Manager *manager;
        bool rate;
        LinkCheckOptions options;
        Direction *directions;
        size_t n, allocated;
        size_t reported;
        sd_event_source *child, *pipe;
        bool exited, closed;
};

static void direction_done(Direction *d)
{
        free(d->network);
        free(d->from.name);
        free(d->to.name);
        tb_close(d->from.probe.netns_fd);
        tb_close(d->to.probe.netns_fd);
}

LinkCheck *link_check_free(LinkCheck *c)
{
        if (!c)
                return NULL;
        if (c->child || c->pipe)
                c->manager->link_checks--;
        /* The child's source kills and reaps what still runs. */
        sd_event_source_disable_unref(c->child);
        sd_event_source_disable_unref(c->pipe);
        for (size_t i = 0; i < c->n; i++)
                direction_done(c->directions + i);
        free(c->directions);
        free(c);
        return NULL;
}

/* ---- In the child ------------------------------------------------------------------------------------------------ */

static int compare_fds(const void *a, const void *b)
{
        return *(const int *) a - *(const int *) b;
}

/* Everything but the namespaces and the pipe: a lock or a socket of the agent that lived on here would outlive the agent. */
static void close_others(const LinkCheck *c, int out)
{
        int keep[2 * LINK_CHECK_DIRECTIONS_MAX + 1];
        size_t n = 0;
        unsigned next = 3;

        keep[n++] = out;
        for (size_t i = 0; i < c->n; i++) {
                keep[n++] = c->directions[i].from.probe.netns_fd;
                keep[n++] = c->directions[i].to.probe.netns_fd;
        }
        qsort(keep, n, sizeof(*keep), compare_fds);
        for (size_t i = 0; i < n; i++) {
                if (keep[i] < (int) next)
                        continue;
                if ((unsigned) keep[i] > next && close_range(next, (unsigned) keep[i] - 1, 0) < 0)
                        _exit(EXIT_FAILURE);
                next = (unsigned) keep[i] + 1;
        }
        if (close_range(next, UINT_MAX, 0) < 0)
                _exit(EXIT_FAILURE);
}

static void measure(const LinkCheck *c, size_t index, Record *ret)
{
        const Direction *d = c->directions + index;
        _cleanup_error_ TbError *err = NULL;
        LinkProbeTrain latency, rate;

        *ret = (Record){.index = (uint32_t) index};
        link_trains(&d->expected, ETHERNET_MTU, &latency, &rate);
        ret->code = link_probe(&d->from.probe, &d->to.probe, &latency, &ret->latency, &err);
        for (int i = 0; ret->code >= 0 && c->rate && ret->latency.received > 0 && i < RATE_TRIES; i++) {
                ret->code = link_probe(&d->from.probe, &d->to.probe, &rate, &ret->rate, &err);
                if (link_judge(&d->expected, &ret->latency, &ret->rate) != LINK_NOT_MEASURED)
                        break;
        }
        if (ret->code < 0)
                (void) snprintf(ret->message, sizeof(ret->message), "%s", tb_error_message(err));
}

static _Noreturn void child_run(const LinkCheck *c, int out, pid_t parent)
{
        sigset_t none;

        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
                _exit(EXIT_FAILURE);
        (void) prctl(PR_SET_NAME, "tbnoded-links");
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        close_others(c, out);
        for (size_t i = 0; i < c->n; i++) {
                Record r;

                measure(c, i, &r);
                if (write(out, &r, sizeof(r)) != (ssize_t) sizeof(r))
                        _exit(EXIT_FAILURE);
        }
        _exit(EXIT_SUCCESS);
}

/* ---- What is measured -------------------------------------------------------------------------------------------- */

static const NetctlInterfaceStatus *find_interface(const Node *n, const char *network)
{
        if (n->state != NODE_CONFIGURED || !n->has_status || n->netns_fd < 0)
                return NULL;
        for (size_t i = 0; i < n->status.n_interfaces; i++) {
                const NetctlInterfaceStatus *s = n->status.interfaces + i;
                if (tb_streq(s->network, network) && s->ipv4.s_addr != INADDR_ANY)
                        return s;
        }
        return NULL;
}

static int end_take(const Node *n, const NetctlInterfaceStatus *s, End *ret, TbError **err)
{
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = s->ipv4};

        ret->name = strdup(node_display_name(n));
        memcpy(ret->id, n->id, sizeof(ret->id));
        ret->probe.netns_fd = fcntl(n->netns_fd, F_DUPFD_CLOEXEC, 3);
        memcpy(ret->probe.ifname, s->ifname, sizeof(ret->probe.ifname));
        memcpy(&ret->probe.address, &a, sizeof(a));
        if (!ret->name)
                return tb_error_oom(err);
        if (ret->probe.netns_fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_RESOURCE, errno, "cannot hold a node's network namespace");
        return 0;
}

/* One direction, if both ends are there and it is not in the list yet. */
static int add_direction(LinkCheck *c, const Node *from, const Node *to, const char *network, TbError **err)
{
        const NetctlInterfaceStatus *a = find_interface(from, network), *b = find_interface(to, network);
        _cleanup_link_shape_ LinkShape sender = {}, receiver = {};
        ShapePair up, down;

        if (!a || !b || from == to)
                return 0;
        for (size_t i = 0; i < c->n; i++)
                if (tb_streq(c->directions[i].network, network) &&
                        tb_streq(c->directions[i].from.id, from->id) &&
                        tb_streq(c->directions[i].to.id, to->id))
                        return 0;
        if (c->n == LINK_CHECK_DIRECTIONS_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -E2BIG,
                        "more than %u directions of links; name a node, or a network",
                        LINK_CHECK_DIRECTIONS_MAX);
        int r = node_shape(from, network, &sender, err);
        if (r >= 0)
                r = node_shape(to, network, &receiver, err);
        if (r < 0)
                return r;
        link_shape_for_peer(&sender, b->ipv4, &up);
        link_shape_for_peer(&receiver, a->ipv4, &down);
        if (c->n == c->allocated) {
                size_t want = c->allocated > 0 ? c->allocated * 2 : 8;
                Direction *v = reallocarray(c->directions, want, sizeof(*v));
                if (!v)
                        return tb_error_oom(err);
                c->directions = v;
                c->allocated = want;
        }
        Direction *d = c->directions + c->n++;
        *d = (Direction){
                .network = strdup(network), .from.probe.netns_fd = -EBADF, .to.probe.netns_fd = -EBADF};
        if (!d->network)
                return tb_error_oom(err);
        link_expect(&up.up, &down.down, &d->expected);
        r = end_take(from, a, &d->from, err);
        return r < 0 ? r : end_take(to, b, &d->to, err);
}

static int add_link(LinkCheck *c, const Node *a, const Node *b, const char *network, TbError **err)
{
        int r = add_direction(c, a, b, network, err);

        return r < 0 ? r : add_direction(c, b, a, network, err);
}

/* The node that follows on this network, in the order of ids and from the last to the first: a ring holds each node with two
 * others, in as many links as there are nodes. */
static const Node *next_on(const Manager *m, size_t i, const char *network)
{
        for (size_t k = 1; k < m->n_nodes; k++) {
                const Node *n = m->nodes[(i + k) % m->n_nodes];
                if (find_interface(n, network))
                        return n;
        }
        return NULL;
}

static int collect(LinkCheck *c, const LinkCheckOptions *o, TbError **err)
{
        const Manager *m = c->manager;
        int r = 0;

        for (size_t i = 0; i < m->n_nodes; i++) {
                const Node *n = m->nodes[i];

                if (o->node && n != o->node)
                        continue;
                for (size_t k = 0; r >= 0 && n->has_status && k < n->status.n_interfaces; k++) {
                        const char *network = n->status.interfaces[k].network;

                        if (!network || tb_streq(network, m->config.control_network) ||
                                (o->network && !tb_streq(network, o->network)))
                                continue;
                        if (!o->node) {
                                const Node *next = next_on(m, i, network);
                                r = next ? add_link(c, n, next, network, err) : 0;
                                continue;
                        }
                        for (size_t j = 0; r >= 0 && j < m->n_nodes; j++)
                                r = add_link(c, n, m->nodes[j], network, err);
                }
        }
        return r;
}

/* ---- In the agent ------------------------------------------------------------------------------------------------ */

static json_t *latency_to_json(const LinkProbeResult *r)
{
        return json_pack("{s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f}", "sent", (json_int_t) r->sent,
                "received", (json_int_t) r->received, "duplicates", (json_int_t) r->duplicates, "reordered",
                (json_int_t) r->reordered, "min_ms", (double) r->delay_min_ns / 1e6, "median_ms",
                (double) r->delay_median_ns / 1e6, "p99_ms", (double) r->delay_p99_ns / 1e6, "max_ms",
                (double) r->delay_max_ns / 1e6);
}

static json_t *rate_to_json(const LinkProbeResult *r)
{
        return json_pack("{s:I, s:I, s:f}", "offered_bps", (json_int_t) r->offered_bps, "measured_bps",
                (json_int_t) r->rate_bps, "seconds", (double) r->span_ns / 1e9);
}

static json_t *record_to_json(const LinkCheck *c, const Record *r)
{
        const Direction *d = c->directions + r->index;
        bool have_rate = c->rate && r->latency.received > 0;
        char text[SHAPE_TEXT_MAX];
        LinkVerdict v;

        if (r->code < 0)
                return json_pack("{s:s, s:s, s:s, s:s, s:s}", "network", d->network, "from", d->from.name,
                        "to", d->to.name, "declared", shape_print(&d->expected, text), "error", r->message);
        v = link_judge(&d->expected, &r->latency, have_rate ? &r->rate : NULL);
        json_t *as_declared = v == LINK_NOT_MEASURED ? json_null() : json_boolean(v == LINK_AS_DECLARED);
        return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:o*}", "network", d->network, "from",
                d->from.name, "to", d->to.name, "declared", shape_print(&d->expected, text), "as_declared",
                as_declared, "verdict", link_verdict_to_string(v), "latency", latency_to_json(&r->latency),
                "rate", have_rate ? rate_to_json(&r->rate) : NULL);
}

static void finish(LinkCheck *c)
{
        _cleanup_error_ TbError *err = NULL;
        void (*done)(size_t, const TbError *, void *) = c->options.done;
        void *userdata = c->options.userdata;
        size_t n = c->reported;

        if (!c->exited || !c->closed)
                return; /* the other half is still to come */
        if (c->reported < c->n)
                (void) tb_error_set(&err, TB_ERROR_SYSTEM, -EIO,
                        "measuring ended after %zu of %zu directions; see the journal", c->reported, c->n);
        link_check_free(c);
        done(n, err, userdata);
}

static int on_record(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        LinkCheck *c = userdata;
        Record r;

        ssize_t n = read(fd, &r, sizeof(r));
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return 0;
        if (n != (ssize_t) sizeof(r) || r.index >= c->n) {
                (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
                c->closed = true;
                finish(c);
                return 0;
        }
        r.message[sizeof(r.message) - 1] = '\0';
        c->reported++;
        _cleanup_json_ json_t *j = record_to_json(c, &r);
        if (j)
                c->options.link(j, c->options.userdata);
        return 0;
}

static int on_child(sd_event_source *s, const siginfo_t *si, void *userdata)
{
        LinkCheck *c = userdata;

        c->exited = true;
        finish(c);
        return 0;
}

static int check_spawn(LinkCheck *c, TbError **err)
{
        Manager *m = c->manager;
        int fds[2], r;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, errno, "cannot make a pipe");
        pid_t parent = getpid(), pid = fork();
        if (pid == 0)
                child_run(c, fds[1], parent);
        r = pid < 0 ? tb_error_set_errno(err, TB_ERROR_RESOURCE, errno, "cannot start measuring") : 0;
        tb_close(fds[1]);
        if (r >= 0)
                r = sd_event_add_io(m->event, &c->pipe, fds[0], EPOLLIN, on_record, c);
        if (r < 0) {
                tb_close(fds[0]);
                goto fail;
        }
        (void) sd_event_source_set_io_fd_own(c->pipe, true);
        r = sd_event_add_child(m->event, &c->child, pid, WEXITED, on_child, c);
        if (r < 0)
                goto fail;
        (void) sd_event_source_set_child_process_own(c->child, true);
        m->link_checks++;
        return 0;

fail:
        if (pid > 0) {
                (void) kill(pid, SIGKILL);
                (void) waitpid(pid, NULL, 0);
        }
        c->pipe = sd_event_source_disable_unref(c->pipe);
        return err && *err ? r : tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot watch the measuring");
}

int link_check_start(Manager *m, const LinkCheckOptions *options, LinkCheck **ret, TbError **err)
{
        LinkCheck *c;
        int r;

        if (m->link_checks >= LINK_CHECKS_MAX) {
                r = tb_error_set(err, TB_ERROR_RESOURCE, -EBUSY,
                        "%u link checks are running already; try again when they have ended",
                        LINK_CHECKS_MAX);
                tb_error_set_retryable(err);
                return r;
        }
        c = calloc(1, sizeof(*c));
        if (!c)
                return tb_error_oom(err);
        c->manager = m;
        c->options = *options;
        c->options.node = NULL; /* used up by collect() */
        c->options.network = NULL;
        c->rate = options->rate;
        r = collect(c, options, err);
        if (r >= 0 && c->n == 0)
                r = tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "there is no link to measure: it takes two configured nodes with addresses on one "
                        "experiment network of this host");
        if (r >= 0)
                r = check_spawn(c, err);
        if (r < 0) {
                link_check_free(c);
                return r;
        }
        *ret = c;
        return 0;
}

/* ---- After configuration ----------------------------------------------------------------------------------------- */

static void on_link(const json_t *link, void *userdata)
{
        Manager *m = userdata;
        const char *verdict = json_string_value(json_object_get(link, "verdict"));

        event_log_add(m->log, "link-check", json_deep_copy(link));
        if (!json_is_true(json_object_get(link, "as_declared")) &&
                !json_is_null(json_object_get(link, "as_declared")))
                log_message(LOG_WARNING, MESSAGE_LINK_NOT_AS_DECLARED,
                        "link %s, from %s to %s: %s (declared: %s)",
                        json_string_value(json_object_get(link, "network")),
                        json_string_value(json_object_get(link, "from")),
                        json_string_value(json_object_get(link, "to")),
                        verdict ?: json_string_value(json_object_get(link, "error")),
                        json_string_value(json_object_get(link, "declared")));
}

static void on_done(size_t measured, const TbError *err, void *userdata)
{
        Manager *m = userdata;

        m->link_check = NULL;
        if (err)
                log_warning("checking links: %s", tb_error_message(err));
}

static int on_quiet(sd_event_source *s, uint64_t usec, void *userdata)
{
        _cleanup_error_ TbError *err = NULL;
        Manager *m = userdata;
        LinkCheckOptions o = {.rate = m->config.check_links == CHECK_LINKS_FULL,
                .link = on_link,
                .done = on_done,
                .userdata = m};

        m->link_timer = sd_event_source_disable_unref(m->link_timer);
        m->link_check = link_check_free(m->link_check); /* nodes came meanwhile: all over again */
        if (link_check_start(m, &o, &m->link_check, &err) >= 0)
                return 0;
        if (err->retryable)
                link_check_configured(m);
        else if (err->code != -ENOENT)
                log_warning("cannot check links: %s", tb_error_message(err));
        return 0;
}

void link_check_configured(Manager *m)
{
        uint64_t now;

        if (m->config.check_links == CHECK_LINKS_NO)
                return;
        if (m->link_timer) {
                if (sd_event_now(m->event, CLOCK_MONOTONIC, &now) >= 0)
                        (void) sd_event_source_set_time(m->link_timer, now + QUIET_USEC);
                return;
        }
        if (sd_event_add_time_relative(
                    m->event, &m->link_timer, CLOCK_MONOTONIC, QUIET_USEC, QUIET_USEC / 4, on_quiet, m) < 0)
                log_warning("cannot check links: out of memory");
}

void link_check_stop(Manager *m)
{
        m->link_timer = sd_event_source_disable_unref(m->link_timer);
        m->link_check = link_check_free(m->link_check);
}

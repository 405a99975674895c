/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* GET /v1/nodes/NODE/logs?source=syslog: what the node's programs sent to its /dev/log. */

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/api-ops.h"
#include "agent/main-status.h"
#include "agent/node-syslog.h"
#include "common/cleanup.h"

/* A follower costs at most this: so much per round, and so many rounds per second, however much a node logs. */
#define ROUND_BYTES (64U * 1024)
#define ROUND_PAUSE_USEC (50 * UINT64_C(1000))

typedef struct SyslogOp {
        ApiRequest *request;
        NodeSyslog *log;
        int pidfd;
        bool ended;               /* the node: what is there is told, and then no more */
        sd_event_source *written; /* one shot: enabled when everything is told and the pause is over */
        sd_event_source *pause;
        sd_event_source *exited;
} SyslogOp;

static void syslog_op_free(SyslogOp *o)
{
        sd_event_source_disable_unref(o->written);
        sd_event_source_disable_unref(o->pause);
        sd_event_source_disable_unref(o->exited);
        node_syslog_free(o->log);
        if (o->pidfd >= 0)
                (void) close(o->pidfd);
        free(o);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        syslog_op_free(userdata);
}

static void finish(SyslogOp *o)
{
        api_stream_end(o->request);
        syslog_op_free(o);
}

/* One round: tells what is new, then rests. Without room it does nothing; the reader's progress starts the next one. */
static void tell(SyslogOp *o)
{
        char buffer[8192];
        size_t told = 0, n;

        for (;;) {
                if (!api_stream_has_room(o->request, sizeof(buffer)))
                        return;
                n = node_syslog_more(o->log, buffer, sizeof(buffer));
                if (n == 0)
                        break;
                if (!api_stream_text(o->request, buffer, n)) {
                        finish(o);
                        return;
                }
                told += n;
                if (told >= ROUND_BYTES)
                        break;
        }
        if (n == 0 && o->ended) {
                finish(o);
                return;
        }
        if (sd_event_source_set_time_relative(o->pause, ROUND_PAUSE_USEC) < 0 ||
                sd_event_source_set_enabled(o->pause, SD_EVENT_ONESHOT) < 0)
                finish(o);
}

static int on_written(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        tell(userdata);
        return 0;
}

/* Nothing is lost meanwhile: the notifications wait in their descriptor. */
static int on_pause(sd_event_source *s, uint64_t usec, void *userdata)
{
        SyslogOp *o = userdata;

        if (o->ended)
                tell(o);
        else if (sd_event_source_set_enabled(o->written, SD_EVENT_ONESHOT) < 0)
                finish(o);
        return 0;
}

static int on_exited(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        SyslogOp *o = userdata;

        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        o->ended = true;
        tell(o);
        return 0;
}

static void on_drained(ApiRequest *r, void *userdata)
{
        tell(userdata);
}

static int follow(SyslogOp *o, sd_event *event, pid_t pid, TbError **err)
{
        int fd, r;

        r = node_syslog_watch(o->log, &fd, err);
        if (r < 0)
                return r;
        o->pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        if (o->pidfd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot watch the container's process");
        r = sd_event_add_io(event, &o->written, fd, EPOLLIN, on_written, o);
        if (r >= 0)
                r = sd_event_source_set_enabled(o->written, SD_EVENT_ONESHOT);
        if (r >= 0)
                r = sd_event_add_io(event, &o->exited, o->pidfd, EPOLLIN, on_exited, o);
        if (r >= 0)
                r = sd_event_add_time_relative(
                        event, &o->pause, CLOCK_MONOTONIC, ROUND_PAUSE_USEC, 0, on_pause, o);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot follow its system log");
        return 0;
}

static int start(SyslogOp *o, const Node *n, size_t lines, bool follows, TbError **err)
{
        _cleanup_free_ char *text = NULL;
        size_t size;
        int root, r;

        if (n->identity.pid == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOTCONN,
                        "it is not running; its system log is inside the container");
        root = container_root_open(&n->identity, err);
        if (root < 0)
                return root;
        r = node_syslog_new(root, &o->log, err);
        if (r >= 0)
                r = node_syslog_tail(o->log, lines, &text, &size, err);
        if (r >= 0 && follows)
                r = follow(o, n->manager->event, n->identity.pid, err);
        if (r < 0)
                return r;
        api_stream_start(o->request);
        if (size > 0)
                (void) api_stream_text(o->request, text, size); /* smaller than API_STREAM_MAX */
        return 0;
}

void op_logs_syslog(ApiRequest *r, size_t lines, bool follows)
{
        _cleanup_error_ TbError *err = NULL;
        SyslogOp *o;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        o = calloc(1, sizeof(*o));
        if (!o) {
                api_reply(r, 507, NULL);
                return;
        }
        o->request = r;
        o->pidfd = -EBADF;
        if (start(o, n, lines, follows, &err) < 0) {
                tb_error_prefix(&err, "node %s", node_display_name(n));
                syslog_op_free(o);
                api_reply_error(r, err);
                return;
        }
        if (!follows) {
                finish(o);
                return;
        }
        api_request_on_gone(r, on_gone, o);
        api_stream_on_drained(r, on_drained, o);
}

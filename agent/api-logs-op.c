/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * GET /v1/nodes/NODE/logs with a system log, or as JSON lines: source=all (what the engine has of the container, and the node's system log, in the
 * order of time) and source=syslog.
 *
 * Both are streams, merged as they come (log-merge.h): no log is held in memory. So the last N lines of both take two readings,
 * COUNT and HISTORY: how many there are is not known before. HISTORY ends with what is there now; LIVE asks the engine for what
 * follows the last line that was told, and watches the system log's files from before the first reading.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/api-logs.h"
#include "agent/log-merge.h"
#include "agent/log-time.h"
#include "agent/main-status.h"
#include "agent/node-syslog.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* A follower costs at most this: so much per round, and so many rounds per second, however much a node logs. */
#define ROUND_BYTES (64U * 1024)
#define ROUND_PAUSE_USEC (50 * UINT64_C(1000))
#define READ_BYTES 8192U
/* All that there is at once; a node that writes faster than that is read must not hold us. */
#define HISTORY_BYTES (2U * NODE_SYSLOG_FILE_MAX)
/* What waits for a reader who is slow; the rest stays where it is. */
#define OUT_MAX (256U * 1024)

typedef enum Phase {
        PHASE_COUNT,
        PHASE_HISTORY,
        PHASE_LIVE,
} Phase;

typedef struct LogsOp {
        ApiRequest *request;
        Manager *manager;
        LogsQuery query;
        char id[CONTAINER_ID_LEN + 1];
        char *node; /* its name, for JSON */
        ProcessIdentity identity;
        bool tty;
        Phase phase;
        uint64_t started_ns, last_ns; /* of the engine's last line */
        uint64_t lines, skip;         /* lines there are, and those that are not told */
        bool skipping, open;          /* this line; a line was begun in the answer */

        LogMerge *merge;
        TbEngineRequest *call;
        bool paused, broken, in_data;
        NodeSyslog *log; /* NULL: the output alone */
        int pidfd;
        bool read_all; /* the system log ends here, in this phase */
        bool ended;    /* the node, or the engine's stream of what comes */
        size_t round;  /* bytes of the system log that may still be read in this round */
        sd_event_source *written, *pause, *exited;
} LogsOp;

static void logs_op_free(LogsOp *o)
{
        sd_event_source_disable_unref(o->written);
        sd_event_source_disable_unref(o->pause);
        sd_event_source_disable_unref(o->exited);
        tb_engine_request_free(o->call);
        node_syslog_free(o->log);
        log_merge_free(o->merge);
        if (o->pidfd >= 0)
                (void) close(o->pidfd);
        free(o->node);
        free(o);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        logs_op_free(userdata);
}

static void finish(LogsOp *o)
{
        api_stream_end(o->request);
        logs_op_free(o);
}

/* ---- What goes out ------------------------------------------------------------------------------------------------ */

static bool has_room(const LogsOp *o)
{
        /* In JSON a byte may become six. */
        return o->phase == PHASE_COUNT ||
                api_stream_has_room(o->request,
                        API_STREAM_MAX - OUT_MAX + LOG_PIECE_MAX * (o->query.json ? 6 : 1) + 512);
}

static bool emit_json(LogsOp *o, const LogPiece *p)
{
        _cleanup_json_ json_t *j = log_piece_to_json(p, o->node);
        _cleanup_free_ char *text = NULL;
        size_t size = 0;

        if (!j || tb_json_dump(j, false, &text, &size, NULL) < 0)
                return false;
        text[size] = '\n'; /* in place of the terminator */
        return api_stream_text(o->request, text, size + 1);
}

static bool emit(LogsOp *o, const LogPiece *p)
{
        static const char *const marks[] = {[LOG_OUTPUT] = "output | ", [LOG_SYSLOG] = "syslog | "};
        const char *mark = p->starts ? marks[p->source] : "";

        if (p->source == LOG_OUTPUT)
                o->last_ns = p->time_ns;
        if (p->starts) {
                o->skipping = o->skip > 0;
                if (o->skipping)
                        o->skip--;
        }
        if (o->skipping)
                return true;
        if (o->query.json)
                return emit_json(o, p);
        /* The other source broke off in the midst of a line. */
        if (p->starts && o->open && !api_stream_text(o->request, "\n", 1))
                return false;
        o->open = p->text[p->size - 1] != '\n';
        return (o->query.source != LOGS_ALL || api_stream_text(o->request, mark, strlen(mark))) &&
                api_stream_text(o->request, p->text, p->size);
}

/* 0 = there is no more of the system log now. */
static size_t read_syslog(LogsOp *o)
{
        char buffer[READ_BYTES];
        size_t n, total = 0;

        while (!o->read_all && log_merge_has_room(o->merge, LOG_SYSLOG)) {
                n = o->round > 0 ? node_syslog_more(o->log, buffer, sizeof(buffer)) : 0;
                if (n == 0) {
                        o->read_all = o->phase != PHASE_LIVE || o->ended;
                        if (o->read_all)
                                log_merge_end(o->merge, LOG_SYSLOG);
                        break;
                }
                if (log_merge_feed(o->merge, LOG_SYSLOG, buffer, n, NULL) < 0) {
                        o->broken = true;
                        break;
                }
                o->round -= MIN2(n, o->round);
                total += n;
        }
        return total;
}

static int phase_begin(LogsOp *o, Phase phase, TbError **err);

/* In LIVE: nothing is lost while it rests, the notifications wait in their descriptor. */
static void rest(LogsOp *o)
{
        if (o->log && o->phase == PHASE_LIVE && !o->ended &&
                (sd_event_source_set_time_relative(o->pause, ROUND_PAUSE_USEC) < 0 ||
                        sd_event_source_set_enabled(o->pause, SD_EVENT_ONESHOT) < 0))
                o->broken = true;
}

/* Everything that is there goes out, as far as the reader takes it. May free `o`, but not from within the engine's data. */
static void pump(LogsOp *o)
{
        _cleanup_error_ TbError *err = NULL;
        size_t got;
        LogPiece p;

        do {
                got = read_syslog(o);
                while (!o->broken && has_room(o) && log_merge_next(o->merge, o->phase == PHASE_LIVE, &p)) {
                        got += p.size;
                        if (o->phase == PHASE_COUNT)
                                o->lines += p.starts;
                        else if (!emit(o, &p))
                                o->broken = true;
                }
        } while (got > 0 && !o->broken && has_room(o));

        if (o->in_data)
                return;
        if (o->broken) {
                finish(o);
                return;
        }
        if (o->paused && log_merge_has_room(o->merge, LOG_OUTPUT)) {
                o->paused = false;
                tb_engine_request_resume(o->call);
        }
        if (!log_merge_is_done(o->merge))
                return;
        if (o->phase == PHASE_LIVE || (o->phase == PHASE_HISTORY && !o->query.follow)) {
                finish(o);
                return;
        }
        if (o->phase == PHASE_COUNT)
                o->skip = o->lines - MIN2(o->lines, o->query.tail);
        if (phase_begin(o, o->phase + 1, &err) < 0)
                finish(o);
        else
                pump(o); /* once for each phase */
}

static void on_drained(ApiRequest *r, void *userdata)
{
        pump(userdata);
}

/* ---- The engine's part --------------------------------------------------------------------------------------------- */

static ssize_t on_data(TbEngineRequest *r, const void *data, size_t size, void *userdata)
{
        LogsOp *o = userdata;

        if (!log_merge_has_room(o->merge, LOG_OUTPUT)) {
                o->paused = true;
                return TB_HTTP_PAUSE;
        }
        if (log_merge_feed(o->merge, LOG_OUTPUT, data, size, NULL) < 0)
                return -ENOMEM;
        o->in_data = true;
        pump(o);
        o->in_data = false;
        return o->broken ? -ENOBUFS : 0;
}

static void on_done(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        LogsOp *o = userdata;

        log_merge_end(o->merge, LOG_OUTPUT);
        if (o->phase == PHASE_LIVE) {
                o->ended = true;
                o->round = HISTORY_BYTES;
        }
        pump(o);
}

/* "&since=SECONDS.NANOSECONDS" */
static char *since_query(uint64_t ns)
{
        return ns == 0 ? strdup("")
                       : tb_asprintf("&since=%llu.%09llu", (unsigned long long) (ns / 1000000000),
                                 (unsigned long long) (ns % 1000000000));
}

static int ask_engine(LogsOp *o, TbError **err)
{
        _cleanup_free_ char *path = NULL, *since = NULL;
        char tail[32] = "";
        uint64_t from = o->query.since_ns;

        if (o->phase == PHASE_LIVE)
                from = o->last_ns > 0 ? o->last_ns + 1 : o->query.tail == 0 ? o->started_ns : from;
        else if (o->query.tail != LOGS_ALL_LINES)
                (void) snprintf(tail, sizeof(tail), "&tail=%llu", (unsigned long long) o->query.tail);
        since = since_query(from);
        path = since ? tb_asprintf("/containers/%s/logs?stdout=1&stderr=1&timestamps=1%s%s%s", o->id, tail,
                               since, o->phase == PHASE_LIVE ? "&follow=1" : "")
                     : NULL;
        o->paused = false;
        o->call = tb_engine_request_free(o->call);
        if (!path)
                return tb_error_oom(err);
        return tb_engine_call(o->manager->engine,
                &(TbEngineCall){
                        .method = "GET", .path = path, .data = on_data, .done = on_done, .userdata = o},
                &o->call, err);
}

/* ---- The system log's part ------------------------------------------------------------------------------------------ */

static int open_syslog(LogsOp *o, NodeSyslog **ret, TbError **err)
{
        int root = container_root_open(&o->identity, err);

        return root < 0 ? root : node_syslog_new(root, ret, err);
}

static int on_written(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        LogsOp *o = userdata;

        o->round = ROUND_BYTES;
        rest(o);
        pump(o);
        return 0;
}

static int on_pause(sd_event_source *s, uint64_t usec, void *userdata)
{
        LogsOp *o = userdata;

        if (o->round == 0) { /* there may be more of what was noticed */
                o->round = ROUND_BYTES;
                rest(o);
                pump(o);
        } else if (sd_event_source_set_enabled(o->written, SD_EVENT_ONESHOT) < 0)
                finish(o);
        return 0;
}

static int on_exited(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        LogsOp *o = userdata;

        (void) sd_event_source_set_enabled(s, SD_EVENT_OFF);
        o->ended = true;
        o->round = HISTORY_BYTES;
        pump(o);
        return 0;
}

static int watch(LogsOp *o, TbError **err)
{
        sd_event *event = o->manager->event;
        int fd, r;

        r = node_syslog_watch(o->log, &fd, err);
        if (r < 0)
                return r;
        o->pidfd = (int) syscall(SYS_pidfd_open, o->identity.pid, 0);
        if (o->pidfd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot watch the container's process");
        r = sd_event_add_io(event, &o->written, fd, EPOLLIN, on_written, o);
        if (r >= 0)
                r = sd_event_source_set_enabled(o->written, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_io(event, &o->exited, o->pidfd, EPOLLIN, on_exited, o);
        if (r >= 0)
                r = sd_event_source_set_enabled(o->exited, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time_relative(
                        event, &o->pause, CLOCK_MONOTONIC, ROUND_PAUSE_USEC, 0, on_pause, o);
        if (r >= 0)
                r = sd_event_source_set_enabled(o->pause, SD_EVENT_OFF);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot follow its system log");
        return 0;
}

/* ---- Phases --------------------------------------------------------------------------------------------------------- */

static int phase_begin(LogsOp *o, Phase phase, TbError **err)
{
        int r;

        o->phase = phase;
        o->read_all = false;
        o->merge = log_merge_free(o->merge);
        r = log_merge_new(
                o->tty, phase == PHASE_LIVE ? 0 : o->query.since_ns, o->started_ns, &o->merge, err);
        if (r < 0)
                return r;
        if (phase == PHASE_LIVE) {
                o->round = ROUND_BYTES;
                rest(o);
                if (o->log && sd_event_source_set_enabled(o->exited, SD_EVENT_ON) < 0)
                        return tb_error_oom(err);
        } else {
                o->round = HISTORY_BYTES;
                if (o->log)
                        node_syslog_rewind(o->log);
        }
        if (!o->log) {
                o->read_all = true;
                log_merge_end(o->merge, LOG_SYSLOG);
        }
        if (o->query.source != LOGS_SYSLOG)
                return ask_engine(o, err);
        log_merge_end(o->merge, LOG_OUTPUT);
        return 0;
}

int logs_op_start(ApiRequest *request, const Node *n, const LogsQuery *query, bool tty, TbError **err)
{
        LogsOp *o = calloc(1, sizeof(*o));
        int r;

        if (!o)
                return tb_error_oom(err);
        o->request = request;
        o->manager = n->manager;
        o->query = *query;
        memcpy(o->id, n->id, sizeof(o->id));
        o->identity = n->identity;
        o->tty = tty;
        o->started_ns = log_time_now();
        o->pidfd = -EBADF;
        o->node = strdup(node_display_name(n));
        r = !o->node ? tb_error_oom(err) : query->source == LOGS_OUTPUT ? 0 : open_syslog(o, &o->log, err);
        if (r >= 0 && o->log && query->follow)
                r = watch(o, err);
        if (r >= 0)
                r = phase_begin(o, query->tail != LOGS_ALL_LINES ? PHASE_COUNT : PHASE_HISTORY, err);
        if (r < 0) {
                logs_op_free(o);
                return r;
        }
        api_stream_start(request);
        api_request_on_gone(request, on_gone, o);
        api_stream_on_drained(request, on_drained, o);
        pump(o);
        return 0;
}

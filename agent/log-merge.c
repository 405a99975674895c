/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/log-merge.h"

#include <stdlib.h>
#include <string.h>

#include "agent/log-time.h"
#include "common/buffer.h"
#include "common/cleanup.h"

#define FRAME_HEADER 8U
/* The engine's copier reads so much at once, and a longer message is cut there (moby, daemon/logger/copier.go). */
#define MESSAGE_PART (16U * 1024)
#define TIME_MAX 40U
#define FEED_MAX (8U * 1024 * 1024)

typedef struct Input {
        TbBuffer data;
        size_t at; /* in data: what is before went out */
        bool ended;
        bool open;        /* the last piece did not end its line */
        uint64_t time_ns; /* of the last line */

        /* the piece in front, if found */
        bool found;
        size_t size;
} Input;

struct LogMerge {
        bool tty;
        uint64_t since_ns, now_ns;
        uint32_t frame_left; /* of the engine's frame */
        bool frame_begins;   /* nothing of it was looked at: a time comes first */
        bool timed;          /* tty: the time in front was taken away */
        size_t part;         /* tty: bytes of this part of the message that went out */
        bool dropping;       /* the system log's line is older than wanted */
        Input in[_LOG_SOURCE_MAX];
};

int log_merge_new(bool tty, uint64_t since_ns, uint64_t now_ns, LogMerge **ret, TbError **err)
{
        LogMerge *m = calloc(1, sizeof(*m));

        if (!m)
                return tb_error_oom(err);
        m->tty = tty;
        m->since_ns = since_ns;
        m->now_ns = now_ns;
        for (LogSource s = 0; s < _LOG_SOURCE_MAX; s++)
                m->in[s].data = TB_BUFFER_INIT(FEED_MAX);
        *ret = m;
        return 0;
}

LogMerge *log_merge_free(LogMerge *m)
{
        if (!m)
                return NULL;
        for (LogSource s = 0; s < _LOG_SOURCE_MAX; s++)
                tb_buffer_done(&m->in[s].data);
        free(m);
        return NULL;
}

static size_t waiting(const Input *i)
{
        return i->data.size - i->at;
}

static const char *front(const Input *i)
{
        return i->data.data + i->at;
}

bool log_merge_has_room(const LogMerge *m, LogSource source)
{
        return waiting(&m->in[source]) < LOG_MERGE_INPUT;
}

int log_merge_feed(LogMerge *m, LogSource source, const void *data, size_t size, TbError **err)
{
        Input *i = &m->in[source];

        tb_buffer_consume(&i->data, i->at);
        i->at = 0;
        return tb_buffer_append(&i->data, data, size, err);
}

void log_merge_end(LogMerge *m, LogSource source)
{
        m->in[source].ended = true;
}

/* The engine's time and the space behind it, in front. False: it may still be on its way. */
static bool take_time(Input *i, size_t available)
{
        size_t n;
        uint64_t ns;

        if (available == 0)
                return i->ended;
        n = log_time_rfc3339(front(i), MIN2(available, (size_t) TIME_MAX), &ns);
        if (n == 0 || n >= available || front(i)[n] != ' ')
                return available >= TIME_MAX || i->ended || memchr(front(i), '\n', available);
        i->time_ns = ns;
        i->at += n + 1;
        return true;
}

/* A piece: to the end of the line, or all there is when that is enough. 0: more is to come. */
static size_t piece_size(const Input *i, size_t available, size_t max, bool complete)
{
        const char *newline = memchr(front(i), '\n', MIN2(available, max));

        if (newline)
                return (size_t) (newline - front(i)) + 1;
        if (available >= max)
                return max;
        return complete ? available : 0;
}

static bool find_framed(LogMerge *m, Input *i)
{
        for (;;) {
                if (m->frame_left == 0) {
                        const unsigned char *h = (const unsigned char *) front(i);

                        if (waiting(i) < FRAME_HEADER) {
                                if (i->ended) /* cut off: nothing can be made of it */
                                        i->at = i->data.size;
                                return false;
                        }
                        m->frame_left =
                                (uint32_t) h[4] << 24 | (uint32_t) h[5] << 16 | (uint32_t) h[6] << 8 | h[7];
                        m->frame_begins = true;
                        i->at += FRAME_HEADER;
                        continue;
                }
                size_t available = MIN2(waiting(i), (size_t) m->frame_left), before = i->at;
                bool complete = available == m->frame_left || i->ended;

                if (m->frame_begins) {
                        if (!complete && available < TIME_MAX)
                                return false;
                        if (!take_time(i, available) && !complete)
                                return false;
                        m->frame_begins = false;
                        m->frame_left -= (uint32_t) (i->at - before);
                        if (m->frame_left == 0 || i->at > before)
                                continue; /* with what is left */
                }
                i->size = piece_size(i, available, LOG_PIECE_MAX, complete);
                return i->size > 0;
        }
}

static bool find_plain(LogMerge *m, Input *i)
{
        if (!m->timed && (!i->open || m->part >= MESSAGE_PART)) {
                if (!take_time(i, waiting(i)))
                        return false;
                m->timed = true;
                m->part = 0;
        }
        if (waiting(i) == 0)
                return false;
        i->size = piece_size(i, waiting(i), MESSAGE_PART - m->part, i->ended);
        return i->size > 0;
}

static bool find_syslog(LogMerge *m, Input *i)
{
        uint64_t ns;

        for (;;) {
                i->size = waiting(i) > 0 ? piece_size(i, waiting(i), LOG_PIECE_MAX, i->ended) : 0;
                if (i->size == 0)
                        return false;
                if (!i->open) {
                        if (log_time_syslog(front(i), i->size, m->now_ns, &ns))
                                i->time_ns = ns;
                        m->dropping = i->time_ns < m->since_ns;
                }
                if (!m->dropping)
                        return true;
                i->open = front(i)[i->size - 1] != '\n';
                i->at += i->size;
        }
}

static bool find(LogMerge *m, LogSource source)
{
        Input *i = &m->in[source];

        if (!i->found)
                i->found = source == LOG_SYSLOG ? find_syslog(m, i)
                        : m->tty                ? find_plain(m, i)
                                                : find_framed(m, i);
        return i->found;
}

static LogSource other(LogSource s)
{
        return s == LOG_OUTPUT ? LOG_SYSLOG : LOG_OUTPUT;
}

/* Which source is next; _LOG_SOURCE_INVALID: that is not known yet. */
static LogSource choose(LogMerge *m, bool live)
{
        for (LogSource s = 0; s < _LOG_SOURCE_MAX; s++)
                if (m->in[s].open) {
                        if (find(m, s))
                                return s;
                        if (!m->in[s].ended)
                                return _LOG_SOURCE_INVALID;
                        m->in[s].open = false; /* it ended in the midst of a line */
                }
        bool output = find(m, LOG_OUTPUT), syslog = find(m, LOG_SYSLOG);
        if (output && syslog)
                return m->in[LOG_SYSLOG].time_ns <= m->in[LOG_OUTPUT].time_ns ? LOG_SYSLOG : LOG_OUTPUT;
        if (!output && !syslog)
                return _LOG_SOURCE_INVALID;
        LogSource s = output ? LOG_OUTPUT : LOG_SYSLOG;
        return live || m->in[other(s)].ended ? s : _LOG_SOURCE_INVALID;
}

bool log_merge_next(LogMerge *m, bool live, LogPiece *ret)
{
        LogSource s = choose(m, live);
        Input *i;

        if (s < 0)
                return false;
        i = &m->in[s];
        *ret = (LogPiece){
                .source = s, .text = front(i), .size = i->size, .time_ns = i->time_ns, .starts = !i->open};
        i->open = ret->text[ret->size - 1] != '\n';
        i->at += i->size;
        i->found = false;
        if (s == LOG_OUTPUT && !m->tty)
                m->frame_left -= (uint32_t) i->size;
        else if (s == LOG_OUTPUT) {
                m->part += i->size;
                m->timed = i->open && m->part < MESSAGE_PART;
        }
        return true;
}

/* A string of JSON's: bytes that belong to no character of UTF-8 (RFC 3629) are replaced. */
static json_t *text_to_json(const char *text, size_t size)
{
        static const char other[] = "\xef\xbf\xbd";
        _cleanup_buffer_ TbBuffer out = TB_BUFFER_INIT(sizeof(other) * (size_t) LOG_PIECE_MAX + 8);
        json_t *whole = json_stringn(text, size);
        size_t i = 0;
        int r = 0;

        if (whole)
                return whole;
        while (r >= 0 && i < size) {
                json_t *one = NULL;
                size_t n = 1;

                /* The shortest that is valid by itself is a character. */
                for (; n <= 4 && i + n <= size && !one; n++)
                        one = json_stringn(text + i, n);
                if (one)
                        n--;
                r = one ? tb_buffer_append(&out, text + i, n, NULL)
                        : tb_buffer_append(&out, other, sizeof(other) - 1, NULL);
                i += one ? n : 1;
                json_decref(one);
        }
        return r < 0 ? NULL : json_stringn(out.data ?: "", out.size);
}

json_t *log_piece_to_json(const LogPiece *p, const char *node)
{
        static const char *const names[] = {[LOG_OUTPUT] = "output", [LOG_SYSLOG] = "syslog"};
        bool ends = p->size > 0 && p->text[p->size - 1] == '\n';
        char time[LOG_TIME_MAX];
        json_t *j = json_pack("{s:s?, s:s, s:s, s:o}", "time",
                p->time_ns > 0 ? log_time_print(time, p->time_ns) : NULL, "node", node, "source",
                names[p->source], "text", text_to_json(p->text, p->size - ends));

        if (j && !ends && json_object_set_new(j, "partial", json_true()) < 0) {
                json_decref(j);
                return NULL;
        }
        return j;
}

bool log_merge_is_done(const LogMerge *m)
{
        for (LogSource s = 0; s < _LOG_SOURCE_MAX; s++)
                if (!m->in[s].ended || waiting(&m->in[s]) > 0)
                        return false;
        return true;
}

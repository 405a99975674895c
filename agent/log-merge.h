/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Two logs of a node in one order: what the engine has of the container, and its system log
 *
 * A merge of streams: both come in pieces, of any size, and go out line by line, by their time. What waits is bounded
 * (LOG_MERGE_INPUT each), however long the logs are. Within a source the order stays what it was. Of a source that has not
 * ended the next line is waited for, unless `live`: then what is there goes out. A line that comes in several pieces is not
 * broken by the other source.
 *
 * The engine's: frames, or with a terminal plain bytes, each message with a time in front (timestamps=1; Engine API, "Get
 * container logs" and "Attach to a container", stream format). Messages of more than 16 KiB come in parts, each with a time of
 * its own, which is taken away. The system log's: log-time.h; a line without a time has that of the one before.
 */

#define LOG_MERGE_INPUT (64U * 1024)

typedef enum LogSource {
        LOG_OUTPUT,
        LOG_SYSLOG,
        _LOG_SOURCE_MAX,
        _LOG_SOURCE_INVALID = -EINVAL,
} LogSource;

/* At most LOG_PIECE_MAX bytes, borrowed until the next call. */
#define LOG_PIECE_MAX (32U * 1024)
typedef struct LogPiece {
        LogSource source;
        const char *text;
        size_t size;
        uint64_t time_ns;
        bool starts; /* a line */
} LogPiece;

typedef struct LogMerge LogMerge;

/* `tty`: the engine sends no frames. Lines of before `since_ns` are left out. */
int log_merge_new(bool tty, uint64_t since_ns, uint64_t now_ns, LogMerge **ret, TbError **err) _warn_unused_;
LogMerge *log_merge_free(LogMerge *m);
TB_DEFINE_CLEANUP(LogMerge *, log_merge_free)

/* Does it take more of this source now? What is fed may be larger than what there is room for, once. */
bool log_merge_has_room(const LogMerge *m, LogSource source);
int log_merge_feed(LogMerge *m, LogSource source, const void *data, size_t size, TbError **err)
        _warn_unused_;
/* No more comes of this source. */
void log_merge_end(LogMerge *m, LogSource source);

/* The next piece; false: there is none now. */
bool log_merge_next(LogMerge *m, bool live, LogPiece *ret);
/* A piece as {"time", "node", "source", "text"}, `text` without its line break; of a line that is longer than a piece, or came in
 * several, all but the last have "partial": true. Bytes that are no UTF-8 become U+FFFD each. "time" is null where nothing had one.
 * NULL: out of memory. Pure. */
json_t *log_piece_to_json(const LogPiece *p, const char *node);
/* Both have ended, and everything went out. */
bool log_merge_is_done(const LogMerge *m);

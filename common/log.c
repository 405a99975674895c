/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/log-internal.h"
#include "common/log.h"
#include "common/strv.h"

/*
 * Logging that cannot hold up its program
 *
 * Somebody who can make us log must not be able to make us wait. sd_journal_sendv() waits when journald is slow, so we
 * speak its native protocol ourselves (systemd.io/JOURNAL_NATIVE_PROTOCOL) on a non-blocking socket: one datagram of
 * fields, "NAME=value\n", or "NAME\n", 64-bit little-endian length, value, "\n" when the value has line breaks.
 *
 * On stderr a line is at most PIPE_BUF bytes, because that is what a pipe that poll(2) calls writable takes at once
 * (pipe(7)). What does not fit into a target is dropped and counted. errno is preserved.
 */

#define MESSAGE_MAX 3072u
#define FIELD_VALUE_MAX 512u
#define DATAGRAM_MAX (64u * 1024u)

static const char *const level_names[] = {
        [LOG_EMERG] = "emerg",
        [LOG_ALERT] = "alert",
        [LOG_CRIT] = "crit",
        [LOG_ERR] = "error",
        [LOG_WARNING] = "warning",
        [LOG_NOTICE] = "notice",
        [LOG_INFO] = "info",
        [LOG_DEBUG] = "debug",
};
static_assert(ELEMENTSOF(level_names) == LOG_DEBUG + 1, "one name for each syslog level");

static struct {
        char program[64];
        int level;
        int journal_fd;
        unsigned long dropped;
} state = {.level = LOG_INFO, .journal_fd = -EBADF};

static int level_from_string(const char *s)
{
        for (int i = 0; i < (int) ELEMENTSOF(level_names); i++)
                if (strcasecmp(s, level_names[i]) == 0 || (s[0] == '0' + i && s[1] == 0))
                        return i;
        if (strcasecmp(s, "err") == 0)
                return LOG_ERR;
        return -EINVAL;
}

/* systemd.exec(5): JOURNAL_STREAM holds "device:inode" of the stream that leads to the journal. */
static bool stderr_is_journal(void)
{
        const char *stream = getenv("JOURNAL_STREAM");
        unsigned long long dev, ino;
        struct stat st;
        char *end;

        if (!stream || !isdigit((unsigned char) *stream) || fstat(STDERR_FILENO, &st) < 0)
                return false;
        dev = strtoull(stream, &end, 10);
        if (*end != ':' || !isdigit((unsigned char) end[1]))
                return false;
        ino = strtoull(end + 1, &end, 10);
        return *end == 0 && st.st_dev == dev && st.st_ino == ino;
}

int log_set_journal_socket(const char *path)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = -EBADF;

        state.journal_fd = tb_close(state.journal_fd);
        if (!path)
                return 0;
        if (strlen(path) >= sizeof(sa.sun_path))
                return -ENAMETOOLONG;
        memcpy(sa.sun_path, path, strlen(path));

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *) &sa, sizeof(sa)) < 0)
                return -errno;
        state.journal_fd = TAKE_FD(fd);
        return 0;
}

void tb_log_open(const char *program)
{
        const char *level = getenv("TBNODE_LOG_LEVEL");

        (void) snprintf(state.program, sizeof(state.program), "%s", program ?: "");
        if (level && level_from_string(level) >= 0)
                state.level = level_from_string(level);
        if (stderr_is_journal())
                (void) log_set_journal_socket(LOG_JOURNAL_SOCKET); /* on failure stderr still leads there */
}

void tb_log_set_level(int level)
{
        if (level >= LOG_EMERG && level <= LOG_DEBUG)
                state.level = level;
}

int tb_log_get_level(void)
{
        return state.level;
}

unsigned long tb_log_dropped(void)
{
        return state.dropped;
}

/* The length of the name in "NAME=value", 0 when journald would not take it. */
static size_t field_name_length(const char *field)
{
        size_t n = strspn(field, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");

        return field[n] == '=' && n > 0 && n <= 64 && field[0] != '_' && !isdigit((unsigned char) field[0])
                ? n
                : 0;
}

static int append_journal_field(TbBuffer *b, const char *name, size_t name_length, const char *value)
{
        size_t n = strlen(value);
        uint64_t length = htole64(n);
        bool binary = strchr(value, '\n');
        int r;

        r = tb_buffer_append(b, name, name_length, NULL);
        if (r >= 0)
                r = tb_buffer_append(b, binary ? "\n" : "=", 1, NULL);
        if (r >= 0 && binary)
                r = tb_buffer_append(b, &length, sizeof(length), NULL);
        if (r >= 0)
                r = tb_buffer_append(b, value, n, NULL);
        if (r >= 0)
                r = tb_buffer_append(b, "\n", 1, NULL);
        return r;
}

typedef struct Place {
        const char *file, *func;
        int line;
} Place;

static int send_to_journal(int level, const Place *place, const char *const *fields, const char *message)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(DATAGRAM_MAX);
        int r;

        r = append_journal_field(&b, "MESSAGE", strlen("MESSAGE"), message);
        if (r >= 0)
                r = tb_buffer_printf(&b, NULL, "PRIORITY=%d\nCODE_FILE=%s\nCODE_LINE=%d\nCODE_FUNC=%s\n",
                        level, place->file, place->line, place->func);
        if (r >= 0 && state.program[0])
                r = append_journal_field(
                        &b, "SYSLOG_IDENTIFIER", strlen("SYSLOG_IDENTIFIER"), state.program);
        for (; r >= 0 && fields && *fields; fields++) {
                size_t n = field_name_length(*fields);

                if (n > 0)
                        r = append_journal_field(&b, *fields, n, *fields + n + 1);
        }
        if (r < 0)
                return r;

        if (send(state.journal_fd, b.data, b.size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                return -errno;
        return 0;
}

/* " name=value"; values that would be ambiguous are quoted. */
static int append_text_field(TbBuffer *b, const char *field)
{
        size_t n = field_name_length(field);
        const char *value = field + n + 1;
        _cleanup_free_ char *text = NULL;
        bool quote;
        int r;

        if (n == 0)
                return 0;
        quote = *value == 0 || strpbrk(value, " \t\n\"'\\");
        text = quote ? tb_escape(value, FIELD_VALUE_MAX) : tb_escape_control(value, FIELD_VALUE_MAX);
        if (!text)
                return -ENOMEM;

        r = tb_buffer_append(b, " ", 1, NULL);
        for (size_t i = 0; r >= 0 && i < n; i++) {
                char c = (char) tolower((unsigned char) field[i]);

                r = tb_buffer_append(b, &c, 1, NULL);
        }
        if (r >= 0)
                r = tb_buffer_printf(b, NULL, quote ? "=\"%s\"" : "=%s", text);
        return r;
}

/* Without waiting: send() can say so for sockets, for the rest there is poll(). */
static int write_stderr(const char *data, size_t size)
{
        struct pollfd pfd = {.fd = STDERR_FILENO, .events = POLLOUT};
        ssize_t n;

        n = send(STDERR_FILENO, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK) {
                if (poll(&pfd, 1, 0) <= 0 || !(pfd.revents & POLLOUT))
                        return -EAGAIN;
                n = write(STDERR_FILENO, data, size);
        }
        return n < 0 ? -errno : 0;
}

static int send_to_stderr(int level, const char *const *fields, const char *message)
{
        _cleanup_buffer_ TbBuffer b = TB_BUFFER_INIT(PIPE_BUF - 1);
        int r = 0;

        if (state.program[0])
                r = tb_buffer_printf(&b, NULL, "%s[%ld]: ", state.program, (long) getpid());
        if (r >= 0)
                r = tb_buffer_printf(&b, NULL, "%s: %s", level_names[level], message);
        if (r < 0)
                return r;
        /* Fields that do not fit any more are left out: the message matters most. */
        for (; fields && *fields; fields++)
                if (append_text_field(&b, *fields) < 0)
                        break;

        b.max++; /* the line break's place was kept free */
        r = tb_buffer_append(&b, "\n", 1, NULL);
        if (r < 0)
                return r;
        return write_stderr(b.data, b.size);
}

/* Escaping may have made it longer. Never in the middle of a character. */
static void cut(char *s, size_t max)
{
        size_t n = strnlen(s, max + 1);

        if (n <= max)
                return;
        for (n = max - 3; n > 0 && ((unsigned char) s[n] & 0xc0) == 0x80;)
                n--;
        memcpy(s + n, "...", 4);
}

void tb_log_full(int level, const char *file, int line, const char *func, const char *const *fields,
        const char *fmt, ...)
{
        const Place place = {.file = file, .func = func, .line = line};
        _cleanup_free_ char *raw = NULL, *message = NULL;
        int saved = errno, r = -ENOMEM;
        va_list ap;

        if (level < LOG_EMERG || level > state.level)
                return;

        va_start(ap, fmt);
        if (vasprintf(&raw, fmt, ap) < 0)
                raw = NULL;
        va_end(ap);

        /* No message may look like two, or act on the terminal. */
        if (raw)
                message = tb_escape_control(raw, MESSAGE_MAX);
        if (message)
                cut(message, MESSAGE_MAX);
        if (message)
                r = state.journal_fd >= 0 ? send_to_journal(level, &place, fields, message)
                                          : send_to_stderr(level, fields, message);
        if (r < 0)
                state.dropped++;
        errno = saved;
}

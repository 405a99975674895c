/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "augment/client/util.h"

/* More than this isn't queued: the agent has stopped reading. */
#define OUT_MAX (4U * 1024 * 1024)

/* ---- Lines ---------------------------------------------------------------------------------------------------------- */

int line_reader_feed(LineReader *r, const char *data, size_t size)
{
        const char *end;

        if (r->taken > 0) {
                memmove(r->data, r->data + r->taken, r->size - r->taken);
                r->size -= r->taken;
                r->taken = 0;
        }
        if (r->size + size > r->room) {
                size_t room = r->room ? r->room : 4096;
                char *bigger;

                while (room < r->size + size)
                        room *= 2;
                bigger = realloc(r->data, room);
                if (!bigger)
                        return -ENOMEM;
                r->data = bigger;
                r->room = room;
        }
        memcpy(r->data + r->size, data, size);
        r->size += size;
        /* Lines are taken out before more comes in: what is here is at most one line and the next piece. */
        end = memchr(r->data, '\n', r->size);
        return (end ? (size_t) (end - r->data) : r->size) > LINK_LINE_MAX ? -EMSGSIZE : 0;
}

const char *line_reader_next(LineReader *r, size_t *ret_size)
{
        const char *line, *end;

        if (!r->data)
                return NULL;
        line = r->data + r->taken;
        end = r->size > r->taken ? memchr(line, '\n', r->size - r->taken) : NULL;
        if (!end)
                return NULL;
        *ret_size = (size_t) (end - line);
        r->taken += *ret_size + 1;
        return line;
}

void line_reader_done(LineReader *r)
{
        free(r->data);
        *r = (LineReader){};
}

json_t *message_parse(const char *line, size_t size)
{
        json_t *j;

        if (size > LINK_LINE_MAX)
                return NULL;
        j = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
        if (j && !json_is_object(j)) {
                json_decref(j);
                j = NULL;
        }
        return j;
}

/* ---- The service's connection --------------------------------------------------------------------------------------- */

int agent_connect(const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd, r;

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, strlen(path));
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *) &address, sizeof(address)) == 0)
                return fd;
        r = -errno;
        close(fd);
        return r;
}

int link_open(Link *l, const char *path)
{
        int fd = agent_connect(path);

        if (fd < 0)
                return fd;
        if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
                int r = -errno;

                close(fd);
                return r;
        }
        *l = (Link){.fd = fd};
        return 0;
}

void link_close(Link *l)
{
        if (l->fd >= 0)
                close(l->fd);
        line_reader_done(&l->in);
        text_done(&l->out);
        *l = (Link){.fd = -1};
}

int link_send(Link *l, json_t *message)
{
        _cleanup_json_ json_t *owned = message;
        _cleanup_free_ char *text = owned ? json_dumps(owned, JSON_COMPACT) : NULL;

        if (!text)
                return -ENOMEM;
        if (l->out.size + strlen(text) > OUT_MAX)
                return -ENOBUFS;
        text_adds(&l->out, text);
        text_adds(&l->out, "\n");
        return l->out.failed ? -ENOMEM : link_flush(l);
}

bool link_wants_write(const Link *l)
{
        return l->sent < l->out.size;
}

int link_flush(Link *l)
{
        while (link_wants_write(l)) {
                ssize_t n = send(l->fd, l->out.data + l->sent, l->out.size - l->sent, MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
                        return 0;
                if (n < 0)
                        return -errno;
                l->sent += (size_t) n;
        }
        text_done(&l->out);
        l->sent = 0;
        return 0;
}

int link_read(Link *l)
{
        char buffer[16384];
        ssize_t n = recv(l->fd, buffer, sizeof(buffer), 0);
        int r;

        if (n < 0)
                return errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK ? 1 : -errno;
        if (n == 0)
                return 0;
        r = line_reader_feed(&l->in, buffer, (size_t) n);
        return r < 0 ? r : 1;
}

json_t *link_next(Link *l, bool *ret_bad)
{
        size_t size = 0;
        const char *line = line_reader_next(&l->in, &size);
        json_t *message;

        if (!line)
                return NULL;
        message = message_parse(line, size);
        if (!message)
                *ret_bad = true;
        return message;
}

/* ---- One question --------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
        struct timespec ts = {};

        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int wait_answer(Link *l, int timeout_ms, json_t **ret)
{
        int64_t end = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;

        for (;;) {
                struct pollfd p = {
                        .fd = l->fd, .events = (short) (POLLIN | (link_wants_write(l) ? POLLOUT : 0))};
                int64_t left = end < 0 ? -1 : end - now_ms();
                bool bad = false;
                json_t *answer;
                int r;

                if (end >= 0 && left <= 0)
                        return -ETIMEDOUT;
                r = poll(&p, 1, (int) left);
                if (r < 0 && errno != EINTR)
                        return -errno;
                if (r <= 0)
                        continue;
                if ((p.revents & POLLOUT) && (r = link_flush(l)) < 0)
                        return r;
                r = p.revents & ~POLLOUT ? link_read(l) : 1;
                answer = link_next(l, &bad);
                if (answer) {
                        *ret = answer;
                        return 0;
                }
                if (r <= 0 || bad)
                        return bad ? -EBADMSG : r < 0 ? r : -ECONNRESET;
        }
}

int link_ask(const char *path, json_t *request, int timeout_ms, json_t **ret, char *why, size_t why_size)
{
        _cleanup_(link_close) Link l = {.fd = -1};
        _cleanup_json_ json_t *answer = NULL;
        const json_t *error;
        int r;

        r = link_open(&l, path);
        if (r < 0) {
                json_decref(request);
                snprintf(why, why_size, "the agent of this node's host can't be reached at %s: %s%s", path,
                        strerror(-r),
                        r == -ENOENT ? "; is this a node made by tbnode run at level core?"
                                     : "; is tbnoded running on the host?");
                return -ENOTCONN;
        }
        r = link_send(&l, request);
        if (r >= 0)
                r = wait_answer(&l, timeout_ms, &answer);
        if (r < 0) {
                snprintf(why, why_size, "the agent gave no good answer: %s; try again", strerror(-r));
                return r;
        }
        if (json_is_true(json_object_get(answer, "ok"))) {
                *ret = answer;
                answer = NULL;
                return 0;
        }
        error = json_object_get(answer, "error");
        snprintf(why, why_size, "%.400s",
                member_string(error, "message", member_string(error, "code", "the agent refused")));
        return strcmp(member_string(error, "code", ""), "timeout") == 0 ? -ETIMEDOUT : -EPROTO;
}

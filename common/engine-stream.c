/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/engine.h"
#include "common/http-upgrade.h"
#include "common/strv.h"

#define STREAM_TIMEOUT_USEC (60 * UINT64_C(1000000))

struct TbEngineStream {
        char *what; /* "POST /exec/ID/start", for messages */
        int fd;
        TbBuffer request; /* what is not sent yet */
        TbHttpUpgrade answer;
        sd_event_source *io;
        sd_event_source *timer;
        TbEngineStreamFn done;
        void *userdata;
};

TbEngineStream *tb_engine_stream_free(TbEngineStream *s)
{
        if (!s)
                return NULL;
        sd_event_source_disable_unref(s->io);
        sd_event_source_disable_unref(s->timer);
        tb_close(s->fd);
        tb_buffer_done(&s->request);
        tb_http_upgrade_done(&s->answer);
        free(s->what);
        free(s);
        return NULL;
}

static void stream_finish(TbEngineStream *s, const TbError *err)
{
        s->io = sd_event_source_disable_unref(s->io);
        s->timer = sd_event_source_disable_unref(s->timer);
        if (err)
                s->done(s, -EBADF, NULL, 0, err, s->userdata); /* may free s */
        else
                s->done(s, TAKE_FD(s->fd), s->answer.body.data ?: "", s->answer.body.size, NULL,
                        s->userdata);
}

static int stream_send(TbEngineStream *s, TbError **err)
{
        while (s->request.size > 0) {
                ssize_t n = send(s->fd, s->request.data, s->request.size, MSG_NOSIGNAL);

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return 0;
                if (n < 0)
                        return tb_error_set_errno(
                                err, TB_ERROR_REMOTE, -errno, "Docker engine: %s failed", s->what);
                tb_buffer_consume(&s->request, (size_t) n);
        }
        return sd_event_source_set_io_events(s->io, EPOLLIN) < 0 ? tb_error_oom(err) : 0;
}

/* 1 = the answer is there */
static int stream_receive(TbEngineStream *s, TbError **err)
{
        char buffer[4096];
        ssize_t n;
        int r;

        n = recv(s->fd, buffer, sizeof(buffer), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n < 0)
                return tb_error_set_errno(err, TB_ERROR_REMOTE, -errno, "Docker engine: %s failed", s->what);
        r = tb_http_upgrade_feed(&s->answer, buffer, (size_t) n, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "Docker engine: %s", s->what);
                return r;
        }
        if (!s->answer.done)
                return 0;
        if (s->answer.status == 101)
                return 1;
        if (s->answer.status >= 400)
                return tb_engine_refusal(
                        s->what, s->answer.status, s->answer.body.data ?: "", s->answer.body.size, err);
        return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                "Docker engine: %s was answered with status %u, but the protocol was not changed", s->what,
                s->answer.status);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        TbEngineStream *s = userdata;
        _cleanup_error_ TbError *err = NULL;
        int r = 0;

        if (s->request.size > 0)
                r = stream_send(s, &err);
        if (r >= 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                r = stream_receive(s, &err);
        if (r < 0)
                stream_finish(s, err);
        else if (r > 0)
                stream_finish(s, NULL);
        return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        TbEngineStream *s = userdata;
        _cleanup_error_ TbError *err = NULL;

        (void) tb_error_set(&err, TB_ERROR_REMOTE, -ETIMEDOUT,
                "Docker engine: %s was not answered within a minute; is the engine healthy?", s->what);
        stream_finish(s, err);
        return 0;
}

static int stream_connect(TbEngineStream *s, const char *endpoint, TbError **err)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        _cleanup_free_ char *path = NULL;
        int r;

        r = tb_engine_parse_endpoint(endpoint, &path, err);
        if (r < 0)
                return r;
        memcpy(sa.sun_path, path, MIN2(strlen(path) + 1, sizeof(sa.sun_path)));
        s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (s->fd < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, -errno, "cannot make a socket");
        if (connect(s->fd, (struct sockaddr *) &sa, sizeof(sa)) >= 0)
                return 0;
        r = -errno;
        (void) tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, r,
                "cannot connect to the Docker engine at %s%s", endpoint,
                r == -EAGAIN ? " (it accepts nobody at the moment; try again)" : "");
        return r;
}

static int stream_watch(TbEngineStream *s, sd_event *event, TbError **err)
{
        int r;

        r = sd_event_add_io(event, &s->io, s->fd, EPOLLIN | EPOLLOUT, on_io, s);
        if (r >= 0)
                r = sd_event_add_time_relative(
                        event, &s->timer, CLOCK_MONOTONIC, STREAM_TIMEOUT_USEC, 0, on_timeout, s);
        return r < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot wait for the Docker engine") : 0;
}

int tb_engine_stream_new(TbEngine *e, const char *path, const json_t *body, TbEngineStreamFn done,
        void *userdata, TbEngineStream **ret, TbError **err)
{
        _cleanup_free_ char *versioned = NULL;
        TbEngineStream *s;
        int r;

        if (!tb_engine_is_connected(e))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENOTCONN,
                        "there is no connection to the Docker engine yet; try again");
        s = calloc(1, sizeof(*s));
        if (!s)
                return tb_error_oom(err);
        s->fd = -EBADF;
        s->answer = TB_HTTP_UPGRADE_INIT;
        s->done = done;
        s->userdata = userdata;
        versioned = tb_asprintf("/v%s%s", tb_engine_api_version(e), path);
        s->what = tb_asprintf("POST %.*s", (int) strcspn(path, "?"), path);
        r = versioned && s->what ? 0 : tb_error_oom(err);
        if (r >= 0)
                r = tb_http_upgrade_request("docker", versioned, "tcp", body, &s->request, err);
        if (r >= 0)
                r = stream_connect(s, tb_engine_endpoint(e), err);
        if (r >= 0)
                r = stream_watch(s, tb_engine_event(e), err);
        if (r < 0) {
                tb_engine_stream_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

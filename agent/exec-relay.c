/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Bytes between a client and a program in a node.
 *
 * Each direction has one buffer of at most EXEC_BUFFER bytes and what one read adds to it: a socket is read while the other
 * direction's buffer has room, and waited for to be writable while there is something in it. So whoever is slow slows down
 * the other side, and nobody else.
 */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agent/exec-internal.h"
#include "common/cleanup.h"

/* ---- Parsing --------------------------------------------------------------------------------------------------- */

static int queue_frame(ExecSession *s, ExecFrameType type, const void *data, size_t size, TbError **err)
{
        unsigned char header[EXEC_FRAME_HEADER];
        int r;

        if (s->spec.bare)
                return type == EXEC_STDOUT && size > 0 ? tb_buffer_append(&s->to_client, data, size, err)
                                                       : 0;
        exec_frame_header(header, type, size);
        r = tb_buffer_append(&s->to_client, header, sizeof(header), err);
        return r < 0 || size == 0 ? r : tb_buffer_append(&s->to_client, data, size, err);
}

/* The engine's frames are cut where its reads are: what comes is passed on at once. */
int exec_relay_take_output(ExecSession *s, const void *data, size_t size, TbError **err)
{
        const unsigned char *p = data;
        int r;

        if (s->spec.tty)
                return size > 0 ? queue_frame(s, EXEC_STDOUT, p, size, err) : 0;
        while (size > 0) {
                size_t n;

                if (s->out_left == 0) {
                        s->out_header[s->out_header_size++] = *p++;
                        size--;
                        if (s->out_header_size < EXEC_FRAME_HEADER)
                                continue;
                        s->out_header_size = 0;
                        s->out_left = exec_frame_size(s->out_header);
                        continue;
                }
                n = MIN2(size, (size_t) s->out_left);
                r = queue_frame(s, s->out_header[0] == EXEC_STDOUT ? EXEC_STDOUT : EXEC_STDERR, p, n, err);
                if (r < 0)
                        return r;
                s->out_left -= (uint32_t) n;
                p += n;
                size -= n;
        }
        return 0;
}

static int bad_frame(TbError **err)
{
        return tb_error_set(
                err, TB_ERROR_CONFIG, -EPROTO, "the client sent what is no frame of this protocol");
}

static int take_header(ExecSession *s, TbError **err)
{
        s->in_left = exec_frame_size(s->in_header);
        if (s->in_header[1] != 0 || s->in_header[2] != 0 || s->in_header[3] != 0)
                return bad_frame(err);
        if (s->in_header[0] == EXEC_RESIZE)
                return s->in_left == sizeof(s->in_resize) ? 0 : bad_frame(err);
        if (s->in_header[0] != EXEC_STDIN || s->stdin_ended)
                return bad_frame(err);
        if (s->in_left > 0)
                return 0;
        s->stdin_ended = true;
        /* A terminal has no other end of input; were it closed, the engine would close the output with it. */
        return s->spec.tty ? tb_buffer_append(&s->to_engine, "\004", 1, err) : 0;
}

static int take_payload(ExecSession *s, const unsigned char *p, size_t n, TbError **err)
{
        if (s->in_header[0] == EXEC_STDIN) {
                s->in_left -= (uint32_t) n;
                /* Who was not promised any is not an error: the program does not read it. */
                return s->spec.takes_stdin ? tb_buffer_append(&s->to_engine, p, n, err) : 0;
        }
        memcpy(s->in_resize + sizeof(s->in_resize) - s->in_left, p, n);
        s->in_left -= (uint32_t) n;
        if (s->in_left == 0)
                exec_resized(s, (uint16_t) (s->in_resize[0] << 8 | s->in_resize[1]),
                        (uint16_t) (s->in_resize[2] << 8 | s->in_resize[3]));
        return 0;
}

static int take_input(ExecSession *s, const void *data, size_t size, TbError **err)
{
        const unsigned char *p = data;

        if (s->spec.bare)
                return size > 0 ? tb_buffer_append(&s->to_engine, data, size, err) : 0;
        while (size > 0) {
                size_t n;
                int r;

                if (s->in_left == 0) {
                        s->in_header[s->in_header_size++] = *p++;
                        size--;
                        if (s->in_header_size < EXEC_FRAME_HEADER)
                                continue;
                        s->in_header_size = 0;
                        r = take_header(s, err);
                        if (r < 0)
                                return r;
                        continue;
                }
                n = MIN2(size, (size_t) s->in_left);
                r = take_payload(s, p, n, err);
                if (r < 0)
                        return r;
                p += n;
                size -= n;
        }
        return 0;
}

/* ---- Sockets --------------------------------------------------------------------------------------------------- */

/* Sends what the socket takes. Negative: the other end is gone. */
static int flush(int fd, TbBuffer *b)
{
        while (b->size > 0) {
                ssize_t n = send(fd, b->data, b->size, MSG_NOSIGNAL);

                if (n < 0)
                        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
                tb_buffer_consume(b, (size_t) n);
        }
        return 0;
}

/* >0 bytes, 0 = nothing at the moment, negative = it has ended. */
static ssize_t receive(int fd, void *buffer, size_t size)
{
        ssize_t n = recv(fd, buffer, size, 0);

        if (n > 0)
                return n;
        return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -ECONNRESET;
}

static void stop(sd_event_source **source)
{
        *source = sd_event_source_disable_unref(*source);
}

void exec_relay_stop_engine(ExecSession *s)
{
        stop(&s->engine_io);
        s->engine_fd = tb_close(s->engine_fd);
}

void exec_relay_stop_client(ExecSession *s)
{
        stop(&s->client_io);
        s->client_fd = -EBADF;
}

/* The program reads no more, or is gone: that ends its output, too, and is seen there. */
static void feed_program(ExecSession *s)
{
        if (s->engine_fd < 0)
                return;
        if (flush(s->engine_fd, &s->to_engine) < 0)
                tb_buffer_done(&s->to_engine);
        if (s->to_engine.size == 0 && s->stdin_ended && !s->stdin_is_shut && !s->spec.tty) {
                (void) shutdown(s->engine_fd, SHUT_WR);
                s->stdin_is_shut = true;
        }
}

static void wait_for(sd_event_source *source, uint32_t events)
{
        if (!source)
                return;
        /* Without events epoll would still tell of a hang-up, again and again. */
        if (events == 0)
                (void) sd_event_source_set_enabled(source, SD_EVENT_OFF);
        else {
                (void) sd_event_source_set_io_events(source, events);
                (void) sd_event_source_set_enabled(source, SD_EVENT_ON);
        }
}

void exec_relay_arm(ExecSession *s)
{
        feed_program(s);
        if (s->client_fd >= 0 && flush(s->client_fd, &s->to_client) < 0) {
                exec_client_gone(s);
                return;
        }
        if (s->phase == EXEC_FLUSH && s->to_client.size == 0) {
                exec_flushed(s);
                return;
        }
        wait_for(s->engine_io,
                (s->to_client.size < EXEC_BUFFER ? EPOLLIN : 0U) | (s->to_engine.size > 0 ? EPOLLOUT : 0U));
        wait_for(s->client_io,
                EPOLLRDHUP | (s->to_engine.size < EXEC_BUFFER ? EPOLLIN : 0U) |
                        (s->to_client.size > 0 ? EPOLLOUT : 0U));
}

static int on_engine(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        ExecSession *s = userdata;
        char buffer[EXEC_FRAME_MAX];
        ssize_t n = 0;

        if (s->to_client.size < EXEC_BUFFER && (events & ~(uint32_t) EPOLLOUT))
                n = receive(fd, buffer, sizeof(buffer));
        if (n > 0 && exec_relay_take_output(s, buffer, (size_t) n, NULL) < 0)
                n = -ENOMEM;
        if (n < 0)
                exec_output_ended(s);
        else
                exec_relay_arm(s);
        return 0;
}

static int on_client(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        ExecSession *s = userdata;
        char buffer[EXEC_FRAME_MAX];
        ssize_t n = 0;

        if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                n = -ECONNRESET;
        else if (events & EPOLLIN)
                n = receive(fd, buffer, sizeof(buffer));
        if (n > 0 && take_input(s, buffer, (size_t) n, NULL) < 0)
                n = -EPROTO;
        if (n < 0)
                exec_client_gone(s);
        else
                exec_relay_arm(s);
        return 0;
}

int exec_relay_send(ExecSession *s, ExecFrameType type, const void *data, size_t size, TbError **err)
{
        return queue_frame(s, type, data, size, err);
}

int exec_relay_start(ExecSession *s, const void *early, size_t size, TbError **err)
{
        sd_event *event = s->manager->event;
        int r;

        r = sd_event_add_io(event, &s->engine_io, s->engine_fd, EPOLLIN, on_engine, s);
        if (r >= 0)
                r = sd_event_add_io(event, &s->client_io, s->client_fd, EPOLLIN | EPOLLRDHUP, on_client, s);
        if (r < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_RESOURCE, r, "cannot wait for the program and its client");
        if (!s->spec.takes_stdin)
                s->stdin_ended = true;
        return take_input(s, early, size, err);
}

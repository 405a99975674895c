/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Life of a connection: made by accept, freed from its own io event, its deadline, or when the node's run ends; never from
 * under whoever answers on it. Everybody else only appends to `out` or sets `closing`, and the io event that follows does
 * the rest.
 */

#include "agent/node-socket-internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agent/log-node.h"
#include "agent/netns-socket.h"
#include "agent/node-request.h"
#include "agent/tmcd-answer.h"
#include "agent/tmcd.h"
#include "common/cleanup.h"
#include "common/json.h"

#define READ_SIZE 16384U

/* Nothing was ever asked, or everything that was asked is answered. */
static bool is_over(const NodeConnection *c)
{
        return c->eof &&
                (c->speech == SPEECH_UNKNOWN || (c->speech == SPEECH_JSON && !c->waits && c->in.size == 0));
}

void node_connection_update(NodeConnection *c)
{
        bool frozen = c->socket->thaw != NULL;
        uint32_t events = 0;

        c->closing |= is_over(c);
        if (!c->eof && !frozen && c->out.size < NODE_REQUEST_MAX)
                events |= EPOLLIN;
        if (c->out.size > 0 || c->closing || c->broken)
                events |= EPOLLOUT;
        (void) sd_event_source_set_io_events(c->io, events);
        /* A hang-up is told whether one asks for it or not, again and again. */
        (void) sd_event_source_set_enabled(c->io, frozen && events == 0 ? SD_EVENT_OFF : SD_EVENT_ON);
}

/* ---- Connections --------------------------------------------------------------------------------------------------- */

void node_connection_free(NodeConnection *c)
{
        NodeSocket *s = c->socket;

        for (NodeConnection **p = &s->connections; *p; p = &(*p)->next)
                if (*p == c) {
                        *p = c->next;
                        break;
                }
        if (s->attached == c) {
                s->attached = NULL;
                log_node(s->node, LOG_DEBUG, "its client went away");
        }
        node_request_cancel(c);
        s->n_connections--;
        s->n_users -= c->counted;
        s->node->manager->node_connections--;
        sd_event_source_disable_unref(c->io);
        sd_event_source_disable_unref(c->deadline);
        tb_buffer_done(&c->in);
        tb_buffer_done(&c->out);
        tb_close(c->fd);
        free(c);
        node_socket_update_accept(s);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
        node_connection_free(userdata);
        return 0;
}

/* While `out` waits to be taken, only its being taken counts. */
static void rearm(NodeConnection *c, bool out_changed)
{
        bool quiet = c->socket->attached == c || c->waits;

        if (c->out.size > 0 && !out_changed)
                return;
        if (c->out.size == 0 && quiet)
                (void) sd_event_source_set_enabled(c->deadline, SD_EVENT_OFF);
        else {
                (void) sd_event_source_set_time_relative(c->deadline, NODE_TALK_USEC);
                (void) sd_event_source_set_enabled(c->deadline, SD_EVENT_ONESHOT);
        }
}

static bool flush(NodeConnection *c)
{
        while (c->out.size > 0) {
                ssize_t n = send(c->fd, c->out.data, c->out.size, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN;
                tb_buffer_consume(&c->out, (size_t) n);
                if (c->out.size == 0) {
                        tb_buffer_done(&c->out); /* idle connections hold no memory */
                        c->out = TB_BUFFER_INIT(NODE_ANSWERS_MAX);
                        rearm(c, true);
                }
        }
        return true;
}

static size_t bytes_waiting(const NodeSocket *s)
{
        size_t sum = 0;

        for (const NodeConnection *c = s->connections; c; c = c->next)
                sum += c->out.size;
        return sum;
}

static void append(NodeConnection *c, const char *text, size_t size)
{
        bool first = c->out.size == 0;

        if (c->broken || size == 0)
                return;
        if (bytes_waiting(c->socket) > 2 * NODE_ANSWERS_MAX ||
                tb_buffer_append(&c->out, text, size, NULL) < 0)
                c->broken = true;
        if (first)
                rearm(c, true);
        node_connection_update(c);
}

void node_connection_send(NodeConnection *c, json_t *line)
{
        _cleanup_json_ json_t *j = line;
        _cleanup_free_ char *text = NULL;
        size_t size;

        if (!j || tb_json_dump(j, false, &text, &size, NULL) < 0) {
                c->broken = true;
                node_connection_update(c);
                return;
        }
        text[size] = '\n'; /* in the place of the terminator */
        append(c, text, size + 1);
        rearm(c, false);
}

Node *node_connection_node(const NodeConnection *c)
{
        return c->socket->node;
}

bool node_connection_is_root(const NodeConnection *c)
{
        return c->root;
}

unsigned *node_connection_waits(NodeConnection *c)
{
        return &c->socket->n_waits;
}

NodeWait **node_connection_wait_list(NodeConnection *c)
{
        return &c->waits;
}

void node_connection_attach(NodeConnection *c)
{
        NodeConnection *former = c->socket->attached;

        c->socket->attached = c;
        if (former && former != c) {
                former->closing = true;
                node_connection_update(former);
        }
}

/* ---- What is said -------------------------------------------------------------------------------------------------- */

static void pump_json(NodeConnection *c)
{
        char *end;

        while (!c->broken && !c->closing && c->in.size > 0) {
                size_t size;

                end = memchr(c->in.data, '\n', c->in.size);
                if (!end && !c->eof)
                        break;
                size = end ? (size_t) (end - c->in.data) : c->in.size;
                if (size > 0 && !node_socket_may_ask(c->socket))
                        return;
                if (size > 0)
                        node_request_take(c, c->in.data, size);
                tb_buffer_consume(&c->in, size + (end != NULL));
                rearm(c, false);
        }
        if (c->in.size > NODE_REQUEST_MAX) {
                node_request_refuse(c, "a request has more than 65536 bytes");
                c->closing = true;
        }
        if (c->in.size == 0) {
                tb_buffer_done(&c->in);
                c->in = TB_BUFFER_INIT(NODE_REQUEST_MAX + READ_SIZE);
        }
}

/* TLS's own way to say no (RFC 5246, 7.2): a fatal alert, handshake_failure. The client has sent its tag and waits. */
static void refuse_ssl(NodeConnection *c)
{
        static const char alert[] = {0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28};

        log_node(c->socket->node, LOG_DEBUG, "a tmcc wants SSL, which is not spoken here; -i turns it off");
        append(c, alert, sizeof(alert));
}

/* Over TCP the kernel knows whose the socket at the other end is as long as it is open: told late, when all was read. */
static bool tcp_is_root(const NodeConnection *c)
{
        const NodeSocket *s = c->socket;
        _cleanup_error_ TbError *err = NULL;
        struct sockaddr_in peer, own;
        socklen_t peer_size = sizeof(peer), own_size = sizeof(own);
        uid_t uid;
        int r;

        if (!s->has_root || getpeername(c->fd, (struct sockaddr *) &peer, &peer_size) < 0 ||
                getsockname(c->fd, (struct sockaddr *) &own, &own_size) < 0)
                return false;
        r = netns_socket_owner(s->node->netns_fd, &peer, &own, &uid, &err);
        if (r < 0)
                log_node(s->node, LOG_WARNING, "%s: it is taken for an ordinary user's",
                        tb_error_message(err));
        return r > 0 && uid == s->root_uid;
}

static void pump_tmcd(NodeConnection *c)
{
        _cleanup_buffer_ TbBuffer answer = TB_BUFFER_INIT(NODE_ANSWERS_MAX);
        _cleanup_error_ TbError *err = NULL;

        if (c->closing || !tmcd_request_is_whole(c->in.data, c->in.size, c->tcp, c->eof) ||
                !node_socket_may_ask(c->socket))
                return;
        if (c->tcp)
                c->root = tcp_is_root(c);
        if (tmcd_request_wants_ssl(c->in.data, c->in.size))
                refuse_ssl(c);
        else if (tmcd_answer(c->socket->node, c->in.data, c->in.size, c->root, &answer, &err) < 0)
                log_node(c->socket->node, LOG_DEBUG, "tmcd: %s", tb_error_message(err));
        else if (answer.size > 0)
                append(c, answer.data, answer.size);
        c->closing = true;
}

void node_connection_pump(NodeConnection *c)
{
        if (c->speech == SPEECH_JSON)
                pump_json(c);
        else if (c->speech == SPEECH_TMCD)
                pump_tmcd(c);
}

/* Reads what is there, up to a bound; false = the connection is of no use any more. */
static bool take_input(NodeConnection *c)
{
        char data[READ_SIZE];

        while (!c->eof && !c->closing && !c->broken && !c->socket->thaw) {
                ssize_t n = recv(c->fd, data, sizeof(data), MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0)
                        return false;
                if (n == 0)
                        c->eof = true;
                else {
                        if (c->speech == SPEECH_UNKNOWN)
                                c->speech = data[0] == '{' && !c->tcp ? SPEECH_JSON : SPEECH_TMCD;
                        if (tb_buffer_append(&c->in, data, (size_t) n, NULL) < 0)
                                return false;
                        if (c->speech == SPEECH_TMCD && c->in.size > TMCD_PACKET_MAX)
                                return false;
                }
                if (c->speech == SPEECH_JSON)
                        pump_json(c);
        }
        node_connection_update(c);
        if (c->speech == SPEECH_TMCD)
                pump_tmcd(c);
        return true;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        NodeConnection *c = userdata;

        if ((revents & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !take_input(c))
                c->broken = true;
        if (!flush(c))
                c->broken = true;
        /* Closed on the other side: what it had asked was done, nobody listens. Unless what it sent is still unread. */
        if ((revents & (EPOLLHUP | EPOLLERR)) && !(c->socket->thaw && !c->eof))
                c->broken = true;
        if (c->broken || (c->closing && c->out.size == 0)) {
                node_connection_free(c);
                return 0;
        }
        node_connection_update(c);
        return 0;
}

int node_connection_new(NodeSocket *s, int fd, bool tcp, bool root)
{
        sd_event *event = s->node->manager->event;
        NodeConnection *c = calloc(1, sizeof(*c));

        if (!c) {
                tb_close(fd);
                return -ENOMEM;
        }
        *c = (NodeConnection){.socket = s,
                .fd = fd,
                .tcp = tcp,
                .root = root,
                .counted = !root,
                .in = TB_BUFFER_INIT(NODE_REQUEST_MAX + READ_SIZE),
                .out = TB_BUFFER_INIT(NODE_ANSWERS_MAX),
                .next = s->connections};
        s->connections = c;
        s->n_connections++;
        s->n_users += !root;
        s->node->manager->node_connections++;
        if (sd_event_add_io(event, &c->io, fd, EPOLLIN, on_io, c) < 0 ||
                sd_event_add_time_relative(event, &c->deadline, CLOCK_MONOTONIC, NODE_TALK_USEC,
                        NODE_TALK_USEC / 16, on_deadline, c) < 0) {
                node_connection_free(c);
                return -ENOMEM;
        }
        return 0;
}

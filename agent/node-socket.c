/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Life of a connection: made by accept, freed from its own io event, its deadline, or when the node's run ends; never from
 * under whoever answers on it. Everybody else only appends to `out` or sets `closing`, and the io event that follows does
 * the rest.
 */

#include "agent/node-socket.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/log-node.h"
#include "agent/netns-socket.h"
#include "agent/node-dir.h"
#include "agent/node-request.h"
#include "agent/tmcd-answer.h"
#include "agent/tmcd.h"
#include "agent/token-bucket.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define SOCKET_NAME "agent.sock"
#define BACKLOG 64
#define READ_SIZE 16384U

typedef enum Speech {
        SPEECH_UNKNOWN, /* no byte was read yet */
        SPEECH_JSON,
        SPEECH_TMCD,
} Speech;

struct NodeConnection {
        NodeSocket *socket;
        NodeConnection *next;
        int fd;
        bool tcp;
        bool root;
        bool counted; /* among the ordinary users' */
        Speech speech;
        bool eof;     /* the peer sends no more */
        bool closing; /* to be closed when `out` is taken */
        bool broken;  /* to be closed at once */
        TbBuffer in, out;
        NodeWait *waits;
        sd_event_source *io, *deadline;
};

struct NodeSocket {
        Node *node;
        int listen_fd; /* -EBADF: a node without a directory, which has TCP only */
        sd_event_source *accept;
        bool serving;
        uid_t root_uid; /* of the node's root, as the host sees it */
        bool has_root;
        NodeConnection *connections;
        NodeConnection *attached;
        unsigned n_connections, n_users, n_waits;
        TokenBucket rate;
        sd_event_source *thaw; /* set while nothing is read */
};

static void pump(NodeConnection *c);

/* ---- Rate ---------------------------------------------------------------------------------------------------------- */

/* Nothing was ever asked, or everything that was asked is answered. */
static bool is_over(const NodeConnection *c)
{
        return c->eof &&
                (c->speech == SPEECH_UNKNOWN || (c->speech == SPEECH_JSON && !c->waits && c->in.size == 0));
}

static void update_events(NodeConnection *c)
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

static void update_accept(NodeSocket *s)
{
        bool on = s->serving && !s->thaw && s->n_connections < NODE_CONNECTIONS_MAX;

        if (s->accept)
                (void) sd_event_source_set_enabled(s->accept, on ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int on_thaw(sd_event_source *source, uint64_t usec, void *userdata)
{
        NodeSocket *s = userdata;

        s->thaw = sd_event_source_disable_unref(s->thaw);
        for (NodeConnection *c = s->connections; c; c = c->next) {
                pump(c);
                update_events(c);
        }
        update_accept(s);
        return 0;
}

/* Nothing of this node is read for a moment. */
static void freeze(NodeSocket *s, uint64_t usec)
{
        if (s->thaw ||
                sd_event_add_time_relative(s->node->manager->event, &s->thaw, CLOCK_MONOTONIC,
                        MAX2(usec, UINT64_C(1000)), 1000, on_thaw, s) < 0)
                return;
        for (NodeConnection *c = s->connections; c; c = c->next)
                update_events(c);
        update_accept(s);
}

static bool may_ask(NodeSocket *s)
{
        uint64_t now = tb_now_us();

        if (s->thaw)
                return false;
        if (token_bucket_take(&s->rate, NODE_RATE, NODE_BURST, now))
                return true;
        /* A quarter of the burst at a time: a node that floods costs few wake-ups, not one per request. */
        freeze(s,
                token_bucket_wait(&s->rate, NODE_RATE, NODE_BURST, now) +
                        NODE_BURST / 4 * (1000000 / NODE_RATE));
        return !s->thaw; /* no timer: better served than forgotten */
}

/* ---- Connections --------------------------------------------------------------------------------------------------- */

static void connection_free(NodeConnection *c)
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
        update_accept(s);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
        connection_free(userdata);
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
        update_events(c);
}

void node_connection_send(NodeConnection *c, json_t *line)
{
        _cleanup_json_ json_t *j = line;
        _cleanup_free_ char *text = NULL;
        size_t size;

        if (!j || tb_json_dump(j, false, &text, &size, NULL) < 0) {
                c->broken = true;
                update_events(c);
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
                update_events(former);
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
                if (size > 0 && !may_ask(c->socket))
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
                !may_ask(c->socket))
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

static void pump(NodeConnection *c)
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
        update_events(c);
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
                connection_free(c);
                return 0;
        }
        update_events(c);
        return 0;
}

static int connection_new(NodeSocket *s, int fd, bool tcp, bool root)
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
                connection_free(c);
                return -ENOMEM;
        }
        return 0;
}

static bool has_room(const NodeSocket *s, bool root)
{
        if (s->n_connections >= NODE_CONNECTIONS_FREE &&
                s->node->manager->node_connections >= NODE_CONNECTIONS_POOL)
                return false;
        return s->n_connections < NODE_CONNECTIONS_MAX &&
                (root || s->n_users < NODE_CONNECTIONS_MAX - NODE_CONNECTIONS_ROOT);
}

static bool is_root(const NodeSocket *s, int fd)
{
        struct ucred cred;
        socklen_t size = sizeof(cred);

        return s->has_root && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) == 0 &&
                cred.uid == s->root_uid;
}

static int on_accept(sd_event_source *source, int listen_fd, uint32_t revents, void *userdata)
{
        NodeSocket *s = userdata;
        bool root;
        int fd;

        if (!may_ask(s))
                return 0;
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
                /* Out of descriptors: the connection stays in the queue, and so would the event. */
                if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                        freeze(s, 1000000);
                return 0;
        }
        root = is_root(s, fd);
        if (!has_room(s, root))
                tb_close(fd);
        else if (connection_new(s, fd, false, root) < 0)
                log_node(s->node, LOG_ERR, "cannot serve a connection of its client: out of memory");
        update_accept(s);
        return 0;
}

void node_socket_adopt(NodeSocket *s, int fd)
{
        bool root = false;

        if (!s || !s->serving || s->thaw || !may_ask(s) || !has_room(s, root))
                tb_close(fd);
        else if (connection_new(s, fd, true, root) < 0)
                log_node(s->node, LOG_ERR, "cannot serve a connection: out of memory");
}

bool node_socket_is_attached(const NodeSocket *s)
{
        return s && s->attached;
}

int node_socket_event(NodeSocket *s, json_t *event, TbError **err)
{
        if (!node_socket_is_attached(s)) {
                json_decref(event);
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOTCONN,
                        "the testbed client of the node is not connected to the agent%s",
                        s ? "; is the image's level core, and does /tbnode/bin/sv status client say run?"
                          : "");
        }
        if (!event)
                return tb_error_oom(err);
        node_connection_send(s->attached, event);
        return 0;
}

/* ---- The socket ---------------------------------------------------------------------------------------------------- */

/* Bound through the directory's descriptor: the path may be longer than sun_path. The former agent's socket is replaced. */
static int bind_in(const char *dir, int fd, TbError **err)
{
        _cleanup_close_ int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct sockaddr_un address = {.sun_family = AF_UNIX};

        if (dir_fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot open %s", dir);
        if (unlinkat(dir_fd, SOCKET_NAME, 0) < 0 && errno != ENOENT)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot remove %s/" SOCKET_NAME, dir);
        (void) snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" SOCKET_NAME, dir_fd);
        if (bind(fd, (const struct sockaddr *) &address, sizeof(address)) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make %s/" SOCKET_NAME, dir);
        /* Every user of the node may ask; who it is, is seen. */
        if (fchmodat(dir_fd, SOCKET_NAME, 0666, 0) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot change the mode of %s/" SOCKET_NAME, dir);
        return 0;
}

static int node_listen(NodeSocket *s, const char *dir, TbError **err)
{
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int r;

        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a socket");
        r = bind_in(dir, fd, err);
        if (r < 0)
                return r;
        if (listen(fd, BACKLOG) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot listen on %s/" SOCKET_NAME, dir);
        r = sd_event_add_io(s->node->manager->event, &s->accept, fd, EPOLLIN, on_accept, s);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot wait for connections");
        s->listen_fd = TAKE_FD(fd);
        update_accept(s);
        return 0;
}

int node_socket_new(Node *n, NodeSocket **ret, TbError **err)
{
        _cleanup_free_ char *dir = n->key ? node_dir_path(n->manager, n->key) : NULL;
        NodeSocket *s = calloc(1, sizeof(*s));
        int r;

        if (!s || (n->key && !dir)) {
                free(s);
                return tb_error_oom(err);
        }
        s->node = n;
        s->listen_fd = -EBADF;
        if (dir) {
                r = node_listen(s, dir, err);
                if (r < 0) {
                        node_socket_free(s);
                        return r;
                }
        }
        *ret = s;
        return 0;
}

void node_socket_pause(NodeSocket *s)
{
        if (!s)
                return;
        s->serving = false;
        s->has_root = false;
        while (s->connections)
                connection_free(s->connections);
        s->thaw = sd_event_source_disable_unref(s->thaw);
        s->rate = (TokenBucket){};
        update_accept(s);
}

NodeSocket *node_socket_free(NodeSocket *s)
{
        if (!s)
                return NULL;
        node_socket_pause(s);
        sd_event_source_disable_unref(s->accept);
        tb_close(s->listen_fd);
        free(s);
        return NULL;
}

/* The map of the container's first process, not of whoever asks: a user of the node can make a namespace in which it is
 * root of its own. Lines are "INSIDE OUTSIDE COUNT" (user_namespaces(7)). */
static bool read_root(const ProcessIdentity *identity, uid_t *ret)
{
        _cleanup_free_ char *text = NULL;
        unsigned long inside, outside, count;
        ProcessIdentity now;
        char path[40], *line, *save = NULL;

        (void) snprintf(path, sizeof(path), "/proc/%d/uid_map", (int) identity->pid);
        if (tb_file_read(path, 65536, &text, NULL, NULL) < 0 ||
                process_identity_read(identity->pid, &now, NULL) < 0 ||
                !process_identity_equal(identity, &now))
                return false;
        for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                if (sscanf(line, "%lu %lu %lu", &inside, &outside, &count) == 3 && inside == 0 &&
                        count > 0) {
                        *ret = (uid_t) outside;
                        return true;
                }
        return false;
}

void node_socket_serve(NodeSocket *s, const ProcessIdentity *identity)
{
        if (!s)
                return;
        s->has_root = read_root(identity, &s->root_uid);
        s->serving = true;
        update_accept(s);
}

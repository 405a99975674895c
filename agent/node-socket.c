/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who may ask, and how often: the listening end, rates, and who is root. */

#include "agent/node-socket-internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/log-node.h"
#include "agent/node-dir.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "common/units.h"

#define SOCKET_NAME "agent.sock"
#define BACKLOG 64

/* ---- Rate ---------------------------------------------------------------------------------------------------------- */

void node_socket_update_accept(NodeSocket *s)
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
                node_connection_pump(c);
                node_connection_update(c);
        }
        node_socket_update_accept(s);
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
                node_connection_update(c);
        node_socket_update_accept(s);
}

bool node_socket_may_ask(NodeSocket *s)
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

        if (!node_socket_may_ask(s))
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
        else if (node_connection_new(s, fd, false, root) < 0)
                log_node(s->node, LOG_ERR, "cannot serve a connection of its client: out of memory");
        node_socket_update_accept(s);
        return 0;
}

void node_socket_adopt(NodeSocket *s, int fd)
{
        bool root = false;

        if (!s || !s->serving || s->thaw || !node_socket_may_ask(s) || !has_room(s, root))
                tb_close(fd);
        else if (node_connection_new(s, fd, true, root) < 0)
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
        mode_t mask;
        int r;

        if (dir_fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot open %s", dir);
        if (unlinkat(dir_fd, SOCKET_NAME, 0) < 0 && errno != ENOENT)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot remove %s/" SOCKET_NAME, dir);
        (void) snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" SOCKET_NAME, dir_fd);
        /* Every user of the node may ask; who it is, is seen. Not by chmod(2): what the name means then is another question. */
        mask = umask(0111);
        r = bind(fd, (const struct sockaddr *) &address, sizeof(address)) < 0 ? -errno : 0;
        (void) umask(mask);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot make %s/" SOCKET_NAME, dir);
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
        node_socket_update_accept(s);
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
                node_connection_free(s->connections);
        s->thaw = sd_event_source_disable_unref(s->thaw);
        s->rate = (TokenBucket){};
        node_socket_update_accept(s);
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
        node_socket_update_accept(s);
}

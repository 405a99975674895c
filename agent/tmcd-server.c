/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/tmcd-server.h"
#include "agent/message.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agent/node-client.h"
#include "agent/node-socket.h"
#include "common/cleanup.h"
#include "common/log.h"

#define BACKLOG 128
#define ACCEPTS_AT_ONCE 16

struct TmcdServer {
        Manager *manager;
        struct in_addr address; /* of the listener */
        struct in_addr refused; /* where it could not listen, which was said */
        int fd;
        sd_event_source *io;
};

int tmcd_server_new(Manager *m, TmcdServer **ret, TbError **err)
{
        TmcdServer *s = calloc(1, sizeof(*s));

        if (!s)
                return tb_error_oom(err);
        s->manager = m;
        s->fd = -EBADF;
        *ret = s;
        return 0;
}

static void stop(TmcdServer *s)
{
        s->io = sd_event_source_disable_unref(s->io);
        s->fd = tb_close(s->fd);
        s->address = (struct in_addr){};
}

TmcdServer *tmcd_server_free(TmcdServer *s)
{
        if (!s)
                return NULL;
        stop(s);
        free(s);
        return NULL;
}

/* The node with this address on the control network. */
static Node *find_node(const Manager *m, struct in_addr address)
{
        for (size_t i = 0; i < m->n_nodes; i++) {
                Node *n = m->nodes[i];
                const Endpoint *e;

                if (!n->has_facts || !node_is_running(n))
                        continue;
                e = container_facts_endpoint(&n->facts, m->config.control_network);
                if (e && e->address.s_addr == address.s_addr)
                        return n;
        }
        return NULL;
}

static int on_accept(sd_event_source *source, int listen_fd, uint32_t revents, void *userdata)
{
        TmcdServer *s = userdata;

        for (unsigned i = 0; i < ACCEPTS_AT_ONCE; i++) {
                struct sockaddr_in peer;
                socklen_t size = sizeof(peer);
                int fd = accept4(listen_fd, (struct sockaddr *) &peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
                Node *n;

                if (fd < 0)
                        return 0;
                n = peer.sin_family == AF_INET ? find_node(s->manager, peer.sin_addr) : NULL;
                if (n && n->client)
                        node_socket_adopt(n->client->socket, fd);
                else
                        tb_close(fd);
        }
        return 0;
}

static int start(TmcdServer *s, struct in_addr address, TbError **err)
{
        const struct sockaddr_in name = {
                .sin_family = AF_INET, .sin_addr = address, .sin_port = htons(s->manager->config.tmcd.port)};
        _cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        char text[INET_ADDRSTRLEN];
        int one = 1, r;

        (void) inet_ntop(AF_INET, &address, text, sizeof(text));
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot make a socket for TMCD");
        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, (const struct sockaddr *) &name, sizeof(name)) < 0 || listen(fd, BACKLOG) < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, -errno,
                        "cannot serve TMCD on %s, port %u (key tmcd of the configuration)", text,
                        s->manager->config.tmcd.port);
        r = sd_event_add_io(s->manager->event, &s->io, fd, EPOLLIN, on_accept, s);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot wait for TMCD requests");
        s->fd = TAKE_FD(fd);
        s->address = address;
        log_info("serving TMCD on %s:%u", text, s->manager->config.tmcd.port);
        return 0;
}

void tmcd_server_look(TmcdServer *s, const Node *n)
{
        const ConfigTmcd *config = &n->manager->config.tmcd;
        _cleanup_error_ TbError *err = NULL;
        struct in_addr address = config->address;
        const Endpoint *e;

        if (!s || !config->enabled)
                return;
        e = container_facts_endpoint(&n->facts, n->manager->config.control_network);
        if (address.s_addr == 0 && e)
                address = e->gateway;
        if (address.s_addr == 0 || (s->fd >= 0 && s->address.s_addr == address.s_addr))
                return;
        stop(s);
        /* Nodes of any style may reach it: emulab.md c.5. */
        n->manager->site.agent = fw_network_ipv4(address);
        n->manager->site.agent_port = config->port;
        if (start(s, address, &err) >= 0)
                s->refused = (struct in_addr){};
        else if (s->refused.s_addr != address.s_addr) {
                s->refused = address;
                log_message(LOG_ERR, MESSAGE_TMCD_FAILED, "%s", tb_error_message(err));
                event_log_add(
                        s->manager->log, "tmcd-failed", json_pack("{s:s}", "reason", tb_error_message(err)));
        }
}

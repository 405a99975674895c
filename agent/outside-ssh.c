/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/outside-ssh.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/exec-session.h"
#include "agent/firewall-explain.h"
#include "agent/log-node.h"
#include "agent/node-firewall.h"
#include "agent/outside-keys.h"
#include "agent/outside-label.h"
#include "agent/run.h"
#include "common/cleanup.h"
#include "common/strv.h"

#define BACKLOG 64
#define PORT_SSH 22
#define LISTEN_RETRY_USEC (UINT64_C(10) * 1000000)
#define ACCESS_PATH "/tbnode/init"
/* A client that vanished without a word is found after two and a half minutes. */
#define KEEPALIVE_IDLE_SEC 60
#define KEEPALIVE_EACH_SEC 30
#define KEEPALIVE_PROBES 3

typedef struct Connection {
        struct OutsideSsh *owner;
        struct Connection *next;
        int fd;
        ExecSession *session; /* NULL: it has not begun */
        TbBuffer first;       /* what the server is told ahead of the client's bytes */
} Connection;

struct OutsideSsh {
        Node *node;
        int fd; /* -EBADF: it does not listen */
        sd_event_source *io;
        sd_event_source *timer; /* the next try to listen, or the next connection's time */
        TokenBucket bucket;
        Connection *connections;
        unsigned n_connections;
        TbBuffer host_keys[2];
        OutsideLabel *check; /* under way */
        bool trusted;        /* the keys are not the image's */
        TbError *error;      /* why it does not listen */
};

static void rearm(struct OutsideSsh *o);

/* ---- A connection ---------------------------------------------------------------------------------------------- */

static unsigned count_all(const Manager *m)
{
        unsigned n = 0;

        for (size_t i = 0; i < m->n_nodes; i++)
                n += m->nodes[i]->outside ? m->nodes[i]->outside->n_connections : 0;
        return n;
}

static void connection_free(Connection *c)
{
        struct OutsideSsh *o = c->owner;

        for (Connection **p = &o->connections; *p; p = &(*p)->next)
                if (*p == c) {
                        *p = c->next;
                        break;
                }
        if (c->session)
                exec_session_abandon(c->session);
        tb_close(c->fd);
        tb_buffer_done(&c->first);
        free(c);
        o->n_connections--;
}

/* There is room again, perhaps for another node's. */
static void rearm_all(Manager *m)
{
        for (size_t i = 0; i < m->n_nodes; i++)
                if (m->nodes[i]->outside)
                        rearm(m->nodes[i]->outside);
}

static void connection_ended(Connection *c)
{
        Manager *m = c->owner->node->manager;

        c->session = NULL;
        connection_free(c);
        rearm_all(m);
}

static void on_started(ExecSession *s, void *userdata)
{
        Connection *c = userdata;
        TbBuffer first = c->first;

        c->first = TB_BUFFER_INIT(0);
        exec_session_attach(s, c->fd, first.data, first.size); /* may end it */
        tb_buffer_done(&first);
}

static void on_failed(const TbError *err, void *userdata)
{
        Connection *c = userdata;

        log_node(c->owner->node, LOG_WARNING, "cannot begin an ssh session: %s", tb_error_message(err));
        connection_ended(c);
}

static void on_ended(void *userdata)
{
        connection_ended(userdata);
}

/* Format: augment/client/ssh-outside.h. */
static int compose(const struct OutsideSsh *o, const struct sockaddr_in *peer, const struct sockaddr_in *own,
        TbBuffer *ret, TbError **err)
{
        const char *keys = outside_ssh_keys(o->node);
        char from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN], addresses[2 * INET_ADDRSTRLEN + 16];
        int n, r;

        (void) inet_ntop(AF_INET, &peer->sin_addr, from, sizeof(from));
        (void) inet_ntop(AF_INET, &own->sin_addr, to, sizeof(to));
        n = snprintf(addresses, sizeof(addresses), "%s %u %s %u", from, ntohs(peer->sin_port), to,
                ntohs(own->sin_port));
        /* The last key needs its line break. */
        r = tb_buffer_printf(ret, err, "tbnode-ssh 1 %zu %zu %zu %d\n", o->host_keys[0].size,
                o->host_keys[1].size, strlen(keys) + 1, n);
        for (size_t i = 0; r >= 0 && i < ELEMENTSOF(o->host_keys); i++)
                r = tb_buffer_append(ret, o->host_keys[i].data, o->host_keys[i].size, err);
        return r < 0 ? r : tb_buffer_printf(ret, err, "%s\n%s", keys, addresses);
}

static int begin(Connection *c, const struct sockaddr_in *peer, const struct sockaddr_in *own, TbError **err)
{
        char *cmd[] = {(char *) ACCESS_PATH, (char *) "ssh", NULL};
        _cleanup_exec_spec_ ExecSpec spec = {.bare = true, .takes_stdin = true};
        int r;

        r = compose(c->owner, peer, own, &c->first, err);
        if (r < 0)
                return r;
        spec.user = strdup("0");
        spec.workdir = strdup("/");
        spec.cmd = tb_strv_copy(cmd);
        if (!spec.user || !spec.workdir || !spec.cmd)
                return tb_error_oom(err);
        return exec_session_start(c->owner->node, &spec,
                &(ExecCallbacks){
                        .started = on_started, .failed = on_failed, .ended = on_ended, .userdata = c},
                &c->session, err);
}

/* As if the packet went to port 22 of the node itself, which it does where a node has an sshd. What the host itself sends is not
 * filtered there either. */
static bool may_connect(Node *n, const struct sockaddr_in *peer, const struct sockaddr_in *own)
{
        FirewallQuestion q = {
                .direction = FW_IN,
                .packet = {.protocol = IPPROTO_TCP, .destination_port = PORT_SSH},
                .peer = fw_network_ipv4(peer->sin_addr),
        };
        _cleanup_json_ json_t *answer = NULL;
        _cleanup_error_ TbError *err = NULL;

        if (peer->sin_addr.s_addr == own->sin_addr.s_addr)
                return true;
        answer = firewall_explain(n, &q, &err);
        /* Without an address of its own nothing can be said of packets to it; a style that filters lets nothing in then. */
        if (err && err->code == -EADDRNOTAVAIL)
                return node_firewall(n) == FW_NONE || node_firewall(n) == FW_OPEN;
        if (err)
                log_node(n, LOG_WARNING, "cannot judge an ssh connection: %s", tb_error_message(err));
        return answer && tb_streq(json_string_value(json_object_get(answer, "verdict")), "allow");
}

static void set_options(int fd)
{
        static const struct {
                int level, name, value;
        } options[] = {
                {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_NODELAY, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_SEC},
                {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_EACH_SEC},
                {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
        };

        for (size_t i = 0; i < ELEMENTSOF(options); i++)
                (void) setsockopt(
                        fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
}

/* Takes `fd`. */
static void take_connection(struct OutsideSsh *o, int fd, const struct sockaddr_in *peer)
{
        _cleanup_close_ int owned = fd;
        _cleanup_error_ TbError *err = NULL;
        struct sockaddr_in own = {};
        socklen_t size = sizeof(own);
        Connection *c;

        c = getsockname(fd, (struct sockaddr *) &own, &size) >= 0 && may_connect(o->node, peer, &own)
                ? calloc(1, sizeof(*c))
                : NULL;
        if (!c) {
                o->node->manager->stats.outside_refused++;
                return;
        }
        o->node->manager->stats.outside_connections++;
        set_options(fd);
        *c = (Connection){
                .owner = o, .next = o->connections, .fd = TAKE_FD(owned), .first = TB_BUFFER_INIT(0)};
        o->connections = c;
        o->n_connections++;
        if (begin(c, peer, &own, &err) < 0) {
                log_node(o->node, LOG_WARNING, "cannot begin an ssh session: %s", tb_error_message(err));
                connection_free(c);
        }
}

/* ---- The port --------------------------------------------------------------------------------------------------- */

static int on_accept(sd_event_source *source, int listen_fd, uint32_t revents, void *userdata)
{
        struct OutsideSsh *o = userdata;
        struct sockaddr_in peer = {};
        socklen_t size = sizeof(peer);
        int fd;

        fd = accept4(listen_fd, (struct sockaddr *) &peer, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
                (void) token_bucket_take(&o->bucket, OUTSIDE_PER_SECOND, OUTSIDE_BURST, tb_now_us());
                take_connection(o, fd, &peer);
        }
        rearm(o);
        return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct OutsideSsh *o = userdata;

        o->timer = sd_event_source_disable_unref(o->timer);
        if (o->fd < 0)
                outside_ssh_update(o->node);
        else
                rearm(o);
        return 0;
}

static void set_timer(struct OutsideSsh *o, uint64_t usec)
{
        o->timer = sd_event_source_disable_unref(o->timer);
        if (sd_event_add_time_relative(
                    o->node->manager->event, &o->timer, CLOCK_MONOTONIC, usec, 0, on_timer, o) < 0)
                o->timer = NULL; /* the next connection that ends, or event of the node, is the next try */
}

/* Takes connections when there is room for one, else leaves them where they are. */
static void rearm(struct OutsideSsh *o)
{
        uint64_t wait = token_bucket_wait(&o->bucket, OUTSIDE_PER_SECOND, OUTSIDE_BURST, tb_now_us());
        bool room = o->n_connections < OUTSIDE_NODE_MAX && count_all(o->node->manager) < OUTSIDE_ALL_MAX;

        if (!o->io)
                return;
        (void) sd_event_source_set_enabled(o->io, room && wait == 0 ? SD_EVENT_ON : SD_EVENT_OFF);
        if (room && wait > 0)
                set_timer(o, wait);
}

static int open_port(struct OutsideSsh *o, TbError **err)
{
        Manager *m = o->node->manager;
        struct sockaddr_in name = {.sin_family = AF_INET};
        _cleanup_close_ int fd = -EBADF;
        int one = 1, r;

        r = node_ensure_ssh_port(o->node, err);
        if (r < 0)
                return r;
        name.sin_port = htons(o->node->ssh_port);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_RESOURCE, -errno, "cannot make a socket for its ssh");
        (void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, (const struct sockaddr *) &name, sizeof(name)) < 0 || listen(fd, BACKLOG) < 0)
                return tb_error_set_errno(err, TB_ERROR_ENVIRONMENT, -errno,
                        "cannot listen on port %u for its ssh; keep the ports of ssh-ports free "
                        "(ss -ltnp names who has it)",
                        o->node->ssh_port);
        r = sd_event_add_io(m->event, &o->io, fd, EPOLLIN, on_accept, o);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot wait for ssh connections");
        o->fd = TAKE_FD(fd);
        rearm(o);
        return 0;
}

static int make_host_keys(struct OutsideSsh *o, TbError **err)
{
        unsigned char secret[OUTSIDE_SECRET_SIZE];
        int r;

        if (o->host_keys[0].size > 0)
                return 0;
        r = outside_secret_read(o->node->manager->config.state_dir, secret, err);
        if (r >= 0)
                r = outside_key_ed25519(secret, o->node->id, &o->host_keys[0], err);
        if (r >= 0)
                r = outside_key_ecdsa(secret, o->node->id, &o->host_keys[1], err);
        explicit_bzero(secret, sizeof(secret));
        return r;
}

/* Through the container's root, where a link may lead anywhere: it is only asked whether something is there. */
static int check_programs(const Node *n, TbError **err)
{
        char path[64];

        (void) snprintf(path, sizeof(path), "/proc/%d/root" ACCESS_PATH, (int) n->identity.pid);
        if (access(path, F_OK) >= 0)
                return 0;
        return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                "the programs for ssh are not mounted in it; start it with the start gate (docker run "
                "--runtime "
                "tbnode) or with -v %s:/tbnode:ro",
                n->manager->config.ssh_tree);
}

static void set_error(struct OutsideSsh *o, TbError *err)
{
        if (err && !tb_streq(o->error ? tb_error_message(o->error) : NULL, tb_error_message(err)))
                log_node(o->node, LOG_WARNING, "%s", tb_error_message(err));
        tb_error_free(o->error);
        o->error = err;
}

static void on_checked(const TbError *err, void *userdata)
{
        struct OutsideSsh *o = userdata;
        Node *n = o->node;

        o->check = outside_label_free(o->check);
        o->trusted = !err;
        if (err) {
                set_error(o, tb_error_copy(err));
                if (err->code != -EPERM)
                        set_timer(o, LISTEN_RETRY_USEC);
        }
        if (o->trusted || n->ssh_keys_override)
                outside_ssh_update(n);
}

/* 0 = it may listen; 1 = that is being found out. */
static int check_keys(struct OutsideSsh *o, TbError **err)
{
        if (run_is_making(o->node->manager, o->node->id))
                o->trusted = true;
        if (o->trusted || o->node->ssh_keys_override)
                return 0;
        if (o->check)
                return 1;
        if (o->error && o->error->code == -EPERM) /* nothing can change that */
                return 1;
        int r = outside_label_check(o->node, on_checked, o, &o->check, err);

        return r < 0 ? r : 1;
}

static void start(Node *n)
{
        _cleanup_error_ TbError *err = NULL;
        struct OutsideSsh *o = n->outside;
        int r;

        if (!o) {
                o = calloc(1, sizeof(*o));
                if (!o)
                        return;
                *o = (struct OutsideSsh){
                        .node = n, .fd = -EBADF, .host_keys = {TB_BUFFER_INIT(0), TB_BUFFER_INIT(0)}};
                n->outside = o;
        }
        if (o->fd >= 0)
                return;
        r = check_keys(o, &err);
        if (r > 0)
                return;
        if (r >= 0)
                r = check_programs(n, &err);
        if (r >= 0)
                r = make_host_keys(o, &err);
        if (r >= 0)
                r = open_port(o, &err);
        set_error(o, TAKE_PTR(err));
        if (r >= 0)
                log_node(n, LOG_INFO, "ssh from outside on port %u", n->ssh_port);
        else if (r != -ENOENT)
                set_timer(o, LISTEN_RETRY_USEC);
}

void outside_ssh_stop(Node *n)
{
        struct OutsideSsh *o = n->outside;

        if (!o)
                return;
        while (o->connections)
                connection_free(o->connections);
        sd_event_source_disable_unref(o->io);
        sd_event_source_disable_unref(o->timer);
        outside_label_free(o->check);
        tb_close(o->fd);
        for (size_t i = 0; i < ELEMENTSOF(o->host_keys); i++) {
                if (o->host_keys[i].data)
                        explicit_bzero(o->host_keys[i].data, o->host_keys[i].size);
                tb_buffer_done(&o->host_keys[i]);
        }
        tb_error_free(o->error);
        free(o);
        n->outside = NULL;
        rearm_all(n->manager);
}

const char *outside_ssh_keys(const Node *n)
{
        return n->ssh_keys_override ?: n->labels.ssh_keys;
}

int node_set_ssh_keys_override(Node *n, const char *keys, TbError **err)
{
        char *copy = NULL;
        int r;

        if (keys) {
                r = node_labels_check_keys(keys, err);
                if (r < 0)
                        return r;
                copy = strdup(keys);
                if (!copy)
                        return tb_error_oom(err);
        }
        free(n->ssh_keys_override);
        n->ssh_keys_override = copy;
        return 0;
}

void outside_ssh_keys_changed(Node *n)
{
        struct OutsideSsh *o = n->outside;

        /* The label's again, which nobody has asked the engine about: not before that. Who is in stays. */
        if (o && !n->ssh_keys_override && !o->trusted) {
                o->io = sd_event_source_disable_unref(o->io);
                o->fd = tb_close(o->fd);
        }
        if (o && n->ssh_keys_override)
                set_error(o, NULL);
        outside_ssh_update(n);
}

OutsideCounts outside_ssh_counts(const Manager *m)
{
        return (OutsideCounts){.open = count_all(m),
                .total = m->stats.outside_connections,
                .refused = m->stats.outside_refused};
}

bool outside_ssh_is_declared(const Node *n)
{
        return n->labels.ssh_keys != NULL;
}

bool outside_ssh_is_open(const Node *n)
{
        return n->outside && n->outside->fd >= 0;
}

const char *outside_ssh_missing(const Node *n)
{
        if (outside_ssh_is_open(n))
                return NULL;
        if (n->manager->config.ssh_ports.last == 0)
                return "the host has no ports for ssh; set ssh-ports in tbnoded.conf";
        if (n->outside && n->outside->error)
                return tb_error_message(n->outside->error);
        return n->outside && n->outside->check ? "the engine is being asked whose its keys are"
                                               : "it is not up";
}

void outside_ssh_update(Node *n)
{
        if (!outside_ssh_is_declared(n) || n->manager->config.ssh_ports.last == 0)
                return;
        /* FAILED and CONFIGURING after that: what is open stays open as long as the container runs. */
        if (n->state == NODE_CONFIGURED)
                start(n);
        else if (!node_is_running(n))
                outside_ssh_stop(n);
}

bool outside_ssh_has_programs(const char *tree)
{
        _cleanup_free_ char *path = tb_asprintf("%s/init", tree);

        return path && access(path, X_OK) >= 0;
}

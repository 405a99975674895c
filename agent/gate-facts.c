/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "agent/gate-facts.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "netctl/netns.h"
#include "netctl/veth.h"

#define NAME_MAX_BYTES 256U
#define NETWORK_ID_LEN 64U
static int broken(const char *what, TbError **err)
{
        return tb_error_set(
                err, TB_ERROR_REMOTE, -EPROTO, "the request to the start gate is broken: %s", what);
}

static bool is_text(const char *s)
{
        return s && strlen(s) > 0 && strlen(s) <= NAME_MAX_BYTES;
}

int gate_request_parse(const json_t *j, GateRequest *ret, TbError **err)
{
        const char *id = json_string_value(json_object_get(j, "id"));
        GateRequest q = {
                .name = json_string_value(json_object_get(j, "name")),
                .labels = json_object_get(j, "labels"),
                .networks = json_object_get(j, "networks"),
                .network_mode = json_string_value(json_object_get(j, "network_mode")),
                .image = json_string_value(json_object_get(j, "image")),
                .node_dir = json_string_value(json_object_get(j, "node_dir")),
        };
        json_int_t pid = json_integer_value(json_object_get(j, "pid"));
        const char *name;
        json_t *value;

        if (json_integer_value(json_object_get(j, "version")) != 1)
                return broken(
                        "its version is not 1; tbnode-runtime and tbnoded must be of one installation", err);
        if (!container_id_is_valid(id))
                return broken("no valid id", err);
        if (pid < 1 || pid > INT32_MAX)
                return broken("no valid pid", err);
        if (!is_text(q.name) || !json_is_object(q.labels) || !json_is_object(q.networks) ||
                !q.network_mode || !q.image || (q.node_dir && q.node_dir[0] != '/'))
                return broken("a member is missing or of another type", err);
        if (json_object_size(q.networks) > FACTS_ENDPOINTS_MAX)
                return broken("too many networks", err);
        json_object_foreach ((json_t *) q.networks, name, value) {
                const char *network = json_string_value(value);
                if (!is_text(name) || !network || strlen(network) > NETWORK_ID_LEN)
                        return broken("a network has no proper name or id", err);
        }
        memcpy(q.id, id, sizeof(q.id));
        q.pid = (pid_t) pid;
        *ret = q;
        return 0;
}

static bool is_bridge_of(const Link *bridge, const Endpoint *e)
{
        char name[IFNAMSIZ];

        endpoint_bridge(e, name);
        return name[0] && tb_streq(bridge->name, name);
}

static void endpoint_take(Endpoint *e, const ContainerInterface *i)
{
        e->has_mac = true;
        memcpy(e->mac.ether_addr_octet, i->link.mac, sizeof(e->mac.ether_addr_octet));
        e->address = i->ipv4;
        e->prefix = i->prefix;
}

/* Which interface belongs to which network: by the bridge; and where that leaves one of each (a bridge of another name, a
 * macvlan), these belong together. */
static void match(const Container *c, const Links *links, ContainerFacts *f)
{
        const ContainerInterface *left = NULL;
        Endpoint *unmatched = NULL;
        size_t n_left = 0, n_unmatched = 0;

        for (size_t i = 0; i < c->n; i++) {
                const ContainerInterface *inside = c->interfaces + i, *verified;
                const Link *host = NULL, *bridge = NULL;
                bool found = false;

                if (inside->link.flags & IFF_LOOPBACK)
                        continue;
                if (container_resolve(c, links, inside->link.mac, &verified, &host, NULL) >= 0 &&
                        host->master)
                        bridge = links_find(links, host->master);
                for (size_t k = 0; bridge && !found && k < f->n_endpoints; k++)
                        if (!f->endpoints[k].has_mac && is_bridge_of(bridge, f->endpoints + k)) {
                                endpoint_take(f->endpoints + k, inside);
                                found = true;
                        }
                if (!found) {
                        left = inside;
                        n_left++;
                }
        }
        for (size_t k = 0; k < f->n_endpoints; k++)
                if (!f->endpoints[k].has_mac) {
                        unmatched = f->endpoints + k;
                        n_unmatched++;
                }
        if (n_left == 1 && n_unmatched == 1)
                endpoint_take(unmatched, left);
}

static int fill_endpoints(const GateRequest *q, ContainerFacts *f, TbError **err)
{
        const char *name;
        json_t *value;

        f->endpoints = calloc(json_object_size(q->networks) + 1, sizeof(*f->endpoints));
        if (!f->endpoints)
                return tb_error_oom(err);
        json_object_foreach ((json_t *) q->networks, name, value) {
                Endpoint *e = f->endpoints + f->n_endpoints++;
                e->network = strdup(name);
                e->network_id = strdup(json_string_value(value));
                if (!e->network || !e->network_id)
                        return tb_error_oom(err);
        }
        return 0;
}

/* Of the host's devices those that the container's lead to, and their bridges: there may be thousands of others. Reading a veth is what
 * gives the container's namespace its number. */
static int read_hosts(Rtnl *rtnl, int netns_fd, Container *c, Links *links, TbError **err)
{
        _cleanup_free_ LinkKey *keys = calloc(c->n + 1, sizeof(*keys));

        if (!keys)
                return tb_error_oom(err);
        for (size_t i = 0; i < c->n; i++)
                keys[i].ifindex = c->interfaces[i].link.peer;
        int r = links_get(rtnl, keys, c->n, links, err);
        for (size_t i = 0; i < c->n && r >= 0; i++) {
                const Link *host = links_find(links, keys[i].ifindex);
                keys[i].ifindex = host ? host->master : 0;
        }
        if (r >= 0)
                r = links_get(rtnl, keys, c->n, links, err);
        if (r >= 0 && !c->container_known)
                r = netns_id(rtnl, netns_fd, &c->container_nsid, &c->container_known, err);
        return r;
}

static int read_namespace(pid_t pid, ContainerFacts *f, TbError **err)
{
        _cleanup_container_ Container c = {};
        _cleanup_links_ Links links = {};
        _cleanup_rtnl_ Rtnl *rtnl = NULL;
        _cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd = -EBADF;
        char path[48];

        (void) snprintf(path, sizeof(path), "/proc/%d/ns/net", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (home < 0 || fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, fd < 0 && errno == ENOENT ? -ESRCH : -errno,
                        "cannot open the network namespace of process %d", (int) pid);
        int r = rtnl_new(&rtnl, err);
        if (r >= 0)
                r = container_read(rtnl, home, fd, true, NULL, &c, err);
        if (r >= 0)
                r = read_hosts(rtnl, fd, &c, &links, err);
        if (r >= 0)
                match(&c, &links, f);
        return r;
}

int gate_facts_read(const GateRequest *q, ContainerFacts *ret, TbError **err)
{
        _cleanup_container_facts_ ContainerFacts f = {.running = true, .pid = q->pid};
        bool own = !tb_streq(q->network_mode, "host") && !tb_startswith(q->network_mode, "container:");

        memcpy(f.id, q->id, sizeof(f.id));
        f.name = strdup(q->name);
        f.image = strdup(q->image);
        f.network_mode = strdup(q->network_mode);
        f.node_dir = q->node_dir ? strdup(q->node_dir) : NULL;
        f.labels = json_incref((json_t *) q->labels);
        if (!f.name || !f.image || !f.network_mode || (q->node_dir && !f.node_dir))
                return tb_error_oom(err);
        int r = fill_endpoints(q, &f, err);
        if (r >= 0 && own)
                r = read_namespace(q->pid, &f, err);
        if (r < 0)
                return r;
        *ret = f;
        f = (ContainerFacts){};
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "netctl/tool.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

#define DOCUMENT_MAX (16 * 1024 * 1024)

void tool_nodes_done(ToolNodes *t)
{
        for (size_t i = 0; i < t->n; i++) {
                tb_close(t->nodes[i].netns_fd);
                for (size_t k = 0; t->shapes[i] && k < t->nodes[i].n_interfaces; k++)
                        link_shape_done(t->shapes[i] + k);
                free(t->interfaces[i]);
                free(t->shapes[i]);
        }
        for (size_t i = 0; i < t->n; i++)
                fw_rules_done(t->rules + i);
        fw_rules_done(&t->site.rules);
        free(t->rules);
        free(t->nsids);
        free(t->nodes);
        free(t->interfaces);
        free(t->shapes);
        json_decref(t->document);
        *t = (ToolNodes){};
}

int tool_open_netns(const char *pid_or_path, int *ret_fd, TbError **err)
{
        _cleanup_free_ char *path = NULL;
        uint32_t pid;

        if (strchr(pid_or_path, '/'))
                path = strdup(pid_or_path);
        else {
                int r = tb_parse_u32(pid_or_path, 1, INT32_MAX, &pid, err);
                if (r < 0) {
                        tb_error_prefix(err, "bad PID");
                        return r;
                }
                path = tb_asprintf("/proc/%u/ns/net", pid);
        }
        if (!path)
                return tb_error_oom(err);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_ENVIRONMENT, errno, "cannot open the network namespace %s", path);
        *ret_fd = fd;
        return 0;
}

int tool_container(int netns_fd, Container *ret, Links *ret_links, TbError **err)
{
        _cleanup_rtnl_ Rtnl *rtnl = NULL;
        _cleanup_links_ Links links = {};
        _cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

        if (home < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, errno, "cannot open the host's network namespace");
        int r = rtnl_new(&rtnl, err);
        if (r >= 0)
                r = links_dump(rtnl, &links, err);
        if (r >= 0)
                r = container_read(rtnl, home, netns_fd, true, NULL, ret, err);
        if (r < 0)
                return r;
        if (ret_links) {
                *ret_links = links;
                links = (Links){};
        }
        return 0;
}

int tool_check_keys(const json_t *object, const char *const *known, const char *what, TbError **err)
{
        const char *key;
        json_t *value;

        if (!json_is_object(object))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s: expected an object", what);
        json_object_foreach ((json_t *) object, key, value) {
                bool ok = false;
                for (const char *const *k = known; *k; k++)
                        ok |= tb_streq(*k, key);
                if (!ok) {
                        _cleanup_free_ char *shown = tb_escape(key, 40);
                        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s: unknown key '%s'", what,
                                shown ? shown : "?");
                }
        }
        return 0;
}

/* One direction: "" is an empty shape, absent is NULL. */
static int load_direction(
        const json_t *o, const char *key, bool up, ShapePair *pair, const Shape **ret, TbError **err)
{
        const char *spec = NULL;
        ShapePair p = {};

        int r = tb_json_get_string(o, key, &spec, err);
        if (r <= 0)
                return r;
        if (*spec) {
                r = shape_spec_parse_complete(spec, &p, err);
                if (r < 0)
                        return r;
        }
        if (up) {
                pair->up = p.up;
                *ret = &pair->up;
        } else {
                pair->down = p.down;
                *ret = &pair->down;
        }
        return 0;
}

/* Both directions, and rules. */
static int load_link(const json_t *o, LinkShape *shape, NetctlInterface *i, TbError **err)
{
        const char *text = NULL;

        int r = tb_json_get_string(o, "shape", &text, err);
        if (r <= 0)
                return r;
        if (*text) {
                r = link_shape_parse_complete(text, shape, err);
                if (r < 0)
                        return r;
        }
        i->up = &shape->base.up;
        i->down = &shape->base.down;
        i->rules = shape->rules;
        i->n_rules = shape->n_rules;
        return 0;
}

static int load_mac(const json_t *o, const Container *c, uint8_t mac[static 6], TbError **err)
{
        const char *text = NULL, *ifname = NULL;

        int r = tb_json_get_string(o, "mac", &text, err);
        if (r < 0)
                return r;
        if (text) {
                if (mac_parse(text, mac))
                        return 0;
                _cleanup_free_ char *shown = tb_escape(text, 40);
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EINVAL, "bad MAC address '%s'", shown ? shown : "?");
        }
        r = tb_json_get_string(o, "ifname", &ifname, err);
        if (r < 0)
                return r;
        if (!ifname)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "an interface needs 'mac' or 'ifname'");
        const ContainerInterface *i = container_find_name(c, ifname);
        if (!i) {
                _cleanup_free_ char *shown = tb_escape(ifname, 40);
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -ENXIO, "the container has no interface '%s'",
                        shown ? shown : "?");
        }
        memcpy(mac, i->link.mac, 6);
        return 0;
}

static int load_interface(
        const json_t *o, const Container *c, NetctlInterface *i, LinkShape *shape, TbError **err)
{
        static const char *const keys[] = {"mac", "ifname", "network", "shape", "up", "down", "filtered",
                "pinned", "ipv4", "ipv6", NULL};

        int r = tool_check_keys(o, keys, "interface", err);
        if (r >= 0)
                r = load_mac(o, c, i->mac, err);
        if (r >= 0)
                r = tb_json_get_string(o, "network", &i->network, err);
        if (r >= 0)
                r = load_link(o, shape, i, err);
        if (r >= 0)
                r = load_direction(o, "up", true, &shape->base, &i->up, err);
        if (r >= 0)
                r = load_direction(o, "down", false, &shape->base, &i->down, err);
        return r < 0 ? r : tool_interface_load_firewall(o, i, err);
}

static int load_netns(const json_t *o, int *ret, TbError **err)
{
        const char *path = NULL;
        uint64_t pid = 0;
        char text[24];

        int r = tb_json_get_string(o, "netns", &path, err);
        if (r >= 0)
                r = tb_json_get_u64(o, "pid", &pid, err);
        if (r < 0)
                return r;
        if (!path) {
                (void) snprintf(text, sizeof(text), "%llu", (unsigned long long) pid);
                path = text;
        }
        return tool_open_netns(path, ret, err);
}

static bool any_by_name(json_t *interfaces)
{
        size_t i;
        json_t *o;

        json_array_foreach (interfaces, i, o) {
                if (!json_object_get(o, "mac"))
                        return true;
        }
        return false;
}

static int load_node(const json_t *o, ToolNodes *t, size_t index, TbError **err)
{
        static const char *const keys[] = {"id", "name", "pid", "netns", "style", "group", "ssh_port",
                "agent", "interfaces", "replace_foreign", "shapes_only", NULL};
        NetctlNode *node = t->nodes + index;
        _cleanup_container_ Container c = {};
        json_t *interfaces = NULL;
        bool shapes_only = false;

        int r = tool_check_keys(o, keys, "node", err);
        if (r >= 0)
                r = tb_json_get_string(o, "id", &node->id, err);
        if (r >= 0)
                r = tb_json_get_string(o, "name", &node->name, err);
        if (r >= 0)
                r = tool_node_load_firewall(o, node, t->rules + index, err);
        if (r >= 0)
                r = tb_json_get_array(o, "interfaces", &interfaces, err);
        if (r >= 0)
                r = tb_json_get_bool(o, "replace_foreign", &node->replace_foreign, err);
        if (r >= 0)
                r = tb_json_get_bool(o, "shapes_only", &shapes_only, err);
        if (r >= 0)
                r = load_netns(o, &node->netns_fd, err);
        if (r < 0)
                return r;
        if (!node->id)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "a node needs an 'id'");

        size_t n = json_array_size(interfaces);
        if (n > NETCTL_INTERFACES_MAX)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -E2BIG, "more than %d interfaces", NETCTL_INTERFACES_MAX);
        t->interfaces[index] = calloc(n + 1, sizeof(NetctlInterface));
        t->shapes[index] = calloc(n + 1, sizeof(LinkShape));
        if (!t->interfaces[index] || !t->shapes[index])
                return tb_error_oom(err);
        if (any_by_name(interfaces)) {
                r = tool_container(node->netns_fd, &c, NULL, err);
                if (r < 0)
                        return r;
        }
        node->parts = shapes_only ? NETCTL_SHAPES : NETCTL_ALL;
        node->interfaces = t->interfaces[index];
        node->n_interfaces = n;
        for (size_t i = 0; i < n; i++) {
                r = load_interface(json_array_get(interfaces, i), &c, t->interfaces[index] + i,
                        t->shapes[index] + i, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int tool_nodes_load(const char *path, ToolNodes *ret, TbError **err)
{
        static const char *const keys[] = {"nodes", "site", NULL};
        _cleanup_tool_nodes_ ToolNodes t = {};
        json_t *nodes = NULL;

        int r = tb_json_load_file(path, DOCUMENT_MAX, &t.document, err);
        if (r >= 0)
                r = tool_check_keys(t.document, keys, path, err);
        if (r >= 0)
                r = tb_json_get_array(t.document, "nodes", &nodes, err);
        if (r >= 0)
                r = tool_site_load(t.document, &t.site, err);
        if (r < 0)
                return r;
        size_t n = json_array_size(nodes);
        if (n > NETCTL_NODES_MAX)
                return tb_error_set(err, TB_ERROR_CONFIG, -E2BIG, "more than %d nodes", NETCTL_NODES_MAX);
        t.nodes = calloc(n + 1, sizeof(*t.nodes));
        t.interfaces = calloc(n + 1, sizeof(*t.interfaces));
        t.shapes = calloc(n + 1, sizeof(*t.shapes));
        t.rules = calloc(n + 1, sizeof(*t.rules));
        t.nsids = calloc(n + 1, sizeof(*t.nsids));
        if (!t.nodes || !t.interfaces || !t.shapes || !t.rules || !t.nsids)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++) {
                t.nodes[i].netns_fd = -EBADF;
                t.nsids[i] = -1;
                t.nodes[i].nsid = t.nsids + i;
                t.n = i + 1;
                r = load_node(json_array_get(nodes, i), &t, i, err);
                if (r < 0) {
                        tb_error_prefix(err, "%s: nodes[%zu]", path, i);
                        return r;
                }
        }
        *ret = t;
        t = (ToolNodes){};
        return 0;
}

static json_t *rules_json(const NetctlDirection *d)
{
        json_t *list = json_array();

        for (size_t i = 0; i < d->n_rules; i++) {
                const NetctlRule *r = d->rules + i;
                char match[SHAPE_MATCH_TEXT_MAX], text[SHAPE_TEXT_MAX];
                (void) json_array_append_new(list,
                        json_pack("{s:s, s:s, s:i, s:I, s:I, s:I}", "match",
                                shape_match_print(&r->match, match), "shape", shape_print(&r->shape, text),
                                "class", (int) r->class, "bytes", (json_int_t) r->bytes, "packets",
                                (json_int_t) r->packets, "drops", (json_int_t) r->drops));
        }
        return list;
}

static json_t *direction_json(const NetctlDirection *d)
{
        char text[SHAPE_TEXT_MAX];

        if (!d->present)
                return json_null();
        return json_pack("{s:s, s:s, s:o, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "device", d->device,
                "shape", shape_print(&d->shape, text), "rules", rules_json(d), "netem", d->netem,
                "burst_bytes", (json_int_t) d->burst_bytes, "quantum_bytes", (json_int_t) d->quantum_bytes,
                "bytes", (json_int_t) d->bytes, "packets", (json_int_t) d->packets, "drops",
                (json_int_t) d->drops, "overlimits", (json_int_t) d->overlimits, "backlog",
                (json_int_t) d->backlog_packets);
}

static json_t *interface_json(const NetctlInterfaceStatus *s)
{
        char mac[18], ip[INET_ADDRSTRLEN] = "";

        (void) inet_ntop(AF_INET, &s->ipv4, ip, sizeof(ip));
        return json_pack("{s:s, s:s?, s:s, s:i, s:s?, s:s, s:i, s:i, s:s, s:o, s:o, s:s, s:s, s:s}", "mac",
                mac_print(s->mac, mac), "network", s->network, "ifname", s->ifname, "ifindex", s->ifindex,
                "host_netns", s->host_netns, "host_ifname", s->host_ifname, "host_ifindex", s->host_ifindex,
                "bridge_ifindex", s->bridge_ifindex, "ipv4", ip, "up", direction_json(&s->up), "down",
                direction_json(&s->down), "segmentation", s->offload_off ? "off" : "on", "offload",
                s->offload, "change", netctl_change_to_string(s->change));
}

json_t *tool_report_json(const NetctlReport *r, uint64_t elapsed_ns)
{
        json_t *nodes = json_array();

        for (size_t i = 0; i < r->n_nodes; i++) {
                const NetctlNodeStatus *s = r->nodes + i;
                json_t *interfaces = json_array();
                for (size_t k = 0; k < s->n_interfaces; k++)
                        (void) json_array_append_new(interfaces, interface_json(s->interfaces + k));
                json_t *error = s->error
                        ? json_pack("{s:s, s:i, s:s, s:b}", "kind", tb_error_kind_to_string(s->error->kind),
                                  "code", s->error->code, "message", tb_error_message(s->error), "retryable",
                                  s->error->retryable)
                        : json_null();
                (void) json_array_append_new(nodes,
                        json_pack("{s:o, s:o, s:b, s:b, s:b, s:s}", "error", error, "interfaces", interfaces,
                                "firewall", s->firewall, "firewall_changed", s->firewall_changed,
                                "bridge_nf_enabled", s->bridge_nf_enabled, "change",
                                netctl_change_to_string(s->change)));
        }
        return json_pack("{s:o, s:I, s:I, s:I, s:I, s:f, s:{s:f, s:f, s:f, s:f, s:f}}", "nodes", nodes,
                "netlink_writes", (json_int_t) r->netlink_writes, "netlink_sends",
                (json_int_t) r->netlink_sends, "firewall_commits", (json_int_t) r->firewall_commits,
                "sysctl_writes", (json_int_t) r->sysctl_writes, "elapsed_ms", (double) elapsed_ns / 1e6,
                "phases_ms", "observe", (double) r->observe_ns / 1e6, "plan", (double) r->plan_ns / 1e6,
                "apply", (double) r->apply_ns / 1e6, "verify", (double) r->verify_ns / 1e6, "firewall",
                (double) r->firewall_ns / 1e6);
}

static void print_direction(const char *name, const NetctlDirection *d)
{
        char text[SHAPE_TEXT_MAX];

        if (!d->present)
                return;
        printf("  %-5s%s: %s (burst %u, quantum %u) sent %llu bytes %llu packets, dropped %llu\n", name,
                d->device, shape_print(&d->shape, text), d->burst_bytes, d->quantum_bytes,
                (unsigned long long) d->bytes, (unsigned long long) d->packets,
                (unsigned long long) d->drops);
        for (size_t i = 0; i < d->n_rules; i++) {
                const NetctlRule *r = d->rules + i;
                char match[SHAPE_MATCH_TEXT_MAX];
                printf("       %s: %s, sent %llu bytes %llu packets, dropped %llu\n",
                        shape_match_print(&r->match, match), shape_print(&r->shape, text),
                        (unsigned long long) r->bytes, (unsigned long long) r->packets,
                        (unsigned long long) r->drops);
        }
}

int tool_report_print(const NetctlReport *r)
{
        int failed = 0;

        for (size_t i = 0; i < r->n_nodes; i++) {
                const NetctlNodeStatus *s = r->nodes + i;
                if (s->error) {
                        fprintf(stderr, "tbnode-netctl: %s\n", tb_error_message(s->error));
                        failed++;
                        continue;
                }
                for (size_t k = 0; k < s->n_interfaces; k++) {
                        const NetctlInterfaceStatus *x = s->interfaces + k;
                        char ip[INET_ADDRSTRLEN] = "", mac[18];
                        (void) inet_ntop(AF_INET, &x->ipv4, ip, sizeof(ip));
                        printf("%s %s %s host side %s (%d): %s%s\n", x->ifname, mac_print(x->mac, mac), ip,
                                x->host_ifname, x->host_ifindex, netctl_change_to_string(x->change),
                                s->firewall ? ", firewall" : "");
                        print_direction("up", &x->up);
                        print_direction("down", &x->down);
                }
        }
        return failed;
}

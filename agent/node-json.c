/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A node as the API shows it. Out of memory anywhere gives NULL: half an answer would be a wrong one. */

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "agent/event-log.h"
#include "agent/main-status.h"
#include "agent/manager.h"
#include "agent/node-client.h"
#include "agent/node-firewall.h"
#include "agent/node.h"
#include "agent/outside-ssh.h"
#include "common/cleanup.h"
#include "common/strv.h"

static bool set(json_t *obj, const char *key, json_t *value)
{
        return json_object_set_new(obj, key, value) >= 0;
}

static bool set_text(json_t *obj, const char *key, const char *s)
{
        return set(obj, key, s ? json_string(s) : json_null());
}

static json_t *address_to_json(struct in_addr a)
{
        char text[INET_ADDRSTRLEN];

        return a.s_addr == 0 ? json_null() : json_string(inet_ntop(AF_INET, &a, text, sizeof(text)));
}

static json_t *rules_to_json(const NetctlDirection *d)
{
        _cleanup_json_ json_t *list = json_array();

        for (size_t i = 0; list && i < d->n_rules; i++) {
                const NetctlRule *r = &d->rules[i];
                char match[SHAPE_MATCH_TEXT_MAX], text[SHAPE_TEXT_MAX];

                if (json_array_append_new(list,
                            json_pack("{s:s, s:s, s:I, s:I, s:I}", "match",
                                    shape_match_print(&r->match, match), "shape",
                                    shape_print(&r->shape, text), "bytes", (json_int_t) r->bytes, "packets",
                                    (json_int_t) r->packets, "drops", (json_int_t) r->drops)) < 0)
                        return NULL;
        }
        return TAKE_PTR(list);
}

static json_t *direction_to_json(const NetctlDirection *d, const Shape *requested)
{
        char text[SHAPE_TEXT_MAX], asked[SHAPE_TEXT_MAX];
        json_t *j;

        if (!d->present)
                return json_null();
        j = json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "device", d->device,
                "shape", shape_print(&d->shape, text), "requested", shape_print(requested, asked), "netem",
                d->netem, "burst_bytes", (json_int_t) d->burst_bytes, "quantum_bytes",
                (json_int_t) d->quantum_bytes, "bytes", (json_int_t) d->bytes, "packets",
                (json_int_t) d->packets, "drops", (json_int_t) d->drops, "overlimits",
                (json_int_t) d->overlimits, "backlog_packets", (json_int_t) d->backlog_packets);
        if (j && d->n_rules > 0 && !set(j, "rules", rules_to_json(d))) {
                json_decref(j);
                return NULL;
        }
        return j;
}

static const NetctlInterfaceStatus *find_status(const Node *n, const Endpoint *e)
{
        for (size_t i = 0; n->has_status && i < n->status.n_interfaces; i++)
                if (memcmp(n->status.interfaces[i].mac, e->mac.ether_addr_octet, 6) == 0)
                        return &n->status.interfaces[i];
        return NULL;
}

static json_t *interface_to_json(const Node *n, const Endpoint *e, bool full)
{
        const NetctlInterfaceStatus *s = find_status(n, e);
        bool control = tb_streq(e->network, n->manager->config.control_network);
        _cleanup_link_shape_ LinkShape shape = {};
        _cleanup_free_ char *text = NULL;
        char mac[18];
        const uint8_t *m = e->mac.ether_addr_octet;
        _cleanup_json_ json_t *j = json_object();

        (void) snprintf(
                mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
        if ((!control || node_override(n, e->network)) && node_shape(n, e->network, &shape, NULL) < 0)
                shape = (LinkShape){};
        text = link_shape_print(&shape);
        if (!j || !text || !set_text(j, "network", e->network) ||
                !set(j, "control", json_boolean(control)) ||
                !set(j, "address", address_to_json(e->address)) ||
                !set_text(j, "mac", e->has_mac ? mac : NULL) || !set_text(j, "shape", text) ||
                !set_text(j, "ifname", s ? s->ifname : NULL) ||
                !set_text(j, "host_netns", s ? s->host_netns : NULL) ||
                !set_text(j, "host_ifname", s ? s->host_ifname : NULL))
                return NULL;
        if (full && s &&
                (!set(j, "up", direction_to_json(&s->up, &shape.base.up)) ||
                        !set(j, "down", direction_to_json(&s->down, &shape.base.down)) ||
                        !set_text(j, "segmentation", s->offload_off ? "off" : "on") ||
                        !set_text(j, "offload", s->offload) ||
                        !set(j, "overridden", json_boolean(node_override(n, e->network) != NULL)) ||
                        !shape_override_describe(node_override(n, e->network), j)))
                return NULL;
        return TAKE_PTR(j);
}

static json_t *interfaces_to_json(const Node *n, bool full)
{
        _cleanup_json_ json_t *a = json_array();

        for (size_t i = 0; a && i < n->facts.n_endpoints; i++) {
                if (!n->facts.endpoints[i].has_mac)
                        continue;
                if (json_array_append_new(a, interface_to_json(n, &n->facts.endpoints[i], full)) < 0)
                        return NULL;
        }
        return TAKE_PTR(a);
}

static bool add_details(const Node *n, json_t *j)
{
        _cleanup_free_ char *main_status = NULL;
        const char *missing = NULL;

        if (n->identity.pid != 0 && main_status_read(&n->identity, &main_status, NULL) < 0)
                main_status = NULL;
        if (n->state == NODE_CONFIGURING)
                (void) node_check_ready(n, &missing);
        return set(j, "client", node_client_status_to_json(n)) &&
                set(j, "pid", json_integer(n->identity.pid)) &&
                set(j, "start_time", json_integer((json_int_t) n->identity.start_time)) &&
                set(j, "netns", json_integer((json_int_t) n->identity.netns)) &&
                set_text(j, "main", main_status) && set_text(j, "missing", missing) &&
                set_text(j, "on_exit", node_on_exit_to_string(n->labels.on_exit)) &&
                set_text(j, "firewall_declared", node_firewall_text(n)) &&
                set_text(j, "ssh_missing", outside_ssh_is_declared(n) ? outside_ssh_missing(n) : NULL) &&
                set_text(j, "ssh_keys", outside_ssh_keys(n)) &&
                set(j, "ssh_keys_changed", json_boolean(n->ssh_keys_override != NULL)) &&
                set(j, "firewall_installed", json_boolean(n->has_status && n->status.firewall)) &&
                set(j, "configured_us", json_integer((json_int_t) n->configured_us));
}

/* Where one reaches it: the control network's address, else the first there is. */
static const Endpoint *main_endpoint(const Node *n)
{
        const Endpoint *e = container_facts_endpoint(&n->facts, n->manager->config.control_network);

        for (size_t i = 0; !e && i < n->facts.n_endpoints; i++)
                if (n->facts.endpoints[i].address.s_addr != 0)
                        e = &n->facts.endpoints[i];
        return e;
}

json_t *node_to_json(const Node *n, bool full)
{
        const Endpoint *e = main_endpoint(n);
        char since[EVENT_TIME_MAX];
        const char *style =
                node_firewall(n) >= 0 ? fw_style_to_string(node_firewall(n)) : n->labels.firewall;
        _cleanup_json_ json_t *j = json_object();

        if (!j || !set_text(j, "node", node_display_name(n)) ||
                !set_text(j, "experiment", n->labels.experiment) ||
                !set_text(j, "state", node_state_to_string(n->state)) ||
                !set_text(j, "reason", n->error ? tb_error_message(n->error) : NULL) ||
                !set_text(j, "since", event_time_format(since, n->since_us)) || !set_text(j, "id", n->id) ||
                !set_text(j, "container", n->name) ||
                !set_text(j, "image", n->has_facts ? n->facts.image : NULL) ||
                !set(j, "ip", e ? address_to_json(e->address) : json_null()) ||
                !set_text(j, "firewall", style ?: "none") ||
                !set_text(j, "client_state", node_client_state(n)) ||
                !set(j, "ssh_port", n->ssh_port ? json_integer(n->ssh_port) : json_null()) ||
                !set_text(j, "ssh", outside_ssh_is_declared(n) ? "outside" : "node") ||
                !set(j, "interfaces", interfaces_to_json(n, full)))
                return NULL;
        if (full && !add_details(n, j))
                return NULL;
        return TAKE_PTR(j);
}

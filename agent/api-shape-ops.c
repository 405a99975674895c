/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Shapes of running nodes: shown as the kernel has them, changed in place. */

#include <stdlib.h>
#include <string.h>

#include "agent/access.h"
#include "agent/api-ops.h"
#include "agent/log-node.h"
#include "agent/reconcile.h"
#include "agent/request-body.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

int api_check_changeable(const Node *n, TbError **err)
{
        if (n->state == NODE_CONFIGURED)
                return 0;
        if (n->error)
                return tb_error_set(err, TB_ERROR_CONFIG, -EBUSY, "node %s is %s: %s", node_display_name(n),
                        node_state_to_string(n->state), tb_error_message(n->error));
        return tb_error_set(err, TB_ERROR_CONFIG, -EBUSY,
                "node %s is %s; only a configured node can be changed", node_display_name(n),
                node_state_to_string(n->state));
}

/* An interface by its Docker network or by its name inside the container. */
static int find_network(const Node *n, const char *interface, const char **ret, TbError **err)
{
        _cleanup_free_ char *shown = NULL, *have = NULL;
        _cleanup_strv_ char **names = NULL;

        for (size_t i = 0; i < n->facts.n_endpoints; i++) {
                const Endpoint *e = &n->facts.endpoints[i];

                if (tb_streq(e->network, interface)) {
                        *ret = e->network;
                        return 0;
                }
                if (tb_strv_append(&names, e->network, err) < 0)
                        return -ENOMEM;
        }
        for (size_t i = 0; n->has_status && i < n->status.n_interfaces; i++)
                if (tb_streq(n->status.interfaces[i].ifname, interface)) {
                        for (size_t k = 0; k < n->facts.n_endpoints; k++)
                                if (tb_streq(n->facts.endpoints[k].network,
                                            n->status.interfaces[i].network)) {
                                        *ret = n->facts.endpoints[k].network;
                                        return 0;
                                }
                }
        shown = tb_escape(interface, 64);
        have = tb_strv_join(names, ", ");
        return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT, "node %s has no interface '%s'; it has %s",
                node_display_name(n), shown ?: "", have && have[0] ? have : "none");
}

/* Sets the override, writes it to the kernel and to the state file; on failure everything is as before. */
static int change_shape(
        Node *n, const char *network, const ShapeChange *change, bool replace_foreign, TbError **err)
{
        _cleanup_shape_override_ ShapeOverride before = {};

        int r = node_override_change(n, network, change, &before, err);
        if (r < 0)
                return r;
        r = reconcile_now(n->manager, n, replace_foreign, err);
        if (r >= 0)
                r = state_file_save(n->manager, err);
        if (r >= 0)
                return 0;
        node_override_undo(n, network, &before);
        /* When it was the state file that failed, the kernel is one step ahead. */
        if (reconcile_now(n->manager, n, false, NULL) < 0)
                node_event(n, NODE_EVENT_CHANGED, NULL);
        return r;
}

void api_reply_changed(ApiRequest *r, Node *n, const char *what, const char *network)
{
        event_log_add(n->manager->log, what,
                json_pack(
                        "{s:s, s:s, s:s*}", "node", node_display_name(n), "id", n->id, "network", network));
        api_reply(r, 200, node_to_json(n, true));
}

void op_shape_set(ApiRequest *r)
{
        static const char *const members[] = {"spec", "rules", "for", "flap", "replace_foreign", NULL};
        const json_t *body = api_request_body(r);
        _cleanup_error_ TbError *err = NULL;
        ShapeChange change = {};
        bool replace_foreign = false;
        const char *network;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (request_body_check_members(body, members, &err) < 0 || api_check_changeable(n, &err) < 0 ||
                find_network(n, api_request_argument(r, 1), &network, &err) < 0 ||
                api_blame_caller(tb_json_get_string(body, "spec", &change.spec, &err), &err) < 0 ||
                api_blame_caller(tb_json_get_string(body, "rules", &change.rules, &err), &err) < 0 ||
                api_blame_caller(tb_json_get_string(body, "for", &change.for_time, &err), &err) < 0 ||
                api_blame_caller(tb_json_get_string(body, "flap", &change.flap, &err), &err) < 0 ||
                api_blame_caller(tb_json_get_bool(body, "replace_foreign", &replace_foreign, &err), &err) <
                        0) {
                api_reply_error(r, err);
                return;
        }
        if (!change.spec && !change.rules && !change.flap)
                change.spec = "";
        if (change.spec && change.rules)
                (void) tb_error_set(&err, TB_ERROR_CONFIG, -EINVAL, "give \"spec\" or \"rules\", not both");
        if (err || change_shape(n, network, &change, replace_foreign, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        api_reply_changed(r, n, "shape-set", network);
}

void op_shape_clear(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        const ShapeChange change = {.clear = true};
        const char *network;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (api_check_changeable(n, &err) < 0 ||
                find_network(n, api_request_argument(r, 1), &network, &err) < 0 ||
                change_shape(n, network, &change, false, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        api_reply_changed(r, n, "shape-cleared", network);
}

/* What `shape show` tells: only what the verb is about. */
static int add_shapes(const Node *n, json_t *nodes)
{
        _cleanup_json_ json_t *full = node_to_json(n, true);

        if (!full)
                return -ENOMEM;
        return json_array_append_new(nodes,
                json_pack("{s:O, s:O, s:O, s:O}", "node", json_object_get(full, "node"), "state",
                        json_object_get(full, "state"), "reason", json_object_get(full, "reason"),
                        "interfaces", json_object_get(full, "interfaces")));
}

static void reply_shapes(ApiRequest *r, Manager *m, Node *const *nodes, size_t n)
{
        _cleanup_json_ json_t *a = json_array();

        reconcile_show_many(m, nodes, n);
        for (size_t i = 0; i < n; i++)
                if (add_shapes(nodes[i], a) < 0) {
                        api_reply(r, 507, NULL);
                        return;
                }
        api_reply(r, 200, json_pack("{s:O}", "nodes", a));
}

void op_shapes(ApiRequest *r)
{
        Manager *m = api_request_manager(r);
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ Node **nodes = NULL;
        size_t n;

        if (access_visible(m, api_request_caller(r), &nodes, &n, &err) < 0)
                api_reply_error(r, err);
        else
                reply_shapes(r, m, nodes, n);
}

void op_shape_get(ApiRequest *r)
{
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        reply_shapes(r, n->manager, &n, 1);
}

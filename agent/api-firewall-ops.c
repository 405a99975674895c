/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The API's words about the firewall: what is in the kernel, changes, and which rule would decide. */

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>

#include "agent/access.h"
#include "agent/api-ops.h"
#include "agent/firewall-explain.h"
#include "agent/node-firewall.h"
#include "agent/reconcile.h"
#include "agent/request-body.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"
#include "netctl/fw-json.h"

#define SET_WAIT_USEC (FW_LOCK_TIMEOUT_MS * UINT64_C(1000))
#define SET_AGAIN_USEC UINT64_C(50000)

/* ---- Show -------------------------------------------------------------------------------------------------------- */

static json_t *firewall_json(const Node *n, const FwReadback *back)
{
        _cleanup_json_ json_t *j = fw_readback_json(back);
        const char *style = fw_style_to_string(node_firewall(n));
        const Endpoint *e = container_facts_endpoint(&n->facts, n->manager->config.control_network);
        char ip[INET_ADDRSTRLEN] = "";

        if (!e && n->facts.n_endpoints > 0)
                e = n->facts.endpoints;
        if (e && e->address.s_addr)
                (void) inet_ntop(AF_INET, &e->address, ip, sizeof(ip));
        if (!j ||
                json_object_update_new(j,
                        json_pack("{s:s, s:s, s:s, s:s, s:s*, s:s*, s:b, s:o}", "node", node_display_name(n),
                                "state", node_state_to_string(n->state), "style", style ?: n->labels.firewall ?: "none", "declared", node_firewall_text(n) ?: "none",
                                "experiment", n->labels.experiment, "ip", ip[0] ? ip : NULL, "changed_live",
                                n->firewall_override != NULL, "ssh_port",
                                n->ssh_port ? json_integer(n->ssh_port) : json_null())) < 0)
                return NULL;
        return TAKE_PTR(j);
}

/* All of `nodes` with one look at the kernel; those that do not run have nothing there. */
static json_t *show(Manager *m, Node *const *nodes, size_t n, TbError **err)
{
        _cleanup_free_ FwReadback *back = calloc(n + 1, sizeof(*back));
        _cleanup_json_ json_t *list = json_array();
        int r;

        if (!back || !list) {
                (void) tb_error_oom(err);
                return NULL;
        }
        r = reconcile_firewall_show(m, nodes, n, back, err);
        for (size_t i = 0; i < n; i++) {
                if (r >= 0 && json_array_append_new(list, firewall_json(nodes[i], back + i)) < 0)
                        r = tb_error_oom(err);
                fw_readback_done(back + i);
        }
        return r < 0 ? NULL : json_pack("{s:O}", "nodes", list);
}

void op_firewalls(ApiRequest *r)
{
        Manager *m = api_request_manager(r);
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ Node **nodes = NULL;
        json_t *j = NULL;
        size_t n;

        if (access_visible(m, api_request_caller(r), &nodes, &n, &err) >= 0)
                j = show(m, nodes, n, &err);
        if (j)
                api_reply(r, 200, j);
        else
                api_reply_error(r, err);
}

void op_firewall_show(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        json_t *j;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        j = show(n->manager, &n, 1, &err);
        if (j)
                api_reply(r, 200, j);
        else
                api_reply_error(r, err);
}

/* ---- Set --------------------------------------------------------------------------------------------------------- */

/* Changes it; when the kernel or the disk does not want it, everything is as before. */
static int change(Node *n, const char *text, TbError **err)
{
        _cleanup_free_ char *before = TAKE_PTR(n->firewall_override);
        int r;

        r = node_set_firewall_override(n, text, err);
        if (r < 0) {
                n->firewall_override = TAKE_PTR(before);
                return r;
        }
        r = reconcile_now(n->manager, n, false, err);
        if (r >= 0)
                r = state_file_save(n->manager, err);
        if (r >= 0)
                return 0;
        free(n->firewall_override);
        n->firewall_override = TAKE_PTR(before);
        if (reconcile_now(n->manager, n, false, NULL) < 0)
                node_event(n, NODE_EVENT_CHANGED, NULL);
        return r;
}

/* A change on its way. While another program holds the iptables lock it is tried again, SET_WAIT_USEC at most. */
typedef struct Setting {
        ApiRequest *request;
        char *text;
        sd_event_source *timer;
        uint64_t deadline_us; /* CLOCK_MONOTONIC */
} Setting;

static void setting_free(Setting *s)
{
        sd_event_source_disable_unref(s->timer);
        free(s->text);
        free(s);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        setting_free(userdata);
}

static void setting_try(Setting *s);

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
        Setting *s = userdata;

        s->timer = sd_event_source_disable_unref(s->timer);
        setting_try(s);
        return 0;
}

static bool setting_waits(Setting *s, const TbError *err)
{
        return netctl_lock_is_busy(err) && tb_now_us() < s->deadline_us &&
                sd_event_add_time_relative(api_request_manager(s->request)->event, &s->timer,
                        CLOCK_MONOTONIC, SET_AGAIN_USEC, 0, on_again, s) >= 0;
}

static void setting_try(Setting *s)
{
        _cleanup_error_ TbError *err = NULL;
        ApiRequest *r = s->request;
        Node *n = NULL;

        if (api_request_node(r, &n) < 0) { /* answered */
                setting_free(s);
                return;
        }
        int k = api_check_changeable(n, &err);
        if (k >= 0)
                k = change(n, s->text, &err);
        if (k < 0 && setting_waits(s, err)) {
                api_request_on_gone(r, on_gone, s);
                return;
        }
        if (k < 0)
                api_reply_error(r, err);
        else
                api_reply_changed(r, n, "firewall-set", NULL);
        setting_free(s);
}

void op_firewall_set(ApiRequest *r)
{
        static const char *const members[] = {"style", "rules", NULL};
        _cleanup_error_ TbError *err = NULL;
        const char *style = NULL, *rules = NULL;
        Setting *s;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (request_body_check_members(api_request_body(r), members, &err) < 0 ||
                api_check_changeable(n, &err) < 0 ||
                api_blame_caller(tb_json_get_string(api_request_body(r), "style", &style, &err), &err) < 0 ||
                api_blame_caller(tb_json_get_string(api_request_body(r), "rules", &rules, &err), &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        s = calloc(1, sizeof(*s));
        if (s) {
                s->request = r;
                s->deadline_us = tb_now_us() + SET_WAIT_USEC;
                s->text = tb_asprintf("%s%s%s", style ?: "", rules ? "; " : "", rules ?: "");
        }
        if (s && s->text) {
                setting_try(s);
                return;
        }
        free(s);
        (void) tb_error_oom(&err);
        api_reply_error(r, err);
}

/* ---- Explain ----------------------------------------------------------------------------------------------------- */

static int read_question(const json_t *body, FirewallQuestion *ret, TbError **err)
{
        static const char *const members[] = {"direction", "protocol", "address", "port", NULL};
        const char *direction = "out", *protocol = NULL, *address = NULL;
        uint64_t port = 0;
        int r;

        r = request_body_check_members(body, members, err);
        if (r >= 0)
                r = tb_json_get_string(body, "direction", &direction, err);
        if (r >= 0)
                r = tb_json_get_string(body, "protocol", &protocol, err);
        if (r >= 0)
                r = tb_json_get_string(body, "address", &address, err);
        if (r >= 0)
                r = tb_json_get_u64(body, "port", &port, err);
        if (r < 0)
                return r;
        *ret = (FirewallQuestion){.direction = tb_streq(direction, "in") ? FW_IN : FW_OUT};
        if (!tb_streq(direction, "in") && !tb_streq(direction, "out"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the direction is 'in' or 'out'");
        if (tb_streq(protocol, "tcp"))
                ret->packet.protocol = IPPROTO_TCP;
        else if (tb_streq(protocol, "udp"))
                ret->packet.protocol = IPPROTO_UDP;
        else if (tb_streq(protocol, "icmp"))
                ret->packet.protocol = IPPROTO_ICMP;
        else
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the protocol is 'tcp', 'udp' or 'icmp'");
        ret->packet.echo = ret->packet.protocol == IPPROTO_ICMP;
        if (port > UINT16_MAX || (port == 0 && !ret->packet.echo))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "a port between 1 and 65535 is needed, as in 10.1.2.3:80");
        ret->packet.destination_port = (uint16_t) port;
        if (!address)
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "an address is needed");
        r = fw_network_parse(address, &ret->peer, NULL);
        if (r == -EINVAL) {
                _cleanup_free_ char *shown = tb_escape(address, 64);
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "'%s' is not an IPv4 or IPv6 address; write for example 10.1.2.3:80", shown ?: "");
        }
        if (r < 0)
                return tb_error_oom(err);
        if (ret->peer.prefix != (ret->peer.family == AF_INET6 ? 128 : 32))
                r = tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "one address is needed, not a network");
        return r;
}

void op_firewall_explain(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        FirewallQuestion q;
        json_t *j;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (api_blame_caller(read_question(api_request_body(r), &q, &err), &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        j = firewall_explain(n, &q, &err);
        if (j)
                api_reply(r, 200, j);
        else
                api_reply_error(r, err);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/control-interface.h"

#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#include "agent/facts.h"
#include "agent/network.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "netctl/uplink.h"

#define BRIDGE_OPTION "com.docker.network.bridge.name"

/* A look that is under way. */
struct ControlInterface {
        Manager *manager;
        NetworkJob *network;
        TbEngineRequest *call;
};

static char *record_path(const Config *c)
{
        return tb_asprintf("%s/control-interface", c->state_dir);
}

void control_interface_stop(Manager *m)
{
        struct ControlInterface *c = TAKE_PTR(m->control_interface);

        if (!c)
                return;
        network_job_free(c->network);
        tb_engine_request_free(c->call);
        free(c);
}

static void failed(Manager *m, const TbError *cause)
{
        log_error("the control network is not on %s: %s", m->config.control_interface,
                tb_error_message(cause));
        event_log_add(m->log, "control-interface-failed",
                json_pack("{s:s, s:s}", "interface", m->config.control_interface, "reason",
                        tb_error_message(cause)));
        control_interface_stop(m);
}

static int attach(Manager *m, const json_t *network, TbError **err)
{
        _cleanup_free_ char *record = record_path(&m->config);
        const char *id = NULL, *name = NULL;
        json_t *options = NULL;
        Endpoint e = {};
        char bridge[IFNAMSIZ];
        int r;

        if (!record)
                return tb_error_oom(err);
        r = tb_json_get_string(network, "Id", &id, err);
        if (r < 0)
                return r;
        if (tb_json_get_object(network, "Options", &options, NULL) > 0 &&
                tb_json_get_string(options, BRIDGE_OPTION, &name, NULL) > 0)
                (void) snprintf(bridge, sizeof(bridge), "%s", name);
        else {
                e.network = m->config.control_network;
                e.network_id = (char *) id;
                endpoint_bridge(&e, bridge);
        }
        r = tb_mkdir_p(m->config.state_dir, 0755, err);
        if (r >= 0)
                r = uplink_attach(m->config.control_interface, bridge, record, err);
        if (r <= 0)
                return r;
        log_notice("%s is a port of the control network's bridge %s now, and its addresses and routes are "
                   "there",
                m->config.control_interface, bridge);
        event_log_add(m->log, "control-interface-moved",
                json_pack("{s:s, s:s}", "interface", m->config.control_interface, "bridge", bridge));
        return 1;
}

static void on_looked(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        struct ControlInterface *c = userdata;
        _cleanup_error_ TbError *bad = NULL;
        Manager *m = c->manager;

        if (err)
                failed(m, err);
        else if (attach(m, body, &bad) < 0)
                failed(m, bad);
        else
                control_interface_stop(m);
}

static void on_network(const char *made_id, const TbError *err, void *userdata)
{
        struct ControlInterface *c = userdata;
        _cleanup_error_ TbError *bad = NULL;
        char path[160];

        c->network = NULL;
        if (err) {
                failed(c->manager, err);
                return;
        }
        (void) snprintf(path, sizeof(path), "/networks/%s", c->manager->config.control_network);
        if (tb_engine_call(c->manager->engine,
                    &(TbEngineCall){.method = "GET", .path = path, .done = on_looked, .userdata = c},
                    &c->call, &bad) < 0)
                failed(c->manager, bad);
}

void control_interface_check(Manager *m)
{
        _cleanup_error_ TbError *err = NULL;
        struct ControlInterface *c;

        if (!m->config.control_interface)
                return;
        control_interface_stop(m);
        c = calloc(1, sizeof(*c));
        if (!c)
                return;
        c->manager = m;
        m->control_interface = c;
        if (network_ensure(m, m->config.control_network, m->config.control_subnet, true, on_network, c,
                    &c->network, &err) < 0)
                failed(m, err);
}

int control_interface_release(const Config *c, TbError **err)
{
        _cleanup_free_ char *record = record_path(c);

        return record ? uplink_release(record, err) : tb_error_oom(err);
}

void control_interface_network_gone(Manager *m, const char *name)
{
        _cleanup_error_ TbError *err = NULL;

        if (!m->config.control_interface || !tb_streq(name, m->config.control_network))
                return;
        if (control_interface_release(&m->config, &err) < 0)
                log_error("the control network was removed, and %s has not got its addresses back: %s",
                        m->config.control_interface, tb_error_message(err));
        else
                log_warning("the control network was removed; %s has its addresses back, and the network is "
                            "made again",
                        m->config.control_interface);
        control_interface_check(m);
}

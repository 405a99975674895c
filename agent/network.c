/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/network.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

#define LABEL "org.tbnode.network"

/*
 * The engine does not make network names unique when two are asked for at once ("CheckDuplicate" is best effort), so jobs
 * for one name run one after the other: `waiting` until the job in front is over.
 */
struct NetworkJob {
        Manager *manager;
        NetworkJob *next_job;
        bool waiting;
        char *name;
        char *subnet;
        bool control;
        TbEngineRequest *call;
        NetworkDoneFn done;
        void *userdata;

        json_t *candidates; /* removal: array of {Name, Id} */
        json_t *containers; /* removal: the list of all containers */
        size_t next;
};

static void look(NetworkJob *j);

/* The oldest one that waits for this name goes on. */
static void wake(Manager *m, const char *name)
{
        NetworkJob *oldest = NULL;

        for (NetworkJob *i = m->networks; i; i = i->next_job)
                if (i->waiting && tb_streq(i->name, name))
                        oldest = i; /* the list has the newest first */
        if (oldest) {
                oldest->waiting = false;
                look(oldest);
        }
}

NetworkJob *network_job_free(NetworkJob *j)
{
        _cleanup_free_ char *name = NULL;
        Manager *m;
        bool waiting;

        if (!j)
                return NULL;
        m = j->manager;
        waiting = j->waiting;
        name = TAKE_PTR(j->name);
        for (NetworkJob **p = &m->networks; *p; p = &(*p)->next_job)
                if (*p == j) {
                        *p = j->next_job;
                        break;
                }
        tb_engine_request_free(j->call);
        json_decref(j->candidates);
        json_decref(j->containers);
        free(j->subnet);
        free(j);
        if (name && !waiting)
                wake(m, name);
        return NULL;
}

static void finish(NetworkJob *j, const char *made_id, const TbError *err)
{
        j->done(made_id, err, j->userdata);
        network_job_free(j);
}

static int start_call(NetworkJob *j, const char *method, const char *path, const json_t *body,
        TbEngineDoneFn done, TbError **err)
{
        j->call = tb_engine_request_free(j->call);
        return tb_engine_call(j->manager->engine,
                &(TbEngineCall){.method = method, .path = path, .body = body, .done = done, .userdata = j},
                &j->call, err);
}

static int job_new(
        Manager *m, const char *name, NetworkDoneFn done, void *userdata, NetworkJob **ret, TbError **err)
{
        NetworkJob *j = calloc(1, sizeof(*j));

        if (!j)
                return tb_error_oom(err);
        *j = (NetworkJob){
                .manager = m, .done = done, .userdata = userdata, .name = name ? strdup(name) : NULL};
        if (name && !j->name) {
                network_job_free(j);
                return tb_error_oom(err);
        }
        j->next_job = m->networks;
        m->networks = j;
        *ret = j;
        return 0;
}

/* ---- Ensure ------------------------------------------------------------------------------------------------------ */

static void on_created(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        NetworkJob *j = userdata;
        const char *id = NULL;

        if (status == 409) /* somebody else was faster */
                finish(j, NULL, NULL);
        else if (err)
                finish(j, NULL, err);
        else {
                log_info("made the Docker network %s", j->name);
                finish(j, tb_json_get_string(body, "Id", &id, NULL) > 0 ? id : j->name, NULL);
        }
}

static int create(NetworkJob *j, TbError **err)
{
        _cleanup_json_ json_t *body = NULL;

        body = json_pack("{s:s, s:s, s:b, s:{s:s}}", "Name", j->name, "Driver", "bridge", "CheckDuplicate",
                1, "Labels", LABEL, j->control ? "control" : "experiment");
        if (!body ||
                (j->subnet &&
                        json_object_set_new(
                                body, "IPAM", json_pack("{s:[{s:s}]}", "Config", "Subnet", j->subnet)) < 0))
                return tb_error_oom(err);
        return start_call(j, "POST", "/networks/create", body, on_created, err);
}

static void on_looked(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        NetworkJob *j = userdata;
        _cleanup_error_ TbError *failed = NULL;
        const char *driver = NULL;

        if (status == 404) {
                if (create(j, &failed) < 0)
                        finish(j, NULL, failed);
        } else if (err)
                finish(j, NULL, err);
        else if (tb_json_get_string(body, "Driver", &driver, NULL) > 0 && !tb_streq(driver, "bridge")) {
                (void) tb_error_set(&failed, TB_ERROR_CONFIG, -EOPNOTSUPP,
                        "Docker network %s uses the driver %s; nodes need a bridge network", j->name,
                        driver);
                finish(j, NULL, failed);
        } else
                finish(j, NULL, NULL);
}

static int ask(NetworkJob *j, TbError **err)
{
        char path[160];

        (void) snprintf(path, sizeof(path), "/networks/%s", j->name);
        return start_call(j, "GET", path, NULL, on_looked, err);
}

static void look(NetworkJob *j)
{
        _cleanup_error_ TbError *err = NULL;

        if (ask(j, &err) < 0)
                finish(j, NULL, err);
}

int network_ensure(Manager *m, const char *name, const char *subnet, bool control, NetworkDoneFn done,
        void *userdata, NetworkJob **ret, TbError **err)
{
        NetworkJob *j;
        int r;

        r = job_new(m, name, done, userdata, &j, err);
        if (r < 0)
                return r;
        j->control = control;
        if (subnet) {
                j->subnet = strdup(subnet);
                if (!j->subnet) {
                        network_job_free(j);
                        return tb_error_oom(err);
                }
        }
        for (const NetworkJob *i = m->networks; i; i = i->next_job)
                if (i != j && tb_streq(i->name, name))
                        j->waiting = true;
        if (!j->waiting) {
                r = ask(j, err);
                if (r < 0) {
                        network_job_free(j);
                        return r;
                }
        }
        *ret = j;
        return 0;
}

/* ---- Remove ------------------------------------------------------------------------------------------------------ */

static void remove_next(NetworkJob *j);

static bool in_use(const NetworkJob *j, const char *name)
{
        const json_t *c;
        size_t i;

        if (run_uses_network(j->manager, name))
                return true;
        json_array_foreach (j->containers, i, c) {
                const json_t *networks = json_object_get(json_object_get(c, "NetworkSettings"), "Networks");

                if (json_object_get(networks, name))
                        return true;
        }
        return false;
}

static void on_removed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        NetworkJob *j = userdata;

        /* 403: a container was attached in the meantime; 404: somebody else removed it. */
        if (err && status != 403 && status != 404)
                log_warning("cannot remove an unused network: %s", tb_error_message(err));
        remove_next(j);
}

static void remove_next(NetworkJob *j)
{
        _cleanup_error_ TbError *err = NULL;

        while (j->next < json_array_size(j->candidates)) {
                const json_t *n = json_array_get(j->candidates, j->next++);
                const char *name = NULL, *id = NULL;
                char path[160];

                if (tb_json_get_string(n, "Name", &name, NULL) <= 0 ||
                        tb_json_get_string(n, "Id", &id, NULL) <= 0 || !container_id_is_valid(id) ||
                        in_use(j, name))
                        continue;
                (void) snprintf(path, sizeof(path), "/networks/%s", id);
                if (start_call(j, "DELETE", path, NULL, on_removed, &err) < 0)
                        break;
                log_info("removing the Docker network %s: no container uses it", name);
                return;
        }
        finish(j, NULL, err);
}

static void on_containers(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        NetworkJob *j = userdata;

        if (err) {
                finish(j, NULL, err);
                return;
        }
        j->containers = json_incref((json_t *) body);
        remove_next(j);
}

static void on_networks(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        NetworkJob *j = userdata;
        _cleanup_error_ TbError *failed = NULL;

        if (err) {
                finish(j, NULL, err);
                return;
        }
        j->candidates = json_incref((json_t *) body);
        if (json_array_size(j->candidates) == 0)
                finish(j, NULL, NULL);
        else if (start_call(j, "GET", "/containers/json?all=1", NULL, on_containers, &failed) < 0)
                finish(j, NULL, failed);
}

int network_remove_unused(Manager *m, NetworkDoneFn done, void *userdata, NetworkJob **ret, TbError **err)
{
        _cleanup_free_ char *filters = tb_engine_escape("{\"label\":[\"" LABEL "=experiment\"]}"),
                            *path = NULL;
        NetworkJob *j;
        int r;

        path = filters ? tb_asprintf("/networks?filters=%s", filters) : NULL;
        if (!path)
                return tb_error_oom(err);
        r = job_new(m, NULL, done, userdata, &j, err);
        if (r < 0)
                return r;
        r = start_call(j, "GET", path, NULL, on_networks, err);
        if (r < 0) {
                network_job_free(j);
                return r;
        }
        *ret = j;
        return 0;
}

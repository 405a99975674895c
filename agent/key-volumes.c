/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/key-volumes.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

/* {"dangling": ["true"], "label": ["tbnode.keys"]} */
#define LIST                                                                                            \
        "/volumes?filters=%7B%22dangling%22%3A%5B%22true%22%5D%2C%22label%22%3A%5B%22" KEY_VOLUME_LABEL \
        "%22%5D%7D"

struct KeyVolumes {
        Manager *manager;
        TbEngineRequest *call;
        char **names; /* still to be removed */
        size_t next;
        bool again; /* a container went since the list was asked for */
};

static void remove_next(struct KeyVolumes *v);

void key_volumes_stop(Manager *m)
{
        if (!m->key_volumes)
                return;
        tb_engine_request_free(m->key_volumes->call);
        tb_strv_free(m->key_volumes->names);
        free(TAKE_PTR(m->key_volumes));
}

static void finish(struct KeyVolumes *v)
{
        Manager *m = v->manager;
        bool again = v->again;

        key_volumes_stop(m);
        if (again)
                key_volumes_sweep(m);
}

static void on_removed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        struct KeyVolumes *v = userdata;
        const char *name = v->names[v->next++];

        v->call = tb_engine_request_free(v->call);
        if (!err)
                log_info("removed volume %.12s of a node that is gone", name);
        else if (status != 404 && status != 409) /* gone, or in use, meanwhile */
                log_warning("cannot remove volume %.12s of a node that is gone: %s", name,
                        tb_error_message(err));
        remove_next(v);
}

static void remove_next(struct KeyVolumes *v)
{
        _cleanup_free_ char *escaped = NULL, *path = NULL;
        _cleanup_error_ TbError *err = NULL;

        if (!v->names || !v->names[v->next]) {
                finish(v);
                return;
        }
        escaped = tb_engine_escape(v->names[v->next]);
        path = escaped ? tb_asprintf("/volumes/%s", escaped) : NULL;
        if (!path)
                (void) tb_error_oom(&err);
        else if (tb_engine_call(v->manager->engine,
                         &(TbEngineCall){
                                 .method = "DELETE", .path = path, .done = on_removed, .userdata = v},
                         &v->call, &err) >= 0)
                return;
        log_warning("cannot remove volumes of nodes that are gone: %s", tb_error_message(err));
        v->again = false;
        finish(v);
}

static void on_listed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        struct KeyVolumes *v = userdata;
        json_t *list = NULL;
        const json_t *volume;
        size_t i;

        if (err)
                log_warning("cannot look for volumes of nodes that are gone: %s", tb_error_message(err));
        else if (tb_json_get_array(body, "Volumes", &list, NULL) > 0)
                json_array_foreach (list, i, volume) {
                        const char *name = NULL;

                        if (tb_json_get_string(volume, "Name", &name, NULL) > 0 &&
                                tb_strv_append(&v->names, name, NULL) < 0)
                                break;
                }
        v->call = tb_engine_request_free(v->call);
        remove_next(v);
}

void key_volumes_sweep(Manager *m)
{
        _cleanup_error_ TbError *err = NULL;
        struct KeyVolumes *v;

        if (m->key_volumes) {
                m->key_volumes->again = true;
                return;
        }
        v = calloc(1, sizeof(*v));
        if (!v)
                return;
        v->manager = m;
        m->key_volumes = v;
        if (tb_engine_call(m->engine,
                    &(TbEngineCall){.method = "GET", .path = LIST, .done = on_listed, .userdata = v},
                    &v->call, &err) < 0) {
                log_debug("cannot look for volumes of nodes that are gone: %s", tb_error_message(err));
                key_volumes_stop(m);
        }
}

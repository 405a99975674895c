/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "agent/docker-events.h"
#include "agent/in-use.h"
#include "agent/run.h"
#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

struct InUse {
        Manager *manager;
        char *prefix; /* "127.0.0.1:5000/" */
        TbEngineRequest *call;
        json_t *containers;
        json_t *used;
        InUseFn done;
        void *userdata;
};

InUse *in_use_free(InUse *q)
{
        if (!q)
                return NULL;
        tb_engine_request_free(q->call);
        json_decref(q->containers);
        json_decref(q->used);
        free(q->prefix);
        free(q);
        return NULL;
}

/* `image`: "host/repository@digest"; others are not of the testbed's registry. */
static int add(InUse *q, const char *image, const char *name, TbError **err)
{
        const char *key = image ? tb_startswith(image, q->prefix) : NULL;
        json_t *list;

        if (!key || !strchr(key, '@'))
                return 0;
        list = json_object_get(q->used, key);
        if (!list) {
                list = json_array();
                if (json_object_set_new(q->used, key, list) < 0)
                        return tb_error_oom(err);
        }
        for (size_t i = 0; i < json_array_size(list); i++)
                if (tb_streq(json_string_value(json_array_get(list, i)), name))
                        return 0;
        return json_array_append_new(list, json_string(name)) < 0 ? tb_error_oom(err) : 0;
}

static const char *container_name(const json_t *container)
{
        const char *name = json_string_value(json_array_get(json_object_get(container, "Names"), 0));

        return name && name[0] == '/' ? name + 1 : name ?: "?";
}

static int collect(InUse *q, const json_t *images, TbError **err)
{
        _cleanup_json_ json_t *by_id = json_object();
        json_t *image, *container, *digest;
        size_t i, k;
        int r;

        if (!by_id)
                return tb_error_oom(err);
        json_array_foreach (images, i, image) {
                const char *id = json_string_value(json_object_get(image, "Id"));

                if (id && json_object_set(by_id, id, json_object_get(image, "RepoDigests")) < 0 &&
                        json_object_get(image, "RepoDigests"))
                        return tb_error_oom(err);
        }
        json_array_foreach (q->containers, i, container) {
                const char *id = json_string_value(json_object_get(container, "ImageID"));
                const char *name = container_name(container);

                r = add(q, json_string_value(json_object_get(container, "Image")), name, err);
                if (r < 0)
                        return r;
                json_array_foreach (id ? json_object_get(by_id, id) : NULL, k, digest) {
                        r = add(q, json_string_value(digest), name, err);
                        if (r < 0)
                                return r;
                }
        }
        return run_images_in_use(q->manager, q->prefix, q->used, err);
}

static void on_images(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = tb_error_copy(err);
        InUse *q = userdata;

        if (!error)
                (void) collect(q, body, &error);
        q->done(q, error ? NULL : q->used, error, q->userdata);
}

static void on_containers(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *error = tb_error_copy(err);
        InUse *q = userdata;

        if (!error) {
                q->containers = json_incref((json_t *) body);
                q->call = tb_engine_request_free(q->call);
                if (tb_engine_call(q->manager->engine,
                            &(TbEngineCall){
                                    .method = "GET",
                                    .path = "/images/json?digests=1",
                                    .done = on_images,
                                    .userdata = q,
                            },
                            &q->call, &error) >= 0)
                        return;
        }
        q->done(q, NULL, error, q->userdata);
}

int in_use_ask(Manager *m, InUseFn done, void *userdata, InUse **ret, TbError **err)
{
        _cleanup_free_ char *host = NULL;
        bool plain;
        InUse *q;
        int r;

        if (!docker_events_is_connected(m->docker))
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EHOSTDOWN,
                        "there is no connection to the Docker engine, so nobody knows which images are in "
                        "use");
        r = augment_registry_parse(m->config.registry, &host, &plain, err);
        if (r < 0)
                return r;
        q = calloc(1, sizeof(*q));
        if (!q)
                return tb_error_oom(err);
        q->manager = m;
        q->done = done;
        q->userdata = userdata;
        q->prefix = tb_asprintf("%s/", host);
        q->used = json_object();
        if (!q->prefix || !q->used)
                r = tb_error_oom(err);
        else
                r = tb_engine_call(m->engine,
                        &(TbEngineCall){
                                .method = "GET",
                                .path = "/containers/json?all=1",
                                .done = on_containers,
                                .userdata = q,
                        },
                        &q->call, err);
        if (r < 0) {
                in_use_free(q);
                return r;
        }
        *ret = q;
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "agent/outside-label.h"

#include <stdlib.h>
#include <string.h>

#include "agent/manager.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

#define LABEL "tbnode.ssh-keys"
#define IMAGE_ID_MAX 128U

struct OutsideLabel {
        TbEngine *engine;
        TbEngineRequest *call;
        char *value; /* the container's */
        OutsideLabelFn done;
        void *userdata;
};

OutsideLabel *outside_label_free(OutsideLabel *l)
{
        if (!l)
                return NULL;
        tb_engine_request_free(l->call);
        free(l->value);
        free(l);
        return NULL;
}

static int call(OutsideLabel *l, const char *path, TbEngineDoneFn done, TbError **err)
{
        l->call = tb_engine_request_free(l->call);
        return tb_engine_call(l->engine,
                &(TbEngineCall){.method = "GET", .path = path, .done = done, .userdata = l}, &l->call, err);
}

static void on_image(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        OutsideLabel *l = userdata;
        _cleanup_error_ TbError *refused = NULL;
        const char *value = json_string_value(
                json_object_get(json_object_get(json_object_get(body, "Config"), "Labels"), LABEL));

        if (!err && tb_streq(value, l->value))
                (void) tb_error_set(&refused, TB_ERROR_CONFIG, -EPERM,
                        "its keys for ssh come with its image, and would let in whoever made that; give it "
                        "label " LABEL " of your own (a comment line makes it another one)");
        l->done(err ?: refused, l->userdata);
}

static void on_container(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        OutsideLabel *l = userdata;
        _cleanup_error_ TbError *bad = NULL;
        _cleanup_free_ char *escaped = NULL, *path = NULL;
        const char *image = json_string_value(json_object_get(body, "Image"));

        if (err) {
                l->done(err, l->userdata);
                return;
        }
        if (!image || strlen(image) > IMAGE_ID_MAX) {
                (void) tb_error_set(&bad, TB_ERROR_REMOTE, -EPROTO, "the engine names no image for it");
                l->done(bad, l->userdata);
                return;
        }
        escaped = tb_engine_escape(image);
        path = escaped ? tb_asprintf("/images/%s/json", escaped) : NULL;
        if ((path ? call(l, path, on_image, &bad) : tb_error_oom(&bad)) < 0)
                l->done(bad, l->userdata);
}

int outside_label_check(
        const Node *n, OutsideLabelFn done, void *userdata, OutsideLabel **ret, TbError **err)
{
        OutsideLabel *l = calloc(1, sizeof(*l));
        char path[32 + CONTAINER_ID_LEN];
        int r;

        if (!l)
                return tb_error_oom(err);
        l->engine = n->manager->engine;
        l->done = done;
        l->userdata = userdata;
        l->value = strdup(n->labels.ssh_keys);
        (void) snprintf(path, sizeof(path), "/containers/%s/json", n->id);
        r = l->value ? call(l, path, on_container, err) : tb_error_oom(err);
        if (r < 0) {
                outside_label_free(l);
                return r;
        }
        *ret = l;
        return 0;
}

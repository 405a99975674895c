/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>

#include "agent/snapshot-image.h"
#include "agent/snapshot-sweep.h"
#include "agent/snapshot.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

/* {"label": ["org.tbnode.snapshot"]} */
#define LIST "/images/json?filters=%7B%22label%22%3A%5B%22" SNAPSHOT_LABEL "%22%5D%7D"

struct SnapshotSweep {
        Manager *manager;
        TbEngineRequest *call;
        char **ids; /* still to be removed */
        size_t next;
};

static void remove_next(struct SnapshotSweep *s);

void snapshot_sweep_stop(Manager *m)
{
        struct SnapshotSweep *s = TAKE_PTR(m->sweep);

        if (!s)
                return;
        tb_engine_request_free(s->call);
        tb_strv_free(s->ids);
        free(s);
}

static void on_removed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        struct SnapshotSweep *s = userdata;
        const char *id = s->ids[s->next++];

        s->call = tb_engine_request_free(s->call);
        if (!err)
                log_info("removed image %.19s of a snapshot that was cut short", id);
        else if (status != 404 && status != 409) /* gone, or in use, meanwhile */
                log_warning("cannot remove image %.19s of a snapshot that was cut short: %s", id,
                        tb_error_message(err));
        remove_next(s);
}

static void remove_next(struct SnapshotSweep *s)
{
        _cleanup_free_ char *escaped = NULL, *path = NULL;
        _cleanup_error_ TbError *err = NULL;

        if (!s->ids || !s->ids[s->next]) {
                snapshot_sweep_stop(s->manager);
                return;
        }
        escaped = tb_engine_escape(s->ids[s->next]);
        path = escaped ? tb_asprintf("/images/%s?force=1&noprune=1", escaped) : NULL;
        if (!path)
                (void) tb_error_oom(&err);
        else if (tb_engine_call(s->manager->engine,
                         &(TbEngineCall){
                                 .method = "DELETE", .path = path, .done = on_removed, .userdata = s},
                         &s->call, &err) >= 0)
                return;
        log_warning("cannot remove images of snapshots that were cut short: %s", tb_error_message(err));
        snapshot_sweep_stop(s->manager);
}

static void on_listed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        struct SnapshotSweep *s = userdata;
        const json_t *image;
        size_t i;

        if (err)
                log_warning("cannot look for images of snapshots that were cut short: %s",
                        tb_error_message(err));
        else
                json_array_foreach (body, i, image) {
                        const char *id = NULL, *label = NULL;
                        json_t *labels = NULL;

                        if (tb_json_get_string(image, "Id", &id, NULL) > 0 &&
                                tb_json_get_object(image, "Labels", &labels, NULL) > 0 &&
                                tb_json_get_string(labels, SNAPSHOT_LABEL, &label, NULL) > 0 &&
                                !snapshot_is_running(s->manager, label) &&
                                tb_strv_append(&s->ids, id, NULL) < 0)
                                break;
                }
        s->call = tb_engine_request_free(s->call);
        remove_next(s);
}

void snapshot_sweep(Manager *m)
{
        _cleanup_error_ TbError *err = NULL;
        struct SnapshotSweep *s;

        if (m->sweep)
                return;
        s = calloc(1, sizeof(*s));
        if (!s)
                return;
        s->manager = m;
        m->sweep = s;
        if (tb_engine_call(m->engine,
                    &(TbEngineCall){.method = "GET", .path = LIST, .done = on_listed, .userdata = s},
                    &s->call, &err) < 0) {
                log_debug("cannot look for images of snapshots: %s", tb_error_message(err));
                snapshot_sweep_stop(m);
        }
}

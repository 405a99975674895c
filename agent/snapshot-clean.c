/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Steps of `tbnode snapshot` that follow whatever happened: nothing of the work stays, then the client hears how it ended. */

#include <stdlib.h>

#include "agent/snapshot-image.h"
#include "agent/snapshot-internal.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"

static void on_removed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;

        if (err && status != 404)
                log_warning("cannot remove image %s, of which the snapshot of node %s was made, from the "
                            "engine: %s; it is tried again when the engine or the agent is started",
                        j->raw_name, j->node, tb_error_message(err));
        j->call = tb_engine_request_free(j->call);
        snapshot_go(j, SNAPSHOT_FORGET);
}

/* By its id, which is nobody else's (the label is in it), with all its names; `force`, as the engine counts the digest that it
 * pushed as another one. Its parents are the node's image, which must stay. */
void snapshot_step_remove(SnapshotJob *j)
{
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *path = NULL;

        j->timer = sd_event_source_disable_unref(j->timer);
        if (!j->committing) {
                snapshot_go(j, SNAPSHOT_FORGET);
                return;
        }
        path = tb_asprintf("/images/%s?force=1&noprune=1", j->committed ?: j->raw_name);
        if (!path)
                (void) tb_error_oom(&err);
        else if (tb_engine_call(j->manager->engine,
                         &(TbEngineCall){
                                 .method = "DELETE", .path = path, .done = on_removed, .userdata = j},
                         &j->call, &err) >= 0)
                return;
        log_warning("cannot remove image %s from the engine: %s", j->raw_name, tb_error_message(err));
        snapshot_go(j, SNAPSHOT_FORGET);
}

static void on_covered(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;

        if (result < 0)
                log_warning("%s is left in the registry: %s", j->raw_name, tb_error_message(err));
        j->op = registry_op_free(j->op);
        snapshot_go(j, SNAPSHOT_END);
}

void snapshot_step_cover(SnapshotJob *j)
{
        _cleanup_error_ TbError *err = NULL;

        if (snapshot_put_manifest(j, j->raw, on_covered, &err) >= 0)
                return;
        log_warning("%s is left in the registry: %s", j->raw_name, tb_error_message(err));
        snapshot_go(j, SNAPSHOT_END);
}

static void on_forgotten(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;

        /* A push that failed may have failed because of the registry; then there is no name of ours either. */
        if (result < 0 && (result != -EOPNOTSUPP || j->error))
                log_warning("cannot remove %s, of which the snapshot of node %s was to be made, from the "
                            "registry: %s",
                        j->raw_name, j->node, tb_error_message(err));
        j->op = registry_op_free(j->op);
        snapshot_go(j, result == -EOPNOTSUPP && !j->error ? SNAPSHOT_COVER : SNAPSHOT_END);
}

void snapshot_step_forget(SnapshotJob *j)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_error_ TbError *err = NULL;

        if (!j->pushing) {
                snapshot_go(j, SNAPSHOT_END);
                return;
        }
        if (tb_digest_is_set(&j->pushed) && registry_ref_with(j->raw, NULL, &j->pushed, &ref, &err) < 0)
                log_debug("%s", tb_error_message(err));
        err = tb_error_free(err);
        if (registry_delete_manifest_start(
                    registry_session_client(j->session), ref ?: j->raw, on_forgotten, j, &j->op, &err) >= 0)
                return;
        log_warning("cannot remove %s from the registry: %s", j->raw_name, tb_error_message(err));
        snapshot_go(j, SNAPSHOT_END);
}

static json_t *result_line(const SnapshotJob *j)
{
        _cleanup_free_ char *image = registry_ref_to_string(j->target);

        return json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:I, s:I}}", "event", "result", "result", "node",
                j->node, "id", j->container_id, "image", image ?: "", "digest", j->digest.text, "project",
                j->project, "size", (json_int_t) snapshot_size(j->manifest, j->config_size), "ms",
                (json_int_t) ((tb_now_us() - j->started_us) / 1000));
}

void snapshot_step_end(SnapshotJob *j)
{
        json_t *line;

        if (j->error) {
                log_info("snapshot of node %s failed: %s", j->node, tb_error_message(j->error));
                line = json_pack("{s:s, s:o}", "event", "error", "error", api_error_to_json(j->error));
        } else {
                event_log_add(j->manager->log, "node-snapshot",
                        json_pack("{s:s, s:s, s:s, s:s}", "node", j->node, "id", j->container_id, "image",
                                j->target->repository, "digest", j->digest.text));
                line = result_line(j);
        }
        if (j->api) {
                api_stream_line(j->api, line, true);
                api_stream_end(j->api);
        } else
                json_decref(line);
        snapshot_free(j);
}

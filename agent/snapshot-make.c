/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Steps of `tbnode snapshot` up to the image's name in the registry. */

#include <stdlib.h>

#include "agent/project.h"
#include "agent/snapshot-image.h"
#include "agent/snapshot-internal.h"
#include "augment/config.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* "{}" in base64: the engine insists on the header. */
#define AUTH_ANONYMOUS "X-Registry-Auth: e30="

/* ---- The node's image -------------------------------------------------------------------------------------------- */

/* What was in a project's image must not leave the project, so its name decides when there is one. */
static int choose_project(SnapshotJob *j, const char *image, TbError **err)
{
        _cleanup_free_ char *own = NULL;
        char user[32];
        int r;

        r = snapshot_project_of(image, j->host, &own, err);
        if (r < 0)
                return r;
        if (own && !project_may_act(j->uid, own))
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "node %s is made of an image of project %s, and you are not in it", j->node, own);
        if (j->asked_project) {
                j->project = TAKE_PTR(j->asked_project);
                return 0;
        }
        if (own) {
                j->project = TAKE_PTR(own);
                return 0;
        }
        (void) snprintf(user, sizeof(user), "user-%u", j->owner);
        if (!project_may_act(j->uid, user))
                (void) snprintf(user, sizeof(user), "user-%u", j->uid);
        j->project = strdup(user);
        return j->project ? 0 : tb_error_oom(err);
}

static int choose_names(SnapshotJob *j, const char *image, TbError **err)
{
        _cleanup_free_ char *tag = tb_asprintf("tbnode-%s", j->label);
        int r;

        if (!tag)
                return tb_error_oom(err);
        r = choose_project(j, image, err);
        if (r >= 0)
                r = snapshot_name_make(
                        j->host, j->project, j->asked_name ?: j->default_name, &j->target, err);
        if (r >= 0)
                r = registry_ref_with(j->target, tag, NULL, &j->raw, err);
        if (r < 0)
                return r;
        j->raw_name = registry_ref_to_string(j->raw);
        return j->raw_name ? 0 : tb_error_oom(err);
}

static void on_inspected(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;
        const char *id = NULL, *image = NULL;
        TbError *failed = tb_error_copy(err);
        json_t *config = NULL;

        if (failed)
                (void) tb_error_prefix(&failed, "cannot inspect node %s", j->node);
        else if (tb_json_get_string(body, "Image", &id, &failed) <= 0 ||
                tb_json_get_object(body, "Config", &config, &failed) <= 0 ||
                tb_json_get_string(config, "Image", &image, &failed) <= 0) {
                if (!failed)
                        (void) tb_error_set(&failed, TB_ERROR_REMOTE, -EPROTO,
                                "the engine doesn't say of which image node %s is", j->node);
        } else if (!(j->image_id = tb_engine_escape(id)))
                (void) tb_error_oom(&failed);
        else
                (void) choose_names(j, image, &failed);
        j->call = tb_engine_request_free(j->call);
        if (failed)
                snapshot_fail(j, failed);
        else
                snapshot_go(j, SNAPSHOT_IMAGE);
}

void snapshot_step_inspect(SnapshotJob *j)
{
        char path[128];

        (void) snprintf(path, sizeof(path), "/containers/%s/json", j->container_id);
        snapshot_call(j, &(TbEngineCall){.method = "GET", .path = path, .done = on_inspected});
}

static void on_image(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;
        TbError *failed = NULL;
        json_t *config = NULL;

        if (status == 404)
                (void) tb_error_set(&failed, TB_ERROR_CONFIG, -ENOENT,
                        "the image of which node %s was made isn't in the engine any more (docker image rm "
                        "--force?), so what the snapshot is to run isn't known",
                        j->node);
        else if (err)
                failed = tb_error_copy(err);
        else if (tb_json_get_object(body, "Config", &config, &failed) <= 0 && !failed)
                (void) tb_error_set(&failed, TB_ERROR_REMOTE, -EPROTO,
                        "the engine gives no configuration for the image of node %s", j->node);
        j->config = json_incref(config);
        j->call = tb_engine_request_free(j->call);
        if (failed)
                snapshot_fail(j, failed);
        else
                snapshot_go(j, SNAPSHOT_COMMIT);
}

void snapshot_step_image(SnapshotJob *j)
{
        _cleanup_free_ char *path = tb_asprintf("/images/%s/json", j->image_id);
        TbError *err = NULL;

        if (path)
                snapshot_call(j, &(TbEngineCall){.method = "GET", .path = path, .done = on_image});
        else {
                (void) tb_error_oom(&err);
                snapshot_fail(j, err);
        }
}

/* ---- Commit and push --------------------------------------------------------------------------------------------- */

static void on_committed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;
        TbError *failed = tb_error_copy(err);
        const char *id = NULL;

        if (failed)
                (void) tb_error_prefix(&failed, "the engine can't commit node %s", j->node);
        else if (tb_json_get_string(body, "Id", &id, &failed) <= 0) {
                if (!failed)
                        (void) tb_error_set(&failed, TB_ERROR_REMOTE, -EPROTO,
                                "the engine committed node %s but named no image", j->node);
        } else if (!(j->committed = tb_engine_escape(id)))
                (void) tb_error_oom(&failed);
        j->call = tb_engine_request_free(j->call);
        if (j->error) { /* it was called off meanwhile, and waited for this */
                tb_error_free(failed);
                snapshot_go(j, SNAPSHOT_REMOVE);
        } else if (failed)
                snapshot_fail(j, failed);
        else
                snapshot_go(j, SNAPSHOT_PUSH);
}

void snapshot_step_commit(SnapshotJob *j)
{
        _cleanup_free_ char *repository = registry_ref_name(j->raw), *escaped = NULL, *path = NULL;
        _cleanup_json_ json_t *body = json_pack("{s:{s:s}}", "Labels", SNAPSHOT_LABEL, j->label);
        TbError *err = NULL;

        escaped = repository ? tb_engine_escape(repository) : NULL;
        if (escaped)
                path = tb_asprintf("/commit?container=%s&repo=%s&tag=%s&pause=%d", j->container_id, escaped,
                        j->raw->tag, j->pause);
        if (!path || !body) {
                (void) tb_error_oom(&err);
                snapshot_fail(j, err);
                return;
        }
        snapshot_progress(
                j, j->pause ? "reading the node's files; it is paused" : "reading the node's files");
        j->committing = true;
        /* As long as it takes to read the files: bounded by the job's time. */
        snapshot_call(j,
                &(TbEngineCall){.method = "POST",
                        .path = path,
                        .body = body,
                        .timeout_usec = UINT64_MAX,
                        .done = on_committed});
}

static void push_progress(SnapshotJob *j, const json_t *line)
{
        const char *status = json_string_value(json_object_get(line, "status")),
                   *id = json_string_value(json_object_get(line, "id"));
        const json_t *detail = json_object_get(line, "progressDetail");
        uint64_t done = 0, total = 0;

        if (!j->api || !id || !tb_streq(status, "Pushing") ||
                tb_json_get_u64(detail, "current", &done, NULL) <= 0 ||
                tb_json_get_u64(detail, "total", &total, NULL) <= 0)
                return;
        api_stream_line(j->api,
                json_pack("{s:s, s:s, s:s, s:I, s:I}", "event", "progress", "stage", "push", "blob", id,
                        "done", (json_int_t) done, "total", (json_int_t) total),
                false);
        snapshot_progress(j, "into the testbed's registry");
}

/* api/types: jsonmessage.JSONMessage */
static int on_push_line(TbEngineRequest *r, const json_t *line, void *userdata, TbError **err)
{
        SnapshotJob *j = userdata;
        const char *failure = json_string_value(json_object_get(line, "error"));
        const char *digest = json_string_value(json_object_get(json_object_get(line, "aux"), "Digest"));

        if (!failure)
                failure =
                        json_string_value(json_object_get(json_object_get(line, "errorDetail"), "message"));
        if (failure) {
                _cleanup_free_ char *shown = tb_escape(failure, 500);

                return tb_error_set(err, TB_ERROR_REMOTE, -EREMOTEIO,
                        "the engine can't push the snapshot of node %s into the registry %s: %s", j->node,
                        j->host, shown ?: "");
        }
        if (digest)
                return tb_digest_parse(digest, &j->pushed, err);
        push_progress(j, line);
        return 0;
}

static void on_pushed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;
        TbError *failed = tb_error_copy(err);

        if (!failed && !tb_digest_is_set(&j->pushed))
                (void) tb_error_set(
                        &failed, TB_ERROR_REMOTE, -EPROTO, "the engine pushed but named no digest");
        j->call = tb_engine_request_free(j->call);
        if (failed)
                snapshot_fail(j, failed);
        else
                snapshot_go(j, SNAPSHOT_READ);
}

void snapshot_step_push(SnapshotJob *j)
{
        static const char *const headers[] = {AUTH_ANONYMOUS, NULL};
        _cleanup_free_ char *name = registry_ref_name(j->raw);
        _cleanup_free_ char *path = name ? tb_asprintf("/images/%s/push?tag=%s", name, j->raw->tag) : NULL;
        TbError *err = NULL;

        if (!path) {
                (void) tb_error_oom(&err);
                snapshot_fail(j, err);
                return;
        }
        snapshot_progress(j, "into the testbed's registry");
        j->pushing = true;
        snapshot_call(j,
                &(TbEngineCall){.method = "POST",
                        .path = path,
                        .headers = headers,
                        .line = on_push_line,
                        .done = on_pushed});
}

/* ---- The snapshot's own configuration ---------------------------------------------------------------------------- */

/* The end of an operation that gives nothing to keep. */
static void op_end(SnapshotJob *j, const TbError *err, SnapshotStep next)
{
        TbError *failed = tb_error_copy(err);

        j->op = registry_op_free(j->op);
        if (failed)
                snapshot_fail(j, failed);
        else
                snapshot_go(j, next);
}

static void on_read(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;

        if (result >= 0)
                j->manifest = registry_op_steal_manifest(op);
        op_end(j, err, SNAPSHOT_CONFIG);
}

void snapshot_step_read(SnapshotJob *j)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        TbError *err = NULL;

        snapshot_progress(j, NULL);
        if (registry_ref_with(j->raw, NULL, &j->pushed, &ref, &err) < 0 ||
                registry_get_manifest_start(
                        registry_session_client(j->session), ref, on_read, j, &j->op, &err) < 0)
                snapshot_fail(j, err);
}

static int make_documents(SnapshotJob *j, const char *data, size_t size, TbError **err)
{
        _cleanup_json_ json_t *pushed = NULL;
        int r;

        r = tb_json_parse(data, size, IMAGE_CONFIG_MAX, "configuration", &pushed, err);
        if (r >= 0)
                r = snapshot_config_make(pushed, j->config, &j->config_text, &j->config_size, err);
        if (r >= 0)
                r = tb_digest_of(j->config_text, j->config_size, &j->config_digest, err);
        if (r >= 0)
                r = snapshot_manifest_make(j->manifest, &j->config_digest, j->config_size, &j->manifest_text,
                        &j->manifest_size, err);
        return r < 0 ? r : tb_digest_of(j->manifest_text, j->manifest_size, &j->digest, err);
}

static void on_config(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        SnapshotJob *j = userdata;
        _cleanup_error_ TbError *failed = NULL;
        _cleanup_free_ char *data = NULL;
        size_t size = 0;

        if (result >= 0) {
                data = registry_op_steal_blob(op, &size);
                if (!data)
                        (void) tb_error_oom(&failed);
                else
                        (void) make_documents(j, data, size, &failed);
                err = failed;
        }
        op_end(j, err, SNAPSHOT_UPLOAD);
}

void snapshot_step_config(SnapshotJob *j)
{
        TbError *err = NULL;

        if (registry_manifest_is_index(j->manifest) || !tb_digest_is_set(&j->manifest->config.digest)) {
                (void) tb_error_set(
                        &err, TB_ERROR_REMOTE, -EPROTO, "what the engine pushed is not one image");
                snapshot_fail(j, err);
        } else if (registry_get_blob_start(registry_session_client(j->session), j->raw,
                           &j->manifest->config.digest, j->manifest->config.size, IMAGE_CONFIG_MAX,
                           on_config, j, &j->op, &err) < 0)
                snapshot_fail(j, err);
}

static void on_uploaded(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        op_end(userdata, err, SNAPSHOT_TAG);
}

void snapshot_step_upload(SnapshotJob *j)
{
        TbError *err = NULL;

        if (registry_put_blob_start(registry_session_client(j->session), j->target, j->config_text,
                    j->config_size, &j->config_digest, on_uploaded, j, &j->op, &err) < 0)
                snapshot_fail(j, err);
}

static void on_tagged(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        op_end(userdata, err, SNAPSHOT_REMOVE);
}

int snapshot_put_manifest(SnapshotJob *j, const RegistryRef *ref, RegistryDoneFn done, TbError **err)
{
        return registry_put_manifest_start(registry_session_client(j->session), ref,
                registry_manifest_kind_to_media_type(j->manifest->kind), j->manifest_text, j->manifest_size,
                done, j, &j->op, err);
}

void snapshot_step_tag(SnapshotJob *j)
{
        TbError *err = NULL;

        snapshot_progress(j, NULL);
        if (snapshot_put_manifest(j, j->target, on_tagged, &err) < 0)
                snapshot_fail(j, err);
}

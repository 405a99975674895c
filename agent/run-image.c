/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Steps of `tbnode run` up to the image in the engine. */

#include <stdlib.h>
#include <string.h>

#include "agent/run-internal.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

static void on_augment_progress(const json_t *line, void *userdata)
{
        RunJob *j = userdata;

        if (j->api)
                api_stream_line(j->api, json_deep_copy(line), false);
}

/* "host/repo:tag" and a digest -> "host/repo@digest" */
static char *reference_by_digest(const char *image, const TbDigest *digest)
{
        const char *slash = strrchr(image, '/'), *end = strpbrk(slash ?: image, ":@");

        return tb_asprintf(
                "%.*s@%s", (int) (end ? (size_t) (end - image) : strlen(image)), image, digest->text);
}

static void on_augmented(const AugmentResult *result, const TbError *err, void *userdata)
{
        RunJob *j = userdata;
        TbError *failed = NULL;

        j->augment = NULL; /* the queue frees it */
        if (err) {
                run_fail(j, err);
                return;
        }
        j->image = reference_by_digest(result->image, &result->digest);
        if (!j->image || augment_result_to_json(result, &j->augmented, &failed) < 0) {
                if (!failed)
                        (void) tb_error_oom(&failed);
                run_fail_take(j, failed);
                return;
        }
        run_go(j, RUN_WAIT);
}

void run_step_augment(RunJob *j)
{
        TbError *err = NULL;

        if (job_submit(j->manager->jobs, j->uid, &j->spec.augment, AUGMENT_OP_AUGMENT,
                    &(JobCallbacks){.progress = on_augment_progress, .done = on_augmented, .userdata = j},
                    &j->augment, &err) < 0)
                run_fail_take(j, err);
}

static void on_image(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        RunJob *j = userdata;
        bool pulled = j->step == RUN_INSPECT;

        if (!err) {
                j->inspect = json_incref((json_t *) body);
                run_call_end(j);
                run_go(j, RUN_NAME);
        } else if (status == 404 && !pulled) {
                run_call_end(j);
                run_go(j, RUN_PULL);
        } else {
                run_fail(j, err);
                run_call_end(j);
        }
}

/* An image reference is made of characters that a path takes as they are; the slashes are the engine's syntax. */
void run_step_image(RunJob *j)
{
        _cleanup_free_ char *path = tb_asprintf("/images/%s/json", j->image);

        if (!path) {
                TbError *err = NULL;

                (void) tb_error_oom(&err);
                run_fail_take(j, err);
                return;
        }
        run_call(j, &(TbEngineCall){.method = "GET", .path = path, .done = on_image});
}

static int on_pull_line(TbEngineRequest *r, const json_t *line, void *userdata, TbError **err)
{
        RunJob *j = userdata;
        const char *error = NULL, *status = NULL, *id = NULL;
        json_t *detail = NULL;
        uint64_t done = 0, total = 0;

        if (tb_json_get_string(line, "error", &error, NULL) > 0) {
                _cleanup_free_ char *shown = tb_escape(error, 500);
                return tb_error_set(err, TB_ERROR_REMOTE, -EREMOTEIO, "the engine cannot pull %s: %s",
                        j->image, shown ?: "");
        }
        if (!j->api || tb_json_get_object(line, "progressDetail", &detail, NULL) <= 0 ||
                tb_json_get_string(line, "status", &status, NULL) <= 0 ||
                tb_json_get_string(line, "id", &id, NULL) <= 0 || !tb_streq(status, "Downloading") ||
                tb_json_get_u64(detail, "current", &done, NULL) < 0 ||
                tb_json_get_u64(detail, "total", &total, NULL) < 0)
                return 0;
        api_stream_line(j->api,
                json_pack("{s:s, s:s, s:s, s:I, s:I}", "event", "progress", "stage", "pull", "blob", id,
                        "done", (json_int_t) done, "total", (json_int_t) total),
                false);
        return 0;
}

static void on_pulled(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        RunJob *j = userdata;

        if (err)
                run_fail(j, err);
        else
                run_go(j, RUN_INSPECT);
        run_call_end(j);
}

void run_step_pull(RunJob *j)
{
        char *at = strrchr(j->image, '@');
        _cleanup_free_ char *name = NULL, *path = NULL;

        if (at) {
                *at = 0;
                name = tb_engine_escape(j->image);
                *at = '@';
        }
        path = name ? tb_asprintf("/images/create?fromImage=%s&tag=%s", name, at + 1) : NULL;
        if (!path) {
                TbError *err = NULL;

                (void) tb_error_oom(&err);
                run_fail_take(j, err);
                return;
        }
        run_progress(j, "pulling into the engine");
        run_call(
                j, &(TbEngineCall){.method = "POST", .path = path, .line = on_pull_line, .done = on_pulled});
}

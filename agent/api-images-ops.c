/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Operations on the images in the testbed's registry. */

#include <stdlib.h>

#include "agent/access.h"
#include "agent/api-ops.h"
#include "agent/images.h"
#include "agent/request-body.h"
#include "common/json.h"

#define KEEP_DAYS_DEFAULT 30U
#define KEEP_DAYS_MAX 36500U
#define DAY_SEC INT64_C(86400)

typedef struct ImagesOp {
        ApiRequest *request;
        ImagesJob *job;
} ImagesOp;

static void on_done(const json_t *result, const TbError *err, void *userdata)
{
        ImagesOp *o = userdata;

        if (err)
                api_reply_error(o->request, err);
        else
                api_reply(o->request, 200, json_deep_copy(result));
        free(o);
}

static void on_gone(ApiRequest *r, void *userdata)
{
        ImagesOp *o = userdata;

        images_job_free(o->job);
        free(o);
}

static ImagesOp *begin(ApiRequest *r)
{
        ImagesOp *o = calloc(1, sizeof(*o));

        if (!o)
                api_reply(r, 507, NULL);
        else
                o->request = r;
        return o;
}

void op_images(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        ImagesOp *o = begin(r);

        if (!o)
                return;
        if (images_list(api_request_manager(r), api_request_uid(r), on_done, o, &o->job, &err) < 0) {
                api_reply_error(r, err);
                free(o);
                return;
        }
        api_request_on_gone(r, on_gone, o);
}

static int parse_prune(ApiRequest *r, uint64_t *ret_days, bool *ret_dry_run, TbError **err)
{
        static const char *const members[] = {"keep_days", "dry_run", NULL};
        const json_t *body = api_request_body(r);
        int k;

        if (!api_request_caller(r)->is_operator)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -EACCES, "only root and operators may remove images");
        if ((k = request_body_check_members(body, members, err)) < 0 ||
                (k = tb_json_get_u64(body, "keep_days", ret_days, err)) < 0 ||
                (k = tb_json_get_bool(body, "dry_run", ret_dry_run, err)) < 0)
                return k;
        return *ret_days <= KEEP_DAYS_MAX
                ? 0
                : tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "keep_days is more than %u", KEEP_DAYS_MAX);
}

void op_prune(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        uint64_t days = KEEP_DAYS_DEFAULT;
        ImagesOp *o = begin(r);
        bool dry_run = false;

        if (!o)
                return;
        if (api_blame_caller(parse_prune(r, &days, &dry_run, &err), &err) < 0 ||
                images_prune(api_request_manager(r), (int64_t) days * DAY_SEC, dry_run, on_done, o, &o->job,
                        &err) < 0) {
                api_reply_error(r, err);
                free(o);
                return;
        }
        api_request_on_gone(r, on_gone, o);
}

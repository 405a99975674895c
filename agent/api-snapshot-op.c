/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The operation that makes an image of a node. */

#include "agent/access.h"
#include "agent/api-ops.h"
#include "agent/request-body.h"
#include "agent/snapshot.h"
#include "common/json.h"

static int parse(const json_t *body, SnapshotSpec *ret, TbError **err)
{
        static const char *const members[] = {"name", "project", "pause", NULL};
        int r;

        r = request_body_check_members(body, members, err);
        if (r >= 0)
                r = tb_json_get_string(body, "name", &ret->name, err);
        if (r >= 0)
                r = tb_json_get_string(body, "project", &ret->project, err);
        return r < 0 ? r : tb_json_get_bool(body, "pause", &ret->pause, err);
}

void op_snapshot(ApiRequest *r)
{
        SnapshotSpec spec = {.pause = true}; /* as docker commit */
        _cleanup_error_ TbError *err = NULL;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (api_blame_caller(parse(api_request_body(r), &spec, &err), &err) < 0 ||
                snapshot_start(r, n, &spec, &err) < 0)
                api_reply_error(r, err);
}

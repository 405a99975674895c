/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* POST /v1/nodes/NODE/exec */

#include <stdlib.h>

#include "agent/api-ops.h"
#include "agent/exec-frame.h"
#include "agent/exec-session.h"
#include "common/cleanup.h"

typedef struct ExecOp {
        ApiRequest *request;
        ExecSession *session;
} ExecOp;

static void on_gone(ApiRequest *r, void *userdata)
{
        ExecOp *o = userdata;

        exec_session_abandon(o->session);
        free(o);
}

static void on_upgraded(ApiRequest *r, int fd, const void *early, size_t size, void *userdata)
{
        const ExecOp *o = userdata;

        exec_session_attach(o->session, fd, early, size); /* may end it */
}

static void on_started(ExecSession *s, void *userdata)
{
        ExecOp *o = userdata;

        api_upgrade(o->request, EXEC_PROTOCOL, on_upgraded, o);
}

static void on_failed(const TbError *err, void *userdata)
{
        ExecOp *o = userdata;

        api_reply_error(o->request, err);
        free(o);
}

static void on_ended(void *userdata)
{
        ExecOp *o = userdata;

        api_upgrade_end(o->request);
        free(o);
}

void op_exec(ApiRequest *r)
{
        _cleanup_exec_spec_ ExecSpec spec = {};
        _cleanup_error_ TbError *err = NULL;
        ExecOp *o;
        Node *n;

        if (!api_request_wants_upgrade(r, EXEC_PROTOCOL)) {
                (void) tb_error_set(&err, TB_ERROR_CONFIG, -EPROTO,
                        "this operation changes the protocol: ask with \"Connection: Upgrade\" and "
                        "\"Upgrade: " EXEC_PROTOCOL "\"");
                api_reply(r, 426, json_pack("{s:o}", "error", api_error_to_json(err)));
                return;
        }
        if (api_request_node(r, &n) < 0)
                return;
        o = calloc(1, sizeof(*o));
        if (!o) {
                api_reply(r, 507, NULL);
                return;
        }
        o->request = r;
        if (api_blame_caller(exec_spec_parse(api_request_body(r), &spec, &err), &err) < 0 ||
                exec_session_start(n, &spec,
                        &(ExecCallbacks){.started = on_started,
                                .failed = on_failed,
                                .ended = on_ended,
                                .userdata = o},
                        &o->session, &err) < 0) {
                free(o);
                api_reply_error(r, err);
                return;
        }
        api_request_on_gone(r, on_gone, o);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* PUT, DELETE /v1/nodes/NODE/ssh-keys: who may log in to a node that is served from outside (outside-ssh.h), while it runs. */

#include <stdlib.h>

#include "agent/api-ops.h"
#include "agent/outside-ssh.h"
#include "agent/request-body.h"
#include "agent/run-spec.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* Changes them; when the disk does not want it, everything is as before. `keys`: NULL = the label's. */
static int change(Node *n, const char *keys, TbError **err)
{
        _cleanup_free_ char *before = NULL;
        int r;

        if (!outside_ssh_is_declared(n))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "node %s has no label tbnode.ssh-keys: its ssh is its own; where tbnode's sshd runs "
                        "in it, 'tbnode declare' gives it accounts with keys",
                        node_display_name(n));
        before = TAKE_PTR(n->ssh_keys_override);
        r = node_set_ssh_keys_override(n, keys, err);
        if (r >= 0)
                r = state_file_save(n->manager, err);
        if (r < 0) {
                free(n->ssh_keys_override);
                n->ssh_keys_override = TAKE_PTR(before);
                return r;
        }
        outside_ssh_keys_changed(n);
        return 0;
}

void op_keys_set(ApiRequest *r)
{
        static const char *const members[] = {"ssh_keys", NULL};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_strv_ char **keys = NULL;
        _cleanup_free_ char *text = NULL;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (request_body_check_members(api_request_body(r), members, &err) < 0 ||
                api_blame_caller(tb_json_get_strv(api_request_body(r), "ssh_keys", &keys, &err), &err) < 0 ||
                run_spec_check_keys(keys, &err) < 0) {
                api_reply_error(r, err);
                return;
        }
        text = tb_strv_join(keys ?: (char *[]){NULL}, "\n");
        if (!text)
                (void) tb_error_oom(&err);
        if (!text || change(n, text, &err) < 0)
                api_reply_error(r, err);
        else
                api_reply_changed(r, n, "ssh-keys-set", NULL);
}

void op_keys_clear(ApiRequest *r)
{
        _cleanup_error_ TbError *err = NULL;
        Node *n;

        if (api_request_node(r, &n) < 0)
                return;
        if (change(n, NULL, &err) < 0)
                api_reply_error(r, err);
        else
                api_reply_changed(r, n, "ssh-keys-clear", NULL);
}

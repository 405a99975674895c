/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/api.h"

/* Between the files that hold operations. */

/* The node that the path's first argument names; answers the request itself when there is none. */
int api_request_node(ApiRequest *r, Node **ret) _warn_unused_;

/* JSON getters blame the remote side, which is the caller here: makes it kind CONFIG. Returns r. */
int api_blame_caller(int r, TbError **err);

/* api-shape-ops.c */
/* Only a configured node can be changed: -EBUSY, kind CONFIG. */
int api_check_changeable(const Node *n, TbError **err) _warn_unused_;
/* Notes the change in the event log and answers with the node. */
void api_reply_changed(ApiRequest *r, Node *n, const char *what, const char *network);
void op_shapes(ApiRequest *r);
void op_shape_get(ApiRequest *r);
void op_shape_set(ApiRequest *r);
void op_shape_clear(ApiRequest *r);

/* api-node-ops.c: through the engine */
void op_stop(ApiRequest *r);
void op_start(ApiRequest *r);
void op_restart(ApiRequest *r);
void op_remove(ApiRequest *r);
void op_logs(ApiRequest *r);
/* api-snapshot-op.c */
void op_snapshot(ApiRequest *r);
/* api-files-op.c */
void op_files(ApiRequest *r);
/* api-exec-op.c */
void op_exec(ApiRequest *r);
/* api-firewall-ops.c */
void op_firewalls(ApiRequest *r);
void op_firewall_show(ApiRequest *r);
void op_firewall_set(ApiRequest *r);
void op_firewall_explain(ApiRequest *r);
/* api-keys-op.c */
void op_keys_set(ApiRequest *r);
void op_keys_clear(ApiRequest *r);
/* api-augment-ops.c */
void op_augment(ApiRequest *r);
void op_dockerfile(ApiRequest *r);
void op_events(ApiRequest *r);
/* api-link-op.c */
void op_links_check(ApiRequest *r);
/* api-images-ops.c */
void op_images(ApiRequest *r);
void op_prune(ApiRequest *r);
/* api-client-ops.c */
void op_declaration_get(ApiRequest *r);
void op_declaration_set(ApiRequest *r);
void op_programs(ApiRequest *r);
void op_program(ApiRequest *r);
void op_startup(ApiRequest *r);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/node-client.h"

/* Between node-client.c and node-report.c. */

/* An event about a node: `fields` (consumed; NULL is ignored) get its names. A node that causes too many loses them, so that
 * the ring of events stays everybody's. */
void node_report_event(Node *n, const char *event, json_t *fields);
/* What was reported about programs that are not declared any more. */
void node_report_forget_programs(Node *n);
/* Whoever watches this program (NULL: any) is told. */
void node_report_tell(NodeClient *c, const char *program, const json_t *outcome);
/* Soon. */
void node_client_save(NodeClient *c);

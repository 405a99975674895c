/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "agent/node.h"
#include "common/log.h"

/* Messages about a node: "node NAME: ..." with the fields TBNODE_NODE, TBNODE_EXPERIMENT, CONTAINER_ID, STATE; an error's
 * cause adds ERROR_KIND, and MESSAGE_ID (message.h). */
void log_node_full(const Node *n, int level, const TbError *cause, const char *file, int line,
        const char *func, const char *fmt, ...) _printf_(7, 8);

#define log_node(n, level, ...) log_node_full((n), (level), NULL, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define log_node_error(n, cause, ...) \
        log_node_full((n), LOG_ERR, (cause), __FILE__, __LINE__, __func__, __VA_ARGS__)

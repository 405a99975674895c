/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdio.h>

#include "agent/log-node.h"
#include "agent/message.h"
#include "common/cleanup.h"
#include "common/strv.h"

void log_node_full(const Node *n, int level, const TbError *cause, const char *file, int line,
        const char *func, const char *fmt, ...)
{
        char text[1024], node[96], experiment[96], container[96], state[32], kind[32];
        const char *fields[7];
        size_t k = 0;
        va_list ap;

        if (level > tb_log_get_level())
                return;
        va_start(ap, fmt);
        (void) vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        (void) snprintf(node, sizeof(node), "TBNODE_NODE=%s", node_display_name(n));
        fields[k++] = node;
        if (n->labels.experiment) {
                (void) snprintf(
                        experiment, sizeof(experiment), "TBNODE_EXPERIMENT=%s", n->labels.experiment);
                fields[k++] = experiment;
        }
        (void) snprintf(container, sizeof(container), "CONTAINER_ID=%.12s", n->id);
        fields[k++] = container;
        (void) snprintf(state, sizeof(state), "STATE=%s", node_state_to_string(n->state));
        fields[k++] = state;
        if (cause && level == LOG_ERR)
                fields[k++] = "MESSAGE_ID=" MESSAGE_NODE_FAILED;
        if (cause) {
                (void) snprintf(kind, sizeof(kind), "ERROR_KIND=%s", tb_error_kind_to_string(cause->kind));
                fields[k++] = kind;
        }
        fields[k] = NULL;
        tb_log_full(level, file, line, func, fields, "node %s: %s", node_display_name(n), text);
}

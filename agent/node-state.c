/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <assert.h>

#include "agent/node-state.h"
#include "common/macro.h"
#include "common/strv.h"

static const char *const state_table[_NODE_STATE_MAX] = {
        [NODE_CREATED] = "created",
        [NODE_STARTING] = "starting",
        [NODE_CONFIGURING] = "configuring",
        [NODE_CONFIGURED] = "configured",
        [NODE_FAILED] = "failed",
        [NODE_REMOVING] = "removing",
        [NODE_STOPPED] = "stopped",
};
static_assert(ELEMENTSOF(state_table) == _NODE_STATE_MAX, "a state has no name");

static const char *const event_table[_NODE_EVENT_MAX] = {
        [NODE_EVENT_START] = "start",
        [NODE_EVENT_FACTS] = "facts",
        [NODE_EVENT_NOT_RUNNING] = "not-running",
        [NODE_EVENT_CHANGED] = "changed",
        [NODE_EVENT_APPLIED] = "applied",
        [NODE_EVENT_FAIL] = "fail",
        [NODE_EVENT_RETRY] = "retry",
        [NODE_EVENT_DIE] = "die",
        [NODE_EVENT_REMOVED] = "removed",
};
static_assert(ELEMENTSOF(event_table) == _NODE_EVENT_MAX, "an event has no name");

const char *node_state_to_string(NodeState s)
{
        return s >= 0 && s < _NODE_STATE_MAX ? state_table[s] : NULL;
}

NodeState node_state_from_string(const char *s)
{
        for (NodeState i = 0; i < _NODE_STATE_MAX; i++)
                if (tb_streq(state_table[i], s))
                        return i;
        return _NODE_STATE_INVALID;
}

const char *node_event_to_string(NodeEvent e)
{
        return e >= 0 && e < _NODE_EVENT_MAX ? event_table[e] : NULL;
}

/* Shifted by one, so that what is not written is "ignored". */
#define TO(s) ((s) + 1)

static const unsigned char transitions[_NODE_STATE_MAX][_NODE_EVENT_MAX] = {
        [NODE_CREATED] =
                {
                        [NODE_EVENT_START] = TO(NODE_STARTING),
                        [NODE_EVENT_FAIL] = TO(NODE_FAILED),
                        [NODE_EVENT_DIE] = TO(NODE_REMOVING),
                },
        [NODE_STARTING] =
                {
                        [NODE_EVENT_START] = TO(NODE_STARTING),
                        [NODE_EVENT_FACTS] = TO(NODE_CONFIGURING),
                        [NODE_EVENT_NOT_RUNNING] = TO(NODE_REMOVING),
                        [NODE_EVENT_CHANGED] = TO(NODE_STARTING),
                        [NODE_EVENT_FAIL] = TO(NODE_FAILED),
                        [NODE_EVENT_DIE] = TO(NODE_REMOVING),
                },
        [NODE_CONFIGURING] =
                {
                        [NODE_EVENT_START] = TO(NODE_STARTING),
                        [NODE_EVENT_FACTS] = TO(NODE_CONFIGURING),
                        [NODE_EVENT_NOT_RUNNING] = TO(NODE_REMOVING),
                        [NODE_EVENT_CHANGED] = TO(NODE_STARTING),
                        [NODE_EVENT_APPLIED] = TO(NODE_CONFIGURED),
                        [NODE_EVENT_FAIL] = TO(NODE_FAILED),
                        [NODE_EVENT_DIE] = TO(NODE_REMOVING),
                },
        [NODE_CONFIGURED] =
                {
                        [NODE_EVENT_START] = TO(NODE_STARTING),
                        [NODE_EVENT_NOT_RUNNING] = TO(NODE_REMOVING),
                        [NODE_EVENT_CHANGED] = TO(NODE_STARTING),
                        [NODE_EVENT_APPLIED] = TO(NODE_CONFIGURED),
                        [NODE_EVENT_FAIL] = TO(NODE_FAILED),
                        [NODE_EVENT_DIE] = TO(NODE_REMOVING),
                },
        [NODE_FAILED] =
                {
                        [NODE_EVENT_START] = TO(NODE_STARTING),
                        [NODE_EVENT_NOT_RUNNING] = TO(NODE_REMOVING),
                        [NODE_EVENT_CHANGED] = TO(NODE_STARTING),
                        [NODE_EVENT_FAIL] = TO(NODE_FAILED),
                        [NODE_EVENT_RETRY] = TO(NODE_STARTING),
                        [NODE_EVENT_DIE] = TO(NODE_REMOVING),
                },
        [NODE_REMOVING] =
                {
                        [NODE_EVENT_START] = TO(NODE_STARTING),
                        [NODE_EVENT_NOT_RUNNING] = TO(NODE_REMOVING),
                        [NODE_EVENT_DIE] = TO(NODE_REMOVING),
                        [NODE_EVENT_REMOVED] = TO(NODE_STOPPED),
                },
        [NODE_STOPPED] =
                {
                        [NODE_EVENT_START] = TO(NODE_STARTING),
                        [NODE_EVENT_FAIL] = TO(NODE_FAILED),
                },
};

NodeState node_state_next(NodeState s, NodeEvent e)
{
        if (s < 0 || s >= _NODE_STATE_MAX || e < 0 || e >= _NODE_EVENT_MAX || transitions[s][e] == 0)
                return _NODE_STATE_INVALID;
        return (NodeState) (transitions[s][e] - 1);
}

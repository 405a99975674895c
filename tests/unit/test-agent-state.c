/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/unit/test.h"

#include "agent/node-state.h"
#include "common/strv.h"

#define IGNORED "-"

/* Every event in every state, written out a second time, by name: what the essay in node-state.h promises. */
static const struct {
        const char *state;
        const char *next
                [_NODE_EVENT_MAX]; /* start, facts, not-running, changed, applied, fail, retry, die, removed */
} expected[] = {
        {"created", {"starting", "-", "-", "-", "-", "failed", "-", "removing", "-"}},
        {"starting",
                {"starting", "configuring", "removing", "starting", "-", "failed", "-", "removing", "-"}},
        {"configuring",
                {"starting", "configuring", "removing", "starting", "configured", "failed", "-", "removing",
                        "-"}},
        {"configured",
                {"starting", "-", "removing", "starting", "configured", "failed", "-", "removing", "-"}},
        {"failed", {"starting", "-", "removing", "starting", "-", "failed", "starting", "removing", "-"}},
        {"removing", {"starting", "-", "removing", "-", "-", "-", "-", "removing", "stopped"}},
        {"stopped", {"starting", "-", "-", "-", "-", "failed", "-", "-", "-"}},
};

static void test_every_event_in_every_state(void **state)
{
        assert_int_equal(ELEMENTSOF(expected), _NODE_STATE_MAX);
        for (size_t i = 0; i < ELEMENTSOF(expected); i++) {
                NodeState s = node_state_from_string(expected[i].state);

                assert_int_equal(s, i);
                for (NodeEvent e = 0; e < _NODE_EVENT_MAX; e++) {
                        NodeState next = node_state_next(s, e);
                        const char *name = next < 0 ? IGNORED : node_state_to_string(next);

                        if (!tb_streq(name, expected[i].next[e]))
                                fail_msg("%s + %s gives %s, not %s", expected[i].state,
                                        node_event_to_string(e), name, expected[i].next[e]);
                }
        }
}

/* From anywhere, the end of the container leads to removal and then to rest, and a start leads to work again. */
static void test_convergence(void **state)
{
        for (NodeState s = 0; s < _NODE_STATE_MAX; s++) {
                NodeState x = node_state_next(s, NODE_EVENT_DIE);

                if (s != NODE_STOPPED) {
                        assert_int_equal(x, NODE_REMOVING);
                        assert_int_equal(node_state_next(x, NODE_EVENT_REMOVED), NODE_STOPPED);
                }
                assert_int_equal(node_state_next(s, NODE_EVENT_START), NODE_STARTING);
        }
}

static void test_out_of_range(void **state)
{
        assert_true(node_state_next(_NODE_STATE_MAX, NODE_EVENT_START) < 0);
        assert_true(node_state_next(NODE_CREATED, _NODE_EVENT_MAX) < 0);
        assert_true(node_state_next(_NODE_STATE_INVALID, NODE_EVENT_START) < 0);
        assert_true(node_state_from_string("nonsense") < 0);
        assert_null(node_state_to_string(_NODE_STATE_MAX));
        assert_null(node_event_to_string(_NODE_EVENT_MAX));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_event_in_every_state),
                cmocka_unit_test(test_convergence),
                cmocka_unit_test(test_out_of_range),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Events and lists of an engine, taken by the real code; the engine itself is too busy to describe anything. */

#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/docker-events.h"
#include "agent/manager.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

#define ID "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static Manager *manager;

static int setup(void **state)
{
        Config config;

        tb_log_set_level(LOG_EMERG);
        assert_true(config_init(&config, NULL) >= 0);
        free(config.run_dir);
        config.run_dir = strdup("/nonexistent/tbnode");
        free(config.state_dir);
        config.state_dir = strdup("/nonexistent/state");
        assert_true(manager_new(&config, &manager, NULL) >= 0);
        assert_true(sd_event_new(&manager->event) >= 0);
        assert_true(tb_http_new(manager->event, &manager->http, NULL) >= 0);
        assert_true(tb_engine_new(manager->http, "unix:///nowhere", &manager->engine, NULL) >= 0);
        assert_true(docker_events_new(manager, &manager->docker, NULL) >= 0);
        manager->inspects = 1000;
        return 0;
}

static int teardown(void **state)
{
        manager = manager_free(manager);
        return 0;
}

static void forget_nodes(void)
{
        while (manager->n_nodes > 0)
                node_free(manager->nodes[manager->n_nodes - 1]);
}

static void take(const char *type, const char *action)
{
        _cleanup_json_ json_t *j = NULL;

        if (tb_streq(type, "network"))
                j = json_pack("{s:s, s:s, s:{s:s, s:{s:s, s:s}}}", "Type", type, "Action", action, "Actor",
                        "ID", "n1", "Attributes", "container", ID, "name", "lan0");
        else
                j = json_pack("{s:s, s:s, s:{s:s, s:{s:s, s:s, s:s}}}", "Type", type, "Action", action,
                        "Actor", "ID", ID, "Attributes", "name", "aa", "oldName", "/zz", "tbnode.shape",
                        "rate 1mbit");
        docker_events_take(manager->docker, j);
}

static void take_list(const char *state)
{
        _cleanup_json_ json_t *j = state
                ? json_pack("[{s:s, s:[s], s:{s:s}, s:s}]", "Id", ID, "Names", "/aa", "Labels",
                          "tbnode.shape", "rate 1mbit", "State", state)
                : json_array();

        docker_events_take_list(manager->docker, j);
}

static const char *state_of(void)
{
        const Node *n = manager_find(manager, ID);

        return n ? node_state_to_string(n->state) : "none";
}

/* Brings the node into a state; the process that it ran is gone. */
static void make(const char *state)
{
        Node *n;

        forget_nodes();
        if (tb_streq(state, "none"))
                return;
        take("container", "create");
        n = manager_find(manager, ID);
        assert_non_null(n);
        n->state = node_state_from_string(state);
        if (n->state == NODE_FAILED) {
                n->has_facts = n->facts.running = true;
                (void) tb_error_set(&n->error, TB_ERROR_SYSTEM, -EIO, "for the test");
        }
}

/* What each of the engine's events does in each state; the essay in node-state.h says why. */
static void test_every_event_of_the_engine_in_every_state(void **state)
{
        static const char *const states[] = {
                "none", "created", "starting", "configuring", "configured", "failed", "removing", "stopped"};
#define SAME                                                                                                \
        {                                                                                                   \
                "none", "created", "starting", "configuring", "configured", "failed", "removing", "stopped" \
        }
        static const struct {
                const char *type, *action;
                const char *after[ELEMENTSOF(states)];
        } table[] = {
                {"container", "create",
                        {"created", "created", "starting", "configuring", "configured", "failed", "removing",
                                "stopped"}},
                {"container", "start",
                        {"starting", "starting", "starting", "starting", "starting", "starting", "starting",
                                "starting"}},
                {"container", "die",
                        {"removing", "removing", "removing", "removing", "removing", "removing", "removing",
                                "stopped"}},
                {"container", "destroy",
                        {"none", "none", "removing", "removing", "removing", "removing", "removing",
                                "none"}},
                {"network", "connect",
                        {"none", "created", "starting", "starting", "starting", "starting", "removing",
                                "stopped"}},
                {"network", "disconnect",
                        {"none", "created", "starting", "starting", "starting", "starting", "removing",
                                "stopped"}},
                {"network", "create", SAME},
                {"network", "destroy", SAME},
                {"container", "stop", SAME},
                {"container", "kill", SAME},
                {"container", "pause", SAME},
                {"container", "unpause", SAME},
                {"container", "oom", SAME},
                {"container", "rename", SAME},
                {"container", "update", SAME},
                {"container", "attach", SAME},
                {"container", "exec_create: sh", SAME},
                {"container", "exec_start: sh", SAME},
                {"container", "exec_die", SAME},
                {"container", "health_status: healthy", SAME},
                {"container", "health_status: unhealthy", SAME},
                {"container", "no such thing", SAME},
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                for (size_t k = 0; k < ELEMENTSOF(states); k++) {
                        make(states[k]);
                        take(table[i].type, table[i].action);
                        if (!tb_streq(state_of(), table[i].after[k]))
                                fail_msg("%s %s in %s gives %s, not %s", table[i].type, table[i].action,
                                        states[k], state_of(), table[i].after[k]);
                }
        forget_nodes();
}

/* The list is asked for after the events: only what tells more than the list makes it old. */
static void test_list_counts_unless_an_event_knows_better(void **state)
{
        static const struct {
                const char *event, *list, *after;
        } table[] = {
                {"health_status: healthy", "running", "starting"},
                {"exec_start: sh", "running", "starting"},
                {"exec_start: sh", "exited", "stopped"},
                {"oom", "running", "starting"},
                {"rename", "running", "starting"},
                {"pause", "paused", "starting"},
                {"die", "running", "removing"}, /* it died after the list was made */
                {"destroy", "running", "none"},
                {"start", "exited", "starting"},
                {"create", NULL, "created"},
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                forget_nodes();
                take("container", table[i].event);
                if (!tb_streq(table[i].event,
                            "destroy")) /* what is gone is in no list that is asked for later */
                        take_list(table[i].list);
                if (!tb_streq(state_of(), table[i].after))
                        fail_msg("%s, then a list with %s gives %s, not %s", table[i].event,
                                table[i].list ?: "nothing", state_of(), table[i].after);
        }
        forget_nodes();
}

static void test_rename_is_followed(void **state)
{
        make("created");
        free(manager->nodes[0]->name);
        manager->nodes[0]->name = strdup("zz");
        take("container", "rename");
        assert_string_equal(manager->nodes[0]->name, "aa");
        forget_nodes();
}

/* Something that happened to a container long before it starts is not the beginning of its start. */
static void test_only_what_starts_work_is_timed(void **state)
{
        make("created");
        manager->nodes[0]->event_us = 0;
        take("container", "exec_start: sh");
        take("container", "rename");
        assert_int_equal(manager->nodes[0]->event_us, 0);
        take("container", "start");
        assert_true(manager->nodes[0]->event_us > 0);
        forget_nodes();
}

/* Whatever comes behind its end, and wherever it was when that came: what is gone is forgotten when the kernel has nothing of it. */
static void test_destroyed_while_it_is_worked_on(void **state)
{
        static const char *const states[] = {"starting", "configuring", "configured", "failed", "removing"};
        static const char *const later[] = {"die", "destroy", "rename", "pause", "oom"};

        for (size_t i = 0; i < ELEMENTSOF(states); i++)
                for (size_t k = 0; k < ELEMENTSOF(later); k++) {
                        make(states[i]);
                        take("container", "destroy");
                        take("container", later[k]);
                        take("network", "disconnect");
                        assert_string_equal(state_of(), "removing");
                        /* The batch, or the description, that was under way. */
                        node_event(manager->nodes[0], NODE_EVENT_APPLIED, NULL);
                        node_event(manager->nodes[0], NODE_EVENT_FACTS, NULL);
                        node_event(manager->nodes[0], NODE_EVENT_RETRY, NULL);
                        assert_string_equal(state_of(), "removing");
                        node_event(manager->nodes[0], NODE_EVENT_REMOVED, NULL);
                        assert_string_equal(state_of(), "none");
                }
}

/* A start that is told again after that (the engine repeats events to who has been away) ends as well. */
static void test_start_that_is_told_again(void **state)
{
        make("configured");
        take("container", "destroy");
        take("container", "start");
        assert_string_equal(state_of(), "starting");
        take_list(NULL);
        node_event(manager->nodes[0], NODE_EVENT_NOT_RUNNING, NULL); /* what the engine says of it: 404 */
        assert_string_equal(state_of(), "removing");
        node_event(manager->nodes[0], NODE_EVENT_REMOVED, NULL);
        assert_string_equal(state_of(), "none");
}

/* Its networks change while it is down, or paused: looked at when it starts, or at once. */
static void test_networks_of_what_does_not_run(void **state)
{
        make("stopped");
        manager->want_sweep = false;
        take("network", "connect");
        take("network", "disconnect");
        assert_string_equal(state_of(), "stopped");
        assert_false(manager->want_sweep);
        take("container", "start");
        assert_string_equal(state_of(), "starting");
        make("configured");
        take("container", "pause");
        assert_string_equal(state_of(), "configured");
        take("network", "connect");
        assert_string_equal(state_of(), "starting");
        take("container", "unpause");
        assert_string_equal(state_of(), "starting");
        forget_nodes();
}

/* What passes by itself is tried again, what somebody has to change is not. */
static void test_failures_that_are_tried_again(void **state)
{
        static const struct {
                TbErrorKind kind;
                int code;
                bool again;
        } table[] = {
                {TB_ERROR_SYSTEM, -EMFILE, true},
                {TB_ERROR_RESOURCE, -ENOMEM, true},
                {TB_ERROR_REMOTE, -ETIMEDOUT, true},
                {TB_ERROR_CONFIG, -EINVAL, false},
                {TB_ERROR_ENVIRONMENT, -EEXIST, false},
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_error_ TbError *err = NULL;

                make("starting");
                (void) tb_error_set(&err, table[i].kind, table[i].code, "for the test");
                node_event(manager->nodes[0], NODE_EVENT_FAIL, err);
                assert_string_equal(state_of(), "failed");
                assert_int_equal(manager->nodes[0]->retry != NULL, table[i].again);
                node_event(manager->nodes[0], NODE_EVENT_RETRY, NULL);
                assert_string_equal(state_of(), "starting");
                assert_null(manager->nodes[0]->retry);
        }
        forget_nodes();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_event_of_the_engine_in_every_state),
                cmocka_unit_test(test_list_counts_unless_an_event_knows_better),
                cmocka_unit_test(test_rename_is_followed),
                cmocka_unit_test(test_only_what_starts_work_is_timed),
                cmocka_unit_test(test_destroyed_while_it_is_worked_on),
                cmocka_unit_test(test_start_that_is_told_again),
                cmocka_unit_test(test_networks_of_what_does_not_run),
                cmocka_unit_test(test_failures_that_are_tried_again),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What follows from what the kernel tells, with a kernel and a repair that do as the test says: route-watch.c and reconcile-repair.c
 * are replaced by the functions below. */

#include "tests/unit/test.h"

#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "agent/link-watch.h"
#include "agent/manager.h"
#include "agent/reconcile.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "netctl/route-watch.h"

#define ID "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define BRIDGE 5

static Manager *manager;
static Node *node;
static int told = -1;
static RouteEvent events[4];
static size_t n_events;
static unsigned repairs, repairs_that_fail;

int route_watch_new(const Netctl *n, RouteWatch **ret, TbError **err)
{
        *ret = NULL;
        return 0;
}

RouteWatch *route_watch_free(RouteWatch *w)
{
        return NULL;
}

int route_watch_fd(const RouteWatch *w)
{
        return told;
}

bool route_watch_read(RouteWatch *w, RouteEventFn fn, void *userdata)
{
        uint64_t n;

        assert_int_equal(read(told, &n, sizeof(n)), sizeof(n));
        for (size_t i = 0; i < n_events; i++)
                fn(events + i, userdata);
        n_events = 0;
        return true;
}

int reconcile_repair(Manager *m, Node *const *nodes, size_t n, TbError **err)
{
        assert_int_equal(n, 1);
        assert_ptr_equal(nodes[0], node);
        repairs++;
        if (repairs <= repairs_that_fail)
                return tb_error_set(err, TB_ERROR_SYSTEM, -ENOBUFS, "for the test");
        return 0;
}

static void tell(size_t n)
{
        n_events = n;
        assert_return_code(eventfd_write(told, 1), errno);
}

static RouteEvent link_event(int i, uint32_t master)
{
        RouteEvent e = {.change = ROUTE_LINK, .ifindex = (uint32_t) node->status.interfaces[i].host_ifindex};

        e.link = (Link){.ifindex = e.ifindex, .flags = IFF_UP, .master = master};
        (void) snprintf(e.link.name, sizeof(e.link.name), "%s", node->status.interfaces[i].host_ifname);
        return e;
}

/* Turns the loop until there were so many repairs. */
static void wait_for_repairs(unsigned n)
{
        while (repairs < n)
                assert_true(sd_event_run(manager->event, 10000000) > 0);
}

/* A node with two links, in order; its process is this test. */
static int setup(void **state)
{
        Config config;

        tb_log_set_level(LOG_EMERG);
        told = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(config_init(&config, NULL) >= 0);
        free(config.run_dir);
        config.run_dir = strdup("/nonexistent/tbnode");
        assert_true(manager_new(&config, &manager, NULL) >= 0);
        assert_true(sd_event_new(&manager->event) >= 0);
        assert_true(link_watch_new(manager, &manager->link_watch, NULL) >= 0);
        assert_true(node_new(manager, ID, "aa", NULL, &node, NULL) >= 0);
        node->state = NODE_CONFIGURED;
        assert_true(process_identity_read(getpid(), &node->identity, NULL) >= 0);
        node->has_status = true;
        node->status.n_interfaces = 2;
        node->status.interfaces = calloc(2, sizeof(*node->status.interfaces));
        for (int i = 0; i < 2; i++) {
                NetctlInterfaceStatus *s = node->status.interfaces + i;

                s->host_ifindex = 10 + i;
                s->bridge_ifindex = BRIDGE + i;
                (void) snprintf(s->host_ifname, sizeof(s->host_ifname), "veth%d", i);
        }
        repairs = repairs_that_fail = 0;
        return 0;
}

static int teardown(void **state)
{
        manager = manager_free(manager);
        close(told);
        return 0;
}

static void test_what_another_link_says_hides_nothing(void **state)
{
        events[0] = link_event(0, 0);
        events[1] = link_event(1, BRIDGE + 1);
        tell(2);
        wait_for_repairs(1);
}

static void test_a_repair_that_fails_is_tried_again(void **state)
{
        repairs_that_fail = 2;
        events[0] = (RouteEvent){.change = ROUTE_QUEUE, .ifindex = 10, .removed = true};
        tell(1);
        wait_for_repairs(3);
}

typedef enum Seen {
        SEEN_SAME,    /* as we left it */
        SEEN_RENAMED, /* the host side */
        SEEN_DOWN,
        SEEN_ELSEWHERE, /* at another bridge */
        SEEN_GONE,      /* removed, or in another namespace */
        SEEN_QUEUE,
        SEEN_IFB_SAME,
        SEEN_IFB_DOWN,
        SEEN_IFB_NOT_OURS, /* its alias was taken away */
        SEEN_IFB_GONE,
        SEEN_NEW,     /* a veth that we don't know: one that is late, perhaps */
        SEEN_CLEARED, /* somebody took a queue off an interface that we don't know */
        _SEEN_MAX,
} Seen;

static RouteEvent seen(Seen s)
{
        RouteEvent e = link_event(0, BRIDGE), ifb = e;

        ifb.link.ifindex = ifb.ifindex = TC_IFB_INDEX_BASE + e.ifindex;
        (void) snprintf(ifb.link.alias, sizeof(ifb.link.alias), "tbnode:%s:%u:up", ID, e.ifindex);
        switch (s) {
        case SEEN_RENAMED:
                (void) snprintf(e.link.name, sizeof(e.link.name), "other");
                return e;
        case SEEN_DOWN:
                e.link.flags = 0;
                return e;
        case SEEN_ELSEWHERE:
                e.link.master = 77;
                return e;
        case SEEN_GONE:
                e.change = ROUTE_LINK_GONE;
                return e;
        case SEEN_QUEUE:
                e.change = ROUTE_QUEUE;
                return e;
        case SEEN_IFB_DOWN:
                ifb.link.flags = 0;
                return ifb;
        case SEEN_IFB_NOT_OURS:
                ifb.link.alias[0] = 0;
                return ifb;
        case SEEN_IFB_GONE:
                ifb.change = ROUTE_LINK_GONE;
                return ifb;
        case SEEN_IFB_SAME:
                return ifb;
        case SEEN_NEW:
                e.ifindex = e.link.ifindex = 99;
                (void) snprintf(e.link.kind, sizeof(e.link.kind), "veth");
                return e;
        case SEEN_CLEARED:
                return (RouteEvent){.change = ROUTE_QUEUE, .ifindex = 99, .removed = true};
        case SEEN_SAME:
        case _SEEN_MAX:
                break;
        }
        return e;
}

/* What the kernel tells of a node's links, in each of its states. A node that is being worked on is described and written anyway. */
static void test_every_change_in_every_state(void **state)
{
        static const struct {
                NodeState state;
                int code;                     /* of FAILED */
                const char *repaired, *asked; /* letters: see below */
        } table[] = {
                {NODE_CREATED, 0, "", ""},
                {NODE_STARTING, 0, "", ""},
                {NODE_CONFIGURING, 0, "", ""},
                {NODE_CONFIGURED, 0, "rdeqDAG", "g"},
                {NODE_FAILED, -ENODEV, "",
                        "gGnc"}, /* tried again by what may have been missing or in the way, and by nothing else */
                {NODE_FAILED, -EEXIST, "", "gGnc"},
                {NODE_FAILED, -EINVAL, "", ""},
                {NODE_REMOVING, 0, "", ""},
                {NODE_STOPPED, 0, "", ""},
        };
        static const char letters[] = "srdegqSDAGnc";

        assert_int_equal(strlen(letters), _SEEN_MAX);
        manager->inspects = 1000; /* nobody answers */
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                for (Seen s = 0; s < _SEEN_MAX; s++) {
                        bool asked = strchr(table[i].asked, letters[s]),
                             repaired = strchr(table[i].repaired, letters[s]);

                        /* A failed node has no status: nothing is known of its links. */
                        node->has_status = table[i].state != NODE_FAILED;
                        node->state = table[i].state;
                        node->drift = 0;
                        node->error = tb_error_free(node->error);
                        node->has_facts = true;
                        if (table[i].code)
                                (void) tb_error_set(
                                        &node->error, TB_ERROR_ENVIRONMENT, table[i].code, "for the test");
                        repairs = 0;
                        link_watch_free(manager->link_watch);
                        assert_true(link_watch_new(manager, &manager->link_watch, NULL) >= 0);
                        events[0] = seen(s);
                        tell(1);
                        do
                                assert_true(sd_event_run(manager->event, 0) >= 0);
                        while (n_events > 0);
                        while (sd_event_run(manager->event, 25000) > 0)
                                ;
                        if (repairs != repaired || (node->state != table[i].state) != asked)
                                fail_msg("%c in %s (%d): %u repairs, then %s", letters[s],
                                        node_state_to_string(table[i].state), table[i].code, repairs,
                                        node_state_to_string(node->state));
                        if (asked)
                                assert_int_equal(node->state, NODE_STARTING);
                }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_what_another_link_says_hides_nothing, setup, teardown),
                cmocka_unit_test_setup_teardown(test_a_repair_that_fails_is_tried_again, setup, teardown),
                cmocka_unit_test_setup_teardown(test_every_change_in_every_state, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

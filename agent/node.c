/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/experiment.h"
#include "agent/gate.h"
#include "agent/link-watch.h"
#include "agent/log-node.h"
#include "agent/manager.h"
#include "agent/node-client.h"
#include "agent/node-dir.h"
#include "agent/node.h"
#include "agent/outside-ssh.h"
#include "agent/reconcile.h"
#include "agent/state-file.h"
#include "agent/tmcd-server.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

#define RETRY_FIRST_USEC UINT64_C(500000)
#define RETRY_MAX_USEC UINT64_C(60000000)

static uint64_t realtime_us(void)
{
        struct timespec ts;

        (void) clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
}

void node_status_done(NetctlNodeStatus *s)
{
        netctl_node_status_done(s);
}

/* Everything that belongs to one run of the container. */
static void node_forget_run(Node *n)
{
        manager_inspect_cancel(n->manager, n);
        node_client_run_ended(n);
        container_facts_done(&n->facts);
        n->has_facts = false;
        n->identity = (ProcessIdentity){};
        n->netns_fd = tb_close(n->netns_fd);
        n->nsid = -1;
        node_status_done(&n->status);
        n->has_status = false;
        link_watch_stale(n->manager);
        n->configured_us = 0;
}

int node_new(Manager *m, const char *id, const char *name, const json_t *labels, Node **ret, TbError **err)
{
        Node *n;
        int r;

        n = calloc(1, sizeof(*n));
        if (!n)
                return tb_error_oom(err);
        n->manager = m;
        n->netns_fd = -EBADF;
        n->nsid = -1;
        n->since_us = realtime_us();
        memcpy(n->id, id, CONTAINER_ID_LEN + 1);
        n->name = strdup(name);
        if (!n->name) {
                node_free(n);
                return tb_error_oom(err);
        }
        r = node_labels_parse(labels, &n->labels, &n->label_error);
        if (r >= 0)
                r = node_check_labels(n, &n->label_error);
        if (r == -ENOMEM) {
                node_free(n);
                return tb_error_oom(err);
        }
        r = state_file_restore(m, n, err);
        if (r >= 0)
                r = manager_add(m, n, err);
        if (r < 0) {
                node_free(n);
                return r;
        }
        if (n->n_overrides > 0)
                shape_timer_arm(m);
        if (ret)
                *ret = n;
        return 0;
}

Node *node_free(Node *n)
{
        if (!n)
                return NULL;
        gate_node_gone(n);
        outside_ssh_stop(n);
        manager_remove(n->manager, n);
        experiment_changed(n->manager);
        n->client = node_client_free(n->client); /* before the run is forgotten: it may go on without us */
        node_forget_run(n);
        sd_event_source_disable_unref(n->retry);
        node_labels_done(&n->labels);
        tb_error_free(n->label_error);
        tb_error_free(n->error);
        for (size_t i = 0; i < n->n_overrides; i++)
                shape_override_done(&n->overrides[i]);
        free(n->overrides);
        parsed_shapes_done(n->parsed, n->n_parsed);
        free(n->firewall_override);
        free(n->ssh_keys_override);
        free(n->name);
        free(n->key);
        free(n);
        return NULL;
}

const char *node_display_name(const Node *n)
{
        return n->labels.node ?: n->name;
}

bool node_is_running(const Node *n)
{
        return n->state == NODE_STARTING || n->state == NODE_CONFIGURING || n->state == NODE_CONFIGURED ||
                (n->state == NODE_FAILED && n->has_facts && n->facts.running);
}

bool node_check_ready(const Node *n, const char **ret_missing)
{
        const char *missing = NULL;

        if (n->state != NODE_CONFIGURING)
                missing = "its state is not configuring";
        else if (n->label_error)
                missing = "its labels are bad";
        else if (!n->has_facts)
                missing = "the engine has not described it yet";
        else if (!n->facts.running)
                missing = "it does not run";
        else if (n->identity.pid == 0)
                missing = "its process is not known";
        else if (n->netns_fd < 0)
                missing = "its network namespace is not open";
        else if (n->needs_removal)
                missing = "what its last run left is still in the kernel";
        if (missing)
                *ret_missing = missing;
        return !missing;
}

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
        Node *n = userdata;

        n->retry = sd_event_source_disable_unref(n->retry);
        node_event(n, NODE_EVENT_RETRY, NULL);
        return 0;
}

static void node_schedule_retry(Node *n)
{
        uint64_t delay = RETRY_FIRST_USEC;

        for (unsigned i = 0; i < n->failures && delay < RETRY_MAX_USEC; i++)
                delay *= 2;
        n->failures++;
        n->retry = sd_event_source_disable_unref(n->retry);
        if (sd_event_add_time_relative(n->manager->event, &n->retry, CLOCK_MONOTONIC,
                    MIN2(delay, RETRY_MAX_USEC), 0, on_retry, n) < 0)
                return; /* out of descriptors or memory: the next event of the container is the next try */
        (void) sd_event_source_set_description(n->retry, "node-retry");
}

/* Want of something that others give back is nobody's fault, whoever met it and whatever he made of it. */
static bool passes_by_itself(const TbError *e)
{
        static const int codes[] = {
                EMFILE, ENFILE, ENOMEM, ENOBUFS, ENOSPC, EDQUOT, EAGAIN, EINTR, ETIMEDOUT};

        for (size_t i = 0; e && i < ELEMENTSOF(codes); i++)
                if (e->code == -codes[i])
                        return true;
        return false;
}

/* The only place where the state changes. */
static void node_set_state(Node *n, NodeState state, const TbError *cause)
{
        NodeState old = n->state;

        n->error = tb_error_free(n->error);
        if (state == NODE_FAILED)
                n->error = tb_error_copy(cause);
        if (passes_by_itself(n->error))
                tb_error_set_retryable(&n->error);
        if (state != old) {
                n->state = state;
                n->since_us = realtime_us();
        }
        if (state == NODE_FAILED)
                log_node_error(n, n->error, "%s -> failed: %s", node_state_to_string(old),
                        tb_error_message(n->error));
        else if (state != old)
                log_node(n, state == NODE_CONFIGURED || state == NODE_STOPPED ? LOG_INFO : LOG_DEBUG,
                        "%s -> %s", node_state_to_string(old), node_state_to_string(state));
}

/* What a new state means for the rest of the world. */
static void node_enter(Node *n, NodeState state)
{
        switch (state) {
        case NODE_STARTING:
                n->retry = sd_event_source_disable_unref(n->retry);
                if (n->event_us == 0)
                        n->event_us = tb_now_us();
                if (n->gate)
                        gate_describe(n->gate);
                else
                        manager_inspect(n->manager, n);
                break;
        case NODE_CONFIGURING:
                reconcile_schedule(n->manager);
                break;
        case NODE_CONFIGURED:
                n->failures = 0;
                if (n->event_us) {
                        n->configured_us = tb_now_us() - n->event_us;
                        histogram_add(&n->manager->stats.configure, n->configured_us * 1000);
                        n->event_us = 0;
                }
                break;
        case NODE_FAILED:
                n->event_us = 0;
                if (n->error && n->error->retryable)
                        node_schedule_retry(n);
                break;
        case NODE_REMOVING:
                n->retry = sd_event_source_disable_unref(n->retry);
                n->failures = 0;
                n->event_us = 0;
                n->needs_removal = true;
                node_forget_run(n);
                reconcile_schedule(n->manager);
                break;
        case NODE_CREATED:
        case NODE_STOPPED:
        case _NODE_STATE_MAX:
        case _NODE_STATE_INVALID:
                break;
        }
}

void node_event(Node *n, NodeEvent e, const TbError *cause)
{
        NodeState old = n->state, next = node_state_next(n->state, e);

        if (next < 0) {
                log_node(n, LOG_DEBUG, "event %s means nothing in state %s", node_event_to_string(e),
                        node_state_to_string(n->state));
                return;
        }
        /* A container whose labels are bad is never configured, and says so from the moment it is seen. */
        if (n->label_error && (next == NODE_STARTING || next == NODE_CONFIGURING)) {
                next = NODE_FAILED;
                cause = n->label_error;
        }
        node_set_state(n, next, cause);
        node_enter(n, next);
        manager_node_changed(n->manager, n, old);
        if (n->destroyed && next == NODE_STOPPED)
                node_free(n);
}

/* Same process, seen again: keep the namespace that is open. */
static int node_open_process(Node *n, TbError **err)
{
        ProcessIdentity identity;
        char path[48];
        int fd, r;

        r = process_identity_read(n->facts.pid, &identity, err);
        if (r < 0)
                return r;
        if (n->netns_fd >= 0 && process_identity_equal(&identity, &n->identity))
                return 0;
        (void) snprintf(path, sizeof(path), "/proc/%d/ns/net", (int) identity.pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, errno == ENOENT ? -ESRCH : -errno,
                        "cannot open the network namespace of process %d", (int) identity.pid);
        /* Its last run ended unheard of (the engine was killed), and the engine may have left that run's interfaces in the kernel. */
        if (n->identity.pid != 0)
                n->needs_removal = true;
        tb_close(n->netns_fd);
        n->netns_fd = fd;
        n->nsid = -1;
        n->identity = identity;
        node_client_run_began(n);
        return 0;
}

void node_take_facts(Node *n, ContainerFacts *facts)
{
        _cleanup_error_ TbError *err = NULL;
        char *name;
        int r;

        container_facts_done(&n->facts);
        n->facts = *facts;
        *facts = (ContainerFacts){};
        n->has_facts = true;
        name = strdup(n->facts.name);
        if (name) { /* containers can be renamed */
                free(n->name);
                n->name = name;
        }
        node_dir_take(n, n->facts.node_dir);
        node_client_open(n);
        tmcd_server_look(n->manager->tmcd, n);
        if (!n->facts.running || n->facts.pid == 0) {
                node_event(n, NODE_EVENT_NOT_RUNNING, NULL);
                return;
        }
        r = node_open_process(n, &err);
        if (r == -ESRCH) /* it died a moment ago: its `die` is on the way */
                node_event(n, NODE_EVENT_NOT_RUNNING, NULL);
        else if (r < 0)
                node_event(n, NODE_EVENT_FAIL, err);
        else {
                experiment_changed(n->manager);
                node_event(n, NODE_EVENT_FACTS, NULL);
        }
}

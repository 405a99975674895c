/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "agent/access.h"
#include "agent/api.h"
#include "agent/augment-job.h"
#include "agent/barrier.h"
#include "agent/config-reload.h"
#include "agent/control-interface.h"
#include "agent/docker-events.h"
#include "agent/exec-session.h"
#include "agent/experiment.h"
#include "agent/firewall-watch.h"
#include "agent/fw-watch.h"
#include "agent/gate.h"
#include "agent/images.h"
#include "agent/key-volumes.h"
#include "agent/link-check.h"
#include "agent/link-watch.h"
#include "agent/log-node.h"
#include "agent/manager.h"
#include "agent/memory.h"
#include "agent/message.h"
#include "agent/metrics.h"
#include "agent/node-firewall.h"
#include "agent/outside-ssh.h"
#include "agent/reconcile.h"
#include "agent/run-unfinished.h"
#include "agent/run.h"
#include "agent/snapshot-sweep.h"
#include "agent/snapshot.h"
#include "agent/state-file.h"
#include "agent/tmcd-server.h"
#include "agent/usage.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"

/* The engine answers each in about a millisecond; more at a time only fill its queue. */
#define INSPECTS_MAX 16U
#define ID_PREFIX_MIN 4U

int manager_new(Config *config, Manager **ret, TbError **err)
{
        Manager *m;
        struct timespec ts;
        int r;

        m = calloc(1, sizeof(*m));
        if (!m)
                return tb_error_oom(err);
        m->lock_fd = -EBADF;
        m->config = *config;
        m->site = m->config.site; /* its rules stay the configuration's */
        *config = (Config){};
        (void) clock_gettime(CLOCK_REALTIME, &ts);
        m->started_us = (uint64_t) ts.tv_sec * 1000000 + (uint64_t) ts.tv_nsec / 1000;
        r = event_log_new(&m->log, err);
        if (r >= 0)
                r = barriers_new(&m->barriers, err);
        if (r < 0) {
                manager_free(m);
                return r;
        }
        event_log_set_owner(m->log, access_event_owner, m);
        *ret = m;
        return 0;
}

Manager *manager_free(Manager *m)
{
        if (!m)
                return NULL;
        m->api = api_free(m->api);
        m->metrics = metrics_listener_free(m->metrics);
        link_check_stop(m);
        m->gate = gate_free(m->gate);
        for (size_t i = 0; i < m->n_nodes; i++)
                outside_ssh_stop(m->nodes[i]); /* its sessions are among the next */
        exec_session_free_all(m);
        key_volumes_stop(m);
        snapshot_sweep_stop(m);
        run_sweep_stop(m);
        control_interface_stop(m);
        while (m->snapshots)
                snapshot_free(m->snapshots);
        while (m->runs)
                run_job_free(m->runs);
        while (m->images)
                images_job_free(m->images);
        m->usage = usage_free(m->usage);
        m->jobs = job_queue_free(m->jobs);
        registry_sessions_drop(m);
        m->docker = docker_events_free(m->docker);
        while (m->n_nodes > 0)
                node_free(m->nodes[m->n_nodes - 1]);
        free(m->nodes);
        m->tmcd = tmcd_server_free(m->tmcd);
        m->firewall_watch = firewall_watch_free(m->firewall_watch);
        firewall_groups_done(m);
        barriers_free(m->barriers);
        sd_event_source_disable_unref(m->experiment_check);
        fw_watch_stop(m);
        m->link_watch = link_watch_free(m->link_watch);
        sd_event_source_disable_unref(m->batch);
        sd_event_source_disable_unref(m->batch_retry);
        sd_event_source_disable_unref(m->lock_retry);
        sd_event_source_disable_unref(m->shape_timer);
        memory_stop(m);
        tb_strv_free(m->packet_networks);
        netctl_free(m->netctl);
        tb_engine_free(m->engine);
        tb_http_free(m->http);
        event_log_free(m->log);
        sd_event_unref(m->event);
        json_decref(m->saved_nodes);
        tb_close(m->lock_fd);
        config_done(&m->config);
        free(m);
        return NULL;
}

/* Position of id, or where it would go. */
static size_t nodes_search(const Manager *m, const char *id, bool *ret_found)
{
        size_t lo = 0, hi = m->n_nodes;

        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;
                int c = strcmp(m->nodes[mid]->id, id);

                if (c == 0) {
                        *ret_found = true;
                        return mid;
                }
                if (c < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        *ret_found = false;
        return lo;
}

Node *manager_find(const Manager *m, const char *id)
{
        bool found;
        size_t i = nodes_search(m, id, &found);

        return found ? m->nodes[i] : NULL;
}

int manager_add(Manager *m, Node *n, TbError **err)
{
        bool found;
        size_t i = nodes_search(m, n->id, &found);

        if (found)
                return tb_error_set(err, TB_ERROR_BUG, -EEXIST, "node %.12s is there already", n->id);
        if (m->n_nodes >= m->config.nodes_max)
                return tb_error_set(err, TB_ERROR_RESOURCE, -EUSERS,
                        "this host has %zu nodes already; raise nodes-max in the configuration", m->n_nodes);
        if (m->n_nodes == m->nodes_allocated) {
                size_t want = m->nodes_allocated ? m->nodes_allocated * 2 : 64;
                Node **grown = reallocarray(m->nodes, want, sizeof(*grown));

                if (!grown)
                        return tb_error_oom(err);
                m->nodes = grown;
                m->nodes_allocated = want;
        }
        memmove(m->nodes + i + 1, m->nodes + i, (m->n_nodes - i) * sizeof(*m->nodes));
        m->nodes[i] = n;
        m->n_nodes++;
        usage_touch(m->usage);
        return 0;
}

void manager_remove(Manager *m, const Node *n)
{
        bool found;
        size_t i = nodes_search(m, n->id, &found);

        if (!found || m->nodes[i] != n)
                return;
        memmove(m->nodes + i, m->nodes + i + 1, (m->n_nodes - i - 1) * sizeof(*m->nodes));
        m->n_nodes--;
        link_watch_stale(m);
}

static bool node_is_called(const Node *n, const char *name)
{
        const char *rest;

        if (tb_streq(n->name, name) || tb_streq(node_display_name(n), name) || tb_streq(n->id, name))
                return true;
        rest = n->labels.experiment ? tb_startswith(name, n->labels.experiment) : NULL;
        return rest && (rest[0] == '.' || rest[0] == '/') && tb_streq(rest + 1, node_display_name(n));
}

int manager_lookup(const Manager *m, const char *name, bool (*may)(const Node *n, const void *userdata),
        const void *userdata, Node **ret, TbError **err)
{
        _cleanup_free_ char *shown = NULL;
        Node *exact = NULL, *prefix = NULL;
        size_t n_exact = 0, n_prefix = 0;
        bool hex = strlen(name) >= ID_PREFIX_MIN && strspn(name, "0123456789abcdef") == strlen(name);

        for (size_t i = 0; i < m->n_nodes; i++) {
                if (may && !may(m->nodes[i], userdata))
                        continue;
                if (node_is_called(m->nodes[i], name)) {
                        exact = m->nodes[i];
                        n_exact++;
                } else if (hex && tb_startswith(m->nodes[i]->id, name)) {
                        prefix = m->nodes[i];
                        n_prefix++;
                }
        }
        if (n_exact == 0) {
                exact = prefix;
                n_exact = n_prefix;
        }
        if (n_exact == 1) {
                *ret = exact;
                return 0;
        }
        shown = tb_escape(name, 80);
        if (n_exact == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "there is no node '%s'; `tbnode ps` lists them", shown ?: "");
        return tb_error_set(err, TB_ERROR_CONFIG, -ENOTUNIQ,
                "%zu nodes are called '%s'; write EXPERIMENT.NODE, the container's name or its id", n_exact,
                shown ?: "");
}

void manager_node_changed(Manager *m, Node *n, NodeState old)
{
        if (n->state != old || n->state == NODE_FAILED) {
                json_t *j = json_pack("{s:s, s:s, s:s, s:s}", "node", node_display_name(n), "id", n->id,
                        "from", node_state_to_string(old), "to", node_state_to_string(n->state));

                if (j && n->labels.experiment)
                        (void) json_object_set_new(j, "experiment", json_string(n->labels.experiment));
                if (j && n->error)
                        (void) json_object_set_new(j, "reason", json_string(tb_error_message(n->error)));
                if (j && n->state == NODE_CONFIGURED)
                        (void) json_object_set_new(j, "us", json_integer((json_int_t) n->configured_us));
                event_log_add(m->log, "node-state", j);
        }
        if (n->state == NODE_CONFIGURED && old != NODE_CONFIGURED)
                link_check_configured(m);
        outside_ssh_update(n); /* who waits for the node finds its port open */
        gate_node_changed(n);
        run_node_changed(m, n);
        experiment_changed(m);
        memory_touch(m);
}

/* ---- Inspecting ---------------------------------------------------------------------------------------------- */

static void inspect_pump(Manager *m);

static void check_synced(Manager *m)
{
        _cleanup_error_ TbError *err = NULL;
        unsigned long removed = 0;

        if (m->synced || m->inspects > 0)
                return;
        for (size_t i = 0; i < m->n_nodes; i++)
                if (m->nodes[i]->want_inspect || m->nodes[i]->inspect)
                        return;
        m->synced = true;
        if (reconcile_sweep(m, &removed, &err) < 0)
                log_message(LOG_ERR, MESSAGE_REMOVAL_FAILED,
                        "cannot look for leftovers of nodes that are gone: %s", tb_error_message(err));
        else if (removed > 0)
                log_message(LOG_NOTICE, MESSAGE_LEFTOVERS_REMOVED,
                        "removed %lu leftover(s) of nodes that ended while no agent was running", removed);
        reconcile_schedule(m);
        experiment_changed(m);
}

static void on_inspect(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        _cleanup_container_facts_ ContainerFacts facts = {};
        _cleanup_error_ TbError *bad = NULL;
        Node *n = userdata;
        Manager *m = n->manager;

        n->inspect = NULL;
        m->inspects--;
        if (n->want_inspect)
                ; /* something happened since it was asked: the answer may be old */
        else if (status == 404)
                node_event(n, NODE_EVENT_NOT_RUNNING, NULL);
        else if (err)
                node_event(n, NODE_EVENT_FAIL, err);
        else if (container_facts_parse(body, &facts, &bad) < 0)
                node_event(n, NODE_EVENT_FAIL, bad);
        else
                node_take_facts(n, &facts);
        tb_engine_request_free(r);
        inspect_pump(m);
}

static void inspect_start(Manager *m, Node *n)
{
        _cleanup_error_ TbError *err = NULL;
        char path[CONTAINER_ID_LEN + 32];

        n->want_inspect = false;
        (void) snprintf(path, sizeof(path), "/containers/%s/json", n->id);
        if (tb_engine_call(m->engine,
                    &(TbEngineCall){.method = "GET", .path = path, .done = on_inspect, .userdata = n},
                    &n->inspect, &err) < 0) {
                node_event(n, NODE_EVENT_FAIL, err);
                return;
        }
        m->inspects++;
}

static void inspect_pump(Manager *m)
{
        for (size_t i = 0; i < m->n_nodes && m->inspects < INSPECTS_MAX; i++)
                if (m->nodes[i]->want_inspect && !m->nodes[i]->inspect)
                        inspect_start(m, m->nodes[i]);
        check_synced(m);
}

void manager_inspect(Manager *m, Node *n)
{
        n->want_inspect = true;
        if (!n->inspect && m->inspects < INSPECTS_MAX)
                inspect_start(m, n);
}

void manager_inspect_cancel(Manager *m, Node *n)
{
        n->want_inspect = false;
        if (!n->inspect)
                return;
        n->inspect = tb_engine_request_free(n->inspect);
        m->inspects--;
}

void manager_listed(Manager *m)
{
        if (!m->synced)
                state_file_forget_missing(m);
        inspect_pump(m);
        key_volumes_sweep(m);
        snapshot_sweep(m);
        run_sweep(m);
        control_interface_check(m);
        manager_update_status(m);
        memory_touch(m);
}

/* ---- Status -------------------------------------------------------------------------------------------------- */

void manager_update_status(Manager *m)
{
        size_t n[_NODE_STATE_MAX] = {};
        const TbError *engine = docker_events_error(m->docker);

        for (size_t i = 0; i < m->n_nodes; i++)
                n[m->nodes[i]->state]++;
        /* READY: the host is in the declared state, or it is known that nothing can be done before Docker is there. */
        if (!m->ready && (m->synced || engine)) {
                m->ready = true;
                m->ready_us = tb_now_us() - m->ready_us;
                log_message(LOG_INFO, MESSAGE_READY, "ready: %zu node(s), %lu kernel write(s), %lu us",
                        m->n_nodes, (unsigned long) m->stats.kernel_writes, (unsigned long) m->ready_us);
                (void) sd_notify(0, "READY=1");
        }
        if (!m->nodes_known && m->ready && (m->synced || engine)) {
                m->nodes_known = m->synced;
                api_nodes_known(m->api);
        }
        if (engine)
                (void) sd_notifyf(0, "STATUS=Waiting for Docker: %s", tb_error_message(engine));
        else
                (void) sd_notifyf(0, "STATUS=%zu nodes: %zu configured, %zu failed", m->n_nodes,
                        n[NODE_CONFIGURED], n[NODE_FAILED]);
}

/* ---- Life ---------------------------------------------------------------------------------------------------- */

/* The lock file outlives its holder; only the flock(2) counts. It names the holder for the message. */
static int manager_lock(Manager *m, TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("%s/tbnoded.lock", m->config.run_dir);
        char pid[32];
        ssize_t n;
        int r;

        if (!path)
                return tb_error_oom(err);
        r = tb_mkdir_p(m->config.run_dir, 0755, err);
        if (r < 0)
                return r;
        m->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (m->lock_fd < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot open %s", path);
        if (flock(m->lock_fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno != EWOULDBLOCK)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot lock %s", path);
                n = read(m->lock_fd, pid, sizeof(pid) - 1);
                pid[n > 0 ? strcspn(pid, "\n") : 0] = 0;
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EALREADY,
                        "tbnoded is already running%s%s (lock %s); stop it first, e.g. systemctl stop "
                        "tbnoded",
                        pid[0] ? " as process " : "", pid, path);
        }
        n = snprintf(pid, sizeof(pid), "%d\n", (int) getpid());
        if (ftruncate(m->lock_fd, 0) < 0 || pwrite(m->lock_fd, pid, (size_t) n, 0) != n)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write %s", path);
        return 0;
}

static int on_reload(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
        config_reload(userdata);
        return 0;
}

static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
        log_message(LOG_INFO, MESSAGE_STOPPING, "stopping: nodes keep their shaping and rules");
        (void) sd_notify(0, "STOPPING=1");
        return sd_event_exit(sd_event_source_get_event(s), EXIT_SUCCESS);
}

static int manager_setup_loop(Manager *m, TbError **err)
{
        static const int signals[] = {SIGTERM, SIGINT};
        sigset_t mask;
        int r;

        r = sd_event_new(&m->event);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot make an event loop");
        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                (void) sigaddset(&mask, signals[i]);
        (void) sigaddset(&mask, SIGHUP);
        (void) sigaddset(&mask, SIGCHLD); /* sd_event_add_child() wants it blocked */
        if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot block signals");
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                r = sd_event_add_signal(m->event, NULL, signals[i], on_signal, m);
                if (r < 0)
                        return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot wait for signals");
        }
        r = sd_event_add_signal(m->event, NULL, SIGHUP, on_reload, m);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot wait for SIGHUP");
        (void) signal(SIGPIPE, SIG_IGN);
        (void) sd_event_set_watchdog(m->event, true);
        return 0;
}

/* A node has up to 32 connections, and there may be a thousand nodes; the usual soft limit is for select(2), which nobody here
 * uses. */
static void raise_descriptors(void)
{
        struct rlimit l;

        if (getrlimit(RLIMIT_NOFILE, &l) >= 0 && l.rlim_cur < l.rlim_max) {
                l.rlim_cur = l.rlim_max;
                if (setrlimit(RLIMIT_NOFILE, &l) < 0)
                        log_debug("cannot raise the limit of descriptors: %s", strerror(errno));
        }
}

static int manager_setup(Manager *m, TbError **err)
{
        int r;

        r = manager_lock(m, err);
        if (r < 0)
                return r;
        r = manager_setup_loop(m, err);
        if (r < 0)
                return r;
        raise_descriptors();
        r = state_file_load(m, err);
        if (r < 0)
                return r;
        r = netctl_new(
                &(NetctlOptions){
                        .enable_bridge_nf = true,
                        .try_lock = true,
                        .site = &m->site,
                        .distributions = m->config.distributions,
                        .firewall =
                                netctl_firewall_from_string(agent_firewall_to_string(m->config.firewall)),
                        .managed_bridges = m->config.managed_bridges,
                },
                &m->netctl, err);
        if (r < 0)
                return r;
        r = fw_watch_start(m, err);
        if (r < 0)
                return r;
        r = link_watch_new(m, &m->link_watch, err);
        if (r < 0)
                return r;
        r = tb_http_new(m->event, &m->http, err);
        if (r < 0)
                return r;
        r = tb_engine_new(m->http, m->config.docker, &m->engine, err);
        if (r < 0)
                return r;
        r = docker_events_new(m, &m->docker, err);
        if (r < 0)
                return r;
        r = usage_new(m, &m->usage, err);
        if (r < 0)
                return r;
        r = job_queue_new(m, &m->jobs, err);
        if (r < 0)
                return r;
        r = gate_new(m, &m->gate, err);
        if (r < 0)
                return r;
        r = tmcd_server_new(m, &m->tmcd, err);
        if (r < 0)
                return r;
        r = metrics_listener_new(m, &m->metrics, err);
        if (r < 0)
                return r;
        return api_new(m, &m->api, err);
}

int manager_run(Manager *m, TbError **err)
{
        int r;

        m->ready_us = tb_now_us();
        if (geteuid() != 0)
                return tb_error_set(err, TB_ERROR_ENVIRONMENT, -EPERM,
                        "tbnoded must run as root: it changes traffic control and firewall of this host");
        r = manager_setup(m, err);
        if (r < 0)
                return r;
        r = docker_events_start(m->docker, err);
        if (r < 0)
                return r;
        r = sd_event_loop(m->event);
        if (r < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "the event loop failed");
        if (r > 0)
                return tb_error_set(err, TB_ERROR_RESOURCE, -ENOMEM, "the event loop ended early");
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/control-interface.h"
#include "agent/docker-events.h"
#include "agent/experiment.h"
#include "agent/key-volumes.h"
#include "agent/log-node.h"
#include "agent/message.h"
#include "agent/node-dir.h"
#include "agent/reconcile.h"
#include "agent/run-unfinished.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/strv.h"
#include "common/units.h"

#define BACKOFF_FIRST_USEC UINT64_C(100000)
#define BACKOFF_MAX_USEC UINT64_C(5000000)

struct DockerEvents {
        Manager *manager;
        TbEngineRequest *stream;
        TbEngineRequest *list;
        TbEngineRequest *info;
        sd_event_source *timer;
        uint64_t backoff_usec;
        uint64_t since_ns; /* CLOCK_REALTIME: events from here on are not known yet */
        uint64_t list_us;  /* CLOCK_MONOTONIC: when the list was asked for */
        bool connected;
        TbError *error;
};

static void disconnect(DockerEvents *d, const TbError *cause);

int docker_events_new(Manager *m, DockerEvents **ret, TbError **err)
{
        DockerEvents *d = calloc(1, sizeof(*d));

        if (!d)
                return tb_error_oom(err);
        d->manager = m;
        d->backoff_usec = BACKOFF_FIRST_USEC;
        *ret = d;
        return 0;
}

DockerEvents *docker_events_free(DockerEvents *d)
{
        if (!d)
                return NULL;
        sd_event_source_disable_unref(d->timer);
        tb_engine_request_free(d->stream);
        tb_engine_request_free(d->list);
        tb_engine_request_free(d->info);
        tb_error_free(d->error);
        free(d);
        return NULL;
}

bool docker_events_is_connected(const DockerEvents *d)
{
        return d->connected;
}

const TbError *docker_events_error(const DockerEvents *d)
{
        return d->error;
}

int docker_events_find_or_add(
        Manager *m, const char *id, const char *name, const json_t *labels, Node **ret, TbError **err)
{
        Node *n = manager_find(m, id);
        int r;

        *ret = n;
        if (n || !node_labels_is_managed(labels))
                return 0;
        r = node_new(m, id, name, labels, &n, err);
        if (r < 0)
                return r;
        if (run_uses_dir(m, n->name)) {
                _cleanup_free_ char *dir = node_dir_path(m, n->name);

                node_dir_take(n, dir);
        }
        *ret = n;
        return 0;
}

/* NULL: not ours, or out of memory (said). */
static Node *find_or_add(DockerEvents *d, const char *id, const char *name, const json_t *labels)
{
        _cleanup_error_ TbError *err = NULL;
        Node *n;

        if (docker_events_find_or_add(d->manager, id, name, labels, &n, &err) < 0)
                log_message(LOG_ERR, MESSAGE_NODE_FAILED, "cannot take care of container %.12s: %s", id,
                        tb_error_message(err));
        return n;
}

/* The container is gone for good. */
static void forget(Node *n)
{
        n->destroyed = true;
        node_dir_remove(n);
        if ((n->state == NODE_CREATED || n->state == NODE_STOPPED) && !n->needs_removal) {
                node_free(n);
                return;
        }
        if (n->state != NODE_REMOVING && n->state != NODE_STOPPED)
                node_event(n, NODE_EVENT_DIE, NULL);
        else
                reconcile_schedule(n->manager);
}

/* A replayed `die` of an earlier run must not undo the present one. */
static bool still_alive(const Node *n)
{
        return !process_identity_is_over(&n->identity);
}

/* These say whether it runs, and so know better than a list that was asked for before. */
static void on_life(
        DockerEvents *d, const char *action, const char *id, const char *name, const json_t *labels)
{
        Node *n = find_or_add(d, id, name, labels);

        if (!n)
                return;
        n->touched_us = tb_now_us();
        if (tb_streq(action, "create")) {
                if (n->label_error)
                        node_event(n, NODE_EVENT_FAIL, n->label_error);
                return;
        }
        if (tb_streq(action, "destroy")) {
                forget(n);
                key_volumes_sweep(d->manager);
                return;
        }
        n->event_us = n->touched_us;
        if (tb_streq(action, "start"))
                node_event(n, NODE_EVENT_START, NULL);
        else if (n->gate)
                n->needs_removal = true; /* its former run; the next one waits at the gate already */
        else
                node_event(n, still_alive(n) ? NODE_EVENT_CHANGED : NODE_EVENT_DIE, NULL);
}

static void rename_node(Node *n, const char *name)
{
        char *copy = strdup(name);

        if (!copy)
                return; /* the next description of the container has the name as well */
        free(n->name);
        n->name = copy;
        experiment_changed(n->manager); /* others may know it by this name */
}

/* What changes nothing that is declared is told to whoever follows the events, if it says something about the node. */
static void tell(const Node *n, const char *event, const char *status)
{
        json_t *j = json_pack("{s:s, s:s}", "node", node_display_name(n), "id", n->id);

        if (j && n->labels.experiment)
                (void) json_object_set_new(j, "experiment", json_string(n->labels.experiment));
        if (j && status)
                (void) json_object_set_new(j, "status", json_string(status));
        event_log_add(n->manager->log, event, j);
}

static void on_container(DockerEvents *d, const char *action, const char *id, const json_t *attributes)
{
        const char *name = NULL, *health;
        Node *n;

        if (tb_json_get_string(attributes, "name", &name, NULL) <= 0)
                name = id;
        if (tb_streq(action, "create") || tb_streq(action, "start") || tb_streq(action, "die") ||
                tb_streq(action, "destroy")) {
                on_life(d, action, id, name, attributes);
                return;
        }
        n = manager_find(d->manager, id);
        if (!n)
                return; /* the list is about to show it */
        health = tb_startswith(action, "health_status: ");
        if (health)
                tell(n, "node-health", health);
        else if (tb_streq(action, "pause"))
                tell(n, "node-paused", NULL);
        else if (tb_streq(action, "unpause"))
                tell(n, "node-unpaused", NULL);
        else if (tb_streq(action, "oom")) {
                log_node(n, LOG_WARNING,
                        "the kernel killed a process of it for want of memory; raise its limit");
                tell(n, "node-oom", NULL);
        } else if (tb_streq(action, "rename")) {
                rename_node(n, name);
                tell(n, "node-renamed", NULL);
        }
}

static void on_network(DockerEvents *d, const char *action, const json_t *attributes)
{
        const char *id = NULL, *name = NULL;
        Node *n;

        if (tb_streq(action, "destroy") && tb_json_get_string(attributes, "name", &name, NULL) > 0)
                control_interface_network_gone(d->manager, name);
        if (!tb_streq(action, "connect") && !tb_streq(action, "disconnect"))
                return;
        if (tb_json_get_string(attributes, "container", &id, NULL) <= 0 || !container_id_is_valid(id))
                return;
        n = manager_find(d->manager, id);
        /* A stopped container is looked at when it starts. (Docker also sends these around start and die.) */
        if (!n || !node_is_running(n))
                return;
        n->touched_us = tb_now_us();
        if (tb_streq(action, "disconnect"))
                n->manager->want_sweep = true; /* its veth is gone, our ifb behind it is not */
        if (n->event_us == 0)
                n->event_us = n->touched_us;
        node_event(n, NODE_EVENT_CHANGED, NULL);
}

/* One that a run asked for, which was cut short since? */
static void on_made(DockerEvents *d, const char *action, const json_t *attributes)
{
        const char *number = NULL;

        if (tb_streq(action, "create") && tb_json_get_string(attributes, RUN_LABEL, &number, NULL) > 0)
                run_sweep_created(d->manager, number);
}

void docker_events_take(DockerEvents *d, const json_t *event)
{
        const char *type = NULL, *action = NULL, *id = NULL;
        json_t *actor = NULL, *attributes = NULL;
        uint64_t time_ns = 0;

        if (tb_json_get_string(event, "Type", &type, NULL) <= 0 ||
                tb_json_get_string(event, "Action", &action, NULL) <= 0 ||
                tb_json_get_object(event, "Actor", &actor, NULL) <= 0 ||
                tb_json_get_string(actor, "ID", &id, NULL) <= 0 ||
                tb_json_get_object(actor, "Attributes", &attributes, NULL) < 0) {
                log_debug("the engine sent an event that is none");
                return;
        }
        d->manager->stats.events++;
        if (tb_json_get_u64(event, "timeNano", &time_ns, NULL) > 0 && time_ns >= d->since_ns)
                d->since_ns = time_ns + 1;
        if (tb_streq(type, "container") && container_id_is_valid(id)) {
                on_container(d, action, id, attributes);
                on_made(d, action, attributes);
        } else if (tb_streq(type, "network"))
                on_network(d, action, attributes);
}

static int on_line(TbEngineRequest *r, const json_t *line, void *userdata, TbError **err)
{
        docker_events_take(userdata, line);
        return 0;
}

static void on_stream_done(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        DockerEvents *d = userdata;
        _cleanup_error_ TbError *ended = NULL;

        if (!err)
                (void) tb_error_set(
                        &ended, TB_ERROR_REMOTE, -ECONNRESET, "the Docker engine ended its event stream");
        else if (err->code == -EMSGSIZE)
                d->since_ns = 0; /* not the same oversized event again */
        disconnect(d, err ?: ended);
}

static void take_listed(DockerEvents *d, const json_t *c)
{
        const char *id = NULL, *state = NULL, *name;
        json_t *labels = NULL, *names = NULL, *mounts = NULL;
        bool known, running;
        Node *n;

        if (tb_json_get_string(c, "Id", &id, NULL) <= 0 || !container_id_is_valid(id) ||
                tb_json_get_object(c, "Labels", &labels, NULL) <= 0 ||
                tb_json_get_string(c, "State", &state, NULL) <= 0)
                return;
        name = tb_json_get_array(c, "Names", &names, NULL) > 0 ? json_string_value(json_array_get(names, 0))
                                                               : NULL;
        known = manager_find(d->manager, id) != NULL;
        n = find_or_add(d, id, name ? name + (name[0] == '/') : id, labels);
        if (!n)
                return;
        n->listed_us = d->list_us;
        if (tb_json_get_array(c, "Mounts", &mounts, NULL) > 0)
                node_dir_take(n, container_mount_source(mounts, NODE_DIR_TARGET));
        if (n->gate || (known && n->touched_us >= d->list_us))
                return; /* an event knows better, and of one that is about to start the gate */
        running = tb_streq(state, "running") || tb_streq(state, "paused");
        if (running)
                node_event(n, NODE_EVENT_START, NULL);
        else if (!known) {
                if (!tb_streq(state, "created"))
                        n->state = NODE_STOPPED;
                if (n->label_error)
                        node_event(n, NODE_EVENT_FAIL, n->label_error);
        } else if (n->state != NODE_CREATED && n->state != NODE_STOPPED && !tb_streq(state, "created"))
                node_event(n, NODE_EVENT_NOT_RUNNING, NULL);
}

void docker_events_take_list(DockerEvents *d, const json_t *list)
{
        Manager *m = d->manager;
        const json_t *c;
        size_t i;

        json_array_foreach ((json_t *) list, i, c)
                take_listed(d, c);
        for (i = m->n_nodes; i-- > 0;) {
                Node *n = m->nodes[i];

                if (n->listed_us != d->list_us && n->touched_us < d->list_us)
                        forget(n);
        }
        if (m->event) /* not when a list is only tried out */
                node_dir_sweep(m, list);
}

static void on_list_done(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        DockerEvents *d = userdata;
        _cleanup_error_ TbError *bad = NULL;

        d->list = NULL;
        if (!err && !json_is_array(body))
                (void) tb_error_set(
                        &bad, TB_ERROR_REMOTE, -EPROTO, "the Docker engine's list of containers is no list");
        if (err || bad) {
                disconnect(d, err ?: bad);
                tb_engine_request_free(r);
                return;
        }
        d->backoff_usec = BACKOFF_FIRST_USEC;
        docker_events_take_list(d, body);
        tb_engine_request_free(r);
        manager_listed(d->manager);
}

/* Does `tbnode run` have a start gate to ask for? */
static void on_info(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        DockerEvents *d = userdata;

        d->info = NULL;
        if (!err)
                d->manager->engine_has_gate =
                        json_object_get(json_object_get(body, "Runtimes"), GATE_RUNTIME) != NULL;
        tb_engine_request_free(r);
}

static uint64_t realtime_ns(void)
{
        struct timespec ts;

        (void) clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

static int subscribe(DockerEvents *d, TbError **err)
{
        _cleanup_free_ char *path = NULL, *filters = NULL;
        uint64_t now = realtime_ns();
        int r;

        /* A clock that was set back would hide events that are still to come. */
        if (d->since_ns == 0 || d->since_ns > now)
                d->since_ns = now;
        filters = tb_engine_escape("{\"type\":[\"container\",\"network\"]}");
        if (!filters)
                return tb_error_oom(err);
        path = tb_asprintf("/events?since=%lu.%09lu&filters=%s", (unsigned long) (d->since_ns / 1000000000),
                (unsigned long) (d->since_ns % 1000000000), filters);
        if (!path)
                return tb_error_oom(err);
        r = tb_engine_call(d->manager->engine,
                &(TbEngineCall){
                        .method = "GET",
                        .path = path,
                        .line = on_line,
                        .done = on_stream_done,
                        .userdata = d,
                },
                &d->stream, err);
        if (r < 0)
                return r;
        r = tb_engine_call(d->manager->engine,
                &(TbEngineCall){.method = "GET", .path = "/info", .done = on_info, .userdata = d}, &d->info,
                err);
        if (r < 0)
                return r;
        d->list_us = tb_now_us();
        return tb_engine_call(d->manager->engine,
                &(TbEngineCall){
                        .method = "GET",
                        .path = "/containers/json?all=1",
                        .done = on_list_done,
                        .userdata = d,
                },
                &d->list, err);
}

static void on_connected(TbEngine *e, const TbError *cause, void *userdata)
{
        DockerEvents *d = userdata;
        _cleanup_error_ TbError *err = NULL;

        if (cause || subscribe(d, &err) < 0) {
                disconnect(d, cause ?: err);
                return;
        }
        d->connected = true;
        d->error = tb_error_free(d->error);
        d->manager->stats.engine_connects++;
        log_message(LOG_INFO, MESSAGE_ENGINE_FOUND, "following Docker engine %s (API %s) at %s",
                tb_engine_version(e), tb_engine_api_version(e), tb_engine_endpoint(e));
        event_log_add(
                d->manager->log, "engine-connected", json_pack("{s:s}", "version", tb_engine_version(e)));
        manager_update_status(d->manager);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        DockerEvents *d = userdata;
        _cleanup_error_ TbError *err = NULL;

        d->timer = sd_event_source_disable_unref(d->timer);
        if (tb_engine_connect(d->manager->engine, on_connected, d, &err) < 0)
                disconnect(d, err);
        return 0;
}

/* From wherever it fails: one message when the reason is new, and another try later. */
static void disconnect(DockerEvents *d, const TbError *cause)
{
        bool news = d->connected || !d->error || !tb_streq(d->error->message, tb_error_message(cause));

        if (news) {
                log_message(LOG_WARNING, MESSAGE_ENGINE_LOST, "%s; trying again until it answers",
                        tb_error_message(cause));
                event_log_add(d->manager->log, "engine-lost",
                        json_pack("{s:s}", "reason", tb_error_message(cause)));
        }
        tb_error_free(d->error);
        d->error = tb_error_copy(cause);
        d->connected = false;
        /* `cause` may live in the stream: it is used no more. */
        d->stream = tb_engine_request_free(d->stream);
        d->list = tb_engine_request_free(d->list);
        d->info = tb_engine_request_free(d->info);
        tb_engine_connect_cancel(d->manager->engine);
        manager_update_status(d->manager);

        d->timer = sd_event_source_disable_unref(d->timer);
        if (sd_event_add_time_relative(d->manager->event, &d->timer, CLOCK_MONOTONIC, d->backoff_usec,
                    d->backoff_usec / 10, on_timer, d) < 0) {
                log_error("cannot set a timer to connect to the Docker engine again: giving up");
                (void) sd_event_exit(d->manager->event, EXIT_FAILURE);
                return;
        }
        (void) sd_event_source_set_description(d->timer, "engine-reconnect");
        d->backoff_usec = MIN2(d->backoff_usec * 2, BACKOFF_MAX_USEC);
}

int docker_events_start(DockerEvents *d, TbError **err)
{
        return tb_engine_connect(d->manager->engine, on_connected, d, err);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/node-client.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/declaration-file.h"
#include "agent/declaration.h"
#include "agent/experiment.h"
#include "agent/log-node.h"
#include "agent/node-dir.h"
#include "agent/node-report.h"
#include "agent/node-socket.h"
#include "agent/route.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

#define RUN_FILE_VERSION 1
#define RUN_FILE_MAX (256U * 1024)
#define SAVE_PAUSE_USEC UINT64_C(1000000)

const char *node_client_key(const Node *n)
{
        return n->key ?: n->id;
}

static uint64_t realtime_ms(void)
{
        struct timespec ts;

        (void) clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}

/* ---- What was reported, over a restart of the agent -------------------------------------------------------------- */

static char *run_file(const Manager *m, const char *key)
{
        return tb_asprintf("%s/clients/%s.json", m->config.run_dir, key);
}

static int write_run_file(const NodeClient *c, TbError **err)
{
        const Manager *m = c->node->manager;
        _cleanup_free_ char *path = run_file(m, c->key), *dir = tb_asprintf("%s/clients", m->config.run_dir),
                            *text = NULL;
        _cleanup_json_ json_t *j = NULL;
        size_t size;
        int r;

        j = json_pack("{s:i, s:I, s:I, s:I, s:O}", "version", RUN_FILE_VERSION, "run",
                (json_int_t) c->run_start_time, "generation", (json_int_t) c->generation, "fingerprint",
                (json_int_t) c->fingerprint, "status", c->status);
        if (!path || !dir || !j)
                return tb_error_oom(err);
        r = tb_json_dump(j, false, &text, &size, err);
        if (r >= 0)
                r = tb_mkdir_p(dir, 0700, err);
        return r < 0 ? r : tb_file_write_atomic(path, text, size, 0600, err);
}

static void save_now(NodeClient *c)
{
        _cleanup_error_ TbError *err = NULL;

        if (write_run_file(c, &err) < 0)
                log_node(c->node, LOG_WARNING, "cannot keep what its client reported: %s",
                        tb_error_message(err));
}

static int on_save(sd_event_source *s, uint64_t usec, void *userdata)
{
        NodeClient *c = userdata;

        c->save = sd_event_source_disable_unref(c->save);
        save_now(c);
        return 0;
}

/* A node that reports all the time costs a write a second, not one each. */
void node_client_save(NodeClient *c)
{
        if (c->save || !c->node->manager->event)
                return;
        if (sd_event_add_time_relative(c->node->manager->event, &c->save, CLOCK_MONOTONIC, SAVE_PAUSE_USEC,
                    SAVE_PAUSE_USEC / 4, on_save, c) < 0)
                save_now(c);
}

/* What is broken here is only what a client will report again. */
static void load_run_file(NodeClient *c)
{
        _cleanup_free_ char *path = run_file(c->node->manager, c->key);
        _cleanup_json_ json_t *j = NULL;
        uint64_t version = 0, run = 0, generation = 0, fingerprint = 0;
        json_t *status = NULL;

        if (!path || tb_json_load_file(path, RUN_FILE_MAX, &j, NULL) < 0 ||
                tb_json_get_u64(j, "version", &version, NULL) <= 0 || version != RUN_FILE_VERSION ||
                tb_json_get_u64(j, "run", &run, NULL) <= 0 ||
                tb_json_get_u64(j, "generation", &generation, NULL) <= 0 ||
                tb_json_get_u64(j, "fingerprint", &fingerprint, NULL) <= 0 ||
                tb_json_get_object(j, "status", &status, NULL) <= 0)
                return;
        json_decref(c->status);
        c->status = json_incref(status);
        c->run_start_time = run;
        c->generation = generation;
        c->fingerprint = fingerprint;
}

/* ---- Life -------------------------------------------------------------------------------------------------------- */

void node_client_open(Node *n)
{
        _cleanup_error_ TbError *err = NULL;
        NodeClient *c;

        if (n->client)
                return;
        c = calloc(1, sizeof(*c));
        if (!c)
                return; /* the next look at the container is the next try */
        c->node = n;
        c->key = strdup(node_client_key(n));
        c->status = json_object();
        if (!c->key || !c->status) {
                node_client_free(c);
                return;
        }
        n->client = c;
        load_run_file(c);
        if (c->generation == 0)
                c->generation = realtime_ms();
        if (declaration_file_load(n->manager, c->key, &c->declaration, &c->error) < 0)
                log_node(n, LOG_ERR, "%s", tb_error_message(c->error));
        if (node_socket_new(n, &c->socket, &err) < 0)
                log_node(n, LOG_ERR, "it cannot reach its agent: %s", tb_error_message(err));
        if (n->identity.pid != 0)
                node_client_run_began(n);
}

NodeClient *node_client_free(NodeClient *c)
{
        if (!c)
                return NULL;
        if (c->save) {
                c->save = sd_event_source_disable_unref(c->save);
                if (!c->node->destroyed)
                        save_now(c);
        }
        node_socket_free(c->socket);
        node_report_tell(c, NULL, NULL);
        json_decref(c->declaration);
        json_decref(c->status);
        tb_error_free(c->error);
        tb_error_free(c->route_error);
        free(c->key);
        free(c);
        return NULL;
}

static void remove_files(const Manager *m, const char *key)
{
        _cleanup_free_ char *path = run_file(m, key);

        declaration_file_remove(m, key);
        if (path && unlink(path) < 0 && errno != ENOENT)
                log_warning("cannot remove %s: %s", path, strerror(errno));
}

void node_client_forget(Node *n)
{
        const char *key = node_client_key(n);

        if (n->client)
                n->client->save = sd_event_source_disable_unref(n->client->save);
        if (!n->key || !run_uses_dir(n->manager, key))
                remove_files(n->manager, key);
}

void node_client_run_began(Node *n)
{
        NodeClient *c = n->client;

        if (!c)
                return;
        if (c->run_start_time != n->identity.start_time) {
                c->run_start_time = n->identity.start_time;
                (void) json_object_clear(c->status);
                node_client_save(c);
        }
        node_socket_serve(c->socket, &n->identity);
}

void node_client_run_ended(Node *n)
{
        NodeClient *c = n->client;

        if (!c)
                return;
        node_socket_pause(c->socket);
        node_report_tell(c, NULL, NULL);
        if (n->destroyed)
                return;
        c->run_start_time = 0;
        (void) json_object_clear(c->status);
        c->route_error = tb_error_free(c->route_error);
        node_client_save(c);
}

typedef struct Sweep {
        const Manager *manager;
        const json_t *containers;
} Sweep;

static bool is_known(const char *key, const Sweep *s)
{
        const json_t *c;
        size_t i;

        if (run_uses_dir(s->manager, key) || node_dir_is_mounted(s->manager, s->containers, key))
                return true;
        json_array_foreach ((json_t *) s->containers, i, c)
                if (tb_streq(json_string_value(json_object_get(c, "Id")), key))
                        return true;
        return false;
}

/* NULL: nothing happens. */
static void sweep_dir(const char *path, const Sweep *s)
{
        _cleanup_closedir_ DIR *dir = path ? opendir(path) : NULL;

        if (!dir)
                return; /* nothing was ever kept here */
        for (const struct dirent *e; (e = readdir(dir));) {
                const char *end = tb_endswith(e->d_name, ".json");
                _cleanup_free_ char *key = end ? strndup(e->d_name, (size_t) (end - e->d_name)) : NULL;

                if (key && key[0] != '.' && !is_known(key, s) && unlinkat(dirfd(dir), e->d_name, 0) < 0)
                        log_warning("cannot remove %s/%s: %s", path, e->d_name, strerror(errno));
        }
}

void node_client_sweep(Manager *m, const json_t *containers)
{
        Sweep s = {.manager = m, .containers = containers};

        _cleanup_free_ char *declarations = declaration_file_dir(m);
        _cleanup_free_ char *clients = tb_asprintf("%s/clients", m->config.run_dir);

        sweep_dir(declarations, &s);
        sweep_dir(clients, &s);
}

int node_client_prepare(Manager *m, const char *key, const json_t *declaration, TbError **err)
{
        if (key[0] == 0)
                return 0;
        remove_files(m, key);
        return declaration ? declaration_file_save(m, key, declaration, err) : 0;
}

/* ---- Declaring ----------------------------------------------------------------------------------------------------- */

int node_client_apply_routes(Node *n, TbError **err)
{
        NodeClient *c = n->client;
        TbError *cause = NULL;
        bool known = c && c->route_error;
        int r;

        if (!c || n->netns_fd < 0)
                return 0;
        r = route_ensure_declared(n->netns_fd, json_object_get(c->declaration, "routes"), &cause);
        c->route_error = tb_error_free(c->route_error);
        if (r >= 0) {
                n->manager->stats.kernel_writes += (uint64_t) r;
                return 0;
        }
        c->route_error = tb_error_copy(cause);
        if (!known) {
                log_node(n, LOG_WARNING, "%s", tb_error_message(cause));
                node_report_event(n, "route-failed", json_pack("{s:s}", "reason", tb_error_message(cause)));
        }
        return tb_error_move(err, &cause);
}

/* Routes can be refused by the kernel and the file by the disk: then everything is as before. */
static int replace_declaration(Node *n, json_t *declaration, TbError **err)
{
        NodeClient *c = n->client;
        json_t *former = c->declaration;
        int r;

        c->declaration = declaration;
        r = node_client_apply_routes(n, err);
        if (r >= 0)
                r = declaration_file_save(n->manager, c->key, declaration, err);
        if (r >= 0) {
                json_decref(former);
                return 0;
        }
        c->declaration = former;
        json_decref(declaration);
        (void) node_client_apply_routes(n, NULL);
        return r;
}

int node_client_declare(Node *n, const json_t *declaration, TbError **err)
{
        NodeClient *c;
        json_t *copy;
        int r;

        node_client_open(n);
        c = n->client;
        copy = c ? json_deep_copy(declaration) : NULL;
        if (!copy)
                return tb_error_oom(err);
        if (!c->error && !declaration_same_mounts(c->declaration, declaration)) {
                json_decref(copy);
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "declaration: mounts: they are made with the container and can't be changed; "
                        "make the node anew with tbnode run --declare");
        }
        r = replace_declaration(n, copy, err);
        if (r < 0)
                return r;
        c->error = tb_error_free(c->error);
        node_report_forget_programs(n);
        node_client_changed(n);
        node_report_event(n, "declared", json_pack("{s:I}", "generation", (json_int_t) c->generation));
        return 0;
}

void node_client_changed(Node *n)
{
        NodeClient *c = n->client;

        if (!c)
                return;
        c->generation = MAX2(c->generation + 1, realtime_ms());
        node_client_save(c);
        (void) node_socket_event(c->socket,
                json_pack("{s:s, s:I}", "event", "changed", "generation", (json_int_t) c->generation), NULL);
}

/* ---- Answers ------------------------------------------------------------------------------------------------------- */

static bool set(json_t *j, const char *key, json_t *value)
{
        return json_object_set_new(j, key, value) >= 0;
}

json_t *node_client_view(const Node *n, bool root)
{
        const NodeClient *c = n->client;
        json_t *d = c ? c->declaration : NULL, *accounts = json_object_get(d, "accounts");
        _cleanup_json_ json_t *j = d ? json_copy(d) : json_object();

        if (!j || !set(j, "node", json_string(node_display_name(n))) ||
                !set(j, "experiment",
                        n->labels.experiment ? json_string(n->labels.experiment) : json_null()) ||
                !set(j, "hostname", json_string(node_display_name(n))) ||
                !set(j, "generation", json_integer(c ? (json_int_t) c->generation : 0)) ||
                !set(j, "interfaces", experiment_interfaces(n)) ||
                !set(j, "hosts", experiment_hosts(n, json_object_get(d, "hosts"))) ||
                (accounts && !root && !set(j, "accounts", declaration_public_accounts(accounts))))
                return NULL;
        return TAKE_PTR(j);
}

const char *node_client_state(const Node *n)
{
        return n->client ? json_string_value(json_object_get(n->client->status, "state")) : NULL;
}

bool node_client_is_attached(const Node *n)
{
        return n->client && node_socket_is_attached(n->client->socket);
}

json_t *node_client_status_to_json(const Node *n)
{
        static const char *const members[] = {"state", "reason", "emulab_state", "startup", "programs"};
        const NodeClient *c = n->client;
        _cleanup_json_ json_t *j = json_object();

        if (!j || !set(j, "attached", json_boolean(node_client_is_attached(n))) ||
                !set(j, "declared", json_boolean(c && c->declaration)) ||
                !set(j, "generation", c ? json_integer((json_int_t) c->generation) : json_null()) ||
                !set(j, "ready", json_boolean(c && json_is_true(json_object_get(c->status, "ready")))) ||
                !set(j, "error",
                        c && c->error                 ? json_string(tb_error_message(c->error))
                                : c && c->route_error ? json_string(tb_error_message(c->route_error))
                                                      : json_null()))
                return NULL;
        for (size_t i = 0; i < ELEMENTSOF(members); i++) {
                json_t *value = c ? json_object_get(c->status, members[i]) : NULL;

                if (!set(j, members[i], value ? json_deep_copy(value) : json_null()))
                        return NULL;
        }
        return TAKE_PTR(j);
}

/* ---- Orders -------------------------------------------------------------------------------------------------------- */

static const json_t *find_program(const Node *n, const char *name)
{
        const json_t *p;
        size_t i;

        json_array_foreach (json_object_get(n->client ? n->client->declaration : NULL, "programs"), i, p)
                if (tb_streq(json_string_value(json_object_get(p, "name")), name))
                        return p;
        return NULL;
}

static int order(Node *n, json_t *event, TbError **err)
{
        if (!n->client) {
                json_decref(event);
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -ENOTCONN, "node %s has no client", node_display_name(n));
        }
        return node_socket_event(n->client->socket, event, err);
}

int node_client_program(Node *n, const char *program, const char *action, unsigned signal, TbError **err)
{
        _cleanup_free_ char *shown = NULL;
        json_t *event;

        if (!tb_streq(action, "start") && !tb_streq(action, "stop") && !tb_streq(action, "kill"))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "the action is start, stop or kill");
        if (!find_program(n, program)) {
                shown = tb_escape(program, 64);
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "no program '%s' is declared for node %s; tbnode programs %s lists them",
                        shown ?: "", node_display_name(n), node_display_name(n));
        }
        event = json_pack("{s:s, s:s, s:s}", "event", "program", "name", program, "action", action);
        if (event && signal > 0 && !set(event, "signal", json_integer((json_int_t) signal))) {
                json_decref(event);
                event = NULL;
        }
        return event ? order(n, event, err) : tb_error_oom(err);
}

int node_client_startup(Node *n, TbError **err)
{
        if (!json_object_get(n->client ? n->client->declaration : NULL, "startup"))
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "no startup command is declared for node %s", node_display_name(n));
        return order(n, json_pack("{s:s}", "event", "startup"), err);
}

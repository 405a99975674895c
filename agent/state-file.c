/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/message.h"
#include "agent/node-firewall.h"
#include "agent/outside-ssh.h"
#include "agent/state-file.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"

#define STATE_MAX (64U * 1024 * 1024) /* thousands of rules at hundreds of interfaces */

static char *state_path(const Manager *m)
{
        return tb_asprintf("%s/state.json", m->config.state_dir);
}

/* What is in there makes no sense: it is kept, under another name. Consumes `cause`. */
static int put_aside(const char *path, TbError *cause, TbError **err)
{
        _cleanup_error_ TbError *why = cause;
        _cleanup_free_ char *aside = NULL;
        time_t now = time(NULL);
        struct tm t = {};
        char text[32] = "";

        if (gmtime_r(&now, &t))
                (void) strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &t);
        aside = tb_asprintf("%s.broken-%s", path, text);
        if (!aside)
                return tb_error_oom(err);
        if (rename(path, aside) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno,
                        "cannot use the saved state (%s), nor rename %s to %s; move it away",
                        tb_error_message(why), path, aside);
        log_message(LOG_ERR, MESSAGE_STATE_BROKEN,
                "the saved state is broken and was put aside as %s: %s; nodes are as their labels say, "
                "without "
                "what was set with 'tbnode shape', 'firewall' and 'keys' since",
                aside, tb_error_message(why));
        return 0;
}

static int check_version(const json_t *j, TbError **err)
{
        uint64_t version = 0;
        int r;

        r = tb_json_get_u64(j, "version", &version, err);
        if (r == 0 || (r > 0 && version == 0))
                return tb_error_set(err, TB_ERROR_CONFIG, -EBADMSG, "it has no version");
        if (r > 0 && version > STATE_VERSION)
                return tb_error_set(err, TB_ERROR_CONFIG, -EPROTONOSUPPORT,
                        "it was written by a newer tbnoded (version %llu, this one knows up to %d); install "
                        "that again, or move the file away to start without what was set in it",
                        (unsigned long long) version, STATE_VERSION);
        return r;
}

int state_file_load(Manager *m, TbError **err)
{
        _cleanup_free_ char *path = state_path(m), *text = NULL;
        _cleanup_json_ json_t *j = NULL;
        TbError *cause = NULL;
        json_t *nodes = NULL;
        size_t size = 0;
        int r;

        if (!path)
                return tb_error_oom(err);
        r = tb_file_read(path, STATE_MAX, &text, &size, &cause);
        if (r < 0 && r != -ENOENT) { /* not what is in it is wrong */
                (void) tb_error_prefix(&cause, "cannot read the saved state");
                return tb_error_move(err, &cause);
        }
        if (r >= 0) {
                r = tb_json_parse(text, size, STATE_MAX, path, &j, &cause);
                if (r >= 0)
                        r = check_version(j, &cause);
                if (r >= 0)
                        r = tb_json_get_object(j, "nodes", &nodes, &cause);
                if (r == -ENOMEM)
                        return tb_error_move(err, &cause);
                if (r == -EPROTONOSUPPORT) {
                        (void) tb_error_prefix(&cause, "cannot use the saved state in %s", path);
                        return tb_error_move(err, &cause);
                }
                if (r < 0) {
                        r = put_aside(path, TAKE_PTR(cause), err);
                        if (r < 0)
                                return r;
                        nodes = NULL;
                }
        }
        tb_error_free(cause);
        m->saved_nodes = nodes ? json_incref(nodes) : json_object();
        return m->saved_nodes ? 0 : tb_error_oom(err);
}

static int node_overrides_to_json(const Node *n, json_t *nodes, TbError **err)
{
        _cleanup_json_ json_t *j = NULL, *shapes = NULL;
        int r;

        if (n->n_overrides == 0 && !n->firewall_override && n->ssh_port == 0 && !n->ssh_keys_override)
                return 0;
        j = json_object();
        shapes = json_object();
        if (!j || !shapes)
                return tb_error_oom(err);
        for (size_t i = 0; i < n->n_overrides; i++) {
                json_t *o = NULL;

                r = shape_override_to_json(&n->overrides[i], &o, err);
                if (r < 0)
                        return r;
                if (json_object_set_new(shapes, n->overrides[i].network, o) < 0)
                        return tb_error_oom(err);
        }
        if (json_object_set(j, "shapes", shapes) < 0)
                return tb_error_oom(err);
        if (n->firewall_override) {
                r = tb_json_set_string(j, "firewall", n->firewall_override, err);
                if (r < 0)
                        return r;
        }
        if (n->ssh_port != 0) {
                r = tb_json_set_u64(j, "ssh_port", n->ssh_port, err);
                if (r < 0)
                        return r;
        }
        if (n->ssh_keys_override) {
                r = tb_json_set_string(j, "ssh_keys", n->ssh_keys_override, err);
                if (r < 0)
                        return r;
        }
        return json_object_set(nodes, n->id, j) < 0 ? tb_error_oom(err) : 0;
}

int state_file_save(Manager *m, TbError **err)
{
        _cleanup_free_ char *path = state_path(m), *text = NULL;
        _cleanup_json_ json_t *j = json_object(), *nodes = NULL;
        int r;

        if (!path || !j)
                return tb_error_oom(err);
        nodes = m->saved_nodes ? json_copy(m->saved_nodes) : json_object();
        if (!nodes)
                return tb_error_oom(err);
        for (size_t i = 0; i < m->n_nodes; i++) {
                r = node_overrides_to_json(m->nodes[i], nodes, err);
                if (r < 0)
                        return r;
        }
        r = tb_json_set_u64(j, "version", STATE_VERSION, err);
        if (r < 0)
                return r;
        if (json_object_set(j, "nodes", nodes) < 0)
                return tb_error_oom(err);
        r = tb_json_dump_pretty(j, &text, err);
        if (r < 0)
                return r;
        r = tb_mkdir_p(m->config.state_dir, 0755, err);
        if (r >= 0)
                r = tb_file_write_atomic(path, text, strlen(text), 0600, err);
        if (r < 0)
                (void) tb_error_prefix(err, "cannot save the state");
        return r;
}

int state_file_restore(Manager *m, Node *n, TbError **err)
{
        json_t *saved, *shapes = NULL, *value;
        const char *network, *firewall = NULL, *keys = NULL;
        uint64_t port = 0;
        TbError *cause = NULL;
        int r;

        saved = m->saved_nodes ? json_object_get(m->saved_nodes, n->id) : NULL;
        if (!saved)
                return 0;
        r = tb_json_get_object(saved, "shapes", &shapes, &cause);
        if (r > 0)
                json_object_foreach (shapes, network, value) {
                        r = node_override_from_json(n, network, value, &cause);
                        if (r < 0)
                                break;
                }
        if (r >= 0)
                r = tb_json_get_string(saved, "firewall", &firewall, &cause);
        if (r > 0) {
                r = node_set_firewall_override(n, firewall, &cause);
        }
        if (r >= 0)
                r = tb_json_get_u64(saved, "ssh_port", &port, &cause);
        if (r > 0)
                n->ssh_port = (uint16_t) MIN2(port, (uint64_t) UINT16_MAX);
        if (r >= 0)
                r = tb_json_get_string(saved, "ssh_keys", &keys, &cause);
        if (r > 0)
                r = node_set_ssh_keys_override(n, keys, &cause);
        if (r == -ENOMEM)
                return tb_error_move(err, &cause);
        if (r < 0) {
                (void) tb_error_prefix(&cause, "saved state");
                if (n->label_error)
                        tb_error_free(cause);
                else
                        n->label_error = cause;
        }
        (void) json_object_del(m->saved_nodes, n->id);
        return 0;
}

bool state_file_has_port(const Manager *m, uint16_t port)
{
        const char *id;
        json_t *saved;

        json_object_foreach (m->saved_nodes, id, saved)
                if (json_integer_value(json_object_get(saved, "ssh_port")) == port)
                        return true;
        return false;
}

void state_file_forget_missing(Manager *m)
{
        if (m->saved_nodes)
                (void) json_object_clear(m->saved_nodes);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/node-dir.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "agent/facts.h"
#include "agent/log-node.h"
#include "agent/node-client.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "common/strv.h"

#define NODES_DIR "nodes"

/* Docker's names have no slash and start with a letter or digit; nothing else gets near rm -rf. */
static bool key_is_valid(const char *key)
{
        return key && key[0] != 0 && key[0] != '.' && !strchr(key, '/');
}

char *node_dir_path(const Manager *m, const char *key)
{
        return tb_asprintf("%s/" NODES_DIR "/%s", m->config.state_dir, key);
}

int node_dir_make_parent(const Manager *m, TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("%s/" NODES_DIR, m->config.state_dir);
        int r;

        if (!path)
                return tb_error_oom(err);
        r = tb_mkdir_p(m->config.state_dir, 0755, err);
        return r < 0 ? r : tb_mkdir_p(path, 0711, err);
}

const char *node_dir_key(const Manager *m, const char *path)
{
        const char *rest = path ? tb_startswith(path, m->config.state_dir) : NULL;

        rest = rest ? tb_startswith(rest, "/" NODES_DIR "/") : NULL;
        return key_is_valid(rest) ? rest : NULL;
}

void node_dir_take(Node *n, const char *path)
{
        const Manager *m = n->manager;
        const char *key = node_dir_key(m, path);
        char *copy;

        if (n->key || !key)
                return;
        for (size_t i = 0; i < m->n_nodes; i++)
                if (tb_streq(m->nodes[i]->key, key)) {
                        log_node(n, LOG_WARNING,
                                "it mounts the directory of node %s, which stays that node's",
                                node_display_name(m->nodes[i]));
                        return;
                }
        copy = strdup(key);
        if (!copy)
                return;
        n->key = copy;
        node_client_open(n);
}

static void remove_dir(const Manager *m, const char *key)
{
        _cleanup_free_ char *dir = NULL;
        _cleanup_error_ TbError *err = NULL;

        if (!key_is_valid(key))
                return;
        dir = node_dir_path(m, key);
        if (dir && tb_rm_rf(dir, &err) < 0)
                log_warning("cannot remove %s: %s", dir, tb_error_message(err));
}

void node_dir_remove(Node *n)
{
        node_client_forget(n);
        if (n->key && !run_uses_dir(n->manager, n->key))
                remove_dir(n->manager, n->key);
}

/* ---- What nobody mounts ---------------------------------------------------------------------------------------- */

bool node_dir_is_mounted(const Manager *m, const json_t *containers, const char *key)
{
        const json_t *c;
        size_t i;

        json_array_foreach ((json_t *) containers, i, c) {
                const json_t *mounts = json_object_get(c, "Mounts"), *mount;
                size_t k;

                json_array_foreach ((json_t *) mounts, k, mount)
                        if (tb_streq(node_dir_key(m, json_string_value(json_object_get(mount, "Source"))),
                                    key))
                                return true;
        }
        return false;
}

void node_dir_sweep(Manager *m, const json_t *containers)
{
        _cleanup_free_ char *path = tb_asprintf("%s/" NODES_DIR, m->config.state_dir);
        _cleanup_closedir_ DIR *dir = path ? opendir(path) : NULL;
        unsigned removed = 0;

        node_client_sweep(m, containers);
        if (!dir)
                return; /* no node was ever made here */
        for (const struct dirent *e; (e = readdir(dir));) {
                if (!key_is_valid(e->d_name) || run_uses_dir(m, e->d_name) ||
                        node_dir_is_mounted(m, containers, e->d_name))
                        continue;
                remove_dir(m, e->d_name);
                removed++;
        }
        if (removed > 0)
                log_notice(
                        "removed %u director%s of nodes that are gone", removed, removed == 1 ? "y" : "ies");
}

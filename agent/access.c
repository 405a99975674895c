/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/access.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

/* NGROUPS_MAX is 65536; nobody has that many, and who does is an ordinary user here. */
#define GROUPS_MAX 1024U

static bool has_group(int fd, gid_t group)
{
        gid_t groups[GROUPS_MAX];
        socklen_t size = sizeof(groups);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
                return false;
        for (size_t i = 0; i < size / sizeof(*groups); i++)
                if (groups[i] == group)
                        return true;
        return false;
}

Caller access_caller(int fd, gid_t operators)
{
        struct ucred cred;
        socklen_t size = sizeof(cred);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
                return (Caller){.uid = (uid_t) -1};
        return (Caller){
                .uid = cred.uid,
                .is_operator = cred.uid == 0 ||
                        (operators != (gid_t) -1 && (cred.gid == operators || has_group(fd, operators))),
        };
}

bool access_experiment_owner(const Manager *m, const char *experiment, uid_t *ret)
{
        for (size_t i = 0; i < m->n_nodes; i++)
                if (m->nodes[i]->labels.has_owner && tb_streq(m->nodes[i]->labels.experiment, experiment)) {
                        *ret = m->nodes[i]->labels.owner;
                        return true;
                }
        for (size_t i = 0; i < m->n_nodes; i++)
                if (tb_streq(m->nodes[i]->labels.experiment, experiment)) {
                        *ret = 0;
                        return true;
                }
        return false;
}

uid_t access_owner(const Node *n)
{
        uid_t owner = 0;

        if (n->labels.has_owner)
                return n->labels.owner;
        /* A project that is called like somebody's experiment is not his. */
        if (n->labels.experiment && !n->labels.implied)
                (void) access_experiment_owner(n->manager, n->labels.experiment, &owner);
        return owner;
}

bool access_may(const Caller *c, const Node *n)
{
        return c->is_operator || (c->uid != (uid_t) -1 && access_owner(n) == c->uid);
}

static bool may(const Node *n, const void *userdata)
{
        return access_may(userdata, n);
}

int access_lookup(const Manager *m, const Caller *c, const char *name, Node **ret, TbError **err)
{
        TbError *cause = NULL;
        Node *other = NULL;
        int r;

        if (c->is_operator)
                return manager_lookup(m, name, NULL, NULL, ret, err);
        r = manager_lookup(m, name, may, c, ret, &cause);
        if (r != -ENOENT)
                return r < 0 ? tb_error_move(err, &cause) : r;
        r = manager_lookup(m, name, NULL, NULL, &other, NULL);
        if (r == -ENOENT)
                return tb_error_move(err, &cause);
        tb_error_free(cause);
        if (!other)
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "the nodes of that name belong to others, not to you (user %u)", c->uid);
        return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                "node %s belongs to user %u, not to you (user %u): only they, root and operators may use it",
                node_display_name(other), access_owner(other), c->uid);
}

int access_visible(const Manager *m, const Caller *c, Node ***ret, size_t *ret_n, TbError **err)
{
        Node **list = calloc(m->n_nodes + 1, sizeof(*list));
        size_t n = 0;

        if (!list)
                return tb_error_oom(err);
        for (size_t i = 0; i < m->n_nodes; i++)
                if (access_may(c, m->nodes[i]))
                        list[n++] = m->nodes[i];
        *ret = list;
        *ret_n = n;
        return 0;
}

static int check_network(const Manager *m, const Caller *c, const char *network, TbError **err)
{
        if (tb_streq(network, m->config.control_network))
                return 0;
        for (size_t i = 0; i < m->n_nodes; i++)
                if (container_facts_endpoint(&m->nodes[i]->facts, network) && !access_may(c, m->nodes[i]))
                        return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                                "network %s is used by a node of user %u; choose another name for yours",
                                network, access_owner(m->nodes[i]));
        return 0;
}

/* The engine knows no owners of volumes; so their names tell. */
static int check_volume(const Caller *c, const char *volume, TbError **err)
{
        _cleanup_free_ char *prefix = tb_asprintf("u%u-", c->uid), *shown = tb_escape(volume, 80);

        if (!prefix || !shown)
                return tb_error_oom(err);
        if (volume[0] == '/')
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "directories of the host are mounted for root and operators only; use a "
                        "named volume, %sNAME:/TARGET",
                        prefix);
        if (!tb_startswith(volume, prefix))
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "volume '%s' may be somebody else's: the names of your volumes begin with '%s'",
                        shown, prefix);
        return 0;
}

int access_check_run(const Manager *m, const Caller *c, const RunSpec *s, TbError **err)
{
        uid_t owner;

        if (c->is_operator)
                return 0;
        if (s->experiment && access_experiment_owner(m, s->experiment, &owner) && owner != c->uid)
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "experiment %s belongs to user %u, not to you (user %u); choose another name",
                        s->experiment, owner, c->uid);
        for (char **v = s->volumes; v && *v; v++) {
                int r = check_volume(c, *v, err);

                if (r < 0)
                        return r;
        }
        if (json_array_size(json_object_get(s->declare, "mounts")) > 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EACCES,
                        "directories of the host are mounted for root and operators only: declare no "
                        "mounts");
        for (char **name = s->networks; name && *name; name++) {
                int r = check_network(m, c, *name, err);

                if (r < 0)
                        return r;
        }
        return 0;
}

uid_t access_event_owner(const json_t *fields, void *manager)
{
        const char *id = json_string_value(json_object_get(fields, "id"));
        const Node *n = id ? manager_find(manager, id) : NULL;

        if (n)
                return access_owner(n);
        /* About nodes, but not about one: of root's concern, like one that is gone. */
        if (id || json_object_get(fields, "node") || json_object_get(fields, "nodes") ||
                json_object_get(fields, "from"))
                return 0;
        return EVENT_FOR_ALL;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "agent/manager.h"
#include "agent/run-spec.h"
#include "common/error.h"

/*
 * Who may see and change which node
 *
 * A node belongs to a user: the one whom its label tbnode.owner names (`tbnode run` writes it), else the one to whom
 * another node of its experiment belongs (not for a compose project that happens to have its name), else root. Root and the members of the operators' group (operators-group) may do
 * everything; any other user who can open the API's socket sees and changes what is his own, and nothing else: nodes of
 * others are refused when he names them and left out where all are listed. He may not use an experiment, or a network,
 * where nodes of others are, and no directories of the host, which would be as good as root.
 *
 * Who calls is told by the kernel (SO_PEERCRED, SO_PEERGROUPS; unix(7)): user and groups of the process that connected.
 * No name service is asked, so a directory server that hangs does not hang the agent.
 */
typedef struct Caller {
        uid_t uid;
        bool is_operator; /* root, or in the operators' group */
} Caller;

/* Who is behind a connected unix socket; when the kernel does not say, nobody at all (no owner, no operator). */
Caller access_caller(int fd, gid_t operators);

/* The user to whom a node belongs. */
uid_t access_owner(const Node *n);
/* The user to whom an experiment belongs; false: there is nobody yet. */
bool access_experiment_owner(const Manager *m, const char *experiment, uid_t *ret);

bool access_may(const Caller *c, const Node *n);
/* manager_lookup() among the nodes that the caller may use. -EACCES when only others have a node of that name. */
int access_lookup(const Manager *m, const Caller *c, const char *name, Node **ret, TbError **err)
        _warn_unused_;
/* Those of all nodes that the caller may see: the caller frees *ret (the array only). */
int access_visible(const Manager *m, const Caller *c, Node ***ret, size_t *ret_n, TbError **err)
        _warn_unused_;

/* May he make this node? -EACCES with what is in the way. */
int access_check_run(const Manager *m, const Caller *c, const RunSpec *s, TbError **err) _warn_unused_;

/* The owner of an event, for event-log.h: of the node that its fields are about. */
uid_t access_event_owner(const json_t *fields, void *manager);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

/*
 * The labels of a container that make it a node (design.md 4.2)
 *
 *         tbnode.shape             SPEC for every experiment interface
 *         tbnode.shape.<network>   SPEC for the interface on that Docker network; wins over the former
 *         tbnode.firewall          STYLE or STYLE; RULES (netctl/fw.h)
 *         tbnode.tmcd              yes | no: may the node reach the host's TMCD port (with an experiment: yes)
 *         tbnode.experiment, tbnode.node     names
 *         tbnode.on-exit           stay | stop | restart
 *         tbnode.owner             number of the user to whom it belongs (agent/access.h)
 *         tbnode.ssh-keys          public keys, one a line, that may log in by ssh from outside (agent/outside-ssh.h)
 *
 * Containers of docker-compose have its labels, too: what the former do not say is taken from these. The experiment is the project
 * (implied: it gives nobody's rights), the node SERVICE-NUMBER; a tbnode.node that a compose file gives to a service is the name of
 * its first container, of the others NAME-NUMBER. So the containers of a service that is scaled have names of their own.
 *
 * Any label that starts with "tbnode." makes the container a node, also one that is not known: that is an error of the
 * node (a misspelt shape must not go unnoticed). Containers without such a label are never touched. (Augmented images
 * carry labels of their own, which their containers inherit: org.tbnode.*, so these do not count.)
 */

#define LABELS_NETWORKS_MAX 64U /* tbnode.shape.<network> labels of one container */
#define LABEL_VALUE_MAX 1024U   /* bytes of a value of ours */
#define LABEL_SHAPE_MAX 16384U  /* ... of a shape, which may have hundreds of rules */
#define LABEL_KEYS_MAX 16384U   /* ... of ssh keys */
#define LABEL_NAME_MAX 63U      /* of experiment and node: a host name label (RFC 1123, 2.1) */

typedef enum NodeOnExit {
        NODE_ON_EXIT_STAY,    /* the node stays up when its main program has ended */
        NODE_ON_EXIT_STOP,    /* the container ends with its main program */
        NODE_ON_EXIT_RESTART, /* the main program is started again */
        _NODE_ON_EXIT_MAX,
        _NODE_ON_EXIT_INVALID = -EINVAL,
} NodeOnExit;

const char *node_on_exit_to_string(NodeOnExit v);
NodeOnExit node_on_exit_from_string(const char *s);

typedef struct NetworkShape {
        char *network; /* NULL = all experiment networks */
        char *spec;
} NetworkShape;

typedef struct NodeLabels {
        char *experiment; /* NULL = none */
        char *project;    /* of compose; NULL = none */
        bool implied;     /* the experiment: it is a compose project, and no label of ours says so */
        char *node;       /* NULL = the container's name */
        char *firewall;   /* style as written; NULL = none given */
        int tmcd;         /* yes 1, no 0, not said -1 */
        NodeOnExit on_exit;
        bool has_owner;
        uint32_t owner;
        char *ssh_keys; /* NULL = none: its ssh is its own */
        NetworkShape *shapes;
        size_t n_shapes;
} NodeLabels;

void node_labels_done(NodeLabels *l);
#define _cleanup_node_labels_ _cleanup_(node_labels_done)

/* Whether the container of these labels (a JSON object, Docker's Config.Labels or an event's Actor.Attributes) is
 * ours. Never fails: what is no object is not ours. */
bool node_labels_is_managed(const json_t *labels);

/* Reads the labels. The first bad one is an error of kind CONFIG that names label and value. SPECs and the
 * style are kept as text: netctl reads them. */
int node_labels_parse(const json_t *labels, NodeLabels *ret, TbError **err) _warn_unused_;

/* Keys as tbnode.ssh-keys has them, which are not nothing: -EINVAL, kind CONFIG. */
int node_labels_check_keys(const char *value, TbError **err) _warn_unused_;

/* The SPEC for a network: the network's own, also by the name that a compose file has for it (without PROJECT_), else the common
 * one, else NULL. */
const char *node_labels_shape(const NodeLabels *l, const char *network);

/* A letter or digit first, then letters, digits, '-', '_', '.'; at most 63": -EINVAL. `what` for messages. */
int node_name_check(const char *what, const char *name, TbError **err) _warn_unused_;

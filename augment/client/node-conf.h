/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* /tbnode/run/node.conf: what the agent says about this node. README.md lists the keys. */

#include <errno.h>
#include <stdint.h>

#include "augment/client/macro.h"

/* What becomes of the node when main has ended. */
typedef enum OnExit {
        ON_EXIT_STAY,    /* it stays up, for ssh */
        ON_EXIT_STOP,    /* the container ends with main's status */
        ON_EXIT_RESTART, /* runit starts main again */
        _ON_EXIT_MAX,
        _ON_EXIT_INVALID = -EINVAL,
} OnExit;

/* Whether main's HOME is the container's own: the engine computed it for root, who starts the node. */
typedef enum KeepHome {
        KEEP_HOME_UNSET, /* not said: as the image's command line has it */
        KEEP_HOME_NO,
        KEEP_HOME_YES,
} KeepHome;

#define NODE_NAME_MAX 255

typedef struct NodeConf {
        OnExit on_exit;
        uint32_t ssh_port;
        KeepHome keep_home;
        char user[NODE_NAME_MAX + 1]; /* "" = not said */
        char node[NODE_NAME_MAX + 1];
        char experiment[NODE_NAME_MAX + 1];
} NodeConf;

/* Parses the text. A bad line is reported (say) and left out: a node that can be reached is better than
 * none. Only a user that is too long is kept, cut: nobody has that name, so main does not start as somebody else. */
void node_conf_parse(const char *text, NodeConf *ret);

/* Reads the file: 1 there is one, 0 there is none. A file that can't be read counts, with the defaults. */
int node_conf_load(const char *path, NodeConf *ret);

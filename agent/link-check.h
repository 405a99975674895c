/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/manager.h"
#include "common/error.h"

/*
 * What experiment links really do, measured by the host and shown beside what is declared: `tbnode shape check`, and with
 * check-links in the configuration once after nodes were configured.
 *
 * A link is two configured nodes on one network, and each direction is measured by itself: what the one end sends passes its
 * "up", then the other's "down". A short train of small packets tells delay and loss; a second one, which fills the link for a
 * second or so, tells the rate. Packets are sent and received by sockets of ours in the nodes' network namespaces
 * (netctl/link-probe.h): nothing has to run in the nodes.
 *
 * Measuring takes seconds, so a forked child does all of it, one direction after the other (two at once would disturb each other),
 * and reports each by one fixed record through a pipe. It dies with its parent, and with link_check_free().
 */

/* At a time, of all callers: each keeps a core busy while it measures rates. */
#define LINK_CHECKS_MAX 2U
/* Directions of one check. */
#define LINK_CHECK_DIRECTIONS_MAX 256U

typedef struct LinkCheck LinkCheck;

typedef struct LinkCheckOptions {
        const Node *
                node; /* only links of this node; NULL: each node with the next on its networks, in a ring */
        const char *network; /* only this network; NULL: all but the control network */
        bool rate;           /* also with the train that fills the link */

        /* One direction was measured. `link` is borrowed; its members are in docs/reference.md. */
        void (*link)(const json_t *link, void *userdata);
        /* The end; `err` NULL: all were measured. Not called after link_check_free(). The check frees itself afterwards. */
        void (*done)(size_t measured, const TbError *err, void *userdata);
        void *userdata;
} LinkCheckOptions;

/* -ENOENT: there is nothing to measure, in the message why; -EBUSY (retryable): LINK_CHECKS_MAX are running. */
int link_check_start(Manager *m, const LinkCheckOptions *options, LinkCheck **ret, TbError **err)
        _warn_unused_;
/* Ends it and its child at once. */
LinkCheck *link_check_free(LinkCheck *c);

/* A node has reached CONFIGURED: measures its links once things are quiet, when the configuration says so. */
void link_check_configured(Manager *m);
/* Frees what the manager keeps for it. */
void link_check_stop(Manager *m);

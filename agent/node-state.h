/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <errno.h>

/*
 * The life of a node, as a pure table: state x event -> state. Everything that has effects (asking the engine, writing
 * to the kernel, logging) hangs on node_set_state() in node.c; this file only says what may follow what, so that a test
 * can go through every event in every state.
 *
 *                  START           FACTS            APPLIED
 *     CREATED ------------> STARTING ----> CONFIGURING ----> CONFIGURED
 *                              ^  ^------------|  CHANGED        |
 *                              |  ^------------------------------|
 *                              | RETRY, CHANGED
 *                           FAILED <------ FAIL (from any running state)
 *
 *     any state -- DIE / NOT_RUNNING --> REMOVING -- REMOVED --> STOPPED -- START --> STARTING
 *
 * Where the events come from. What is not listed is no event for a node: it changes nothing that is declared.
 *
 *     engine   create                          none: the node is made. FAIL when its labels are bad
 *              start                           START
 *              die                             DIE; CHANGED when the process that we know lives (an old `die`, told again);
 *                                              none while it is held at the gate, which has the next run
 *              destroy                         DIE, and the node is freed when nothing of it is left
 *              network connect, disconnect     CHANGED while it runs
 *              rename                          none: it is shown under its new name (and `experiment` hears of it)
 *              pause, unpause                  none: a paused container keeps what it has in the kernel
 *              stop, kill, oom, health, exec   none: when it ends of that, a `die` follows
 *              its description                 FACTS, NOT_RUNNING (also: a process that is gone), FAIL (no answer: retryable)
 *              list, after a new connection    START when it runs, NOT_RUNNING when not; DIE when it is in no list any more
 *     gate     request                         START; the description is read from the namespace: FACTS
 *              the container's runtime hangs up, 30 s are over: none for the node, the answer is all that is missing
 *     kernel   batch: written and read back    APPLIED, REMOVED, FAIL; CHANGED when the container went away meanwhile
 *     netlink  veth appears late               RETRY (the node is FAILED by then, for want of it)
 *              veth gone, in another namespace CHANGED: the engine says what there is now; what is missing makes it FAIL
 *              veth renamed, down, off its bridge; queues changed: none when it could be repaired (link-watch.h), else FAIL
 *              messages lost                   all are looked at, as if each had been changed
 *     API      shape, firewall                 none: written and read back within the request, or refused
 *              stop, start, rm                 none: they go to the engine, whose events follow
 *     timer    back-off of a retryable FAILED  RETRY: 0.5 s, doubled up to a minute
 *
 * What is in the kernel is NOT told by the state alone: a node that ran carries `needs_removal` from the moment it
 * died until netctl removed its objects, whatever events come in between (a restart is die, start).
 */

typedef enum NodeState {
        NODE_CREATED,     /* the container exists and has not run since we know it */
        NODE_STARTING,    /* it runs; the engine is being asked for pid, networks and addresses */
        NODE_CONFIGURING, /* all is known; the next batch writes it to the kernel */
        NODE_CONFIGURED,  /* the kernel has what is declared; it was read back */
        NODE_FAILED,      /* it cannot be configured; the reason is kept and shown */
        NODE_REMOVING,    /* it ended; the next batch takes its objects out of the kernel */
        NODE_STOPPED,     /* it does not run and the kernel has nothing of it */
        _NODE_STATE_MAX,
        _NODE_STATE_INVALID = -EINVAL,
} NodeState;

typedef enum NodeEvent {
        NODE_EVENT_START,       /* engine: the container started, or a list showed it running */
        NODE_EVENT_FACTS,       /* engine: it runs, and this is what it looks like */
        NODE_EVENT_NOT_RUNNING, /* engine: it does not run */
        NODE_EVENT_CHANGED,     /* something about it is other than we know (networks, a replayed event) */
        NODE_EVENT_APPLIED,     /* kernel: as declared */
        NODE_EVENT_FAIL,        /* bad label, or the kernel or engine refused */
        NODE_EVENT_RETRY,       /* the time after a retryable failure is over */
        NODE_EVENT_DIE,         /* engine: its process ended */
        NODE_EVENT_REMOVED,     /* kernel: nothing of it is left */
        _NODE_EVENT_MAX,
        _NODE_EVENT_INVALID = -EINVAL,
} NodeEvent;

const char *node_state_to_string(NodeState s);
NodeState node_state_from_string(const char *s);
const char *node_event_to_string(NodeEvent e);

/* The state that follows; _NODE_STATE_INVALID = the event means nothing in this state and is to be ignored. */
NodeState node_state_next(NodeState s, NodeEvent e);

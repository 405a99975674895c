/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/manager.h"

/*
 * What the agent knows about the inside of a node: what was declared for it, and what its client reports.
 *
 * The declaration is the operator's word: <state-dir>/declarations/<key>.json, written durably before anybody is told
 * that it holds, gone with the container. What the client reports (its state, the startup command's, the programs', the
 * ready mark) belongs to one run of the container: <run-dir>/clients/<key>.json, so that a restarted agent still knows,
 * also from a stock Emulab client that reports once and keeps no connection. That file is written at most once a
 * second, however often a node reports.
 *
 * `generation` grows whenever what the client would be answered changes: the declaration, or names and addresses of the
 * experiment's nodes. An attached client is told.
 */

typedef struct NodeSocket NodeSocket;
typedef struct NodeConnection NodeConnection;
typedef struct ProgramWatch ProgramWatch;

typedef struct NodeClient {
        Node *node;
        char *key;               /* its own copy of node_client_key() */
        json_t *declaration;     /* checked; NULL = nothing was declared */
        TbError *error;          /* the saved declaration cannot be read: nothing is answered in its place */
        TbError *route_error;    /* why a declared route is not there */
        uint64_t generation;     /* 0 = not counted yet */
        uint64_t fingerprint;    /* of the experiment's names and addresses */
        uint64_t run_start_time; /* the run of the container that `status` is about; 0 = none */
        json_t *status;          /* what the client reported: see node_client_status_to_json() */
        NodeSocket *socket;
        ProgramWatch *watches; /* who wants to hear of programs */
        sd_event_source *save;
} NodeClient;

/* The node is known well enough to have one: loads what was saved and, when the node has a directory, listens. What goes
 * wrong is logged and shown by `tbnode inspect`; the node goes on without. */
void node_client_open(Node *n);
NodeClient *node_client_free(NodeClient *c);
/* The container is gone: what is kept about it, too. */
void node_client_forget(Node *n);
/* A run of the container began (or was found), or ended. */
void node_client_run_began(Node *n);
void node_client_run_ended(Node *n);

/* Key of a node's files: its directory's, else the container's id. */
const char *node_client_key(const Node *n);
/* Files under the keys of containers that do not exist any more. */
void node_client_sweep(Manager *m, const json_t *containers);

/* Before the container is made: its declaration under the key that it will have. NULL removes it. */
int node_client_prepare(Manager *m, const char *key, const json_t *declaration, TbError **err);
/* A live change: `declaration` is checked already. Saved, then told to the client. Mounts can't change: kind CONFIG. On
 * failure the former one holds. */
int node_client_declare(Node *n, const json_t *declaration, TbError **err) _warn_unused_;

/* Everything that the client needs to know (op `declaration`); NULL when out of memory. `root`: with hashes and keys. */
json_t *node_client_view(const Node *n, bool root);
/* {"state", "reason", "emulab_state", "startup": {"state", "status", "reason"}, "programs": {NAME: {...}}, "ready"}: what
 * was reported, with nulls for what was not. NULL when out of memory. */
json_t *node_client_status_to_json(const Node *n);
const char *node_client_state(const Node *n);
bool node_client_is_attached(const Node *n);

/* ---- Reports: checked here, kept, logged as events. Errors of kind CONFIG blame the reporter. ------------------------- */

int node_client_report_state(Node *n, const char *state, const char *reason, TbError **err) _warn_unused_;
/* A state of Emulab's (ISUP, TBSETUP, TBFAILED, ...): kept as it is, and translated where it has a meaning here. */
int node_client_report_emulab_state(Node *n, const char *state, TbError **err) _warn_unused_;
/* `report`: the members state, status, reason (and pid) of the op. */
int node_client_report_startup(Node *n, const json_t *report, TbError **err) _warn_unused_;
int node_client_report_program(Node *n, const json_t *report, TbError **err) _warn_unused_;
void node_client_report_ready(Node *n);

/* ---- Orders to the attached client. -ENOTCONN: there is none. ------------------------------------------------------------ */

/* `action`: start, stop, kill. `signal`: 0 = KILL. */
int node_client_program(Node *n, const char *program, const char *action, unsigned signal, TbError **err)
        _warn_unused_;
int node_client_startup(Node *n, TbError **err) _warn_unused_;
/* Tells, once, what the client reports next about a program: `outcome` (borrowed) has state, status, reason and pid; NULL: the
 * node's run has ended. The watch is gone when this is called. */
typedef void (*ProgramWatchFn)(const json_t *outcome, void *userdata);
int node_client_watch(Node *n, const char *program, ProgramWatchFn fn, void *userdata, ProgramWatch **ret,
        TbError **err) _warn_unused_;
/* NULL is fine. */
ProgramWatch *node_client_unwatch(ProgramWatch *w);
/* What it is answered has changed: counts up and tells it. */
void node_client_changed(Node *n);

/* Writes the declared routes where they belong (route.h); keeps the error for `inspect`. */
int node_client_apply_routes(Node *n, TbError **err);

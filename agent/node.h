/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/facts.h"
#include "agent/labels.h"
#include "agent/node-shape.h"
#include "agent/node-state.h"
#include "agent/token-bucket.h"
#include "common/engine.h"
#include "common/error.h"
#include "netctl/netctl.h"

/*
 * A node: one labelled container
 *
 * A Node exists from the moment the agent hears of the container until the container is destroyed AND its objects are
 * out of the kernel. It knows the container by id; one RUN of it by ProcessIdentity. What it shall have in the kernel
 * is declared by its labels, with overrides on top that `tbnode shape set` and `tbnode firewall set` made (these are
 * kept in the state file, because nothing else remembers them).
 *
 * Everything that happens to a node goes through node_event(); the effects of a new state are in node.c, in one place.
 */

typedef struct Manager Manager;
typedef struct GateCall GateCall;
typedef struct NodeClient NodeClient;
struct OutsideSsh;

#define NODE_OVERRIDES_MAX NETCTL_INTERFACES_MAX

typedef struct Node {
        Manager *manager;
        char id[CONTAINER_ID_LEN + 1];
        char *name; /* the container's */
        char *key;  /* of what is kept about it (node-dir.h); NULL = it was not made by `tbnode run` */
        NodeState state;
        TbError *error;    /* why FAILED, or what it waits for while CONFIGURING */
        uint64_t since_us; /* CLOCK_REALTIME of the last change of state */

        NodeLabels labels;
        TbError *label_error; /* the labels are bad: the node can only be FAILED */
        ShapeOverride *overrides;
        size_t n_overrides;
        ParsedShape *parsed; /* node-shape.c */
        size_t n_parsed;
        char *firewall_override; /* "STYLE; RULES"; NULL = none */
        char *ssh_keys_override; /* instead of the label's: outside-ssh.h; NULL = none */
        uint16_t ssh_port;       /* host port for its ssh; 0 = none */

        bool has_facts;
        ContainerFacts facts;
        ProcessIdentity identity;
        int netns_fd;
        int32_t nsid; /* its number in our namespace, as long as it is open; < 0: not known */

        unsigned
                drift; /* what somebody else seems to have changed, and nobody has looked at yet: link-watch.h */

        bool needs_removal; /* it died: its objects go with the next batch */
        bool destroyed;     /* the container is gone: free the node after the removal */

        GateCall *gate; /* it is held at the start gate: not the engine describes it (gate.h) */

        bool want_inspect; /* queued for, or to be asked again */
        TbEngineRequest *inspect;
        uint64_t touched_us;    /* CLOCK_MONOTONIC: last event of the engine about it */
        uint64_t listed_us;     /* the list that had it last, see docker-events.c */
        uint64_t event_us;      /* CLOCK_MONOTONIC of the event that is being worked on, for the latency */
        uint64_t configured_us; /* event to CONFIGURED, 0 = not yet */

        unsigned failures;
        sd_event_source *retry;

        struct OutsideSsh *outside; /* its port, when it is served from outside: outside-ssh.h */

        NodeClient *client; /* declared for it, and reported by it; NULL until it is known well enough */
        TokenBucket events; /* what it may add to the event log */

        NetctlNodeStatus status; /* as read back by the last batch; error is always NULL here */
        bool has_status;
} Node;

/* `labels`: the container's, or an event's attributes. Bad labels are no error of this function: the node becomes
 * FAILED. The node is added to the manager. */
int node_new(Manager *m, const char *id, const char *name, const json_t *labels, Node **ret, TbError **err)
        _warn_unused_;
/* Takes it out of the manager as well. */
Node *node_free(Node *n);

/* `cause` (may be NULL, borrowed): why, for NODE_EVENT_FAIL. The node may be freed by this call when it is `destroyed`
 * and nothing of it is left. */
void node_event(Node *n, NodeEvent e, const TbError *cause);

/* Can it be written to the kernel? Else *ret_missing (static) says what is missing. */
bool node_check_ready(const Node *n, const char **ret_missing);

/* The container's new description, from GET /containers/<id>/json. Takes the content of *facts. */
void node_take_facts(Node *n, ContainerFacts *facts);

/* The name to show: label tbnode.node, else the container's name. */
const char *node_display_name(const Node *n);
bool node_is_running(const Node *n);

/* What netctl is to be told about a node; everything borrowed from it until the next event. */
typedef struct NodeDeclaration {
        NetctlNode node;
        NetctlInterface *interfaces;
        LinkShape *shapes; /* per interface */
        FwRules rules;     /* of its firewall */
} NodeDeclaration;

/* Frees what is inside. */
void node_status_done(NetctlNodeStatus *s);

void node_declaration_done(NodeDeclaration *d);
#define _cleanup_node_declaration_ _cleanup_(node_declaration_done)
/* Errors are of kind CONFIG: SPEC or style that does not parse, labels that cannot hold for this container. */
int node_declare(Node *n, const char *control_network, NodeDeclaration *ret, TbError **err) _warn_unused_;

/* Do the labels' SPECs and style parse? -EINVAL, kind CONFIG, naming the label. */
int node_check_labels(const Node *n, TbError **err) _warn_unused_;
/* The style in force; _FW_STYLE_INVALID: its text is bad. More: node-firewall.h */
FwStyle node_firewall(const Node *n);

/* For the API: the short form (`tbnode ps`) and everything (`tbnode inspect`). NULL when out of memory. */
json_t *node_to_json(const Node *n, bool full);

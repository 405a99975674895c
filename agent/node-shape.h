/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/shape-schedule.h"
#include "netctl/shape-rule.h"

typedef struct Manager Manager;
typedef struct Node Node;

/*
 * The shapes of a node's links: what its labels say, and live changes on top, which win over the labels. A change may hold for
 * a time only, and a link may go down and up by itself. One timer of the manager serves all of them; it only says when to look,
 * what holds follows from the instants. While no agent runs nothing changes in the kernel; the next one makes up for it at
 * once.
 */
typedef struct ShapeOverride {
        char *network;
        LinkShape shape;   /* until `until_us` */
        LinkShape before;  /* from then on */
        uint64_t until_us; /* CLOCK_BOOTTIME; 0: for good */
        ShapeFlap flap;    /* ends with `shape` */
        /* Directions that have or had something: their root stays in the kernel while the node runs (removing it
         * would drop what is queued). */
        bool keep_up, keep_down;
} ShapeOverride;
void shape_override_done(ShapeOverride *o);
#define _cleanup_shape_override_ _cleanup_(shape_override_done)

/* A label's text as it was parsed; the text is the key, so nothing has to be told when labels change. */
typedef struct ParsedShape {
        char *spec;
        LinkShape shape;
} ParsedShape;
void parsed_shapes_done(ParsedShape *parsed, size_t n);

const ShapeOverride *node_override(const Node *n, const char *network);

/* The shape in force for a network at this moment (override, else labels; "link down" when it flaps). */
int node_shape(const Node *n, const char *network, LinkShape *ret, TbError **err) _warn_unused_;

/* tbnode.shape is for experiment interfaces; the control network is only shaped when it is named. */
bool node_network_is_shaped(const Node *n, const char *network);

/* One live change, as users ask for it. */
typedef struct ShapeChange {
        const char *spec; /* a change; NULL: none */
        const char *
                rules; /* instead: all the rules that there shall be, and changes of the default; may be blank */
        bool clear;           /* everything passes; `spec` is not looked at */
        const char *for_time; /* "30s"; NULL: for good */
        const char *flap;     /* "DOWN UP [COUNT]"; NULL: as it is, but naming the link's state ends it */
} ShapeChange;

/*
 * Puts a change over what is in force. A change for a time goes back to what held before the first of several such changes;
 * a change for good keeps what a temporary one made. *ret_before gets what node_override_undo() needs; the caller owns it.
 * Errors: TB_ERROR_CONFIG for the change's text, TB_ERROR_RESOURCE -E2BIG for too many networks.
 */
int node_override_change(Node *n, const char *network, const ShapeChange *change, ShapeOverride *ret_before,
        TbError **err) _warn_unused_;
void node_override_undo(Node *n, const char *network, ShapeOverride *before);

/* For the state file. */
int shape_override_to_json(const ShapeOverride *o, json_t **ret, TbError **err) _warn_unused_;
int node_override_from_json(Node *n, const char *network, const json_t *j, TbError **err) _warn_unused_;

/* For people: what is left of a temporary change, and flaps, into an interface's object. False: out of memory. */
bool shape_override_describe(const ShapeOverride *o, json_t *j);

/* To be called when an override was made, changed or restored. */
void shape_timer_arm(Manager *m);

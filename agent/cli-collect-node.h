/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "agent/cli-collect-store.h"
#include "agent/cli-collect.h"
#include "common/buffer.h"

/* Everything of one node, one request after the other; several nodes at a time. */
typedef struct CollectNode {
        Cli *cli;
        const CollectOptions *options;
        Store *store;
        json_t *patterns;        /* the user's, and ours in front of them */
        char *name, *id, *where; /* where: its directory */
        void (*done)(struct CollectNode *n, void *userdata);
        void (*progress)(struct CollectNode *n, void *userdata);
        void *userdata;

        int step;
        bool running;
        TbHttpRequest *request;
        int fd;                /* that is being written */
        uint64_t written;      /* to it */
        TbBuffer answer;       /* that is no file: JSON, and errors */
        uint64_t files, bytes; /* what there is of it */
        json_t *errors;        /* what failed, as text */
        json_t *notes;         /* what there was not to collect */
        unsigned *missing;  /* shared: for each of the user's patterns, in how many nodes nothing matched */
        unsigned *answered; /* shared: how many nodes said what matched */
} CollectNode;

/* Patterns of ours, at the beginning of `patterns`. */
extern const char *const collect_own_patterns[];

/* Starts; `done` comes from the loop. */
void collect_node_start(CollectNode *n);
/* Cancels when it is still running. Everything in it but borrowed things is freed, not itself. */
void collect_node_free(CollectNode *n);

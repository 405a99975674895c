/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between run.c (the sequence and its undoing) and the files that hold its steps. */

#include "agent/augment-job.h"
#include "agent/network.h"
#include "agent/run-unfinished.h"
#include "agent/run.h"

typedef enum RunStep {
        RUN_AUGMENT,   /* the image with init and sshd, in the testbed's registry */
        RUN_WAIT,      /* for its turn: run-turn.h */
        RUN_IMAGE,     /* does the engine have it already? */
        RUN_PULL,      /* if not */
        RUN_INSPECT,   /* its entrypoint and command */
        RUN_NAME,      /* is the container's name free? */
        RUN_NETWORKS,  /* control network, then each experiment network: made when missing */
        RUN_DIRECTORY, /* node.conf and authorized_keys */
        RUN_CREATE,
        RUN_CONNECT, /* each experiment network */
        RUN_START,
        RUN_CONFIGURE, /* until the node is CONFIGURED */
        RUN_DONE,
        RUN_UNDO_CONTAINER,
        RUN_UNDO_NETWORKS,
        RUN_UNDO_END,
        _RUN_STEP_MAX,
} RunStep;

struct RunJob {
        Manager *manager;
        RunJob *next;
        ApiRequest *api; /* NULL: the client is gone */
        uid_t uid;       /* who asks */
        RunSpec spec;
        RunStep step;
        uint64_t started_us;

        JobWaiter *augment;
        TbEngineRequest *call;
        NetworkJob *network;
        sd_event_source *timer;
        sd_event_source *next_step;

        json_t *augmented; /* the result of the augmentation, for the answer */
        char *image;       /* "<repository>@<digest>": exactly what was augmented */
        json_t *inspect;
        size_t network_index;
        char **networks_made; /* ids */
        bool dir_made;
        char number[RUN_NUMBER_LEN + 1]; /* run-unfinished.h; "" = nothing of it can be in the engine */
        char container_id[CONTAINER_ID_LEN + 1]; /* "" = not created */
        bool started;
        bool has_turn;
        TbError *error; /* why it is being undone */
};

/* The next step, from the loop: a step may end the job, and callbacks of what just ended still run. */
void run_go(RunJob *j, RunStep step);
/* Every failure, once: what was made goes away, then the client hears why. Borrows `cause`. */
void run_fail(RunJob *j, const TbError *cause);
/* The same; frees `cause`. */
void run_fail_take(RunJob *j, TbError *cause);
void run_progress(RunJob *j, const char *text);
/* One engine call of a step; its callback (userdata is the job) ends with run_call_end(). */
void run_call(RunJob *j, const TbEngineCall *call);
void run_call_end(RunJob *j);

/* run-image.c */
void run_step_augment(RunJob *j);
void run_step_image(RunJob *j);
void run_step_pull(RunJob *j);
/* run-node.c */
void run_step_name(RunJob *j);
void run_step_networks(RunJob *j);
void run_step_directory(RunJob *j);
void run_step_create(RunJob *j);
void run_step_connect(RunJob *j);
void run_step_start(RunJob *j);
void run_step_configure(RunJob *j);

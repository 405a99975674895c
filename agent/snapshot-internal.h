/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between snapshot.c (the sequence) and the files that hold its steps. */

#include "agent/augment-job.h"
#include "agent/snapshot.h"
#include "registry-client/registry.h"

typedef enum SnapshotStep {
        SNAPSHOT_INSPECT,
        SNAPSHOT_IMAGE,
        SNAPSHOT_COMMIT,
        SNAPSHOT_PUSH,
        SNAPSHOT_READ,
        SNAPSHOT_CONFIG,
        SNAPSHOT_UPLOAD,
        SNAPSHOT_TAG,
        SNAPSHOT_REMOVE, /* from here on it is decided whether there is a snapshot */
        SNAPSHOT_FORGET,
        SNAPSHOT_COVER, /* the registry deletes nothing: the job's name gets the complete image, too */
        SNAPSHOT_END,
        _SNAPSHOT_STEP_MAX,
} SnapshotStep;

struct SnapshotJob {
        Manager *manager;
        SnapshotJob *next;
        ApiRequest *api; /* NULL: the client is gone */
        uid_t uid;       /* who asks */
        uid_t owner;     /* whose the node is */
        char *node;      /* as it is shown */
        char container_id[CONTAINER_ID_LEN + 1];
        char *default_name;
        char *asked_name, *asked_project; /* NULL: not said */
        bool pause;
        uint64_t started_us;

        SnapshotStep step;
        char label[33]; /* value of SNAPSHOT_LABEL; random */
        sd_event_source *next_step;
        sd_event_source *timer;
        TbEngineRequest *call;
        RegistrySession *session;
        RegistryOp *op;

        char *host; /* of the testbed's registry */
        char *project;
        RegistryRef *target; /* the snapshot's name */
        RegistryRef *raw;    /* the job's own name beside it */
        char *raw_name;
        char *image_id;  /* of the node's image, in the engine */
        json_t *config;  /* its configuration */
        bool committing; /* there may be something in the engine */
        char *committed; /* the id of it; NULL: not known */
        bool pushing;    /* there may be something in the registry */
        TbDigest pushed;
        RegistryManifest *manifest; /* what was pushed */
        char *config_text, *manifest_text;
        size_t config_size, manifest_size;
        TbDigest config_digest, digest;
        TbError *error; /* why there is none */
};

/* The next step, from the loop: callbacks of what just ended still run. */
void snapshot_go(SnapshotJob *j, SnapshotStep step);
/* A line for the client; `text` may be NULL. */
void snapshot_progress(SnapshotJob *j, const char *text);
/* Takes `cause`; the first one counts. Once the snapshot has its name, nothing that fails takes it back. */
void snapshot_fail(SnapshotJob *j, TbError *cause);
/* One engine call of a step; userdata is the job. */
void snapshot_call(SnapshotJob *j, const TbEngineCall *c);

/* snapshot-make.c */
void snapshot_step_inspect(SnapshotJob *j);
void snapshot_step_image(SnapshotJob *j);
void snapshot_step_commit(SnapshotJob *j);
void snapshot_step_push(SnapshotJob *j);
void snapshot_step_read(SnapshotJob *j);
void snapshot_step_config(SnapshotJob *j);
void snapshot_step_upload(SnapshotJob *j);
void snapshot_step_tag(SnapshotJob *j);
/* Writes the finished manifest under `ref`; j->op runs then. */
int snapshot_put_manifest(SnapshotJob *j, const RegistryRef *ref, RegistryDoneFn done, TbError **err)
        _warn_unused_;
/* snapshot-clean.c */
void snapshot_step_remove(SnapshotJob *j);
void snapshot_step_forget(SnapshotJob *j);
void snapshot_step_cover(SnapshotJob *j);
void snapshot_step_end(SnapshotJob *j);

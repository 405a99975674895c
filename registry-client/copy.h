/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between copy.c (the whole image), copy-manifests.c (the tree of manifests) and copy-blob.c (one blob). */

#include "registry-client/internal.h"

typedef struct RegistryCopyBlob RegistryCopyBlob;

/* All pointers must stay valid until the blob is freed. */
typedef struct RegistryCopyBlobOptions {
        const RegistryRef *source, *target;
        const RegistryDescriptor *blob;
        const char *mount_from;     /* NULL = cannot be mounted: look first */
        bool exists;                /* the target has it: only the tap wants it (with always_stream) */
        bool always_stream;         /* to the tap, whatever the target has */
        const RegistryCopyTap *tap; /* NULL = none */
        void (*moved)(int64_t bytes, void *userdata); /* progress; negative when a transfer starts over */
        /* The target has the blob, or err. May free it. */
        void (*done)(RegistryCopyBlob *b, RegistryCopyHow how, const TbError *err, void *userdata);
        void *userdata;
} RegistryCopyBlobOptions;

/* Callbacks come from the loop only. */
int registry_copy_blob_start(RegistryClient *c, const RegistryCopyBlobOptions *options,
        RegistryCopyBlob **ret, TbError **err) _warn_unused_;
RegistryCopyBlob *registry_copy_blob_free(RegistryCopyBlob *b);

/* ---- The whole copy ---- */

#define COPY_PARALLEL_MAX 16U
#define COPY_DEPTH_MAX 4U

typedef enum CopyPhase {
        COPY_LOOKING,   /* `get` and `look` run; no nodes yet */
        COPY_CHILDREN,  /* nodes are fetched; `op` of a node is its GET */
        COPY_BLOBS,     /* every node has its manifest; the slots are at work on `items` */
        COPY_MANIFESTS, /* the target has all blobs; `op` of a node is its PUT */
        COPY_FINISHED,  /* nothing runs any more */
} CopyPhase;

typedef struct CopyOp CopyOp;

typedef struct CopyNode {
        CopyOp *copy;
        TbDigest digest;
        RegistryManifest *manifest; /* NULL = not fetched yet */
        unsigned depth;
        RegistryOp *op; /* GET or PUT under way */
        bool pushed;
} CopyNode;

typedef struct CopyItem {               /* a blob to copy */
        const RegistryDescriptor *blob; /* in a node's manifest */
        bool is_layer;
        size_t order;
} CopyItem;

typedef struct CopySlot {
        CopyOp *copy;
        const CopyItem *item;
        RegistryCopyBlob *blob;
} CopySlot;

struct CopyOp {
        RegistryOp op;
        CopyPhase phase;
        RegistryRef *source, *target;
        RegistryPlatform platform;
        bool one_platform, same_repository;
        unsigned parallel, platform_depth;
        bool always_stream;
        bool repair;
        RegistryCopyTap tap_copy;
        const RegistryCopyTap *tap; /* NULL or &tap_copy */
        void (*progress_fn)(const RegistryCopyProgress *, void *);
        void *progress_userdata;
        RegistryCopyProgress progress;
        uint64_t progress_usec;

        RegistryOp *get, *look; /* LOOKING */
        RegistryManifest *top;
        bool looked;
        TbDigest present; /* what the target named before; unset = nothing */

        CopyNode **nodes;
        size_t n_nodes, n_fetched, n_active;
        size_t manifests_bytes;

        CopyItem *items;
        size_t n_items, next_item;
        CopySlot slots[COPY_PARALLEL_MAX];
};

/* copy.c: ends the operation; it may be gone afterwards. */
void copy_fail(CopyOp *c, const TbError *err);
void copy_succeed(CopyOp *c);
/* All manifests are there: the blobs come next. */
int copy_enter_blobs(CopyOp *c, TbError **err) _warn_unused_;

/* copy-manifests.c: the root of the tree (taken), then its descendants are fetched. */
int copy_enter_children(CopyOp *c, RegistryManifest *root, TbError **err) _warn_unused_;
/* All blobs are there: pushes the manifests, deepest level first. */
int copy_enter_manifests(CopyOp *c, TbError **err) _warn_unused_;

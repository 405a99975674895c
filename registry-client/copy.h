/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between copy.c (the whole image), copy-manifests.c (the tree of manifests), copy-blob.c (one blob), spool.c (what is left
 * of broken-off ones) and share.c (those that several copies want). */

#include "registry-client/internal.h"
#include "registry-client/store.h"

typedef struct RegistryCopyBlob RegistryCopyBlob;

/* All pointers must stay valid until the blob is freed. */
typedef struct RegistryCopyBlobOptions {
        const RegistryRef *source, *target; /* NULL: from, to */
        RegistryStore *from, *to;           /* NULL: source, target */
        const char *source_name;            /* for messages */
        const char *state_dir;              /* NULL = nothing is kept */
        uint64_t state_max, state_patience_usec;
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
/* Bytes that came from the state directory. */
uint64_t registry_copy_blob_resumed(const RegistryCopyBlob *b);

/* ---- copy-tap.c ---- */

typedef struct CopyTap {
        const RegistryCopyTap *tap; /* NULL = none */
        const RegistryDescriptor *layer;
        bool begun;
        struct TbDecompressor *decompressor;
} CopyTap;
int copy_tap_data(CopyTap *t, const void *data, size_t size, TbError **err) _warn_unused_;
/* STREAMED: all bytes were right. */
int copy_tap_end(CopyTap *t, RegistryCopyHow how, TbError **err) _warn_unused_;
/* The layer comes again from its beginning; also releases what it holds. */
void copy_tap_restart(CopyTap *t);

/* ---- copy-parts.c ---- */

typedef struct CopyRing {
        char *data;
        size_t size, head_at, used;
} CopyRing;
/* More than there is room for only when it is empty: it grows then. */
int copy_ring_put(CopyRing *ring, const char *data, size_t n, TbError **err) _warn_unused_;
/* n <= used */
size_t copy_ring_take(CopyRing *ring, char *buf, size_t n);
void copy_ring_empty(CopyRing *ring);
void copy_ring_done(CopyRing *ring);

/* The hash of the bytes so far, and of a few earlier points: 64 MB back at most. */
#define COPY_HASH_STATES 16U
typedef struct CopyHashState {
        TbHasher *hasher;
        uint64_t position;
} CopyHashState;
typedef struct CopyTrail {
        TbHasher *hasher; /* has seen the first `position` bytes; NULL = none yet */
        uint64_t position;
        CopyHashState states[COPY_HASH_STATES];
        size_t n_states;
} CopyTrail;
int copy_trail_add(CopyTrail *t, const void *data, size_t size, TbError **err) _warn_unused_;
int copy_trail_final(CopyTrail *t, TbDigest *ret, TbError **err) _warn_unused_;
/* Back to the last known point at or before `position` and before `end`; the beginning when there is none. */
int copy_trail_rewind(CopyTrail *t, uint64_t position, uint64_t end, TbError **err) _warn_unused_;
void copy_trail_restart(CopyTrail *t); /* to the beginning; the points stay */
void copy_trail_forget(CopyTrail *t);  /* the points */
void copy_trail_done(CopyTrail *t);

/* ---- spool.c ---- */

#define REGISTRY_SPOOL_MIN (1024U * 1024) /* smaller blobs are not kept */

typedef struct RegistrySpool RegistrySpool;
/* Makes the directory, and sees that it is ours alone. */
int registry_spool_prepare(const char *dir, TbError **err) _warn_unused_;
/* 1 = *ret is ours alone, 0 = somebody else has it, or it cannot be had: then without. patience_usec: what will be complete by then
 * isn't kept. */
int registry_spool_open(const char *dir, const TbDigest *digest, uint64_t blob_size, uint64_t max,
        uint64_t patience_usec, RegistrySpool **ret);
uint64_t registry_spool_size(const RegistrySpool *s);
int registry_spool_append(RegistrySpool *s, const void *data, size_t size, TbError **err) _warn_unused_;
/* What it has from `position` on: 1 = ret->fd is the caller's, 0 = nothing. */
int registry_spool_region(RegistrySpool *s, uint64_t position, RegistryRegion *ret);
/* location NULL: there is none (any more). */
void registry_spool_set_session(RegistrySpool *s, const RegistryRef *target, const char *location);
char *registry_spool_get_session(
        const RegistrySpool *s, const RegistryRef *target); /* the caller's, or NULL */
bool registry_spool_has_session(const RegistrySpool *s);
/* Done with (or wrong): the files go. Accepts NULL, returns NULL. */
RegistrySpool *registry_spool_discard(RegistrySpool *s);
/* The files stay. */
RegistrySpool *registry_spool_free(RegistrySpool *s);

/* ---- share.c ---- */

typedef struct RegistryShareWait RegistryShareWait;
typedef enum RegistryShareAnswer {
        REGISTRY_SHARE_YOURS, /* *ret_share is taken: the others wait until registry_share_end() */
        REGISTRY_SHARE_WAIT, /* somebody moves it: `fn` is called when that has ended, *ret_wait is the caller's */
} RegistryShareAnswer;
/* Does somebody else put this blob there? *ret_mount_from (the caller's) is set when it is known in another repository. */
int registry_share_ask(RegistryClient *c, const RegistryRef *target, const TbDigest *digest,
        void (*fn)(void *userdata), void *userdata, RegistryShareAnswer *ret, RegistryShare **ret_share,
        RegistryShareWait **ret_wait, char **ret_mount_from, TbError **err) _warn_unused_;
/* `there`: the target has it now. Accepts NULL. */
void registry_share_end(RegistryClient *c, RegistryShare *s, bool there);
RegistryShareWait *registry_share_wait_free(RegistryShareWait *w);

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
        uint64_t moved;
} CopySlot;

struct CopyOp {
        RegistryOp op;
        CopyPhase phase;
        RegistryRef *source, *target; /* NULL: from, to */
        RegistryStore *from, *to;
        char *source_name, *state_dir;
        uint64_t state_max, state_patience_usec;
        RegistryPlatform platform, *platforms;
        size_t n_platforms;
        bool one_platform, same_repository;
        unsigned parallel, platform_depth;
        bool always_stream;
        bool blobs_only;
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
        sd_event_source *given; /* the caller has read the source: begins in the next turn */
        TbDigest present;       /* what the target named before; unset = nothing */

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
/* copy-local.c: manifests of files, as operations that end in the next turn of the loop. */
int copy_local_get(RegistryClient *client, RegistryStore *from, const TbDigest *digest, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;
int copy_local_put(RegistryClient *client, RegistryStore *to, const RegistryManifest *m, bool root,
        RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;
/* An index with the entries for these platforms only, and what refers to them. *ret is untouched when nothing is left out. */
int copy_filter_index(const RegistryManifest *index, const RegistryPlatform *platforms, size_t n,
        RegistryManifest **ret, TbError **err) _warn_unused_;
/* All manifests are there: the blobs come next. */
int copy_enter_blobs(CopyOp *c, TbError **err) _warn_unused_;

/* copy-manifests.c: the root of the tree (taken), then its descendants are fetched. */
int copy_enter_children(CopyOp *c, RegistryManifest *root, TbError **err) _warn_unused_;
/* All blobs are there: pushes the manifests, deepest level first. */
int copy_enter_manifests(CopyOp *c, TbError **err) _warn_unused_;

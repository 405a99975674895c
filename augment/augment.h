/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/error.h"

/*
 * Augmentation: what the agent and the command line need
 *
 * A request names an image, a level and a builder. It is answered in one of two ways:
 *
 *  - augment_lookup_start() (augment/cache.h) asks two registries a few HEADs from the agent's own loop. A
 * hit is the answer.
 *  - On a miss the agent starts a worker process (TBNODE_WORKER, else
 * $libexecdir/tbnode/tbnode-augment-worker) as an unprivileged user, writes augment_request_to_json() on its
 * stdin, closes it, and reads JSON lines from its stdout with augment_event_parse(): any number of
 * AUGMENT_EVENT_PROGRESS, then exactly one AUGMENT_EVENT_RESULT or AUGMENT_EVENT_ERROR, then the end of the
 * stream. A worker that ends without such a line has failed. Its exit status is 0 after a result, 1 after an
 * error, 2 when it was called wrongly; stderr is free text for the log. It may be killed at any instant: the
 * tags are written last, so nothing half-made has a name.
 *
 * The builder `docker` runs the worker with AUGMENT_OP_MIRROR, then augment_docker_build_start()
 * (augment/build-docker.h) with what that gave.
 */

/* How much is added to an image; design.md, "Words". */
typedef enum AugmentLevel {
        AUGMENT_LEVEL_NONE,
        AUGMENT_LEVEL_BASIC,
        AUGMENT_LEVEL_CORE,
        AUGMENT_LEVEL_BUILDENV,
        AUGMENT_LEVEL_FULL,
        _AUGMENT_LEVEL_MAX,
        _AUGMENT_LEVEL_INVALID = -EINVAL,
} AugmentLevel;

const char *augment_level_to_string(AugmentLevel level);
AugmentLevel augment_level_from_string(const char *s);

typedef enum AugmentBuilder {
        AUGMENT_BUILDER_NATIVE, /* registry to registry, no daemon */
        AUGMENT_BUILDER_DOCKER, /* the engine's /build of the same Dockerfile, then /push */
        _AUGMENT_BUILDER_MAX,
        _AUGMENT_BUILDER_INVALID = -EINVAL,
} AugmentBuilder;

const char *augment_builder_to_string(AugmentBuilder builder);
AugmentBuilder augment_builder_from_string(const char *s);

typedef enum AugmentOp {
        AUGMENT_OP_AUGMENT, /* resolve, mirror, native build, push */
        AUGMENT_OP_MIRROR,  /* resolve, mirror; gives base, Dockerfile and facts (for the docker builder) */
        AUGMENT_OP_IMAGES, /* what lies in the testbed's registry (augment/inventory.h): the image is not looked at */
        AUGMENT_OP_DOCKERFILE, /* gives the Dockerfile; writes nothing to any registry */
        _AUGMENT_OP_MAX,
        _AUGMENT_OP_INVALID = -EINVAL,
} AugmentOp;

const char *augment_op_to_string(AugmentOp op);
AugmentOp augment_op_from_string(const char *s);

/* What a name stands for at its registry. */
typedef enum AugmentSourceKind {
        AUGMENT_SOURCE_UNKNOWN, /* nobody has asked: a reference by digest */
        AUGMENT_SOURCE_IMAGE,   /* one image */
        AUGMENT_SOURCE_INDEX,   /* several, for different platforms */
        _AUGMENT_SOURCE_KIND_MAX,
        _AUGMENT_SOURCE_KIND_INVALID = -EINVAL,
} AugmentSourceKind;

/* NULL and what is no manifest: UNKNOWN. */
AugmentSourceKind augment_source_kind(const char *media_type);

/* What a tag's registry is asked for. */
typedef enum AugmentPolicy {
        AUGMENT_POLICY_LATEST, /* every time: a tag that has moved means another image */
        AUGMENT_POLICY_CACHED, /* only for a tag that has not been mirrored yet */
        _AUGMENT_POLICY_MAX,
        _AUGMENT_POLICY_INVALID = -EINVAL,
} AugmentPolicy;

const char *augment_policy_to_string(AugmentPolicy policy);
AugmentPolicy augment_policy_from_string(const char *s);

/* Who said what the name is. */
typedef enum AugmentFrom {
        AUGMENT_FROM_REGISTRY, /* its registry, just now */
        AUGMENT_FROM_CACHE,    /* what was noted when it was mirrored */
        AUGMENT_FROM_DIGEST,   /* the name itself */
        _AUGMENT_FROM_MAX,
        _AUGMENT_FROM_INVALID = -EINVAL,
} AugmentFrom;

const char *augment_from_to_string(AugmentFrom from);
AugmentFrom augment_from_from_string(const char *s);

/* Part of the cache key: raised whenever the same input gives another image. */
#define AUGMENT_GENERATOR_VERSION 3

/* What is asked for. All strings are owned (augment_request_done()). */
typedef struct AugmentRequest {
        char *image; /* as the user wrote it: "nginx", "quay.io/x/y:1", "nginx@sha256:..." */
        AugmentLevel level;
        AugmentBuilder builder;
        char *platform; /* "linux/amd64", "linux/arm64"; NULL = this machine's, and all_platforms */
        bool all_platforms; /* an index is augmented as a whole: whatever there is a payload for (native builder);
                                an image by itself must be for `platform` */
        char *project;      /* keeps mirror and image under projects/<project>/; NULL = shared */
        bool update;        /* augment again what is already augmented */
        char *registry;      /* the testbed's registry: "http://127.0.0.1:5000" */
        char *payload_dir;   /* holds <arch>/payload.json; NULL = augment_payload_dir() */
        char *docker_config; /* config.json with credentials; NULL = the registry client's default places */
        char *state_dir; /* where the worker keeps what it has of large blobs, for the next one; NULL = nowhere */
        AugmentPolicy policy;
        char *auth; /* the caller's own credentials: a config.json with the image's registry alone; secret. NULL = none */
        char *private_project; /* where a private base goes when no project is named; NULL = it is refused then */
        TbDigest resolved; /* what the lookup found the name to be: the worker takes exactly this; may be
                                unset */
        AugmentSourceKind kind; /* of `resolved` */
        char *manifest; /* of `resolved`, when the lookup has read it; the worker believes it only when the digest is right */
        char *manifest_type; /* the media type that it came with */
        AugmentFrom from;    /* the same, with the words about it, for the result */
        char *notice;
        bool private; /* for the lookup: known not to be everybody's, so credentials are used at once; for the worker: it
                         found so */
} AugmentRequest;

void augment_request_done(AugmentRequest *r);
#define _cleanup_augment_request_ _cleanup_(augment_request_done)
/* One image, for this machine, whatever else the name offers: what a node needs. Nothing when a platform is named. */
int augment_request_for_host(AugmentRequest *r, TbError **err) _warn_unused_;
/* Fills the defaults in and refuses what can't be (kind CONFIG): names, project, platform, level. */
int augment_request_check(AugmentRequest *r, TbError **err) _warn_unused_;
/* One line of JSON, without newline, for the worker's stdin. */
int augment_request_to_json(const AugmentRequest *r, AugmentOp op, char **ret, TbError **err) _warn_unused_;
int augment_request_from_json(
        const char *data, size_t size, AugmentRequest *ret, AugmentOp *ret_op, TbError **err) _warn_unused_;

typedef struct AugmentTimings { /* us; the JSON has milliseconds with three decimals */
        uint64_t resolve, mirror, facts, build, push, total;
} AugmentTimings;

typedef struct AugmentBytes {
        uint64_t downloaded; /* from the source registry */
        uint64_t uploaded;   /* to the testbed's registry */
        uint64_t mounted;    /* blobs that the registry had already */
        uint64_t resumed;    /* found in the state directory instead of downloaded again */
} AugmentBytes;

/* The answer; all strings owned. The JSON form (augment_result_to_json()) is what `tbnode augment --json`
 * prints. */
typedef struct AugmentResult {
        char *source_name;      /* canonical: "docker.io/library/nginx:1.25" */
        TbDigest source_digest; /* what the name is now: an index or a manifest */
        AugmentFrom from;       /* who said so */
        char *notice;           /* what a user should know about that, one line; NULL = nothing */
        bool private;           /* credentials were needed */
        char *project;          /* where it is kept; NULL = shared */
        char *image; /* reference by tag in the testbed's registry, "127.0.0.1:5000/augmented/...:1.25-basic"
                      */
        TbDigest digest; /* of that image's manifest; unset after AUGMENT_OP_MIRROR/_DOCKERFILE */
        AugmentLevel level;
        AugmentBuilder builder;
        bool cache_hit;
        bool as_is;        /* nothing was added: level none, or the image is augmented already */
        char *platform;    /* NULL for an index */
        bool index;        /* an image for each of several platforms */
        json_t *platforms; /* of an index that was made: [{platform, digest, base, as_is, facts}]; else NULL */
        char *key_tag;     /* "k-<40 hex>" */
        char *payload_version;   /* NULL for level none */
        TbDigest payload_digest; /* unset for level none */
        char *base;              /* the base in the testbed's registry, by digest; NULL after a hit */
        TbDigest base_digest;    /* manifest of this platform */
        char *dockerfile;        /* text; NULL when as_is or after a hit */
        json_t *report;          /* of AUGMENT_OP_IMAGES, and then all there is; else NULL */
        json_t *facts;           /* object (augment/facts.h); NULL after a hit */
        AugmentTimings timings;
        AugmentBytes bytes;
} AugmentResult;

void augment_result_done(AugmentResult *r);
#define _cleanup_augment_result_ _cleanup_(augment_result_done)
/* The caller owns *ret. */
int augment_result_to_json(const AugmentResult *r, json_t **ret, TbError **err) _warn_unused_;
int augment_result_from_json(const json_t *j, AugmentResult *ret, TbError **err) _warn_unused_;

/* One line of the worker's stdout. */
typedef enum AugmentEventType {
        AUGMENT_EVENT_PROGRESS,
        AUGMENT_EVENT_RESULT,
        AUGMENT_EVENT_ERROR,
        _AUGMENT_EVENT_TYPE_MAX,
        _AUGMENT_EVENT_TYPE_INVALID = -EINVAL,
} AugmentEventType;

typedef struct AugmentProgress {
        char *stage; /* "resolve", "mirror", "facts", "build", "push" */
        /* Digest of a blob that moves; NULL = the stage as a whole, told after those that move at that moment: a blob that
         * isn't among them any more has arrived. */
        char *blob;
        uint64_t done;  /* bytes of it */
        uint64_t total; /* 0 = not known */
} AugmentProgress;

typedef struct AugmentEvent {
        AugmentEventType type;
        AugmentProgress progress;
        AugmentResult result;
        TbError *error; /* the worker's own error: kind, code, message, retryable */
} AugmentEvent;

void augment_event_done(AugmentEvent *e);
#define _cleanup_augment_event_ _cleanup_(augment_event_done)
/* -EBADMSG: not a line that a worker writes. The worker handles hostile input, so its output is checked as
 * such. */
int augment_event_parse(const json_t *line, AugmentEvent *ret, TbError **err) _warn_unused_;

/* The worker's lines never grow beyond this (a Dockerfile and an image configuration are in them). */
#define AUGMENT_EVENT_MAX (24u * 1024 * 1024)

/* Path of the worker: $TBNODE_WORKER or the installed one. */
const char *augment_worker_path(void);

/*
 * Writes `Dockerfile` and the payload layers of the request's platform and level into a directory (made when
 * missing; other files in it are left alone, existing ones of these names replaced atomically).
 */
int augment_context_write(
        const AugmentRequest *request, const char *dockerfile, const char *dir, TbError **err) _warn_unused_;

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/error.h"

/*
 * Client for OCI and Docker registries: the public header of libtbregistry (installed as <tbregistry/registry.h>)
 *
 * Sources of the rules: OCI distribution-spec (spec.md), image-spec (manifest.md, image-index.md,
 * descriptor.md), distribution's docs/spec/auth (token.md, scope.md) and its manifest-v2-2.md.
 *
 * The objects
 *
 *   RegistryClient    one HTTP connection pool, a token cache and the settings of each host, on one event loop. There is
 *                     no global state. One client belongs to one thread at a time; as many clients as you like.
 *   RegistryRef       the name of an image: host, repository, tag and/or digest. Immutable.
 *   RegistryManifest  a manifest or an index: the exact bytes, and what they say.
 *   RegistryOp        one operation under way: a result that is not there yet.
 *
 * Two ways to call
 *
 *   `registry_X_start()` returns at once with a RegistryOp, and `done` is called once, from the loop, never from inside
 *   the call. `registry_X()` is the same operation, and runs the client's loop until it is over: for tools and workers.
 *   Never call those from inside a callback of that loop. (A few that are combinations of others or only of use to tools
 *   exist in the second form only: get_image, list_referrers, mount_blobs, put_blob_fd, the deletion of tags and blobs.)
 *
 * The loop
 *
 *   A client made with an sd_event lives on that loop. One made with NULL has a loop of its own, which the synchronous
 *   calls run. It can also be driven from any other loop (poll, epoll, libuv, GLib): watch registry_client_get_fd() for
 *   readability, and call registry_client_dispatch() when it is readable and after starting something.
 *
 * Ownership
 *
 *   What is passed in is copied, unless a function says that it must live until the operation ends. What comes out through
 *   `ret` parameters is the caller's, unless it says "borrowed". Each type has its `_free()` (for pointers) or `_done()`
 *   (for structs you hold yourself), which accept NULL and empty ones, and a `_cleanup_` helper for GNU C. Strings and
 *   byte buffers are freed with free(3). Outputs are written on success only.
 *
 * What the library sees to, so that callers need not:
 *  - every byte that is handed out was checked against the digest that was asked for; sizes, counts and
 *    nesting of what a registry answers are bounded (REGISTRY_*_MAX);
 *  - https, unless registry_client_set_plain_http() named the host or it is a loopback name ("localhost",
 *    "*.localhost", 127.0.0.0/8, [::1]); nothing ever falls back from https to http;
 *  - authentication: Basic and Bearer tokens (fetched, cached until shortly before they expire, shared by
 *    concurrent operations); credentials and tokens go to no other host than the one they belong to, and never
 *    into messages;
 *  - redirects by hand: at most 5, never from https to http, never from a public host to a private address;
 *  - transport errors and 408/429/500/502/503/504 are retried (3 tries, exponential backoff with jitter,
 *    Retry-After honoured up to REGISTRY_RETRY_AFTER_MAX_SEC); a download that breaks off goes on where it
 *    stopped;
 *  - a failed upload is cancelled at the registry; a manifest is pushed only when all it names is there.
 *
 * Errors: functions return 0, a documented positive condition, or a negative errno, and set a TbError (common/error.h:
 * a line for people, who is to act, whether trying later may help). Codes: -ENOENT no such manifest/blob/repository,
 * -EACCES not allowed or credentials missing, -EBADMSG content does not match its digest or size, -EPROTO an answer that
 * breaks the protocol, -EMSGSIZE an answer beyond the limits, -EOPNOTSUPP the registry or we cannot do that, -EAGAIN
 * rate-limited (retryable), -EREMOTEIO other refusals (5xx: retryable), -ECANCELED registry_client_cancel(); of the
 * transport: -ECONNREFUSED, -ECONNRESET, -ETIMEDOUT, -EHOSTUNREACH, -EKEYREJECTED (certificate) and the like.
 */

TB_BEGIN_DECLS

struct json_t;                    /* <jansson.h> */
typedef struct sd_event sd_event; /* <systemd/sd-event.h> */

#define REGISTRY_MANIFEST_MAX (4U * 1024 * 1024) /* distribution-spec: clients should cope with 4 MiB */
#define REGISTRY_LAYERS_MAX 1024U
#define REGISTRY_INDEX_ENTRIES_MAX 1024U
#define REGISTRY_TAGS_MAX 100000U
#define REGISTRY_RETRY_AFTER_MAX_SEC 60U

/* The version of the library that runs, "MAJOR.MINOR.PATCH". */
const char *registry_version(void);

typedef struct RegistryClient RegistryClient;
typedef struct RegistryOp RegistryOp;

/* ---- References --------------------------------------------------------------------------------------- */

/*
 * "nginx", "library/nginx:1.25", "ghcr.io/a/b@sha256:...", "127.0.0.1:5000/x:tag", "[::1]:5000/x". As Docker
 * reads it: the part before the first "/" is a host when it contains "." or ":", is "localhost" or has an
 * upper-case letter; without one the host is docker.io, and a docker.io repository of one component gets
 * "library/" in front. Immutable after parsing.
 */
typedef struct RegistryRef {
        char *host; /* "docker.io", "127.0.0.1:5000"; lower-case, unless only its capitals make it a host */
        char *repository; /* "library/nginx" */
        char *tag;        /* "latest" when neither tag nor digest was given; NULL = only a digest */
        TbDigest digest;  /* unset = none; when set it decides, and the tag is only a name */
} RegistryRef;

/* -EINVAL: breaks the grammar (distribution-spec "name", "reference"); the message says where and why. */
int registry_ref_parse(const char *s, RegistryRef **ret, TbError **err) _warn_unused_;
/* From parts; checks the same grammar. tag and digest may be NULL (both: tag "latest"). No "library/" is
 * added. */
int registry_ref_new(const char *host, const char *repository, const char *tag, const TbDigest *digest,
        RegistryRef **ret, TbError **err) _warn_unused_;
/* Same repository, another tag or digest (either may be NULL, not both). */
int registry_ref_with(const RegistryRef *ref, const char *tag, const TbDigest *digest, RegistryRef **ret,
        TbError **err) _warn_unused_;
/* "host/repository[:tag][@digest]", what registry_ref_parse() reads back. NULL when out of memory. */
char *registry_ref_to_string(const RegistryRef *ref);
/* "host/repository". */
char *registry_ref_name(const RegistryRef *ref);
RegistryRef *registry_ref_free(RegistryRef *ref);
TB_DEFINE_CLEANUP(RegistryRef *, registry_ref_free)

/* ---- Manifests ---------------------------------------------------------------------------------------- */

#define REGISTRY_TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define REGISTRY_TYPE_DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"
#define REGISTRY_TYPE_OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define REGISTRY_TYPE_OCI_INDEX "application/vnd.oci.image.index.v1+json"
#define REGISTRY_TYPE_OCI_ARTIFACT "application/vnd.oci.artifact.manifest.v1+json" /* of image-spec 1.1-rc */
#define REGISTRY_TYPE_DOCKER_CONFIG "application/vnd.docker.container.image.v1+json"
#define REGISTRY_TYPE_OCI_CONFIG "application/vnd.oci.image.config.v1+json"
#define REGISTRY_TYPE_DOCKER_LAYER "application/vnd.docker.image.rootfs.diff.tar.gzip"
#define REGISTRY_TYPE_OCI_LAYER "application/vnd.oci.image.layer.v1.tar+gzip"
#define REGISTRY_TYPE_OCI_EMPTY \
        "application/vnd.oci.empty.v1+json" /* config of artifacts that have none: "{}" */

typedef enum RegistryManifestKind {
        REGISTRY_DOCKER_MANIFEST, /* docker schema 2 */
        REGISTRY_DOCKER_LIST,
        REGISTRY_OCI_MANIFEST,
        REGISTRY_OCI_INDEX,
        REGISTRY_OCI_ARTIFACT, /* no config; its "blobs" are `layers` */
        _REGISTRY_MANIFEST_KIND_MAX,
        _REGISTRY_MANIFEST_KIND_INVALID = -EINVAL,
} RegistryManifestKind;

const char *registry_manifest_kind_to_media_type(RegistryManifestKind kind);
RegistryManifestKind registry_manifest_kind_from_media_type(
        const char *media_type); /* parameters are ignored */

/* "linux/amd64", "linux/arm64/v8", "linux/arm/v7"; variant is NULL when none. */
typedef struct RegistryPlatform {
        char *os;
        char *architecture;
        char *variant;
} RegistryPlatform;

/* -EINVAL. Architectures are normalised: x86_64 -> amd64, aarch64 -> arm64, arm64/v8 -> arm64, arm ->
 * arm/v7. */
int registry_platform_parse(const char *s, RegistryPlatform *ret, TbError **err) _warn_unused_;
/* The machine this runs on: uname(2). */
int registry_platform_host(RegistryPlatform *ret, TbError **err) _warn_unused_;
char *registry_platform_to_string(const RegistryPlatform *p);
void registry_platform_done(RegistryPlatform *p);
#define _cleanup_registry_platform_ _cleanup_(registry_platform_done)

typedef struct RegistryDescriptor {
        char *media_type;
        TbDigest digest;
        uint64_t size;
        RegistryPlatform platform; /* index entries; all NULL = not given */
        bool attestation;          /* index entry that is no image: platform unknown/unknown or a
                                      vnd.docker.reference.type */
        bool foreign;        /* layer that lives elsewhere ("urls", nondistributable): not in the registry */
        char *artifact_type; /* index and referrers entries; NULL = not given */
        struct json_t *annotations; /* (jansson) object of strings, or NULL; shared, read only */
} RegistryDescriptor;

int registry_descriptor_copy(const RegistryDescriptor *d, RegistryDescriptor *ret, TbError **err)
        _warn_unused_;
void registry_descriptor_done(RegistryDescriptor *d);
#define _cleanup_registry_descriptor_ _cleanup_(registry_descriptor_done)

typedef struct RegistryManifest {
        RegistryManifestKind kind;
        TbDigest digest; /* of `data` */
        char *data;      /* the exact bytes; NUL-terminated */
        size_t size;
        struct json_t *json; /* the same, parsed (jansson); read only */

        /* What kind of artifact it is (image-spec manifest.md, "artifactType"): the field, else the config's media type;
         * NULL when neither says more than "image". */
        char *artifact_type;
        /* The manifest this one is about (a signature, an SBOM); digest unset = none. */
        RegistryDescriptor subject;

        /* Image manifests: */
        RegistryDescriptor config;  /* digest unset: REGISTRY_OCI_ARTIFACT */
        RegistryDescriptor *layers; /* bottom first */
        size_t n_layers;
        /* Indexes and lists: */
        RegistryDescriptor *entries;
        size_t n_entries;
} RegistryManifest;

static inline bool registry_manifest_is_index(const RegistryManifest *m)
{
        return m->kind == REGISTRY_DOCKER_LIST || m->kind == REGISTRY_OCI_INDEX;
}

/*
 * Parses the bytes of a manifest. `media_type` is the Content-Type they came with, or NULL when not known
 * (then the document's own mediaType decides, or its shape). Refused with -EBADMSG when both are given and
 * differ, and when a document has the fields of an image and of an index (CVE-2021-41190), -EOPNOTSUPP for
 * schema 1 and unknown types, -EPROTO for broken documents. `expected` may be NULL.
 */
int registry_manifest_parse(const void *data, size_t size, const char *media_type, const TbDigest *expected,
        RegistryManifest **ret, TbError **err) _warn_unused_;
RegistryManifest *registry_manifest_free(RegistryManifest *m);
TB_DEFINE_CLEANUP(RegistryManifest *, registry_manifest_free)

/* The entry for a platform, borrowed: OS and architecture equal, variant equal or, failing that, the best
 * lower one for arm (v7 runs v6, v5), or one without variant. Attestations never match. -ENOENT: the message
 * lists what there is. */
int registry_manifest_select(const RegistryManifest *index, const RegistryPlatform *platform,
        const RegistryDescriptor **ret, TbError **err) _warn_unused_;

/* ---- Client ------------------------------------------------------------------------------------------- */

/* On the caller's loop, or on a new one of its own when event is NULL (synchronous use, and foreign loops). */
int registry_client_new(sd_event *event, RegistryClient **ret, TbError **err) _warn_unused_;
/* All operations must have been freed before. */
RegistryClient *registry_client_free(RegistryClient *c);
TB_DEFINE_CLEANUP(RegistryClient *, registry_client_free)
sd_event *registry_client_event(RegistryClient *c);

/*
 * For loops that are no sd_event, with a client that has a loop of its own:
 *
 *         registry_resolve_start(client, ref, on_done, NULL, &op, &err);
 *         for (;;) {
 *                 while ((r = registry_client_dispatch(client, &err)) > 0)
 *                         ;
 *                 if (r < 0 || over)
 *                         break;
 *                 poll(&(struct pollfd){.fd = registry_client_get_fd(client), .events = POLLIN}, 1, -1);
 *         }
 *
 * The descriptor is the client's, stays the same, and can be put into poll(2), select(2) or an epoll set. It becomes
 * readable for time-outs as well: there is no other time to wait for.
 */
int registry_client_get_fd(const RegistryClient *c);
/* Does what is due without blocking: 1 = a fair share was done and more is due, call again before waiting (other sources
 * of the loop may have their turn between); 0 = wait for the descriptor. To be called after starting or freeing
 * operations as well. Callbacks come from inside; they must not call this, nor a synchronous function. -EBUSY: called from a
 * callback. */
int registry_client_dispatch(RegistryClient *c, TbError **err) _warn_unused_;

/* `host` as in RegistryRef ("registry.example:5000"). Speak plain http with it. */
int registry_client_set_plain_http(RegistryClient *c, const char *host, TbError **err) _warn_unused_;
typedef struct RegistryTls {
        const char *ca_file;     /* PEM; NULL = the system's */
        const char *client_cert; /* PEM, NULL = none */
        const char *client_key;
        bool insecure; /* do not verify: only when the user named this host insecure */
} RegistryTls;
/* TLS settings for one host, which is then spoken to by https, also when it has a loopback name. */
int registry_client_set_tls(RegistryClient *c, const char *host, const RegistryTls *tls, TbError **err)
        _warn_unused_;
/* Where docker(1) keeps TLS settings per registry: DIR/HOST[:PORT]/ with *.crt (CAs, accepted beside the system's) and
 * pairs *.cert + *.key (client certificate; the first pair counts). Looked at when a host is used for the first time;
 * registry_client_set_tls() wins. dir NULL: /etc/docker/certs.d. A file that is there and cannot be used fails the
 * operations on that host: nobody wants to go on without. */
int registry_client_set_certs_dir(RegistryClient *c, const char *dir, TbError **err) _warn_unused_;
/* Reach `host` through a unix socket instead of TCP (plain http on it, unless TLS is set as well). No proxy then. */
int registry_client_set_unix_socket(RegistryClient *c, const char *host, const char *path, TbError **err)
        _warn_unused_;
/*
 * Proxies. By default the environment decides, as for docker(1) (Go's httpproxy): HTTPS_PROXY, HTTP_PROXY, NO_PROXY or
 * the same in lower case; NO_PROXY is a list of names ("example.org" with its subdomains, ".example.org" or
 * "*.example.org" only those), addresses, CIDR blocks, each with an optional port, or "*"; loopback names never use one.
 * This replaces the environment: url NULL or "" = no proxy at all; no_proxy may be NULL. Proxies are http://, https:// or
 * socks5://; a user and password in the URL are sent to the proxy only and appear in no message.
 */
int registry_client_set_proxy(RegistryClient *c, const char *url, const char *no_proxy, TbError **err)
        _warn_unused_;
/* Credentials for one host; they win over those of a config file. */
int registry_client_set_credentials(RegistryClient *c, const char *host, const char *user,
        const char *password, TbError **err) _warn_unused_;
/* The same with a token: a refresh ("identity") token, which is exchanged for access tokens (OAuth2), or a bearer token that
 * is sent as it is. One of the two, the other NULL. */
int registry_client_set_token(RegistryClient *c, const char *host, const char *identity_token,
        const char *registry_token, TbError **err) _warn_unused_;
/* Reads a docker config.json: credHelpers[host], else credsStore, else auths. path NULL: $DOCKER_CONFIG/config.json,
 * else ~/.docker/config.json, and a missing file is fine then. Can be called again; later files win. Credential
 * helpers (docker-credential-NAME) run when a registry asks for credentials, never before; see
 * registry_client_set_helper_path(). */
int registry_client_load_docker_config(RegistryClient *c, const char *path, TbError **err) _warn_unused_;
/* The same from memory; `what` names it in messages. */
int registry_client_add_docker_config(
        RegistryClient *c, const char *data, size_t size, const char *what, TbError **err) _warn_unused_;
/* What the loaded files have for one host, as a config.json with that entry alone: for a process that acts in the caller's
 * name. The helper that a file names is asked now. 1 = *ret is the caller's, and a secret (overwrite it before it is
 * freed); 0 = there is nothing. */
int registry_client_export_credentials(RegistryClient *c, const char *host, char **ret, TbError **err)
        _warn_unused_;
/* Directories, separated by ":", where docker-credential-* programs are looked for; NULL = the absolute ones of $PATH, ""
 * = nowhere (helpers are not run). A program that others than root and we ourselves could have written is not run. */
int registry_client_set_helper_path(RegistryClient *c, const char *path, TbError **err) _warn_unused_;
/* How long one may take before it is killed; 0 = a minute, which is the default: it may ask a person. */
void registry_client_set_helper_timeout(RegistryClient *c, uint64_t usec);
/*
 * Keeps credentials where docker(1) and we find them again: with the helper that the config.json at config_path (NULL: as
 * above) names for the host, else in that file, which is made when missing. Members that we do not know stay; the file is
 * replaced atomically and readable for its owner only. They are not checked: do that with registry_ping() before. *ret_where
 * (may be NULL; the caller's) is for people: the file's path or "docker-credential-NAME".
 */
int registry_store_credentials(RegistryClient *c, const char *config_path, const char *host,
        const char *user, const char *password, char **ret_where, TbError **err) _warn_unused_;
/* Conditions: 1 = forgotten, 0 = there were none. */
int registry_erase_credentials(RegistryClient *c, const char *config_path, const char *host,
        char **ret_where, TbError **err) _warn_unused_;
/* How the host wanted us to authenticate last: "bearer", "basic", or "none" when it has not asked. Static. */
const char *registry_client_auth_scheme(const RegistryClient *c, const char *host);
/* Tries per request (1 = no retry, default 3) and the first backoff (default 1 s; doubled, +-25 % jitter, <=
 * 30 s). */
void registry_client_set_retry(RegistryClient *c, unsigned tries, uint64_t backoff_usec);

/* How we call ourselves to servers; default "tbnode/<version>". -EINVAL: no header value. */
int registry_client_set_user_agent(RegistryClient *c, const char *agent, TbError **err) _warn_unused_;
/* Gets a line for what happens inside (tries that failed): for debugging. `line` is borrowed and holds no secret. */
typedef void (*RegistryDebugFn)(const char *line, void *userdata);
void registry_client_set_debug(RegistryClient *c, RegistryDebugFn fn, void *userdata);
/* Uploads in pieces of so many bytes instead of one stream (distribution-spec "Pushing a blob in chunks"), for registries
 * behind something that limits the size of a request; at least 64 KiB, more when the registry asks for it
 * (OCI-Chunk-Min-Length). 0 (the default) = one stream; uploads of files and buffers then go over to pieces by themselves
 * when they are refused as too large (413). */
void registry_client_set_upload_chunk(RegistryClient *c, uint64_t bytes);
/* A transfer that moves nothing, or less than 1 KiB/s, for so long is broken off and tried again (default 60 s; uploads get three
 * times as long, as a registry may have to hash or move a blob before it answers). Whole seconds, 1 ... 3600. */
void registry_client_set_stall_timeout(RegistryClient *c, uint64_t seconds);

/* Registries tell users things in "Warning: 299 - "text"" headers (distribution-spec "Warnings"). Called from the loop,
 * once per host and text, at most REGISTRY_WARNINGS_MAX times for a client; `text` is fit for a terminal. Without a
 * function they go to registry_client_set_debug(). */
#define REGISTRY_WARNINGS_MAX 32U
typedef void (*RegistryWarningFn)(const char *host, const char *text, void *userdata);
void registry_client_set_warning_handler(RegistryClient *c, RegistryWarningFn fn, void *userdata);

/* What a registry told last about its limits: ratelimit-limit, ratelimit-remaining ("76;w=21600": Docker Hub, on GET and
 * HEAD of manifests), Retry-After of a 429. */
typedef struct RegistryRateLimit {
        uint64_t limit;              /* requests (pulls) per window; UINT64_MAX = not told */
        uint64_t remaining;          /* UINT64_MAX = not told */
        uint64_t window_sec;         /* 0 = not told */
        uint64_t told_at_usec;       /* CLOCK_REALTIME of the answer */
        uint64_t refused_until_usec; /* CLOCK_REALTIME: a 429 asked to wait so long; 0 = none did */
} RegistryRateLimit;
/* 1 = *ret is set, 0 = this registry has told nothing yet. */
int registry_client_get_rate_limit(const RegistryClient *c, const char *host, RegistryRateLimit *ret);
/* The index-th host that told something: its name (borrowed), or NULL behind the last one. */
const char *registry_client_rate_limit_nth(const RegistryClient *c, size_t index, RegistryRateLimit *ret);

/* The sync operation that is running now (or the next one) gives up with -ECANCELED, after closing its uploads at the
 * registry. To be called from the loop: a signal's or timer's event source, a progress callback. */
void registry_client_cancel(RegistryClient *c);

/* Requests and bytes so far, for reports. */
typedef struct RegistryStats {
        uint64_t requests; /* HTTP exchanges, those for tokens included */
        uint64_t retries;
        uint64_t bytes_received; /* bodies */
        uint64_t bytes_sent;
} RegistryStats;
void registry_client_get_stats(const RegistryClient *c, RegistryStats *ret);

/* Programs that hold credentials should leave no core dumps, and be no target of other processes' ptrace(2): makes this
 * process undumpable (PR_SET_DUMPABLE). For main(), before the first secret is read; a library must not decide that. */
int registry_protect_process(TbError **err) _warn_unused_;

/* ---- Operations --------------------------------------------------------------------------------------- */

/* `result` is what the sync form returns: negative errno with `err` set (borrowed), else 0 or the documented condition. Results
 * are read from `op` with the accessors and live until it is freed; the callback may free `op`. */
typedef void (*RegistryDoneFn)(RegistryOp *op, int result, const TbError *err, void *userdata);

/* Cancels when still running (`done` is not called then; an opened upload is closed at the registry in the
 * background). Accepts NULL, returns NULL. */
RegistryOp *registry_op_free(RegistryOp *op);
TB_DEFINE_CLEANUP(RegistryOp *, registry_op_free)
bool registry_op_is_done(const RegistryOp *op);
/* What `done` got, for those who look instead of being called: the result, with *ret_error (borrowed, may be NULL) when it
 * is negative; -EINPROGRESS and no error while the operation runs. */
int registry_op_result(const RegistryOp *op, const TbError **ret_error);
/* For programs that do one thing after another: runs the loop until it is over, and until uploads that were given up are closed
 * (as registry_client_settle() does); returns its result. Other operations go on meanwhile, as they do in calls that block. */
int registry_op_wait(RegistryOp *op, TbError **err) _warn_unused_;
void registry_client_settle(RegistryClient *c);
const RegistryDescriptor *registry_op_descriptor(const RegistryOp *op); /* resolve, put_manifest, copy */
RegistryManifest *registry_op_steal_manifest(RegistryOp *op);           /* get_manifest */
char **registry_op_steal_names(RegistryOp *op);                         /* list_*: registry_names_free() */
char *registry_op_steal_blob(
        RegistryOp *op, size_t *ret_size); /* get_blob: NUL-terminated; NULL = no memory */

/* registry_client_export_credentials() that does not wait: the text by registry_op_steal_blob(), when the result is 1. A helper
 * that was asked within the last minute because the registry wanted credentials is not asked again. */
int registry_client_export_credentials_start(RegistryClient *c, const char *host, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;

/* GET /v2/ with authentication: reachable, speaks the protocol, credentials accepted. */
int registry_ping_start(RegistryClient *c, const char *host, RegistryDoneFn done, void *userdata,
        RegistryOp **ret, TbError **err) _warn_unused_;
int registry_ping(RegistryClient *c, const char *host, TbError **err) _warn_unused_;

/*
 * HEAD manifest: tag -> descriptor (media type, digest, size; a HEAD is no "pull" for Docker Hub's limits).
 * Conditions: 1 = found, 0 = no such tag, manifest or repository (no error object).
 * When the registry sends no digest with HEAD, the manifest is fetched and hashed.
 */
int registry_resolve_start(RegistryClient *c, const RegistryRef *ref, RegistryDoneFn done, void *userdata,
        RegistryOp **ret, TbError **err) _warn_unused_;
int registry_resolve(RegistryClient *c, const RegistryRef *ref, RegistryDescriptor *ret, TbError **err)
        _warn_unused_;

/* GET manifest or index, by digest when the reference has one (then verified), else by tag. -ENOENT when
 * missing. */
int registry_get_manifest_start(RegistryClient *c, const RegistryRef *ref, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;
int registry_get_manifest(RegistryClient *c, const RegistryRef *ref, RegistryManifest **ret, TbError **err)
        _warn_unused_;
/* The image manifest for a platform, through as many indexes as it takes (<= 4). *ret_top (may be NULL) gets
 * what the reference itself named, when that was an index; else it is untouched. The platform of an image
 * that was named directly is not checked (only its config knows it). */
int registry_get_image(RegistryClient *c, const RegistryRef *ref, const RegistryPlatform *platform,
        RegistryManifest **ret, RegistryManifest **ret_top, TbError **err) _warn_unused_;

/*
 * PUT manifest by digest when the reference has one, else by tag. `media_type` must be the document's own.
 * The registry's Docker-Content-Digest must be that of the bytes (-EBADMSG). *ret_digest may be NULL. For a manifest
 * with a subject, a registry that has no referrers API gets its list of referrers (the tag "sha256-<hex>") updated, as
 * distribution-spec "Pushing Manifests with Subject" asks of clients.
 */
int registry_put_manifest_start(RegistryClient *c, const RegistryRef *ref, const char *media_type,
        const void *data, size_t size, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
        _warn_unused_;
int registry_put_manifest(RegistryClient *c, const RegistryRef *ref, const char *media_type,
        const void *data, size_t size, TbDigest *ret_digest, TbError **err) _warn_unused_;

/* Deletes a manifest, and so every tag on it; a reference by tag is resolved first (registries delete by
 * digest). Conditions: 1 = deleted, 0 = was not there. -EOPNOTSUPP: the registry does not allow deletion. */
int registry_delete_manifest_start(RegistryClient *c, const RegistryRef *ref, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;
int registry_delete_manifest(RegistryClient *c, const RegistryRef *ref, TbError **err) _warn_unused_;

/* Lists of names (NULL-terminated) are the caller's: registry_names_free(). */
char **registry_names_free(char **names);
TB_DEFINE_CLEANUP(char **, registry_names_free)
/* Deletes one tag and leaves the manifest (distribution-spec "Deleting tags"). Conditions as above; -EOPNOTSUPP: many
 * registries (docker-registry 2.x) cannot do that, and deleting the manifest instead would take other tags along. */
int registry_delete_tag(RegistryClient *c, const RegistryRef *ref, TbError **err) _warn_unused_;
/* Conditions as above. The registry does not check whether manifests need the blob. */
int registry_delete_blob(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        TbError **err) _warn_unused_;

/*
 * What refers to a manifest: signatures, SBOMs, attestations with it as `subject` (distribution-spec "Listing
 * Referrers"), all pages. `subject` needs a digest. `artifact_type` NULL = all; when the registry does not filter, we
 * do. A registry without the API is asked for the tag "sha256-<hex>" instead; none there is an empty list.
 */
typedef struct RegistryReferrers {
        RegistryDescriptor *entries;
        size_t n_entries;
        bool by_tag; /* from the fallback tag: the registry has no referrers API */
} RegistryReferrers;
int registry_list_referrers(RegistryClient *c, const RegistryRef *subject, const char *artifact_type,
        RegistryReferrers *ret, TbError **err) _warn_unused_;
void registry_referrers_done(RegistryReferrers *r);
#define _cleanup_registry_referrers_ _cleanup_(registry_referrers_done)

/* Tags of a repository, in the registry's order, all pages. -ENOENT: no such repository. */
int registry_list_tags_start(RegistryClient *c, const RegistryRef *repository, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;
int registry_list_tags(RegistryClient *c, const RegistryRef *repository, char ***ret, TbError **err)
        _warn_unused_;
/* Repositories of a registry (its _catalog, where allowed), all pages. */
int registry_list_repositories_start(RegistryClient *c, const char *host, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;
int registry_list_repositories(RegistryClient *c, const char *host, char ***ret, TbError **err)
        _warn_unused_;

/* ---- Blobs (the tag and digest of `repository` are not looked at) ------------------------------------- */

/* HEAD: 1 = there (*ret_size, may be NULL, gets its size; UINT64_MAX = not told), 0 = not. */
int registry_has_blob(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t *ret_size, TbError **err) _warn_unused_;

/* A small blob (config) into memory: at most `max` bytes (-EMSGSIZE), digest and, when size != UINT64_MAX,
 * size verified. *ret_data is NUL-terminated and the caller's. */
int registry_get_blob_start(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t size, size_t max, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
        _warn_unused_;
int registry_get_blob(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t size, size_t max, char **ret_data, size_t *ret_size, TbError **err) _warn_unused_;

/* Takes bytes as they stream; they are NOT verified yet: only the success of the whole operation says they
 * were right. Negative errno with *err set stops it. */
typedef int (*RegistrySinkFn)(const void *data, size_t size, void *userdata, TbError **err);
/* A blob of any size, streamed. An interrupted download goes on where it stopped: each byte is given once. `userdata` is the
 * sink's and done's. */
int registry_read_blob_start(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t size, RegistrySinkFn sink, RegistryDoneFn done, void *userdata, RegistryOp **ret,
        TbError **err) _warn_unused_;
int registry_read_blob(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        uint64_t size, RegistrySinkFn sink, void *userdata, TbError **err) _warn_unused_;

typedef enum RegistryMountResult {
        REGISTRY_MOUNT_MOUNTED,      /* linked from the source repository, nothing moved */
        REGISTRY_MOUNT_EXISTS,       /* the mount was refused, but the target has the blob already */
        REGISTRY_MOUNT_NEEDS_UPLOAD, /* neither: the caller has to upload it */
        _REGISTRY_MOUNT_RESULT_MAX,
} RegistryMountResult;
const char *registry_mount_result_to_string(RegistryMountResult r);

/*
 * Mounts n blobs from another repository of the SAME registry into `target`, in parallel on few connections,
 * one POST each. source_repository NULL: no mount, only look (HEAD). Fills results[n]. Foreign layers are
 * skipped (EXISTS). The start form keeps all these arguments, which must live until the operation is over or freed; with
 * nothing to ask for, it is over at once, and `done` is not called.
 */
int registry_mount_blobs_start(RegistryClient *c, const RegistryRef *target, const char *source_repository,
        const RegistryDescriptor *blobs, size_t n, RegistryMountResult *results, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;
int registry_mount_blobs(RegistryClient *c, const RegistryRef *target, const char *source_repository,
        const RegistryDescriptor *blobs, size_t n, RegistryMountResult *results, TbError **err)
        _warn_unused_;

/* Uploads a blob without asking whether it exists. digest NULL: computed, and given in *ret_digest (may be NULL). The start form
 * does not copy `data`: it must live until the operation is over or freed. */
int registry_put_blob_start(RegistryClient *c, const RegistryRef *repository, const void *data, size_t size,
        const TbDigest *digest, RegistryDoneFn done, void *userdata, RegistryOp **ret, TbError **err)
        _warn_unused_;
int registry_put_blob(RegistryClient *c, const RegistryRef *repository, const void *data, size_t size,
        const TbDigest *digest, TbDigest *ret_digest, TbError **err) _warn_unused_;
/* In two steps: opens the upload session, then (once) sends; `data` as for the start form. One that has failed in between stays
 * failed, one that is freed without having been sent closes its session. */
int registry_put_blob_open_start(RegistryClient *c, const RegistryRef *repository, RegistryDoneFn done,
        void *userdata, RegistryOp **ret, TbError **err) _warn_unused_;
int registry_put_blob_send(
        RegistryOp *op, const void *data, size_t size, const TbDigest *digest, TbError **err) _warn_unused_;
/* From a regular file, all of it; digest NULL: read once more before to compute it. */
int registry_put_blob_fd(RegistryClient *c, const RegistryRef *repository, int fd, const TbDigest *digest,
        TbDigest *ret_digest, uint64_t *ret_size, TbError **err) _warn_unused_;

/* ---- Places ------------------------------------------------------------------------------------------- */

/* Where an image lies or shall lie: in a registry, or in files. */
typedef enum RegistryPlaceKind {
        REGISTRY_PLACE_REGISTRY,   /* "NAME" or "docker://NAME" */
        REGISTRY_PLACE_OCI_LAYOUT, /* "oci:DIR[:TAG]": a directory as image-spec's image-layout.md has it */
        REGISTRY_PLACE_DOCKER_ARCHIVE, /* "docker-archive:FILE[:NAME]": what docker save writes, docker load reads */
        _REGISTRY_PLACE_KIND_MAX,
        _REGISTRY_PLACE_KIND_INVALID = -EINVAL,
} RegistryPlaceKind;

/* Immutable after parsing. */
typedef struct RegistryPlace {
        RegistryPlaceKind kind;
        RegistryRef *ref; /* registry: the image; archive: the name in it, or NULL */
        char *path;       /* the directory or the file; NULL for a registry */
        char *tag;        /* layout: org.opencontainers.image.ref.name, or NULL */
} RegistryPlace;

/* Written as skopeo's transports (containers-transports(5)); a path cannot hold ":". Without TAG or NAME a layout or
 * archive that is read must hold one image only, and one that is written gets an image without a name. An archive's
 * NAME needs a tag or none ("latest"), no digest. -EINVAL. */
int registry_place_parse(const char *s, RegistryPlace **ret, TbError **err) _warn_unused_;
/* A place in a registry; the reference is copied. */
int registry_place_new_registry(const RegistryRef *ref, RegistryPlace **ret, TbError **err) _warn_unused_;
/* What registry_place_parse() reads back; registries without "docker://". NULL when out of memory. */
char *registry_place_to_string(const RegistryPlace *place);
RegistryPlace *registry_place_free(RegistryPlace *place);
TB_DEFINE_CLEANUP(RegistryPlace *, registry_place_free)

/* ---- Copy --------------------------------------------------------------------------------------------- */

typedef enum RegistryCopyHow {
        REGISTRY_COPY_STREAMED, /* downloaded, verified and uploaded */
        REGISTRY_COPY_MOUNTED,  /* linked inside the registry */
        REGISTRY_COPY_EXISTED,  /* the target had it */
        _REGISTRY_COPY_HOW_MAX,
} RegistryCopyHow;

/* A blob that is being moved. */
typedef struct RegistryCopyMoving {
        const RegistryDescriptor *blob;
        uint64_t done;
} RegistryCopyMoving;

typedef struct RegistryCopyProgress {
        uint64_t bytes_total; /* of all blobs known so far */
        uint64_t bytes_done;  /* moved, mounted or found there */
        size_t blobs_total;
        size_t blobs_done;
        const RegistryCopyMoving *moving; /* at most as many as are moved at a time; valid during the call */
        size_t n_moving;
} RegistryCopyProgress;

/*
 * Sees the bytes of layers, as they are or unpacked, while they stream through. For a layer: begin, data..., end. `begin`
 * comes again for the same layer when its transfer had to start over: forget what came before. `end` comes once per distinct
 * layer blob: with STREAMED all bytes were seen and the digest was right; with MOUNTED or EXISTED none were seen (read them
 * with registry_read_blob() from the target). Several layers stream at a time. Any may be NULL; a negative errno with *err set
 * fails the copy. They may block (the transfer then waits).
 */
typedef struct RegistryCopyTap {
        int (*begin)(const RegistryDescriptor *layer, void *userdata, TbError **err);
        int (*data)(const RegistryDescriptor *layer, const void *data, size_t size, void *userdata,
                TbError **err);
        int (*end)(const RegistryDescriptor *layer, RegistryCopyHow how, void *userdata, TbError **err);
        void *userdata;
        /* `data` gets the layer's tar stream: gzip and zstd are unpacked (found out from the bytes). A layer that cannot
         * be unpacked, or only to more than 64 GiB, fails the copy. */
        bool unpacked;
} RegistryCopyTap;

typedef struct RegistryCopyOptions {
        const RegistryPlatform *platform; /* copy this one image out of an index; NULL = everything */
        /* Several: an index of these entries alone (and of their attestations) is made and copied. Excludes `platform`. */
        const RegistryPlatform *platforms;
        size_t n_platforms;
        unsigned parallel; /* blobs at a time, 1..16; 0 = 4 */
        /* A directory (made when missing) for what an interrupted copy had of its larger blobs, so that the next one, also of
         * another process after kill -9, goes on there; several may use one. NULL = nothing is written to disk. */
        const char *state_dir;
        uint64_t state_max; /* bytes of partial blobs to keep there, the oldest go first; 0 = 10 GiB */
        uint64_t state_patience_usec; /* what its first MiB says will be there by then isn't kept; 0 = all */
        bool always_stream; /* stream layers to the tap even when the target has them or could mount */
        bool blobs_only; /* the manifests stay away: the caller looks at what has come before it gets a name, and pushes them
                            itself. The result's `manifest` is what would have been pushed. Registries only */
        /* Of the source, when the caller has read it: neither it nor the target's name is read. Registries, all platforms */
        const RegistryManifest *manifest;
        bool repair; /* look at every blob, also when the target has the manifest already (somebody removed blobs) */
        const RegistryCopyTap *tap; /* NULL = none */
        void (*progress)(const RegistryCopyProgress *p,
                void *userdata); /* at most ~10 times a second, and at the end */
        void *progress_userdata;
} RegistryCopyOptions;

/* What a copy did. */
typedef struct RegistryCopyResult {
        RegistryDescriptor manifest; /* what the target reference names now */
        uint64_t bytes_downloaded;   /* blob and manifest bytes of the source */
        uint64_t bytes_uploaded;
        uint64_t bytes_mounted; /* sizes of blobs that were mounted */
        uint64_t bytes_resumed; /* of blobs: found in the state directory instead of downloaded again */
        size_t blobs_streamed;
        size_t blobs_mounted;
        size_t blobs_existed;
} RegistryCopyResult;
void registry_copy_result_done(RegistryCopyResult *r);
#define _cleanup_registry_copy_result_ _cleanup_(registry_copy_result_done)

/*
 * Copies an image (or a whole index) byte for byte: digests stay the same. Blobs the target has are skipped,
 * within one registry they are mounted, all others are streamed once, several at a time, in constant memory,
 * download and upload at the same time; a blob with a wrong digest or size is cancelled at the target and
 * fails the copy. Manifests go last, children before their index, the target's tag at the very end: a failed
 * copy leaves no new tag.
 *
 * With options->platform, an index at the source is not copied: the platform's image manifest is pushed
 * alone, so that the target names an image that is complete (an index with missing children is refused by
 * most registries, and rewriting it would change its digest anyway). The target digest is then that of the
 * child.
 *
 * A digest in `target` must be the one that is pushed (-EBADMSG).
 */
int registry_copy_start(RegistryClient *c, const RegistryRef *source, const RegistryRef *target,
        const RegistryCopyOptions *options, RegistryDoneFn done, void *userdata, RegistryOp **ret,
        TbError **err) _warn_unused_;
int registry_copy(RegistryClient *c, const RegistryRef *source, const RegistryRef *target,
        const RegistryCopyOptions *options, RegistryCopyResult *ret, TbError **err) _warn_unused_;

/*
 * The same between any two places. Bytes and digests are kept wherever the form allows it:
 *
 *  - to an OCI layout: manifests and blobs as they are. Its index.json names the image last; another image of that
 *    name loses it. Copies of this library may write to one layout at the same time (flock on the directory). An image of
 *    Docker's media types keeps them, and with them its digest; skopeo and umoci do not look for those in a layout.
 *  - to a docker-archive (which must not exist yet, and appears when it is complete): one image; of an index the one
 *    for options->platform, else for this machine. Layers are unpacked from gzip or zstd and checked against the
 *    configuration's diff_ids; the configuration is kept, so the image has the same ID in the engine.
 *  - from a docker-archive: the configuration is kept, layers go as they lie there (mostly not compressed), and a
 *    manifest is made for them. In an archive that is an OCI layout as well (docker 25 and later) manifest.json
 *    decides, as for skopeo and docker load.
 *
 * Files are read and written where they are: blocking, so a daemon does this in a worker. Layouts and archives are as
 * untrusted as registries: sizes and counts are bounded, no symlink of a layout is followed, none of an archive leads
 * out of it, and nothing gets a name in the target before it was checked.
 */
int registry_copy_place_start(RegistryClient *c, const RegistryPlace *source, const RegistryPlace *target,
        const RegistryCopyOptions *options, RegistryDoneFn done, void *userdata, RegistryOp **ret,
        TbError **err) _warn_unused_;
int registry_copy_place(RegistryClient *c, const RegistryPlace *source, const RegistryPlace *target,
        const RegistryCopyOptions *options, RegistryCopyResult *ret, TbError **err) _warn_unused_;
const RegistryCopyResult *registry_op_copy_result(const RegistryOp *op);

TB_END_DECLS

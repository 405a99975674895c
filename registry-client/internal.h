/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Inside the registry client. Layers, each using only those above it:
 *
 *   reference platform manifest challenge docker-config token   pure parsers
 *   url status                                                   policy of targets, answers -> TbError
 *   client                                                       hosts and their settings
 *   auth                                                         credentials, tokens
 *   call                                                         one logical request: auth, redirects, retries
 *   op                                                           RegistryOp, sync waiting
 *   image-ops list download session upload mount copy                    the operations
 */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/buffer.h"
#include "common/http.h"
#include "common/macro.h"
#include "registry-client/registry.h"

#define USEC_PER_SEC 1000000ULL

/* ---- reference.c, platform.c ---- */

bool registry_host_is_valid(const char *host);
bool registry_repository_is_valid(const char *s);
bool registry_tag_is_valid(const char *s);
/* What goes into the URL: the digest, else the tag. */
const char *registry_ref_selector(const RegistryRef *ref);

int registry_platform_init(RegistryPlatform *ret, const char *os, const char *architecture,
        const char *variant, TbError **err) _warn_unused_;
/* 0 = does not run on `want`; higher = fits better. */
unsigned registry_platform_match(const RegistryPlatform *have, const RegistryPlatform *want);

/* ---- manifest.c ---- */

/* -ENOENT: what an index offers instead. */
int registry_manifest_no_platform(
        const RegistryManifest *index, const RegistryPlatform *platform, TbError **err);

/* ---- challenge.c ---- */

typedef enum RegistryAuthScheme { /* in the order of preference */
        REGISTRY_AUTH_NONE,
        REGISTRY_AUTH_BASIC,
        REGISTRY_AUTH_BEARER,
} RegistryAuthScheme;

typedef struct RegistryChallenge {
        RegistryAuthScheme scheme;
        char *realm; /* Bearer: URL of the token server */
        char *service;
        char *scope;
        char *error; /* "insufficient_scope", "invalid_token" */
} RegistryChallenge;

/* Parses one header value and replaces *best when it holds a better challenge. -EPROTO, -EMSGSIZE. */
int registry_challenge_parse(const char *header, RegistryChallenge *best, TbError **err) _warn_unused_;
void registry_challenge_done(RegistryChallenge *c);
#define _cleanup_registry_challenge_ _cleanup_(registry_challenge_done)

/* ---- token.c ---- */

typedef struct RegistryTokenAnswer {
        char *token;         /* fit for a header line; registry_secret_free() */
        char *refresh_token; /* NULL = none came */
        uint64_t
                expires_sec; /* from now: 60 ... 86400, less only when the answer was old already (issued_at) */
} RegistryTokenAnswer;

/* The token server's answer (distribution, docs/spec/auth/token.md, oauth.md). `date` is its Date header or NULL: with it,
 * issued_at tells how old the answer is by the server's own clock, so that ours does not matter. */
int registry_token_parse(const char *body, size_t size, const char *date, RegistryTokenAnswer *ret,
        TbError **err) _warn_unused_;
void registry_token_answer_done(RegistryTokenAnswer *a);
/* "2009-11-10T23:00:00.123Z", "...+02:00" (RFC 3339) to seconds since the epoch; false = not a time. */
bool registry_parse_rfc3339(const char *s, int64_t *ret);
/* "Wed, 21 Oct 2015 07:28:00 GMT" (RFC 9110 5.6.7). */
bool registry_parse_http_date(const char *s, int64_t *ret);

/* ---- docker-config.c ---- */

#define REGISTRY_HUB_KEY "https://index.docker.io/v1/" /* the Hub's name in docker's credential stores */

typedef struct RegistryCredentials {
        struct RegistryCredentials *next;
        char *host; /* as in RegistryRef */
        unsigned rank;
        char *user, *password; /* password, identity_token, registry_token: registry_secret_keep() */
        char *identity_token;  /* a refresh token: buys access tokens (OAuth2) */
        char *registry_token;  /* a bearer token as it is */
} RegistryCredentials;
RegistryCredentials *registry_credentials_free(RegistryCredentials *list);
TB_DEFINE_CLEANUP(RegistryCredentials *, registry_credentials_free)

typedef struct RegistryHelperEntry {
        struct RegistryHelperEntry *next;
        char *host, *name;
} RegistryHelperEntry;

typedef struct RegistryDockerConfig {
        struct RegistryDockerConfig *next; /* an earlier file */
        RegistryCredentials *auths;
        RegistryHelperEntry *helpers;
        char *store; /* credsStore; NULL = none */
} RegistryDockerConfig;

/* `what` names it in messages. */
int registry_docker_config_parse(const char *data, size_t size, const char *what, RegistryDockerConfig **ret,
        TbError **err) _warn_unused_;
RegistryDockerConfig *registry_docker_config_free(RegistryDockerConfig *list);
TB_DEFINE_CLEANUP(RegistryDockerConfig *, registry_docker_config_free)
/* What one file says about a host: a helper that must be asked first (*ret_helper, NULL = none), and an entry or NULL. */
const RegistryCredentials *registry_docker_config_find(
        const RegistryDockerConfig *config, const char *host, const char **ret_helper);
bool registry_helper_name_is_valid(const char *name);
char *registry_base64_encode(const void *data, size_t size);
/* Strict alphabet, padding optional. -EINVAL. */
int registry_base64_decode(const char *s, char **ret, size_t *ret_size, TbError **err) _warn_unused_;

/* ---- secret.c ---- */

/* On the heap, overwritten when freed; accepts NULL, returns NULL. */
char *registry_secret_free(char *s);
static inline void registry_secret_freep(char **s)
{
        (void) registry_secret_free(*s);
}
#define _cleanup_secret_ _cleanup_(registry_secret_freep)
/* A copy in pages that core dumps leave out; NULL when out of memory. Only registry_secret_drop() frees it. */
char *registry_secret_keep(const char *s);
char *registry_secret_drop(char *s);
/* Overwrites every string of a document that nobody else refers to, and drops it. */
void registry_json_wipe(json_t *j);
static inline void registry_json_wipep(json_t **j)
{
        if (*j)
                registry_json_wipe(*j);
}

/* ---- helper.c ---- */

typedef struct RegistryHelperRun RegistryHelperRun;
typedef struct RegistryHelperAnswer {
        bool not_found;     /* the helper has nothing for this host */
        const char *output; /* its stdout, NUL-terminated */
        size_t output_size;
} RegistryHelperAnswer;
typedef void (*RegistryHelperDoneFn)(
        RegistryHelperRun *run, const RegistryHelperAnswer *answer, const TbError *err, void *userdata);

/* Runs "docker-credential-NAME VERB" with `input` on its stdin. `path`: where to look, NULL = $PATH. `timeout_usec`: 0 = a
 * minute. `done` comes from the
 * loop, once, with an answer or an error; it may free the run. */
int registry_helper_start(sd_event *event, const char *path, uint64_t timeout_usec, const char *name,
        const char *verb, const char *input, RegistryHelperDoneFn done, void *userdata,
        RegistryHelperRun **ret, TbError **err) _warn_unused_;
/* Kills it when it still runs. */
RegistryHelperRun *registry_helper_free(RegistryHelperRun *run);
/* The answer to "get": {"ServerURL":..., "Username":..., "Secret":...}; user "<token>" = an identity token. Fills the secret
 * fields of *ret. */
int registry_helper_answer_parse(const char *data, size_t size, RegistryCredentials *ret, TbError **err)
        _warn_unused_;
/* How helpers call a host: REGISTRY_HUB_KEY for docker.io. */
const char *registry_helper_server(const char *host);

/* ---- range.c ---- */

typedef struct RegistryContentRange {
        uint64_t first, last; /* inclusive */
        uint64_t total;       /* UINT64_MAX = "*" */
} RegistryContentRange;
/* "bytes 0-99/200" (RFC 9110 14.4), of an answer 206. */
bool registry_content_range_parse(const char *header, RegistryContentRange *ret);
/* "0-499" of an upload session: 500 bytes are there (distribution-spec "Pushing a blob in chunks"). -EAGAIN: "0-0", which
 * docker-registry says of an empty session as well as of one with one byte; -EPROTO. */
int registry_upload_range_parse(const char *header, uint64_t *ret_count);

/* ---- url.c ---- */

/* Resolves `location` (absolute or relative) against `base`. Refuses what is no plain http(s) URL. */
int registry_url_resolve(const char *base, const char *location, char **ret, TbError **err) _warn_unused_;
/* Appends "name=value" to the query, value escaped; everything else stays as it is. */
int registry_url_add_query(const char *url, const char *name, const char *value, char **ret, TbError **err)
        _warn_unused_;
/* Appends "name=value", with "&" where needed, to a form (application/x-www-form-urlencoded). */
int registry_form_add(TbBuffer *b, const char *name, const char *value, TbError **err) _warn_unused_;
/* Same scheme, host and port. */
bool registry_url_same_origin(const char *a, const char *b);
/* "host" or "host:port" (only a port that is not the scheme's default), lower-case. NULL when it cannot be parsed. */
char *registry_url_authority(const char *url);
bool registry_url_is_https(const char *url);
/* Without brackets; the port is the scheme's own when none is given. The caller frees both, also on failure. */
bool registry_url_host_port(const char *url, char **ret_host, char **ret_port);
/* "https://host/path", for messages: without the query, which may hold signatures, and without user info. */
char *registry_url_for_people(const char *url);
/* Names and literal addresses that are the machine itself / that are not reachable from the internet. */
bool registry_host_is_loopback(const char *authority);
bool registry_host_is_private(const char *authority);
struct sockaddr;
bool registry_address_is_private(const struct sockaddr *address);
/* The target of a `Link: <...>; rel="next"` header (RFC 8288), or 0 when there is none. */
int registry_link_next(const char *header, char **ret, TbError **err) _warn_unused_;

/* ---- client.c ---- */

typedef struct RegistryToken RegistryToken;
typedef struct RegistryCall RegistryCall;

typedef struct RegistryHost {
        struct RegistryHost *next;
        char *name;      /* as in RegistryRef */
        char *authority; /* whom we talk to: registry-1.docker.io for docker.io */
        bool plain_http;
        char *ca_file, *ca_pem, *client_cert, *client_key;
        bool insecure;
        bool tls_given;    /* by registry_client_set_tls() */
        bool certs_loaded; /* the certs directory was looked at */
        char *unix_socket;
        RegistryRateLimit rate_limit;
        bool has_rate_limit;
        bool seen_private;           /* a connection to it went to a private address */
        RegistryChallenge challenge; /* what it asked for last; scheme NONE = nothing so far */

        /* credentials.c: the helper that knows this host's credentials */
        RegistryHelperRun *helper_run;
        RegistryCredentials *helper_credentials; /* NULL = it knows none */
        TbError *helper_error;                   /* why it could not say */
        uint64_t helper_asked_usec;
        RegistryCall **helper_waiters; /* holes are NULL */
        size_t n_helper_waiters;
} RegistryHost;
typedef struct RegistryClosing RegistryClosing;
typedef struct RegistryShare RegistryShare;

typedef struct RegistryProxy {
        char *http, *https; /* for URLs of these schemes; NULL = none; secret */
        char *no_proxy;
        TbError *error; /* what was wrong with the environment's */
} RegistryProxy;

struct RegistryClient {
        sd_event *event;
        TbHttp *http;
        RegistryHost *hosts;
        RegistryCredentials *explicit_credentials;
        RegistryDockerConfig *configs; /* the last one loaded first */
        char *helper_path;             /* NULL = $PATH */
        uint64_t helper_timeout_usec;  /* 0 = a minute */
        char *certs_dir;               /* NULL = not looked at */
        RegistryProxy proxy;
        struct RegistryPutOp
                *subject_updates; /* put-manifest.c: one at a time changes a list of referrers */
        char **warnings;          /* that were told */
        RegistryWarningFn warning;
        void *warning_userdata;
        uint64_t stall_sec;
        uint64_t upload_chunk; /* 0 = uploads are one stream */
        RegistryToken *tokens;
        size_t n_tokens;
        RegistryClosing *closing; /* upload sessions being closed in the background */
        RegistryShare *shares;    /* share.c */
        size_t n_shares;
        unsigned tries;
        uint64_t backoff_usec;
        RegistryStats stats;
        bool cancelled; /* whoever waits for an operation is to give it up */
        RegistryDebugFn debug;
        void *debug_userdata;
};

int registry_client_get_host(RegistryClient *c, const char *name, RegistryHost **ret, TbError **err)
        _warn_unused_;
/* The settings of whoever answers at `authority`, or NULL. */
RegistryHost *registry_client_find_authority(RegistryClient *c, const char *authority);
/* "https://host/v2/" + path. NULL when out of memory. */
char *registry_host_url(const RegistryHost *h, const char *path_format, ...) _printf_(2, 3);
/* How long to wait before try number `attempt` + 1 (attempt counts from 1). */
uint64_t registry_client_backoff(const RegistryClient *c, unsigned attempt, uint64_t retry_after_usec);

/* A line for registry_client_set_debug(). */
void registry_client_debug(const RegistryClient *c, const char *fmt, ...) _printf_(2, 3);

/* ---- proxy.c ---- */

int registry_proxy_from_environment(RegistryProxy *p, TbError **err) _warn_unused_;
/* *ret is borrowed; "" = none. */
int registry_proxy_for(const RegistryProxy *p, const char *url, const char **ret, TbError **err)
        _warn_unused_;
/* host without brackets. */
bool registry_no_proxy_matches(const char *list, const char *host, const char *port);
void registry_proxy_done(RegistryProxy *p);

/* ---- certs.c ---- */

/* Looks into the certs directory once per host. */
int registry_host_load_certs(const RegistryClient *c, RegistryHost *h, TbError **err) _warn_unused_;

/* ---- notices.c ---- */

/* An answer of the registry itself: its warnings are told, its limits noted. */
void registry_notices_take(RegistryClient *c, RegistryHost *h, const TbHttpRequest *r);
/* The next warning that is for users of a Warning header, unquoted, the caller's; *p moves. 1, 0 = no more, -EPROTO. */
int registry_warning_next(const char **p, char **ret);
/* "100;w=21600"; *ret_window 0 = none given. */
bool registry_ratelimit_parse(const char *s, uint64_t *ret_count, uint64_t *ret_window);

/* ---- credentials.c ---- */

/* What is known now; a helper that was not asked yet is not counted. NULL = none. */
const RegistryCredentials *registry_client_find_credentials(const RegistryClient *c, const char *host);
/* The helper was asked about the host not long ago: its credentials (NULL = it knows none), or why it could not say. Borrowed. */
bool registry_credentials_recent(const RegistryClient *c, const char *host, const RegistryCredentials **ret,
        const TbError **ret_error);
/* A host wants credentials: 1 = what there is can be found now, 0 = a helper was asked,
 * registry_call_credentials_ready() comes later. `refused`: those that were sent were not accepted. */
int registry_credentials_prepare(
        RegistryClient *c, RegistryHost *h, RegistryCall *call, bool refused, TbError **err) _warn_unused_;
void registry_credentials_forget_call(RegistryClient *c, const RegistryCall *call);
void registry_credentials_host_done(RegistryHost *h);

/* ---- call.c ---- */

typedef struct RegistryCallOptions {
        RegistryHost *host; /* whose settings and credentials; required */
        const char *method;
        const char *url;            /* absolute */
        const char *const *headers; /* NULL-terminated, NULL = none */
        const char *scopes[2];      /* "repository:name:pull,push"; the more powerful first */
        const char *authorization;  /* used as it is, for this origin only; no challenge is answered then */
        const void *body;           /* copied */
        size_t body_size;
        TbHttpReadFn read; /* streamed request body of read_size bytes */
        void *read_userdata;
        uint64_t read_size;
        /* Gets body bytes of 2xx answers, as TbHttpWriteFn; NULL = collected. */
        ssize_t (*write)(RegistryCall *call, const void *data, size_t size, void *userdata);
        /* Called before every try but the first: rewinds, and may add headers. A call that streams and has none is
         * not tried again once it was sent. */
        int (*again)(RegistryCall *call, char ***headers, void *userdata, TbError **err);
        bool prepare;           /* call it before the first try, too */
        size_t response_max;    /* of collected 2xx bodies; 0 = 1 MiB */
        unsigned tries;         /* 0 = the client's */
        bool again_on_digest;   /* a 400 with DIGEST_INVALID is worth another try; see call.c */
        uint64_t timeout_usec;  /* of one try; 0 = none, stalls are noticed after low_speed_sec */
        uint64_t low_speed_sec; /* 0 = the client's */
        /* The answer is there, whatever its status (err == NULL), or it could not be had. The callback may free the
         * call. */
        void (*done)(RegistryCall *call, const TbError *err, void *userdata);
        void *userdata;
} RegistryCallOptions;

/* `done` comes from the loop only. */
int registry_call_start(RegistryClient *c, const RegistryCallOptions *options, RegistryCall **ret,
        TbError **err) _warn_unused_;
RegistryCall *registry_call_free(RegistryCall *call);
TB_DEFINE_CLEANUP(RegistryCall *, registry_call_free)
unsigned registry_call_status(const RegistryCall *call);
const char *registry_call_header(const RegistryCall *call, const char *name);
/* The collected body (of an error status: at most its first 64 KiB); never NULL. */
const char *registry_call_body(const RegistryCall *call, size_t *ret_size);
const char *registry_call_url(const RegistryCall *call); /* the last one, after redirects */
RegistryHost *registry_call_host(const RegistryCall *call);
RegistryClient *registry_call_client(const RegistryCall *call);
void registry_call_resume(RegistryCall *call);
/* From inside write: these bytes are new, the call got further than in any try before. */
void registry_call_progress(RegistryCall *call);
/* From inside write or the read function: why it is going to fail. Takes ownership. */
void registry_call_abort_reason(RegistryCall *call, TbError *err);
/* For auth.c: the token came (authorization header value, secret) or could not be had. */
void registry_call_token_ready(RegistryCall *call, const char *token, const TbError *err);
/* For credentials.c: the helper has answered. */
void registry_call_credentials_ready(RegistryCall *call);
/* Overwrites the collected body: it held a secret. */
void registry_call_wipe_body(RegistryCall *call);
/* May a registry send us from one URL to the other (Location, Link)? Not from https to http, not to unmarked http hosts,
 * not from a public registry to a private address. */
int registry_call_check_target(RegistryClient *c, const RegistryHost *host, const char *from, const char *to,
        TbError **err) _warn_unused_;
/* Another owner takes a request over while it runs: its body goes on with `read`, its end is reported to `done`, it is
 * not tried again. False: it is not under way, and can only be freed. */
bool registry_call_take_over(RegistryCall *call, TbHttpReadFn read,
        void (*done)(RegistryCall *call, const TbError *err, void *userdata), void *userdata);

/* ---- auth.c ---- */

/*
 * Gives `call` a bearer token for the host's last challenge and these scopes: 1 = at hand (*ret, borrowed until the
 * next return to the loop), 0 = registry_call_token_ready() comes later. `stale`, when not NULL, is a token that was
 * just refused: a cached one that equals it is not given again.
 */
int registry_auth_get_token(RegistryClient *c, RegistryHost *host, char *const *scopes, const char *stale,
        RegistryCall *call, const char **ret, TbError **err) _warn_unused_;
/* "repository:x:pull" is covered by "repository:x:pull,push". */
bool registry_scope_is_covered(char *const *scopes, const char *scope);
/* The call does not want it any more. */
void registry_auth_forget_call(RegistryClient *c, const RegistryCall *call);
/* "Basic ..." for the host; *ret NULL when there are no credentials. Secret. */
int registry_auth_basic(RegistryClient *c, const RegistryHost *host, char **ret, TbError **err)
        _warn_unused_;
void registry_auth_free_tokens(RegistryClient *c);

/* ---- status.c ---- */

/* Makes the error for an answer that is not what the caller wanted: "<host>: <fmt>: <why>; <advice>". */
int registry_status_error(const RegistryCall *call, TbError **err, const char *fmt, ...) _printf_(3, 4);
/* From the parts; `body` is the answer's. */
int registry_status_error_full(const char *host, unsigned status, const char *body, size_t size,
        const char *retry_after, const char *what, TbError **err);
bool registry_status_is_retryable(unsigned status);
/* Retry-After: delay-seconds or HTTP-date (RFC 9110 10.2.3); 0 = absent or not understood. */
uint64_t registry_retry_after_usec(const char *header);
/* The first code and message of {"errors":[...]}, made fit for people; NULL when there are none. */
char *registry_error_text(const char *body, size_t size);

/* ---- op.c ---- */

struct RegistryOp {
        RegistryClient *client;
        RegistryDoneFn done_fn;
        void *userdata;
        bool done;
        int result;
        TbError *error;
        void (*destroy)(RegistryOp *op); /* releases what the operation's own struct holds, not op itself */
        RegistryDescriptor descriptor;
        RegistryManifest *manifest;
        RegistryCopyResult copy;
        char **names;  /* list_tags, list_repositories */
        TbBuffer blob; /* get_blob */
};

/* Allocates `size` >= sizeof(RegistryOp), zeroed. */
void *registry_op_new(RegistryClient *c, size_t size, void (*destroy)(RegistryOp *), RegistryDoneFn done,
        void *userdata, TbError **err);
/* The operation is over; `err` is taken. The op may be gone afterwards. */
void registry_op_finish(RegistryOp *op, int result, TbError *err);
void registry_op_fail(RegistryOp *op, const TbError *err);

/* ---- list.c ---- */

#define REGISTRY_PAGES_MAX 1000U
typedef struct RegistryPages {
        uint64_t *hashes; /* of the URLs that were asked for; free() */
        size_t n;
} RegistryPages;
/* The URL of the next page after the answer of `call`, which names it `target`: checked as a redirect is, never one that
 * was asked for (-ELOOP). */
int registry_pages_next(RegistryPages *seen, const RegistryCall *call, const char *target, char **ret,
        TbError **err) _warn_unused_;

/* ---- referrers.c ---- */

/* "sha256-<hex>": where the referrers of a manifest are listed in a registry without the API. NULL: out of memory. */
char *registry_referrers_tag(const TbDigest *digest);
/* An index that lists referrers, with one more: new bytes, or NULL when it is listed already. `index` NULL = an empty one.
 * `entry` is borrowed. */
int registry_referrers_add(const RegistryManifest *index, json_t *entry, char **ret, size_t *ret_size,
        TbError **err) _warn_unused_;
/* How a manifest is listed there. */
int registry_referrers_entry(const RegistryManifest *m, json_t **ret, TbError **err) _warn_unused_;
/* One page of an answer: adds what has this type (NULL = all) to the list. -EPROTO: no index. */
int registry_referrers_take(RegistryReferrers *list, const char *body, size_t size, const char *content_type,
        const char *artifact_type, TbError **err) _warn_unused_;

/* ---- download.c ---- */

typedef struct RegistryDownload RegistryDownload;
typedef struct RegistryDownloadOptions {
        const RegistryRef *repository;
        TbDigest digest;
        uint64_t size;      /* UINT64_MAX = not known */
        uint64_t max;       /* -EMSGSIZE beyond */
        uint64_t position;  /* begin there; needs sink_verifies */
        bool sink_verifies; /* digest and the final size are looked at by the sink */
        /* 0 = all taken, TB_HTTP_PAUSE = none, other negative errno = stop, with *err set. */
        ssize_t (*sink)(const void *data, size_t size, void *userdata, TbError **err);
        /* err == NULL: every byte was given to the sink and the digest is right. */
        void (*done)(RegistryDownload *d, const TbError *err, void *userdata);
        void *userdata;
} RegistryDownloadOptions;

int registry_download_start(RegistryClient *c, const RegistryDownloadOptions *options,
        RegistryDownload **ret, TbError **err) _warn_unused_;
RegistryDownload *registry_download_free(RegistryDownload *d);
void registry_download_resume(RegistryDownload *d);

/* ---- upload.c ---- */

typedef struct RegistryUpload RegistryUpload;

typedef enum RegistryUploadEvent {
        REGISTRY_UPLOAD_OPENED,  /* the registry waits for bytes: registry_upload_send() */
        REGISTRY_UPLOAD_MOUNTED, /* nothing to send */
        REGISTRY_UPLOAD_DONE,    /* the registry has the blob */
        REGISTRY_UPLOAD_FAILED,  /* err says why; nothing is left behind */
} RegistryUploadEvent;

typedef struct RegistryUploadOptions {
        const RegistryRef *repository;
        TbDigest digest;
        const char *mount_from; /* repository to mount from, or NULL */
        const char *session;    /* go on with this session if it is still there (copied), or NULL */
        uint64_t
                size; /* of the blob, 0 = not known; needed with `session` and `resumable`, and for pieces */
        /* When it fails so that trying again may help, the session is left for registry_upload_take_session(). */
        bool resumable;
        /* The next `read` gives what stands at `position`; NULL = the bytes can be had only once. With it, an upload goes on
         * by itself after a token that ran out and after a piece that was too large or was taken in part. */
        int (*seek)(uint64_t position, void *userdata, TbError **err);
        /* The callback may free the upload. */
        void (*event)(RegistryUpload *u, RegistryUploadEvent event, const TbError *err, void *userdata);
        void *userdata;
} RegistryUploadOptions;

/* Opens an upload session (POST), with a mount tried in the same request. */
int registry_upload_start(RegistryClient *c, const RegistryUploadOptions *options, RegistryUpload **ret,
        TbError **err) _warn_unused_;
/* After OPENED: how many bytes of the blob the session has already. */
uint64_t registry_upload_offset(const RegistryUpload *u);
/* After OPENED: the session's URL, borrowed. */
const char *registry_upload_session(const RegistryUpload *u);
/* The session's URL, the caller's; the registry keeps it open. NULL = there is none. */
char *registry_upload_take_session(RegistryUpload *u);
/* After OPENED, when it was not known before. */
void registry_upload_set_digest(RegistryUpload *u, const TbDigest *digest);
/* After OPENED: one PATCH with the bytes from the offset on that `read` gives until it returns 0 (it gets the options'
 * userdata), then the PUT that commits. `read` returns 0 only when all bytes were given and are right. */
int registry_upload_send(RegistryUpload *u, TbHttpReadFn read, TbError **err) _warn_unused_;
/* After OPENED: a small blob, copied, in the committing PUT itself. */
int registry_upload_send_small(RegistryUpload *u, const void *data, size_t size, TbError **err)
        _warn_unused_;
#define REGISTRY_UPLOAD_SMALL (128U * 1024)
#define REGISTRY_CHUNK_MIN (64U * 1024)
void registry_upload_resume(RegistryUpload *u);
/* Closes an open session at the registry, in the background. */
RegistryUpload *registry_upload_free(RegistryUpload *u);
/* The session's new Location from an answer, checked: 1 = *ret is the caller's, 0 = the answer has none. */
int registry_upload_location(RegistryClient *c, const RegistryHost *host, const RegistryCall *call,
        char **ret, TbError **err) _warn_unused_;

/* ---- share.c ---- */

void registry_client_forget_shares(RegistryClient *c);

/* ---- session.c ---- */

/* Takes `location` (NULL = not known yet) and `call` (NULL = none is under way). */
void registry_session_close(
        RegistryClient *c, RegistryHost *host, const char *scope, char *location, RegistryCall *call);
void registry_client_stop_closing(RegistryClient *c);

/* ---- blob-ops.c ---- */

/* HEAD blob; `done` asks registry_blob_head_result(). */
int registry_blob_head(RegistryClient *c, const RegistryRef *repository, const TbDigest *digest,
        void (*done)(RegistryCall *call, const TbError *err, void *userdata), void *userdata,
        RegistryCall **ret, TbError **err) _warn_unused_;
/* 1 = there (*ret_size, may be NULL; UINT64_MAX = not told), 0 = not there. */
int registry_blob_head_result(
        const RegistryCall *call, const TbDigest *digest, uint64_t *ret_size, TbError **err) _warn_unused_;

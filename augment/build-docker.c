/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/build-docker.h"
#include "augment/cache.h"
#include "augment/docker-context.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

/* An empty X-Registry-Auth ("{}" in base64): the engine insists on the header. */
#define AUTH_ANONYMOUS "e30="

typedef enum BuildState {
        BUILD_PROBE,   /* does the engine have the key's name already? then it stays afterwards */
        BUILD_BUILD,   /* POST /build; the name exists when it ends well */
        BUILD_PUSH,    /* POST /push of the name */
        BUILD_READ,    /* the manifest that was pushed, from the registry */
        BUILD_TAG,     /* the moving tag gets the same manifest */
        BUILD_CLEANUP, /* the engine forgets the name; then the parts of a build that failed */
        BUILD_DONE,    /* `done` was called */
} BuildState;

struct AugmentDockerBuild {
        TbEngine *engine;
        RegistryClient *registry;
        AugmentRequest request;
        AugmentResult result;
        AugmentNames names;
        RegistryRef *key, *moving;
        char *name; /* "host/repository:k-..." */
        char *auth_header;
        DockerContext *context;

        BuildState state;
        uint64_t started_us;
        bool name_was_there, name_made;
        TbDigest pushed;
        unsigned steps;      /* images that the classic builder has announced (" ---> id") */
        char last_image[65]; /* the last of them */
        bool leftovers_removed;
        TbError *error; /* why it fails; reported after the clean-up */

        TbEngineRequest *call;
        RegistryOp *op;
        sd_event_source *later; /* nothing to build: the end is announced from the loop all the same */
        AugmentDockerProgressFn progress;
        AugmentDockerBuildFn done;
        void *userdata;
};

static int build_next(AugmentDockerBuild *b, BuildState state, TbError **err);

static void build_finish(AugmentDockerBuild *b)
{
        _cleanup_error_ TbError *error = TAKE_PTR(b->error);

        b->state = BUILD_DONE;
        if (!b->result.as_is)
                b->result.timings.push = tb_now_us() - b->started_us - b->result.timings.build;
        b->result.timings.total += tb_now_us() - b->started_us;
        if (error)
                tb_error_prefix(&error, "cannot build image %s with docker", b->result.source_name);
        b->done(b, error ? NULL : &b->result, error, b->userdata);
}

/* Takes the error; the first one counts. After a failed clean-up there is nothing more to do. */
static void build_fail(AugmentDockerBuild *b, TbError *error)
{
        TbError *ignored = NULL;

        if (!b->error)
                b->error = error;
        else
                tb_error_free(error);
        if (build_next(b, BUILD_CLEANUP, &ignored) < 0) {
                tb_error_free(ignored);
                build_finish(b);
        }
}

static void build_go(AugmentDockerBuild *b, BuildState state)
{
        TbError *error = NULL;

        if (build_next(b, state, &error) < 0)
                build_fail(b, error);
}

static void build_drop_call(AugmentDockerBuild *b)
{
        b->call = tb_engine_request_free(b->call);
}

static void on_probed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        AugmentDockerBuild *b = userdata;
        TbError *error = tb_error_copy(err); /* `err` is the call's */

        build_drop_call(b);
        if (error && status != 404) {
                build_fail(b, error);
                return;
        }
        b->name_was_there = !error;
        tb_error_free(error);
        build_go(b, BUILD_BUILD);
}

/* " ---> 0123456789ab": the image that a step of the classic builder made. */
static void note_image(AugmentDockerBuild *b, const char *text)
{
        const char *id = tb_startswith(text, " ---> ");
        size_t n;

        if (!id)
                return;
        n = strspn(id, "0123456789abcdef");
        if (n < 12 || n >= sizeof(b->last_image) || id[n + strspn(id + n, "\r\n")] != 0)
                return;
        memcpy(b->last_image, id, n);
        b->last_image[n] = 0;
        b->steps++;
}

/* One line of /build and /push (api/types: jsonmessage.JSONMessage). */
static int on_line(TbEngineRequest *r, const json_t *line, void *userdata, TbError **err)
{
        AugmentDockerBuild *b = userdata;
        const char *failure = json_string_value(json_object_get(line, "error"));
        const char *text = json_string_value(json_object_get(line, "stream"));
        const char *digest = json_string_value(json_object_get(json_object_get(line, "aux"), "Digest"));

        if (!failure)
                failure =
                        json_string_value(json_object_get(json_object_get(line, "errorDetail"), "message"));
        if (failure) {
                _cleanup_free_ char *shown = tb_escape(failure, 1024);

                return tb_error_set(
                        err, TB_ERROR_REMOTE, -EREMOTEIO, "the engine says: %s", shown ? shown : "?");
        }
        if (b->state == BUILD_PUSH && digest)
                return tb_digest_parse(digest, &b->pushed, err);
        if (!text)
                text = json_string_value(json_object_get(line, "status"));
        if (!text)
                return 0;
        note_image(b, text);
        if (b->progress && text[strspn(text, " \r\n")]) {
                _cleanup_free_ char *copy = strdup(text);

                if (copy) {
                        copy[strcspn(copy, "\r\n")] = 0;
                        b->progress(b, copy, b->userdata);
                }
        }
        return 0;
}

static ssize_t on_context(TbEngineRequest *r, void *buf, size_t size, void *userdata)
{
        AugmentDockerBuild *b = userdata;

        return docker_context_read(b->context, buf, size);
}

static void on_built(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        AugmentDockerBuild *b = userdata;
        TbError *error = tb_error_copy(err);

        build_drop_call(b);
        if (error) {
                build_fail(b, error);
                return;
        }
        b->name_made = true;
        b->result.timings.build = tb_now_us() - b->started_us;
        build_go(b, BUILD_PUSH);
}

static void on_pushed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        AugmentDockerBuild *b = userdata;
        TbError *error = tb_error_copy(err);

        build_drop_call(b);
        if (error) {
                build_fail(b, error);
        } else if (!tb_digest_is_set(&b->pushed)) {
                (void) tb_error_set(
                        &error, TB_ERROR_REMOTE, -EPROTO, "the engine pushed but named no digest");
                build_fail(b, error);
        } else {
                b->result.digest = b->pushed;
                build_go(b, b->moving ? BUILD_READ : BUILD_CLEANUP);
        }
}

static void on_tagged(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentDockerBuild *b = userdata;
        TbError *error = tb_error_copy(err);

        b->op = registry_op_free(b->op);
        if (error)
                build_fail(b, error);
        else
                build_go(b, BUILD_CLEANUP);
}

static void on_read(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        AugmentDockerBuild *b = userdata;
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        TbError *error = NULL;

        if (result < 0) {
                error = tb_error_copy(err);
                b->op = registry_op_free(b->op);
                build_fail(b, error);
                return;
        }
        m = registry_op_steal_manifest(op);
        b->op = registry_op_free(b->op);
        if (!tb_digest_equal(&m->digest, &b->pushed)) {
                (void) tb_error_set(&error, TB_ERROR_REMOTE, -EBADMSG,
                        "the registry has %s under the key tag, the engine pushed %s", m->digest.text,
                        b->pushed.text);
                build_fail(b, error);
                return;
        }
        b->state = BUILD_TAG;
        if (registry_put_manifest_start(b->registry, b->moving,
                    registry_manifest_kind_to_media_type(m->kind), m->data, m->size, on_tagged, b, &b->op,
                    &error) < 0)
                build_fail(b, error);
}

/* What can't be removed is in use by somebody (409) or gone (404). */
static void on_removed(
        TbEngineRequest *r, unsigned status, const json_t *body, const TbError *err, void *userdata)
{
        AugmentDockerBuild *b = userdata;

        build_drop_call(b);
        build_go(b, BUILD_CLEANUP);
}

static int call_engine(
        AugmentDockerBuild *b, const char *method, const char *path, TbEngineDoneFn done, TbError **err)
{
        const TbEngineCall call = {
                .method = method,
                .path = path,
                .done = done,
                .userdata = b,
        };

        return tb_engine_call(b->engine, &call, &b->call, err);
}

static int start_probe(AugmentDockerBuild *b, TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("/images/%s/json", b->name);

        return path ? call_engine(b, "GET", path, on_probed, err) : tb_error_oom(err);
}

static int start_build(AugmentDockerBuild *b, TbError **err)
{
        static const char *const headers[] = {"Content-Type: application/x-tar", NULL};
        _cleanup_json_ json_t *args = json_pack("{s:s}", "BASE", b->result.base);
        _cleanup_free_ char *json = args ? json_dumps(args, JSON_COMPACT) : NULL;
        _cleanup_free_ char *args_escaped = json ? tb_engine_escape(json) : NULL;
        _cleanup_free_ char *name_escaped = tb_engine_escape(b->name);
        _cleanup_free_ char *platform = tb_engine_escape(b->request.platform);
        _cleanup_free_ char *path = NULL;

        if (args_escaped && name_escaped && platform)
                path = tb_asprintf("/build?t=%s&buildargs=%s&platform=%s&rm=1&forcerm=1", name_escaped,
                        args_escaped, platform);
        if (!path)
                return tb_error_oom(err);
        const TbEngineCall call = {
                .method = "POST",
                .path = path,
                .headers = headers,
                .read = on_context,
                .read_size = docker_context_size(b->context),
                .line = on_line,
                .done = on_built,
                .userdata = b,
        };
        return tb_engine_call(b->engine, &call, &b->call, err);
}

static int start_push(AugmentDockerBuild *b, TbError **err)
{
        const char *const headers[] = {b->auth_header, NULL};
        _cleanup_free_ char *name = registry_ref_name(b->key);
        _cleanup_free_ char *path = name ? tb_asprintf("/images/%s/push?tag=%s", name, b->key->tag) : NULL;

        if (!path)
                return tb_error_oom(err);
        const TbEngineCall call = {
                .method = "POST",
                .path = path,
                .headers = headers,
                .line = on_line,
                .done = on_pushed,
                .userdata = b,
        };
        return tb_engine_call(b->engine, &call, &b->call, err);
}

/* Called again after each removal, until nothing is left to remove. */
static int start_cleanup(AugmentDockerBuild *b, TbError **err)
{
        _cleanup_free_ char *path = NULL;

        if (b->name_made && !b->name_was_there) {
                b->name_made = false;
                path = tb_asprintf("/images/%s", b->name);
        } else if (b->error && b->steps > 1 && !b->leftovers_removed) {
                /* A failed build leaves the images of its steps; the first one is the base, which stays. */
                b->leftovers_removed = true;
                path = tb_asprintf("/images/%s", b->last_image);
        } else {
                build_finish(b);
                return 0;
        }
        return path ? call_engine(b, "DELETE", path, on_removed, err) : tb_error_oom(err);
}

static int build_next(AugmentDockerBuild *b, BuildState state, TbError **err)
{
        b->state = state;
        switch (state) {
        case BUILD_PROBE:
                return start_probe(b, err);
        case BUILD_BUILD:
                return start_build(b, err);
        case BUILD_PUSH:
                return start_push(b, err);
        case BUILD_READ:
                return registry_get_manifest_start(b->registry, b->key, on_read, b, &b->op, err);
        case BUILD_CLEANUP:
                return start_cleanup(b, err);
        case BUILD_TAG:  /* entered from on_read(), which has the manifest */
        case BUILD_DONE: /* entered from build_finish() */
        default:
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "no such step of a build");
        }
}

static int copy_request(AugmentDockerBuild *b, const AugmentRequest *request, TbError **err)
{
        AugmentRequest *copy = &b->request;

        copy->level = request->level;
        copy->builder = AUGMENT_BUILDER_DOCKER;
        copy->update = request->update;
        copy->kind = request->kind;
        if ((request->image && !(copy->image = strdup(request->image))) ||
                (request->platform && !(copy->platform = strdup(request->platform))) ||
                (request->project && !(copy->project = strdup(request->project))) ||
                (request->registry && !(copy->registry = strdup(request->registry))) ||
                (request->payload_dir && !(copy->payload_dir = strdup(request->payload_dir))))
                return tb_error_oom(err);
        return augment_request_check(copy, err);
}

/* Through its JSON form, which is checked on the way. */
static int copy_result(AugmentDockerBuild *b, const AugmentResult *mirrored, TbError **err)
{
        _cleanup_json_ json_t *j = NULL;
        int r;

        if ((r = augment_result_to_json(mirrored, &j, err)) < 0 ||
                (r = augment_result_from_json(j, &b->result, err)) < 0)
                return r;
        if (b->result.as_is || b->result.cache_hit)
                return 0;
        b->result.builder = AUGMENT_BUILDER_DOCKER;
        if (!b->result.dockerfile || !b->result.base || !b->result.key_tag)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "there is no Dockerfile to build");
        return 0;
}

static int on_later(sd_event_source *s, void *userdata)
{
        AugmentDockerBuild *b = userdata;

        b->later = sd_event_source_disable_unref(b->later);
        build_finish(b);
        return 0;
}

static int build_prepare(AugmentDockerBuild *b, const AugmentDockerBuildOptions *o, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *source = NULL;
        _cleanup_registry_platform_ RegistryPlatform platform = {};
        _cleanup_payload_ Payload *payload = NULL;
        const char *host;
        int r;

        if ((r = copy_request(b, o->request, err)) < 0 || (r = copy_result(b, o->mirrored, err)) < 0)
                return r;
        b->request.level = b->result.level; /* what the image can have */
        if (b->result.as_is || b->result.cache_hit) {
                r = sd_event_add_defer(registry_client_event(b->registry), &b->later, on_later, b);
                return r < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot use the event loop") : 0;
        }
        if ((r = registry_ref_parse(b->request.image, &source, err)) < 0 ||
                (r = augment_names_make(&b->request, source, &b->names, err)) < 0 ||
                (b->request.kind == AUGMENT_SOURCE_INDEX &&
                        (r = augment_names_of_platform(&b->names, b->request.platform, err)) < 0) ||
                (r = registry_platform_parse(b->request.platform, &platform, err)) < 0 ||
                (r = payload_load(b->request.payload_dir, platform.architecture, &payload, err)) < 0 ||
                (r = docker_context_new(b->result.dockerfile, payload, b->request.level, &b->context, err)) <
                        0)
                return r;
        host = b->names.registry_host;
        r = registry_ref_new(host, b->names.target_repository, b->result.key_tag, NULL, &b->key, err);
        if (r < 0)
                return r;
        if (b->names.target_tag) {
                r = registry_ref_new(
                        host, b->names.target_repository, b->names.target_tag, NULL, &b->moving, err);
                if (r < 0)
                        return r;
        }
        b->name = registry_ref_to_string(b->key);
        b->auth_header =
                tb_asprintf("X-Registry-Auth: %s", o->registry_auth ? o->registry_auth : AUTH_ANONYMOUS);
        return b->name && b->auth_header ? 0 : tb_error_oom(err);
}

int augment_docker_build_start(
        TbEngine *engine, const AugmentDockerBuildOptions *options, AugmentDockerBuild **ret, TbError **err)
{
        _cleanup_(augment_docker_build_freep) AugmentDockerBuild *b = NULL;
        int r;

        b = calloc(1, sizeof(*b));
        if (!b)
                return tb_error_oom(err);
        b->engine = engine;
        b->registry = options->registry;
        b->progress = options->progress;
        b->done = options->done;
        b->userdata = options->userdata;
        b->started_us = tb_now_us();
        r = build_prepare(b, options, err);
        if (r >= 0 && !b->later)
                r = build_next(b, BUILD_PROBE, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(b);
        return 0;
}

void augment_docker_build_cancel(AugmentDockerBuild *b)
{
        TbError *error = NULL;

        if (b->state >= BUILD_CLEANUP)
                return;
        /* A build that is cut off may have been named in this instant. */
        if (b->state == BUILD_BUILD)
                b->name_made = true;
        build_drop_call(b);
        b->op = registry_op_free(b->op);
        b->later = sd_event_source_disable_unref(b->later);
        (void) tb_error_set(&error, TB_ERROR_CANCELLED, -ECANCELED, "the build was cancelled");
        build_fail(b, error);
}

AugmentDockerBuild *augment_docker_build_free(AugmentDockerBuild *b)
{
        if (!b)
                return NULL;
        build_drop_call(b);
        registry_op_free(b->op);
        sd_event_source_disable_unref(b->later);
        docker_context_free(b->context);
        registry_ref_free(b->key);
        registry_ref_free(b->moving);
        augment_names_done(&b->names);
        augment_request_done(&b->request);
        augment_result_done(&b->result);
        tb_error_free(b->error);
        free(b->name);
        free(b->auth_header);
        free(b);
        return NULL;
}

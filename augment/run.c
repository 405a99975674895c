/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/run-internal.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

static void run_done(Run *run)
{
        run_platform_done(run);
        registry_manifest_free(run->index);
        augment_platforms_done(&run->platforms);
        payload_free(run->payload);
        augment_names_done(&run->names);
        registry_platform_done(&run->platform);
        registry_ref_free(run->pinned);
        registry_ref_free(run->source);
        registry_client_free(run->client);
        augment_result_done(&run->result);
}

void run_stage(const Run *run, const char *stage)
{
        AugmentProgress p = {.stage = (char *) stage};

        if (run->hooks->progress)
                run->hooks->progress(&p, run->hooks->userdata);
}

static int run_prepare(Run *run, TbError **err)
{
        const AugmentRequest *request = run->request;
        int r;

        if ((r = registry_ref_parse(request->image, &run->source, err)) < 0 ||
                (r = registry_platform_parse(request->platform, &run->platform, err)) < 0 ||
                (r = augment_names_make(request, run->source, &run->names, err)) < 0 ||
                (r = registry_client_new(NULL, &run->client, err)) < 0 ||
                (r = augment_client_setup(run->client, request, err)) < 0)
                return r;
        /* Whatever it may turn out to be: nothing is read from here once strangers' bytes are. */
        if (request->all_platforms && request->kind != AUGMENT_SOURCE_IMAGE &&
                (r = augment_platforms_load(request, &run->platforms, err)) < 0)
                return r;
        if (request->level != AUGMENT_LEVEL_NONE) {
                if ((r = payload_load(
                             request->payload_dir, run->platform.architecture, &run->payload, err)) < 0 ||
                        (r = payload_digest(
                                 run->payload, request->level, &run->result.payload_digest, err)) < 0)
                        return r;
                run->result.payload_version = strdup(run->payload->version);
                if (!run->result.payload_version)
                        return tb_error_oom(err);
        }
        run->result.level = request->level;
        run->result.builder = request->builder;
        run->result.from = request->from;
        run->result.private = request->private;
        if ((request->notice && !(run->result.notice = strdup(request->notice))) ||
                (request->project && !(run->result.project = strdup(request->project))))
                return tb_error_oom(err);
        run->result.source_name = registry_ref_to_string(run->source);
        run->result.platform = strdup(request->platform);
        return run->result.source_name && run->result.platform ? 0 : tb_error_oom(err);
}

/* What the name is now. */
static int run_resolve(Run *run, TbError **err)
{
        _cleanup_registry_descriptor_ RegistryDescriptor d = {};
        int r;

        run->kind = run->request->kind;
        if (tb_digest_is_set(&run->source->digest)) {
                run->result.source_digest = run->source->digest;
        } else if (tb_digest_is_set(&run->request->resolved)) {
                run->result.source_digest = run->request->resolved;
        } else {
                r = registry_resolve(run->client, run->source, &d, err);
                if (r < 0)
                        return r;
                if (r == 0)
                        return tb_error_set(err, TB_ERROR_REMOTE, -ENOENT,
                                "registry %s has no such image; check the name and the tag",
                                run->source->host);
                run->result.source_digest = d.digest;
                run->kind = augment_source_kind(d.media_type);
        }
        return registry_ref_with(run->source, NULL, &run->result.source_digest, &run->pinned, err);
}

int run_name(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *image = NULL;
        char key_tag[AUGMENT_KEY_TAG_MAX];
        int r = 0;

        if (run->index)
                r = augment_platforms_key_tag(
                        &run->platforms, &run->result.source_digest, run->request, key_tag, err);
        else if (run->kind == AUGMENT_SOURCE_INDEX)
                r = augment_names_of_platform(&run->names, run->request->platform, err);
        if (r >= 0 && !run->index)
                r = augment_cache_key_tag(
                        &run->result.source_digest, run->request, &run->result.payload_digest, key_tag, err);
        if (r < 0)
                return r;
        free(run->result.key_tag);
        free(run->result.image);
        run->result.image = NULL;
        run->result.key_tag = strdup(key_tag);
        if (!run->result.key_tag)
                return tb_error_oom(err);
        if (run->request->level == AUGMENT_LEVEL_NONE && run->names.base_is_local) {
                run->result.image = strdup(run->result.source_name);
        } else {
                r = registry_ref_new(run->names.registry_host, run->names.target_repository,
                        run->names.target_tag ? run->names.target_tag : key_tag, NULL, &image, err);
                if (r < 0)
                        return r;
                run->result.image = registry_ref_to_string(image);
        }
        return run->result.image ? 0 : tb_error_oom(err);
}

static int run_all(Run *run, TbError **err)
{
        uint64_t started = tb_now_us();
        int r;

        r = run_prepare(run, err);
        if (r >= 0 && run->hooks->prepared)
                r = run->hooks->prepared(run->hooks->userdata, err);
        if (r < 0)
                return r;
        run_stage(run, "resolve");
        if ((r = run_resolve(run, err)) < 0 ||
                (run->request->all_platforms && run->op == AUGMENT_OP_AUGMENT &&
                        (r = run_index_read(run, err)) < 0) ||
                (r = run_name(run, err)) < 0)
                return r;
        run->result.timings.resolve = tb_now_us() - started;

        r = run->index ? run_index(run, err) : run_platform(run, err);
        if (r < 0)
                return r;
        run->result.timings.total = tb_now_us() - started;
        return 0;
}

int augment_run(const AugmentRequest *request, AugmentOp op, const AugmentRunHooks *hooks,
        AugmentResult *ret, TbError **err)
{
        _cleanup_(run_done) Run run = {
                .request = request,
                .op = op,
                .hooks = hooks,
        };
        int r;

        r = run_all(&run, err);
        if (r < 0) {
                _cleanup_free_ char *shown = tb_escape(request->image, 256);

                tb_error_prefix(err, "cannot %s image %s",
                        op == AUGMENT_OP_DOCKERFILE       ? "read"
                                : op == AUGMENT_OP_MIRROR ? "mirror"
                                                          : "augment",
                        shown ? shown : "?");
                return r;
        }
        *ret = run.result;
        run.result = (AugmentResult){};
        return 0;
}

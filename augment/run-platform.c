/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/build-native.h"
#include "augment/dockerfile.h"
#include "augment/packages.h"
#include "augment/record.h"
#include "augment/run-internal.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

/* What comes as fast as from a registry in the same room isn't written to disk as well: that took a tenth of the first request's
 * time, on the disk of the registry that it goes to. */
#define TRANSFER_PATIENCE_USEC UINT64_C(2000000)

int run_mirror_ref(const Run *run, const char *platform, RegistryRef **ret, TbError **err)
{
        _cleanup_free_ char *tag = augment_mirror_digest_tag(&run->result.source_digest, platform);

        if (!tag)
                return tb_error_oom(err);
        return registry_ref_new(run->names.registry_host, run->names.mirror_repository, tag, NULL, ret, err);
}

/* The reference that the mirror keeps of this digest and platform. */
static int mirror_ref(const Run *run, RegistryRef **ret, TbError **err)
{
        return run_mirror_ref(run, run->request->platform, ret, err);
}

/* One image of the index that was read before. */
static int read_child(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        if ((r = registry_ref_with(run->source, NULL, run->child, &ref, err)) < 0 ||
                (r = registry_get_manifest(run->client, ref, &run->base, err)) < 0)
                return r;
        if (registry_manifest_is_index(run->base))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "the image is broken: what its index calls an image is an index");
        return 0;
}

/* As the agent has read it. What isn't what the digest says is read again. */
static bool take_manifest(Run *run)
{
        const AugmentRequest *request = run->request;

        if (run->child || !run->names.base_is_local || !request->manifest ||
                registry_manifest_parse(request->manifest, strlen(request->manifest), request->manifest_type,
                        &run->result.source_digest, &run->base, NULL) < 0)
                return false;
        if (registry_manifest_is_index(run->base) || run->base->kind == REGISTRY_OCI_ARTIFACT)
                run->base = registry_manifest_free(run->base);
        return run->base;
}

/* From the mirror when it is there (then nothing is asked of the source), else from the source. */
static int read_base(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *mirror = NULL;
        _cleanup_error_ TbError *e = NULL;
        int r;

        if (!run->repair && !run->names.base_is_local) {
                r = mirror_ref(run, &mirror, err);
                if (r < 0)
                        return r;
                r = registry_get_manifest(run->client, mirror, &run->base, &e);
                if (r >= 0 && !registry_manifest_is_index(run->base)) {
                        run->mirrored = true;
                        return 0;
                }
                run->base = registry_manifest_free(run->base);
                if (r < 0 && r != -ENOENT) {
                        tb_error_prefix(&e, "cannot read the mirror");
                        return tb_error_move(err, &e);
                }
        }
        run->mirrored = false;
        if (take_manifest(run))
                return 0;
        if (run->child)
                return read_child(run, err);
        return registry_get_image(run->client, run->pinned, &run->platform, &run->base, NULL, err);
}

/*
 * The base is in the registry: what remains is to write a configuration, and that takes an upload session. It is opened while the
 * base is being read. Without it the upload opens one for itself.
 */
static void open_upload(Run *run)
{
        _cleanup_(registry_ref_freep) RegistryRef *target = NULL;

        if (run->upload || run->op != AUGMENT_OP_AUGMENT || run->request->level == AUGMENT_LEVEL_NONE ||
                registry_ref_new(run->names.registry_host, run->names.target_repository, run->result.key_tag,
                        NULL, &target, NULL) < 0 ||
                registry_put_blob_open_start(run->client, target, NULL, NULL, &run->upload, NULL) < 0)
                return;
}

/* It isn't wanted: nothing stays open at the registry. */
static void close_upload(Run *run)
{
        if (!run->upload)
                return;
        run->upload = registry_op_free(run->upload);
        registry_client_settle(run->client);
}

static int read_config(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *mirror = NULL;
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        if (run->mirrored) {
                r = mirror_ref(run, &mirror, err);
                if (r < 0)
                        return r;
        }
        r = registry_get_blob(run->client, mirror ? mirror : run->pinned, &run->base->config.digest,
                run->base->config.size, IMAGE_CONFIG_MAX, &data, &size, err);
        if (r < 0)
                return r;
        if (!run->mirrored)
                run->result.bytes.downloaded += size;
        if ((r = image_config_parse(data, size, &run->config, err)) < 0 ||
                (r = image_facts_collect(run->config, &run->facts, err)) < 0)
                return r;
        if (run->config->n_diff_ids != run->base->n_layers)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "the image is broken: its configuration has %zu layers and its manifest %zu",
                        run->config->n_diff_ids, run->base->n_layers);
        if (!tb_streq(run->config->architecture, run->platform.architecture))
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT,
                        "the image is for %s, not for %s; use --platform %s", run->facts->platform,
                        run->request->platform, run->facts->platform);
        return 0;
}

/* A Dockerfile alone is whoever's who builds it. */
static int check(const Run *run, TbError **err)
{
        AugmentBuilder builder = run->request->builder;

        if (run->op == AUGMENT_OP_DOCKERFILE)
                builder = run->request->level >= AUGMENT_LEVEL_BUILDENV ? AUGMENT_BUILDER_DOCKER
                                                                        : AUGMENT_BUILDER_NATIVE;
        return image_facts_check(run->facts, run->config, run->request->level, builder, err);
}

/* What is to be done, as far as the configuration tells: what it refuses is refused before anything moves. */
static int decide(Run *run, TbError **err)
{
        run->result.base_digest = run->base->digest;
        run->result.as_is = image_facts_use_as_is(run->facts, run->request->level, run->request->update);
        return run->result.as_is ? 0 : check(run, err);
}

/* Where the facts about the base's files are kept: not in a repository that is somebody else's. */
static int files_ref(const Run *run, RegistryRef **ret, TbError **err)
{
        const AugmentNames *n = &run->names;

        return registry_ref_new(n->registry_host,
                n->base_is_local ? n->target_repository : n->mirror_repository, NULL, &run->base->digest,
                ret, err);
}

/* What the artifacts beside an image name as their configuration. */
static int put_empty(const Run *run, const RegistryRef *repository, TbError **err)
{
        if (run->has_empty && tb_streq(repository->repository, run->names.mirror_repository))
                return 0;
        return registry_put_blob(run->client, repository, "{}", 2, NULL, NULL, err);
}

/*
 * What the files say: from beside the mirror, else from the layers, which have streamed by or are read now. A recipe with
 * packages needs it; of what comes from elsewhere it is known as well that nothing is in our way.
 */
static int collect_files(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *kept = NULL, *layers = NULL;
        bool only_text = run->op == AUGMENT_OP_DOCKERFILE;
        int r;

        /* Nothing streams by: for a text, or a base that the testbed pushed itself, layers are read only when it takes what
         * they say: for packages, and to tell those of an earlier augmentation. */
        if (!run->scan &&
                (run->result.as_is ||
                        ((only_text || run->names.base_is_local) && !run->facts->augmented &&
                                run->request->level < AUGMENT_LEVEL_BUILDENV)))
                return 0;
        r = files_ref(run, &kept, err);
        if (r < 0)
                return r;
        if (!run->scan) {
                r = base_files_load(run->client, kept, &run->base->digest, &run->facts->files, err);
                if (r != 0)
                        return r < 0 ? r : 0;
                r = base_files_new(run->base, run->config, &run->scan, err);
                if (r < 0)
                        return r;
        }
        r = run->mirrored ? mirror_ref(run, &layers, err)
                          : registry_ref_with(run->source, NULL, &run->base->digest, &layers, err);
        if (r < 0 ||
                (r = base_files_finish(run->scan, run->client, layers, &run->result.bytes.downloaded,
                         &run->facts->files, err)) < 0)
                return r;
        run->scan = base_files_free(run->scan);
        run->files_are_new = !only_text;
        return 0;
}

/* 1 = the tag is there. */
static int find_tag(const Run *run, const char *tag, TbDigest *ret, TbError **err)
{
        _cleanup_registry_descriptor_ RegistryDescriptor d = {};
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        r = registry_ref_new(run->names.registry_host, run->names.target_repository, tag, NULL, &ref, err);
        if (r >= 0)
                r = registry_resolve(run->client, ref, &d, err);
        if (r > 0)
                *ret = d.digest;
        return r;
}

/* Who made the image that is there, and how much is in it: not who would make it now (augment/describe.h says the same to the
 * agent). What can't be read, or says nothing, leaves what is believed. */
static int describe_found(Run *run, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_image_config_ ImageConfig *config = NULL;
        _cleanup_image_facts_ ImageFacts *facts = NULL;
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        r = registry_ref_new(run->names.registry_host, run->names.target_repository, NULL,
                &run->result.digest, &ref, err);
        if (r < 0)
                return r;
        if (registry_get_manifest(run->client, ref, &m, NULL) >= 0 && !registry_manifest_is_index(m) &&
                registry_get_blob(run->client, ref, &m->config.digest, m->config.size, IMAGE_CONFIG_MAX,
                        &data, &size, NULL) >= 0 &&
                image_config_parse(data, size, &config, NULL) >= 0 &&
                image_facts_collect(config, &facts, NULL) >= 0 && facts->augmented) {
                run->result.level = facts->level;
                run->result.builder = facts->builder;
        }
        return 0;
}

/* The names have changed since the agent looked: what they mean now may be there already. A moving tag that is somewhere
 * else is put right by making the image again. */
static int look_again(Run *run, TbError **err)
{
        TbDigest key, moving;
        int r;

        if (run->request->update)
                return 0;
        r = find_tag(run, run->result.key_tag, &key, err);
        if (r <= 0)
                return r;
        if (run->names.target_tag) {
                r = find_tag(run, run->names.target_tag, &moving, err);
                if (r <= 0 || !tb_digest_equal(&key, &moving))
                        return r < 0 ? r : 0;
        }
        run->result.digest = key;
        run->result.cache_hit = true;
        return describe_found(run, err);
}

/*
 * Packages are asked for, and there are none for this image: it gets level core, under the names of level core, so that none
 * promises what it hasn't got.
 */
static int lower_level(Run *run, TbError **err)
{
        const char *distro, *level = augment_level_to_string(run->request->level);
        _cleanup_augment_names_ AugmentNames names = {};
        char *notice;
        int r;

        if (run->result.as_is || run->request->level < AUGMENT_LEVEL_BUILDENV ||
                augment_packages_known(run->facts->files))
                return 0;
        distro = run->facts->files->distro;
        notice = tb_asprintf(
                "%s%slevel %s needs packages of the image's distribution, and there are none for %s: it "
                "is made level core",
                run->result.notice ?: "", run->result.notice ? "; " : "", level,
                distro ? distro : "this image, which is of no known one");
        if (!notice)
                return tb_error_oom(err);
        free(run->result.notice);
        run->result.notice = notice;

        run->lowered = *run->request;
        run->lowered.level = AUGMENT_LEVEL_CORE;
        run->request = &run->lowered;
        r = augment_names_make(run->request, run->source, &names, err);
        if (r < 0)
                return r;
        augment_names_done(&run->names);
        run->names = names;
        names = (AugmentNames){};
        r = run_name(run, err);
        if (r < 0)
                return r;
        run->result.level = run->request->level;
        run->result.as_is = image_facts_use_as_is(run->facts, run->request->level, run->request->update);
        return run->result.as_is ? 0 : look_again(run, err);
}

/* Makes the recipe. */
static int plan(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *name = NULL;
        _cleanup_free_ char *text = NULL;
        RecipeInput input;
        int r;

        /* What is used as it is was made by somebody else, to a level of its own. */
        if (run->result.as_is && run->facts->augmented) {
                run->result.level = run->facts->level;
                run->result.builder = run->facts->builder;
        }
        r = image_facts_to_json(run->facts, run->config, &run->result.facts, err);
        if (r < 0 || run->result.as_is)
                return r;
        r = check(run, err);
        if (r < 0)
                return r;
        if (run->source->tag) {
                r = registry_ref_with(run->source, run->source->tag, NULL, &name, err);
                if (r < 0)
                        return r;
                text = registry_ref_to_string(name);
        } else {
                text = registry_ref_name(run->source);
        }
        if (!text)
                return tb_error_oom(err);
        input = (RecipeInput){
                .config = run->config,
                .facts = run->facts,
                .payload = run->payload,
                /* Never lowered: what an image has stays. */
                .level = run->facts->augmented ? MAX2(run->facts->level, run->request->level)
                                               : run->request->level,
                .packages = run->request->level >= AUGMENT_LEVEL_BUILDENV,
                .base = run->base,
                .base_name = text,
                .base_digest = run->base->digest,
        };
        r = recipe_make(&input, &run->recipe, err);
        return r < 0 ? r : dockerfile_render(run->recipe, &run->result.dockerfile, err);
}

static void on_copy_progress(const RegistryCopyProgress *c, void *userdata)
{
        Run *run = userdata;
        AugmentProgress p = {.stage = (char *) "mirror"};

        if (!run->hooks->progress)
                return;
        for (size_t i = 0; i < c->n_moving; i++) {
                p.blob = (char *) c->moving[i].blob->digest.text;
                p.done = c->moving[i].done;
                p.total = c->moving[i].blob->size;
                run->hooks->progress(&p, run->hooks->userdata);
        }
        p.blob = NULL;
        p.done = c->bytes_done;
        p.total = c->bytes_total;
        run->hooks->progress(&p, run->hooks->userdata);
}

int run_follow_tag(const Run *run, const char *media_type, const char *manifest, size_t size,
        const TbDigest *digest, TbError **err)
{
        _cleanup_registry_descriptor_ RegistryDescriptor d = {};
        _cleanup_(registry_ref_freep) RegistryRef *moving = NULL;
        int r;

        if (!run->names.mirror_tag)
                return 0;
        r = registry_ref_new(run->names.registry_host, run->names.mirror_repository, run->names.mirror_tag,
                NULL, &moving, err);
        if (r < 0)
                return r;
        r = registry_resolve(run->client, moving, &d, err);
        if (r < 0)
                return r;
        if (r > 0 && tb_digest_equal(&d.digest, digest))
                return 0;
        r = registry_put_manifest(run->client, moving, media_type, manifest, size, NULL, err);
        return r < 0 ? r : 1;
}

/* The same for one that was just copied, while the job goes on. */
static int follow_tag_start(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *moving = NULL;
        RegistryOp *op;
        int r;

        if (!run->names.mirror_tag)
                return 0;
        if ((r = registry_ref_new(run->names.registry_host, run->names.mirror_repository,
                     run->names.mirror_tag, NULL, &moving, err)) < 0 ||
                (r = registry_put_manifest_start(run->client, moving,
                         registry_manifest_kind_to_media_type(run->base->kind), run->base->data,
                         run->base->size, NULL, NULL, &op, err)) < 0)
                return r;
        return augment_pending_add(&run->pending, op, NULL, "cannot name the mirror", err);
}

int run_note(Run *run, TbError **err)
{
        const BaseRecord record = {
                .digest = run->result.source_digest,
                .kind = run->kind,
                .private = run->request->private,
        };
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        if ((r = run_mirror_ref(run, run->request->platform, &ref, err)) < 0 ||
                (r = put_empty(run, ref, err)) < 0)
                return r;
        run->has_empty = true;
        return base_record_store(run->client, &run->names, run->source, &record, &run->pending, err);
}

static int copy_base(Run *run, TbError **err)
{
        _cleanup_registry_copy_result_ RegistryCopyResult copied = {};
        _cleanup_(registry_ref_freep) RegistryRef *source = NULL, *target = NULL;
        RegistryCopyOptions options = {
                .blobs_only = true, /* nothing has a name before it was judged */
                .manifest = run->base,
                .repair = run->repair,
                .state_dir = run->request->state_dir,
                .state_patience_usec = TRANSFER_PATIENCE_USEC,
                .progress = on_copy_progress,
                .progress_userdata = run,
        };
        RegistryOp *empty;
        int r;

        r = base_files_new(run->base, run->config, &run->scan, err);
        if (r < 0)
                return r;
        options.tap = base_files_tap(run->scan);
        if ((r = registry_ref_with(run->source, NULL, &run->base->digest, &source, err)) < 0 ||
                (r = mirror_ref(run, &target, err)) < 0 ||
                (r = registry_put_blob_start(run->client, target, "{}", 2, NULL, NULL, NULL, &empty, err)) <
                        0 ||
                (r = augment_pending_add(
                         &run->pending, empty, NULL, "cannot write beside the mirror", err)) < 0 ||
                (r = registry_copy(run->client, source, target, &options, &copied, err)) < 0 ||
                (r = augment_pending_wait(&run->pending, err)) < 0)
                return r;
        run->has_empty = true;
        run->result.bytes.downloaded += copied.bytes_downloaded;
        run->result.bytes.uploaded += copied.bytes_uploaded;
        run->result.bytes.mounted += copied.bytes_mounted;
        run->result.bytes.resumed += copied.bytes_resumed;
        run->mirrored = run->copied = true;
        return 0;
}

static int mirror(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        if (!run->names.base_is_local && !run->mirrored && (r = copy_base(run, err)) < 0)
                return r;
        r = registry_ref_new(
                run->names.registry_host, run->names.mirror_repository, NULL, &run->base->digest, &ref, err);
        if (r < 0)
                return r;
        free(run->result.base);
        run->result.base = registry_ref_to_string(ref);
        return run->result.base ? 0 : tb_error_oom(err);
}

static int publish_copied(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        RegistryOp *op;
        int r;

        if ((r = mirror_ref(run, &ref, err)) < 0 ||
                (r = registry_put_manifest_start(run->client, ref,
                         registry_manifest_kind_to_media_type(run->base->kind), run->base->data,
                         run->base->size, NULL, NULL, &op, err)) < 0 ||
                (r = augment_pending_add(&run->pending, op, NULL, "cannot write the mirror", err)) < 0)
                return r;
        run->result.bytes.uploaded += run->base->size;
        return follow_tag_start(run, err);
}

/* The base was judged, with all its files: it gets its names, and what was found is kept. */
static int publish_base(Run *run, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *kept = NULL;
        int r;

        if (run->files_are_new &&
                ((r = files_ref(run, &kept, err)) < 0 || (r = put_empty(run, kept, err)) < 0 ||
                        (r = base_files_store(run->client, kept, &run->base->digest, run->facts->files,
                                 &run->pending, err)) < 0))
                return r;
        if (run->names.base_is_local)
                return 0;
        r = run->copied ? publish_copied(run, err)
                        : run_follow_tag(run, registry_manifest_kind_to_media_type(run->base->kind),
                                  run->base->data, run->base->size, &run->base->digest, err);
        if (r >= 0 && (r > 0 || run->copied) && run->names.mirror_tag)
                r = run_note(run, err);
        return MIN2(r, 0);
}

static int push(Run *run, TbError **err)
{
        _cleanup_free_ char *config = NULL;
        NativePush p = {
                .client = run->client,
                .names = &run->names,
                .base = run->base,
                .recipe = run->recipe,
                .key_tag = run->result.key_tag,
                .bytes = &run->result.bytes,
                .before = &run->pending,
                .upload = &run->upload,
        };
        uint64_t started = tb_now_us();
        int r;

        /* Nothing to write: the image is the one that was named. */
        if (run->names.base_is_local && run->request->level == AUGMENT_LEVEL_NONE) {
                run->result.digest = run->base->digest;
                return 0;
        }
        if (run->recipe) {
                run_stage(run, "build");
                if ((r = native_apply_config(run->config, run->recipe, err)) < 0 ||
                        (r = image_config_dump(run->config, &config, &p.config_size, err)) < 0)
                        return r;
                p.config = config;
                run->result.timings.build = tb_now_us() - started;
        }
        run_stage(run, "push");
        started = tb_now_us();
        r = native_push(&p, &run->result.digest, &run->pushed_size, err);
        run->result.timings.push = tb_now_us() - started;
        return r;
}

/* Reading, mirroring and, for AUGMENT_OP_AUGMENT, building. */
static int run_base(Run *run, TbError **err)
{
        uint64_t started = tb_now_us();
        int r;

        run->copied = run->files_are_new = false;
        run_stage(run, "facts");
        if (run->names.base_is_local)
                open_upload(run);
        if ((r = read_base(run, err)) < 0)
                return r;
        if (run->mirrored)
                open_upload(run);
        if ((r = read_config(run, err)) < 0 || (r = decide(run, err)) < 0)
                return r;
        if (run->result.as_is)
                close_upload(run);
        run->result.timings.facts = tb_now_us() - started;

        if (run->op != AUGMENT_OP_DOCKERFILE) {
                started = tb_now_us();
                run_stage(run, "mirror");
                r = mirror(run, err);
                run->result.timings.mirror = tb_now_us() - started;
                if (r < 0)
                        return r;
                if (!run->result.as_is)
                        open_upload(run);
        }

        started = tb_now_us();
        if ((r = collect_files(run, err)) < 0 || (r = lower_level(run, err)) < 0 || (r = plan(run, err)) < 0)
                return r;
        run->result.timings.facts += tb_now_us() - started;
        if (run->op == AUGMENT_OP_DOCKERFILE)
                return 0;
        started = tb_now_us();
        r = publish_base(run, err);
        run->result.timings.mirror += tb_now_us() - started;
        if (r < 0 ||
                (!run->result.cache_hit && (run->op != AUGMENT_OP_MIRROR || run->result.as_is) &&
                        (r = push(run, err)) < 0))
                return r;
        return augment_pending_wait(&run->pending, err);
}

void run_platform_done(Run *run)
{
        close_upload(run);
        augment_pending_done(&run->pending);
        run->recipe = recipe_free(run->recipe);
        run->scan = base_files_free(run->scan);
        run->facts = image_facts_free(run->facts);
        run->config = image_config_free(run->config);
        run->base = registry_manifest_free(run->base);
        json_decref(run->result.facts);
        run->result.facts = NULL;
        free(run->result.dockerfile);
        run->result.dockerfile = NULL;
}

int run_platform(Run *run, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;
        int r;

        r = run_base(run, &e);
        if ((r == -ESTALE || (r == -ENOENT && run->mirrored)) && !run->names.base_is_local) {
                /* Somebody has cleaned the mirror up: its tag is there, blobs are not. Copy again. */
                e = tb_error_free(e);
                run_platform_done(run);
                run->repair = true;
                r = run_base(run, &e);
        }
        return r < 0 ? tb_error_move(err, &e) : 0;
}

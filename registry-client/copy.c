/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Copy of an image or an index
 *
 *         LOOKING    source's manifest and target's present state, at the same time; down to the wanted platform
 *         CHILDREN   for a whole index: the manifests it names, and theirs
 *         BLOBS      every distinct blob of all of them, `parallel` at a time (copy-blob.c)
 *         MANIFESTS  deepest level first, so that each is pushed after everything it names; the target's name last
 *
 * Manifests are kept byte for byte from GET to PUT; copy-manifests.c has their tree.
 *
 * A failure frees the transfers that run (their upload sessions are closed in the background) and ends the operation; the
 * target then has some new blobs at most, which its garbage collection removes, but no new name.
 */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"
#include "registry-client/copy.h"

#define PARALLEL_DEFAULT 4U
#define PROGRESS_USEC 100000U

/* ---- the end ---- */

static void stop_transfers(CopyOp *c)
{
        c->get = registry_op_free(c->get);
        c->look = registry_op_free(c->look);
        c->given = sd_event_source_disable_unref(c->given);
        for (size_t i = 0; i < COPY_PARALLEL_MAX; i++)
                c->slots[i].blob = registry_copy_blob_free(c->slots[i].blob);
        for (size_t i = 0; i < c->n_nodes; i++)
                c->nodes[i]->op = registry_op_free(c->nodes[i]->op);
}

static void copy_destroy(RegistryOp *op)
{
        CopyOp *c = (CopyOp *) op;

        stop_transfers(c);
        for (size_t i = 0; i < c->n_nodes; i++) {
                registry_manifest_free(c->nodes[i]->manifest);
                free(c->nodes[i]);
        }
        free(c->nodes);
        free(c->items);
        registry_manifest_free(c->top);
        registry_ref_free(c->source);
        registry_ref_free(c->target);
        registry_store_free(c->from);
        registry_store_free(c->to);
        free(c->source_name);
        free(c->state_dir);
        registry_platform_done(&c->platform);
        for (size_t i = 0; i < c->n_platforms; i++)
                registry_platform_done(c->platforms + i);
        free(c->platforms);
}

void copy_fail(CopyOp *c, const TbError *err)
{
        _cleanup_error_ TbError *e = NULL;

        if (err)
                e = tb_error_copy(err); /* stopping frees what it may belong to */
        else
                (void) tb_error_oom(&e);
        c->phase = COPY_FINISHED;
        stop_transfers(c);
        registry_op_fail(&c->op, e);
}

static void report_progress(CopyOp *c, bool now)
{
        RegistryCopyMoving moving[COPY_PARALLEL_MAX];
        RegistryCopyProgress p;
        uint64_t t;

        if (!c->progress_fn)
                return;
        t = tb_now_us();
        if (!now && t < c->progress_usec + PROGRESS_USEC)
                return;
        c->progress_usec = t;
        p = c->progress;
        p.moving = moving;
        for (size_t i = 0; i < COPY_PARALLEL_MAX; i++)
                if (c->slots[i].blob && c->slots[i].moved > 0)
                        moving[p.n_moving++] = (RegistryCopyMoving){
                                .blob = c->slots[i].item->blob, .done = c->slots[i].moved};
        c->progress_fn(&p, c->progress_userdata);
}

void copy_succeed(CopyOp *c)
{
        const RegistryManifest *root = c->nodes[0]->manifest;
        _cleanup_error_ TbError *e = NULL;
        char *type = strdup(registry_manifest_kind_to_media_type(root->kind));

        if (!type) {
                copy_fail(c, NULL);
                return;
        }
        c->op.copy.manifest =
                (RegistryDescriptor){.media_type = type, .digest = root->digest, .size = root->size};
        if (registry_descriptor_copy(&c->op.copy.manifest, &c->op.descriptor, &e) < 0) {
                copy_fail(c, e);
                return;
        }
        c->phase = COPY_FINISHED;
        report_progress(c, true);
        registry_op_finish(&c->op, 0, NULL);
}

/* ---- BLOBS ---- */

static void on_moved(int64_t bytes, void *userdata)
{
        CopySlot *slot = userdata;
        CopyOp *c = slot->copy;

        slot->moved += (uint64_t) bytes; /* negative when it starts over */
        c->progress.bytes_done += (uint64_t) bytes;
        report_progress(c, false);
}

static int next_blobs(CopyOp *c, TbError **err);

static void on_blob_done(RegistryCopyBlob *b, RegistryCopyHow how, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        CopySlot *slot = userdata;
        CopyOp *c = slot->copy;
        RegistryCopyResult *result = &c->op.copy;
        uint64_t size = slot->item->blob->size, resumed = registry_copy_blob_resumed(b);

        if (err) {
                copy_fail(c, err);
                return;
        }
        switch (how) {
        case REGISTRY_COPY_STREAMED:
                result->blobs_streamed++;
                result->bytes_downloaded += size - resumed;
                result->bytes_resumed += resumed;
                result->bytes_uploaded += size;
                break;
        case REGISTRY_COPY_MOUNTED:
                result->blobs_mounted++;
                result->bytes_mounted += size;
                break;
        case REGISTRY_COPY_EXISTED:
                result->blobs_existed++;
                break;
        case _REGISTRY_COPY_HOW_MAX:
                break;
        }
        if (how != REGISTRY_COPY_STREAMED && c->always_stream && slot->item->is_layer)
                result->bytes_downloaded += size;
        slot->blob = registry_copy_blob_free(slot->blob);
        slot->item = NULL;
        c->n_active--;
        c->progress.blobs_done++;
        report_progress(c, false);
        if (next_blobs(c, &e) < 0)
                copy_fail(c, e);
}

static bool same_registry(const CopyOp *c)
{
        return c->source && c->target && strcasecmp(c->source->host, c->target->host) == 0;
}

static int start_blob(CopyOp *c, CopySlot *slot, const CopyItem *item, TbError **err)
{
        bool stream = c->always_stream && item->is_layer && c->tap;
        RegistryCopyBlobOptions o = {
                .source = c->source,
                .target = c->target,
                .from = c->from,
                .to = c->to,
                .source_name = c->source_name,
                .state_dir = c->state_dir,
                .state_max = c->state_max,
                .state_patience_usec = c->state_patience_usec,
                .blob = item->blob,
                .mount_from = same_registry(c) ? c->source->repository : NULL,
                .exists = c->same_repository && stream,
                .always_stream = stream,
                .tap = item->is_layer ? c->tap : NULL,
                .moved = on_moved,
                .done = on_blob_done,
                .userdata = slot,
        };
        int r;

        slot->copy = c;
        slot->item = item;
        slot->moved = 0;
        r = registry_copy_blob_start(c->op.client, &o, &slot->blob, err);
        if (r >= 0)
                c->n_active++;
        return r;
}

/* The target is known to have the blob, and nobody wants to see its bytes. */
static int skip_blob(CopyOp *c, const CopyItem *item, TbError **err)
{
        int r = 0;

        c->op.copy.blobs_existed++;
        c->progress.blobs_done++;
        c->progress.bytes_done += item->blob->size;
        if (item->is_layer && c->tap && c->tap->end)
                r = c->tap->end(item->blob, REGISTRY_COPY_EXISTED, c->tap->userdata, err);
        return r;
}

static bool target_is_complete(const CopyOp *c)
{
        return c->same_repository || (!c->repair && tb_digest_equal(&c->present, &c->nodes[0]->digest));
}

static int next_blobs(CopyOp *c, TbError **err)
{
        int r;

        for (size_t i = 0; i < c->parallel && c->next_item < c->n_items; i++) {
                CopySlot *slot = c->slots + i;

                while (!slot->blob && c->next_item < c->n_items) {
                        const CopyItem *item = c->items + c->next_item++;
                        bool wanted = c->always_stream && item->is_layer && c->tap;

                        if (target_is_complete(c) && !wanted)
                                r = skip_blob(c, item, err);
                        else
                                r = start_blob(c, slot, item, err);
                        if (r < 0)
                                return r;
                }
        }
        if (c->n_active > 0 || c->next_item < c->n_items)
                return 0;
        if (c->blobs_only) {
                copy_succeed(c);
                return 0;
        }
        return copy_enter_manifests(c, err);
}

static int by_digest(const void *a, const void *b)
{
        const CopyItem *x = a, *y = b;
        int r = strcmp(x->blob->digest.text, y->blob->digest.text);

        if (r != 0)
                return r;
        if (x->is_layer != y->is_layer)
                return x->is_layer ? -1 : 1; /* what is a layer somewhere goes to the tap */
        return x->order < y->order ? -1 : x->order > y->order;
}

static int by_order(const void *a, const void *b)
{
        const CopyItem *x = a, *y = b;

        return x->order < y->order ? -1 : x->order > y->order;
}

static void add_item(CopyOp *c, const RegistryDescriptor *blob, bool is_layer)
{
        if (blob->foreign)
                return;
        c->items[c->n_items] = (CopyItem){.blob = blob, .is_layer = is_layer, .order = c->n_items};
        c->n_items++;
}

/* Every distinct blob, in the order in which manifests name them. */
static int list_blobs(CopyOp *c, TbError **err)
{
        size_t n = 0, kept = 0;

        for (size_t i = 0; i < c->n_nodes; i++)
                n += 1 + c->nodes[i]->manifest->n_layers + c->nodes[i]->manifest->n_entries;
        c->items = calloc(n, sizeof(*c->items));
        if (!c->items)
                return tb_error_oom(err);
        for (size_t i = 0; i < c->n_nodes; i++) {
                const RegistryManifest *m = c->nodes[i]->manifest;

                if (tb_digest_is_set(&m->config.digest))
                        add_item(c, &m->config, false);
                for (size_t k = 0; k < m->n_layers; k++)
                        add_item(c, m->layers + k, true);
                for (size_t k = 0; k < m->n_entries; k++) /* an index may name blobs: build caches do */
                        if (registry_manifest_kind_from_media_type(m->entries[k].media_type) < 0)
                                add_item(c, m->entries + k, false);
        }
        qsort(c->items, c->n_items, sizeof(*c->items), by_digest);
        for (size_t i = 0; i < c->n_items; i++)
                if (kept == 0 ||
                        !tb_digest_equal(&c->items[kept - 1].blob->digest, &c->items[i].blob->digest))
                        c->items[kept++] = c->items[i];
        c->n_items = kept;
        qsort(c->items, c->n_items, sizeof(*c->items), by_order);

        c->progress.blobs_total = c->n_items;
        for (size_t i = 0; i < c->n_items; i++)
                c->progress.bytes_total += c->items[i].blob->size;
        return 0;
}

int copy_enter_blobs(CopyOp *c, TbError **err)
{
        int r;

        c->phase = COPY_BLOBS;
        r = list_blobs(c, err);
        return r < 0 ? r : next_blobs(c, err);
}

/* ---- LOOKING ---- */

static int when_looked(CopyOp *c, TbError **err)
{
        int r;

        if (!c->top || !c->looked)
                return 0;
        if (c->n_platforms > 0 && registry_manifest_is_index(c->top)) {
                RegistryManifest *filtered = NULL;

                r = copy_filter_index(c->top, c->platforms, c->n_platforms, &filtered, err);
                if (r < 0) {
                        (void) tb_error_prefix(err, "%s", c->source_name);
                        return r;
                }
                if (filtered) {
                        registry_manifest_free(c->top);
                        c->top = filtered;
                }
        }
        if (c->to) {
                r = c->to->ops->prepare(c->to, c->top, err);
                return r < 0 ? r : copy_enter_children(c, TAKE_PTR(c->top), err);
        }
        if (tb_digest_is_set(&c->target->digest) && !tb_digest_equal(&c->target->digest, &c->top->digest))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "%s: the target names digest %s, but the source has %s", c->source_name,
                        c->target->digest.text, c->top->digest.text);
        return copy_enter_children(c, TAKE_PTR(c->top), err);
}

static int get_source(CopyOp *c, const TbDigest *digest, TbError **err);

/* An index, but one platform is wanted: 1 = its manifest is being fetched, 0 = this is what we want. */
static int descend(CopyOp *c, TbError **err)
{
        const RegistryDescriptor *d;
        TbDigest digest;
        int r;

        if (!c->one_platform || !registry_manifest_is_index(c->top))
                return 0;
        if (++c->platform_depth > COPY_DEPTH_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "%s: indexes nested deeper than %u",
                        c->source_name, COPY_DEPTH_MAX);
        r = registry_manifest_select(c->top, &c->platform, &d, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s", c->source_name);
                return r;
        }
        digest = d->digest;
        c->op.copy.bytes_downloaded += c->top->size;
        c->top = registry_manifest_free(c->top);
        r = get_source(c, &digest, err);
        return r < 0 ? r : 1;
}

static void on_source(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        CopyOp *c = userdata;
        int r;

        if (err) {
                copy_fail(c, err);
                return;
        }
        c->top = registry_op_steal_manifest(op);
        c->get = registry_op_free(c->get);
        r = descend(c, &e);
        if (r == 0)
                r = when_looked(c, &e);
        if (r < 0)
                copy_fail(c, e);
}

static int get_source(CopyOp *c, const TbDigest *digest, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        int r;

        if (c->from)
                return copy_local_get(c->op.client, c->from, digest, on_source, c, &c->get, err);
        if (digest) {
                r = registry_ref_with(c->source, NULL, digest, &ref, err);
                if (r < 0)
                        return r;
        }
        return registry_get_manifest_start(c->op.client, ref ? ref : c->source, on_source, c, &c->get, err);
}

static void on_looked(RegistryOp *op, int result, const TbError *err, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        CopyOp *c = userdata;

        if (err) {
                copy_fail(c, err);
                return;
        }
        if (result > 0)
                c->present = registry_op_descriptor(op)->digest;
        c->looked = true;
        c->look = registry_op_free(c->look);
        if (when_looked(c, &e) < 0)
                copy_fail(c, e);
}

static int on_given(sd_event_source *s, void *userdata)
{
        _cleanup_error_ TbError *e = NULL;
        CopyOp *c = userdata;

        c->given = sd_event_source_disable_unref(c->given);
        if (when_looked(c, &e) < 0)
                copy_fail(c, e);
        return 0;
}

/* In the next turn: callbacks come from the loop only. */
static int start_given(CopyOp *c, const RegistryManifest *m, TbError **err)
{
        int r;

        if (!c->source || !c->target || c->one_platform || c->n_platforms > 0)
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL,
                        "a copy of a manifest that is given, and not of all of it");
        r = registry_manifest_parse(m->data, m->size, registry_manifest_kind_to_media_type(m->kind),
                &c->source->digest, &c->top, err);
        if (r < 0)
                return r;
        c->looked = true;
        r = sd_event_add_defer(c->op.client->event, &c->given, on_given, c);
        return r < 0 ? tb_error_set_errno(err, TB_ERROR_SYSTEM, r, "cannot use the event loop") : 0;
}

static int start_looking(CopyOp *c, TbError **err)
{
        int r = get_source(c, NULL, err);

        return r < 0 || c->to ? r
                              : registry_resolve_start(c->op.client, c->target, on_looked, c, &c->look, err);
}

/* ---- start ---- */

static int ref_copy(const RegistryRef *ref, RegistryRef **ret, TbError **err)
{
        return registry_ref_new(ref->host, ref->repository, ref->tag, &ref->digest, ret, err);
}

static int take_platforms(CopyOp *c, const RegistryCopyOptions *o, TbError **err)
{
        const RegistryPlatform *p = o->platform;

        if (p) {
                if (o->n_platforms > 0)
                        return tb_error_set(
                                err, TB_ERROR_BUG, -EINVAL, "a copy of one platform and of several");
                c->one_platform = true;
                return registry_platform_init(&c->platform, p->os, p->architecture, p->variant, err);
        }
        c->platforms = calloc(o->n_platforms + 1, sizeof(*c->platforms));
        if (!c->platforms)
                return tb_error_oom(err);
        for (size_t i = 0; i < o->n_platforms; i++) {
                int r;

                p = o->platforms + i;
                r = registry_platform_init(c->platforms + i, p->os, p->architecture, p->variant, err);
                if (r < 0)
                        return r;
                c->n_platforms++;
        }
        return 0;
}

static int take_options(CopyOp *c, const RegistryCopyOptions *o, TbError **err)
{
        int r;

        c->parallel = PARALLEL_DEFAULT;
        if (!o)
                return 0;
        if (o->parallel > 0)
                c->parallel = MIN2(o->parallel, COPY_PARALLEL_MAX);
        c->always_stream = o->always_stream;
        c->blobs_only = o->blobs_only;
        c->repair = o->repair;
        if (o->tap) {
                c->tap_copy = *o->tap;
                c->tap = &c->tap_copy;
        }
        c->progress_fn = o->progress;
        c->progress_userdata = o->progress_userdata;
        if (o->state_dir) {
                r = registry_spool_prepare(o->state_dir, err);
                if (r < 0)
                        return r;
                c->state_dir = strdup(o->state_dir);
                if (!c->state_dir)
                        return tb_error_oom(err);
                c->state_max = o->state_max;
                c->state_patience_usec = o->state_patience_usec;
        }
        return take_platforms(c, o, err);
}

static int open_source(CopyOp *c, const RegistryPlace *p, bool oci, TbError **err)
{
        int r = 0;

        switch (p->kind) {
        case REGISTRY_PLACE_OCI_LAYOUT:
                r = registry_layout_open(p->path, p->tag, &c->from, err);
                break;
        case REGISTRY_PLACE_DOCKER_ARCHIVE:
                r = registry_archive_open(p->path, p->ref, oci, &c->from, err);
                break;
        case REGISTRY_PLACE_REGISTRY:
        case _REGISTRY_PLACE_KIND_MAX:
        case _REGISTRY_PLACE_KIND_INVALID:
                r = ref_copy(p->ref, &c->source, err);
                break;
        }
        if (r < 0)
                return r;
        c->source_name = c->from ? strdup(c->from->name) : registry_ref_name(c->source);
        return c->source_name ? 0 : tb_error_oom(err);
}

static int open_target(CopyOp *c, const RegistryPlace *p, TbError **err)
{
        int r = 0;

        switch (p->kind) {
        case REGISTRY_PLACE_OCI_LAYOUT:
                r = registry_layout_create(p->path, p->tag, &c->to, err);
                break;
        case REGISTRY_PLACE_DOCKER_ARCHIVE:
                r = registry_archive_create(p->path, p->ref, &c->to, err);
                if (r >= 0 && !c->one_platform && c->n_platforms == 0) {
                        c->one_platform = true; /* it holds one image */
                        r = registry_platform_host(&c->platform, err);
                }
                break;
        case REGISTRY_PLACE_REGISTRY:
        case _REGISTRY_PLACE_KIND_MAX:
        case _REGISTRY_PLACE_KIND_INVALID:
                return ref_copy(p->ref, &c->target, err);
        }
        if (r >= 0 && c->to->serial)
                c->parallel = 1;
        c->looked = true;
        return r;
}

int registry_copy_place_start(RegistryClient *client, const RegistryPlace *source,
        const RegistryPlace *target, const RegistryCopyOptions *options, RegistryDoneFn done, void *userdata,
        RegistryOp **ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op =
                registry_op_new(client, sizeof(CopyOp), copy_destroy, done, userdata, err);
        CopyOp *c = (CopyOp *) op;
        int r;

        if (!c)
                return -ENOMEM;
        if ((r = take_options(c, options, err)) < 0 ||
                (r = open_source(c, source, target->kind == REGISTRY_PLACE_OCI_LAYOUT, err)) < 0 ||
                (r = open_target(c, target, err)) < 0)
                return r;
        c->same_repository = same_registry(c) && tb_streq(c->source->repository, c->target->repository);
        r = options && options->manifest ? start_given(c, options->manifest, err) : start_looking(c, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(op);
        return 0;
}

int registry_copy_start(RegistryClient *client, const RegistryRef *source, const RegistryRef *target,
        const RegistryCopyOptions *options, RegistryDoneFn done, void *userdata, RegistryOp **ret,
        TbError **err)
{
        const RegistryPlace from = {.kind = REGISTRY_PLACE_REGISTRY, .ref = (RegistryRef *) source};
        const RegistryPlace to = {.kind = REGISTRY_PLACE_REGISTRY, .ref = (RegistryRef *) target};

        return registry_copy_place_start(client, &from, &to, options, done, userdata, ret, err);
}

static int wait_for_copy(RegistryOp *op, RegistryCopyResult *ret, TbError **err)
{
        int r = registry_op_wait(op, err);

        if (r < 0)
                return r;
        *ret = op->copy;
        op->copy = (RegistryCopyResult){0};
        return 0;
}

int registry_copy(RegistryClient *client, const RegistryRef *source, const RegistryRef *target,
        const RegistryCopyOptions *options, RegistryCopyResult *ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r = registry_copy_start(client, source, target, options, NULL, NULL, &op, err);

        return r < 0 ? r : wait_for_copy(op, ret, err);
}

int registry_copy_place(RegistryClient *client, const RegistryPlace *source, const RegistryPlace *target,
        const RegistryCopyOptions *options, RegistryCopyResult *ret, TbError **err)
{
        _cleanup_(registry_op_freep) RegistryOp *op = NULL;
        int r = registry_copy_place_start(client, source, target, options, NULL, NULL, &op, err);

        return r < 0 ? r : wait_for_copy(op, ret, err);
}

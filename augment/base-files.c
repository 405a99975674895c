/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/base-files.h"
#include "augment/facts.h"
#include "augment/layer-scan.h"
#include "augment/scan-thread.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"

#define FILES_VERSION 2U
#define NO_LAYER SIZE_MAX
/* By how much the scan of a layer may lag behind; four layers stream at a time. What is still in there when the upload has ended is
 * scanned while the registry brings its file to disk, where both would wait for each other otherwise. */
#define RING_ALONE ((size_t) 8 << 20)
#define RING_OF_SEVERAL ((size_t) 2 << 20)

typedef struct BaseLayer {
        const RegistryDescriptor *descriptor;
        const TbDigest *diff_id;
        size_t first;       /* the layer of the same digest that is scanned for this one as well */
        size_t last;        /* of a first one: where its scan is needed for the last time */
        ScanThread *thread; /* while it streams */
        LayerScan *scan;    /* when it was seen whole */
} BaseLayer;

struct BaseFiles {
        BaseLayer *layers;
        size_t n_layers;
        size_t n_merged; /* layers that are in the tree */
        FileTree *tree;
        FileBudget
                budget; /* of the tree and all scans: what this process may hold, however many layers come at once */
        LayerLimits limits;
        bool tight; /* there was no room for all */
        bool alone; /* nothing is held but the tree and the layer that is read now */
        uint64_t unpacked;
        uint32_t *own; /* those that hold nothing but AUGMENT_ROOT */
        size_t n_own;
        RegistryCopyTap tap;
};

static int layer_error(const RegistryDescriptor *layer, int r, TbError **err)
{
        tb_error_prefix(err, "layer %s is refused", layer->digest.text);
        return r;
}

static size_t find_layer(const BaseFiles *b, const TbDigest *digest)
{
        for (size_t i = 0; i < b->n_layers; i++)
                if (tb_digest_equal(&b->layers[i].descriptor->digest, digest))
                        return i;
        return NO_LAYER;
}

/* Puts all layers over each other whose turn it is. */
static int merge(BaseFiles *b, TbError **err)
{
        while (b->n_merged < b->n_layers) {
                size_t i = b->n_merged;
                BaseLayer *first = &b->layers[b->layers[i].first];
                int r;

                if (!first->scan)
                        return 0;
                b->unpacked += layer_scan_unpacked(first->scan);
                if (file_tree_is_only(layer_scan_tree(first->scan), &AUGMENT_ROOT[1]))
                        b->own[b->n_own++] = (uint32_t) i;
                r = first->last == i ? file_tree_take(b->tree, layer_scan_use_up(first->scan), err)
                                     : file_tree_apply(b->tree, layer_scan_tree(first->scan), err);
                if (r < 0)
                        return layer_error(b->layers[i].descriptor, r, err);
                if (first->last == i)
                        first->scan = layer_scan_free(first->scan);
                b->n_merged++;
        }
        return 0;
}

static int on_begin(const RegistryDescriptor *layer, void *userdata, TbError **err)
{
        BaseFiles *b = userdata;
        size_t i = find_layer(b, &layer->digest);

        if (i == NO_LAYER)
                return 0;
        b->layers[i].thread = scan_thread_free(b->layers[i].thread);
        return scan_thread_new(
                &b->limits, b->n_layers == 1 ? RING_ALONE : RING_OF_SEVERAL, &b->layers[i].thread, err);
}

/*
 * There is no room for this layer beside those that are held already: it is let go, and read again from the mirror when it is
 * its turn, alone (base_files_finish()). So whether an image is taken doesn't depend on what comes when.
 */
static int put_off(BaseFiles *b, size_t i, TbError **err)
{
        tb_error_free(*err);
        *err = NULL;
        b->layers[i].thread = scan_thread_free(b->layers[i].thread);
        b->tight = true;
        return 0;
}

static int on_data(
        const RegistryDescriptor *layer, const void *data, size_t size, void *userdata, TbError **err)
{
        BaseFiles *b = userdata;
        size_t i = find_layer(b, &layer->digest);
        int r;

        if (i == NO_LAYER || !b->layers[i].thread)
                return 0;
        r = scan_thread_feed(b->layers[i].thread, data, size, err);
        if (r == -ENOBUFS && !b->alone)
                return put_off(b, i, err);
        return r < 0 ? layer_error(layer, r, err) : 0;
}

static int layer_seen(BaseFiles *b, size_t i, TbError **err)
{
        BaseLayer *l = &b->layers[i];
        int r;

        r = scan_thread_finish(l->thread, l->diff_id, &l->scan, err);
        if (r == -ENOBUFS && !b->alone)
                return put_off(b, i, err);
        if (r < 0)
                return layer_error(l->descriptor, r, err);
        l->thread = scan_thread_free(l->thread);
        return merge(b, err);
}

static int on_end(const RegistryDescriptor *layer, RegistryCopyHow how, void *userdata, TbError **err)
{
        BaseFiles *b = userdata;
        size_t i = find_layer(b, &layer->digest);

        if (how != REGISTRY_COPY_STREAMED || i == NO_LAYER || !b->layers[i].thread)
                return 0;
        return layer_seen(b, i, err);
}

int base_files_new(
        const RegistryManifest *manifest, const ImageConfig *config, BaseFiles **ret, TbError **err)
{
        _cleanup_(base_files_freep) BaseFiles *b = calloc(1, sizeof(*b));
        int r;

        if (!b)
                return tb_error_oom(err);
        b->limits = layer_limits_default;
        b->limits.budget = &b->budget;
        /* As much as the largest layer there may be. */
        b->budget.max = b->limits.files_max * FILE_NODE_COST + b->limits.names_max;
        b->tap = (RegistryCopyTap){.begin = on_begin, .data = on_data, .end = on_end, .userdata = b};
        r = file_tree_new(layer_limits_default.files_max, layer_limits_default.names_max, &b->tree, err);
        if (r < 0)
                return r;
        file_tree_set_budget(b->tree, &b->budget);
        b->layers = calloc(manifest->n_layers ? manifest->n_layers : 1, sizeof(*b->layers));
        b->own = calloc(manifest->n_layers + 1, sizeof(*b->own));
        if (!b->layers || !b->own)
                return tb_error_oom(err);
        for (size_t i = 0; i < manifest->n_layers; i++) {
                BaseLayer *l = &b->layers[i];

                l->descriptor = &manifest->layers[i];
                l->diff_id = &config->diff_ids[i];
                if (l->descriptor->foreign)
                        return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                                "layer %s lies outside of registries, as only Windows images have it",
                                l->descriptor->digest.text);
                l->first = find_layer(b, &l->descriptor->digest);
                b->n_layers = i + 1;
                if (l->first == NO_LAYER)
                        l->first = i;
                b->layers[l->first].last = i;
                if (!tb_digest_equal(l->diff_id, b->layers[l->first].diff_id))
                        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                                "the image is broken: layer %s has two diff_ids",
                                l->descriptor->digest.text);
        }
        *ret = TAKE_PTR(b);
        return 0;
}

const RegistryCopyTap *base_files_tap(const BaseFiles *b)
{
        return &b->tap;
}

typedef struct ReadLayer {
        BaseFiles *files;
        const RegistryDescriptor *layer;
} ReadLayer;

static int on_read(const void *data, size_t size, void *userdata, TbError **err)
{
        ReadLayer *read = userdata;

        return on_data(read->layer, data, size, read->files, err);
}

static int read_layer(
        BaseFiles *b, size_t i, RegistryClient *client, const RegistryRef *repository, TbError **err)
{
        const RegistryDescriptor *layer = b->layers[i].descriptor;
        ReadLayer read = {.files = b, .layer = layer};
        int r;

        if ((r = on_begin(layer, b, err)) < 0 ||
                (r = registry_read_blob(
                         client, repository, &layer->digest, layer->size, on_read, &read, err)) < 0)
                return r;
        return b->layers[i].thread ? layer_seen(b, i, err) : 0;
}

/* What waits for its turn is read again then. */
static void let_go_of_others(BaseFiles *b)
{
        for (size_t i = 0; i < b->n_layers; i++)
                b->layers[i].scan = layer_scan_free(b->layers[i].scan);
}

int base_files_finish(BaseFiles *b, RegistryClient *client, const RegistryRef *repository,
        uint64_t *ret_read, ImageFiles **ret, TbError **err)
{
        int r;

        while (b->n_merged < b->n_layers) {
                size_t i = b->layers[b->n_merged].first;

                b->alone = b->tight;
                if (b->alone)
                        let_go_of_others(b);
                r = read_layer(b, i, client, repository, err);
                if (r < 0)
                        return r;
                *ret_read += b->layers[i].descriptor->size;
        }
        r = image_files_collect(b->tree, b->unpacked, ret, err);
        if (r < 0)
                return r;
        (*ret)->own = TAKE_PTR(b->own);
        (*ret)->n_own = b->n_own;
        return 0;
}

BaseFiles *base_files_free(BaseFiles *b)
{
        if (!b)
                return NULL;
        for (size_t i = 0; i < b->n_layers; i++) {
                scan_thread_free(b->layers[i].thread);
                layer_scan_free(b->layers[i].scan);
        }
        free(b->layers);
        free(b->own);
        file_tree_free(b->tree);
        free(b);
        return NULL;
}

/* ---- Kept beside the mirror ---- */

static int files_ref(const RegistryRef *mirror, const TbDigest *base, RegistryRef **ret, TbError **err)
{
        _cleanup_free_ char *tag = tb_asprintf("f-%.40s", tb_digest_hex(base));

        return tag ? registry_ref_with(mirror, tag, NULL, ret, err) : tb_error_oom(err);
}

/* Whatever somebody put there in its place is as good as nothing. */
static int parse_kept(const RegistryManifest *m, ImageFiles **ret)
{
        _cleanup_json_ json_t *kept = NULL;
        json_t *annotations = NULL, *files = NULL;
        const char *text = NULL;
        uint64_t version = 0;

        if (tb_json_get_object(m->json, "annotations", &annotations, NULL) <= 0 ||
                tb_json_get_string(annotations, BASE_FILES_ANNOTATION, &text, NULL) <= 0 ||
                tb_json_parse(text, strlen(text), REGISTRY_MANIFEST_MAX, "facts", &kept, NULL) < 0 ||
                tb_json_get_u64(kept, "version", &version, NULL) <= 0 || version != FILES_VERSION ||
                tb_json_get_object(kept, "files", &files, NULL) <= 0)
                return 0;
        return image_files_from_json(files, ret, NULL) < 0 ? 0 : 1;
}

int base_files_load(RegistryClient *client, const RegistryRef *mirror, const TbDigest *base,
        ImageFiles **ret, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_error_ TbError *e = NULL;
        int r;

        r = files_ref(mirror, base, &ref, err);
        if (r < 0)
                return r;
        r = registry_get_manifest(client, ref, &m, &e);
        if (r == -ENOENT || r == -EOPNOTSUPP || r == -EBADMSG || r == -EPROTO)
                return 0;
        if (r < 0) {
                tb_error_prefix(&e, "cannot read what is known about the base");
                return tb_error_move(err, &e);
        }
        return parse_kept(m, ret);
}

static int kept_text(const ImageFiles *files, char **ret, TbError **err)
{
        _cleanup_json_ json_t *kept = json_object();
        json_t *j = NULL;
        int r;

        if (!kept)
                return tb_error_oom(err);
        if ((r = image_files_to_json(files, &j, err)) < 0 ||
                (r = tb_json_set_new(kept, "files", j, err)) < 0 ||
                (r = tb_json_set_u64(kept, "version", FILES_VERSION, err)) < 0)
                return r;
        return tb_json_dump(kept, true, ret, NULL, err);
}

int base_files_store(RegistryClient *client, const RegistryRef *mirror, const TbDigest *base,
        const ImageFiles *files, AugmentPending *pending, TbError **err)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ char *text = NULL;
        char *manifest;
        _cleanup_json_ json_t *j = NULL;
        TbDigest empty;
        size_t size;
        int r;

        if ((r = files_ref(mirror, base, &ref, err)) < 0 || (r = kept_text(files, &text, err)) < 0 ||
                (r = tb_digest_of("{}", 2, &empty, err)) < 0)
                return r;
        /* image-spec manifest.md, "Guidelines for Artifact Usage": an empty config, and no layer that anybody needs. */
        j = json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:i}, s:[], s:{s:s}}", "schemaVersion", 2, "mediaType",
                REGISTRY_TYPE_OCI_MANIFEST, "artifactType", BASE_FILES_TYPE, "config", "mediaType",
                REGISTRY_TYPE_OCI_EMPTY, "digest", empty.text, "size", 2, "layers", "annotations",
                BASE_FILES_ANNOTATION, text);
        if (!j)
                return tb_error_oom(err);
        r = tb_json_dump(j, false, &manifest, &size, err);
        if (r < 0)
                return r;
        return augment_pending_manifest(pending, client, ref, REGISTRY_TYPE_OCI_MANIFEST, manifest, size,
                "cannot keep what is known about the base", err);
}

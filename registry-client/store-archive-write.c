/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * docker-archive as a target: what docker load and skopeo read
 *
 * The file is written front to back: configuration, layers bottom first, manifest.json, two blocks of zeros. A layer is
 * unpacked as it arrives, and its header is written when its size is known; it must have the diff_id that the
 * configuration gives for it. A layer that fails is written over by its next try. The file gets its name at the very end,
 * and only when there is none of that name.
 */

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/decompress.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/store.h"

#define BLOCK REGISTRY_TAR_BLOCK
#define WRITE_SIZE (256U * 1024)

typedef struct ArchiveWriter ArchiveWriter;

typedef struct ArchiveTarget {
        RegistryStore store;
        RegistryRef *name;
        char *file_name;
        int dir_fd;
        RegistryTempFile file;
        uint64_t at; /* everything before is complete */
        TbDigest config;
        TbDigest *blobs, *diff_ids; /* of the layers, bottom first */
        bool *written;
        size_t n_layers, n_diff_ids;
} ArchiveTarget;

struct ArchiveWriter {
        RegistryStoreWriter writer;
        ArchiveTarget *archive;
        TbBuffer document;       /* the configuration */
        const TbDigest *diff_id; /* a layer's; NULL: the configuration */
        TbDecompressor *decompressor;
        TbHasher *hasher;
        uint64_t size; /* of what was unpacked */
        char *buffer;  /* of WRITE_SIZE */
        size_t used;
};

static RegistryStore *target_free(RegistryStore *s)
{
        ArchiveTarget *a = (ArchiveTarget *) s;

        registry_temp_file_done(&a->file);
        (void) tb_close(a->dir_fd);
        registry_ref_free(a->name);
        free(a->file_name);
        free(a->blobs);
        free(a->diff_ids);
        free(a->written);
        free(s->name);
        free(a);
        return NULL;
}

static int target_prepare(RegistryStore *s, const RegistryManifest *root, TbError **err)
{
        ArchiveTarget *a = (ArchiveTarget *) s;

        if (registry_manifest_is_index(root) || !tb_digest_is_set(&root->config.digest))
                return tb_error_set(err, TB_ERROR_CONFIG, -EOPNOTSUPP,
                        "%s: only an image fits into a docker-archive", s->name);
        a->config = root->config.digest;
        a->n_layers = root->n_layers;
        a->blobs = calloc(a->n_layers + 1, sizeof(*a->blobs));
        a->written = calloc(a->n_layers + 1, sizeof(*a->written));
        if (!a->blobs || !a->written)
                return tb_error_oom(err);
        for (size_t i = 0; i < a->n_layers; i++) {
                if (root->layers[i].foreign)
                        return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                                "%s: layer %zu is a foreign one, which the registry does not have", s->name,
                                i + 1);
                a->blobs[i] = root->layers[i].digest;
        }
        return 0;
}

static int target_has_blob(RegistryStore *s, const RegistryDescriptor *blob, TbError **err)
{
        return 0;
}

/* ---- entries ---- */

static int finish_entry(ArchiveTarget *a, const char *name, uint64_t size, TbError **err)
{
        unsigned char block[BLOCK], zeros[BLOCK] = {0};
        size_t padding = (BLOCK - size % BLOCK) % BLOCK;
        int r;

        registry_tar_header(block, name, size);
        if ((r = registry_pwrite_all(a->file.fd, block, BLOCK, a->at, err)) < 0 ||
                (r = registry_pwrite_all(a->file.fd, zeros, padding, a->at + BLOCK + size, err)) < 0)
                return r;
        a->at += BLOCK + size + padding;
        return 0;
}

static int add_document(ArchiveTarget *a, const char *name, const void *data, size_t size, TbError **err)
{
        int r = registry_pwrite_all(a->file.fd, data, size, a->at + BLOCK, err);

        return r < 0 ? r : finish_entry(a, name, size, err);
}

static char *layer_file(const TbDigest *diff_id)
{
        return tb_asprintf("%s.tar", tb_digest_hex(diff_id));
}

/* ---- blobs ---- */

static RegistryStoreWriter *target_write_free(RegistryStoreWriter *writer)
{
        ArchiveWriter *w = (ArchiveWriter *) writer;

        tb_buffer_done(&w->document);
        tb_decompressor_free(w->decompressor);
        tb_hasher_free(w->hasher);
        free(w->buffer);
        free(w);
        return NULL;
}

static int flush(ArchiveWriter *w, TbError **err)
{
        ArchiveTarget *a = w->archive;
        int r = registry_pwrite_all(a->file.fd, w->buffer, w->used, a->at + BLOCK + w->size - w->used, err);

        w->used = 0;
        return r;
}

static int on_plain(const void *data, size_t size, void *userdata, TbError **err)
{
        ArchiveWriter *w = userdata;
        const char *p = data;
        int r = tb_hasher_update(w->hasher, data, size, err);

        while (r >= 0 && size > 0) {
                size_t n = MIN2(size, WRITE_SIZE - w->used);

                memcpy(w->buffer + w->used, p, n);
                w->used += n;
                w->size += n;
                p += n;
                size -= n;
                if (w->used == WRITE_SIZE)
                        r = flush(w, err);
        }
        return r;
}

/* The diff_id of a layer; the configuration has come before (the store is serial). */
static const TbDigest *find_diff_id(const ArchiveTarget *a, const TbDigest *blob)
{
        for (size_t i = 0; i < a->n_layers && i < a->n_diff_ids; i++)
                if (tb_digest_equal(a->blobs + i, blob))
                        return a->diff_ids + i;
        return NULL;
}

static int target_write_start(
        RegistryStore *s, const RegistryDescriptor *blob, RegistryStoreWriter **ret, TbError **err)
{
        ArchiveTarget *a = (ArchiveTarget *) s;
        ArchiveWriter *w = calloc(1, sizeof(*w));
        int r = 0;

        if (!w)
                return tb_error_oom(err);
        w->writer.store = s;
        w->archive = a;
        w->document.max = REGISTRY_CONFIG_MAX;
        if (!tb_digest_equal(&a->config, &blob->digest)) {
                w->diff_id = find_diff_id(a, &blob->digest);
                w->buffer = malloc(WRITE_SIZE);
                if (!w->diff_id)
                        r = tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                                "%s: the image's configuration has no diff_id for layer %s", s->name,
                                blob->digest.text);
                else if (!w->buffer)
                        r = tb_error_oom(err);
                else if ((r = tb_hasher_new(&w->hasher, err)) >= 0)
                        r = tb_decompressor_new(
                                REGISTRY_LAYER_PLAIN_MAX, on_plain, w, &w->decompressor, err);
        }
        if (r < 0)
                (void) target_write_free(&w->writer);
        else
                *ret = &w->writer;
        return r;
}

static int target_write(RegistryStoreWriter *writer, const void *data, size_t size, TbError **err)
{
        ArchiveWriter *w = (ArchiveWriter *) writer;
        int r = w->diff_id ? tb_decompressor_feed(w->decompressor, data, size, err)
                           : tb_buffer_append(&w->document, data, size, err);

        if (r < 0)
                (void) tb_error_prefix(err, "%s", writer->store->name);
        return r;
}

static int commit_config(ArchiveWriter *w, TbError **err)
{
        ArchiveTarget *a = w->archive;
        _cleanup_free_ char *name = tb_asprintf("%s.json", tb_digest_hex(&a->config));
        int r;

        if (!name)
                return tb_error_oom(err);
        free(a->diff_ids);
        a->diff_ids = NULL;
        r = registry_config_diff_ids(w->document.data ? w->document.data : "", w->document.size,
                &a->diff_ids, &a->n_diff_ids, err);
        if (r < 0)
                return r;
        if (a->n_diff_ids != a->n_layers)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "the manifest names %zu layers, the configuration %zu", a->n_layers, a->n_diff_ids);
        return add_document(a, name, w->document.data, w->document.size, err);
}

static int commit_layer(ArchiveWriter *w, TbError **err)
{
        ArchiveTarget *a = w->archive;
        _cleanup_free_ char *name = layer_file(w->diff_id);
        bool there = false;
        TbDigest got;
        int r;

        if (!name)
                return tb_error_oom(err);
        if ((r = tb_decompressor_finish(w->decompressor, err)) < 0 || (r = flush(w, err)) < 0 ||
                (r = tb_hasher_final(w->hasher, &got, err)) < 0)
                return r;
        if (!tb_digest_equal(&got, w->diff_id))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "a layer unpacks to %s, the configuration says %s", got.text, w->diff_id->text);
        /* Two compressions of one content are one file. */
        for (size_t i = 0; i < a->n_layers; i++)
                if (tb_digest_equal(a->diff_ids + i, w->diff_id)) {
                        there = there || a->written[i];
                        a->written[i] = true;
                }
        return there ? 0 : finish_entry(a, name, w->size, err);
}

static int target_commit(RegistryStoreWriter *writer, TbError **err)
{
        ArchiveWriter *w = (ArchiveWriter *) writer;
        int r = w->diff_id ? commit_layer(w, err) : commit_config(w, err);

        if (r < 0)
                (void) tb_error_prefix(err, "%s", writer->store->name);
        return r;
}

/* ---- the end ---- */

/* "nginx:1.25" for what docker shows that way (distribution/reference, FamiliarString()). */
static char *familiar(const RegistryRef *ref)
{
        const char *repository = ref->repository, *rest;

        if (!tb_streq(ref->host, "docker.io"))
                return tb_asprintf("%s/%s:%s", ref->host, repository, ref->tag);
        rest = tb_startswith(repository, "library/");
        return tb_asprintf("%s:%s", rest && !strchr(rest, '/') ? rest : repository, ref->tag);
}

static int add_list(ArchiveTarget *a, TbError **err)
{
        _cleanup_json_ json_t *tags = json_array(), *layers = json_array(), *doc = NULL;
        _cleanup_free_ char *config = tb_asprintf("%s.json", tb_digest_hex(&a->config)), *text = NULL;
        size_t size;
        int r;

        if (!tags || !layers || !config)
                return tb_error_oom(err);
        if (a->name) {
                _cleanup_free_ char *name = familiar(a->name);

                if (!name || json_array_append_new(tags, json_string(name)) < 0)
                        return tb_error_oom(err);
        }
        for (size_t i = 0; i < a->n_layers; i++) {
                _cleanup_free_ char *file = layer_file(a->diff_ids + i);

                if (!file || json_array_append_new(layers, json_string(file)) < 0)
                        return tb_error_oom(err);
        }
        doc = json_pack("[{s:s, s:O, s:O}]", "Config", config, "RepoTags", tags, "Layers", layers);
        if (!doc)
                return tb_error_oom(err);
        r = tb_json_dump(doc, false, &text, &size, err);
        return r < 0 ? r : add_document(a, "manifest.json", text, size, err);
}

static int target_put_manifest(RegistryStore *s, const RegistryManifest *m, bool root, TbError **err)
{
        static const unsigned char end[2 * BLOCK];
        ArchiveTarget *a = (ArchiveTarget *) s;
        int r;

        if ((r = add_list(a, err)) >= 0 &&
                (r = registry_pwrite_all(a->file.fd, end, sizeof(end), a->at, err)) >= 0) {
                /* a layer that was given up may have been longer */
                if (ftruncate(a->file.fd, (off_t) (a->at + sizeof(end))) < 0)
                        r = tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write the file");
                else
                        r = registry_temp_file_commit(&a->file, a->file_name, false, err);
        }
        if (r >= 0 && fsync(a->dir_fd) < 0)
                r = tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write the directory");
        if (r < 0)
                (void) tb_error_prefix(err, "%s", s->name);
        return r;
}

static const RegistryStoreOps target_ops = {
        .free = target_free,
        .prepare = target_prepare,
        .has_blob = target_has_blob,
        .write_start = target_write_start,
        .write = target_write,
        .commit = target_commit,
        .write_free = target_write_free,
        .put_manifest = target_put_manifest,
};

int registry_archive_create(const char *path, const RegistryRef *name, RegistryStore **ret, TbError **err)
{
        _cleanup_(registry_store_freep) RegistryStore *s = NULL;
        ArchiveTarget *a = calloc(1, sizeof(*a));
        _cleanup_free_ char *shown = tb_escape(path, 200), *dir = NULL;
        const char *slash = strrchr(path, '/');
        struct stat st;
        int r;

        if (!a)
                return tb_error_oom(err);
        s = &a->store;
        a->store = (RegistryStore){.ops = &target_ops, .serial = true};
        a->dir_fd = -EBADF;
        a->file = REGISTRY_TEMP_FILE_NONE;
        dir = slash ? strndup(path, (size_t) (slash - path) + 1) : strdup(".");
        a->file_name = strdup(slash ? slash + 1 : path);
        a->store.name = shown ? tb_asprintf("docker-archive:%s", shown) : NULL;
        if (!dir || !a->file_name || !a->store.name)
                return tb_error_oom(err);
        if (!a->file_name[0])
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL, "%s: is a directory", s->name);
        if (lstat(path, &st) >= 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -EEXIST,
                        "%s: there is such a file already; remove it, or take another name", s->name);
        if (name && (r = registry_ref_new(name->host, name->repository, name->tag, NULL, &a->name, err)) < 0)
                return r;
        a->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (a->dir_fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_CONFIG, -errno, "%s: cannot open its directory", s->name);
        r = registry_temp_file_open(a->dir_fd, &a->file, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s", s->name);
                return r;
        }
        *ret = TAKE_PTR(s);
        return 0;
}

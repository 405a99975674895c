/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * docker-archive as a source: what docker save writes, old and new (moby image/tarexport; containers/image docker/tarfile)
 *
 * manifest.json names the configuration and the layers of each image; there is no manifest as registries know it, so one
 * is made: the configuration keeps its bytes, and so the image its ID, and the layers go as they lie there. Plain
 * layers have their diff_id as digest, and the copy verifies it as it reads them. Compressed ones are read once before,
 * for the digest of their bytes and to see that they unpack to their diff_id.
 *
 * An archive that is compressed as a whole is unpacked into a file without a name first: entries must be found again.
 */

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/decompress.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/store.h"

#define MANIFEST_JSON "manifest.json"
#define ARCHIVE_PLAIN_MAX (256ULL << 30)
#define BUFFER_SIZE (128U * 1024)
#define TYPE_DOCKER_LAYER_PLAIN "application/vnd.docker.image.rootfs.diff.tar"
#define TYPE_OCI_LAYER_PLAIN "application/vnd.oci.image.layer.v1.tar"
#define TYPE_OCI_LAYER_ZSTD "application/vnd.oci.image.layer.v1.tar+zstd"

typedef struct ArchiveBlob {
        TbDigest digest;
        uint64_t offset, size;
        TbCompression compression;
} ArchiveBlob;

typedef struct Archive {
        RegistryStore store;
        int fd;
        uint64_t size;
        ArchiveBlob config, *layers;
        size_t n_layers;
        bool oci;
        RegistryManifest *manifest;
} Archive;

static RegistryStore *archive_free(RegistryStore *s)
{
        Archive *a = (Archive *) s;

        (void) tb_close(a->fd);
        registry_manifest_free(a->manifest);
        free(a->layers);
        free(s->name);
        free(a);
        return NULL;
}

/* ---- documents ---- */

void registry_archive_image_done(RegistryArchiveImage *i)
{
        free(i->config);
        tb_strv_free(i->layers);
        *i = (RegistryArchiveImage){0};
}

static bool is_named(char *const *tags, const RegistryRef *name)
{
        for (size_t i = 0; tags && tags[i]; i++) {
                _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;

                if (registry_ref_parse(tags[i], &ref, NULL) >= 0 && tb_streq(ref->host, name->host) &&
                        tb_streq(ref->repository, name->repository) && tb_streq(ref->tag, name->tag))
                        return true;
        }
        return false;
}

static int choose(const json_t *doc, const RegistryRef *name, const json_t **ret, TbError **err)
{
        _cleanup_buffer_ TbBuffer names = TB_BUFFER_INIT(4096);
        const json_t *found = NULL;
        size_t i;
        json_t *item;

        json_array_foreach (doc, i, item) {
                _cleanup_strv_ char **tags = NULL;
                int r = tb_json_get_strv(item, "RepoTags", &tags, err);

                if (r < 0)
                        return r;
                for (size_t k = 0; tags && tags[k]; k++) {
                        _cleanup_free_ char *shown = tb_escape(tags[k], 80);

                        if (tb_buffer_printf(
                                    &names, NULL, "%s%s", names.size ? ", " : "", shown ? shown : "?") < 0)
                                break; /* enough of them */
                }
                if (name ? !is_named(tags, name) : json_array_size(doc) > 1)
                        continue;
                if (found)
                        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                                "two images have the name that is asked for");
                found = item;
        }
        if (!found && json_array_size(doc) == 0)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT, "has no image");
        if (!found)
                return tb_error_set(err, TB_ERROR_CONFIG, name ? -ENOENT : -EINVAL, "%s (%s)",
                        name ? "has no image of that name" : "has several images; say which one: FILE:NAME",
                        names.data ? names.data : "none has a name");
        *ret = found;
        return 0;
}

int registry_archive_select(
        const char *data, size_t size, const RegistryRef *name, RegistryArchiveImage *ret, TbError **err)
{
        _cleanup_registry_archive_image_ RegistryArchiveImage image = {0};
        _cleanup_json_ json_t *doc = NULL;
        const json_t *item = NULL;
        const char *config = NULL;
        int r;

        r = tb_json_parse(data, size, REGISTRY_MANIFEST_MAX, MANIFEST_JSON, &doc, err);
        if (r < 0)
                return r;
        if (!json_is_array(doc) || json_array_size(doc) > REGISTRY_INDEX_ENTRIES_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO,
                        "manifest.json is no list of at most %u images", REGISTRY_INDEX_ENTRIES_MAX);
        if ((r = choose(doc, name, &item, err)) < 0 ||
                (r = tb_json_get_string(item, "Config", &config, err)) < 0 ||
                (r = tb_json_get_strv(item, "Layers", &image.layers, err)) < 0)
                return r;
        if (!config || !*config)
                return tb_error_set(err, TB_ERROR_REMOTE, -EPROTO, "manifest.json: Config is missing");
        if (tb_strv_length(image.layers) > REGISTRY_LAYERS_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "manifest.json: more than %u layers",
                        REGISTRY_LAYERS_MAX);
        image.config = strdup(config);
        if (!image.config)
                return tb_error_oom(err);
        *ret = image;
        image = (RegistryArchiveImage){0};
        return 0;
}

int registry_config_diff_ids(const char *data, size_t size, TbDigest **ret, size_t *ret_n, TbError **err)
{
        _cleanup_json_ json_t *doc = NULL;
        _cleanup_strv_ char **ids = NULL;
        _cleanup_free_ TbDigest *v = NULL;
        json_t *rootfs = NULL;
        size_t n;
        int r;

        if ((r = tb_json_parse(data, size, REGISTRY_CONFIG_MAX, "image configuration", &doc, err)) < 0 ||
                (r = tb_json_get_object(doc, "rootfs", &rootfs, err)) < 0)
                return r;
        if (rootfs && (r = tb_json_get_strv(rootfs, "diff_ids", &ids, err)) < 0)
                return r;
        n = tb_strv_length(ids);
        if (n > REGISTRY_LAYERS_MAX)
                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "the image has more than %u layers",
                        REGISTRY_LAYERS_MAX);
        v = calloc(n + 1, sizeof(*v));
        if (!v)
                return tb_error_oom(err);
        for (size_t i = 0; i < n; i++) {
                r = tb_digest_parse(ids[i], v + i, err);
                if (r < 0) {
                        (void) tb_error_prefix(err, "rootfs.diff_ids[%zu]", i);
                        return r;
                }
        }
        *ret = TAKE_PTR(v);
        *ret_n = n;
        return 0;
}

/* ---- layers ---- */

static int read_some(const Archive *a, char *buf, uint64_t offset, size_t want, TbError **err)
{
        ssize_t n;

        do
                n = pread(a->fd, buf, want, (off_t) offset);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, n < 0 ? -errno : -EIO, "cannot read (did the file shrink?)");
        return (int) n;
}

static int hash_plain(const void *data, size_t size, void *userdata, TbError **err)
{
        return tb_hasher_update(userdata, data, size, err);
}

/* One pass over a layer: what is it, the digest of its bytes, and of what they unpack to. */
static int look_at_layer(Archive *a, ArchiveBlob *layer, const TbDigest *diff_id, TbError **err)
{
        _cleanup_(tb_decompressor_freep) TbDecompressor *d = NULL;
        _cleanup_(tb_hasher_freep) TbHasher *packed = NULL, *plain = NULL;
        _cleanup_free_ char *buf = malloc(BUFFER_SIZE);
        TbDigest got;
        int r;

        if (!buf)
                return tb_error_oom(err);
        if ((r = tb_hasher_new(&packed, err)) < 0 || (r = tb_hasher_new(&plain, err)) < 0 ||
                (r = tb_decompressor_new(REGISTRY_LAYER_PLAIN_MAX, hash_plain, plain, &d, err)) < 0)
                return r;
        for (uint64_t at = 0; at < layer->size;) {
                r = read_some(a, buf, layer->offset + at,
                        (size_t) MIN2(layer->size - at, (uint64_t) BUFFER_SIZE), err);
                if (r < 0)
                        return r;
                at += (uint64_t) r;
                if (tb_hasher_update(packed, buf, (size_t) r, err) < 0 ||
                        tb_decompressor_feed(d, buf, (size_t) r, err) < 0)
                        return -EBADMSG;
                layer->compression = tb_decompressor_compression(d);
                if (layer->compression == TB_COMPRESSION_NONE && at >= 512) {
                        layer->digest = *diff_id; /* seen when it is copied */
                        return 0;
                }
        }
        if ((r = tb_decompressor_finish(d, err)) < 0 ||
                (r = tb_hasher_final(packed, &layer->digest, err)) < 0 ||
                (r = tb_hasher_final(plain, &got, err)) < 0)
                return r;
        if (!tb_digest_equal(&got, diff_id))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "the layer unpacks to %s, the configuration says %s", got.text, diff_id->text);
        return 0;
}

static const char *layer_type(const Archive *a, TbCompression c)
{
        switch (c) {
        case TB_COMPRESSION_GZIP:
                return a->oci ? REGISTRY_TYPE_OCI_LAYER : REGISTRY_TYPE_DOCKER_LAYER;
        case TB_COMPRESSION_ZSTD:
                return TYPE_OCI_LAYER_ZSTD;
        case TB_COMPRESSION_NONE:
        case _TB_COMPRESSION_MAX:
        case _TB_COMPRESSION_INVALID:
                break;
        }
        return a->oci ? TYPE_OCI_LAYER_PLAIN : TYPE_DOCKER_LAYER_PLAIN;
}

static json_t *descriptor(const char *type, const ArchiveBlob *b)
{
        return json_pack("{s:s, s:I, s:s}", "mediaType", type, "size", (json_int_t) b->size, "digest",
                b->digest.text);
}

static int make_manifest(Archive *a, TbError **err)
{
        _cleanup_json_ json_t *layers = json_array(), *doc = NULL;
        const char *type;
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        for (size_t i = 0; i < a->n_layers; i++) /* Docker's schema has no type for zstd */
                a->oci = a->oci || a->layers[i].compression == TB_COMPRESSION_ZSTD;
        for (size_t i = 0; i < a->n_layers; i++)
                if (json_array_append_new(
                            layers, descriptor(layer_type(a, a->layers[i].compression), a->layers + i)) < 0)
                        return tb_error_oom(err);
        type = a->oci ? REGISTRY_TYPE_OCI_MANIFEST : REGISTRY_TYPE_DOCKER_MANIFEST;
        doc = json_pack("{s:i, s:s, s:o, s:O}", "schemaVersion", 2, "mediaType", type, "config",
                descriptor(a->oci ? REGISTRY_TYPE_OCI_CONFIG : REGISTRY_TYPE_DOCKER_CONFIG, &a->config),
                "layers", layers);
        if (!doc)
                return tb_error_oom(err);
        r = tb_json_dump(doc, false, &text, &size, err);
        return r < 0 ? r : registry_manifest_parse(text, size, type, NULL, &a->manifest, err);
}

/* ---- opening ---- */

static int read_document(Archive *a, const RegistryTar *tar, const char *name, size_t max, char **ret,
        ArchiveBlob *at, TbError **err)
{
        _cleanup_free_ char *data = NULL;
        int r;

        r = registry_tar_find(tar, name, &at->offset, &at->size, err);
        if (r < 0)
                return r;
        if (at->size > max) {
                _cleanup_free_ char *shown = tb_escape(name, 100);

                return tb_error_set(err, TB_ERROR_REMOTE, -EMSGSIZE, "\"%s\" is larger than %zu bytes",
                        shown ? shown : "?", max);
        }
        data = calloc(1, (size_t) at->size + 1);
        if (!data)
                return tb_error_oom(err);
        for (size_t n = 0; n < at->size; n += (size_t) r) {
                r = read_some(a, data + n, at->offset + n, (size_t) at->size - n, err);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(data);
        return 0;
}

static int read_layers(
        Archive *a, const RegistryTar *tar, char *const *names, const TbDigest *diff_ids, TbError **err)
{
        a->layers = calloc(a->n_layers + 1, sizeof(*a->layers));
        if (!a->layers)
                return tb_error_oom(err);
        for (size_t i = 0; i < a->n_layers; i++) {
                int r = registry_tar_find(tar, names[i], &a->layers[i].offset, &a->layers[i].size, err);

                if (r >= 0)
                        r = look_at_layer(a, a->layers + i, diff_ids + i, err);
                if (r < 0) {
                        (void) tb_error_prefix(err, "layer %zu", i + 1);
                        return r;
                }
        }
        return 0;
}

static int read_archive(Archive *a, const RegistryRef *name, TbError **err)
{
        _cleanup_(registry_tar_freep) RegistryTar *tar = NULL;
        _cleanup_registry_archive_image_ RegistryArchiveImage image = {0};
        _cleanup_free_ char *list = NULL, *config = NULL;
        _cleanup_free_ TbDigest *diff_ids = NULL;
        ArchiveBlob at;
        size_t n;
        int r;

        if ((r = registry_tar_open(a->fd, a->size, &tar, err)) < 0 ||
                (r = read_document(a, tar, MANIFEST_JSON, REGISTRY_MANIFEST_MAX, &list, &at, err)) < 0 ||
                (r = registry_archive_select(list, (size_t) at.size, name, &image, err)) < 0 ||
                (r = read_document(a, tar, image.config, REGISTRY_CONFIG_MAX, &config, &a->config, err)) <
                        0 ||
                (r = tb_digest_of(config, (size_t) a->config.size, &a->config.digest, err)) < 0 ||
                (r = registry_config_diff_ids(config, (size_t) a->config.size, &diff_ids, &n, err)) < 0)
                return r;
        a->n_layers = tb_strv_length(image.layers);
        if (a->n_layers != n)
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                        "manifest.json names %zu layers, the configuration %zu", a->n_layers, n);
        r = read_layers(a, tar, image.layers, diff_ids, err);
        return r < 0 ? r : make_manifest(a, err);
}

typedef struct Unpacking {
        int fd;
        uint64_t size;
} Unpacking;

static int unpack_to_file(const void *data, size_t size, void *userdata, TbError **err)
{
        Unpacking *u = userdata;
        int r = registry_pwrite_all(u->fd, data, size, u->size, err);

        u->size += size;
        return r;
}

/* A compressed archive is replaced by what it unpacks to. */
static int unpack_archive(Archive *a, TbError **err)
{
        _cleanup_(tb_decompressor_freep) TbDecompressor *d = NULL;
        _cleanup_free_ char *buf = malloc(BUFFER_SIZE);
        const char *dir = getenv("TMPDIR");
        _cleanup_close_ int fd = -EBADF;
        Unpacking u = {0};
        int r;

        if (!buf)
                return tb_error_oom(err);
        r = tb_decompressor_new(ARCHIVE_PLAIN_MAX, unpack_to_file, &u, &d, err);
        if (r < 0)
                return r;
        for (uint64_t at = 0; at < a->size; at += (uint64_t) r) {
                r = read_some(a, buf, at, BUFFER_SIZE, err);
                if (r < 0)
                        return r;
                if (at == 0) {
                        const unsigned char *p = (const unsigned char *) buf;

                        if (!(r >= 4 &&
                                    ((p[0] == 0x1f && p[1] == 0x8b) ||
                                            memcmp(p, "\x28\xb5\x2f\xfd", 4) == 0)))
                                return 0;
                        fd = u.fd =
                                open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
                        if (fd < 0)
                                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno,
                                        "cannot create a file to unpack it in %s",
                                        dir && *dir ? dir : "/var/tmp");
                }
                if (tb_decompressor_feed(d, buf, (size_t) r, err) < 0)
                        return -EBADMSG;
        }
        if (fd < 0)
                return 0;
        r = tb_decompressor_finish(d, err);
        if (r < 0)
                return r;
        (void) tb_close(a->fd);
        a->fd = TAKE_FD(fd);
        a->size = u.size;
        return 0;
}

/* ---- the store ---- */

static int archive_get_manifest(
        RegistryStore *s, const TbDigest *digest, RegistryManifest **ret, TbError **err)
{
        const RegistryManifest *m = ((Archive *) s)->manifest;

        if (digest && !tb_digest_equal(digest, &m->digest))
                return tb_error_set(
                        err, TB_ERROR_BUG, -ENOENT, "%s: has no manifest %s", s->name, digest->text);
        return registry_manifest_parse(m->data, m->size, NULL, NULL, ret, err);
}

static int archive_open_blob(
        RegistryStore *s, const RegistryDescriptor *blob, RegistryRegion *ret, TbError **err)
{
        Archive *a = (Archive *) s;
        const ArchiveBlob *found = tb_digest_equal(&a->config.digest, &blob->digest) ? &a->config : NULL;
        int fd;

        for (size_t i = 0; i < a->n_layers && !found; i++)
                if (tb_digest_equal(&a->layers[i].digest, &blob->digest))
                        found = a->layers + i;
        if (!found)
                return tb_error_set(
                        err, TB_ERROR_BUG, -ENOENT, "%s: has no blob %s", s->name, blob->digest.text);
        fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return tb_error_set_errno(err, TB_ERROR_RESOURCE, -errno, "%s: cannot read", s->name);
        *ret = (RegistryRegion){.fd = fd, .offset = found->offset, .size = found->size};
        return 0;
}

static const RegistryStoreOps archive_ops = {
        .free = archive_free,
        .get_manifest = archive_get_manifest,
        .open_blob = archive_open_blob,
};

int registry_archive_open(
        const char *path, const RegistryRef *name, bool oci, RegistryStore **ret, TbError **err)
{
        _cleanup_(registry_store_freep) RegistryStore *s = NULL;
        _cleanup_free_ char *shown = tb_escape(path, 200);
        Archive *a = calloc(1, sizeof(*a));
        struct stat st;
        int r;

        if (!a)
                return tb_error_oom(err);
        s = &a->store;
        a->store.ops = &archive_ops;
        a->fd = -EBADF;
        a->oci = oci;
        a->store.name = shown ? tb_asprintf("docker-archive:%s", shown) : NULL;
        if (!a->store.name)
                return tb_error_oom(err);
        a->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (a->fd < 0 || fstat(a->fd, &st) < 0)
                return tb_error_set_errno(err, TB_ERROR_CONFIG, -errno, "%s: cannot open the file", s->name);
        if (!S_ISREG(st.st_mode))
                return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                        "%s: is not a regular file; its parts are needed in another order than they come in",
                        s->name);
        a->size = (uint64_t) st.st_size;
        r = unpack_archive(a, err);
        if (r >= 0)
                r = read_archive(a, name, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s", s->name);
                return r;
        }
        *ret = TAKE_PTR(s);
        return 0;
}

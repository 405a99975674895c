/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * OCI layouts (image-spec, image-layout.md): oci-layout, index.json, blobs/sha256/<hex>
 *
 * As a source: every blob is verified as it is read, no symbolic link below the directory is followed, documents are
 * bounded. As a target: a blob gets its name when it is complete and right; one that is there already is read and only
 * counts when its content is right; index.json is replaced last, under a lock on the directory, so that several of us can
 * write to one layout. What others have put in index.json stays as it is.
 */

#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/json.h"
#include "common/strv.h"
#include "registry-client/store.h"

#define REF_NAME "org.opencontainers.image.ref.name"
#define VERSION_FILE "oci-layout"
#define VERSION_TEXT "{\"imageLayoutVersion\": \"1.0.0\"}"

typedef struct Layout {
        RegistryStore store;
        char *tag;
        int dir_fd, blobs_fd; /* DIR, DIR/blobs/sha256 */
} Layout;

typedef struct LayoutWriter {
        RegistryStoreWriter writer;
        RegistryTempFile file;
        TbDigest digest;
        uint64_t at;
} LayoutWriter;

static RegistryStore *layout_free(RegistryStore *s)
{
        Layout *l = (Layout *) s;

        (void) tb_close(l->dir_fd);
        (void) tb_close(l->blobs_fd);
        free(l->tag);
        free(s->name);
        free(l);
        return NULL;
}

/* ---- index.json ---- */

/* The value of ref.name, or NULL. */
static const char *entry_name(const json_t *entry)
{
        return json_string_value(json_object_get(json_object_get(entry, "annotations"), REF_NAME));
}

static int several(const RegistryManifest *index, TbError **err)
{
        _cleanup_buffer_ TbBuffer names = TB_BUFFER_INIT(0);

        for (size_t i = 0; i < index->n_entries && i < 10; i++) {
                const char *name = entry_name(json_array_get(json_object_get(index->json, "manifests"), i));
                _cleanup_free_ char *shown = tb_escape(name ? name : index->entries[i].digest.text, 80);

                if (!shown || tb_buffer_printf(&names, err, "%s%s", i > 0 ? ", " : "", shown) < 0)
                        return tb_error_oom(err);
        }
        return tb_error_set(err, TB_ERROR_CONFIG, -EINVAL,
                "has several images; say which one by its name: DIR:NAME (%s%s)",
                names.data ? names.data : "", index->n_entries > 10 ? ", ..." : "");
}

int registry_layout_select(
        const char *data, size_t size, const char *tag, RegistryDescriptor *ret, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *index = NULL;
        const RegistryDescriptor *found = NULL;
        _cleanup_free_ char *shown = tag ? tb_escape(tag, 80) : NULL;
        int r;

        r = registry_manifest_parse(data, size, REGISTRY_TYPE_OCI_INDEX, NULL, &index, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "index.json");
                return r;
        }
        for (size_t i = 0; i < index->n_entries; i++) {
                const RegistryDescriptor *d = index->entries + i;

                if (tag &&
                        !tb_streq(entry_name(json_array_get(json_object_get(index->json, "manifests"), i)),
                                tag))
                        continue;
                if (found && !tb_digest_equal(&found->digest, &d->digest)) {
                        if (!tag)
                                return several(index, err);
                        return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG,
                                "index.json gives the name \"%s\" to different images", shown ? shown : "?");
                }
                found = found ? found : d;
        }
        if (!found && tag)
                return tb_error_set(
                        err, TB_ERROR_CONFIG, -ENOENT, "has no image named \"%s\"", shown ? shown : "?");
        if (!found)
                return tb_error_set(err, TB_ERROR_CONFIG, -ENOENT, "has no image");
        if (registry_manifest_kind_from_media_type(found->media_type) < 0) {
                _cleanup_free_ char *type = tb_escape(found->media_type, 100);

                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP,
                        "the image's media type \"%s\" is not supported", type ? type : "?");
        }
        return registry_descriptor_copy(found, ret, err);
}

static int new_entry(const RegistryManifest *m, const char *tag, json_t **ret, TbError **err)
{
        _cleanup_json_ json_t *e =
                json_pack("{s:s, s:s, s:I}", "mediaType", registry_manifest_kind_to_media_type(m->kind),
                        "digest", m->digest.text, "size", (json_int_t) m->size);

        if (!e || (tag && json_object_set_new(e, "annotations", json_pack("{s:s}", REF_NAME, tag)) < 0))
                return tb_error_oom(err);
        *ret = TAKE_PTR(e);
        return 0;
}

int registry_layout_add(const char *data, size_t size, const char *tag, const RegistryManifest *m,
        char **ret, size_t *ret_size, TbError **err)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *index = NULL;
        _cleanup_json_ json_t *doc = NULL, *entry = NULL;
        json_t *list;
        int r;

        if (data) {
                r = registry_manifest_parse(data, size, REGISTRY_TYPE_OCI_INDEX, NULL, &index, err);
                if (r < 0) {
                        (void) tb_error_prefix(err, "index.json");
                        return r;
                }
                doc = json_deep_copy(index->json);
        } else
                doc = json_pack("{s:i, s:s, s:[]}", "schemaVersion", 2, "mediaType", REGISTRY_TYPE_OCI_INDEX,
                        "manifests");
        list = json_object_get(doc, "manifests");
        if (!list)
                return tb_error_oom(err);
        r = new_entry(m, tag, &entry, err);
        if (r < 0)
                return r;
        for (size_t i = json_array_size(list); i-- > 0;) {
                const json_t *e = json_array_get(list, i);
                const char *name = entry_name(e);
                bool same = tb_streq(json_string_value(json_object_get(e, "digest")), m->digest.text);

                if (tag ? tb_streq(name, tag) : !name && same)
                        (void) json_array_remove(list, i);
        }
        if (json_array_size(list) >= REGISTRY_INDEX_ENTRIES_MAX)
                return tb_error_set(err, TB_ERROR_RESOURCE, -EMSGSIZE,
                        "index.json has %u images already: it is full", REGISTRY_INDEX_ENTRIES_MAX);
        if (json_array_append(list, entry) < 0)
                return tb_error_oom(err);
        return tb_json_dump(doc, false, ret, ret_size, err);
}

/* ---- source ---- */

static int read_blob(
        Layout *l, const TbDigest *digest, const char *type, RegistryManifest **ret, TbError **err)
{
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        r = registry_read_at(l->blobs_fd, tb_digest_hex(digest), REGISTRY_MANIFEST_MAX, &data, &size, err);
        if (r >= 0)
                r = registry_manifest_parse(data, size, type, digest, ret, err);
        if (r < 0)
                (void) tb_error_prefix(err, "%s", l->store.name);
        return r;
}

static int layout_get_manifest(
        RegistryStore *s, const TbDigest *digest, RegistryManifest **ret, TbError **err)
{
        _cleanup_registry_descriptor_ RegistryDescriptor d = {0};
        Layout *l = (Layout *) s;
        _cleanup_free_ char *data = NULL;
        size_t size;
        int r;

        if (digest)
                return read_blob(l, digest, NULL, ret, err);
        r = registry_read_at(l->dir_fd, "index.json", REGISTRY_MANIFEST_MAX, &data, &size, err);
        if (r >= 0)
                r = registry_layout_select(data, size, l->tag, &d, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s", s->name);
                return r;
        }
        return read_blob(l, &d.digest, d.media_type, ret, err);
}

static int layout_open_blob(
        RegistryStore *s, const RegistryDescriptor *blob, RegistryRegion *ret, TbError **err)
{
        Layout *l = (Layout *) s;
        _cleanup_close_ int fd = openat(
                l->blobs_fd, tb_digest_hex(&blob->digest), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_REMOTE, -errno, "%s: cannot read blob %s", s->name, blob->digest.text);
        if (!S_ISREG(st.st_mode))
                return tb_error_set(err, TB_ERROR_REMOTE, -EBADMSG, "%s: blob %s is not a regular file",
                        s->name, blob->digest.text);
        *ret = (RegistryRegion){.fd = TAKE_FD(fd), .size = (uint64_t) st.st_size};
        return 0;
}

/* ---- target ---- */

static int layout_prepare(RegistryStore *s, const RegistryManifest *root, TbError **err)
{
        return 0;
}

static int layout_has_blob(RegistryStore *s, const RegistryDescriptor *blob, TbError **err)
{
        _cleanup_(tb_hasher_freep) TbHasher *h = NULL;
        RegistryRegion region = {.fd = -EBADF};
        _cleanup_close_ int fd = -EBADF;
        _cleanup_free_ char *buf = NULL;
        TbDigest got;
        int r;

        if (layout_open_blob(s, blob, &region, NULL) < 0)
                return 0; /* whatever it is, it will be replaced */
        fd = region.fd;
        if (region.size != blob->size)
                return 0;
        buf = malloc(128U * 1024);
        if (!buf)
                return tb_error_oom(err);
        r = tb_hasher_new(&h, err);
        if (r < 0)
                return r;
        for (;;) {
                ssize_t n = read(fd, buf, 128U * 1024);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return 0;
                if (n == 0)
                        break;
                r = tb_hasher_update(h, buf, (size_t) n, err);
                if (r < 0)
                        return r;
        }
        r = tb_hasher_final(h, &got, err);
        return r < 0 ? r : tb_digest_equal(&got, &blob->digest);
}

static RegistryStoreWriter *layout_write_free(RegistryStoreWriter *writer)
{
        LayoutWriter *w = (LayoutWriter *) writer;

        registry_temp_file_done(&w->file);
        free(w);
        return NULL;
}

static int layout_write_start(
        RegistryStore *s, const RegistryDescriptor *blob, RegistryStoreWriter **ret, TbError **err)
{
        Layout *l = (Layout *) s;
        LayoutWriter *w = calloc(1, sizeof(*w));
        int r;

        if (!w)
                return tb_error_oom(err);
        w->writer.store = s;
        w->digest = blob->digest;
        w->file = REGISTRY_TEMP_FILE_NONE;
        r = registry_temp_file_open(l->blobs_fd, &w->file, err);
        if (r < 0) {
                (void) tb_error_prefix(err, "%s", s->name);
                free(w);
                return r;
        }
        *ret = &w->writer;
        return 0;
}

static int layout_write(RegistryStoreWriter *writer, const void *data, size_t size, TbError **err)
{
        LayoutWriter *w = (LayoutWriter *) writer;
        int r = registry_pwrite_all(w->file.fd, data, size, w->at, err);

        if (r < 0)
                (void) tb_error_prefix(err, "%s", writer->store->name);
        w->at += size;
        return r;
}

static int layout_commit(RegistryStoreWriter *writer, TbError **err)
{
        LayoutWriter *w = (LayoutWriter *) writer;
        int r = registry_temp_file_commit(&w->file, tb_digest_hex(&w->digest), true, err);

        if (r < 0)
                (void) tb_error_prefix(err, "%s", writer->store->name);
        return r;
}

static int write_file(int dir_fd, const char *name, const void *data, size_t size, TbError **err)
{
        _cleanup_(registry_temp_file_done) RegistryTempFile f = REGISTRY_TEMP_FILE_NONE;
        int r;

        if ((r = registry_temp_file_open(dir_fd, &f, err)) < 0 ||
                (r = registry_pwrite_all(f.fd, data, size, 0, err)) < 0)
                return r;
        return registry_temp_file_commit(&f, name, true, err);
}

static int replace_index(Layout *l, const RegistryManifest *m, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *old = NULL, *text = NULL;
        size_t old_size = 0, size;
        int r;

        r = registry_read_at(l->dir_fd, "index.json", REGISTRY_MANIFEST_MAX, &old, &old_size, &e);
        if (r < 0 && r != -ENOENT)
                return tb_error_move(err, &e);
        r = registry_layout_add(old, old_size, l->tag, m, &text, &size, err);
        if (r < 0)
                return r;
        r = write_file(l->dir_fd, "index.json", text, size, err);
        if (r >= 0 && fsync(l->dir_fd) < 0)
                return tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write index.json");
        return r;
}

static int layout_put_manifest(RegistryStore *s, const RegistryManifest *m, bool root, TbError **err)
{
        Layout *l = (Layout *) s;
        int r = write_file(l->blobs_fd, tb_digest_hex(&m->digest), m->data, m->size, err);

        if (r >= 0 && root) {
                if (fsync(l->blobs_fd) < 0 || flock(l->dir_fd, LOCK_EX) < 0)
                        r = tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot write index.json");
                else
                        r = replace_index(l, m, err);
                (void) flock(l->dir_fd, LOCK_UN);
        }
        if (r < 0)
                (void) tb_error_prefix(err, "%s", s->name);
        return r;
}

/* ---- opening ---- */

static const RegistryStoreOps layout_ops = {
        .free = layout_free,
        .get_manifest = layout_get_manifest,
        .open_blob = layout_open_blob,
        .prepare = layout_prepare,
        .has_blob = layout_has_blob,
        .write_start = layout_write_start,
        .write = layout_write,
        .commit = layout_commit,
        .write_free = layout_write_free,
        .put_manifest = layout_put_manifest,
};

static int layout_new(const char *path, const char *tag, Layout **ret, TbError **err)
{
        _cleanup_free_ Layout *l = calloc(1, sizeof(*l));
        _cleanup_free_ char *shown = tb_escape(path, 200), *name = NULL, *copy = NULL;

        if (!l || !shown || !(name = tb_asprintf("oci:%s", shown)) || (tag && !(copy = strdup(tag))))
                return tb_error_oom(err);
        l->store = (RegistryStore){.ops = &layout_ops, .name = TAKE_PTR(name)};
        l->tag = TAKE_PTR(copy);
        l->blobs_fd = -EBADF;
        l->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (l->dir_fd < 0) {
                int r = tb_error_set_errno(
                        err, TB_ERROR_CONFIG, -errno, "%s: cannot open the directory", l->store.name);

                (void) layout_free(&TAKE_PTR(l)->store);
                return r;
        }
        *ret = TAKE_PTR(l);
        return 0;
}

/* Step by step, so that no symbolic link is followed. */
static int open_blobs(Layout *l, TbError **err)
{
        const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
        _cleanup_close_ int fd = openat(l->dir_fd, "blobs", flags);

        l->blobs_fd = fd < 0 ? -EBADF : openat(fd, "sha256", flags);
        if (l->blobs_fd < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_CONFIG, -errno, "%s: cannot open blobs/sha256", l->store.name);
        return 0;
}

/* 1 = it is a layout, 0 = it has no oci-layout file. */
static int check_version(Layout *l, TbError **err)
{
        _cleanup_error_ TbError *e = NULL;
        _cleanup_free_ char *data = NULL;
        _cleanup_json_ json_t *j = NULL;
        const char *version = NULL;
        size_t size;
        int r;

        r = registry_read_at(l->dir_fd, VERSION_FILE, 4096, &data, &size, &e);
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return tb_error_move(err, &e);
        r = tb_json_parse(data, size, 4096, VERSION_FILE, &j, err);
        if (r >= 0)
                r = tb_json_get_string(j, "imageLayoutVersion", &version, err);
        if (r < 0)
                return r;
        if (!version || !tb_startswith(version, "1."))
                return tb_error_set(err, TB_ERROR_REMOTE, -EOPNOTSUPP, "its imageLayoutVersion is not 1.x");
        return 1;
}

int registry_layout_open(const char *path, const char *tag, RegistryStore **ret, TbError **err)
{
        _cleanup_(registry_store_freep) RegistryStore *s = NULL;
        Layout *l = NULL;
        int r;

        r = layout_new(path, tag, &l, err);
        if (r < 0)
                return r;
        s = &l->store;
        r = check_version(l, err);
        if (r == 0)
                r = tb_error_set(
                        err, TB_ERROR_CONFIG, -ENOENT, "is no OCI layout: there is no file oci-layout");
        if (r < 0) {
                (void) tb_error_prefix(err, "%s", s->name);
                return r;
        }
        r = open_blobs(l, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(s);
        return 0;
}

static bool is_empty(int dir_fd)
{
        int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_closedir_ DIR *d = fd < 0 ? NULL : fdopendir(fd);
        const struct dirent *e;

        if (!d) {
                (void) tb_close(fd);
                return false;
        }
        while ((e = readdir(d)))
                if (!tb_streq(e->d_name, ".") && !tb_streq(e->d_name, "..") && !tb_streq(e->d_name, "blobs"))
                        return false;
        return true;
}

int registry_layout_create(const char *path, const char *tag, RegistryStore **ret, TbError **err)
{
        _cleanup_(registry_store_freep) RegistryStore *s = NULL;
        Layout *l = NULL;
        int r;

        r = tb_mkdir_p(path, 0755, err);
        if (r >= 0)
                r = layout_new(path, tag, &l, err);
        if (r < 0)
                return r;
        s = &l->store;
        r = check_version(l, err);
        if (r == 0 && !is_empty(l->dir_fd))
                r = tb_error_set(err, TB_ERROR_CONFIG, -EEXIST,
                        "is no OCI layout and not empty; name another directory, or one that does not "
                        "exist");
        else if (r == 0)
                r = write_file(l->dir_fd, VERSION_FILE, VERSION_TEXT, strlen(VERSION_TEXT), err);
        if (r >= 0 &&
                ((mkdirat(l->dir_fd, "blobs", 0755) < 0 && errno != EEXIST) ||
                        (mkdirat(l->dir_fd, "blobs/sha256", 0755) < 0 && errno != EEXIST)))
                r = tb_error_set_errno(err, TB_ERROR_SYSTEM, -errno, "cannot create blobs/sha256");
        if (r < 0) {
                (void) tb_error_prefix(err, "%s", s->name);
                return r;
        }
        r = open_blobs(l, err);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(s);
        return 0;
}

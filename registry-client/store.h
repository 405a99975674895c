/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Images in files: what copy.c needs of an OCI layout or a docker-archive
 *
 * A store is a source or a target, never both. Everything is blocking and on the caller's file system. What is written
 * has no name before it was committed: blobs when they are complete, the image itself with put_manifest(root).
 *
 *   store-layout.c          OCI layout, both ways
 *   store-archive.c         docker-archive as source      tar.c       the tar format
 *   store-archive-write.c   docker-archive as target      tempfile.c  files without a name yet
 *   feed.c                  a blob's bytes, pushed from a file by the loop
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "registry-client/internal.h"

typedef struct RegistryStore RegistryStore;
typedef struct RegistryStoreWriter RegistryStoreWriter;

/* Where the bytes of a blob lie; `fd` is the caller's to close. */
typedef struct RegistryRegion {
        int fd;
        uint64_t offset, size;
} RegistryRegion;

typedef struct RegistryStoreOps {
        RegistryStore *(*free)(RegistryStore *s);

        /* source; digest NULL: what the place names */
        int (*get_manifest)(RegistryStore *s, const TbDigest *digest, RegistryManifest **ret, TbError **err);
        int (*open_blob)(
                RegistryStore *s, const RegistryDescriptor *blob, RegistryRegion *ret, TbError **err);

        /* target; `prepare` gets the root before any blob comes */
        int (*prepare)(RegistryStore *s, const RegistryManifest *root, TbError **err);
        int (*has_blob)(
                RegistryStore *s, const RegistryDescriptor *blob, TbError **err); /* 1 = there, right */
        int (*write_start)(
                RegistryStore *s, const RegistryDescriptor *blob, RegistryStoreWriter **ret, TbError **err);
        int (*write)(RegistryStoreWriter *w, const void *data, size_t size, TbError **err);
        /* All bytes came and match the digest. */
        int (*commit)(RegistryStoreWriter *w, TbError **err);
        RegistryStoreWriter *(*write_free)(RegistryStoreWriter *w);
        int (*put_manifest)(RegistryStore *s, const RegistryManifest *m, bool root, TbError **err);
} RegistryStoreOps;

struct RegistryStore {
        const RegistryStoreOps *ops;
        char *name;  /* for messages */
        bool serial; /* one blob at a time, in the order of the manifest, the configuration first */
};

struct RegistryStoreWriter {
        RegistryStore *store;
};

static inline RegistryStore *registry_store_free(RegistryStore *s)
{
        return s ? s->ops->free(s) : NULL;
}
TB_DEFINE_CLEANUP(RegistryStore *, registry_store_free)

static inline RegistryStoreWriter *registry_store_writer_free(RegistryStoreWriter *w)
{
        return w ? w->store->ops->write_free(w) : NULL;
}

/* ---- store-layout.c ---- */

int registry_layout_open(const char *path, const char *tag, RegistryStore **ret, TbError **err)
        _warn_unused_;
int registry_layout_create(const char *path, const char *tag, RegistryStore **ret, TbError **err)
        _warn_unused_;
/* Which image index.json means by `tag` (NULL = the only one there is). */
int registry_layout_select(const char *data, size_t size, const char *tag, RegistryDescriptor *ret,
        TbError **err) _warn_unused_;
/* index.json with the image named `tag` (NULL = without a name); data NULL: a new one. */
int registry_layout_add(const char *data, size_t size, const char *tag, const RegistryManifest *m,
        char **ret, size_t *ret_size, TbError **err) _warn_unused_;

/* ---- store-archive.c, store-archive-write.c ---- */

#define REGISTRY_CONFIG_MAX (8U * 1024 * 1024)
#define REGISTRY_LAYER_PLAIN_MAX (64ULL << 30) /* of one unpacked layer */

/* `oci`: make a manifest of OCI types. */
int registry_archive_open(const char *path, const RegistryRef *name, bool oci, RegistryStore **ret,
        TbError **err) _warn_unused_;
int registry_archive_create(const char *path, const RegistryRef *name, RegistryStore **ret, TbError **err)
        _warn_unused_;

typedef struct RegistryArchiveImage {
        char *config;  /* names of entries */
        char **layers; /* bottom first */
} RegistryArchiveImage;
/* The image of manifest.json that has this name (NULL = the only one). */
int registry_archive_select(const char *data, size_t size, const RegistryRef *name,
        RegistryArchiveImage *ret, TbError **err) _warn_unused_;
void registry_archive_image_done(RegistryArchiveImage *i);
#define _cleanup_registry_archive_image_ _cleanup_(registry_archive_image_done)
/* rootfs.diff_ids of an image configuration; *ret is the caller's. */
int registry_config_diff_ids(const char *data, size_t size, TbDigest **ret, size_t *ret_n, TbError **err)
        _warn_unused_;

/* ---- tar.c ---- */

#define REGISTRY_TAR_ENTRIES_MAX 65536U
#define REGISTRY_TAR_BLOCK 512U

typedef struct RegistryTar RegistryTar;

/* Reads the headers of a tar file (POSIX ustar, pax, GNU long names): `fd` stays the caller's. */
int registry_tar_open(int fd, uint64_t size, RegistryTar **ret, TbError **err) _warn_unused_;
RegistryTar *registry_tar_free(RegistryTar *t);
TB_DEFINE_CLEANUP(RegistryTar *, registry_tar_free)
/* A regular file by its name, through links that stay inside: -ENOENT, -ELOOP, -EBADMSG when there are several. */
int registry_tar_find(const RegistryTar *t, const char *name, uint64_t *ret_offset, uint64_t *ret_size,
        TbError **err) _warn_unused_;
/* The header of a regular file (mode 0644, mtime 0, root); `name` has less than 100 bytes. */
void registry_tar_header(unsigned char block[static REGISTRY_TAR_BLOCK], const char *name, uint64_t size);

/* ---- tempfile.c ---- */

/* A file that has no name until it is complete. Where the file system can, it never has one (O_TMPFILE). */
typedef struct RegistryTempFile {
        int dir_fd; /* borrowed */
        int fd;
        char name[32]; /* "" = none */
} RegistryTempFile;
#define REGISTRY_TEMP_FILE_NONE ((RegistryTempFile){.dir_fd = -EBADF, .fd = -EBADF})

int registry_temp_file_open(int dir_fd, RegistryTempFile *ret, TbError **err) _warn_unused_;
/* fsync, then gives it its name; `replace` false: -EEXIST when there is one already. */
int registry_temp_file_commit(RegistryTempFile *f, const char *name, bool replace, TbError **err)
        _warn_unused_;
void registry_temp_file_done(RegistryTempFile *f);
int registry_pwrite_all(int fd, const void *data, size_t size, uint64_t offset, TbError **err) _warn_unused_;
/* A regular file of at most max bytes, no symlink; NUL-terminated. -ENOENT sets *err as well. */
int registry_read_at(int dir_fd, const char *name, size_t max, char **ret, size_t *ret_size, TbError **err)
        _warn_unused_;

/* ---- feed.c ---- */

typedef struct RegistryFeed RegistryFeed;
typedef struct RegistryFeedOptions {
        RegistryRegion region; /* fd is taken, also on failure */
        const char *name;      /* of the source, for messages; must stay valid */
        ssize_t (*sink)(const void *data, size_t size, void *userdata, TbError **err);
        void (*done)(const TbError *err, void *userdata); /* -EIO: the file does not give its bytes */
        void *userdata;
} RegistryFeedOptions;
/* Pushes bytes from a file, which the sink verifies; callbacks come from the loop only. */
int registry_feed_start(RegistryClient *c, const RegistryFeedOptions *options, RegistryFeed **ret,
        TbError **err) _warn_unused_;
void registry_feed_resume(RegistryFeed *f);
RegistryFeed *registry_feed_free(RegistryFeed *f);

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/*
 * Reader of a tar stream that is pushed in, in pieces of any size
 *
 * Layers are tar archives (image-spec layer.md): ustar (POSIX.1-2001 pax, "ustar Interchange Format"), with pax extended
 * headers or GNU's long names. Where a tar is ambiguous this reader sees what Go's archive/tar sees, because that is what
 * unpacks the layer in the end (moby pkg/archive, containerd archive): a reader that saw other files could be made to
 * report other facts than the node will have.
 *
 *  - A header is accepted with a signed or an unsigned checksum.
 *  - A file's size counts for regular files only; links, directories and devices have no data whatever they claim.
 *  - Type NUL with a name that ends in a slash is a directory.
 *  - A pax record or GNU's long name wins over the header; of several records of a key the last one wins.
 *  - Global pax headers are skipped (moby ignores them).
 *  - Two blocks of zeros end the archive, and so does the end of the stream between two entries. What follows is ignored.
 *
 * What the engines refuse, or what readers differ in, is refused: sparse files (image-spec forbids them), types that nobody
 * knows, a pax path beside a GNU one, NULs in pax paths, extended headers beyond 1 MiB (Go's maxSpecialFileSize).
 */

typedef enum TarType {
        TAR_FILE,
        TAR_DIRECTORY,
        TAR_SYMLINK,
        TAR_HARDLINK,
        TAR_CHARACTER_DEVICE,
        TAR_BLOCK_DEVICE,
        TAR_FIFO,
        _TAR_TYPE_MAX,
} TarType;

typedef struct TarEntry {
        const char *path; /* as written, never empty; valid during the callback only */
        const char *link; /* target of a link; "" for other types */
        TarType type;
        uint32_t mode; /* permission bits, 07777 */
        uint64_t size; /* of a file's data, in bytes */
} TarEntry;

typedef struct TarStreamHooks {
        int (*entry)(const TarEntry *entry, void *userdata, TbError **err);
        /* The data of the entry before, in order. */
        int (*data)(const void *data, size_t size, void *userdata, TbError **err);
        void *userdata;
} TarStreamHooks;

typedef struct TarStream TarStream;

int tar_stream_new(const TarStreamHooks *hooks, TarStream **ret, TbError **err) _warn_unused_;
/* -EBADMSG: not a tar archive, or a broken one; -EOPNOTSUPP: sparse file or unknown type; what a hook returned. After an
 * error the object can only be freed. */
int tar_stream_feed(TarStream *t, const void *data, size_t size, TbError **err) _warn_unused_;
/* The stream is over. -EBADMSG when it was cut. */
int tar_stream_finish(TarStream *t, TbError **err) _warn_unused_;
TarStream *tar_stream_free(TarStream *t);
TB_DEFINE_CLEANUP(TarStream *, tar_stream_free)

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between copy.c (the whole image) and copy-blob.c (one blob). */

#include "registry-client/internal.h"

typedef struct RegistryCopyBlob RegistryCopyBlob;

/* All pointers must stay valid until the blob is freed. */
typedef struct RegistryCopyBlobOptions {
        const RegistryRef *source, *target;
        const RegistryDescriptor *blob;
        const char *mount_from;     /* NULL = cannot be mounted: look first */
        bool exists;                /* the target has it: only the tap wants it (with always_stream) */
        bool always_stream;         /* to the tap, whatever the target has */
        const RegistryCopyTap *tap; /* NULL = none */
        void (*moved)(int64_t bytes, void *userdata); /* progress; negative when a transfer starts over */
        /* The target has the blob, or err. May free it. */
        void (*done)(RegistryCopyBlob *b, RegistryCopyHow how, const TbError *err, void *userdata);
        void *userdata;
} RegistryCopyBlobOptions;

/* Callbacks come from the loop only. */
int registry_copy_blob_start(RegistryClient *c, const RegistryCopyBlobOptions *options,
        RegistryCopyBlob **ret, TbError **err) _warn_unused_;
RegistryCopyBlob *registry_copy_blob_free(RegistryCopyBlob *b);

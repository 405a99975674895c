/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/config.h"
#include "augment/image-files.h"
#include "augment/pending.h"
#include "common/error.h"
#include "registry-client/registry.h"

/*
 * The facts about a base's files: collected while it is mirrored, and kept beside the mirror
 *
 * The layers are looked at as they stream through the copy; those that did not stream, because the testbed's registry had
 * them already, are read from there. A layer that is in the image twice is scanned once. Trees are merged as soon as all
 * lower ones are, so what is held is what is out of order.
 *
 * What was found is kept in the mirror's repository as an artifact of its own: a manifest without layers, tagged by the
 * base's digest (base_files_tag()), whose annotation BASE_FILES_ANNOTATION is the JSON of image_files_to_json(). One GET
 * answers for a base that has been seen; a reader that finds another version makes it anew.
 */

#define BASE_FILES_TYPE "application/vnd.tbnode.image.files.v1+json"
#define BASE_FILES_ANNOTATION "org.tbnode.image.files"

typedef struct BaseFiles BaseFiles;

/* `manifest` and `config` must live as long as the object. -EOPNOTSUPP: a layer that no registry has. */
int base_files_new(const RegistryManifest *manifest, const ImageConfig *config, BaseFiles **ret,
        TbError **err) _warn_unused_;
/* For RegistryCopyOptions.tap; valid as long as the object. */
const RegistryCopyTap *base_files_tap(const BaseFiles *b);
/* Reads what hasn't streamed from `repository` and gives the facts. *ret_read is increased by the bytes. */
int base_files_finish(BaseFiles *b, RegistryClient *client, const RegistryRef *repository,
        uint64_t *ret_read, ImageFiles **ret, TbError **err) _warn_unused_;
BaseFiles *base_files_free(BaseFiles *b);
TB_DEFINE_CLEANUP(BaseFiles *, base_files_free)

/* 1 = kept, *ret is set; 0 = not, or of another version. `mirror`: any reference to the repository. */
int base_files_load(RegistryClient *client, const RegistryRef *mirror, const TbDigest *base,
        ImageFiles **ret, TbError **err) _warn_unused_;
/* Begins to write them. The repository must have the blob "{}" (image-spec's empty descriptor). */
int base_files_store(RegistryClient *client, const RegistryRef *mirror, const TbDigest *base,
        const ImageFiles *files, AugmentPending *pending, TbError **err) _warn_unused_;

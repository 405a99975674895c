/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "augment/known.h"
#include "registry-client/registry.h"

/*
 * Who made an image of the testbed's registry, and how much is in it, read from itself: its manifest, then its
 * configuration. For what no memory knows (augment/known.h).
 *
 * An index is made by the native builder; its level is in its annotations when its kind has any.
 */

typedef struct ImageDescribe ImageDescribe;

/* `image` (borrowed) NULL: it does not say, or can't be read. The object may be freed from here. */
typedef void (*ImageDescribeFn)(ImageDescribe *d, const KnownImage *image, void *userdata);

/* `ref` names a digest. `image` is what is believed until something else is read. The callback comes from the loop only. */
int image_describe_start(RegistryClient *client, const RegistryRef *ref, const KnownImage *image,
        ImageDescribeFn done, void *userdata, ImageDescribe **ret, TbError **err) _warn_unused_;
/* Cancels when still running. */
ImageDescribe *image_describe_free(ImageDescribe *d);
TB_DEFINE_CLEANUP(ImageDescribe *, image_describe_free)

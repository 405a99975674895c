/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "augment/file-tree.h"
#include "common/digest.h"
#include "common/error.h"

/*
 * Reads one layer as it streams by: unpacks, hashes, and keeps what facts are made of
 *
 * The bytes are pushed in as they lie in the registry. The result is a tree of the layer's files and the digest of the
 * unpacked stream (its diff_id), in one pass, in memory that doesn't depend on the layer's size. Data is kept of files
 * that describe an image: os-release and its like, passwd and group, told by their names or, as links may call them
 * anything (ostree and Nix keep them under hashes), by how they begin.
 *
 * Bounds, in LayerLimits, hold for one layer; an image has at most 125. A layer that reaches one is refused.
 */

typedef struct LayerLimits {
        uint64_t unpacked_max; /* bytes */
        uint32_t files_max;
        uint32_t names_max; /* bytes of names and link targets */
        /* A layer may be packed this many times smaller than its data when it is larger than 256 MiB: gzip reaches 1032, zstd
         * more, files that people made rarely 20. */
        uint32_t ratio_max;
        FileBudget *budget; /* of all layers that are looked at together (borrowed); NULL = none */
} LayerLimits;

/* 64 GiB, 600,000 files, 24 MiB of names, 500. */
extern const LayerLimits layer_limits_default;

/* Of a file that is kept. */
#define LAYER_KEEP_MAX (256U * 1024)

typedef struct LayerScan LayerScan;

/* `limits`: NULL = the defaults. */
int layer_scan_new(const LayerLimits *limits, LayerScan **ret, TbError **err) _warn_unused_;
int layer_scan_feed(LayerScan *s, const void *data, size_t size, TbError **err) _warn_unused_;
/* The layer is over. -EBADMSG when it was cut, or when its unpacked digest isn't `diff_id` (NULL = not known). */
int layer_scan_finish(LayerScan *s, const TbDigest *diff_id, TbError **err) _warn_unused_;
/* After layer_scan_finish(): the files, to be applied to those of lower layers. Borrowed. */
const FileTree *layer_scan_tree(const LayerScan *s);
/* The same for the last time, to be taken apart: afterwards the scan can only be freed. Borrowed. */
FileTree *layer_scan_use_up(LayerScan *s);
/* Unpacked bytes so far. */
uint64_t layer_scan_unpacked(const LayerScan *s);
LayerScan *layer_scan_free(LayerScan *s);
TB_DEFINE_CLEANUP(LayerScan *, layer_scan_free)

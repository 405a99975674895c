/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A layer as a registry sends it: packed or not, cut anywhere, over another one; then the facts of the result. */

#include <stddef.h>
#include <stdint.h>

#include "augment/image-files.h"
#include "augment/layer-scan.h"
#include "common/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static LayerScan *scan(const uint8_t *data, size_t size, size_t piece)
{
        const LayerLimits limits = {
                .unpacked_max = 1U << 20, .files_max = 2000, .names_max = 1U << 16, .ratio_max = 500};
        LayerScan *s = NULL;

        if (layer_scan_new(&limits, &s, NULL) < 0)
                return NULL;
        for (size_t i = 0; i < size; i += piece)
                if (layer_scan_feed(s, data + i, size - i < piece ? size - i : piece, NULL) < 0)
                        return layer_scan_free(s);
        return layer_scan_finish(s, NULL, NULL) < 0 ? layer_scan_free(s) : s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(layer_scan_freep) LayerScan *lower = NULL, *upper = NULL;
        _cleanup_(file_tree_freep) FileTree *tree = NULL;
        _cleanup_(image_files_freep) ImageFiles *files = NULL;
        size_t half;

        if (size < 2)
                return 0;
        half = (size / 2) & ~(size_t) 511;
        lower = scan(data + 1, size - 1, (size_t) data[0] + 1);
        upper = scan(data + 1 + (half < size ? half : 0), size - 1 - (half < size - 1 ? half : 0), 4096);
        if (file_tree_new(3000, 1U << 17, &tree, NULL) < 0)
                return 0;
        if (lower && file_tree_apply(tree, layer_scan_tree(lower), NULL) < 0)
                return 0;
        if (upper && file_tree_apply(tree, layer_scan_tree(upper), NULL) < 0)
                return 0;
        if (image_files_collect(tree, size, &files, NULL) < 0)
                return 0;
        return 0;
}

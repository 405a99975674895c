/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/shape-rule.h"
#include "tests/fuzz/fuzz.h"

/* The shape of a link from labels and the API: no crash, and what is accepted prints as something that reads back the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *text = malloc(size + 1), *printed = NULL;
        _cleanup_link_shape_ LinkShape l = {}, again = {}, merged = {};

        if (!text)
                return 0;
        if (size > 0)
                memcpy(text, data, size);
        text[size] = '\0';
        if (link_shape_parse_complete(text, &l, NULL) < 0)
                return 0;
        printed = link_shape_print(&l);
        if (!printed || link_shape_is_empty(&l))
                return 0;
        if (link_shape_parse_complete(printed, &again, NULL) < 0 || !link_shape_equal(&l, &again))
                abort();
        /* A whole over itself is itself. */
        if (link_shape_merge(&l, &again, false, &merged, NULL) < 0 || !link_shape_equal(&l, &merged))
                abort();
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/shape.h"
#include "tests/fuzz/fuzz.h"

/* SPEC from labels: no crash, and what is accepted prints as something that reads back the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *spec = malloc(size + 1);
        char text[SHAPE_TEXT_MAX];
        ShapePair p, q;

        if (!spec)
                return 0;
        if (size > 0)
                memcpy(spec, data, size);
        spec[size] = '\0';
        if (shape_spec_parse_complete(spec, &p, NULL) < 0)
                return 0;
        (void) shape_pair_print(&p, text);
        if (shape_is_empty(&p.up) && shape_is_empty(&p.down))
                return 0;
        if (shape_spec_parse_complete(text, &q, NULL) < 0 || !shape_equal(&p.up, &q.up) ||
                !shape_equal(&p.down, &q.down))
                abort();
        return 0;
}

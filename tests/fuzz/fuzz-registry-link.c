/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Link headers: what is taken stood between "<" and ">". */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *text = strndup((const char *) data, size), *next = NULL;

        if (!text || registry_link_next(text, &next, NULL) <= 0)
                return 0;
        fuzz_assert(next && strlen(next) < strlen(text) && !strchr(next, '>'));
        fuzz_assert(strstr(text, next));
        return 0;
}

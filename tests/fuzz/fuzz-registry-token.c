/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Token answers and error bodies. A token that is taken can be put into a header line. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *token = NULL, *text = NULL;
        uint64_t expires = 0;

        if (registry_token_parse((const char *) data, size, &token, &expires, NULL) >= 0) {
                fuzz_assert(token[0] && !strpbrk(token, "\r\n \t"));
                fuzz_assert(expires >= 60 && expires <= 86400);
        }
        text = registry_error_text((const char *) data, size);
        fuzz_assert(!text || !strpbrk(text, "\r\n\033"));
        return 0;
}

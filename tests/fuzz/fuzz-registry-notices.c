/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Warning, ratelimit-* and Retry-After: bounded, and nothing is read past the end. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *header = strndup((const char *) data, size);
        const char *p = header;
        uint64_t count, window;
        unsigned n = 0;
        char *text;
        int r;

        if (!header)
                return 0;
        while ((r = registry_warning_next(&p, &text)) > 0) {
                fuzz_assert(*text && strlen(text) <= strlen(header) && p <= header + strlen(header));
                free(text);
                fuzz_assert(++n <= strlen(header));
        }
        fuzz_assert(r == 0 || r == -EPROTO);
        if (registry_ratelimit_parse(header, &count, &window))
                fuzz_assert(count <= INT64_MAX && window <= INT64_MAX);
        fuzz_assert(registry_retry_after_usec(header) <= 86400 * USEC_PER_SEC);
        return 0;
}

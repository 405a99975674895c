/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Content-Range of downloads, Range of upload sessions: what is taken is in order and cannot overflow. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *text = strndup((const char *) data, size);
        RegistryContentRange r;
        uint64_t count = 0;
        int k;

        if (!text)
                return 0;
        if (registry_content_range_parse(text, &r)) {
                fuzz_assert(r.first <= r.last && r.last < r.total && r.last <= INT64_MAX);
                fuzz_assert(strncasecmp(text, "bytes", 5) == 0);
        }
        k = registry_upload_range_parse(text, &count);
        fuzz_assert(k == 0 || k == -EAGAIN || k == -EPROTO);
        fuzz_assert(k < 0 || (count >= 2 && count <= (uint64_t) INT64_MAX + 1));
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* NO_PROXY lists: the first line is the host, the second the list. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *text = strndup((const char *) data, size);
        char *list = text ? strchr(text, '\n') : NULL;

        if (!list)
                return 0;
        *list++ = 0;
        if (registry_no_proxy_matches(list, text, "443"))
                fuzz_assert(*list);
        (void) registry_no_proxy_matches("10.0.0.0/8,[::1]:443,.example.org,*.a", text, "443");
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Image references: what is taken reads back to the same. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/registry.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL, *again = NULL;
        _cleanup_registry_platform_ RegistryPlatform platform = {0};
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *text = strndup((const char *) data, size), *out = NULL, *out_again = NULL;

        if (!text)
                return 0;
        (void) !registry_platform_parse(text, &platform, NULL);
        if (registry_ref_parse(text, &ref, &err) < 0) {
                fuzz_assert(!ref && err && err->message);
                return 0;
        }
        out = registry_ref_to_string(ref);
        fuzz_assert(out && registry_ref_parse(out, &again, NULL) >= 0);
        out_again = registry_ref_to_string(again);
        fuzz_assert(out_again && strcmp(out, out_again) == 0);
        return 0;
}

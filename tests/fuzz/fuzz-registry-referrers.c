/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Lists of referrers: what is read can be added to, and the result is read again with one more. */

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

static const char entry_text[] =
        "{\"mediaType\":\"a/b\",\"digest\":\"sha256:"
        "00000000000000000000000000000000000000000000000000000000000000ff\",\"size\":1}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_registry_referrers_ RegistryReferrers all = {0}, some = {0}, more = {0};
        _cleanup_(registry_manifest_freep) RegistryManifest *index = NULL;
        _cleanup_free_ char *longer = NULL;
        _cleanup_json_ json_t *entry = NULL;
        size_t n = 0;

        if (registry_referrers_take(&all, (const char *) data, size, NULL, NULL, NULL) < 0)
                return 0;
        fuzz_assert(registry_referrers_take(&some, (const char *) data, size, NULL, "a/sig", NULL) >= 0);
        fuzz_assert(some.n_entries <= all.n_entries);
        fuzz_assert(registry_manifest_parse(data, size, NULL, NULL, &index, NULL) >= 0);
        fuzz_assert(tb_json_parse(entry_text, sizeof(entry_text) - 1, 1000, "entry", &entry, NULL) >= 0);
        if (registry_referrers_add(index, entry, &longer, &n, NULL) < 0 || !longer)
                return 0;
        fuzz_assert(registry_referrers_take(&more, longer, n, REGISTRY_TYPE_OCI_INDEX, NULL, NULL) >= 0 ||
                index->kind == REGISTRY_DOCKER_LIST);
        fuzz_assert(index->kind == REGISTRY_DOCKER_LIST || more.n_entries == all.n_entries + 1);
        return 0;
}

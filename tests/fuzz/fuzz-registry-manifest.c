/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Manifests and indexes; the first line is the Content-Type. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/registry.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL, *again = NULL;
        _cleanup_free_ char *type = NULL;
        const uint8_t *line = size > 0 ? memchr(data, '\n', size) : NULL;
        RegistryPlatform platform = {(char *) "linux", (char *) "amd64", NULL};
        const RegistryDescriptor *d = NULL;
        size_t n;

        if (!line)
                return 0;
        n = (size_t) (line - data);
        type = strndup((const char *) data, n);
        if (!type)
                return 0;
        if (registry_manifest_parse(line + 1, size - n - 1, type[0] ? type : NULL, NULL, &m, NULL) < 0)
                return 0;

        fuzz_assert(m->size == size - n - 1 && memcmp(m->data, line + 1, m->size) == 0);
        fuzz_assert(m->n_layers <= REGISTRY_LAYERS_MAX && m->n_entries <= REGISTRY_INDEX_ENTRIES_MAX);
        fuzz_assert(!(m->n_layers > 0 && m->n_entries > 0));
        for (size_t i = 0; i < m->n_layers; i++)
                fuzz_assert(tb_digest_is_set(&m->layers[i].digest) && m->layers[i].media_type);
        /* It is the same thing for whoever gets it with the type we would push it with. */
        fuzz_assert(registry_manifest_parse(m->data, m->size, registry_manifest_kind_to_media_type(m->kind),
                            &m->digest, &again, NULL) >= 0);
        fuzz_assert(again->kind == m->kind);
        if (registry_manifest_is_index(m) && registry_manifest_select(m, &platform, &d, NULL) >= 0)
                fuzz_assert(d && !d->attestation);
        return 0;
}

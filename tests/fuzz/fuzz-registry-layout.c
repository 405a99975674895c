/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* index.json of an OCI layout; the first line is the name that is asked for (empty: none). */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/store.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char image[] =
                "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" REGISTRY_TYPE_OCI_CONFIG
                "\",\"size\":1,\"digest\":\"sha256:"
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"},\"layers\":[]}";
        _cleanup_registry_descriptor_ RegistryDescriptor d = {0}, added = {0};
        _cleanup_(registry_manifest_freep) RegistryManifest *m = NULL;
        const uint8_t *line = size > 0 ? memchr(data, '\n', size) : NULL;
        _cleanup_free_ char *tag = NULL, *text = NULL;
        size_t text_size;

        if (!line)
                return 0;
        tag = strndup((const char *) data, (size_t) (line - data));
        if (!tag)
                return 0;
        size -= (size_t) (line - data) + 1;
        line++;
        if (registry_layout_select((const char *) line, size, *tag ? tag : NULL, &d, NULL) >= 0)
                fuzz_assert(tb_digest_is_set(&d.digest) &&
                        registry_manifest_kind_from_media_type(d.media_type) >= 0);
        fuzz_assert(registry_manifest_parse(image, strlen(image), NULL, NULL, &m, NULL) >= 0);
        /* What can be extended afterwards has the new image under its name. */
        if (*tag && registry_layout_add((const char *) line, size, tag, m, &text, &text_size, NULL) >= 0 &&
                text_size <= REGISTRY_MANIFEST_MAX) {
                fuzz_assert(registry_layout_select(text, text_size, tag, &added, NULL) >= 0);
                fuzz_assert(tb_digest_equal(&added.digest, &m->digest));
        }
        return 0;
}

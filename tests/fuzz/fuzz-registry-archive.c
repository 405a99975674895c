/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* manifest.json of a docker-archive and an image configuration; what does not begin like JSON is taken for a tar file. */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "registry-client/store.h"
#include "tests/fuzz/fuzz.h"

static void fuzz_tar(const uint8_t *data, size_t size)
{
        static const char *const names[] = {"manifest.json", "a", "b/c", "../x", "/x"};
        _cleanup_(registry_tar_freep) RegistryTar *tar = NULL;
        _cleanup_close_ int fd = memfd_create("fuzz", MFD_CLOEXEC);
        uint64_t offset, n;

        if (fd < 0 || tb_write_all(fd, data, size, NULL) < 0 || registry_tar_open(fd, size, &tar, NULL) < 0)
                return;
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (registry_tar_find(tar, names[i], &offset, &n, NULL) >= 0)
                        fuzz_assert(offset <= size && n <= size - offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_registry_archive_image_ RegistryArchiveImage image = {0}, named = {0};
        _cleanup_(registry_ref_freep) RegistryRef *ref = NULL;
        _cleanup_free_ TbDigest *ids = NULL;
        const char *text = (const char *) data;
        size_t n;

        if (size == 0 || (*data != '[' && *data != '{')) {
                fuzz_tar(data, size);
                return 0;
        }
        fuzz_assert(registry_ref_parse("x:1", &ref, NULL) >= 0);
        if (registry_archive_select(text, size, NULL, &image, NULL) >= 0)
                fuzz_assert(image.config && image.config[0] &&
                        tb_strv_length(image.layers) <= REGISTRY_LAYERS_MAX);
        if (registry_archive_select(text, size, ref, &named, NULL) >= 0)
                fuzz_assert(named.config && named.config[0]);
        if (registry_config_diff_ids(text, size, &ids, &n, NULL) >= 0) {
                fuzz_assert(n <= REGISTRY_LAYERS_MAX);
                for (size_t i = 0; i < n; i++)
                        fuzz_assert(tb_digest_is_set(ids + i));
        }
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdlib.h>
#include <string.h>

#include "augment/augment.h"
#include "augment/payload.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/strv.h"
#include "registry-client/registry.h"

#define LAYER_MAX (256ull * 1024 * 1024)

static int write_file(const char *dir, const char *name, const void *data, size_t size, TbError **err)
{
        _cleanup_free_ char *path = tb_asprintf("%s/%s", dir, name);

        return path ? tb_file_write_atomic(path, data, size, 0644, err) : tb_error_oom(err);
}

static int write_layers(const AugmentRequest *request, const char *dir, TbError **err)
{
        _cleanup_registry_platform_ RegistryPlatform platform = {};
        _cleanup_payload_ Payload *payload = NULL;
        PayloadLayers layers;
        int r;

        if ((r = registry_platform_parse(request->platform, &platform, err)) < 0 ||
                (r = payload_load(request->payload_dir, platform.architecture, &payload, err)) < 0 ||
                (r = payload_layers(payload, request->level, &layers, err)) < 0)
                return r;
        for (size_t i = 0; i < layers.n; i++) {
                PayloadLayer *layer = layers.layer[i];
                _cleanup_free_ char *data = NULL;
                size_t size;

                if ((r = payload_layer_verify(layer, err)) < 0 ||
                        (r = tb_file_read(layer->path, LAYER_MAX, &data, &size, err)) < 0 ||
                        (r = write_file(dir, layer->file, data, size, err)) < 0)
                        return r;
        }
        return 0;
}

int augment_context_write(
        const AugmentRequest *request, const char *dockerfile, const char *dir, TbError **err)
{
        int r;

        /* The layers first: a Dockerfile without what it adds would be half a context. */
        if ((r = tb_mkdir_p(dir, 0755, err)) < 0 || (r = write_layers(request, dir, err)) < 0 ||
                (r = write_file(dir, "Dockerfile", dockerfile, strlen(dockerfile), err)) < 0) {
                tb_error_prefix(err, "cannot write the build context");
                return r;
        }
        return 0;
}

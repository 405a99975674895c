/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* copy */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/units.h"
#include "registry-client/tool.h"

static void on_progress(const RegistryCopyProgress *p, void *userdata)
{
        tool_show_progress(userdata, p);
}

static int print_copy(
        const Tool *t, const char *source, const char *target, const RegistryCopyResult *c, TbError **err)
{
        uint64_t usec = tb_now_us() - t->started_usec;

        if (!t->json) {
                char up[TB_UNIT_TEXT_MAX];

                printf("%s -> %s: %s\n%zu blobs copied (%s), %zu mounted, %zu there already, %.2f s\n",
                        source, target, c->manifest.digest.text, c->blobs_streamed,
                        tb_format_bytes(up, c->bytes_uploaded), c->blobs_mounted, c->blobs_existed,
                        (double) usec / 1e6);
                return 0;
        }
        return tool_print_json_new(
                json_pack("{s:s, s:s, s:s, s:s, s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I, s:I}, s:f}", "source",
                        source, "target", target, "digest", c->manifest.digest.text, "mediaType",
                        c->manifest.media_type, "bytes", "downloaded", (json_int_t) c->bytes_downloaded,
                        "uploaded", (json_int_t) c->bytes_uploaded, "mounted", (json_int_t) c->bytes_mounted,
                        "resumed", (json_int_t) c->bytes_resumed, "blobs", "streamed",
                        (json_int_t) c->blobs_streamed, "mounted", (json_int_t) c->blobs_mounted, "existed",
                        (json_int_t) c->blobs_existed, "ms", (double) usec / 1000),
                err);
}

int tool_copy(Tool *t, char **args, TbError **err)
{
        _cleanup_registry_copy_result_ RegistryCopyResult result = {0};
        _cleanup_(registry_place_freep) RegistryPlace *source = NULL, *target = NULL;
        _cleanup_free_ char *source_name = NULL, *target_name = NULL;
        RegistryCopyOptions o = {
                .platform = t->n_platforms == 1 ? t->platforms : NULL,
                .platforms = t->n_platforms > 1 ? t->platforms : NULL,
                .n_platforms = t->n_platforms > 1 ? t->n_platforms : 0,
                .state_dir = t->resume_dir,
                .parallel = t->parallel,
                .progress = !t->json && isatty(STDERR_FILENO) ? on_progress : NULL,
                .progress_userdata = t,
        };
        int r;

        if ((r = registry_place_parse(args[0], &source, err)) < 0 ||
                (r = registry_place_parse(args[1], &target, err)) < 0) {
                t->usage = r == -EINVAL;
                return r;
        }
        source_name = registry_place_to_string(source);
        target_name = registry_place_to_string(target);
        if (!source_name || !target_name)
                return tb_error_oom(err);
        t->started_usec = tb_now_us();
        r = registry_copy_place(t->client, source, target, &o, &result, err);
        tool_end_progress(t);
        return r < 0 ? r : print_copy(t, source_name, target_name, &result, err);
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "augment/cache.h"
#include "common/cleanup.h"
#include "common/strv.h"

int augment_cache_key_text(const TbDigest *base, const AugmentRequest *request, const TbDigest *payload,
        char **ret, TbError **err)
{
        char *text;

        if (!tb_digest_is_set(base) || !request->platform ||
                tb_digest_is_set(payload) != (request->level != AUGMENT_LEVEL_NONE))
                return tb_error_set(err, TB_ERROR_BUG, -EINVAL, "the cache key lacks a part");
        text = tb_asprintf("tbnode-cache-key 1\n"
                           "base %s\n"
                           "platform %s\n"
                           "level %s\n"
                           "payload %s\n"
                           "generator %d\n"
                           "%s",
                base->text, request->platform, augment_level_to_string(request->level),
                tb_digest_is_set(payload) ? payload->text : "-", AUGMENT_GENERATOR_VERSION,
                request->update ? "update 1\n" : "");
        if (!text)
                return tb_error_oom(err);
        *ret = text;
        return 0;
}

int augment_cache_key_tag(const TbDigest *base, const AugmentRequest *request, const TbDigest *payload,
        char ret[static AUGMENT_KEY_TAG_MAX], TbError **err)
{
        _cleanup_free_ char *text = NULL;
        TbDigest key;
        int r;

        r = augment_cache_key_text(base, request, payload, &text, err);
        if (r < 0)
                return r;
        r = tb_digest_of(text, strlen(text), &key, err);
        if (r < 0)
                return r;
        (void) snprintf(ret, AUGMENT_KEY_TAG_MAX, "k-%.40s", tb_digest_hex(&key));
        return 0;
}

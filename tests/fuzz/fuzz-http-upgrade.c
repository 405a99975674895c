/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "common/cleanup.h"
#include "common/http-upgrade.h"
#include "tests/fuzz/fuzz.h"

/* An answer in one piece and byte by byte is the same answer. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_http_upgrade_ TbHttpUpgrade whole = TB_HTTP_UPGRADE_INIT, slow = TB_HTTP_UPGRADE_INIT;
        int a = 0, b = 0;

        if (size == 0)
                return 0;
        a = tb_http_upgrade_feed(&whole, data, size, NULL);
        for (size_t i = 0; i < size && b >= 0; i++)
                b = tb_http_upgrade_feed(&slow, data + i, 1, NULL);
        fuzz_assert(a == b);
        if (a < 0)
                return 0;
        fuzz_assert(whole.status == slow.status && whole.done == slow.done);
        fuzz_assert(whole.body.size == slow.body.size);
        fuzz_assert(whole.body.size == 0 || memcmp(whole.body.data, slow.body.data, whole.body.size) == 0);
        return 0;
}

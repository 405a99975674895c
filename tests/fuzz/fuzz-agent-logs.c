/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "agent/log-merge.h"
#include "agent/log-time.h"
#include "common/cleanup.h"
#include "tests/fuzz/fuzz.h"

/* The engine's log and the node's, cut into pieces: everything comes to an end, and no piece is larger than promised. The first
 * byte: terminal or not, size of the pieces; the rest is halved between both. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(log_merge_freep) LogMerge *m = NULL;
        const char *text = (const char *) data + 1;
        size_t at[2] = {}, n[2], step;
        LogPiece p;

        if (size < 2)
                return 0;
        step = (data[0] >> 1) + 1U;
        n[0] = (size - 1) / 2;
        n[1] = size - 1 - n[0];
        fuzz_assert(log_merge_new(data[0] & 1, 0, UINT64_C(1795293530000000000), &m, NULL) >= 0);
        for (size_t rounds = 0; !log_merge_is_done(m); rounds++) {
                fuzz_assert(rounds <= 2 * size + 4);
                for (LogSource s = 0; s < _LOG_SOURCE_MAX; s++) {
                        size_t k = MIN2(step, n[s] - at[s]);

                        if (k == 0)
                                log_merge_end(m, s);
                        else
                                fuzz_assert(
                                        log_merge_feed(m, s, text + (s ? n[0] : 0) + at[s], k, NULL) >= 0);
                        at[s] += k;
                }
                while (log_merge_next(m, data[0] & 2, &p))
                        fuzz_assert(p.size > 0 && p.size <= LOG_PIECE_MAX && p.source >= 0);
        }
        return 0;
}

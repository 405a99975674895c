/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "agent/tmcd.h"
#include "common/cleanup.h"
#include "tests/fuzz/fuzz.h"

/* TMCD from a node: nothing is read beyond the packet, and what is accepted is answered the same way each time. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        const char *text = (const char *) data;
        char word[32] = "";
        TmcdRequest r;

        for (unsigned i = 0; i < 4; i++)
                if ((i & 2) && !tmcd_request_is_whole(text, size, i & 1, true))
                        __builtin_trap(); /* the end is the end */
                else
                        (void) tmcd_request_is_whole(text, size, i & 1, false);
        if (tmcd_request_parse(text, size, &r, NULL) < 0)
                return 0;
        fuzz_assert(size <= TMCD_PACKET_MAX);
        fuzz_assert(r.arguments >= text && r.arguments + r.arguments_size == text + size);
        fuzz_assert(r.name && r.command >= 0 && r.command < _TMCD_COMMAND_MAX);
        if (tmcd_request_argument(&r, word, sizeof(word)))
                fuzz_assert(word[0] != 0 && memchr(word, 0, sizeof(word)));
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "agent/declaration.h"
#include "agent/node-request.h"
#include "agent/tmcd.h"
#include "common/buffer.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "tests/fuzz/fuzz.h"

/* A request line of a node; and what operators declare: what was accepted once is accepted again, and every answer that is
 * made of it can be printed, line by line. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_json_ json_t *request = NULL, *j = NULL, *d = NULL, *again = NULL, *public = NULL;
        _cleanup_buffer_ TbBuffer out = TB_BUFFER_INIT(4 << 20);
        const char *op = NULL;

        if (node_request_parse((const char *) data, size, &request, &op, NULL) >= 0)
                fuzz_assert(op && request);
        if (tb_json_parse((const char *) data, size, 1 << 20, "fuzz", &j, NULL) < 0 ||
                declaration_check(j, &d, NULL) < 0)
                return 0;
        fuzz_assert(declaration_check(d, &again, NULL) >= 0 && json_equal(d, again));
        fuzz_assert(declaration_same_mounts(d, again));
        public = declaration_public_accounts(json_object_get(d, "accounts"));
        fuzz_assert(json_object_set_new(d, "node", json_string("n")) >= 0);
        fuzz_assert(tmcd_print_full(
                            40, &(TmcdFacts){.view = d, .sync_server = "n", .host = "h"}, &out, NULL) >= 0);
        fuzz_assert(!memchr(out.data, 0, out.size) && out.data[out.size - 1] == '\n');
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the agent reads from a worker that a hostile image may have taken over, and what a worker reads from stdin. */

#include "augment/augment.h"
#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_augment_request_ AugmentRequest request = {};
        _cleanup_augment_event_ AugmentEvent event = {};
        _cleanup_json_ json_t *line = NULL, *back = NULL;
        _cleanup_free_ char *text = NULL;
        AugmentOp op;

        if (augment_request_from_json((const char *) data, size, &request, &op, NULL) >= 0)
                fuzz_assert(augment_request_to_json(&request, op, &text, NULL) >= 0);
        if (tb_json_parse((const char *) data, size, AUGMENT_EVENT_MAX, "line", &line, NULL) < 0 ||
                augment_event_parse(line, &event, NULL) < 0)
                return 0;
        if (event.type == AUGMENT_EVENT_RESULT) {
                _cleanup_augment_result_ AugmentResult again = {};

                fuzz_assert(augment_result_to_json(&event.result, &back, NULL) >= 0);
                fuzz_assert(augment_result_from_json(back, &again, NULL) >= 0);
                fuzz_assert(tb_streq(event.result.image, again.image));
        }
        if (event.type == AUGMENT_EVENT_ERROR)
                for (const char *p = event.error->message; *p; p++)
                        fuzz_assert((unsigned char) *p >= 0x20);
        return 0;
}

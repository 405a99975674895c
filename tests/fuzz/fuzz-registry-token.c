/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Token answers and error bodies. A token that is taken can be put into a header line. The first line of the input, when
 * there are two, is the Date header. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(registry_token_answer_done) RegistryTokenAnswer a = {0};
        _cleanup_free_ char *date = NULL, *text = NULL;
        const char *body = (const char *) data, *line = memchr(data, '\n', size);
        int64_t t;

        if (line && *body != '{') {
                date = strndup(body, (size_t) (line - body));
                size -= (size_t) (line + 1 - body);
                body = line + 1;
        }
        if (registry_token_parse(body, size, date, &a, NULL) >= 0) {
                fuzz_assert(a.token[0] && !strpbrk(a.token, "\r\n \t"));
                fuzz_assert(!a.refresh_token || !strpbrk(a.refresh_token, "\r\n \t"));
                fuzz_assert(a.expires_sec >= 1 && a.expires_sec <= 86400);
        }
        if (date) {
                (void) registry_parse_rfc3339(date, &t);
                (void) registry_parse_http_date(date, &t);
        }
        text = registry_error_text(body, size);
        fuzz_assert(!text || !strpbrk(text, "\r\n\033"));
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "common/cleanup.h"
#include "common/units.h"
#include "tests/fuzz/fuzz.h"

/* Whatever is accepted survives formatting; whatever is refused has an error that says so. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *s = strndup((const char *) data, size);
        char buf[TB_UNIT_TEXT_MAX];
        TbError *err = NULL;
        uint64_t v, back;
        uint32_t p, p_back;
        bool b;

        if (!s)
                return 0;

        if (tb_parse_rate(s, &v, &err) >= 0)
                fuzz_assert(tb_parse_rate(tb_format_rate(buf, v), &back, NULL) >= 0 && back == v);
        else
                fuzz_assert(err && err->code < 0);
        err = tb_error_free(err);

        if (tb_parse_time(s, &v, &err) >= 0)
                fuzz_assert(tb_parse_time(tb_format_time(buf, v), &back, NULL) >= 0 && back == v);
        else
                fuzz_assert(err && err->code < 0);
        err = tb_error_free(err);

        if (tb_parse_percent(s, &p, &err) >= 0)
                fuzz_assert(tb_parse_percent(tb_format_percent(buf, p), &p_back, NULL) >= 0 && p_back == p);
        else
                fuzz_assert(err && err->code < 0);
        err = tb_error_free(err);

        if (tb_parse_size(s, &v, NULL) >= 0)
                (void) tb_format_bytes(buf, v);
        (void) !tb_parse_u64(s, 0, UINT64_MAX, &v, NULL);
        (void) !tb_parse_u32(s, 1, 10, &p, NULL);
        (void) !tb_parse_bool(s, &b, NULL);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "tests/fuzz/fuzz.h"

static void query(const json_t *j)
{
        static const char *const keys[] = {"a", "b", "layers", ""};
        _cleanup_strv_ char **v = NULL;
        const char *s;
        json_t *sub;
        uint64_t u;
        bool b;

        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                _cleanup_error_ TbError *err = NULL;
                int r = tb_json_get_u64(j, keys[i], &u, &err);

                fuzz_assert((r < 0) == (err != NULL));
                (void) !tb_json_get_string(j, keys[i], &s, NULL);
                (void) !tb_json_get_bool(j, keys[i], &b, NULL);
                (void) !tb_json_get_object(j, keys[i], &sub, NULL);
                (void) !tb_json_get_array(j, keys[i], &sub, NULL);
                v = tb_strv_free(v);
                (void) !tb_json_get_strv(j, keys[i], &v, NULL);
        }
}

/* What is accepted is written and read back to the same document. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_json_ json_t *j = NULL, *again = NULL;
        _cleanup_error_ TbError *err = NULL;
        _cleanup_free_ char *text = NULL;
        size_t text_size;

        if (tb_json_parse((const char *) data, size, 65536, "input", &j, &err) < 0) {
                fuzz_assert(err && err->code < 0 && !strchr(err->message, '\n'));
                return 0;
        }
        query(j);
        if (tb_json_dump(j, true, &text, &text_size, NULL) < 0)
                return 0;
        fuzz_assert(tb_json_parse(text, text_size, SIZE_MAX, "output", &again, NULL) >= 0);
        fuzz_assert(json_equal(j, again));
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "tests/unit/test.h"

#include "agent/images.h"
#include "common/cleanup.h"
#include "common/json.h"

#define A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

/* Letters of the items that may go, in their order; 1000 s are now, what was used in the last 500 stays. */
static void check(const char *text, const char *expected)
{
        _cleanup_json_ json_t *items = json_loads(text, JSON_DECODE_ANY, NULL);
        _cleanup_error_ TbError *err = NULL;
        char got[16] = "";
        json_t *item;
        size_t i;

        assert_non_null(items);
        assert_ok(images_decide(items, 1000, 500, &err), err);
        json_array_foreach (items, i, item)
                got[i] = json_is_true(json_object_get(item, "remove")) ? '-' : '+';
        assert_string_equal(got, expected);
}

#define ITEM(kind, repository, digest, last, rest)                                           \
        "{\"kind\": \"" kind "\", \"repository\": \"" repository "\", \"digest\": \"" digest \
        "\", \"last\": " #last rest "}"

static void test_age_and_use(void **state)
{
        check("[" ITEM("augmented", "augmented/x", A, 900, "") "," ITEM(
                      "augmented", "augmented/x", B, 100, "") "]",
                "+-");
        check("[" ITEM("augmented", "augmented/x", A, 100, ", \"in_use\": [\"n\"]") "," ITEM(
                      "augmented", "augmented/x", B, 500, ", \"in_use\": []") "]",
                "+-");
}

/* A base stays for what is made from it, in whatever repository, and what is known of it stays with it. */
static void test_bases_and_notes(void **state)
{
        check("[" ITEM("augmented", "projects/p/augmented/x", A, 900, ", \"base\": \"" B "\"") "," ITEM(
                      "mirror", "projects/p/mirror/x", B, 100, "") "," ITEM("mirror", "mirror/x", C, 100,
                      "") "," ITEM("facts", "projects/p/mirror/x", C, 100,
                      ", \"tags\": [\"f-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"]") "," ITEM("facts",
                      "mirror/x", C, 100,
                      ", \"tags\": [\"f-cccccccccccccccccccccccccccccccccccccccc\"]") "," ITEM("record",
                      "projects/p/mirror/x", C, 900, "") "," ITEM("record", "mirror/x", A, 900, "") "]",
                "++-+-+-");
}

/* What an index that stays consists of stays, and so do the bases of that. */
static void test_indexes(void **state)
{
        check("[" ITEM("augmented", "augmented/x", A, 900,
                      ", \"index\": true, \"children\": [\"" B "\"]") "," ITEM("augmented", "augmented/x", B,
                      100, ", \"base\": \"" C "\"") "," ITEM("mirror", "mirror/x", C, 100, "") "]",
                "+++");
        check("[" ITEM("augmented", "augmented/x", A, 100,
                      ", \"index\": true, \"children\": [\"" B "\"]") "," ITEM("augmented", "augmented/x", B,
                      900, ", \"base\": \"" C "\"") "," ITEM("mirror", "mirror/x", C, 100, "") "]",
                "-++");
}

/* Whatever a worker made of what strangers wrote. */
static void test_odd_items(void **state)
{
        check("[{}, 5, null, {\"kind\": 5, \"digest\": [], \"tags\": {}}, " ITEM(
                      "facts", "x", "sha256:short", 900, "") "]",
                "-++--");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_age_and_use),
                cmocka_unit_test(test_bases_and_notes),
                cmocka_unit_test(test_indexes),
                cmocka_unit_test(test_odd_items),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}

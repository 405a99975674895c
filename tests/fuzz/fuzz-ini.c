/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "common/ini.h"
#include "common/units.h"
#include "tests/fuzz/fuzz.h"

static int accept_value(const char *value, void *userdata, TbError **err)
{
        size_t n = strlen(value);

        /* Values come stripped and in one line. */
        fuzz_assert(!strchr(value, '\n'));
        fuzz_assert(n == 0 || (!strchr(" \t\r", value[0]) && !strchr(" \t\r", value[n - 1])));
        return 0;
}

static int parse_rate(const char *value, void *userdata, TbError **err)
{
        return tb_parse_rate(value, userdata, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        uint64_t rate;
        const TbIniItem items[] = {
                {NULL, "registry", accept_value, NULL},
                {NULL, "list", accept_value, NULL, .list = true},
                {"limits", "rate", parse_rate, &rate},
        };
        TbError *err = NULL;
        int r = tb_ini_parse("input", (const char *) data, size, items, ELEMENTSOF(items), &err);

        fuzz_assert((r < 0) == (err != NULL));
        if (err)
                fuzz_assert(strncmp(err->message, "input:", 6) == 0 && !strchr(err->message, '\n'));
        tb_error_free(err);
        return 0;
}

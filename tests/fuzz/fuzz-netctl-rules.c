/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "netctl/fw-model.h"
#include "tests/fuzz/fuzz.h"

/* Firewall of labels and of the configuration: no crash, and what is accepted prints as something that reads back the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_free_ char *text = malloc(size + 1), *printed = NULL;
        _cleanup_fw_rules_ FwRules a = {}, b = {};
        FwStyle style, again;

        if (!text)
                return 0;
        if (size > 0)
                memcpy(text, data, size);
        text[size] = '\0';
        if (fw_firewall_parse(text, &style, &a, NULL) < 0)
                return 0;
        printed = fw_firewall_print(style, &a);
        /* Many addresses written short get longer than what is read. */
        if (!printed || strlen(printed) > FW_RULES_TEXT_MAX)
                return 0;
        if (fw_firewall_parse(printed, &again, &b, NULL) < 0 || style != again || !fw_rules_equal(&a, &b))
                abort();
        for (size_t i = 0; i < a.n; i++)
                if (a.v[i].direction != b.v[i].direction)
                        abort();
        return 0;
}

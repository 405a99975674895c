/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The answer of a credential helper: what is taken can be sent. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *c = calloc(1, sizeof(*c));

        if (!c)
                return 0;
        if (registry_helper_answer_parse((const char *) data, size, c, NULL) < 0) {
                fuzz_assert(!c->user && !c->password && !c->identity_token);
                return 0;
        }
        fuzz_assert((c->user && c->password) != (c->identity_token != NULL));
        fuzz_assert(!c->user || !strchr(c->user, ':'));
        fuzz_assert(!c->identity_token || !strpbrk(c->identity_token, "\r\n"));
        return 0;
}

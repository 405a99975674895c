/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Docker's config.json: every entry that is taken can be used or says that it cannot. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(registry_credentials_freep) RegistryCredentials *list = NULL;

        if (registry_docker_config_parse((const char *) data, size, "config.json", &list, NULL) < 0) {
                fuzz_assert(!list);
                return 0;
        }
        for (RegistryCredentials *c = list; c; c = c->next) {
                fuzz_assert(registry_host_is_valid(c->host));
                fuzz_assert(c->unreadable || c->registry_token || (c->user && c->password));
                fuzz_assert(!c->registry_token || !strpbrk(c->registry_token, "\r\n"));
        }
        return 0;
}

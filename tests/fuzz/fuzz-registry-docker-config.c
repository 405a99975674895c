/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Docker's config.json: every entry that is taken can be used, every helper's name can be executed without harm. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(registry_docker_config_freep) RegistryDockerConfig *config = NULL;

        if (registry_docker_config_parse((const char *) data, size, "config.json", &config, NULL) < 0) {
                fuzz_assert(!config);
                return 0;
        }
        for (const RegistryCredentials *c = config->auths; c; c = c->next) {
                fuzz_assert(registry_host_is_valid(c->host));
                fuzz_assert(c->registry_token || c->identity_token || (c->user && c->password));
                fuzz_assert(!c->registry_token || !strpbrk(c->registry_token, "\r\n"));
                fuzz_assert(!c->identity_token || !strpbrk(c->identity_token, "\r\n"));
        }
        for (const RegistryHelperEntry *h = config->helpers; h; h = h->next) {
                fuzz_assert(registry_host_is_valid(h->host));
                fuzz_assert(registry_helper_name_is_valid(h->name) && !strchr(h->name, '/'));
        }
        fuzz_assert(!config->store || registry_helper_name_is_valid(config->store));
        return 0;
}

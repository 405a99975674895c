/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Header values that registries send: WWW-Authenticate, Link, Retry-After, Location. */

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_registry_challenge_ RegistryChallenge c = {0};
        _cleanup_free_ char *text = strndup((const char *) data, size), *next = NULL, *url = NULL,
                            *authority = NULL, *shown = NULL;

        if (!text)
                return 0;
        if (registry_challenge_parse(text, &c, NULL) >= 0 && c.scheme == REGISTRY_AUTH_BEARER)
                fuzz_assert(c.realm);
        if (registry_link_next(text, &next, NULL) > 0)
                fuzz_assert(next);
        fuzz_assert(registry_retry_after_usec(text) <= 86400 * USEC_PER_SEC);
        (void) registry_host_is_private(text);
        (void) registry_host_is_loopback(text);
        if (registry_url_resolve("https://registry.example/v2/a/b", text, &url, NULL) >= 0) {
                /* What we would connect to is http(s), has an authority, and no credentials. */
                fuzz_assert(strncasecmp(url, "https://", 8) == 0 || strncasecmp(url, "http://", 7) == 0);
                authority = registry_url_authority(url);
                fuzz_assert(authority && !strchr(authority, '@'));
                fuzz_assert(registry_url_same_origin(url, url));
                shown = registry_url_for_people(url);
                fuzz_assert(shown && !strchr(shown, '\n'));
        }
        return 0;
}

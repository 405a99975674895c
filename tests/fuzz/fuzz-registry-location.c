/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Location, Link targets and realms: whatever a registry writes, we connect to a http(s) URL without credentials in it, and
 * the check of where it leads looks at the same host that curl will. */

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "registry-client/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const char *const bases[] = {"https://registry.example/v2/a/b?x=y", "http://[::1]:5000/v2/"};
        _cleanup_free_ char *text = strndup((const char *) data, size);

        for (size_t i = 0; text && i < 2; i++) {
                _cleanup_free_ char *url = NULL, *again = NULL, *authority = NULL, *shown = NULL,
                                    *longer = NULL, *host = NULL, *port = NULL;

                if (registry_url_resolve(bases[i], text, &url, NULL) < 0)
                        continue;
                fuzz_assert(strncasecmp(url, "https://", 8) == 0 || strncasecmp(url, "http://", 7) == 0);
                fuzz_assert(!strpbrk(url, " \r\n\t"));
                authority = registry_url_authority(url);
                fuzz_assert(authority && !strchr(authority, '@') && !strchr(authority, '/'));
                fuzz_assert(registry_url_host_port(url, &host, &port) && *host && *port);
                fuzz_assert(registry_url_same_origin(url, url));
                /* What comes out goes in again, and means the same. */
                fuzz_assert(registry_url_resolve(bases[i], url, &again, NULL) >= 0);
                fuzz_assert(registry_url_same_origin(url, again));
                shown = registry_url_for_people(url);
                fuzz_assert(shown && !strpbrk(shown, "\r\n\033"));
                fuzz_assert(registry_url_add_query(url, "digest", "sha256:x&y", &longer, NULL) >= 0);
                fuzz_assert(strlen(url) > 16000 || registry_url_same_origin(url, longer));
                (void) registry_host_is_private(authority);
                (void) registry_host_is_loopback(authority);
        }
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPEC, /etc/passwd and /etc/group of a stranger's image, one after the other, separated by NUL. */
#include <stdlib.h>
#include <string.h>

#include "augment/client/user.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *text = malloc(size + 3), *passwd, *group, *home, why[64];
        static UserIds ids;

        if (!text)
                return 0;
        memcpy(text, data, size);
        memset(text + size, 0, 3);
        passwd = text + strlen(text) + 1;
        if (passwd > text + size)
                passwd = text + size;
        group = passwd + strlen(passwd) + 1;
        if (group > text + size + 2)
                group = text + size;

        if (user_resolve(text, passwd, group, &ids, why, sizeof(why)) == 0) {
                fuzz_assert(ids.uid <= INT32_MAX && ids.gid <= INT32_MAX);
                fuzz_assert(ids.n_groups <= USER_GROUPS_MAX);
                home = user_home(passwd, ids.uid);
                fuzz_assert(home);
                free(home);
        }
        free(text);
        return 0;
}

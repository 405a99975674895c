/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Secrets in memory
 *
 * Two kinds. What passes through (a decoded "user:password", a header line) lives on the heap and is overwritten when it
 * is freed: registry_secret_free(). What is kept for as long as the client lives (passwords, refresh tokens, access
 * tokens) lies in pages of its own that a core dump leaves out (madvise(2), MADV_DONTDUMP) and that a forked child does
 * not get (MADV_WIPEONFORK): registry_secret_keep(). Neither reaches into libcurl's and jansson's own buffers, so
 * programs should forbid core dumps as a whole: registry_protect_process().
 */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "registry-client/internal.h"

char *registry_secret_free(char *s)
{
        if (s) {
                explicit_bzero(s, strlen(s));
                free(s);
        }
        return NULL;
}

/* The string stands behind the length of its mapping. */
typedef struct Kept {
        size_t mapped;
        char text[];
} Kept;

char *registry_secret_keep(const char *s)
{
        size_t n = strlen(s), page = (size_t) sysconf(_SC_PAGESIZE);
        size_t mapped = (sizeof(Kept) + n + 1 + page - 1) / page * page;
        Kept *k;

        k = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (k == MAP_FAILED)
                return NULL;
        /* Old kernels know neither; the secret is then kept as any other memory. */
        (void) madvise(k, mapped, MADV_DONTDUMP);
        (void) madvise(k, mapped, MADV_WIPEONFORK);
        k->mapped = mapped;
        memcpy(k->text, s, n + 1);
        return k->text;
}

char *registry_secret_drop(char *s)
{
        Kept *k;

        if (!s)
                return NULL;
        k = (Kept *) (void *) (s - offsetof(Kept, text));
        explicit_bzero(k->text, k->mapped - sizeof(*k));
        (void) munmap(k, k->mapped);
        return NULL;
}

static void wipe_strings(json_t *j)
{
        const char *key;
        json_t *value;
        size_t i;

        if (json_is_string(j)) /* jansson keeps the text in this one buffer, which is ours to write to */
                explicit_bzero((char *) (uintptr_t) json_string_value(j), json_string_length(j));
        else if (json_is_object(j))
                json_object_foreach (j, key, value)
                        wipe_strings(value);
        else
                json_array_foreach (j, i, value)
                        wipe_strings(value);
}

void registry_json_wipe(json_t *j)
{
        wipe_strings(j);
        json_decref(j); /* the parts are the whole's */
}

int registry_protect_process(TbError **err)
{
        if (prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L) < 0)
                return tb_error_set_errno(
                        err, TB_ERROR_SYSTEM, -errno, "cannot forbid core dumps of this process");
        return 0;
}

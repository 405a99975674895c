/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A declaration's accounts and the account files of a stranger's image, one after the other, separated by NUL: whatever they are, what was
 * there comes out again, what is added is an account of a declared user, and a second turn finds nothing to do. */
#include <stdlib.h>
#include <string.h>

#include "augment/client/client-accounts.h"
#include "augment/client/client-hosts.h"
#include "tests/fuzz/fuzz.h"

static const char *shell(const char *declared, void *userdata)
{
        return "/bin/sh";
}

/* The number of lines that say uid 0. */
static size_t count_root(const Table *t)
{
        size_t n = 0;
        uint32_t uid;

        for (size_t i = 0; i < t->n; i++)
                if (t->lines[i] && table_number(t, i, 2, &uid) && uid == 0)
                        n++;
        return n;
}

static void turn(char **texts, const json_t *declared)
{
        Accounts a = {}, again = {};
        Problems p = {};
        char *after[_ACCOUNT_FILE_MAX] = {};
        size_t roots;

        accounts_load(&a, texts);
        roots = count_root(&a.table[ACCOUNT_PASSWD]);
        if (!accounts_apply(&a, declared, shell, NULL, &p)) {
                accounts_done(&a);
                return;
        }
        fuzz_assert(count_root(&a.table[ACCOUNT_PASSWD]) <= roots + !texts[ACCOUNT_PASSWD]);
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++)
                if (a.exists[i] || a.table[i].n > 0)
                        after[i] = table_render(&a.table[i]);
        accounts_load(&again, after);
        fuzz_assert(accounts_apply(&again, declared, shell, NULL, &p));
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++) {
                fuzz_assert(!again.table[i].changed);
                free(after[i]);
        }
        accounts_done(&a);
        accounts_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *parts[1 + _ACCOUNT_FILE_MAX] = {}, *copy = malloc(size + 1), *next = copy, *hosts;
        json_t *declared;
        Problems p = {};

        if (!copy)
                return 0;
        memcpy(copy, data, size);
        copy[size] = '\0';
        for (size_t i = 0; i < ELEMENTSOF(parts) && next <= copy + size; i++) {
                parts[i] = next;
                next += strlen(next) + 1;
        }
        declared = parts[0] ? json_loads(parts[0], JSON_REJECT_DUPLICATES, NULL) : NULL;
        if (declared) {
                turn(parts + 1, declared);
                hosts = hosts_edit(parts[1] ? parts[1] : "", json_object_get(declared, "hosts"), &p);
                fuzz_assert(hosts);
                free(hosts);
        }
        json_decref(declared);
        free(copy);
        return 0;
}

/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Accounts of the declaration in the account files of an image
 *
 * The image's own accounts are left as they are: its files belong to their ids. What is ours is written down in a record
 * beside the account files (ACCOUNTS_RECORD), which lives and dies with them, also through a snapshot of the node; only
 * what is recorded is ever changed or taken away.
 *
 *  - name not in the image: the account is made, with the declared ids. Another name of the image may have the same id:
 *    then both exist, and who asks by number gets the image's.
 *  - name in the image, same id: the account is taken as it is; groups and keys are added.
 *  - name in the image, another id: a problem. The image's account stays and the declared user gets nothing.
 *  - no longer declared: account and memberships that were made are removed; the home directory stays.
 *
 * Passwords live in shadow only. A file without one gets it when a hash is declared; without a hash the account is
 * locked for passwords ("*"), which leaves ssh keys alone. Fields that the declaration doesn't mention (full name, home, shell,
 * hash) are set when an account is made, and left alone afterwards.
 */

#include <jansson.h>
#include <stdbool.h>

#include "augment/client/client-table.h"
#include "augment/client/client-text.h"

#define ACCOUNTS_RECORD ".tbnode-accounts"

typedef enum AccountFile {
        ACCOUNT_PASSWD,
        ACCOUNT_GROUP,
        ACCOUNT_SHADOW,
        ACCOUNT_GSHADOW,
        ACCOUNT_RECORD,
        _ACCOUNT_FILE_MAX,
} AccountFile;

typedef struct Accounts {
        Table table[_ACCOUNT_FILE_MAX];
        bool exists[_ACCOUNT_FILE_MAX];
} Accounts;

/* The shell for a declared word: a full path. Static or borrowed; never NULL. */
typedef const char *(*AccountShellFn)(const char *declared, void *userdata);

/* `texts` are the files' contents, NULL for those that aren't there. */
void accounts_load(Accounts *a, char *const texts[_ACCOUNT_FILE_MAX]);
void accounts_done(Accounts *a);
#define _cleanup_accounts_ _cleanup_(accounts_done)

/* Makes `a` what `declared` (member "accounts" of a declaration; NULL: none) says; what can't be is added to `p`. False: out of
 * memory. Nothing in `a` is marked as changed that was right before. */
bool accounts_apply(Accounts *a, const json_t *declared, AccountShellFn shell, void *userdata, Problems *p);

/* Is this declared user now an account with the declared uid? Then *ret_line is its line in passwd. root always is (TABLE_NONE
 * if it has no line). */
bool accounts_has_user(const Accounts *a, const json_t *user, size_t *ret_line);

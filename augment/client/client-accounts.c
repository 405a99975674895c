/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-accounts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "augment/client/util.h"

#define ID_MAX 4294967294U
#define RECORD_HEAD \
        "# What tbnode-client added to the account files here. It removes what is no longer declared."

enum {
        PASSWD_HASH = 1,
        PASSWD_UID,
        PASSWD_GID,
        PASSWD_FULL_NAME,
        PASSWD_HOME,
        PASSWD_SHELL
};
enum {
        GROUP_GID = 2,
        GROUP_MEMBERS = 3
};
enum {
        SHADOW_HASH = 1
};

typedef struct Edit {
        Accounts *a;
        const json_t *users, *groups;
        AccountShellFn shell;
        void *userdata;
        Problems *problems;
} Edit;

void accounts_load(Accounts *a, char *const texts[_ACCOUNT_FILE_MAX])
{
        *a = (Accounts){};
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++) {
                table_parse(&a->table[i], texts[i]);
                a->exists[i] = texts[i] != NULL;
        }
}

void accounts_done(Accounts *a)
{
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++)
                table_done(&a->table[i]);
}

/* ---- The record: lines "user:NAME:UID", "group:NAME:GID", "member:GROUP:USER" ------------------------------------ */

static size_t record_find(const Accounts *a, const char *kind, const char *first, const char *second)
{
        const Table *t = &a->table[ACCOUNT_RECORD];
        char wanted[128];
        size_t size;

        snprintf(wanted, sizeof(wanted), "%s:%s:%s", kind, first, second ? second : "");
        size = strlen(wanted);
        for (size_t i = 0; i < t->n; i++)
                if (t->lines[i] &&
                        (second ? strcmp(t->lines[i], wanted) == 0
                                : strncmp(t->lines[i], wanted, size) == 0))
                        return i;
        return TABLE_NONE;
}

static void record_add(Accounts *a, const char *kind, const char *first, const char *second)
{
        Table *t = &a->table[ACCOUNT_RECORD];
        char line[128];

        if (record_find(a, kind, first, second) != TABLE_NONE)
                return;
        if (t->n == 0)
                table_add(t, RECORD_HEAD);
        snprintf(line, sizeof(line), "%s:%s:%s", kind, first, second);
        table_add(t, line);
}

static void record_drop(Accounts *a, const char *kind, const char *first, const char *second)
{
        size_t i = record_find(a, kind, first, second);

        if (i != TABLE_NONE)
                table_drop(&a->table[ACCOUNT_RECORD], i);
}

static void record_id(Accounts *a, const char *kind, const char *name, uint32_t id)
{
        char number[16];

        snprintf(number, sizeof(number), "%u", id);
        if (record_find(a, kind, name, number) != TABLE_NONE)
                return;
        record_drop(a, kind, name, NULL);
        record_add(a, kind, name, number);
}

static bool is_ours(const Accounts *a, const char *kind, const char *name)
{
        return record_find(a, kind, name, NULL) != TABLE_NONE;
}

/* ---- What is declared ----------------------------------------------------------------------------------------------- */

static const json_t *find_declared(const json_t *list, const char *name)
{
        const json_t *item;
        size_t i;

        json_array_foreach ((json_t *) list, i, item)
                if (strcmp(member_string(item, "name", ""), name) == 0)
                        return item;
        return NULL;
}

/* The group whose members may use sudo, by the image's own custom. */
static const char *admin_group(const Accounts *a)
{
        static const char *const names[] = {"sudo", "wheel"};

        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                if (table_find(&a->table[ACCOUNT_GROUP], names[i]) != TABLE_NONE)
                        return names[i];
        return NULL;
}

static bool wants_member(const Edit *e, const char *group, const char *user)
{
        const json_t *u = find_declared(e->users, user), *name;
        const char *admin = admin_group(e->a);
        size_t i;

        if (!u || !accounts_has_user(e->a, u, NULL))
                return false;
        if (admin && strcmp(admin, group) == 0 && json_is_true(json_object_get(u, "root")))
                return true;
        json_array_foreach (json_object_get(u, "groups"), i, name)
                if (json_is_string(name) && strcmp(json_string_value(name), group) == 0)
                        return true;
        return false;
}

bool accounts_has_user(const Accounts *a, const json_t *user, size_t *ret_line)
{
        const char *name = member_string(user, "name", "");
        size_t line = account_name_is_valid(name) ? table_find(&a->table[ACCOUNT_PASSWD], name) : TABLE_NONE;
        uint64_t declared;
        uint32_t uid;

        if (ret_line)
                *ret_line = line;
        if (member_number(user, "uid", ID_MAX, &declared) < 0)
                return false;
        if (strcmp(name, "root") == 0)
                return declared == 0;
        return line != TABLE_NONE && table_number(&a->table[ACCOUNT_PASSWD], line, PASSWD_UID, &uid) &&
                uid == declared;
}

/* ---- Taking away ---------------------------------------------------------------------------------------------------- */

static void drop_named(Table *t, const char *name)
{
        size_t line = table_find(t, name);

        if (line != TABLE_NONE)
                table_drop(t, line);
}

/* An account is ours as long as it has the id that we gave it. */
static void remove_account(Edit *e, AccountFile file, AccountFile shadow, const char *name, uint32_t id)
{
        size_t line = table_find(&e->a->table[file], name);
        uint32_t found;

        if (line == TABLE_NONE || !table_number(&e->a->table[file], line, 2, &found) || found != id)
                return;
        table_drop(&e->a->table[file], line);
        drop_named(&e->a->table[shadow], name);
}

static void remove_member(Edit *e, const char *group, const char *user)
{
        static const AccountFile files[] = {ACCOUNT_GROUP, ACCOUNT_GSHADOW};

        for (size_t i = 0; i < ELEMENTSOF(files); i++) {
                size_t line = table_find(&e->a->table[files[i]], group);

                if (line != TABLE_NONE)
                        table_list_remove(&e->a->table[files[i]], line, GROUP_MEMBERS, user);
        }
}

static void remove_undeclared(Edit *e)
{
        Table *record = &e->a->table[ACCOUNT_RECORD];

        for (size_t i = 0; i < record->n && !record->failed; i++) {
                _cleanup_free_ char *kind = NULL, *name = NULL;
                uint32_t id;

                if (!record->lines[i] || record->lines[i][0] == '#')
                        continue;
                kind = table_field(record, i, 0);
                name = table_field(record, i, 1);
                if (!kind || !name || !table_number(record, i, 2, &id))
                        continue;
                if (strcmp(kind, "user") == 0 && !find_declared(e->users, name))
                        remove_account(e, ACCOUNT_PASSWD, ACCOUNT_SHADOW, name, id);
                else if (strcmp(kind, "group") == 0 && !find_declared(e->groups, name))
                        remove_account(e, ACCOUNT_GROUP, ACCOUNT_GSHADOW, name, id);
                else
                        continue;
                table_drop(record, i);
        }
}

static void remove_memberships(Edit *e)
{
        Table *record = &e->a->table[ACCOUNT_RECORD];

        for (size_t i = 0; i < record->n && !record->failed; i++) {
                _cleanup_free_ char *kind = NULL, *group = NULL, *user = NULL;

                if (!record->lines[i])
                        continue;
                kind = table_field(record, i, 0);
                group = table_field(record, i, 1);
                user = table_field(record, i, 2);
                if (!kind || !group || !user || strcmp(kind, "member") != 0 || wants_member(e, group, user))
                        continue;
                remove_member(e, group, user);
                table_drop(record, i);
        }
}

/* ---- Adding --------------------------------------------------------------------------------------------------------- */

/* A file that wasn't there begins with root: nothing else has to be in it. HOME of root is what it was without the file. */
static void begin_file(Accounts *a, AccountFile file)
{
        if (a->exists[file])
                return;
        a->exists[file] = true;
        if (file == ACCOUNT_PASSWD)
                table_add(&a->table[file], "root:*:0:0:root:/:" TBNODE_BIN_DIR "/sh");
        else if (file == ACCOUNT_GROUP)
                table_add(&a->table[file], "root:*:0:");
}

static void apply_group(Edit *e, const json_t *group)
{
        const char *name = member_string(group, "name", "");
        Table *t = &e->a->table[ACCOUNT_GROUP];
        uint64_t gid;
        uint32_t found = 0;
        char text[128];
        size_t line;

        /* Of two by the same name the first counts. */
        if (account_name_is_valid(name) && find_declared(e->groups, name) != group)
                return;
        if (!account_name_is_valid(name) || member_number(group, "gid", ID_MAX, &gid) < 0) {
                problem(e->problems, "a declared group has no good name or no gid");
                return;
        }
        line = table_find(t, name);
        if (line == TABLE_NONE) {
                begin_file(e->a, ACCOUNT_GROUP);
                snprintf(text, sizeof(text), "%s:x:%u:", name, (uint32_t) gid);
                table_add(t, text);
                if (e->a->exists[ACCOUNT_GSHADOW] &&
                        table_find(&e->a->table[ACCOUNT_GSHADOW], name) == TABLE_NONE) {
                        snprintf(text, sizeof(text), "%s:!::", name);
                        table_add(&e->a->table[ACCOUNT_GSHADOW], text);
                }
                record_id(e->a, "group", name, (uint32_t) gid);
                return;
        }
        if (table_number(t, line, GROUP_GID, &found) && found == gid)
                return;
        if (!is_ours(e->a, "group", name)) {
                problem(e->problems,
                        "group %s has gid %u in the image, %u is declared: declare the image's, or another "
                        "name",
                        name, found, (uint32_t) gid);
                return;
        }
        snprintf(text, sizeof(text), "%u", (uint32_t) gid);
        table_set_field(t, line, GROUP_GID, text);
        record_id(e->a, "group", name, (uint32_t) gid);
}

static void apply_hash(Edit *e, size_t line, const char *name, const char *hash)
{
        Table *shadow = &e->a->table[ACCOUNT_SHADOW];
        size_t at = table_find(shadow, name);

        if (!hash && (at != TABLE_NONE || !e->a->exists[ACCOUNT_SHADOW]))
                return;
        e->a->exists[ACCOUNT_SHADOW] = true;
        table_set_field(&e->a->table[ACCOUNT_PASSWD], line, PASSWD_HASH, "x");
        if (at == TABLE_NONE) {
                Text text = {};
                _cleanup_free_ char *added = NULL;

                /* No dates: no ageing, shadow(5). */
                text_addf(&text, "%s:%s:::::::", name, hash ? hash : "*");
                added = text_take(&text);
                if (added)
                        table_add(shadow, added);
                else
                        shadow->failed = true;
        } else {
                table_set_field(shadow, at, SHADOW_HASH, hash);
        }
}

static void update_user(Edit *e, size_t line, const json_t *user, uint32_t uid, uint32_t gid)
{
        Table *t = &e->a->table[ACCOUNT_PASSWD];
        const char *full_name = member_string(user, "full_name", NULL),
                   *home = member_string(user, "home", NULL), *shell = member_string(user, "shell", NULL);
        char number[16];

        snprintf(number, sizeof(number), "%u", uid);
        table_set_field(t, line, PASSWD_UID, number);
        snprintf(number, sizeof(number), "%u", gid);
        table_set_field(t, line, PASSWD_GID, number);
        if (full_name)
                table_set_field(t, line, PASSWD_FULL_NAME, full_name);
        if (home)
                table_set_field(t, line, PASSWD_HOME, home);
        if (shell)
                table_set_field(t, line, PASSWD_SHELL, e->shell(shell, e->userdata));
}

static bool user_is_good(Edit *e, const json_t *user, uint64_t *ret_uid, uint64_t *ret_gid)
{
        const char *name = member_string(user, "name", "");

        if (account_name_is_valid(name) && member_number(user, "uid", ID_MAX, ret_uid) >= 0 &&
                member_number(user, "gid", ID_MAX, ret_gid) >= 0 &&
                line_is_clean(member_string(user, "full_name", ""), ":", 256) &&
                path_is_clean(member_string(user, "home", "/")) &&
                line_is_clean(member_string(user, "shell", ""), ":", 1024) &&
                line_is_clean(member_string(user, "password_hash", ""), ": \t", 512) &&
                (*ret_uid == 0) == (strcmp(name, "root") == 0))
                return true;
        problem(e->problems, "user %s is declared with values that can't stand in passwd",
                account_name_is_valid(name) ? name : "?");
        return false;
}

static void add_user(Edit *e, const json_t *user, uint32_t uid, uint32_t gid)
{
        const char *name = member_string(user, "name", ""), *home = member_string(user, "home", NULL);
        Table *t = &e->a->table[ACCOUNT_PASSWD];
        _cleanup_free_ char *added = NULL;
        Text text = {};
        size_t line;

        begin_file(e->a, ACCOUNT_PASSWD);
        text_addf(&text, "%s:*:%u:%u:%s:%s%s:%s", name, uid, gid, member_string(user, "full_name", ""),
                home ? home : "/home/", home ? "" : name,
                e->shell(member_string(user, "shell", "/bin/sh"), e->userdata));
        added = text_take(&text);
        if (!added) {
                t->failed = true;
                return;
        }
        table_add(t, added);
        line = table_find(t, name);
        if (line == TABLE_NONE)
                return;
        apply_hash(e, line, name, member_string(user, "password_hash", NULL));
        record_id(e->a, "user", name, uid);
}

static void apply_user(Edit *e, const json_t *user)
{
        const char *name = member_string(user, "name", "");
        Table *t = &e->a->table[ACCOUNT_PASSWD];
        uint64_t uid = 0, gid = 0;
        uint32_t found = 0;
        size_t line;

        if (account_name_is_valid(name) && find_declared(e->users, name) != user)
                return;
        if (!user_is_good(e, user, &uid, &gid) || uid == 0)
                return;
        line = table_find(t, name);
        if (line == TABLE_NONE) {
                add_user(e, user, (uint32_t) uid, (uint32_t) gid);
        } else if (is_ours(e->a, "user", name)) {
                update_user(e, line, user, (uint32_t) uid, (uint32_t) gid);
                apply_hash(e, line, name, member_string(user, "password_hash", NULL));
                record_id(e->a, "user", name, (uint32_t) uid);
        } else if (!table_number(t, line, PASSWD_UID, &found) || found != uid) {
                problem(e->problems,
                        "user %s has uid %u in the image, %u is declared: declare the image's, or another "
                        "name",
                        name, found, (uint32_t) uid);
        }
}

static void add_member(Edit *e, const char *group, const char *user)
{
        Table *t = &e->a->table[ACCOUNT_GROUP], *shadow = &e->a->table[ACCOUNT_GSHADOW];
        size_t line = table_find(t, group);

        if (line == TABLE_NONE) {
                problem(e->problems,
                        "user %s is to be in group %s, which neither the image nor the declaration has",
                        user, group);
                return;
        }
        if (table_list_has(t, line, GROUP_MEMBERS, user))
                return;
        table_list_add(t, line, GROUP_MEMBERS, user);
        line = table_find(shadow, group);
        if (line != TABLE_NONE)
                table_list_add(shadow, line, GROUP_MEMBERS, user);
        record_add(e->a, "member", group, user);
}

static void apply_memberships(Edit *e, const json_t *user)
{
        const char *name = member_string(user, "name", ""), *admin = admin_group(e->a);
        const json_t *group;
        size_t i;

        if (find_declared(e->users, name) != user || !accounts_has_user(e->a, user, NULL))
                return;
        json_array_foreach (json_object_get(user, "groups"), i, group)
                if (json_is_string(group) && account_name_is_valid(json_string_value(group)))
                        add_member(e, json_string_value(group), name);
        if (admin && json_is_true(json_object_get(user, "root")))
                add_member(e, admin, name);
}

bool accounts_apply(Accounts *a, const json_t *declared, AccountShellFn shell, void *userdata, Problems *p)
{
        Edit e = {
                .a = a,
                .users = json_object_get(declared, "users"),
                .groups = json_object_get(declared, "groups"),
                .shell = shell,
                .userdata = userdata,
                .problems = p,
        };
        const json_t *item;
        bool failed = false;
        size_t i;

        remove_undeclared(&e);
        json_array_foreach ((json_t *) e.groups, i, item)
                apply_group(&e, item);
        json_array_foreach ((json_t *) e.users, i, item)
                apply_user(&e, item);
        remove_memberships(&e);
        json_array_foreach ((json_t *) e.users, i, item)
                apply_memberships(&e, item);
        for (int f = 0; f < _ACCOUNT_FILE_MAX; f++)
                failed |= a->table[f].failed;
        return !failed;
}

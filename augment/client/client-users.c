/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "augment/client/client-users.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "augment/client/client-accounts.h"
#include "augment/client/client-file.h"
#include "augment/client/client-home.h"
#include "augment/client/client-lock.h"
#include "augment/client/util.h"

#define SUDOERS_HEAD "# Written by tbnode-client: users of the node's declaration with \"root\": true.\n"

static const struct {
        const char *name;
        mode_t mode;
} files[] = {
        [ACCOUNT_PASSWD] = {"passwd", 0644},
        [ACCOUNT_GROUP] = {"group", 0644},
        [ACCOUNT_SHADOW] = {"shadow", 0600},
        [ACCOUNT_GSHADOW] = {"gshadow", 0600},
        [ACCOUNT_RECORD] = {ACCOUNTS_RECORD, 0644},
};
_Static_assert(ELEMENTSOF(files) == _ACCOUNT_FILE_MAX, "a name for each account file");

typedef struct Shells {
        const char *root, *path;
        char found[PATH_MAX];
} Shells;

static bool is_program(const char *root, const char *path)
{
        char full[PATH_MAX];
        struct stat st;

        snprintf(full, sizeof(full), "%s%s", root, path);
        return stat(full, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111);
}

void users_find_shell(const char *root, const char *path, const char *shell, char *ret)
{
        char directories[4096];

        if (shell[0] == '/') {
                snprintf(ret, PATH_MAX, "%s", shell);
                if (is_program(root, ret))
                        return;
        } else if (shell[0] && !strchr(shell, '/')) {
                snprintf(directories, sizeof(directories), "%s:%s", path, TBNODE_BIN_DIR);
                for (char *next = directories, *d; (d = strsep(&next, ":"));) {
                        snprintf(ret, PATH_MAX, "%.2000s/%.1000s", d, shell);
                        if (d[0] == '/' && !strchr(d, ':') && is_program(root, ret))
                                return;
                }
        }
        snprintf(ret, PATH_MAX, "%s", is_program(root, "/bin/sh") ? "/bin/sh" : TBNODE_BIN_DIR "/sh");
}

static const char *find_shell(const char *declared, void *userdata)
{
        Shells *s = userdata;

        users_find_shell(s->root, s->path, declared, s->found);
        return s->found;
}

/* ---- Account files -------------------------------------------------------------------------------------------------- */

static int read_accounts(const char *etc, Accounts *ret, Problems *p)
{
        char *texts[_ACCOUNT_FILE_MAX] = {};
        char path[PATH_MAX];
        int r = 0;

        for (int i = 0; r >= 0 && i < _ACCOUNT_FILE_MAX; i++) {
                snprintf(path, sizeof(path), "%.4000s/%s", etc, files[i].name);
                r = image_file_read(path, &texts[i]);
                if (r < 0)
                        problem(p, "%s: %s; no account can be made", path,
                                r == -EINVAL ? "it is no regular file" : strerror(-r));
        }
        if (r >= 0)
                accounts_load(ret, texts);
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++)
                free(texts[i]);
        return r;
}

static bool anything_changed(const Accounts *a)
{
        for (int i = 0; i < _ACCOUNT_FILE_MAX; i++)
                if (a->table[i].changed)
                        return true;
        return false;
}

static gid_t shadow_group(const Accounts *a)
{
        size_t line = table_find(&a->table[ACCOUNT_GROUP], "shadow");
        uint32_t gid;

        return line != TABLE_NONE && table_number(&a->table[ACCOUNT_GROUP], line, 2, &gid) ? gid : 0;
}

static int write_account_file(const char *etc, const Accounts *a, AccountFile i, Problems *p)
{
        bool secret = i == ACCOUNT_SHADOW || i == ACCOUNT_GSHADOW;
        gid_t gid = secret ? shadow_group(a) : 0;
        _cleanup_free_ char *text = NULL;
        char path[PATH_MAX];
        int r;

        if (!a->table[i].changed)
                return 0;
        snprintf(path, sizeof(path), "%.4000s/%s", etc, files[i].name);
        text = table_render(&a->table[i]);
        r = text ? image_file_replace(path, text, gid > 0 ? 0640 : files[i].mode, gid) : -ENOMEM;
        if (r < 0)
                problem(p, "cannot write %s: %s%s", path, strerror(-r),
                        r == -EROFS ? "; accounts need an /etc that can be written" : "");
        return r;
}

/* Who reads a name must find its ids: groups come first, and a passwd line comes with its shadow line already there. The record comes
 * before all of them, so that nothing of ours can be without it. */
static void write_accounts(const char *etc, const Accounts *a, Problems *p)
{
        static const AccountFile order[] = {
                ACCOUNT_RECORD, ACCOUNT_GROUP, ACCOUNT_GSHADOW, ACCOUNT_SHADOW, ACCOUNT_PASSWD};

        for (size_t i = 0; i < ELEMENTSOF(order); i++)
                if (write_account_file(etc, a, order[i], p) < 0)
                        return;
}

static int apply_accounts(const char *root, const json_t *accounts, Shells *shells, Accounts *a, Problems *p)
{
        char etc[PATH_MAX];
        AccountLock lock;
        Problems first = {};
        int r;

        snprintf(etc, sizeof(etc), "%s/etc", root);
        r = read_accounts(etc, a, p);
        if (r < 0)
                return r;
        if (!accounts_apply(a, accounts, find_shell, shells, &first)) {
                problem(p, "accounts: out of memory");
                return -ENOMEM;
        }
        if (!anything_changed(a)) {
                for (unsigned i = 0; i < first.count; i++)
                        problem(p, "%s", first.reason[MIN2(i, PROBLEMS_KEPT - 1U)]);
                return 0;
        }

        /* Again, with nobody else writing. */
        accounts_done(a);
        r = make_dirs(etc);
        if (r >= 0)
                r = account_lock(&lock, etc);
        if (r < 0) {
                problem(p, "%s: %s; accounts can't be made", etc,
                        r == -EBUSY ? "another program holds the lock of the account files" : strerror(-r));
                (void) read_accounts(etc, a, &first);
                return r;
        }
        r = read_accounts(etc, a, p);
        if (r >= 0 && accounts_apply(a, accounts, find_shell, shells, p))
                write_accounts(etc, a, p);
        account_unlock(&lock);
        return r;
}

/* ---- sudo ----------------------------------------------------------------------------------------------------------- */

static void apply_sudo(const char *root, const Accounts *a, const json_t *users, Problems *p)
{
        _cleanup_free_ char *text = NULL, *before = NULL;
        char directory[PATH_MAX], path[PATH_MAX + 16];
        const json_t *user;
        Text t = {};
        bool any = false;
        struct stat st;
        size_t i;
        int r;

        snprintf(directory, sizeof(directory), "%s/etc/sudoers.d", root);
        if (lstat(directory, &st) < 0 || !S_ISDIR(st.st_mode))
                return;
        snprintf(path, sizeof(path), "%s/tbnode", directory);
        text_adds(&t, SUDOERS_HEAD);
        json_array_foreach ((json_t *) users, i, user) {
                const char *name = member_string(user, "name", "");

                if (!json_is_true(json_object_get(user, "root")) || strcmp(name, "root") == 0 ||
                        !accounts_has_user(a, user, NULL))
                        continue;
                any = true;
                text_addf(&t, "%s ALL=(ALL:ALL) NOPASSWD: ALL\n", name);
        }
        text = text_take(&t);
        if (!text || image_file_read(path, &before) < 0)
                return;
        if (before && strncmp(before, SUDOERS_HEAD, strlen(SUDOERS_HEAD)) != 0)
                return; /* the image's own */
        if (!any) {
                if (before && unlink(path) < 0)
                        problem(p, "cannot remove %s: %s", path, strerror(errno));
                return;
        }
        if (before && strcmp(before, text) == 0)
                return;
        /* sudo reads no file with a dot in its name: never half a file. */
        r = image_file_replace(path, text, 0440, 0);
        if (r < 0)
                problem(p, "cannot write %s: %s", path, strerror(-r));
}

/* ---- Keys ----------------------------------------------------------------------------------------------------------- */

static void add_keys(Text *t, const json_t *user)
{
        const json_t *key;
        size_t i;

        json_array_foreach (json_object_get(user, "keys"), i, key)
                if (json_is_string(key) && line_is_clean(json_string_value(key), "", 16384))
                        text_addf(t, "%s\n", json_string_value(key));
}

static void write_keys(const char *directory, const char *name, Text *t, Problems *p)
{
        _cleanup_free_ char *text = text_take(t), *before = NULL;
        char path[PATH_MAX];
        int r;

        snprintf(path, sizeof(path), "%s/%s", directory, name);
        if (!text || (read_text_file(path, IMAGE_FILE_MAX, &before, NULL) >= 0 && strcmp(before, text) == 0))
                return;
        r = write_text_file(path, 0600, text);
        if (r < 0)
                problem(p, "cannot write %s: %s", path, strerror(-r));
}

static bool has_keys(const Accounts *a, const json_t *users, const char *name)
{
        const json_t *user;
        size_t i;

        json_array_foreach ((json_t *) users, i, user) {
                bool is_root = strcmp(name, "root") == 0 && json_is_true(json_object_get(user, "root"));

                if ((is_root || strcmp(member_string(user, "name", ""), name) == 0) &&
                        accounts_has_user(a, user, NULL) &&
                        json_array_size(json_object_get(user, "keys")) > 0)
                        return true;
        }
        return false;
}

/* Who has no keys any more can't log in any more. */
static void remove_keys(const char *directory, const Accounts *a, const json_t *users)
{
        struct dirent *de;
        DIR *dir = opendir(directory);

        if (!dir)
                return;
        while ((de = readdir(dir)))
                if (de->d_name[0] != '.' && !has_keys(a, users, de->d_name))
                        (void) unlinkat(dirfd(dir), de->d_name, 0);
        closedir(dir);
}

static void apply_keys(const char *rundir, const Accounts *a, const json_t *users, Problems *p)
{
        char directory[PATH_MAX];
        const json_t *user;
        Text root = {};
        size_t i;
        int r;

        snprintf(directory, sizeof(directory), "%s/keys", rundir);
        r = make_dir(directory, 0755);
        if (r < 0) {
                problem(p, "cannot make %s: %s", directory, strerror(-r));
                return;
        }
        remove_keys(directory, a, users);
        json_array_foreach ((json_t *) users, i, user) {
                const char *name = member_string(user, "name", "");
                bool is_root = strcmp(name, "root") == 0;

                if (!has_keys(a, users, name) || !accounts_has_user(a, user, NULL))
                        continue;
                if (is_root || json_is_true(json_object_get(user, "root")))
                        add_keys(&root, user);
                if (!is_root) {
                        Text t = {};

                        add_keys(&t, user);
                        write_keys(directory, name, &t, p);
                }
        }
        if (root.size > 0)
                write_keys(directory, "root", &root, p);
        text_done(&root);
}

static void apply_homes(const char *root, const Accounts *a, const json_t *users, Problems *p)
{
        const Table *t = &a->table[ACCOUNT_PASSWD];
        const json_t *user;
        size_t i, line;

        json_array_foreach ((json_t *) users, i, user) {
                _cleanup_free_ char *home = NULL;
                uint32_t uid, gid;
                int r;

                if (!accounts_has_user(a, user, &line) || line == TABLE_NONE ||
                        !table_number(t, line, 2, &uid) || uid == 0 || !table_number(t, line, 3, &gid))
                        continue;
                home = table_field(t, line, 5);
                if (!home || !path_is_clean(home) || strcmp(home, "/") == 0)
                        continue;
                r = home_make(root, home, uid, gid);
                if (r < 0)
                        problem(p, "cannot make the home directory %s: %s", home, strerror(-r));
        }
}

void users_apply(const char *root, const char *rundir, const char *path, const json_t *accounts, Problems *p)
{
        const json_t *users = json_object_get(accounts, "users");
        _cleanup_accounts_ Accounts a = {};
        Shells shells = {.root = root, .path = path};

        /* Also when it failed: what is there already can be used. */
        (void) !apply_accounts(root, accounts, &shells, &a, p);
        apply_homes(root, &a, users, p);
        apply_sudo(root, &a, users, p);
        apply_keys(rundir, &a, users, p);
}

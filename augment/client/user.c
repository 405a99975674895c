/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "augment/client/user.h"
#include "augment/client/util.h"

#define ACCOUNT_FILE_MAX (8U * 1024 * 1024)

/* A piece of a longer text. */
typedef struct Slice {
        const char *p;
        size_t n;
} Slice;

static Slice slice_trim(Slice s)
{
        while (s.n > 0 && isspace((unsigned char) s.p[0])) {
                s.p++;
                s.n--;
        }
        while (s.n > 0 && isspace((unsigned char) s.p[s.n - 1]))
                s.n--;
        return s;
}

static bool slice_is(Slice s, const char *text, size_t n)
{
        return s.n == n && memcmp(s.p, text, n) == 0;
}

/* Takes what is before `end` off *rest; the last piece has no end. */
static bool slice_next(Slice *rest, char end, Slice *ret)
{
        const char *e;

        if (!rest->p)
                return false;
        e = memchr(rest->p, end, rest->n);
        ret->p = rest->p;
        ret->n = e ? (size_t) (e - rest->p) : rest->n;
        rest->n = e ? rest->n - ret->n - 1 : 0;
        rest->p = e ? e + 1 : NULL;
        return true;
}

/* The nth field (from 0) of a line, empty if there are fewer. */
static Slice slice_field(Slice line, unsigned n)
{
        Slice field = {"", 0};

        for (unsigned i = 0; i <= n; i++)
                if (!slice_next(&line, ':', &field))
                        return (Slice){"", 0};
        return field;
}

/* Go's strconv.Atoi: an optional sign and digits. True if it is a number; one that doesn't fit is clamped.
 */
static bool slice_number(Slice s, int64_t *ret)
{
        bool negative = false;
        int64_t v = 0;

        if (s.n > 0 && (s.p[0] == '+' || s.p[0] == '-')) {
                negative = s.p[0] == '-';
                s.p++;
                s.n--;
        }
        if (s.n == 0)
                return false;
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] < '0' || s.p[i] > '9')
                        return false;
                if (v <= INT32_MAX)
                        v = v * 10 + (s.p[i] - '0');
        }
        *ret = negative ? -v : v;
        return true;
}

/* A number out of an account file: 0 if it is none, as moby has it. */
static int64_t field_number(Slice line, unsigned n)
{
        int64_t v = 0;

        (void) slice_number(slice_field(line, n), &v);
        return v;
}

static bool next_line(Slice *rest, Slice *ret)
{
        Slice line;

        while (slice_next(rest, '\n', &line)) {
                line = slice_trim(line);
                if (line.n > 0) {
                        *ret = line;
                        return true;
                }
        }
        return false;
}

static Slice text_slice(const char *text)
{
        return (Slice){text, text ? strlen(text) : 0};
}

static bool lists_name(Slice list, Slice name)
{
        Slice entry;

        while (slice_next(&list, ',', &entry))
                if (slice_is(entry, name.p, name.n))
                        return true;
        return false;
}

static int range_error(char *why, size_t why_size)
{
        snprintf(why, why_size, "uids and gids must be in range 0-%d", INT32_MAX);
        return -ERANGE;
}

/* First line of passwd that is the wanted user. */
static bool find_user(const char *passwd, Slice user, bool is_number, int64_t number, Slice *ret)
{
        Slice rest = text_slice(passwd), line;

        while (next_line(&rest, &line)) {
                Slice name = slice_field(line, 0);

                if (is_number ? field_number(line, 2) == number : slice_is(name, user.p, user.n)) {
                        *ret = line;
                        return true;
                }
        }
        return false;
}

static int resolve_group(Slice wanted, const char *group, int64_t *ret_gid, char *why, size_t why_size)
{
        Slice rest = text_slice(group), line;
        int64_t number;
        bool is_number;

        is_number = slice_number(wanted, &number);
        while (next_line(&rest, &line)) {
                if (is_number ? field_number(line, 2) == number
                              : slice_is(slice_field(line, 0), wanted.p, wanted.n)) {
                        *ret_gid = field_number(line, 2);
                        return 0;
                }
        }
        if (!is_number) {
                snprintf(why, why_size, "unable to find group %.*s: no matching entries in group file",
                        (int) MIN2(wanted.n, (size_t) 256), wanted.p);
                return -ENOENT;
        }
        if (number < 0 || number > INT32_MAX)
                return range_error(why, why_size);
        *ret_gid = number;
        return 0;
}

/* One that is out of range stays so: user_groups() refuses it. */
static gid_t group_of_line(Slice line)
{
        int64_t v = field_number(line, 2);

        return v < 0 || v > INT32_MAX ? (gid_t) -1 : (gid_t) v;
}

static void collect_groups(const char *group, Slice name, gid_t gid, UserIds *ids)
{
        Slice rest = text_slice(group), line;

        while (ids->n_groups < USER_GROUPS_MAX && next_line(&rest, &line)) {
                gid_t g = group_of_line(line);

                if (g != gid && lists_name(slice_field(line, 3), name))
                        ids->groups[ids->n_groups++] = g;
        }
}

int user_resolve(
        const char *spec, const char *passwd, const char *group, UserIds *ret, char *why, size_t why_size)
{
        Slice user = slice_field(text_slice(spec), 0), wanted = slice_field(text_slice(spec), 1);
        Slice line = {"", 0}, name = {"", 0};
        int64_t uid = 0, gid = 0;
        bool is_number, found;
        int r;

        /* No user named (":group" or nothing): root, who is how the container starts. */
        is_number = user.n == 0 || slice_number(user, &uid);
        found = find_user(passwd, user, is_number, uid, &line);
        if (found) {
                name = slice_field(line, 0);
                uid = field_number(line, 2);
                gid = field_number(line, 3);
        } else if (!is_number) {
                snprintf(why, why_size, "unable to find user %.*s: no matching entries in passwd file",
                        (int) MIN2(user.n, (size_t) 256), user.p);
                return -ENOENT;
        }

        if (wanted.n > 0) {
                r = resolve_group(wanted, group, &gid, why, why_size);
                if (r < 0)
                        return r;
        }
        if (uid < 0 || uid > INT32_MAX || gid < 0 || gid > INT32_MAX)
                return range_error(why, why_size);

        *ret = (UserIds){.uid = (uid_t) uid, .gid = (gid_t) gid};
        if (wanted.n == 0 && name.n > 0)
                collect_groups(group, name, ret->gid, ret);
        return 0;
}

char *user_home(const char *passwd, uid_t uid)
{
        Slice line, home = {"/", 1};

        if (find_user(passwd, home, true, uid, &line))
                home = slice_field(line, 5);
        return strndup(home.p, home.n);
}

static bool has_group(const gid_t *groups, size_t n, gid_t gid)
{
        for (size_t i = 0; i < n; i++)
                if (groups[i] == gid)
                        return true;
        return false;
}

static bool same_groups(const gid_t *a, size_t n_a, const gid_t *b, size_t n_b)
{
        for (size_t i = 0; i < n_a; i++)
                if (!has_group(b, n_b, a[i]))
                        return false;
        for (size_t i = 0; i < n_b; i++)
                if (!has_group(a, n_a, b[i]))
                        return false;
        return true;
}

/* A number that the engine gave to the runtime, as GetAdditionalGroups() reads it: the first group with this
 * number or with this number for a name, unless that one is in the list already; else the number itself. */
static gid_t look_up_group(const char *group, gid_t gid, const gid_t *have, size_t n_have)
{
        Slice rest = text_slice(group), line;
        char name[16];
        size_t n;

        n = (size_t) snprintf(name, sizeof(name), "%u", (unsigned) gid);
        while (next_line(&rest, &line)) {
                gid_t g = group_of_line(line);

                if ((g == gid || slice_is(slice_field(line, 0), name, n)) && !has_group(have, n_have, g))
                        return g;
        }
        return gid;
}

int user_groups(const UserIds *ids, const char *group, gid_t *ret, size_t *ret_n, char *why, size_t why_size)
{
        size_t n = 0;

        for (size_t i = 0; i <= ids->n_groups; i++) {
                gid_t g = look_up_group(group, i == 0 ? ids->gid : ids->groups[i - 1], ret, n);

                if (g > INT32_MAX)
                        return range_error(why, why_size);
                if (!has_group(ret, n, g))
                        ret[n++] = g;
        }
        *ret_n = n;
        return 0;
}

/* runc's fixStdioPermissions(): pipes and terminals given to root can't be opened again through
 * /proc/self/fd by others. /dev/null is everybody's already. Failing is fine: not every file can change
 * hands. */
static void give_stdio(uid_t uid)
{
        struct stat null = {}, st;

        (void) stat("/dev/null", &null);
        for (int fd = 0; fd <= 2; fd++) {
                if (fstat(fd, &st) < 0 || st.st_uid == uid ||
                        (S_ISCHR(st.st_mode) && st.st_rdev == null.st_rdev))
                        continue;
                if (fchown(fd, uid, (gid_t) -1) < 0)
                        continue;
        }
}

/* Changes to these ids, their groups, and those groups that this container was given on top of root's. */
static int apply_ids(const UserIds *ids, const UserIds *root, const char *group, const char *spec)
{
        static gid_t have[2 * USER_GROUPS_MAX], roots[USER_LIST_MAX], want[3 * USER_GROUPS_MAX];
        size_t n_want, n_roots = 0;
        char why[128];
        int n_have;

        if (user_groups(ids, group, want, &n_want, why, sizeof(why)) < 0) {
                say("unable to setup user: %s", why);
                return EXIT_INIT_FAILED;
        }
        /* Where root's own can't be told, there are none: the container would not run. */
        (void) !user_groups(root, group, roots, &n_roots, why, sizeof(why));
        n_have = getgroups(ELEMENTSOF(have), have);
        if (n_have < 0)
                n_have = 0;
        for (int i = 0; i < n_have && n_want < ELEMENTSOF(want); i++)
                if (!has_group(roots, n_roots, have[i]) && !has_group(want, n_want, have[i]))
                        want[n_want++] = have[i];

        if (ids->uid != getuid())
                give_stdio(ids->uid);
        if (!same_groups(have, (size_t) n_have, want, n_want) && setgroups(n_want, want) < 0) {
                /* root:root as it is, in a container without CAP_SETGID: nothing that root could lose */
                if (errno != EPERM || ids->uid != 0)
                        goto fail;
        }
        if ((ids->gid != getgid() || ids->gid != getegid()) && setgid(ids->gid) < 0)
                goto fail;
        if ((ids->uid != getuid() || ids->uid != geteuid()) && setuid(ids->uid) < 0)
                goto fail;
        return 0;

fail:
        say("cannot become user %s: %s; does the container lack CAP_SETUID or CAP_SETGID?", spec,
                strerror(errno));
        return EXIT_INIT_FAILED;
}

int user_become(const char *spec, bool keep_home, const char *home, char **ret_home)
{
        static UserIds ids, root;
        char *passwd = NULL, *group = NULL, *root_home = NULL;
        char why[512] = "";
        int r;

        *ret_home = NULL;
        if (geteuid() != 0)
                return 0;

        /* Absent and unreadable files are the same to moby: no lines. */
        (void) !read_text_file("/etc/passwd", ACCOUNT_FILE_MAX, &passwd, NULL);
        (void) !read_text_file("/etc/group", ACCOUNT_FILE_MAX, &group, NULL);

        r = user_resolve(spec, passwd, group, &ids, why, sizeof(why));
        if (r < 0) {
                say("%s", why);
                r = EXIT_INIT_FAILED;
                goto out;
        }
        if (user_resolve("", passwd, group, &root, why, sizeof(why)) < 0)
                root = (UserIds){};

        root_home = user_home(passwd, 0);
        if (!keep_home && root_home && (!home || !*home || strcmp(home, root_home) == 0)) {
                *ret_home = user_home(passwd, ids.uid);
                if (!*ret_home) {
                        say("out of memory");
                        r = EXIT_INIT_FAILED;
                        goto out;
                }
        }
        r = apply_ids(&ids, &root, group, spec);
out:
        free(passwd);
        free(group);
        free(root_home);
        return r;
}

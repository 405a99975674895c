/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Every rule is a function on one value and its path; objects and lists are tables of such functions. A path grows
 * on the way down ("accounts.users[2].uid"), so that a message says where without anybody counting.
 */

#include "agent/declaration.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/strv.h"
#include "common/units.h"

#define PLACE_MAX 160
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"
#define ID_MAX UINT64_C(4294967294) /* (uid_t) -1 is nobody's */

typedef int (*CheckFn)(const json_t *v, const char *place, TbError **err);

typedef struct Member {
        const char *name;
        CheckFn check;
        bool required;
} Member;

static int refuse(const char *place, TbError **err, const char *fmt, ...) _printf_(3, 4);
static int refuse(const char *place, TbError **err, const char *fmt, ...)
{
        char text[400];
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(text, sizeof(text), fmt, ap);
        va_end(ap);
        return tb_error_set(
                err, TB_ERROR_CONFIG, -EINVAL, "declaration%s%s: %s", place[0] ? ": " : "", place, text);
}

static int refuse_value(const char *place, const char *value, const char *expected, TbError **err)
{
        _cleanup_free_ char *shown = tb_escape(value, 80);

        return refuse(place, err, "'%s' is not %s", shown ?: "", expected);
}

static void inside(char ret[static PLACE_MAX], const char *place, const char *name)
{
        _cleanup_free_ char *shown = tb_escape(name, 40);

        (void) snprintf(ret, PLACE_MAX, "%s%s%s", place, place[0] ? "." : "", shown ?: "");
}

static int check_object(const json_t *v, const char *place, const Member *members, TbError **err)
{
        const char *key;
        json_t *value;

        if (!json_is_object(v))
                return refuse(place, err, "expected an object");
        json_object_foreach ((json_t *) v, key, value) {
                const Member *m = members;
                char at[PLACE_MAX];
                int r;

                inside(at, place, key);
                while (m->name && !tb_streq(m->name, key))
                        m++;
                if (!m->name)
                        return refuse(at, err, "there is no such member");
                r = m->check(value, at, err);
                if (r < 0)
                        return r;
        }
        for (const Member *m = members; m->name; m++)
                if (m->required && !json_object_get(v, m->name))
                        return refuse(place, err, "'%s' is missing", m->name);
        return 0;
}

/* `unique`: the member that no two entries may have in common; NULL = none. */
static int check_list(
        const json_t *v, const char *place, size_t max, CheckFn check, const char *unique, TbError **err)
{
        _cleanup_json_ json_t *seen = json_object();
        const json_t *item;
        size_t i;

        if (!seen)
                return tb_error_oom(err);
        if (!json_is_array(v))
                return refuse(place, err, "expected a list");
        if (json_array_size(v) > max)
                return refuse(place, err, "it has %zu entries, more than %zu", json_array_size(v), max);
        json_array_foreach ((json_t *) v, i, item) {
                const json_t *key = unique ? json_object_get(item, unique) : NULL;
                char at[PLACE_MAX], number[24];
                const char *text = json_string_value(key);
                int r;

                (void) snprintf(at, sizeof(at), "%s[%zu]", place, i);
                r = check(item, at, err);
                if (r < 0)
                        return r;
                if (!key)
                        continue;
                if (!text) {
                        (void) snprintf(number, sizeof(number), "%lld", (long long) json_integer_value(key));
                        text = number;
                }
                if (json_object_get(seen, text))
                        return refuse(at, err, "there are two entries with this %s", unique);
                if (json_object_set_new(seen, text, json_true()) < 0)
                        return tb_error_oom(err);
        }
        return 0;
}

/* Text of one line: no control characters, so that it can stand in a file or an answer line by line. */
static int check_line(const json_t *v, const char *place, size_t max, TbError **err)
{
        const char *s = json_string_value(v);

        if (!s)
                return refuse(place, err, "expected a string");
        if (s[0] == 0)
                return refuse(place, err, "it is empty");
        if (strlen(s) > max)
                return refuse(place, err, "it has %zu bytes, more than %zu", strlen(s), max);
        for (const char *p = s; *p; p++)
                if (((unsigned char) *p < 0x20 && *p != '\t') || *p == 0x7f)
                        return refuse(place, err, "control characters and line breaks are not allowed");
        return 0;
}

static int check_range(const json_t *v, const char *place, uint64_t max, TbError **err)
{
        if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t) json_integer_value(v) > max)
                return refuse(place, err, "expected a number between 0 and %llu", (unsigned long long) max);
        return 0;
}

static int check_bool(const json_t *v, const char *place, TbError **err)
{
        return json_is_boolean(v) ? 0 : refuse(place, err, "expected true or false");
}

static bool has_only(const char *s, const char *allowed)
{
        return s[strspn(s, allowed)] == 0;
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

bool declaration_user_name_is_valid(const char *s)
{
        size_t n = strlen(s);

        if (n == 0 || n > 32 || !strchr(LETTERS "_", s[0]))
                return false;
        n = strspn(s, LETTERS DIGITS "_.-");
        return s[n] == 0 || (s[n] == '$' && s[n + 1] == 0);
}

bool declaration_program_name_is_valid(const char *s)
{
        return s[0] != 0 && strlen(s) <= 64 && has_only(s, LETTERS DIGITS "_.-");
}

static int check_user_name(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);

        if (!s)
                return refuse(place, err, "expected a string");
        return declaration_user_name_is_valid(s)
                ? 0
                : refuse_value(place, s,
                          "a user's or group's name (letters, digits, '_', '.', '-'; at most 32)", err);
}

static int check_program_name(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);

        if (!s)
                return refuse(place, err, "expected a string");
        return declaration_program_name_is_valid(s)
                ? 0
                : refuse_value(
                          place, s, "a program's name (letters, digits, '_', '.', '-'; at most 64)", err);
}

/* RFC 1123, 2.1: labels of letters, digits and '-'; '_' is tolerated, because names of nodes may have it. */
static int check_host_name(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);

        if (!s)
                return refuse(place, err, "expected a string");
        if (s[0] == 0 || strlen(s) > 253 || !has_only(s, LETTERS DIGITS "_.-") || s[0] == '-' ||
                s[0] == '.' || strstr(s, "..") || s[strlen(s) - 1] == '.')
                return refuse_value(place, s, "a host name", err);
        return 0;
}

/* Absolute, without "." and "..", without a colon (which separates fields of passwd). */
static int check_path(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);
        int r;

        r = check_line(v, place, 512, err);
        if (r < 0)
                return r;
        if (s[0] != '/')
                return refuse_value(place, s, "an absolute path", err);
        if (strchr(s, ':'))
                return refuse_value(place, s, "a path without colons", err);
        for (const char *p = s; p; p = strchr(p + 1, '/')) {
                size_t n = strcspn(p + 1, "/");

                if ((n == 1 && p[1] == '.') || (n == 2 && p[1] == '.' && p[2] == '.'))
                        return refuse_value(place, s, "a path without '.' and '..'", err);
        }
        return 0;
}

/* ---- Accounts --------------------------------------------------------------------------------------------------- */

static int check_id(const json_t *v, const char *place, TbError **err)
{
        return check_range(v, place, ID_MAX, err);
}

static int check_group(const json_t *v, const char *place, TbError **err)
{
        static const Member members[] = {{"name", check_user_name, true}, {"gid", check_id, true}, {}};

        return check_object(v, place, members, err);
}

static int check_group_names(const json_t *v, const char *place, TbError **err)
{
        return check_list(v, place, 64, check_user_name, NULL, err);
}

static int check_full_name(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);
        int r;

        if (s && s[0] == 0)
                return 0;
        r = check_line(v, place, 128, err);
        if (r >= 0 && strpbrk(s, ":\""))
                r = refuse(place, err, "colons and quotes are not allowed in a user's full name");
        return r;
}

static int check_shell(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);

        if (s && s[0] == '/')
                return check_path(v, place, err);
        if (!s || s[0] == 0 || strlen(s) > 64 || !has_only(s, LETTERS DIGITS "_.+-"))
                return refuse(place, err, "expected a path or the name of a shell");
        return 0;
}

/* crypt(5): printable, without colon, space, '!' and '*' at the start being locks; a quote would end a TMCD field. */
static int check_hash(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);

        if (!s || s[0] == 0 || strlen(s) > 384)
                return refuse(
                        place, err, "expected a password hash of at most 384 bytes (crypt(5)), or \"*\"");
        if (!has_only(s, LETTERS DIGITS "./$*!=,+_-@%"))
                return refuse(place, err, "that is no password hash as crypt(5) writes it");
        return 0;
}

static int check_key(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);
        int r;

        r = check_line(v, place, 16384, err);
        if (r < 0)
                return r;
        if (strstr(s, "PRIVATE KEY"))
                return refuse(place, err, "that is a private key");
        if (!strstr(s, "ssh-") && !strstr(s, "ecdsa-") && !strstr(s, "sk-"))
                return refuse(place, err, "that is no line of authorized_keys");
        return 0;
}

static int check_keys(const json_t *v, const char *place, TbError **err)
{
        return check_list(v, place, DECLARATION_KEYS_MAX, check_key, NULL, err);
}

static int check_user(const json_t *v, const char *place, TbError **err)
{
        static const Member members[] = {
                {"name", check_user_name, true},
                {"uid", check_id, true},
                {"gid", check_id, true},
                {"groups", check_group_names, false},
                {"root", check_bool, false},
                {"full_name", check_full_name, false},
                {"home", check_path, false},
                {"shell", check_shell, false},
                {"password_hash", check_hash, false},
                {"keys", check_keys, false},
                {},
        };
        int r;

        r = check_object(v, place, members, err);
        if (r >= 0 && json_integer_value(json_object_get(v, "uid")) == 0 &&
                !tb_streq(json_string_value(json_object_get(v, "name")), "root"))
                r = refuse(place, err, "uid 0 is root's; to let a user become root, declare \"root\": true");
        return r;
}

static int check_groups(const json_t *v, const char *place, TbError **err)
{
        int r;

        r = check_list(v, place, DECLARATION_GROUPS_MAX, check_group, "name", err);
        return r < 0 ? r : check_list(v, place, DECLARATION_GROUPS_MAX, check_group, "gid", err);
}

static int check_users(const json_t *v, const char *place, TbError **err)
{
        int r;

        r = check_list(v, place, DECLARATION_USERS_MAX, check_user, "name", err);
        return r < 0 ? r : check_list(v, place, DECLARATION_USERS_MAX, check_user, "uid", err);
}

static int check_accounts(const json_t *v, const char *place, TbError **err)
{
        static const Member members[] = {{"groups", check_groups, false}, {"users", check_users, false}, {}};

        return check_object(v, place, members, err);
}

/* ---- Network ----------------------------------------------------------------------------------------------------- */

static int check_address(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);
        unsigned char bytes[sizeof(struct in6_addr)];

        if (!s)
                return refuse(place, err, "expected a string");
        return inet_pton(AF_INET, s, bytes) == 1 || inet_pton(AF_INET6, s, bytes) == 1
                ? 0
                : refuse_value(place, s, "an IP address", err);
}

static int check_address4(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v);
        struct in_addr a;

        if (!s)
                return refuse(place, err, "expected a string");
        return inet_pton(AF_INET, s, &a) == 1 && a.s_addr != 0
                ? 0
                : refuse_value(place, s, "an IPv4 address", err);
}

static int check_aliases(const json_t *v, const char *place, TbError **err)
{
        return check_list(v, place, DECLARATION_ALIASES_MAX, check_host_name, NULL, err);
}

static int check_host(const json_t *v, const char *place, TbError **err)
{
        static const Member members[] = {{"name", check_host_name, true}, {"address", check_address, true},
                {"aliases", check_aliases, false}, {}};

        return check_object(v, place, members, err);
}

static int check_hosts(const json_t *v, const char *place, TbError **err)
{
        return check_list(v, place, DECLARATION_HOSTS_MAX, check_host, NULL, err);
}

static int check_destination(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v), *slash = s ? strchr(s, '/') : NULL;
        char address[INET_ADDRSTRLEN];
        struct in_addr in;
        uint32_t bits;

        if (!s)
                return refuse(place, err, "expected a string");
        if (!slash || (size_t) (slash - s) >= sizeof(address))
                return refuse_value(place, s, "an IPv4 network like 10.1.2.0/24", err);
        memcpy(address, s, (size_t) (slash - s));
        address[slash - s] = 0;
        if (inet_pton(AF_INET, address, &in) != 1 || tb_parse_u32(slash + 1, 0, 32, &bits, NULL) < 0)
                return refuse_value(place, s, "an IPv4 network like 10.1.2.0/24", err);
        if (bits == 0)
                return refuse(place, err,
                        "the default route leads through the control network and can't be declared");
        if (bits < 32 && (ntohl(in.s_addr) & (UINT32_MAX >> bits)))
                return refuse_value(place, s, "a network: bits of the host part are set", err);
        return 0;
}

static int check_route(const json_t *v, const char *place, TbError **err)
{
        static const Member members[] = {{"to", check_destination, true}, {"via", check_address4, true}, {}};

        return check_object(v, place, members, err);
}

static int check_routes(const json_t *v, const char *place, TbError **err)
{
        return check_list(v, place, DECLARATION_ROUTES_MAX, check_route, "to", err);
}

/* ---- Mounts ------------------------------------------------------------------------------------------------------ */

static int check_target(const json_t *v, const char *place, TbError **err)
{
        const char *s = json_string_value(v), *rest;
        int r;

        r = check_path(v, place, err);
        if (r < 0)
                return r;
        if (s[strspn(s, "/")] == 0)
                return refuse(place, err, "the node's root can't be mounted over");
        rest = tb_startswith(s, "/tbnode");
        if (rest && (rest[0] == 0 || rest[0] == '/'))
                return refuse(place, err, "/tbnode is the testbed's own");
        return 0;
}

static int check_mount(const json_t *v, const char *place, TbError **err)
{
        static const Member members[] = {{"source", check_path, true}, {"target", check_target, true},
                {"read_only", check_bool, false}, {}};

        return check_object(v, place, members, err);
}

static int check_mounts(const json_t *v, const char *place, TbError **err)
{
        return check_list(v, place, DECLARATION_MOUNTS_MAX, check_mount, "target", err);
}

/* ---- What runs --------------------------------------------------------------------------------------------------- */

static int check_command(const json_t *v, const char *place, TbError **err)
{
        return check_line(v, place, DECLARATION_COMMAND_MAX, err);
}

static int check_startup(const json_t *v, const char *place, TbError **err)
{
        static const Member members[] = {
                {"command", check_command, true}, {"user", check_user_name, false}, {}};

        return check_object(v, place, members, err);
}

static int check_seconds(const json_t *v, const char *place, TbError **err)
{
        return check_range(v, place, UINT64_C(365) * 86400, err);
}

static int check_exit_code(const json_t *v, const char *place, TbError **err)
{
        return check_range(v, place, 255, err);
}

static int check_program(const json_t *v, const char *place, TbError **err)
{
        static const Member members[] = {
                {"name", check_program_name, true},
                {"command", check_command, true},
                {"user", check_user_name, false},
                {"directory", check_path, false},
                {"timeout", check_seconds, false},
                {"expected_exit_code", check_exit_code, false},
                {},
        };

        return check_object(v, place, members, err);
}

static int check_programs(const json_t *v, const char *place, TbError **err)
{
        return check_list(v, place, DECLARATION_PROGRAMS_MAX, check_program, "name", err);
}

static int check_environment(const json_t *v, const char *place, TbError **err)
{
        const char *key;
        json_t *value;

        if (!json_is_object(v))
                return refuse(place, err, "expected an object");
        if (json_object_size(v) > DECLARATION_ENVIRONMENT_MAX)
                return refuse(place, err, "it has more than %u entries", DECLARATION_ENVIRONMENT_MAX);
        json_object_foreach ((json_t *) v, key, value) {
                char at[PLACE_MAX];
                int r;

                inside(at, place, key);
                if (key[0] == 0 || strchr(DIGITS, key[0]) || strlen(key) > 128 ||
                        !has_only(key, LETTERS DIGITS "_"))
                        return refuse(at, err, "that is no name of an environment variable");
                if (json_is_string(value) && json_string_length(value) == 0)
                        continue;
                r = check_line(value, at, 4096, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int declaration_check(const json_t *j, json_t **ret, TbError **err)
{
        static const Member members[] = {
                {"accounts", check_accounts, false},
                {"hosts", check_hosts, false},
                {"routes", check_routes, false},
                {"mounts", check_mounts, false},
                {"startup", check_startup, false},
                {"programs", check_programs, false},
                {"environment", check_environment, false},
                {"creator", check_user_name, false},
                {"swapper", check_user_name, false},
                {"project", check_user_name, false},
                {},
        };
        _cleanup_free_ char *text = NULL;
        size_t size;
        int r;

        r = check_object(j, "", members, err);
        if (r >= 0)
                r = tb_json_dump(j, false, &text, &size, err);
        if (r < 0)
                return r;
        if (size > DECLARATION_MAX)
                return refuse("", err, "it has %zu bytes, more than %u", size, DECLARATION_MAX);
        *ret = json_deep_copy(j);
        return *ret ? 0 : tb_error_oom(err);
}

/* ---- Questions --------------------------------------------------------------------------------------------------- */

bool declaration_needs_client(const json_t *d)
{
        const char *key;
        json_t *value;

        json_object_foreach ((json_t *) d, key, value)
                if (!tb_streq(key, "mounts") && !tb_streq(key, "routes"))
                        return true;
        return false;
}

bool declaration_same_mounts(const json_t *a, const json_t *b)
{
        const json_t *x = json_object_get(a, "mounts"), *y = json_object_get(b, "mounts");

        if (json_array_size(x) == 0 && json_array_size(y) == 0)
                return true;
        return x && y && json_equal(x, y);
}

int declaration_check_sources(const json_t *d, TbError **err)
{
        const json_t *mount;
        size_t i;

        json_array_foreach (json_object_get(d, "mounts"), i, mount) {
                const char *source = json_string_value(json_object_get(mount, "source"));
                char place[PLACE_MAX];
                struct stat st;

                (void) snprintf(place, sizeof(place), "mounts[%zu].source", i);
                if (stat(source, &st) < 0)
                        return refuse(place, err, "there is no %s on this host (%s); make it first", source,
                                strerror(errno));
                if (!S_ISDIR(st.st_mode))
                        return refuse(place, err, "%s is no directory", source);
        }
        return 0;
}

json_t *declaration_public_accounts(const json_t *accounts)
{
        _cleanup_json_ json_t *copy = json_deep_copy(accounts);
        json_t *user;
        size_t i;

        json_array_foreach (json_object_get(copy, "users"), i, user) {
                (void) json_object_del(user, "password_hash");
                (void) json_object_del(user, "keys");
        }
        return TAKE_PTR(copy);
}

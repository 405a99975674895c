/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Answers of TMCD: what a client parses with patterns written twenty years ago, so every blank and quote counts. */

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "agent/tmcd.h"
#include "common/cleanup.h"
#include "common/strv.h"
#include "common/units.h"

#define VERSION_FSTYPE 32U /* `mounts` says what kind of file service there is */

static const char *text(const json_t *j, const char *key, const char *otherwise)
{
        return json_string_value(json_object_get(j, key)) ?: otherwise;
}

static long long number(const json_t *j, const char *key)
{
        return (long long) json_integer_value(json_object_get(j, key));
}

static const char *mask_text(unsigned prefix, char buf[static INET_ADDRSTRLEN])
{
        struct in_addr mask = {.s_addr = prefix == 0 ? 0 : htonl(UINT32_MAX << (32 - prefix))};

        return inet_ntop(AF_INET, &mask, buf, INET_ADDRSTRLEN);
}

static int print_nodeid(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        return tb_buffer_printf(out, err, "%s\n", text(f->view, "node", ""));
}

/* A node without an experiment is one of its own. */
static int print_status(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const char *node = text(f->view, "node", "");

        return tb_buffer_printf(out, err, "ALLOCATED=%s/%s NICKNAME=%s\n",
                text(f->view, "project", "tbnode"), text(f->view, "experiment", node), node);
}

static int print_ifconfig(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const json_t *i;
        size_t k;

        json_array_foreach (json_object_get(f->view, "interfaces"), k, i) {
                char mask[INET_ADDRSTRLEN], mac[13];
                size_t n = 0;
                int r;

                for (const char *p = text(i, "mac", ""); *p && n < 12; p++)
                        if (*p != ':')
                                mac[n++] = *p;
                mac[n] = 0;
                r = tb_buffer_printf(out, err,
                        "INTERFACE IFACETYPE=any INET=%s MASK=%s MAC=%s SPEED=10000Mbps DUPLEX=full IFACE= "
                        "RTABID= "
                        "LAN=%s\n",
                        text(i, "address", ""), mask_text((unsigned) number(i, "prefix"), mask), mac,
                        text(i, "network", ""));
                if (r < 0)
                        return r;
        }
        return 0;
}

/* GLIST: the declared groups' numbers; of a group that only the image knows, there is none. */
static int print_group_list(const json_t *groups, const json_t *user, TbBuffer *out, TbError **err)
{
        const json_t *name, *group;
        const char *comma = "";
        size_t i, k;

        json_array_foreach (json_object_get(user, "groups"), i, name)
                json_array_foreach ((json_t *) groups, k, group) {
                        int r;

                        if (!tb_streq(text(group, "name", NULL), json_string_value(name)))
                                continue;
                        r = tb_buffer_printf(out, err, "%s%lld", comma, number(group, "gid"));
                        if (r < 0)
                                return r;
                        comma = ",";
                }
        return 0;
}

static int print_user(const json_t *groups, const json_t *user, TbBuffer *out, TbError **err)
{
        const char *name = text(user, "name", ""), *shell = text(user, "shell", "sh"),
                   *slash = strrchr(shell, '/');
        _cleanup_free_ char *home = tb_asprintf("/home/%s", name);
        const json_t *key;
        size_t i;
        int r;

        if (!home)
                return tb_error_oom(err);
        r = tb_buffer_printf(out, err,
                "ADDUSER LOGIN=%s PSWD=%s UID=%lld GID=%lld ROOT=%d NAME=\"%s\" HOMEDIR=%s GLIST=\"", name,
                text(user, "password_hash", "*"), number(user, "uid"), number(user, "gid"),
                json_is_true(json_object_get(user, "root")), text(user, "full_name", name),
                text(user, "home", tb_streq(name, "root") ? "/root" : home));
        if (r >= 0)
                r = print_group_list(groups, user, out, err);
        if (r >= 0)
                r = tb_buffer_printf(
                        out, err, "\" SERIAL=1 EMAIL=\"\" SHELL=%s\n", slash ? slash + 1 : shell);
        if (r < 0)
                return r;
        json_array_foreach (json_object_get(user, "keys"), i, key) {
                r = tb_buffer_printf(out, err, "PUBKEY LOGIN=%s KEY=\"%s\"\n", name, json_string_value(key));
                if (r < 0)
                        return r;
        }
        return 0;
}

static int print_accounts(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const json_t *accounts = json_object_get(f->view, "accounts"),
                     *groups = json_object_get(accounts, "groups"), *j;
        size_t i;
        int r;

        json_array_foreach ((json_t *) groups, i, j) {
                r = tb_buffer_printf(
                        out, err, "ADDGROUP NAME=%s GID=%lld\n", text(j, "name", ""), number(j, "gid"));
                if (r < 0)
                        return r;
        }
        json_array_foreach (json_object_get(accounts, "users"), i, j) {
                r = print_user(groups, j, out, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int print_hostnames(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const json_t *host, *alias;
        size_t i, k;
        int r;

        json_array_foreach (json_object_get(f->view, "hosts"), i, host) {
                r = tb_buffer_printf(out, err, "NAME=%s IP=%s ALIASES='", text(host, "name", ""),
                        text(host, "address", ""));
                json_array_foreach (json_object_get(host, "aliases"), k, alias)
                        if (r >= 0)
                                r = tb_buffer_printf(
                                        out, err, "%s%s", k > 0 ? " " : "", json_string_value(alias));
                if (r >= 0)
                        r = tb_buffer_append_str(out, "'\n", err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* The node's own address on the network that a route's next hop is on; "" when it has none there. */
static const char *source_for(const TmcdFacts *f, const char *via)
{
        const json_t *i;
        struct in_addr hop, own;
        size_t k;

        if (inet_pton(AF_INET, via, &hop) != 1)
                return "";
        json_array_foreach (json_object_get(f->view, "interfaces"), k, i) {
                const char *address = text(i, "address", "");
                unsigned prefix = (unsigned) number(i, "prefix");
                uint32_t mask = prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);

                if (inet_pton(AF_INET, address, &own) == 1 &&
                        ((ntohl(own.s_addr) ^ ntohl(hop.s_addr)) & mask) == 0)
                        return address;
        }
        return "";
}

static int print_routing(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const json_t *routes = json_object_get(f->view, "routes"), *route;
        size_t i;
        int r;

        r = tb_buffer_printf(out, err, "ROUTERTYPE=%s\n", json_array_size(routes) > 0 ? "static" : "none");
        if (r < 0)
                return r;
        json_array_foreach ((json_t *) routes, i, route) {
                const char *to = text(route, "to", ""), *via = text(route, "via", ""),
                           *slash = strchr(to, '/');
                char mask[INET_ADDRSTRLEN];
                uint32_t prefix = 32;

                if (!slash || tb_parse_u32(slash + 1, 0, 32, &prefix, NULL) < 0)
                        continue;
                r = tb_buffer_printf(out, err,
                        "ROUTE DEST=%.*s DESTTYPE=%s DESTMASK=%s NEXTHOP=%s COST=1 SRC=%s\n",
                        (int) (slash - to), to, prefix == 32 ? "host" : "net", mask_text(prefix, mask), via,
                        source_for(f, via));
                if (r < 0)
                        return r;
        }
        return 0;
}

/* LOCAL: what is listed is there already, nothing is to be fetched from a file server. */
static int print_mounts(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const json_t *mount;
        size_t i;
        int r = 0;

        if (version >= VERSION_FSTYPE)
                r = tb_buffer_append_str(out, "FSTYPE=LOCAL\n", err);
        json_array_foreach (json_object_get(f->view, "mounts"), i, mount)
                if (r >= 0)
                        r = tb_buffer_printf(out, err, "REMOTE=%s:%s LOCAL=%s\n", f->host,
                                text(mount, "source", ""), text(mount, "target", ""));
        return r;
}

static int print_startupcmd(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const json_t *startup = json_object_get(f->view, "startup");

        return startup
                ? tb_buffer_printf(out, err, "CMD='%s' UID=%s\n", text(startup, "command", ""),
                          text(startup, "user", text(f->view, "swapper", text(f->view, "creator", "root"))))
                : 0;
}

static int print_readycount(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        return tb_buffer_printf(out, err, "READY=%u TOTAL=%u\n", f->ready, f->total);
}

static int print_creator(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const char *creator = text(f->view, "creator", text(f->view, "swapper", NULL));

        return creator ? tb_buffer_printf(out, err, "CREATOR=%s SWAPPER=%s\n", creator,
                                 text(f->view, "swapper", creator))
                       : 0;
}

static int print_update(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        return tb_buffer_append_str(out, "UPDATE=0\n", err);
}

static int print_programs(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        const json_t *programs = json_object_get(f->view, "programs"), *p;
        size_t i;
        int r;

        if (json_array_size(programs) == 0)
                return 0;
        r = tb_buffer_printf(out, err, "UID=%s\n",
                text(f->view, "swapper",
                        text(f->view, "creator", text(json_array_get(programs, 0), "user", "root"))));
        json_array_foreach ((json_t *) programs, i, p) {
                if (r >= 0)
                        r = tb_buffer_printf(out, err, "AGENT=%s", text(p, "name", ""));
                if (r >= 0 && json_object_get(p, "directory"))
                        r = tb_buffer_printf(out, err, " DIR=%s", text(p, "directory", ""));
                if (r >= 0 && json_object_get(p, "timeout"))
                        r = tb_buffer_printf(out, err, " TIMEOUT=%lld", number(p, "timeout"));
                if (r >= 0 && json_object_get(p, "expected_exit_code"))
                        r = tb_buffer_printf(
                                out, err, " EXPECTED_EXIT_CODE=%lld", number(p, "expected_exit_code"));
                if (r >= 0)
                        r = tb_buffer_printf(out, err, " COMMAND='%s'\n", text(p, "command", ""));
        }
        return r;
}

static int print_syncserver(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        return tb_buffer_printf(out, err, "SYNCSERVER SERVER='%s' ISSERVER=%d\n", f->sync_server,
                tb_streq(f->sync_server, text(f->view, "node", NULL)));
}

/* What filters a container is on the host, where it belongs. */
static int print_firewallinfo(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        return tb_buffer_append_str(out, "TYPE=none\n", err);
}

static int print_userenv(unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        json_t *value;
        const char *key;
        int r = 0;

        json_object_foreach (json_object_get(f->view, "environment"), key, value)
                if (r >= 0)
                        r = tb_buffer_printf(out, err, "%s=%s\n", key, json_string_value(value));
        return r;
}

int tmcd_print(TmcdCommand command, unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err)
{
        static int (*const table[_TMCD_COMMAND_MAX])(
                unsigned version, const TmcdFacts *f, TbBuffer *out, TbError **err) = {
                [TMCD_NODEID] = print_nodeid,
                [TMCD_STATUS] = print_status,
                [TMCD_IFCONFIG] = print_ifconfig,
                [TMCD_ACCOUNTS] = print_accounts,
                [TMCD_HOSTNAMES] = print_hostnames,
                [TMCD_STARTUPCMD] = print_startupcmd,
                [TMCD_READYCOUNT] = print_readycount,
                [TMCD_MOUNTS] = print_mounts,
                [TMCD_ROUTING] = print_routing,
                [TMCD_CREATOR] = print_creator,
                [TMCD_UPDATE] = print_update,
                [TMCD_PROGRAMS] = print_programs,
                [TMCD_SYNCSERVER] = print_syncserver,
                [TMCD_FIREWALLINFO] = print_firewallinfo,
                [TMCD_USERENV] = print_userenv,
        };

        return command >= 0 && command < _TMCD_COMMAND_MAX && table[command]
                ? table[command](version, f, out, err)
                : 0;
}
